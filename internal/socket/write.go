package socket

// turn is what whoever holds a connection's token needs to write.
type turn struct {
	frames [][]byte // what to write, in order
	next   int      // the first of frames that is not written whole
	offset int      // what is written of it
	last   bool     // frames ends with a close frame
	raw    rawWrite
}

// left tells whether something of the frames is not written.
func (t *turn) left() bool { return t.next < len(t.frames) }

// wrote moves on by n bytes.
func (t *turn) wrote(n int) {
	for t.left() && n >= len(t.frames[t.next])-t.offset {
		n -= len(t.frames[t.next]) - t.offset
		t.next, t.offset = t.next+1, 0
	}
	t.offset += n
}

// reset lets the frames go.
func (t *turn) reset() {
	clear(t.frames)
	t.frames, t.next, t.offset = t.frames[:0], 0, 0
}

// maxTurns bounds how often one call of Flush asks the source. If it has more
// even then, a goroutine goes on, so that nobody waits for one viewer.
const maxTurns = 8

// write writes what is pending, unless somebody is at it, who will see it. The
// caller holds mu; write unlocks it.
func (c *Conn) write() {
	if c.busy || !c.pending() {
		c.mu.Unlock()
		return
	}
	c.busy = true
	c.mu.Unlock()

	t := c.srv.turn()
	if c.rc != nil {
		for range maxTurns {
			if !c.gather(t) {
				c.srv.turns.Put(t)
				return
			}
			if !c.attempt(t) {
				break
			}
		}
	}
	// It ends when nothing is left to write or the connection is closed: by its
	// reader, or by the wheel when the peer takes nothing. The reader waits for it.
	c.srv.goroutines.Go(func() { c.catchUp(t) })
}

// pending tells whether there is something to write. The caller holds mu.
func (c *Conn) pending() bool {
	return !c.mute && (c.pong != nil || c.wantPing || c.last != nil || c.want && c.h != nil)
}

// gather puts into t what is to be written next; what it held is written. When
// that is nothing, it gives the token back and returns false.
func (c *Conn) gather(t *turn) bool {
	if t.last {
		t.last = false
		c.wroteLast()
	}
	for {
		t.reset()
		c.mu.Lock()
		if !c.pending() {
			c.busy = false
			if c.progress.Load() != 0 {
				c.progress.Store(0)
			}
			if c.idle != nil {
				close(c.idle)
			}
			c.mu.Unlock()
			return false
		}
		t.frames = c.control(t.frames)
		last, h := c.last, c.h
		if !c.want {
			h = nil
		}
		c.want = false
		c.mute = last != nil
		c.mu.Unlock()

		if h != nil {
			controls := len(t.frames)
			t.frames = h.Next(t.frames)
			if fetched := t.frames[controls:]; len(fetched) > 0 {
				c.srv.metrics.countFrames(c.shard, fetched)
				c.askAgain()
			}
		}
		if last != nil {
			t.frames, t.last = append(t.frames, last), true
		}
		if len(t.frames) > 0 {
			return true
		}
	}
}

// askAgain has the source asked until it has nothing any more; once more before
// the close frame if it was the server that closed.
func (c *Conn) askAgain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.want = c.cause == nil || c.cause.Kind == ClosedByServer
}

// control appends the control frames that are waiting. The caller holds mu.
func (c *Conn) control(frames [][]byte) [][]byte {
	if c.pong != nil {
		frames = append(frames, c.pong)
		c.pong = nil
	}
	if c.wantPing {
		frames = append(frames, []byte{finBit | opPing, 0})
		c.wantPing = false
	}
	return frames
}

// wroteLast follows the close frame. Where the sending side can be shut alone, the
// peer reads its end and ends the rest; elsewhere the connection is over once both
// close frames have passed.
func (c *Conn) wroteLast() {
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok {
		if half.CloseWrite() == nil {
			return
		}
	}
	c.mu.Lock()
	answered := c.cause.Kind == ClosedByPeer
	c.mu.Unlock()
	if answered {
		c.kill(false)
	}
}

// catchUp writes for a viewer that is behind what t holds and what comes to be
// fetched meanwhile. It waits for the peer, in pieces small enough that the wheel
// sees whether the peer takes anything.
func (c *Conn) catchUp(t *turn) {
	slow := &c.srv.metrics.slow
	slow.Add(1)
	defer slow.Add(-1)
	now := &c.srv.wheel.now
	c.progress.Store(now.Load())
	c.srv.wheel.schedule(c, now.Load()+c.srv.limits.write)

	piece := c.srv.decoding.buffers.get()
	for t.left() || c.gather(t) {
		piece.b = c.fill(piece.b[:0], t)
		if _, err := c.nc.Write(piece.b); err != nil {
			c.broken(err)
			t.reset()
			t.last = false
			continue
		}
		c.srv.metrics.sentBytes.add(c.shard, len(piece.b))
		c.progress.Store(now.Load())
	}
	c.srv.decoding.buffers.put(piece)
	c.srv.turns.Put(t)
}

// fill appends to b, up to bufferSize bytes, the next piece of what t holds.
// Control frames that wait go between the frames.
func (c *Conn) fill(b []byte, t *turn) []byte {
	for t.left() && len(b) < bufferSize {
		if t.offset == 0 {
			b = c.fillControl(b)
		}
		n := min(len(t.frames[t.next])-t.offset, max(bufferSize-len(b), 0))
		b = append(b, t.frames[t.next][t.offset:t.offset+n]...)
		t.wrote(n)
	}
	return b
}

func (c *Conn) fillControl(b []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mute {
		return b
	}
	var room [2][]byte
	for _, f := range c.control(room[:0]) {
		b = append(b, f...)
	}
	return b
}

// broken notes that the peer takes nothing any more. The reader finds out what
// happened, because what the peer said last may be waiting there; should it not,
// the wheel ends the connection.
func (c *Conn) broken(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mute = true
	if c.writeErr == nil {
		c.writeErr = err
	}
	c.expire()
}
