package redisroster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/kansei-live/kansei/hub"
)

const (
	maxResyncs = 3  // in one round; more says that something else is wrong
	maxOlds    = 16 // predecessors to retire; older ones lapse
)

var errResyncs = errors.New("redis asks again and again to write presence anew")

// round does what is due in the bucket: sends its ticks, reports counts, retires
// and reaps incarnations. What takes longer than an interval is left to the next
// round, so that no lease lapses meanwhile.
func (b *bucket) round(ctx context.Context) error {
	if !b.begin() {
		return nil
	}
	if err := b.ticks(ctx); err != nil {
		return err
	}
	until := b.began.Add(b.r.cfg.Interval)
	if !b.rewriting {
		b.tell()
		if err := b.reapAll(ctx, &b.olds, true, until); err != nil {
			return err
		}
	}
	if err := b.reapAll(ctx, &b.dead, false, until); err != nil {
		return err
	}
	if b.over() {
		return b.retire(ctx)
	}
	return nil
}

// begin begins a round and, when there is something to send and no incarnation,
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
	b.inc, b.live, b.tick, b.seen = b.r.newInc(), true, 0, -1
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
	if err := b.reapAll(ctx, &b.olds, true, time.Time{}); err != nil {
		return err
	}
	if _, err := b.reap(ctx, b.inc, true, time.Time{}); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inc, b.live, b.pending = "", false, nil
	return nil
}

// ticks sends ticks until all that was to be sent when the last one was made is
// sent, or an interval is over.
func (b *bucket) ticks(ctx context.Context) error {
	for resyncs := 0; ; {
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
			continue
		}
		more := b.pending.more
		b.tick++
		b.pending = nil
		b.rewriting = b.rewriting && more
		b.learn(a)
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

// send sends the pending batch with the tick after the last confirmed one.
func (b *bucket) send(ctx context.Context) (answer, error) {
	r, p := b.r, b.pending
	keys := make([]string, 0, len(b.keys.common)+1+len(b.olds)+len(p.keys))
	keys = append(append(keys, b.keys.common...), b.keys.index(b.inc))
	args := make([]any, 0, 9+len(b.olds)+len(p.args))
	args = append(args, b.inc, b.tick, b.tick+1, ms(r.cfg.Lease), b.seen,
		flag(r.now().Sub(b.away) > r.grace()), ms(r.claim()), ms(keepPeak), len(b.olds))
	for _, old := range b.olds {
		keys = append(keys, b.keys.index(old))
		args = append(args, old)
	}
	v, err := r.run(ctx, opTick, r.scripts.tick, append(keys, p.keys...), append(args, p.args...))
	if err != nil {
		return answer{}, err
	}
	return parseAnswer(v)
}

// resync gives the incarnation up and begins to write another one whole.
func (b *bucket) resync(reason string) {
	b.r.resynced(b.n, reason)
	if b.olds = append(b.olds, b.inc); len(b.olds) > maxOlds {
		b.olds = b.olds[1:]
	}
	b.inc, b.tick, b.seen, b.pending, b.rewriting = b.r.newInc(), 0, -1, nil, true
	if reason == resyncLost {
		b.hold = b.began.Add(2 * b.r.cfg.Interval)
	}
	b.rewrite()
}

// learn takes in what a tick was answered with.
func (b *bucket) learn(a answer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = a.version
	if a.lapsed {
		b.away = b.r.now()
	}
	for _, rc := range a.counts {
		rm := b.rooms[rc.room]
		if rm == nil {
			continue
		}
		if !rm.known || !same(rm.counts, rc.counts) {
			rm.report()
		}
		rm.counts, rm.known = rc.counts, true
	}
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
		if b.began.Sub(rm.reported) < b.r.cfg.Interval {
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

// same tells whether two counts differ in nothing but when they were counted.
func same(a, b hub.Counts) bool {
	a.At, b.At = 0, 0
	return a == b
}

// sweep looks after the bucket without having anything in it.
func (b *bucket) sweep(ctx context.Context, mayReap bool) error {
	r := b.r
	v, err := r.run(ctx, opSweep, r.scripts.sweep, b.keys.common, []any{flag(mayReap), ms(r.claim()), ms(keepPeak)})
	if err != nil {
		return err
	}
	incs, ok := texts(any(v))
	if !ok {
		return fmt.Errorf("%w: sweep: %.100q", errAnswer, fmt.Sprint(v))
	}
	return b.reapAll(ctx, &incs, false, time.Time{})
}

// reapAll reaps one incarnation after the other and takes those that are done out
// of the list. It stops when until, if set, has come.
func (b *bucket) reapAll(ctx context.Context, incs *[]string, own bool, until time.Time) error {
	for len(*incs) > 0 {
		if done, err := b.reap(ctx, (*incs)[0], own, until); err != nil || !done {
			return err
		}
		*incs = (*incs)[1:]
	}
	return nil
}

// reap takes an incarnation out of the bucket: one of this node, dead or not, or a
// dead one of another.
func (b *bucket) reap(ctx context.Context, inc string, own bool, until time.Time) (done bool, err error) {
	r := b.r
	var rooms []string
	for until.IsZero() || r.now().Before(until) {
		now := rooms[:min(len(rooms), reapRooms)]
		keys := append(append([]string(nil), b.keys.common...), b.keys.index(inc))
		args := []any{inc, flag(own), ms(r.claim()), ms(keepDead), chunk, len(now)}
		for _, room := range now {
			keys = append(keys, b.keys.users(room), b.keys.set(inc, room))
			args = append(args, room)
		}
		v, err := r.run(ctx, opReap, r.scripts.reap, keys, args)
		if err != nil {
			return false, err
		}
		finished, state, err := parseReaping(v, len(now))
		if err != nil {
			return false, err
		}
		if state != stillGoing {
			if !own && state == nowGone {
				r.metrics.reaped.Inc()
			}
			return true, nil
		}
		if rooms = rooms[finished:]; len(rooms) == 0 {
			err := r.call(ctx, opReap, func(ctx context.Context) (err error) {
				rooms, err = r.cfg.Client.HKeys(ctx, b.keys.index(inc)).Result()
				return err
			})
			if err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// newInc names a new incarnation.
func (r *Roster) newInc() string {
	return r.id + "." + strconv.FormatUint(r.incs.Add(1), 36)
}

// grace is how long a node that was cut off declares nobody dead.
func (r *Roster) grace() time.Duration { return 3 * r.cfg.Interval }

// claim is how long a dead incarnation is left to the node that reaps it.
func (r *Roster) claim() time.Duration { return r.cfg.Lease / 2 }
