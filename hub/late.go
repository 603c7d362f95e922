package hub

import "github.com/kansei-live/kansei/protocol"

// A viewer may come from another node with a cursor ahead of what this one has heard,
// which the log's leader confirms. When this node does not hear as much within
// Config.JoinWait, because it is cut off, the viewer is late: it is in the room and
// welcomed as recovered, is told of the room's state, and gets nothing else until the
// room has come to its place. It would get comments twice otherwise, those between what
// this node has heard and what the viewer has.

// late is a viewer that waits for a position.
type late struct {
	viewer *Viewer
	since  uint64
}

// delay makes a viewer that has just been admitted a late one. Room.mu is held.
func (r *Room) delay(v *Viewer, since uint64) {
	v.view.late = append(v.view.late, late{v, since})
	for _, s := range v.view.latest.Load().slots {
		if s.name == slotState {
			v.tell(s.frame)
		}
	}
}

// beginLate lets the late viewers begin whose place the room has reached. Its frames are
// made, and a flush comes. Room.mu is held.
func (r *Room) beginLate(v *view) {
	var rest []late
	for _, l := range v.late {
		switch {
		case l.since > v.head.Seq:
			rest = append(rest, l)
		case l.since >= v.floor.Seq:
			r.begin(l.viewer, true, l.since)
		default: // what it had to get came at once, and was too much
			l.viewer.tell(r.seal(v, &protocol.Gap{Cursor: makeCursor(r.tag, v.floor)}))
			r.tellLasting(l.viewer, l.since, v.floor.Seq)
			r.begin(l.viewer, true, v.floor.Seq)
		}
	}
	v.late = rest
}

// beginAllLate lets all late viewers begin at the end of the ring: what comes next tells them
// what became of the log. Room.mu is held.
func (v *view) beginAllLate() {
	for _, l := range v.late {
		l.viewer.next, l.viewer.seen = v.ring.head.Load(), v.counted
		l.viewer.joined.Store(true)
	}
	v.late = nil
}

// forget takes a viewer that leaves from among the late ones. Room.mu is held.
func (v *view) forget(viewer *Viewer) {
	for i := range v.late {
		if v.late[i].viewer == viewer {
			v.late = append(v.late[:i], v.late[i+1:]...)
			return
		}
	}
}
