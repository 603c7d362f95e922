package socket

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kansei-live/kansei/hub"
)

var _ hub.Socket = (*Conn)(nil)

// Handler is what a connection works for.
type Handler interface {
	// Next is called by the caller of Flush or Close, from within that
	// call, or by a goroutine of the connection.
	hub.Source
	// Message takes one whole text message. p is valid during the call only. Calls
	// never overlap, and hold up nothing but this connection and the end of the
	// server. What comes after Close was called is discarded.
	Message(p []byte)
	// Closed is called once, last: no other call is under way or follows.
	Closed(Cause)
}

// Conn is one connection. Its methods may be called from any goroutine, from
// within the handler's methods too, and never block.
//
// There are tens of thousands of them, almost all idle: what few of them need at a
// time is in extra.
type Conn struct {
	// What a delivery looks at comes first and is 64 bytes long: with a cold line of
	// the processor's cache each, tens of thousands of viewers are as fast as they can be.
	mu    sync.Mutex
	srv   *Server
	nc    *netConn // nil: there is only the descriptor fd, which the connection owns
	h     Handler
	extra *extra
	// The reader, the holder of the writer's token and, while ended is not set,
	// whoever holds mu may use fd.
	fd         int32
	closing    atomic.Bool // there is a cause: set under mu, messages do not matter any more
	reading    bool        // the reader was started
	busy       bool        // somebody holds the writer's token
	unwritable bool        // nothing may be written any more
	ended      bool        // the reader has ended, and Closed is or will be called
	want       bool        // the source is to be asked
	wantPing   bool        // a ping is to be sent
	aborted    bool        // fd was shut down, whatever the peer does
	shard      uint8       // of the counters

	generation uint32      // tells the connection from others that had the same descriptor
	armed      atomic.Bool // one report that there is something to read is to come

	// Under the wheel's lock.
	wheelNext, wheelPrev *Conn
	due                  atomic.Uint32 // the tick to look at it; 0: in no slot

	// Ticks, for the wheel to see.
	heard  atomic.Uint32 // when bytes came last
	begun  atomic.Uint32 // when the unfinished message began; 0: none is unfinished
	pinged uint32        // the wheel's own: the silence that a ping was sent for

	dec decoder // the reader's own
}

// extra is what a connection has while something is waiting to be written, while
// it is behind, and from its cause on. It is under the connection's mu.
type extra struct {
	answer   []byte        // the answer to the handshake, which precedes all frames
	pong     []byte        // the pong to be sent: a frame
	last     []byte        // the close frame to be sent
	idle     chan struct{} // closed when the token is given back; nil: nobody waits
	cause    *Cause        // the first one
	writeErr error         // why the peer takes nothing any more
	deadline uint32        // the tick at which the connection is ended by force; 0: none
	progress uint32        // the tick when the peer took something last; 0: it is not behind
	waiting  *batch        // goes on when the peer takes something again
	said     bool          // the close frame is written
	heard    bool          // the peer's close frame has come, or would not be found
}

// netConn is a connection that is used through package net.
type netConn struct{ net.Conn }

// more is the connection's extra. The caller holds mu.
func (c *Conn) more() *extra {
	if c.extra == nil {
		c.extra = new(extra)
	}
	return c.extra
}

// Lengthen lets the peer send messages of up to Config.MaxLong. It is called before Start.
func (c *Conn) Lengthen() { c.dec.long = true }

// Start begins to read and returns at once. It is called once, or never if the
// connection is closed instead. When it has ended by then, Closed is called before
// Start returns.
func (c *Conn) Start(h Handler) {
	c.mu.Lock()
	c.h = h
	if c.ended {
		cause := *c.extra.cause
		c.mu.Unlock()
		h.Closed(cause)
		return
	}
	c.read()
	c.write()
}

// Flush fetches what the handler's source has, to the last, and writes it. It may
// call Next before it returns. A Flush before Start takes effect with Start; one
// before Close has its frames sent before the close frame, as many as one call of
// Next returns; one after Close has no effect.
func (c *Conn) Flush() {
	c.mu.Lock()
	if !c.closing.Load() {
		c.want = true
	}
	c.write()
}

// Form implements [hub.Socket]: [Deflated] if the peer takes deflated frames.
func (c *Conn) Form() *hub.Form {
	if c.dec.deflates {
		return Deflated
	}
	return Plain
}

