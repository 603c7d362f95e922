package hub

import (
	"sync"
	"sync/atomic"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// maxReplies bounds the replies that may wait for one viewer. They are as many as its
	// requests, and requests are limited; a viewer that asks and does not read is closed.
	maxReplies = 128
	// maxFetch is how many frames of the ring a socket gets at once.
	maxFetch = 16
)

// Viewer is one connection in one room. The zero value is one that has not
// joined; see [Hub.Join]. It is the [Source] of its socket.
type Viewer struct {
	// What a delivery looks at comes first and is 64 bytes long: with a cold line of
	// the processor's cache each, tens of thousands of viewers are as fast as they can be.
	joined  atomic.Bool // it gets what happens: the fields that begin sets are set
	waiting atomic.Bool // there are replies
	mu      sync.Mutex  // of replies
	form    *Form
	room    *Room
	view    *view
	// Owned, like backlog, by the caller of Next; the socket allows one at a time.
	shown *latest // that it was sent; nil: nothing yet
	next  uint64  // the index of the next frame of the ring
	seen  uint64  // the ordinal of the first comment that it was neither sent nor told of

	replies [][]byte // for this viewer alone
	backlog *backlog // what comes before the ring's next frame; nil: nothing
	user    string
	inside  atomic.Bool // it has come in, if only as a late one

	uncounted bool
	place     int // in view.viewers; under Room.mu
}

// backlog is what a viewer has missed: shared chunks, of which it gets its own events only
// behind since.
type backlog struct {
	chunks []chunk
	since  uint64
}

var _ Source = (*Viewer)(nil)

// Send sends a message to this viewer alone, ahead of everything that is for
// everybody. It never blocks.
func (v *Viewer) Send(sock Socket, message []byte) {
	if !v.reply(newFrame([][]byte{message}, nil).bytes(sock.Form())) {
		sock.Close(int(protocol.CloseTooSlow), "too many unread answers")
		return
	}
	sock.Flush()
}

// tell has this viewer alone get a frame when its socket is flushed next. Without
// room for it the viewer misses that frame, as one that is newer follows.
func (v *Viewer) tell(f *Frame) { v.reply(f.bytes(v.form)) }

// reply has something wait for this viewer; false if too much waits.
func (v *Viewer) reply(b []byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.replies) >= maxReplies {
		return false
	}
	v.replies = append(v.replies, b)
	v.waiting.Store(true)
	return true
}

// Next implements [Source]: first the replies to this viewer, then the latest state and
// counts, then the past, then the ring.
func (v *Viewer) Next(dst [][]byte) [][]byte {
	if v.waiting.Load() {
		v.mu.Lock()
		dst = append(dst, v.replies...)
		v.replies = nil
		v.waiting.Store(false)
		v.mu.Unlock()
	}
	if !v.joined.Load() {
		return dst
	}
	if l := v.view.latest.Load(); l != v.shown {
		dst = l.news(dst, v.shown, v.form)
		v.shown = l
		if v.backlog != nil {
			dst = v.past(dst)
		}
	}
	ring := &v.view.ring
	for n := 0; n < maxFetch && v.next < ring.head.Load(); n++ {
		f := ring.get(v.next)
		if f == nil {
			if f = ring.newest(); f == nil {
				continue // the ring moved on between the two looks
			}
			dst = append(dst, v.gap(f))
			dst = v.view.notices.Load().between(dst, v.next, f.index, v.form)
			dst = v.view.last().between(dst, v.next, f.index, v.form)
		}
		v.next, v.seen = f.index+1, f.first+f.comments
		if f.own == nil && f.frame != nil { // as almost always
			dst = append(dst, f.frame.bytes(v.form))
		} else {
			dst = f.append(dst, v, 0)
		}
	}
	return dst
}

// past appends what the viewer has missed.
func (v *Viewer) past(dst [][]byte) [][]byte {
	for i := range v.backlog.chunks {
		dst = v.backlog.chunks[i].append(dst, v, v.backlog.since)
	}
	v.backlog = nil
	return dst
}

// gap tells a viewer that fell off the ring what it was not sent before f. It does not
// say how many comments that are when they lie on both sides of a cut, nor when all of
// them were sampled out: some may have been the viewer's own.
func (v *Viewer) gap(f *frame) []byte {
	missed := 0
	if v.next >= f.cut {
		missed = int(f.first - v.seen)
	}
	v.room.hub.cfg.Metrics.dropped.WithLabelValues(dropSlow).Add(float64(missed))
	return newFrame([][]byte{protocol.Encode(&protocol.Gap{Missed: missed, Cursor: f.before})}, nil).bytes(v.form)
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
