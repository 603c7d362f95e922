package socket

// The holder of the connection's token (Conn.busy) writes:
//
//	            Flush, Close, pong, ping
//	                      │ there is something (pending), nobody writes: take the token
//	                      ▼
//	┌──────────────▶   take   ──────────── nothing ───────────▶ giveBack (idle)
//	│                     │ control frames, source, close frame
//	│                     ▼
//	│                   fetch ── ask the source for its frames
//	│                     │
//	│                     ▼
//	└─── all taken ─── attempt ── the peer does not take it ──▶ await ──▶ (behind)
//	                      ▲                                                 │
//	                      └────── a poll says that it takes something ◀─────┘
//
// A connection without a descriptor has a goroutine in place of attempt and await (catchUp).
// Somebody who finds the token taken leaves a mark (want, wantPing, extra), which take sees
// before the token is given back. When the peer takes nothing any more, cannotWrite empties
// the batch, and the reader finishes the connection.

// batch is what the holder of a connection's token writes: ready frames, and what comes
// behind them.
type batch struct {
	frames [][]byte // what to write, in order
	next   int      // the first of frames that is not written whole
	offset int      // what is written of it

	source  Handler // to be asked for what comes behind frames
	close   []byte  // the close frame that comes behind that
	fetched bool    // the source had something
	last    bool    // frames ends with a close frame

	raw rawWrite
}

// left reports whether something of the frames is not written.
func (t *batch) left() bool { return t.next < len(t.frames) }

// wrote moves on by n bytes.
func (t *batch) wrote(n int) {
	for t.left() && n >= len(t.frames[t.next])-t.offset {
		n -= len(t.frames[t.next]) - t.offset
		t.next, t.offset = t.next+1, 0
	}
	t.offset += n
}

// reset lets the frames go.
func (t *batch) reset() {
	clear(t.frames)
	t.frames, t.next, t.offset = t.frames[:0], 0, 0
}

// boundary is the first of frames before which control frames that came later may
// go: behind one that is begun, behind the answer to the handshake, which is none, and
// behind control frames that were there first.
func (t *batch) boundary() int {
	at := t.next
	if t.offset > 0 {
		at++
	}
	for at < len(t.frames) && (t.frames[at][0]&finBit == 0 || t.frames[at][0]&opClose != 0) {
		at++
	}
	return at
}

// maxBatches bounds how often one call of Flush asks the source. If it has more
// even then, a goroutine goes on, so that nobody waits for one viewer.
const maxBatches = 8

// write writes what is pending, unless somebody is at it, who will see it. The
// caller holds mu; write unlocks it.
func (c *Conn) write() {
	if c.busy || !c.pending() {
		c.mu.Unlock()
		return
	}
	c.busy = true
	t := c.srv.batch()
	c.take(t)
	c.mu.Unlock()

	if !c.fetch(t) && !c.gather(t) {
		return
	}
	if c.nc == nil {
		for range maxBatches {
			if !c.attempt(t) {
				c.await(t)
				return
			}
			if !c.gather(t) {
				return
			}
		}
		// It ends when nothing is left to write or when the peer does not take it now.
		// The reader waits for whoever goes on then.
		c.srv.goroutines.Go(func() { c.goOn(t) })
		return
	}
	// It ends when nothing is left to write or the connection is closed: by its
	// reader, or by the wheel when the peer takes nothing. The reader waits for it.
	c.srv.goroutines.Go(func() { c.catchUp(t) })
}

// pending reports whether there is something to write. The caller holds mu.
func (c *Conn) pending() bool {
	if c.unwritable {
		return false
	}
	if c.want && c.h != nil || c.wantPing {
		return true
	}
	x := c.extra
	return x != nil && (x.pong != nil || x.last != nil || x.answer != nil && c.h != nil)
}

// gather puts into t what is to be written next; what it held is written. When
// that is nothing, it gives token and batch back and returns false.
func (c *Conn) gather(t *batch) bool {
	if t.last {
		t.last = false
		c.wroteLast()
	}
	for {
		c.mu.Lock()
		more := c.take(t)
		c.mu.Unlock()
		if !more {
			c.srv.batches.Put(t)
			return false
		}
		if c.fetch(t) {
			return true
		}
	}
}

// take has t begin with what is pending, or gives the token back if that is
// nothing. The caller holds mu.
func (c *Conn) take(t *batch) bool {
	t.reset()
	if t.fetched {
		// The source is asked until it has nothing any more; once more before the
		// close frame if it was the server that closed.
		t.fetched = false
		c.want = !c.closing.Load() || c.extra.cause.Kind == ClosedByServer
	}
	if !c.pending() {
		c.giveBack()
		return false
	}
	if x := c.extra; x != nil && x.answer != nil {
		t.frames = append(t.frames, x.answer)
		x.answer = nil
	}
	t.frames = c.control(t.frames)
	if c.want {
		t.source = c.h
		c.want = false
	}
	if x := c.extra; x != nil && x.last != nil {
		t.close = x.last
		c.unwritable = true
	}
	return true
}

