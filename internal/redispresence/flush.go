package redispresence

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/kansei-live/kansei/hub"
)

const (
	maxResyncs = 3  // in one flush; more says that something else is wrong
	maxOlds    = 16 // predecessors to retire; older ones lapse
)

var errResyncs = errors.New("redis asks again and again to write presence anew")

// flush does what is due in the bucket: sends its ticks, reports counts, retires
// and reaps incarnations. What takes longer than an interval is left to the next
// flush, so that no lease lapses meanwhile.
func (b *bucket) flush(ctx context.Context) error {
	if !b.begin() {
		return nil
	}
	if err := b.ticks(ctx); err != nil {
		return err
	}
	until := b.began.Add(b.r.cfg.Interval)
	if !b.rewriting {
		b.tell()
		if err := b.retireOlds(ctx, until); err != nil {
			return err
		}
	}
	if err := b.reapDead(ctx, &b.dead, until); err != nil {
		return err
	}
	if b.next%tidyEvery == 1 {
		if err := errors.Join(b.keepSketches(ctx), b.forgetSeen(ctx)); err != nil {
			return err
		}
	}
	if b.over() {
		return b.retire(ctx)
	}
	return b.full
}

// begin begins a flush and, when there is something to send and no incarnation,
// takes one. It returns false when there is nothing to do.
func (b *bucket) begin() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.began = b.r.now()
	if b.inc != "" {
		return true
	}
	if len(b.rooms) == 0 {
		return false
	}
	b.inc, b.live, b.mark, b.next, b.seen, b.have = b.r.newInc(), true, firstMark, 1, -1, 0
	return true
}

// over tells that this node has had nothing in the bucket for so long that it may
// leave it.
func (b *bucket) over() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.rooms) == 0 && b.began.Sub(b.lastChange) >= linger*b.r.cfg.Interval
}

// retire gives the bucket's incarnation, and its predecessors, back.
func (b *bucket) retire(ctx context.Context) error {
	if err := b.retireOlds(ctx, time.Time{}); err != nil {
		return err
	}
	if _, err := b.reap(ctx, previous{b.inc, b.have, max(b.seen, 0)}, true, time.Time{}); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inc, b.live, b.pending, b.full = "", false, nil, nil
	return nil
}

// ticks sends ticks until all that was to be sent when the last one was made is
// sent, or an interval is over.
func (b *bucket) ticks(ctx context.Context) error {
	for resyncs, mends := 0, 0; ; {
		if b.pending == nil {
			b.pending = b.collect()
		}
		a, err := b.send(ctx)
		if err != nil {
			return err
		}
		if a.resync != "" {
			if resyncs++; resyncs > maxResyncs {
				return errResyncs
			}
			b.resync(a.resync)
			if a.resync == resyncLost {
				// A Redis that has forgotten all may have been given another number.
				if err := b.r.pin(ctx); err != nil {
					return err
				}
			}
			continue
		}
		more := b.pending.more
		b.hear(&a)
		b.confirmed()
		b.rewriting = b.rewriting && (more || b.full != nil)
		if b.learn(a) && mends < maxResyncs {
			mends++
			more = true
		}
		for _, inc := range a.reap {
			if !slices.Contains(b.dead, inc) {
				b.dead = append(b.dead, inc)
			}
		}
		if !more || b.r.now().Sub(b.began) > b.r.cfg.Interval {
			return nil
		}
	}
}

// send sends the pending batch with the tick after the last confirmed one. A Redis that is
// at maxmemory refuses it; then the batch is sent so that it is not, if it needs no memory,
// or otherwise what of it needs none.
func (b *bucket) send(ctx context.Context) (answer, error) {
	a, err := b.try(ctx, false)
	switch {
	case err == nil:
		if b.full != nil {
			b.full, b.pending.more = nil, true // what has waited goes next
		}
		return a, nil
	case !isFull(err):
		return a, err
	}
	b.full = err
	if b.pending.grows {
		// The number is not used for anything else: an earlier try may still be on its way.
		b.takeBack(b.pending)
		b.next++
		b.pending = b.collect()
	}
	return b.try(ctx, true)
}

