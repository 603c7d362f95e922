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
	room *Room
	view *view
	sock Socket
	user string

	joined   atomic.Bool // the fields above and below are set
	deflates bool
	place    int // in view.viewers; under Room.mu

	mu   sync.Mutex
	lane [][]byte // for this viewer alone

	// Owned by whoever is in Next; the socket lets one in at a time.
	backlog []Frame // what came before ring position next
	state   *Frame  // the latest it was sent
	counts  *Frame
	next    uint64 // the index of the next frame of the ring
	seen    uint64 // the ordinal of the first item that it was neither sent nor told of
}

var _ Source = (*Viewer)(nil)

// Send sends a frame to this viewer alone, ahead of everything that is for
// everybody. It never blocks.
func (v *Viewer) Send(sock Socket, f Frame) {
	v.mu.Lock()
	full := len(v.lane) >= maxLane
	if !full {
		v.lane = append(v.lane, f.Bytes(sock.Deflates()))
	}
	v.mu.Unlock()
	if full {
		sock.Close(int(protocol.CloseTooSlow), "too many unread answers")
		return
	}
	sock.Flush()
}

// Next implements [Source]: first what is for this viewer alone, then the latest
// state and counts, then the past, then the ring.
func (v *Viewer) Next(dst [][]byte) [][]byte {
	v.mu.Lock()
	dst = append(dst, v.lane...)
	v.lane = nil
	v.mu.Unlock()
	if !v.joined.Load() {
		return dst
	}
	if f := v.room.stateFrame.Load(); f != v.state {
		v.state = f
		dst = append(dst, f.Bytes(v.deflates))
	}
	if f := v.room.countsFrame.Load(); f != v.counts {
		v.counts = f
		dst = append(dst, f.Bytes(v.deflates))
	}
	for _, f := range v.backlog {
		dst = append(dst, f.Bytes(v.deflates))
	}
	v.backlog = nil

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
			dst = append(dst, f.own.bytes(f, v))
		} else {
			dst = append(dst, f.Bytes(v.deflates))
		}
	}
	return dst
}

// newest is the frame that was pushed last.
func (r *ring) newest() *frame { return r.get(r.head.Load() - 1) }

// gap tells a viewer that fell off the ring what it was not sent before f.
func (v *Viewer) gap(f *frame) []byte {
	missed := int(f.first - v.seen)
	v.room.hub.cfg.Metrics.dropped.WithLabelValues(dropSlow).Add(float64(missed))
	return v.room.hub.cfg.Frame(protocol.Encode(&protocol.Gap{Missed: missed, Cursor: f.before}), false).Plain
}

// Leave takes the viewer out of its room. It may be called at any time, more than
// once, and for one that never joined.
func (v *Viewer) Leave() {
	if !v.joined.Load() {
		return
	}
	r := v.room
	r.mu.Lock()
	if v.place < 0 {
		r.mu.Unlock()
		return
	}
	list := v.view.viewers
	last := list[len(list)-1]
	list[v.place], last.place = last, v.place
	list[len(list)-1] = nil
	v.view.viewers = list[:len(list)-1]
	v.place = -1
	if v.deflates {
		v.view.deflating--
	}
	r.mu.Unlock()
	r.hub.cfg.Metrics.viewers.Dec()
	r.members.Leave(v.user)
	r.Release()
}
