package hub

import (
	"context"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// recallMost bounds the records that a room reads back to know who has said something lately.
	recallMost = 20_000
	// slowSpare is how many users slow mode may remember beyond those of its time, before it
	// forgets these.
	slowSpare = 1024
)

// slow is when users have commented last, in a room in slow mode, by the log's clock. It comes
// from the room's log, so that all nodes know.
type slow struct {
	last map[string]int64 // by the id of the user, Unix milliseconds
	kept int              // how many there were when it was looked through last
}

func (s *slow) spoke(user string, at int64) {
	if s.last == nil {
		s.last = map[string]int64{}
	}
	s.last[user] = max(s.last[user], at)
	if len(s.last) < 2*s.kept+slowSpare {
		return
	}
	for id, then := range s.last {
		if at-then > protocol.MaxSlowMS {
			delete(s.last, id)
		}
	}
	s.kept = len(s.last)
}

// SlowWait is how long a user has to wait before the next comment; 0: not at all.
func (r *Room) SlowWait(user string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.slow.last[user]
	if r.state.SlowMS == 0 || !ok {
		return 0
	}
	wait := time.UnixMilli(last + r.state.SlowMS).Sub(r.hub.cfg.Log.Now())
	return min(max(0, wait), time.Duration(r.state.SlowMS)*time.Millisecond)
}

// Speak says that a user is about to comment, and returns what undoes that: a second comment that
// comes before the log has the first one has to wait too.
func (r *Room) Speak(user string) (undo func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.SlowMS == 0 {
		return func() {}
	}
	had, at := r.slow.last[user], r.hub.cfg.Log.Now().UnixMilli()
	r.slow.spoke(user, at)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.slow.last[user] == at {
			r.slow.last[user] = had
		}
	}
}

// recall finds out who has commented lately, when slow mode begins: from what is in memory, and
// from the log as far back as slow mode reaches. Until that is read it is lenient. Room.mu is held.
func (r *Room) recall() {
	r.slow = slow{}
	v := r.views[staffView]
	for i := range v.items {
		if it := &v.items[i]; it.comment && it.rank == 0 {
			r.slow.spoke(it.author, it.at)
		}
	}
	if r.closed {
		return
	}
	r.hub.wg.Add(1)
	// Ends with its deadline.
	go r.readSpoke(r.epoch, r.hub.cfg.Log.Now().UnixMilli()-r.state.SlowMS)
}

// readSpoke reads who has commented since a time.
func (r *Room) readSpoke(epoch string, since int64) {
	defer r.hub.wg.Done()
	ctx, cancel := context.WithTimeout(context.Background(), r.hub.cfg.JoinWait)
	defer cancel()
	if epoch == "" { // the room is being opened
		if !r.Ready(ctx) {
			return
		}
		r.mu.Lock()
		epoch = r.epoch
		r.mu.Unlock()
	}
	at, with := Position{Seq: EndSeq}, true
	for read := 0; read < recallMost; {
		page, err := r.hub.cfg.Log.Before(ctx, r.name, epoch, at, with, maxPage)
		if err != nil || len(page.Events) == 0 {
			return
		}
		r.mu.Lock()
		for i := range page.Events {
			if e := &page.Events[i]; e.Kind == KindComment && e.At >= since {
				if author, role := protocol.AuthorOf(e.Body); role.Rank() == 0 && r.state.SlowMS > 0 {
					r.slow.spoke(author, e.At)
				}
			}
		}
		r.mu.Unlock()
		if read += len(page.Events); !page.More || page.From.At < since {
			return
		}
		at, with = page.From, false
	}
}
