package redispresence

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/protocol"
)

// This file keeps who has been in a room beyond their stay: when a user was first seen there, and
// how many distinct users a broadcast has had.
//
// Both go with the ticks that bring users. The answer tells of each user when that was, so a
// node knows it of all users that it has, and nobody waits for it. A user is new only if
// nothing can have been forgotten: not where the key was lost, nor while presence is younger than
// the room log, for then it was lost or is not older than this version.
//
// The users of a broadcast are a set of up to [Config.DistinctExact], and beyond that a
// HyperLogLog sketch, of which nodes keep a copy. When Redis has lost them nodes write what they
// know: those who are there, those who were there on this node, and the sketch. From then on it
// is an estimate.

// distinctError is the standard error of Redis's sketches, as a part of the whole: 1.04 / √16384.
const distinctError = 0.0081

// bornWith is by how much presence may be younger than the room log and still be of the same
// beginning.
const bornWith = time.Hour

// bornBefore is the last time, in Unix milliseconds, at which presence may have been begun if
// nobody was seen before it; -1: there is none, as far as is known.
func (r *Presence) bornBefore() int64 {
	began := r.cfg.LogBegan()
	if began.IsZero() {
		return -1
	}
	return began.Add(bornWith).UnixMilli()
}

// Broadcast implements [hub.Membership].
func (m *membership) Broadcast(n int64) {
	rm := m.room
	rm.b.mu.Lock()
	defer rm.b.mu.Unlock()
	if m.closed || rm.broadcast == n {
		return
	}
	rm.broadcast, rm.again, rm.past, rm.marks, rm.sketch = n, false, nil, nil, ""
	if n == 0 {
		return
	}
	for id, u := range rm.users { // all who are there are to be counted
		u.stale = u.written
		rm.put(id, u)
	}
	rm.touch()
}

// First implements [hub.Membership].
func (m *membership) First(id string) (at time.Time, known bool) {
	rm := m.room
	rm.b.mu.Lock()
	defer rm.b.mu.Unlock()
	u := rm.users[id]
	if u.first <= 0 {
		return time.Time{}, false
	}
	return time.Unix(u.first, 0), true
}

// remember notes a user of the broadcast who has left. b.mu is held.
func (rm *room) remember(id string) {
	if rm.broadcast == 0 || rm.index || rm.sketch != "" || len(rm.past) >= rm.b.r.cfg.DistinctExact {
		return
	}
	if rm.past == nil {
		rm.past = make(map[string]struct{})
	}
	rm.past[id] = struct{}{}
}

// recount has all counted again who were there in the broadcast: Redis may have lost them.
func (rm *room) recount() {
	if rm.broadcast == 0 || !rm.known {
		return
	}
	rm.again, rm.marks = true, rm.marks[:0]
	for id := range rm.past {
		rm.marks = append(rm.marks, id)
	}
}

// takeMarks takes at most n users out of marks.
func (rm *room) takeMarks(n int, lean bool) []string {
	if lean || n <= 0 {
		return nil
	}
	at := max(len(rm.marks)-n, 0)
	some := rm.marks[at:]
	rm.marks = rm.marks[:at:at]
	return some
}