// try sends the pending batch once.
func (b *bucket) try(ctx context.Context, full bool) (answer, error) {
	r, p := b.r, b.pending
	keys := make([]string, 0, len(b.keys.common)+1+len(b.olds)+len(p.keys))
	keys = append(append(keys, b.keys.common...), b.keys.index(b.inc))
	look, tidy := b.next%lookEvery == 0, b.next%tidyEvery == tidyEvery/2
	quiet := !look && !tidy && len(b.olds) == 0 && len(p.parts) == 0
	args := make([]any, 0, 21+3*len(b.olds)+len(p.looks)+len(p.rooms))
	args = append(args, b.inc, b.mark, b.nextMark(), ms(r.cfg.Lease), b.seen,
		flag(r.now().Sub(b.away) > r.grace()), flag(quiet), flag(full), b.have,
		ms(r.claim()), ms(keepPeak), ms(keepDead), flag(look), flag(tidy), len(b.olds), r.leaveWait(), b.regen, r.bornBefore(), ms(r.cfg.KeepSeen), max(r.cfg.FirstSeen, 0)/2, r.cfg.DistinctExact)
	for _, old := range b.olds {
		keys = append(keys, b.keys.index(old.inc))
		args = append(args, old.inc, old.rooms, old.upto)
	}
	v, err := r.run(ctx, opTick, r.scripts.tick, append(keys, p.keys...), append(append(args, p.looks...), p.rooms...))
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(v)
}

// firstMark is what the first tick of an incarnation follows.
const firstMark = "0"

// nextMark is what Redis notes of the next tick: its number, and how many rooms the
// incarnation has in its index then.
func (b *bucket) nextMark() string { return strconv.FormatInt(b.next, 10) + " " + strconv.Itoa(b.have) }

// confirmed takes in that the next tick is in force.
func (b *bucket) confirmed() { b.mark, b.next, b.pending = b.nextMark(), b.next+1, nil }

// resync gives the incarnation up and begins to write another one whole.
func (b *bucket) resync(reason string) {
	b.r.resynced(b.n, reason)
	if b.olds = append(b.olds, previous{b.inc, b.have, max(b.seen, 0)}); len(b.olds) > maxOlds {
		b.olds = b.olds[1:]
	}
	b.inc, b.mark, b.next, b.seen, b.pending, b.rewriting = b.r.newInc(), firstMark, 1, -1, nil, true
	if reason != resyncReaped {
		b.regen = b.gen // Redis is not what it was
	}
	if reason == resyncLost {
		b.hold = b.began.Add(2 * b.r.cfg.Interval)
	}
	b.rewrite()
}

// learn takes in what a tick was answered with. It returns whether Redis has lost
// something of this node, or has dropped rooms of it, that is to be written at once.
func (b *bucket) learn(a answer) (lost bool) {
	b.r.ahead.Store(a.now - b.r.now().UnixMilli())
	b.note(a.version)
	b.mu.Lock()
	b.seen = a.version
	if a.lapsed {
		b.away = b.r.now()
	}
	var listed map[string]bool
	if a.all {
		listed = make(map[string]bool, len(a.rooms))
	}
	for _, ra := range a.rooms {
		rm := b.rooms[ra.room]
		if listed != nil {
			listed[ra.room] = true
		}
		if rm == nil { // the index has a room that this node has left
			rm = b.add(ra.room)
			rm.indexed, rm.whole = true, false
			b.have++
			rm.mark()
			lost = true
			continue
		}
		if rm.indexed && !rm.whole && b.compare(rm, ra, a.version) {
			lost = true
		}
	}
	for _, rm := range b.list {
		if listed == nil {
			break
		}
		if rm.indexed && !rm.whole && !listed[rm.name] {
			b.compare(rm, roomAnswer{gen: a.version}, a.version)
			lost = true
		}
	}
	b.mu.Unlock()
	if lost {
		b.r.resynced(b.n, resyncKeys)
	}
	return lost
}

