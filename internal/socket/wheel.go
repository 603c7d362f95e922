package socket

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// wheelSlots is how many ticks ahead a connection can be due. Limits further away
// are looked at more than once.
const wheelSlots = 128

// gone is when a connection is due that was let go.
const gone = math.MaxUint32

// wheel holds every connection of a server, each in the slot of the tick at which
// it is due, or in none while it is being looked at. Its lock is a leaf: who holds
// it takes no other.
type wheel struct {
	now atomic.Uint32 // ticks so far

	mu     sync.Mutex
	slots  [wheelSlots]*Conn // lists, linked by wheelNext and wheelPrev
	live   int
	closed bool          // no connection is added any more
	empty  chan struct{} // closed when closed and live is 0
}

// add takes in a connection; false when the wheel is closed.
func (w *wheel) add(c *Conn, at uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.live++
	w.link(c, at)
	return true
}

// forget lets a connection go.
func (w *wheel) forget(c *Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(c)
	c.due.Store(gone)
	w.live--
	w.checkEmpty()
}

// schedule has a connection looked at at a tick, or earlier if it is due earlier.
func (w *wheel) schedule(c *Conn, at uint32) {
	if d := c.due.Load(); d != 0 && d <= at {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		at = 0 // Close may have missed it: look at once
	}
	if d := c.due.Load(); d != 0 && d <= at || d == gone {
		return
	}
	w.unlink(c)
	w.link(c, at)
}

// link puts c into a slot. The caller holds mu.
func (w *wheel) link(c *Conn, at uint32) {
	now := w.now.Load()
	at = min(max(at, now+1), now+wheelSlots-1)
	slot := &w.slots[at%wheelSlots]
	c.wheelNext, c.wheelPrev = *slot, nil
	if *slot != nil {
		(*slot).wheelPrev = c
	}
	*slot = c
	c.due.Store(at)
}

// unlink takes c out of its slot, if it is in one. The caller holds mu.
func (w *wheel) unlink(c *Conn) {
	at := c.due.Load()
	if at == 0 {
		return
	}
	if c.wheelPrev != nil {
		c.wheelPrev.wheelNext = c.wheelNext
	} else {
		w.slots[at%wheelSlots] = c.wheelNext
	}
	if c.wheelNext != nil {
		c.wheelNext.wheelPrev = c.wheelPrev
	}
	c.wheelNext, c.wheelPrev = nil, nil
	c.due.Store(0)
}

// advance moves on by a tick and appends to due the connections to look at.
func (w *wheel) advance(due []*Conn) []*Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now.Add(1)
	for c := w.slots[now%wheelSlots]; c != nil; c = w.slots[now%wheelSlots] {
		w.unlink(c)
		due = append(due, c)
	}
	return due
}

// all lists the connections that are in a slot.
func (w *wheel) all() []*Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := make([]*Conn, 0, w.live)
	for _, c := range w.slots {
		for ; c != nil; c = c.wheelNext {
			list = append(list, c)
		}
	}
	return list
}

// close closes the wheel and reports whether it was open.
func (w *wheel) close() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.closed = true
	w.checkEmpty()
	return true
}

func (w *wheel) checkEmpty() {
	if w.closed && w.live == 0 {
		close(w.empty)
	}
}

func (w *wheel) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

func (w *wheel) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.live
}

// turnWheel looks at what is due, tick by tick, until stop is closed.
func (s *Server) turnWheel(tick time.Duration, stop <-chan struct{}) {
	t := time.NewTicker(tick)
	defer t.Stop()
	var due []*Conn
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		due = s.wheel.advance(due[:0])
		now, closed := s.wheel.now.Load(), s.wheel.isClosed()
		for _, c := range due {
			s.wheel.schedule(c, c.look(now, closed))
		}
		clear(due)
	}
}

// look does what is due for a connection and returns the tick at which to look
// again. closed tells that the server is.
func (c *Conn) look(now uint32, closed bool) uint32 {
	l := &c.srv.limits
	var deadline, progress uint32
	c.mu.Lock()
	if x := c.extra; x != nil {
		deadline, progress = x.deadline, x.progress
	}
	c.mu.Unlock()
	switch {
	case deadline != 0 && (now >= deadline || c.srv.force.Load()):
		c.abort(true)
		return now + l.close
	case deadline != 0:
		return deadline
	case closed:
		c.close(goingAway)
		return now + 1
	}

	heard := c.heard.Load()
	next := heard + l.silence
	if now >= next {
		c.close(Cause{Kind: Silent, Code: int(protocol.CloseTooSlow), Reason: "silent"})
		return now + 1
	}
	if begun := c.begun.Load(); begun != 0 {
		if now >= begun+l.message {
			c.close(Cause{Kind: Unfinished, Code: int(protocol.CloseTooSlow), Reason: "a message took too long"})
			return now + 1
		}
		next = min(next, begun+l.message)
	}
	if progress != 0 {
		if now >= progress+l.write {
			c.close(Cause{Kind: TooSlow, Code: int(protocol.CloseTooSlow), Reason: "too slow"})
			return now + 1
		}
		next = min(next, progress+l.write)
	}
	if c.pinged == heard {
		return next
	}
	if now < heard+l.ping {
		return min(next, heard+l.ping)
	}
	c.pinged = heard
	c.mu.Lock()
	c.wantPing = true
	c.write()
	return next
}
