package hub

import (
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// Join is who wants to come in.
type Join struct {
	Room  string
	User  string // for the presence
	Staff bool   // sees what is meant for the staff
	// Uncounted keeps it out of the counts: it is one of the crew, and no viewer.
	Uncounted bool
	Socket    Socket
	Since     string // a cursor, or empty
	// Wait, if set, is called before Join waits for anything, so that the socket can be
	// started; otherwise it may be started behind Join.
	Wait func()
	// Welcome makes the first message, which says whether everything after Since
	// follows it.
	Welcome func(recovered bool) Frame
}

// Join takes a viewer into a room: its socket gets the welcome, the room's state
// and counts and what the viewer has to know of the past in one write, and from
// then on everything that happens. It waits for the room log for at most
// Config.JoinWait. The caller must call [Viewer.Leave] at the end. It returns
// whether the viewer was recovered, as the welcome says.
//
// # Where a viewer goes on
//
// With a cursor of the log's, behind it: from the room's items, and when it
// lies before those, from the log (past.go). A cursor names a position with its time,
// and the room remembers those of what happened lately; one that it does not remember is
// confirmed with the log's leader (anchor.go). If that is ahead of what this node has
// heard, the node waits until it has heard as much; when that takes too long the viewer
// is welcomed, and its past follows later (late.go).
//
// A cursor is not followed if it is of another room or epoch, or of another past of the
// log, if the leader does not confirm it, if the log has removed events behind it, or if it
// is more than Config.RecoverMax comments old. Then the viewer starts from now, with the
// recent comments.
func (h *Hub) Join(ctx context.Context, v *Viewer, j Join) bool {
	r := h.acquire(j.Room)
	members := r.membership()
	v.room, v.user, v.uncounted = r, j.User, j.Uncounted
	v.deflates = j.Socket.Deflates()
	v.view = r.views[audienceView]
	if j.Staff {
		v.view = r.views[staffView]
	}

	var (
		past  []Frame
		s     spot
		known bool
	)
	if j.Since != "" || !r.isReady() {
		ctx, cancel := context.WithTimeout(ctx, h.cfg.JoinWait)
		defer cancel()
		if j.Wait != nil {
			j.Wait()
		}
		if r.Ready(ctx) && j.Since != "" {
			past, s, known = r.recover(ctx, v.view, j.Since)
		}
	}

	// It is counted before it can leave: a leave that came first would do nothing.
	h.cfg.Metrics.viewers.Inc()
	if !v.uncounted {
		members.Join(v.user)
	}
	r.mu.Lock()
	if v.uncounted {
		r.uncounted++
	}
	if v.view.ring.slots == nil {
		v.view.ring.slots = make([]atomic.Pointer[frame], h.cfg.Ring)
	}
	v.view.admit(v, j.Socket)
	// Between recover and here the items may have moved on past the viewer, if only
	// after a minute, or the log may have become another one; then it is not recovered
	// after all.
	known = known && r.reaches(v.view, s)
	late := known && s.ahead && s.Seq > r.head.Seq
	v.mu.Lock()
	v.lane = append(v.lane, j.Welcome(known).Bytes(v.deflates))
	v.waiting.Store(true)
	v.mu.Unlock()
	if late {
		r.delay(v, s.Seq)
	} else {
		r.begin(v, known, past, s.Seq)
	}
	v.inside.Store(true)
	r.mu.Unlock()

	j.Socket.Flush()
	return known
}

// begin has a viewer get what happens from now on, and before it what it has to know
// of the past: if its place in the log is known, past and what the items have
// after since. Room.mu is held.
func (r *Room) begin(v *Viewer, known bool, past []Frame, since uint64) {
	if known && since > v.view.at.Seq {
		// It has seen, on another node, what is in no frame here yet.
		r.makeFrames(v.view, time.Now())
	}
	v.next, v.seen = v.view.ring.head.Load(), v.view.framed
	switch {
	case known:
		v.backlog = v.view.since(r.encoder(v.view), v.view.after(since))
		if len(past) > 0 { // both are shared
			v.backlog = slices.Concat(past, v.backlog)
		}
	case r.epoch != "":
		v.backlog = v.view.recent(r.encoder(v.view), r.hub.cfg.Recent)
	}
	v.joined.Store(true)
}

// recover finds the place of a cursor. It returns the frames of what the room's
// items do not reach back to, and the spot from which on the items do; false
// when the cursor cannot be followed.
func (r *Room) recover(ctx context.Context, v *view, cursor string) ([]Frame, spot, bool) {
	s, known := r.place(ctx, comer, v, cursor)
	if !known || s.ahead {
		return nil, s, known
	}
	r.mu.Lock()
	floor, missed := v.floor.Seq, int(v.end()-v.after(s.Seq))
	r.mu.Unlock()
	switch {
	case missed > r.hub.cfg.RecoverMax:
		return nil, s, false
	case s.Seq >= floor:
		return nil, s, true
	}
	var frames []Frame
	known = r.readBack(ctx, v, &v.past, s, func(p *past, missed []item, upTo Position, e encoder) {
		frames = p.of(pastKey{s.Seq, upTo.Seq}, missed, e)
		s.Position = upTo
	})
	return frames, s, known
}