// compare compares what this node has written of a room with what Redis holds, and takes
// the counts if both are the same. Otherwise the room is written whole. b.mu is held.
func (b *bucket) compare(rm *room, ra roomAnswer, version int64) (differs bool) {
	if rm.gen != 0 && rm.gen != ra.gen {
		rm.hold = b.began.Add(2 * b.r.cfg.Interval)
	}
	rm.gen = ra.gen
	switch {
	case ra.gen == 0 || ra.own.gen != 0 && ra.own.gen != ra.gen:
		rm.anew(0)
		return true
	case ra.own != written{ra.gen, rm.sent, rm.wrote}:
		rm.anew(version)
		return true
	}
	if !rm.known || !same(rm.counts, ra.counts) {
		rm.report()
	}
	rm.counts, rm.known = ra.counts, true
	return false
}

// tell reports counts that are new.
func (b *bucket) tell() {
	type report struct {
		to     func(hub.Counts)
		counts hub.Counts
	}
	var reports []report
	b.mu.Lock()
	if b.began.Before(b.hold) {
		b.mu.Unlock()
		return
	}
	later := b.news[:0]
	for _, rm := range b.news {
		if b.began.Sub(rm.reported) < b.r.cfg.Interval || b.began.Before(rm.hold) {
			later = append(later, rm)
			continue
		}
		rm.queued = false
		for _, m := range rm.members {
			if !m.told || !same(m.last, rm.counts) {
				m.told, m.last = true, rm.counts
				rm.reported = b.began
				reports = append(reports, report{m.counts, rm.counts})
			}
		}
	}
	clear(b.news[len(later):])
	b.news = later
	b.mu.Unlock()
	for _, r := range reports {
		r.to(r.counts)
	}
}

// same reports whether two counts differ in nothing but when they were counted.
func same(a, b hub.Counts) bool {
	a.At, b.At = 0, 0
	return a == b
}

// sweep looks after the bucket without having anything in it.
func (b *bucket) sweep(ctx context.Context, mayReap bool) error {
	r := b.r
	v, err := r.run(ctx, opSweep, r.scripts.sweep, b.keys.common,
		[]any{flag(mayReap), ms(r.claim()), ms(r.cfg.Lease), ms(keepPeak), ms(keepDead), r.leaveWait(), r.id})
	if err != nil {
		return err
	}
	incs, ok := texts(any(v))
	if !ok {
		return fmt.Errorf("%w: sweep: %.100q", errAnswer, fmt.Sprint(v))
	}
	if len(incs) > 0 && incs[0] == "" {
		incs = incs[1:]
		b.wantFeed()
	}
	if err := b.forgetSeen(ctx); err != nil {
		return err
	}
	return b.reapDead(ctx, &incs, time.Time{})
}

// reapDead takes dead incarnations of others out, one after the other, and those that are
// done out of the list. It stops when until, if set, has come.
func (b *bucket) reapDead(ctx context.Context, incs *[]string, until time.Time) error {
	for len(*incs) > 0 {
		if done, err := b.reap(ctx, previous{inc: (*incs)[0]}, false, until); err != nil || !done {
			return err
		}
		*incs = (*incs)[1:]
	}
	return nil
}

// retireOlds does the same with this node's own previous incarnations.
func (b *bucket) retireOlds(ctx context.Context, until time.Time) error {
	for len(b.olds) > 0 {
		if done, err := b.reap(ctx, b.olds[0], true, until); err != nil || !done {
			return err
		}
		b.olds = b.olds[1:]
	}
	return nil
}

// piece is a part of what an incarnation has of a room: a shard of its share, or the set of
// an older version.
type piece struct {
	room, key string
	set, last bool
}

