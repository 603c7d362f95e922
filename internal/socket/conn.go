package socket

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

var _ hub.Socket = (*Conn)(nil)

// Handler is what a connection works for.
type Handler interface {
	// Next is called by whoever flushes or closes the connection, from within that
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
type Conn struct {
	srv      *Server
	nc       net.Conn
	rc       syscall.RawConn // nil: no attempts that do not wait, a goroutine writes
	deflates bool
	shard    uint8 // of the counters

	// Under the wheel's lock.
	wheelNext, wheelPrev *Conn
	forgotten            bool
	due                  atomic.Uint32 // the tick to look at it; 0: in no slot

	// Ticks, for the wheel to see.
	heard    atomic.Uint32 // when bytes came last
	begun    atomic.Uint32 // when the unfinished message began; 0: none is unfinished
	progress atomic.Uint32 // when the peer took something last; 0: it is not behind
	pinged   uint32        // the wheel's own: the silence that a ping was sent for

	// The reader's own.
	dec    decoder
	answer bool // a pong may be waiting

	closing atomic.Bool // a close frame is to be sent or was: set under mu, input does not matter any more

	mu       sync.Mutex
	h        Handler
	reading  bool          // the reader was started
	busy     bool          // somebody holds the writer's token
	mute     bool          // nothing may be written any more
	ended    bool          // the reader has ended, and Closed is or will be called
	want     bool          // the source is to be asked
	wantPing bool          // a ping is to be sent
	pong     []byte        // the pong to be sent: a frame
	last     []byte        // the close frame to be sent
	idle     chan struct{} // closed by whoever gives the token back; nil: nobody waits
	cause    *Cause        // the first one
	writeErr error         // why the peer takes nothing any more
	deadline uint32        // the tick at which the connection is ended by force; 0: none
}

// Start begins to read and returns at once. It is called once, or never if the
// connection is closed instead. When it has ended by then, Closed is called before
// Start returns.
func (c *Conn) Start(h Handler) {
	c.mu.Lock()
	c.h = h
	if c.ended {
		cause := *c.cause
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
	if c.cause == nil {
		c.want = true
	}
	c.write()
}

// Deflates tells whether the peer takes deflated frames.
func (c *Conn) Deflates() bool { return c.deflates }

// Close ends the connection with a close frame. Only the first call counts, and
// none after the connection was closed for another reason. A code that may not
// stand in a close frame is replaced by 1011, a reason of more than 123 bytes is
// cut. A connection that is not started may be closed.
func (c *Conn) Close(code int, reason string) {
	code, reason = sendable(code, reason)
	c.shut(Cause{Kind: ClosedByServer, Code: code, Reason: reason})
}

// shut ends the connection with a close frame that bears the cause's code, unless
// it has a cause already.
func (c *Conn) shut(cause Cause) {
	c.mu.Lock()
	if c.cause != nil {
		c.mu.Unlock()
		return
	}
	c.cause = &cause
	c.closing.Store(true)
	reason := cause.Reason
	if cause.Kind == ClosedByPeer {
		reason = "" // the answer repeats the code alone
	}
	c.last = closeFrame(cause.Code, reason)
	if cause.Kind != ClosedByServer {
		c.want = false
	}
	c.expire()
	c.read() // somebody must see the end, even if nobody has started the connection
	unheard := c.mute
	c.write()
	if unheard {
		c.kill(false) // there is no close frame to wait for
	}
}

// expire sets the deadline of the connection's end. The caller holds mu.
func (c *Conn) expire() {
	if c.deadline == 0 {
		c.deadline = c.srv.wheel.now.Load() + c.srv.limits.close
		c.srv.wheel.schedule(c, c.deadline)
	}
}

// read starts the reader. The caller holds mu.
func (c *Conn) read() {
	if !c.reading {
		c.reading = true
		// It ends at the end of the stream or at an error, which the wheel forces at
		// the deadline of a connection that is being closed. Server.Close waits for it.
		c.srv.goroutines.Go(c.reader)
	}
}

func (c *Conn) reader() {
	var err error
	if c.rc != nil {
		err = c.receiveRaw()
	} else {
		err = c.receive()
	}
	c.end(err)
}

// receive reads until it cannot any more. This is the way of connections without
// a descriptor, which cannot wait without a buffer.
func (c *Conn) receive() error {
	buf := make([]byte, 512)
	for {
		n, err := c.nc.Read(buf)
		if n > 0 {
			c.received(buf[:n])
		}
		if err != nil {
			return err
		}
	}
}

// received takes bytes from the peer, which become the connection's to change.
// Whoever reads calls it; calls must not overlap.
func (c *Conn) received(p []byte) {
	now := c.srv.wheel.now.Load()
	c.heard.Store(now)
	if c.closing.Load() {
		return
	}
	err := c.dec.feed(p, c)
	if c.answer {
		c.answer = false
		c.mu.Lock()
		c.write()
	}
	if err != nil {
		b, ok := errors.AsType[*breach](err)
		if !ok {
			b = &breach{ProtocolError, protocol.CloseProtocol, err.Error()}
		}
		c.shut(Cause{Kind: b.kind, Code: int(b.code), Reason: b.text})
		return
	}
	switch {
	case !c.dec.unfinished():
		if c.begun.Load() != 0 {
			c.begun.Store(0)
		}
	case c.dec.rested || c.begun.Load() == 0:
		c.begun.Store(now)
		c.srv.wheel.schedule(c, now+c.srv.limits.message)
	}
}

// message, ping and closed make the connection its decoder's sink.

func (c *Conn) message(p []byte) bool {
	if c.closing.Load() {
		return false
	}
	c.srv.metrics.messages.add(c.shard, 1)
	c.h.Message(p)
	return !c.closing.Load()
}

// ping keeps the pong for the latest ping only, until all that came with it has
// been decoded.
func (c *Conn) ping(p []byte) bool {
	pong := append([]byte{finBit | opPong, byte(len(p))}, p...)
	c.mu.Lock()
	c.pong = pong
	c.mu.Unlock()
	c.answer = true
	return !c.closing.Load()
}

func (c *Conn) closed(code int, reason string) bool {
	c.shut(Cause{Kind: ClosedByPeer, Code: code, Reason: reason})
	return false
}

// end is the end of a connection that is read no more.
func (c *Conn) end(err error) {
	c.kill(false) // whoever is writing wakes
	c.mu.Lock()
	if c.cause == nil {
		if c.writeErr != nil && !errors.Is(err, io.EOF) {
			err = c.writeErr
		}
		c.cause = &Cause{Kind: Lost, Code: codeAbnormal, Err: err}
	}
	c.closing.Store(true)
	c.mute = true
	if c.busy {
		idle := make(chan struct{})
		c.idle = idle
		c.mu.Unlock()
		<-idle
		c.mu.Lock()
	}
	c.ended = true
	c.pong, c.last, c.want = nil, nil, false
	h, cause := c.h, *c.cause
	c.h = nil
	c.mu.Unlock()

	c.dec.release()
	c.srv.metrics.closes[cause.Kind].Inc()
	if h != nil {
		h.Closed(cause)
	}
	c.srv.wheel.forget(c)
}

// kill closes the network connection at once; hard, with a reset instead of
// leaving to the kernel what the peer does not take.
func (c *Conn) kill(hard bool) {
	nc := transport(c.nc) // tls.Conn.Close may wait for its peer
	if l, ok := nc.(interface{ SetLinger(int) error }); ok && hard {
		_ = l.SetLinger(0) // it is being thrown away
	}
	_ = nc.Close()
}

// transport is what is below TLS.
func transport(nc net.Conn) net.Conn {
	if t, ok := nc.(*tls.Conn); ok {
		return t.NetConn()
	}
	return nc
}
