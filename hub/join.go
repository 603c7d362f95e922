package hub

import (
	"context"
	"sync/atomic"
	"time"
)

// Join is who wants to come in.
type Join struct {
	Room   string
	User   string // for the roster
	Staff  bool   // sees what is meant for the staff
	Socket Socket
	Since  string // a cursor, or empty
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
// With a cursor that the room knows, behind it: from the room's items, and when it
// lies before those, from the log (past.go). A cursor ahead of what
// this node has heard is confirmed with the log's leader, and then this node waits
// until it has heard as much. A cursor of another room or epoch, one that the
// leader does not confirm, and one that is more than Config.RecoverMax comments
// old, are not followed: the viewer starts from now, with the recent comments.
func (h *Hub) Join(ctx context.Context, v *Viewer, j Join) bool {
	r := h.Acquire(j.Room)
	v.room, v.user = r, j.User
	v.deflates = j.Socket.Deflates()
	v.view = r.views[audienceView]
	if j.Staff {
		v.view = r.views[staffView]
	}

	var past []Frame
	since, known := uint64(0), false
	if j.Since != "" || !r.isReady() {
		ctx, cancel := context.WithTimeout(ctx, h.cfg.JoinWait)
		defer cancel()
		if j.Wait != nil {
			j.Wait()
		}
		if r.Ready(ctx) && j.Since != "" {
			past, since, known = r.recover(ctx, v.view, j.Since)
		}
	}

	r.mu.Lock()
	if v.view.ring.slots == nil {
		v.view.ring.slots = make([]atomic.Pointer[frame], h.cfg.Ring)
	}
	v.view.admit(v, j.Socket)
	// Between recover and here the items may have moved on past the viewer, if
	// only after a minute; then it is not recovered after all.
	known = known && since >= v.view.floor
	if known && since > v.view.at {
		// It has seen, on another node, what is in no frame here yet.
		r.makeFrames(v.view, time.Now())
	}
	v.next, v.seen = v.view.ring.head.Load(), v.view.framed
	switch {
	case known:
		v.backlog = append(past, v.view.since(r.encoder(v.view), v.view.after(since))...)
	case r.epoch != "":
		v.backlog = v.view.recent(r.encoder(v.view), h.cfg.Recent)
	}
	v.mu.Lock()
	v.lane = append(v.lane, j.Welcome(known).Bytes(v.deflates))
	v.waiting.Store(true)
	v.mu.Unlock()
	v.joined.Store(true)
	r.mu.Unlock()

	h.cfg.Metrics.viewers.Inc()
	r.members.Join(v.user)
	j.Socket.Flush()
	return known
}

// recover finds the place of a cursor. It returns the frames of what the room's
// items do not reach back to, and the position from which on the items do; false
// when the cursor cannot be followed.
func (r *Room) recover(ctx context.Context, v *view, cursor string) ([]Frame, uint64, bool) {
	since, ok := r.place(ctx, cursor)
	if !ok {
		return nil, 0, false
	}
	tag := cursor[:tagLen]
	r.mu.Lock()
	floor, ahead := v.floor, int(v.end()-v.after(since))
	same := r.tag == tag
	r.mu.Unlock()
	switch {
	case !same || ahead > r.hub.cfg.RecoverMax:
		return nil, 0, false
	case since >= floor:
		return nil, since, true
	}
	return r.readBack(ctx, v, tag, since)
}

// await waits until this node has heard of a position that it has not heard of
// yet, if the log's leader has.
func (r *Room) await(ctx context.Context, seq uint64) bool {
	last, err := r.hub.cfg.Log.Last(ctx, r.name)
	if err != nil || seq > last {
		return false
	}
	// Repair at the tail takes a second or two; looking is cheap and rare.
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		r.mu.Lock()
		head := r.head
		r.mu.Unlock()
		if head >= seq {
			return true
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return false
		}
	}
}
