package socket

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// idleFrames are the frames that bring no message, in the order in which they can be
// repeated: begin comes once.
var idleFrames = map[string]struct{ begin, again []byte }{
	"pings":            {nil, frame(finBit|opPing, "")},
	"long pings":       {nil, frame(finBit|opPing, strings.Repeat("x", maxControl))},
	"pongs":            {nil, frame(finBit|opPong, "x")},
	"empty pieces":     {frame(opText, "x"), frame(opContinuation, "")},
	"pings in between": {frame(opText, "x"), append(frame(opContinuation, ""), frame(finBit|opPing, "")...)},
}

// TestIdleFlood: frames without end that bring no message end a connection, whether
// they come in one piece or many, and are not all answered.
func TestIdleFlood(t *testing.T) { onBoth(t, testIdleFlood) }

func testIdleFlood(t *testing.T, via path) {
	for name, c := range idleFrames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := withTCP(newSite(t, newTestServer(t, via.config(Config{}))))
			p, v := st.dial("")
			floodIdle(t, p, v, c.begin, c.again)
		})
	}
}

// TestIdleFloodOverAPipe is the same over a connection without a descriptor.
func TestIdleFloodOverAPipe(t *testing.T) {
	t.Parallel()
	for name, c := range idleFrames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, p := started(t, newTestServer(t, Config{}))
			floodIdle(t, p, v, c.begin, c.again)
		})
	}
}

// floodIdle sends frames until the connection ends.
func floodIdle(t *testing.T, p *peer, v *viewer, begin, again []byte) {
	t.Helper()
	const most = 100 * maxIdle
	go func() { // ends with the connection
		if _, err := p.Write(begin); err != nil {
			return
		}
		piece := bytes.Repeat(again, 100)
		for range most / 100 {
			if _, err := p.Write(piece); err != nil {
				return
			}
		}
	}()
	pongs := 0
	for {
		first, payload, err := p.read()
		if err != nil {
			t.Fatalf("%v after %d pongs, without a close frame", err, pongs)
		}
		if first == finBit|opClose {
			if code := int(payload[0])<<8 | int(payload[1]); code != int(protocol.CloseTooMany) || !strings.Contains(string(payload), "retry_ms=1000") {
				t.Errorf("closed with %d %q", code, payload[2:])
			}
			break
		}
		pongs++
	}
	// A tick may pass meanwhile.
	if pongs > 2*maxIdle {
		t.Errorf("%d pongs", pongs)
	}
	_ = p.Close()
	if c := v.cause(); c.Kind != Flood || c.Code != int(protocol.CloseTooMany) {
		t.Errorf("cause %v", c)
	}
}

// TestManyPings: as many frames as a peer may send in a tick it may send in every one,
// and what has come together is answered by one pong.
func TestManyPings(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Config{})
		v, p := started(t, s)
		go func() { _, _ = io.Copy(io.Discard, p.br) }() // ends with the connection
		time.Sleep(s.config.tick() / 2)
		for range 20 {
			p.write(bytes.Repeat(frame(finBit|opPing, ""), maxIdle))
			p.write(text("hello"))
			v.message()
			time.Sleep(s.config.tick())
		}
		if len(v.done) > 0 {
			t.Errorf("closed: %v", v.cause())
		}
	})
}

// TestIdleIsCounted: what is counted is what brings no message, and all that comes when
// the connection is being closed.
func TestIdleIsCounted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		stream []byte
		deaf   bool
		want   uint16
	}{
		{"messages", append(text("a"), text("")...), false, 0},
		{"pieces", bytes.Join([][]byte{frame(opText, "a"), frame(0, "b"), frame(finBit, "")}, nil), false, 0},
		{"empty pieces", bytes.Join([][]byte{frame(opText, ""), frame(0, ""), frame(finBit, "x")}, nil), false, 2},
		{"control frames", bytes.Join([][]byte{frame(finBit|opPing, "a"), frame(finBit|opPong, ""), closing(1000, "")}, nil), false, 2},
		{"a closing connection", bytes.Join([][]byte{text("a"), frame(opText, "a"), frame(finBit, "b"), closing(1000, "")}, nil), true, 3},
	} {
		d, to := new(decoder), &listener{isDeaf: c.deaf}
		if err := newDecoding(100, 0).feed(d, bytes.Clone(c.stream), to); err != nil || d.idle != c.want {
			t.Errorf("%s: %d frames (%v), want %d", c.name, d.idle, err, c.want)
		}
		if c.deaf && len(to.messages) > 0 {
			t.Errorf("%s: %q", c.name, to.messages)
		}
	}
}

// listener is a transcript that may be deaf.
type listener struct {
	transcript
	isDeaf bool
}

func (s *listener) deaf() bool { return s.isDeaf }

// TestDeafInflatesNothing: a deflated message of a connection that is being closed costs
// what its bytes cost.
func TestDeafInflatesNothing(t *testing.T) {
	t.Parallel()
	bomb := frame(0xc1, deflated(t, strings.Repeat("\x00", 8000))[:2]) // would not inflate
	for _, deaf := range []bool{false, true} {
		d := &decoder{deflates: true}
		err := newDecoding(8192, 0).feed(d, bytes.Clone(bomb), &listener{isDeaf: deaf})
		if (err == nil) != deaf {
			t.Errorf("deaf: %v; %v", deaf, err)
		}
	}
}

// TestFloodAfterClose: a peer that is told to go and sends on without a close frame is
// not searched for one for long.
func TestFloodAfterClose(t *testing.T) { onBoth(t, testFloodAfterClose) }

func testFloodAfterClose(t *testing.T, via path) {
	st := withTCP(newSite(t, newTestServer(t, via.config(Config{}))))
	p, v := st.dial("")
	v.conn.Close(4401, "go")
	p.expectCloseFrame(4401, "go")
	for range 2 * maxIdle {
		p.write(text("hello"))
	}
	// The sending side is shut without the peer's close frame, and long before its time.
	if b, err := io.ReadAll(p.br); err != nil || len(b) > 0 {
		t.Errorf("% x, %v", b, err)
	}
	_ = p.Close()
	if c := v.cause(); c.Kind != ClosedByServer || c.Code != 4401 {
		t.Errorf("cause %v", c)
	}
}

// TestRefuse: who is not let in has less time to close.
func TestRefuse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Config{})
		v, p := started(t, s)
		start := time.Now()
		v.conn.CloseSoon(4401, "no")
		p.expectCloseFrame(4401, "no")
		if c := v.cause(); fmt.Sprint(c) != "closed_by_server (4401): no" {
			t.Errorf("cause %v", c)
		}
		around(t, "the end", time.Since(start).Seconds(), refuseTimeout.Seconds())
	})
}
