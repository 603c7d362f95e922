package hub

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Join is who wants to come in.
type Join struct {
	Room  string
	User  string // the id
	Name  string // for the presence
	Role  protocol.Role
	Staff bool // sees what is meant for the staff
	// Uncounted keeps it out of the counts: it is one of the crew, and no viewer.
	Uncounted bool
	Socket    Socket
	Since     string // a cursor, or empty
	// Wait, if set, is called before Join waits for anything, so that the socket can be
	// started; otherwise it may be started behind Join.
	Wait func()
	// Admit, if set, is called before the viewer comes in, once the room knows its state and its acts. If it
	// returns false the viewer does not. It is not called for a room that does not know them in time.
	Admit func(*Room) bool
	// Welcome makes the first message, which says whether everything after Since
	// follows it.
	Welcome func(recovered bool) []byte
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
// lies before those, from the log (backfill.go). A cursor names a position with its time,
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
	v.form = j.Socket.Form()
	v.view = r.views[audienceView]
	if j.Staff {
		v.view = r.views[staffView]
	}

	var (
		s     resumePoint
		known bool
	)
	if j.Since != "" || !r.isReady() {
		ctx, cancel := context.WithTimeout(ctx, h.cfg.JoinWait)
		defer cancel()
		if j.Wait != nil {
			j.Wait()
		}
		if r.Ready(ctx) && j.Since != "" {
			s, known = r.recover(ctx, v.view, j.Since)
		}
	}

	if j.Admit != nil && r.isReady() && !j.Admit(r) {
		r.Release()
		return false
	}
	// It is counted before it can leave: a leave that came first would do nothing.
	h.cfg.Metrics.viewers.Inc()
	if !v.uncounted {
		members.Join(Member{ID: v.user, Name: j.Name, Role: j.Role})
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
	late := known && s.Seq > v.view.head.Seq && (s.ahead || v.view.head != r.head)
	v.tell(newFrame([][]byte{j.Welcome(known)}, nil))
	if late {
		r.delay(v, s.Seq)
	} else {
		r.begin(v, known, s.Seq)
	}
	v.inside.Store(true)
	r.mu.Unlock()

	j.Socket.Flush()
	return known
}

// begin has a viewer get what happens from now on, and before it what it has to know
// of the past: if its place in the log is known, what the items have after since. Room.mu is
// held.
func (r *Room) begin(v *Viewer, known bool, since uint64) {
	if known && since > v.view.at.Seq {
		// It has seen, on another node, what is in no frame here yet.
		r.makeFrames(v.view, time.Now())
	}
	v.next, v.seen = v.view.ring.head.Load(), v.view.counted
	var past []chunk
	switch {
	case known:
		past = v.view.since(r.encoder(v.view), v.view.after(since))
	case r.epoch != "":
		past, since = v.view.newest(r.encoder(v.view), r.hub.cfg.Recent), 0
		r.tellLasting(v, 0, v.view.at.Seq)
	}
	if len(past) > 0 {
		v.backlog = &backlog{past, since}
	}
	v.joined.Store(true)
}

// recover finds the place of a cursor, from which on the view's items have everything;
// false when the cursor cannot be followed.
func (r *Room) recover(ctx context.Context, v *view, cursor string) (resumePoint, bool) {
	s, known := r.place(ctx, joiner, v, cursor)
	if !known || s.ahead {
		return s, known
	}
	return s, r.catchUp(ctx, v, s)
}