// Silence is for how long nothing has been heard of the peer, to within a tick of the server.
func (c *Conn) Silence() time.Duration {
	return time.Duration(c.srv.wheel.now.Load()-c.heard.Load()) * c.srv.config.tick()
}

// Close ends the connection with a close frame. Only the first call counts, and
// none after the connection was closed for another reason. A code that may not
// stand in a close frame is replaced by 1011, a reason of more than 123 bytes is
// cut. A connection that is not started may be closed.
func (c *Conn) Close(code int, reason string) {
	code, reason = sendable(code, reason)
	c.close(Cause{Kind: ClosedByServer, Code: code, Reason: reason})
}

// CloseSoon is Close for a peer that is not let in. The peer has 2 s to close, however long
// others have: there may be any number of peers that never do.
func (c *Conn) CloseSoon(code int, reason string) {
	code, reason = sendable(code, reason)
	c.closeWithin(Cause{Kind: ClosedByServer, Code: code, Reason: reason}, c.srv.limits.refuse)
}

// close ends the connection with a close frame that bears the cause's code, unless
// it has a cause already.
func (c *Conn) close(cause Cause) { c.closeWithin(cause, c.srv.limits.close) }

// closeWithin is close with so many ticks until the connection is aborted.
func (c *Conn) closeWithin(cause Cause, ticks uint32) {
	c.mu.Lock()
	if c.closing.Load() {
		c.mu.Unlock()
		return
	}
	c.closing.Store(true)
	x := c.more()
	x.cause = &cause
	reason := cause.Reason
	if cause.Kind == ClosedByPeer {
		reason = "" // the answer repeats the code alone
	}
	x.last = closeFrame(cause.Code, reason)
	if cause.Kind != ClosedByServer {
		c.want = false
	}
	c.setDeadline(ticks)
	c.read() // somebody must see the end, even if nobody has started the connection
	unheard := c.unwritable
	c.write()
	if unheard {
		c.abort(false) // there is no close frame to wait for
	}
}

// setDeadline has the wheel abort the connection after so many ticks. The caller
// holds mu.
func (c *Conn) setDeadline(ticks uint32) {
	x := c.more()
	if x.deadline == 0 {
		x.deadline = c.srv.wheel.now.Load() + ticks
		c.srv.wheel.schedule(c, x.deadline)
	}
}

// finish is the last thing that the reader does: it waits for the writer, and tells the
// handler that the connection is closed.
func (c *Conn) finish(err error) {
	c.abort(false) // a waiting writer wakes
	c.mu.Lock()
	x := c.more()
	if x.cause == nil {
		if x.writeErr != nil && !errors.Is(err, io.EOF) {
			err = x.writeErr
		}
		x.cause = &Cause{Kind: Lost, Code: codeAbnormal, Err: err}
	}
	c.closing.Store(true)
	c.unwritable = true
	if c.busy {
		idle := make(chan struct{})
		x.idle = idle
		c.mu.Unlock()
		<-idle
		c.mu.Lock()
	}
	c.ended = true
	x.pong, x.last, c.want = nil, nil, false
	h, cause := c.h, *x.cause
	c.h = nil
	c.mu.Unlock()
	if c.nc == nil {
		c.releaseFD()
	}

	c.srv.decoding.release(&c.dec)
	c.srv.metrics.closes[cause.Kind].Inc()
	if h != nil {
		h.Closed(cause)
	}
	c.srv.wheel.forget(c)
}

// abort ends the network connection at once; hard, with a reset instead of leaving
// to the kernel what the peer does not take.
func (c *Conn) abort(hard bool) {
	if c.nc == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ended {
			c.aborted = true
			c.abortFD(hard)
		}
		return
	}
	nc := transport(c.nc.Conn) // tls.Conn.Close may wait for its peer
	if l, ok := nc.(interface{ SetLinger(int) error }); ok && hard {
		_ = l.SetLinger(0) // it is being thrown away
	}
	_ = nc.Close()
}

// transport is what is below TLS.
func transport(nc net.Conn) net.Conn {
	if t, ok := nc.(*tls.Conn); ok {
		return direct(t.NetConn())
	}
	return nc
}

// direct is nc without a layer that has done its work and says so, so that the
// descriptor can be had.
func direct(nc net.Conn) net.Conn {
	if l, ok := nc.(interface{ Direct() net.Conn }); ok {
		return l.Direct()
	}
	return nc
}
