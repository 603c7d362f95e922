package socket

import (
	"errors"

	"github.com/kansei-live/kansei/protocol"
)

// read starts the reader. The caller holds mu.
func (c *Conn) read() {
	if c.reading {
		return
	}
	c.reading = true
	if c.nc != nil {
		// It ends at the end of the stream or at an error, which the wheel forces at
		// the deadline of a connection that is being closed. Server.Close waits for it.
		c.srv.goroutines.Go(c.receive)
		return
	}
	if err := c.arm(); err != nil {
		// It ends when the writer has seen the end. Server.Close waits for it.
		c.srv.goroutines.Go(func() { c.finish(err) })
	}
}

// receive is the reader of a connection that cannot tell when there is something
// to read: it waits for it, buffer in hand.
func (c *Conn) receive() {
	buf := make([]byte, 512)
	for {
		n, err := c.nc.Read(buf)
		if n > 0 {
			c.received(buf[:n])
		}
		if err != nil {
			c.finish(err)
			return
		}
	}
}

// received takes bytes from the peer, which become the connection's to change.
// The reader calls it.
func (c *Conn) received(p []byte) {
	now := c.srv.wheel.now.Load()
	if c.heard.Load() != now {
		c.heard.Store(now)
		c.dec.idle = 0
	}
	if c.dec.over {
		return
	}
	err := c.srv.decoding.feed(&c.dec, p, c)
	if c.dec.pinged {
		c.mu.Lock()
		c.write()
	}
	if err != nil {
		b, ok := errors.AsType[*breach](err)
		if !ok {
			b = &breach{ProtocolError, protocol.CloseProtocol, err.Error()}
		}
		c.close(Cause{Kind: b.kind, Code: int(b.code), Reason: b.text})
	}
	switch {
	case c.dec.over:
		c.heardLast()
	case c.closing.Load():
	case !c.dec.unfinished():
		if c.begun.Load() != 0 {
			c.begun.Store(0)
		}
	case c.dec.rested || c.begun.Load() == 0:
		c.begun.Store(now)
		c.srv.wheel.schedule(c, now+c.srv.limits.message)
	}
}

// message, ping and closed make the connection its decoder's sink. Once it is being
// closed only the peer's close frame matters.

func (c *Conn) message(p []byte) {
	if c.closing.Load() {
		return
	}
	c.srv.metrics.messages.add(c.shard, 1)
	c.h.Message(p)
}

func (c *Conn) deaf() bool { return c.closing.Load() }

// ping keeps the pong for the latest ping only, until all that came with it has
// been decoded.
func (c *Conn) ping(p []byte) {
	if c.closing.Load() {
		return
	}
	pong := append([]byte{finBit | opPong, byte(len(p))}, p...)
	c.mu.Lock()
	c.more().pong = pong
	c.mu.Unlock()
}

func (c *Conn) closed(code int, reason string) {
	c.close(Cause{Kind: ClosedByPeer, Code: code, Reason: reason})
}