// giveBack gives the token back. The caller holds mu.
func (c *Conn) giveBack() {
	c.busy = false
	x := c.extra
	if x == nil {
		return
	}
	if x.progress != 0 {
		x.progress = 0
		c.srv.metrics.slow.Add(-1)
		if c.nc == nil {
			c.awaitNoMore()
		}
	}
	if x.idle != nil {
		close(x.idle)
	}
	if !c.closing.Load() && x.writeErr == nil {
		c.extra = nil // nothing is waiting
	}
}

// fetch asks the source for what t lacks. It reports whether there is something to
// write then.
func (c *Conn) fetch(t *batch) bool {
	if h := t.source; h != nil {
		t.source = nil
		controls := len(t.frames)
		t.frames = h.Next(t.frames)
		if fetched := t.frames[controls:]; len(fetched) > 0 {
			c.srv.metrics.countFrames(c.shard, fetched)
			t.fetched = true
		}
	}
	if t.close != nil {
		t.frames, t.last = append(t.frames, t.close), true
		t.close = nil
	}
	return len(t.frames) > 0
}

// control appends the control frames that are waiting. The caller holds mu.
func (c *Conn) control(frames [][]byte) [][]byte {
	if x := c.extra; x != nil && x.pong != nil {
		frames = append(frames, x.pong)
		x.pong = nil
	}
	if c.wantPing {
		frames = append(frames, []byte{finBit | opPing, 0})
		c.wantPing = false
	}
	return frames
}

// wroteLast follows the close frame.
func (c *Conn) wroteLast() {
	c.mu.Lock()
	x := c.extra
	x.said = true
	both := x.heard
	c.mu.Unlock()
	if both {
		c.finishSending()
	}
}

// heardLast follows the peer's close frame, or what keeps it from being found. The
// reader calls it.
func (c *Conn) heardLast() {
	c.mu.Lock()
	x := c.more()
	x.heard = true
	both := x.said
	c.mu.Unlock()
	if both {
		c.finishSending()
	}
}

// finishSending ends the sending side, which is the server's to do first, once both close
// frames have passed. A peer that finds the end before it has sent its own takes
// the connection for lost, and Firefox forgets messages that it has not shown yet.
// The peer reads its end and ends the rest. The holder of the token or the reader
// calls it.
func (c *Conn) finishSending() {
	if c.nc == nil {
		c.sendFIN()
		return
	}
	if half, ok := c.nc.Conn.(interface{ CloseWrite() error }); ok {
		if half.CloseWrite() == nil {
			return
		}
	}
	c.abort(false)
}

// behind notes that something is left which the peer has not taken, and whether it
// has taken some. The caller holds mu.
func (c *Conn) behind(some bool) {
	x, now := c.more(), c.srv.wheel.now.Load()
	if x.progress == 0 {
		some = true
		c.srv.metrics.slow.Add(1)
		c.srv.wheel.schedule(c, now+c.srv.limits.write)
	}
	if some {
		x.progress = now
	}
}

// catchUp writes for a connection without a descriptor what t holds and what comes
// to be fetched meanwhile. It waits for the peer, in pieces small enough that the
// wheel sees whether the peer takes anything.
func (c *Conn) catchUp(t *batch) {
	piece := c.srv.decoding.buffers.get()
	for t.left() || c.gather(t) {
		c.mu.Lock()
		c.behind(true)
		c.mu.Unlock()
		piece.b = c.fill(piece.b[:0], t)
		if _, err := c.nc.Write(piece.b); err != nil {
			c.cannotWrite(t, err)
			continue
		}
		c.srv.metrics.sentBytes.add(c.shard, len(piece.b))
	}
	c.srv.decoding.buffers.put(piece)
}

// fill appends to b, up to bufferSize bytes, the next piece of what t holds.
// Control frames that wait go between the frames.
func (c *Conn) fill(b []byte, t *batch) []byte {
	for t.left() && len(b) < bufferSize {
		if t.offset == 0 && t.boundary() == t.next {
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
	if c.unwritable {
		return b
	}
	var room [2][]byte
	for _, f := range c.control(room[:0]) {
		b = append(b, f...)
	}
	return b
}

// cannotWrite lets go what t holds, because the peer takes nothing any more. The reader
// finds out what happened, because what the peer said last may be waiting there;
// should it not, the wheel ends the connection.
func (c *Conn) cannotWrite(t *batch, err error) {
	t.reset()
	t.last = false
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unwritable = true
	if x := c.more(); x.writeErr == nil {
		x.writeErr = err
	}
	c.setDeadline(c.srv.limits.close)
}
