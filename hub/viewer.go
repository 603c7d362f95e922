package hub

import (
	"sync"
	"sync/atomic"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// maxLane bounds what may wait for one viewer alone. Answers are as many as
	// requests, and requests are limited; a viewer that asks and does not read is
	// closed.
	maxLane = 128
	// maxFetch is how many frames of the ring a socket gets at once.
	maxFetch = 16
)

// Viewer is one connection in one room. The zero value is one that has not
// joined; see [Hub.Join]. It is the [Source] of its socket.
type Viewer struct {
	// What a delivery looks at comes first and is 64 bytes long: with a cold line of
	// the processor's cache each, tens of thousands of viewers are as fast as they can be.
	joined   atomic.Bool // it gets what happens: the fields that begin sets are set
	waiting  atomic.Bool // lane has something
	deflates bool
	mu       sync.Mutex // of lane
	room     *Room
	view     *view
	// Owned, like backlog, by whoever is in Next; the socket lets one in at a time.
	shown *shared // the latest that it was sent; nil: nothing yet
	next  uint64  // the index of the next frame of the ring
	seen  uint64  // the ordinal of the first item that it was neither sent nor told of

	lane    [][]byte // for this viewer alone
	backlog []Frame  // of before ring position next; follows the first that is shared
	user    string
	inside  atomic.Bool // it has come in, if only as a late one

	uncounted bool
	place     int // in view.viewers; under Room.mu
}

var _ Source = (*Viewer)(nil)

// Send sends a frame to this viewer alone, ahead of everything that is for
// everybody. It never blocks.
func (v *Viewer) Send(sock Socket, f Frame) {
	v.mu.Lock()
	full := len(v.lane) >= maxLane
	if !full {
		v.lane = append(v.lane, f.Bytes(sock.Deflates()))
		v.waiting.Store(true)
	}
	v.mu.Unlock()
	if full {
		sock.Close(int(protocol.CloseTooSlow), "too many unread answers")
		return
	}
	sock.Flush()
}

// tell has this viewer alone get a frame when its socket is flushed next. Without
// room for it the viewer misses that frame, as one that is newer follows.
func (v *Viewer) tell(f Frame) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.lane) < maxLane {
		v.lane = append(v.lane, f.Bytes(v.deflates))
		v.waiting.Store(true)
	}
}

// Next implements [Source]: first what is for this viewer alone, then the latest
// state and counts, then the past, then the ring.
func (v *Viewer) Next(dst [][]byte) [][]byte {
	if v.waiting.Load() {
		v.mu.Lock()
		dst = append(dst, v.lane...)
		v.lane = nil
		v.waiting.Store(false)
		v.mu.Unlock()
	}
	if !v.joined.Load() {
		return dst
	}
	if s := v.room.shared.Load(); s != v.shown {
		dst = v.news(dst, s)
	}
	ring := &v.view.ring
	for n := 0; n < maxFetch && v.next < ring.head.Load(); n++ {
		f := ring.get(v.next)
		if f == nil {
			if f = ring.newest(); f == nil {
				continue // the ring moved on between the two looks
			}
			dst = append(dst, v.gap(f))
		}
		v.next, v.seen = f.index+1, f.first+f.items
		if f.own != nil {
			dst = f.own.append(dst, f, v)
		} else {
			dst = append(dst, f.Bytes(v.deflates))
		}
	}
	return dst
}

// news appends what is shared and new to the viewer, and the first time its past.
func (v *Viewer) news(dst [][]byte, s *shared) [][]byte {
	had := v.shown
	v.shown = s
	if had == nil || s.state != had.state {
		dst = append(dst, s.state.Bytes(v.deflates))
	}
	if s.counts != nil && (had == nil || s.counts != had.counts) {
		dst = append(dst, s.counts.Bytes(v.deflates))
	}
	for _, f := range v.backlog {
		dst = append(dst, f.Bytes(v.deflates))
	}
	v.backlog = nil
	return dst
}

// newest is the frame that was pushed last.
func (r *ring) newest() *frame { return r.get(r.head.Load() - 1) }

// gap tells a viewer that fell off the ring what it was not sent before f. It does not
// say how many comments that are when they lie on both sides of a cut, nor when all of
// them were sampled out: some may have been the viewer's own.
func (v *Viewer) gap(f *frame) []byte {
	missed := 0
	if v.next >= f.cut {
		missed = int(f.first - v.seen)
	}
	v.room.hub.cfg.Metrics.dropped.WithLabelValues(dropSlow).Add(float64(missed))
	return v.room.hub.cfg.Frame(protocol.Encode(&protocol.Gap{Missed: missed, Cursor: f.before}), false).Plain
}

// Leave takes the viewer out of its room. It may be called at any time, more than
// once, and for one that never joined.
func (v *Viewer) Leave() {
	if !v.inside.Load() {
		return
	}
	r := v.room
	r.mu.Lock()
	if v.place < 0 {
		r.mu.Unlock()
		return
	}
	v.view.remove(v)
	if v.uncounted {
		r.uncounted--
	}
	r.countsFit()
	r.mu.Unlock()
	r.hub.cfg.Metrics.viewers.Dec()
	if !v.uncounted {
		r.members.Leave(v.user)
	}
	r.Release()
}
