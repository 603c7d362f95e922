package socket

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// timed is what a peer received and when, in seconds since the test began.
type timed struct {
	at      float64
	first   byte
	payload string
}

// watch reads everything that the server sends until the end, under fake time.
func (p *peer) watch() <-chan timed {
	start := time.Now()
	got := make(chan timed, 1000)
	go func() { // ends with the connection
		defer close(got)
		for {
			first, payload, err := p.read()
			if err != nil {
				return
			}
			got <- timed{time.Since(start).Seconds(), first, string(payload)}
		}
	}()
	return got
}

// around checks that got came at want seconds or within the wheel's two ticks.
func around(t *testing.T, what string, got, want float64) {
	t.Helper()
	if got < want || got > want+2 {
		t.Errorf("%s after %.1f s, want %.0f to %.0f", what, got, want, want+2)
	}
}

func TestSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Config{})
		v, p := started(t, s)
		start := time.Now()
		got := p.watch()
		ping := <-got
		if ping.first != finBit|opPing {
			t.Fatalf("received %+v, want a ping", ping)
		}
		around(t, "a ping", ping.at, 60)
		p.write(frame(finBit|opPong, ping.payload))
		second := <-got
		if second.first != finBit|opPing {
			t.Fatalf("received %+v, want a ping", second)
		}
		around(t, "the second ping", second.at-ping.at, 60)
		last := <-got
		if last.first != finBit|opClose || last.payload != "\x11\x38silent" {
			t.Fatalf("received %+v, want 4408", last)
		}
		around(t, "the end", last.at-ping.at, 100)
		if c := v.cause(); c.Kind != Silent || c.Code != 4408 {
			t.Errorf("cause %v", c)
		}
		around(t, "the last step", time.Since(start).Seconds()-last.at, 5)
		if s.Len() != 0 {
			t.Error("it is still held")
		}
	})
}

// TestAnythingIsLife: single bytes of whatever kind keep a connection, and no ping
// is sent.
func TestAnythingIsLife(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Config{})
		v, p := started(t, s)
		got := p.watch()
		for range 20 {
			time.Sleep(55 * time.Second)
			p.write(text("beat"))
			v.message()
		}
		if len(got) > 0 {
			t.Errorf("received %+v", <-got)
		}
	})
}

func TestUnfinishedMessage(t *testing.T) {
	t.Parallel()
	for name, send := range map[string][][]byte{
		"header":        {{finBit | opText}},
		"payload":       {text("hello")[:8]},
		"fragments":     {frame(opText, "a"), frame(0, "b"), frame(0, "c")},
		"with pings":    {frame(opText, "a"), frame(finBit|opPong, ""), frame(finBit|opPong, "")},
		"after another": {append(text("hello"), frame(opText, "a")...), frame(0, "b")},
		"a ping":        {frame(finBit|opPing, "hello")[:7]},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newTestServer(t, Config{})
				v, p := started(t, s)
				got := p.watch()
				for _, b := range send {
					p.write(b)
					time.Sleep(2 * time.Second)
				}
				last := <-got
				if last.first != finBit|opClose || !strings.HasPrefix(last.payload, "\x11\x38a message") {
					t.Fatalf("received %+v, want 4408", last)
				}
				around(t, "the end", last.at, 10)
				if c := v.cause(); c.Kind != Unfinished {
					t.Errorf("cause %v", c)
				}
			})
		})
	}
}

// TestTrickleInTime sends each message within its time, though all of them
// together take far longer and there is no moment at which none is unfinished.
func TestTrickleInTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Config{})
		v, p := started(t, s)
		got := p.watch()
		m := text("hello") // 11 bytes
		p.write(m[:1])
		for range 20 {
			for i := 1; i < len(m); i++ {
				time.Sleep(800 * time.Millisecond)
				if i < len(m)-1 {
					p.write(m[i : i+1])
				} else {
					p.write(append(m[i:len(m):len(m)], m[0])) // the next one begins at once
				}
			}
			if g := v.message(); g != "hello" {
				t.Errorf("received %q", g)
			}
		}
		if len(got) > 0 {
			t.Errorf("received %+v", <-got)
		}
	})
}

func TestWriteTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := NewMetrics(nil)
		s := newTestServer(t, Config{Metrics: m})
		v, p := started(t, s)
		start := time.Now()
		v.send(plain(strings.Repeat("x", 60000)))
		// As long as it takes a piece now and then, it is let live.
		for range 10 {
			time.Sleep(18 * time.Second)
			if _, err := io.ReadFull(p.br, make([]byte, bufferSize)); err != nil {
				t.Fatal(err)
			}
			p.write(text("alive"))
			v.message()
		}
		stopped := time.Now()
		if c := v.cause(); c.Kind != TooSlow || c.Code != 4408 {
			t.Errorf("cause %v", c)
		}
		around(t, "the end", time.Since(stopped).Seconds(), 20+5)
		if time.Since(start) < 200*time.Second {
			t.Error("it ended early")
		}
		synctest.Wait()
		if n := m.slow.Load(); n != 0 {
			t.Errorf("%d writing goroutines", n)
		}
	})
}

// TestTooSlowRecovers: the close frame reaches a peer that takes again what waits
// within the time to close.
func TestTooSlowRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Config{})
		v, p := started(t, s)
		v.send(plain(strings.Repeat("x", 60000)), plain("more"))
		time.Sleep(23 * time.Second)
		p.expect(finBit|opText, strings.Repeat("x", 60000))
		p.expect(finBit|opText, "more")
		p.expectClose(4408, "too slow")
		_ = p.Close()
		if c := v.cause(); c.Kind != TooSlow {
			t.Errorf("cause %v", c)
		}
	})
}

// TestCloseTimeout: a peer that reads the close frame and does nothing is ended.
func TestCloseTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Config{})
		v, p := started(t, s)
		v.conn.Close(1012, "")
		start := time.Now()
		p.expectCloseFrame(1012, "")
		for range 3 { // what it says now is discarded, and keeps nothing alive
			time.Sleep(time.Second)
			p.write(text("hello"))
		}
		v.cause()
		around(t, "the end", time.Since(start).Seconds(), 5)
		if _, _, err := p.read(); !errors.Is(err, io.EOF) {
			t.Errorf("the peer reads %v", err)
		}
		if len(v.got) > 0 {
			t.Error("a message after Close")
		}
	})
}

// TestNeverStarted: a connection that its owner forgot is ended all the same.
func TestNeverStarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, Config{})
		_, p := pipe(t, s)
		got := p.watch()
		for m := range got {
			if m.first == finBit|opClose {
				around(t, "the end", m.at, 100)
				if code := binary.BigEndian.Uint16([]byte(m.payload)); code != 4408 {
					t.Errorf("closed with %d", code)
				}
			}
		}
		synctest.Wait()
		if s.Len() != 0 {
			t.Error("it is still held")
		}
	})
}

// TestWheel checks that connections are looked at when they are due, and not else.
func TestWheel(t *testing.T) {
	t.Parallel()
	var w wheel
	w.empty = make(chan struct{})
	w.now.Store(1)
	a, b, c := new(Conn), new(Conn), new(Conn)
	for _, x := range []struct {
		c  *Conn
		at uint32
	}{{a, 5}, {b, 5}, {c, 1000}} {
		if !w.add(x.c, x.at) {
			t.Fatal("the wheel is closed")
		}
	}
	w.schedule(a, 3)
	w.schedule(a, 9) // later than it is due already
	w.schedule(b, 0) // at once
	looked := map[*Conn][]uint32{}
	var due []*Conn
	for range 200 {
		due = w.advance(due[:0])
		for _, x := range due {
			looked[x] = append(looked[x], w.now.Load())
		}
	}
	for name, x := range map[string]struct {
		c    *Conn
		want uint32
	}{"a": {a, 3}, "b": {b, 2}, "c": {c, 1 + wheelSlots - 1}} {
		if got := looked[x.c]; len(got) != 1 || got[0] != x.want {
			t.Errorf("%s was looked at at %v, want %d", name, got, x.want)
		}
	}
	w.schedule(c, 300)
	w.forget(c)
	w.schedule(c, 300)
	if got := w.all(); len(got) != 0 || w.len() != 2 {
		t.Errorf("%d in slots, %d live", len(got), w.len())
	}
	if !w.close() || w.close() || w.add(new(Conn), 1) {
		t.Error("a closed wheel takes connections")
	}
	w.forget(a)
	w.forget(b)
	<-w.empty
}

func BenchmarkWheel(b *testing.B) {
	var w wheel
	w.now.Store(1)
	for i := range 50000 {
		w.add(new(Conn), uint32(2+i%60))
	}
	var due []*Conn
	b.ReportAllocs()
	for b.Loop() {
		due = w.advance(due[:0])
		for _, c := range due {
			w.schedule(c, w.now.Load()+60)
		}
	}
}