// pieces are those of an incarnation, as its index names them.
func (b *bucket) pieces(inc string, index map[string]string) []piece {
	var out []piece
	for room, text := range index {
		at, ok := parseShape(text)
		if !ok {
			out = append(out, piece{room, b.keys.set(inc, room), true, true})
			continue
		}
		for _, sh := range at.all() {
			out = append(out, piece{room: room, key: b.keys.shard(inc, room, sh)})
		}
		out[len(out)-1].last = true
	}
	return out
}

// parseShape reads the shape of a share from the index; false if it is of an older version.
func parseShape(text string) (shape, bool) {
	var conns, gen, users, depth, split int64
	if err := parseNumbers(text, &conns, &gen, &users, &depth, &split); err != nil || depth > maxDepth || split >= 1<<(levelBits*depth) {
		return shape{}, false
	}
	return shape{uint32(depth), uint32(split)}, true
}

// reap takes an incarnation out of the bucket: one of this node, dead or not, or a
// dead one of another.
func (b *bucket) reap(ctx context.Context, p previous, own bool, until time.Time) (done bool, err error) {
	r := b.r
	var pieces []piece
	believed := false // what the index has is all there is
	for until.IsZero() || r.now().Before(until) {
		some := pieces[:min(len(pieces), reapPieces)]
		keys := append(append([]string(nil), b.keys.common...), b.keys.index(p.inc))
		args := []any{p.inc, flag(own), ms(r.claim()), ms(keepDead), chunk, p.rooms, p.upto, flag(believed), r.leaveWait(), len(some)}
		for _, x := range some {
			keys = append(keys, b.keys.users(x.room), x.key)
			kind := "m"
			if x.set {
				kind = "s"
			}
			args = append(args, x.room, kind, flag(x.last))
		}
		v, err := r.run(ctx, opReap, r.scripts.reap, keys, args)
		if err != nil {
			return false, err
		}
		finished, state, upto, err := parseReaping(v, len(some))
		if err != nil {
			return false, err
		}
		switch state {
		case nowGone, notDead:
			if !own && state == nowGone {
				r.metrics.reaped.Inc()
			}
			return true, nil
		case inDoubt:
			if err := b.renew(ctx, p.inc, upto); err != nil {
				return false, err
			}
			believed = true
			continue
		}
		if pieces = pieces[finished:]; len(pieces) == 0 {
			index, err := b.fields(ctx, b.keys.index(p.inc))
			if err != nil {
				return false, err
			}
			pieces = b.pieces(p.inc, index)
		}
	}
	return false, nil
}

// renew has all rooms written anew that an incarnation may have been in, which has lost
// its index. It is done again by the node that reaps the incarnation next when it is not done
// to the end. Of a large share shards may stay that count for nothing.
func (b *bucket) renew(ctx context.Context, inc string, upto int64) error {
	r := b.r
	counts, err := b.fields(ctx, b.keys.counts())
	if err != nil {
		return err
	}
	for part := range slices.Chunk(slices.Collect(maps.Keys(counts)), reapPieces) {
		keys := append([]string(nil), b.keys.common...)
		args := []any{upto, r.leaveWait()}
		for _, room := range part {
			keys = append(keys, b.keys.users(room), b.keys.set(inc, room), b.keys.shard(inc, room, shape{}.shard(0)))
			args = append(args, room)
		}
		if _, err := r.run(ctx, opReap, r.scripts.renew, keys, args); err != nil {
			return err
		}
	}
	return nil
}

// fields returns a hash.
func (b *bucket) fields(ctx context.Context, key string) (all map[string]string, err error) {
	err = b.r.call(ctx, opReap, func(ctx context.Context) (err error) {
		all, err = b.r.cfg.Client.HGetAll(ctx, key).Result()
		return err
	})
	return all, err
}

// newInc names a new incarnation.
func (r *Presence) newInc() string {
	return r.id + "." + strconv.FormatUint(r.incs.Add(1), 36)
}

// grace is how long a node that was cut off declares nobody dead.
func (r *Presence) grace() time.Duration { return 3 * r.cfg.Interval }

// claim is how long a dead incarnation is left to the node that reaps it.
func (r *Presence) claim() time.Duration { return r.cfg.Lease / 2 }
