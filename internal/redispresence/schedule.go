package redispresence

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// gather is how long the first change waits for those that come with it: a room is
// opened just before its first viewer joins.
const gather = 5 * time.Millisecond

// wake has a flush begin as early as changes may be sent. Its caller holds mu.
func (b *bucket) wake() {
	if b.urgent {
		return
	}
	b.urgent = true
	if b.busy {
		return
	}
	at := b.r.now().Add(gather)
	if next := b.lastChange.Add(b.r.cfg.Interval); next.After(at) {
		at = next
	}
	b.arm(at)
}

// arm sets the time of the next flush. Its caller holds mu.
func (b *bucket) arm(at time.Time) {
	if b.closed {
		return
	}
	wait := max(at.Sub(b.r.now()), 0)
	if b.timer == nil {
		b.timer = time.AfterFunc(wait, b.enqueue)
		return
	}
	b.timer.Reset(wait)
}

// enqueue hands the bucket to the goroutines that flush. Either queue has room
// for every bucket.
func (b *bucket) enqueue() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy || b.closed {
		return
	}
	b.busy = true
	if b.fails > 0 {
		b.r.sick <- b
	} else {
		b.r.due <- b
	}
}

// work flushes the buckets that come through queue.
func (r *Presence) work(ctx context.Context, queue <-chan *bucket) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-queue:
			err := r.pinned(ctx)
			if err == nil {
				err = b.flush(ctx)
			}
			if ctx.Err() != nil {
				return
			}
			r.note(b.n, b.finish(err), err)
		}
	}
}

// finish plans the flush after this one and returns how many failed in a row.
func (b *bucket) finish(err error) int {
	interval := b.r.cfg.Interval
	b.mu.Lock()
	defer b.mu.Unlock()
	b.busy, b.silent = false, err != nil && !answers(err) && !errors.Is(err, errPinned) && !errors.Is(err, errNewer)
	if b.full != nil && errors.Is(err, b.full) {
		// It answers, and what it can take it has taken. What waits is tried once an interval.
		b.fails++
		b.urgent = true
		b.arm(b.began.Add(interval))
		return b.fails
	}
	if err != nil {
		// Spread, so that the nodes do not return in step.
		b.fails++
		wait := interval * time.Duration(min(b.fails, 4)) / 4
		b.away, b.urgent = b.r.now(), true
		b.arm(b.away.Add(wait + rand.N(wait+1)))
		return b.fails
	}
	b.fails = 0
	b.urgent = len(b.dirty) > 0
	switch {
	case b.urgent:
		b.arm(b.lastChange.Add(interval))
	case b.live:
		b.arm(b.r.align(b.began.Add(interval)))
	}
	return 0
}

// align moves the time of a flush in which nothing may have changed to one at which
// others are due as well, four times an interval: a node is woken once for many buckets
// then. It moves back by a little of what the last flush came late, never forward by
// more than a quarter of an interval.
func (r *Presence) align(at time.Time) time.Time {
	step, late := r.cfg.Interval/4, r.cfg.Interval/20
	off := at.Sub(r.began)
	return r.began.Add((off - late + step - 1) / step * step)
}

// sweep looks after one bucket an interval, in turn, among those in which this
// node has nothing.
func (r *Presence) sweep(ctx context.Context) {
	next, fails := rand.N(len(r.buckets)), 0
	var away time.Time
	for {
		err := r.check(ctx)
		if b := r.unused(&next); b != nil && err == nil {
			if err = b.sweep(ctx, r.now().Sub(away) > r.grace()); err != nil {
				away = r.now()
			}
		}
		if fails++; err == nil {
			fails = 0
		}
		if ctx.Err() == nil {
			r.note(sweeping, fails, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(r.cfg.Interval + rand.N(r.cfg.Interval/10+1)):
		}
	}
}

// unused returns the next bucket, from *next on, in which this node has nothing.
func (r *Presence) unused(next *int) *bucket {
	for range r.buckets {
		b := r.buckets[*next]
		*next = (*next + 1) % len(r.buckets)
		b.mu.Lock()
		live := b.live
		b.mu.Unlock()
		if !live {
			return b
		}
	}
	return nil
}