// hear takes in what an answer says beside counts: since when presence is kept, the feed, and what
// is told of each user whom the batch has brought. b is being flushed.
func (b *bucket) hear(a *answer) {
	if a.gen == "" {
		return
	}
	b.gen, b.regen = a.gen, ""
	if a.feed {
		b.wantFeed()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	told := a.firsts
	for i := range b.pending.parts {
		p := &b.pending.parts[i]
		if p.room.index {
			continue
		}
		here := b.rooms[p.room.name] == p.room // otherwise it was left meanwhile
		for _, g := range p.groups {
			for _, id := range g.ins {
				if len(told) == 0 {
					return // the tick was sent again
				}
				if here {
					p.room.learn(id, told[0])
				}
				told = told[1:]
			}
		}
	}
}

// learn takes in what Redis knows of a user who has come: "first since", each of which may be
// missing.
func (rm *room) learn(id, text string) {
	u, ok := rm.users[id]
	if !ok {
		return
	}
	first, since, rejoined := strings.Cut(text, " ")
	if n, err := strconv.ParseInt(first, 10, 64); err == nil {
		u.first = n
	}
	if n, err := strconv.ParseInt(since, 36, 64); rejoined && err == nil && n > 0 && n < u.since {
		u.since, u.stale = n, u.written // gone for a moment only
	}
	rm.users[id] = u
	if u.stale {
		rm.put(id, u)
		rm.mark()
	}
}

// keepSketches reads the sketches of the rooms in which this node has viewers.
func (b *bucket) keepSketches(ctx context.Context) error {
	const most = 50 // of 12 KiB each
	var rooms []*room
	var casts []int64
	b.mu.Lock()
	for _, rm := range b.list {
		if rm.broadcast > 0 && rm.conns > 0 && len(rooms) < most {
			rooms, casts = append(rooms, rm), append(casts, rm.broadcast)
		}
	}
	b.mu.Unlock()
	if len(rooms) == 0 {
		return nil
	}
	found := make([]*redis.StringCmd, len(rooms))
	err := b.r.call(ctx, opList, func(ctx context.Context) error {
		p := b.r.cfg.Client.Pipeline()
		for i, rm := range rooms {
			found[i] = p.Get(ctx, b.keys.broadcast(rm.name, casts[i])[1])
		}
		// There may be none, or an engine that does not give them away.
		if _, err := p.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) && !answers(err) {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, rm := range rooms {
		if text, err := found[i].Result(); err == nil && text != "" && rm.broadcast == casts[i] {
			rm.sketch, rm.past = text, nil
		}
	}
	return nil
}

// maxSeen is of how many rooms and broadcasts a bucket keeps who was there: those that somebody
// came to last.
const maxSeen = 10_000

// forgetSeen deletes what is kept of rooms and broadcasts in which nobody was for long, or of
// which there are too many.
func (b *bucket) forgetSeen(ctx context.Context) error {
	const most = 500
	return b.r.call(ctx, opList, func(ctx context.Context) error {
		c, seen := b.r.cfg.Client, b.keys.base+"seen"
		till := strconv.FormatInt(b.r.clock()-b.r.cfg.KeepSeen.Milliseconds(), 10)
		old, err := c.ZRangeByScore(ctx, seen, &redis.ZRangeBy{Min: "-inf", Max: till, Count: most}).Result()
		if err != nil {
			return err
		}
		n, err := c.ZCard(ctx, seen).Result()
		if err != nil {
			return err
		}
		if n -= maxSeen; n > int64(len(old)) {
			if old, err = c.ZRange(ctx, seen, 0, min(n, most)-1).Result(); err != nil {
				return err
			}
		}
		if len(old) == 0 {
			return nil
		}
		p := c.Pipeline()
		for _, name := range old {
			if room, n, cast := strings.Cut(name, " "); cast {
				id, _ := strconv.ParseInt(n, 10, 64)
				keys := b.keys.broadcast(room, id)
				p.Unlink(ctx, keys[0], keys[1])
			} else {
				keys := b.keys.first(room)
				p.Unlink(ctx, keys[:]...)
			}
			p.ZRem(ctx, seen, name)
		}
		_, err = p.Exec(ctx)
		return err
	})
}

// distinct counts the users of a broadcast.
func (b *bucket) distinct(ctx context.Context, room string, n int64) (*protocol.Distinct, error) {
	keys := b.keys.broadcast(room, n)
	var set, sketch *redis.IntCmd
	err := b.r.call(ctx, opList, func(ctx context.Context) error {
		p := b.r.cfg.Client.Pipeline()
		set, sketch = p.SCard(ctx, keys[0]), p.PFCount(ctx, keys[1])
		_, err := p.Exec(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	out := &protocol.Distinct{Broadcast: n, Users: set.Val(), Exact: true}
	if sketch.Val() > 0 {
		out.Users, out.Exact, out.Error = sketch.Val(), false, distinctError
	}
	return out, nil
}
