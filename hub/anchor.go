package hub

import (
	"context"
	"errors"
	"sort"
	"time"
)

// This file finds out whether a position is one of the log's. When a node dies, tens of
// thousands come back to the others at once, so most of them must be answered from
// memory, and the log is asked once for all that bring the same cursor.

const (
	// keepTrail is how many positions each half of a trail has, 16 bytes each: those
	// of the last half minute in a room with 500 events a second.
	keepTrail = 1 << 14
	// keepAnswers is how many answers about positions a room keeps for viewers, and as many
	// again for HTTP readers: the cursors of one node that died are as many as it sent
	// frames to viewers in the last seconds.
	keepAnswers = 1024
	// A position that the log has is not asked about again for a while. One that it
	// has not may be there in a moment, when the log has just got another leader.
	keepYes = 10 * time.Second
	keepNo  = time.Second
	// maxAsking is how many positions, of all rooms together, the log is asked about
	// at once for viewers, and as many again for HTTP readers.
	maxAsking = 64
)

// asker is who wants to know of a position. Anybody may poll with any number of made-up
// cursors: viewers share no questions with HTTP readers.
type asker uint8

const (
	joiner asker = iota
	poller
	askers
)

// trail is the positions of everything that the log has reported of a room lately, in
// order, whatever their audience. When its younger half is full or keepItems old it becomes
// the older one.
type trail struct {
	old, young []Position
	turned     time.Time
}

func (t *trail) add(p Position, now time.Time) {
	if n := len(t.young); n > 0 && p.Seq <= t.young[n-1].Seq || !p.Known() {
		return
	}
	if len(t.young) >= keepTrail || len(t.young) > 0 && now.Sub(t.turned) > keepItems {
		t.old, t.young = t.young, nil
	}
	if len(t.young) == 0 {
		t.turned = now
	}
	t.young = append(t.young, p)
}

// find returns the position with a sequence.
func (t *trail) find(seq uint64) (Position, bool) {
	half := t.young
	if len(half) == 0 || seq < half[0].Seq {
		half = t.old
	}
	i := sort.Search(len(half), func(i int) bool { return half[i].Seq >= seq })
	if i == len(half) || half[i].Seq != seq {
		return Position{}, false
	}
	return half[i], true
}

// remembers judges a position by what the room remembers: whether it is right, and
// whether that is sure. Room.mu is held.
func (r *Room) remembers(v *view, p Position) (right, sure bool) {
	if p.Seq == 0 || p == r.head || p == v.floor {
		return true, true
	}
	if q, ok := r.trail.find(p.Seq); ok {
		return p == q, true
	}
	// The recent items may be older than the trail.
	if i := sort.Search(len(v.items), func(i int) bool { return v.items[i].seq >= p.Seq }); i < len(v.items) && v.items[i].seq == p.Seq {
		return p == v.items[i].position(), true
	}
	return false, false
}

// question is one that the log's leader is asked for all who want to know.
type question struct {
	done chan struct{} // closed when the fields below are set
	got  Anchor
	err  error
	till time.Time // when the answer is too old
}

// answered reports whether a question has an answer, of any age.
func (q *question) answered() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

var errClosed = errors.New("hub: the room is closed")

// ask asks the log's leader about a position, or waits for the answer if it
// was asked already. The question outlives the context of its first caller.
func (r *Room) ask(ctx context.Context, by asker, p Position, epoch string) (Anchor, error) {
	r.mu.Lock()
	q := r.questions[by][p]
	if q == nil || q.answered() && time.Now().After(q.till) {
		if r.closed {
			r.mu.Unlock()
			return AnchorNone, errClosed
		}
		q = &question{done: make(chan struct{})}
		r.keep(by, p, q)
		r.hub.wg.Add(1)
		// Ends with its deadline.
		go r.answer(q, by, p, epoch)
	}
	r.mu.Unlock()
	select {
	case <-q.done:
		return q.got, q.err
	case <-ctx.Done():
		return AnchorNone, ctx.Err()
	}
}

// keep remembers a question. Too many that are still being asked are not remembered:
// somebody waits for each. Room.mu is held.
func (r *Room) keep(by asker, p Position, q *question) {
	all := r.questions[by]
	if len(all) >= keepAnswers {
		for k, q := range all {
			if q.answered() {
				delete(all, k)
			}
		}
	}
	if all == nil {
		all = make(map[Position]*question)
		r.questions[by] = all
	}
	if len(all) < keepAnswers {
		all[p] = q
	}
}

func (r *Room) answer(q *question, by asker, p Position, epoch string) {
	defer r.hub.wg.Done()
	ctx, cancel := context.WithTimeout(context.Background(), r.hub.cfg.JoinWait)
	defer cancel()
	select {
	case r.hub.asking[by] <- struct{}{}:
		q.got, q.err = r.hub.cfg.Log.Has(ctx, r.name, epoch, p)
		<-r.hub.asking[by]
	case <-ctx.Done():
		q.err = ctx.Err()
	}
	keep := keepYes
	if q.got == AnchorNone {
		keep = keepNo
	}
	q.till = time.Now().Add(keep)
	close(q.done)
	if q.err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.questions[by][p] == q {
		delete(r.questions[by], p)
	}
}
