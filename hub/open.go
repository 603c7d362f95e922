package hub

import (
	"strings"
	"time"
)

// A room is open while somebody is in it or reads it, and for a time after that, so
// that returning viewers find it warm. Everybody can read any room, and there are as
// many names as one likes: rooms that no viewer has come to are counted, and kept as
// short as they are of use.
const (
	// readLinger is how long a room that is only read stays open: a reader that polls comes
	// every second, or with a cache in between every other one.
	readLinger = 3 * time.Second
	// countLinger is the same for one of which nothing is known but that somebody has asked
	// for its counts: they come within a second, and are there for who asks again.
	countLinger = 2 * time.Second
	// postRooms is how many times Config.ReadRooms rooms those may open who post.
	postRooms = 10
	// maxLingering is how many rooms that everybody has left stay open. With more of
	// them the next rooms are shut at once: one connection can visit thousands
	// of rooms one after the other.
	maxLingering = 1000
)

// acquire opens a room for a viewer, or keeps it open, until Release is called on what
// it returns. It does not wait for the log: see [Room.Ready].
func (h *Hub) acquire(name string) *Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[name]
	if r == nil {
		r = h.open(name)
	} else if r.read {
		r.read = false
		h.read--
	}
	h.hold(r)
	return r
}

// AcquireToRead is for HTTP readers: it opens the room, or keeps it
// open, until Release is called on what it returns. It does not wait for the log: see
// [Room.Ready]. It returns false when the room is not open and Config.ReadRooms
// others are open for nothing but to be read.
func (h *Hub) AcquireToRead(name string) (*Room, bool) {
	return h.acquireUpTo(name, h.cfg.ReadRooms)
}

// AcquireToPost is AcquireToRead for those who come with a token and do something in the room: what
// readers may have open does not keep them out, up to postRooms times as many rooms.
func (h *Hub) AcquireToPost(name string) (*Room, bool) {
	return h.acquireUpTo(name, postRooms*h.cfg.ReadRooms)
}

func (h *Hub) acquireUpTo(name string, most int) (*Room, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[name]
	if r == nil {
		if h.read >= most {
			return nil, false
		}
		r = h.open(name)
		r.read = true
		h.read++
	}
	h.hold(r)
	return r, true
}

// open makes a room. h.mu is held.
func (h *Hub) open(name string) *Room {
	// The name may be a piece of a request, token included, which would be kept with it.
	r := newRoom(h, strings.Clone(name))
	h.rooms[r.name] = r
	h.cfg.Metrics.rooms.Inc()
	r.open()
	return r
}

// hold counts who acquires a room. h.mu is held.
func (h *Hub) hold(r *Room) {
	r.users++
	if r.lingering != nil {
		r.lingering.Stop()
		r.lingering = nil
		h.lingering--
	}
}

// Release undoes one acquire or AcquireToRead.
func (r *Room) Release() {
	h := r.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	r.users--
	if r.users > 0 || h.rooms[r.name] != r {
		return
	}
	linger := h.cfg.Linger
	switch {
	case h.lingering >= maxLingering:
		linger = 0
	case r.read && r.blank():
		linger = min(linger, r.recount())
	case r.read:
		linger = min(linger, readLinger)
	}
	h.lingering++
	// The timer ends with the room or with the next acquire.
	r.lingering = time.AfterFunc(linger, func() { h.drop(r) })
}

// drop shuts a room that nobody has come to while it lingered.
func (h *Hub) drop(r *Room) {
	h.mu.Lock()
	if r.users > 0 || h.rooms[r.name] != r {
		h.mu.Unlock()
		return
	}
	delete(h.rooms, r.name)
	h.lingering--
	if r.read {
		h.read--
	}
	h.wg.Add(1)
	h.mu.Unlock()
	defer h.wg.Done()
	r.shut()
}

// recount is how long a room stays open only for its counts.
func (r *Room) recount() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked {
		return countLinger
	}
	return 0
}

// blank reports whether nothing is known of a room: it has no comments and no state,
// and nobody has been in it. To open it again is cheap. Where no room is opened with
// its comments, none can be told from others.
func (r *Room) blank() bool {
	if r.hub.cfg.Recent == 0 {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range r.views {
		if v.end() > firstOrdinal {
			return false
		}
	}
	return r.state.Rev == 0 && r.counts.PeakUsers == 0
}
