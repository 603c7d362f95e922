package socket

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func plain(s string) []byte { return Plain.Encode([][]byte{[]byte(s)}) }

// TestSizes writes frames of every length of header, alone and together.
func TestSizes(t *testing.T) { onBoth(t, testSizes) }

func testSizes(t *testing.T, via path) {
	for name, open := range map[string]func(*site) *site{"TCP": withTCP, "TLS": withTLS} {
		t.Run(name, func(t *testing.T) {
			st := newSite(t, newTestServer(t, via.config(Config{})))
			open(st)
			p, v := st.connect()
			var all []string
			for _, n := range []int{0, 1, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 70000, 300000} {
				m := strings.Repeat("x", n)
				all = append(all, m)
				v.send(plain(m))
				p.expect(finBit|opText, m)
			}
			var frames [][]byte
			for range 20 { // more frames than one system call takes
				for _, m := range all[:10] {
					frames = append(frames, plain(m))
				}
			}
			go v.send(frames...) // ends when they are written or the test has closed the server
			for range 20 {
				for _, m := range all[:10] {
					p.expect(finBit|opText, m)
				}
			}
		})
	}
}

// slowSite is a server that keeps little for a peer, whose viewers get many
// frames.
func slowSite(t *testing.T, config Config) (*Server, *site) {
	config.SendBuffer = 4 << 10
	config.NotSentLowat = 4 << 10
	s := newTestServer(t, config)
	return s, withTCP(newSite(t, s))
}

// behind sends frames until the viewer has fallen behind, and so many more that the
// kernel cannot take them all, and returns how many. Nobody else falls behind
// meanwhile.
func (v *viewer) behind(m *Metrics) (n int) {
	v.t.Helper()
	for more := 200; more > 0; n++ {
		if n > 100000 {
			v.t.Fatal("a peer that reads nothing never fell behind")
		}
		v.send(plain(fmt.Sprintf("%06d %s", n, strings.Repeat("x", 1000))))
		if m.slow.Load() > 0 {
			more--
		}
	}
	return n
}

// TestBoundary says where control frames go that came after a batch was begun.
func TestBoundary(t *testing.T) {
	t.Parallel()
	data, pong := plain("data"), []byte{finBit | opPong, 0}
	for _, c := range []struct {
		name         string
		frames       [][]byte
		next, offset int
		want         int
	}{
		{"nothing left", nil, 0, 0, 0},
		{"before data", [][]byte{data, data}, 0, 0, 0},
		{"behind data that is begun", [][]byte{data, data}, 0, 1, 1},
		{"behind an older pong", [][]byte{pong, data}, 0, 0, 1},
		{"behind an older pong that is begun", [][]byte{pong, data}, 0, 1, 1},
		{"behind the last, begun", [][]byte{pong, data}, 1, 1, 2},
		{"behind control frames alone", [][]byte{pong, pong}, 0, 0, 2},
		{"behind the answer to the handshake", [][]byte{[]byte("HTTP/1.1 101"), data}, 0, 0, 1},
	} {
		if got := (&batch{frames: c.frames, next: c.next, offset: c.offset}).boundary(); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	// The goroutine that writes for a connection without a descriptor keeps to it.
	c := &Conn{extra: &extra{pong: []byte{finBit | opPong, 1, '2'}}}
	got := c.fill(nil, &batch{frames: [][]byte{{finBit | opPong, 1, '1'}, {finBit | opText, 1, 'x'}}})
	if want := "\x8a\x011\x8a\x012\x81\x01x"; string(got) != want {
		t.Errorf("filled %q, want %q", got, want)
	}
}

// TestSlowPeer has a peer read a byte at a time while pings, frames and a close
// go in between: it gets every frame, whole and in order, and the writing goroutine
// ends.
func TestSlowPeer(t *testing.T) { onBoth(t, testSlowPeer) }

func testSlowPeer(t *testing.T, via path) {
	m := NewMetrics(nil)
	_, st := slowSite(t, via.config(Config{Metrics: m, WriteTimeout: time.Hour, CloseTimeout: time.Hour}))
	p, v := st.dial("")
	n := v.behind(m)
	p.write(frame(finBit|opPing, "1"), frame(finBit|opPing, "2"))
	p.write(text("ping me"))
	v.message() // the pings before it have been taken
	for range 10 {
		v.send(plain(fmt.Sprintf("%06d %s", n, strings.Repeat("x", 1000))))
		n++
	}
	p.br.Reset(bytewise{p.Conn})
	pongs := 0
	var last string
	for i := 0; i < n; {
		first, payload, err := p.read()
		if err != nil {
			t.Fatal(err)
		}
		if first == finBit|opPong {
			pongs++
			last = string(payload)
			continue
		}
		if got := string(payload[:6]); got != fmt.Sprintf("%06d", i) {
			t.Fatalf("frame %s, want %06d", got, i)
		}
		i++
	}
	if pongs > 2 || last != "2" {
		t.Errorf("%d pongs, the last one %q, want the latest", pongs, last)
	}
	eventually(t, "the writing goroutine has ended", func() bool { return m.slow.Load() == 0 })
	v.send(plain("at once"))
	p.expect(finBit|opText, "at once")

	n = v.behind(m)
	v.conn.Close(4400, "enough")
	for i := range n {
		if _, payload, err := p.read(); err != nil || string(payload[:6]) != fmt.Sprintf("%06d", i) {
			t.Fatalf("frame %.6q (%v), want %06d", payload, err, i)
		}
	}
	p.expectClose(4400, "enough")
	_ = p.Close()
	if got := v.cause(); got.Kind != ClosedByServer {
		t.Errorf("cause %v", got)
	}
}

// bytewise reads a byte at a time.
type bytewise struct{ r io.Reader }

func (b bytewise) Read(p []byte) (int, error) { return b.r.Read(p[:1]) }

// TestFrozenPeer: one viewer that reads nothing delays no other, over a pipe and
// over TCP.
func TestFrozenPeer(t *testing.T) { onBoth(t, testFrozenPeer) }

func testFrozenPeer(t *testing.T, via path) {
	check := func(t *testing.T, m *Metrics, frozen, other *viewer, p *peer) {
		done := make(chan struct{})
		go func() { // ends when all was handed to both, which must not wait for either
			defer close(done)
			for i := range 2000 {
				f := plain(fmt.Sprintf("%06d %s", i, strings.Repeat("x", 1000)))
				frozen.send(f)
				other.send(f)
			}
		}()
		for i := range 2000 {
			if _, payload, err := p.read(); err != nil || string(payload[:6]) != fmt.Sprintf("%06d", i) {
				t.Fatalf("frame %.6q (%v), want %06d", payload, err, i)
			}
		}
		<-done
		if m.slow.Load() < 1 {
			t.Error("nobody is behind")
		}
	}
	t.Run("pipe", func(t *testing.T) {
		t.Parallel()
		m := NewMetrics(nil)
		s := newTestServer(t, via.config(Config{Metrics: m}))
		frozen, _ := started(t, s)
		other, p := started(t, s)
		check(t, m, frozen, other, p)
	})
	t.Run("TCP", func(t *testing.T) {
		t.Parallel()
		m := NewMetrics(nil)
		st := withTCP(newSite(t, newTestServer(t, via.config(Config{Metrics: m, SendBuffer: 16 << 10}))))
		_, frozen := st.dial("")
		p, other := st.dial("")
		check(t, m, frozen, other, p)
	})
}

// TestTooSlow: a peer that takes nothing is closed, and ended by force, while one
// that takes a little now and then is not.
func TestTooSlow(t *testing.T) { onBoth(t, testTooSlow) }

func testTooSlow(t *testing.T, via path) {
	m := NewMetrics(nil)
	s, st := slowSite(t, via.config(Config{Metrics: m, WriteTimeout: 400 * time.Millisecond, CloseTimeout: 200 * time.Millisecond}))
	p, v := st.dial("")
	v.behind(m)
	if got := v.cause(); got.Kind != TooSlow || got.Code != 4408 || got.Reason != "too slow" {
		t.Errorf("cause %v", got)
	}
	eventually(t, "the connection is forgotten", func() bool { return s.Len() == 0 && m.slow.Load() == 0 })
	// What the kernel had taken is gone: the end was by force.
	if _, err := io.Copy(io.Discard, p.br); err == nil {
		t.Error("the stream ended in order")
	}
}

// TestKernelHoldsLittle: what the kernel takes for a frozen peer is bounded.
func TestKernelHoldsLittle(t *testing.T) { onBoth(t, testKernelHoldsLittle) }

func testKernelHoldsLittle(t *testing.T, via path) {
	if runtime.GOOS != "linux" {
		t.Log("TCP_NOTSENT_LOWAT is set on Linux only: nothing to compare")
		return
	}
	taken := func(lowat int) float64 {
		m := NewMetrics(nil)
		st := withTCP(newSite(t, newTestServer(t, via.config(Config{Metrics: m, NotSentLowat: lowat}))))
		p, v := st.dial("")
		if err := p.Conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
			t.Fatal(err)
		}
		v.behind(m)
		eventually(t, "the kernel takes no more", func() bool {
			before := m.sentBytes.total()
			time.Sleep(50 * time.Millisecond)
			return m.sentBytes.total() == before
		})
		return m.sentBytes.total()
	}
	with, without := taken(0), taken(-1)
	t.Logf("the kernel took %.0f bytes, without TCP_NOTSENT_LOWAT %.0f", with, without)
	// How much more it takes without depends on what the kernel has to give.
	if with > 512<<10 || with >= without {
		t.Errorf("the kernel took %.0f bytes, without TCP_NOTSENT_LOWAT %.0f", with, without)
	}
}

// TestEndlessSource: a source that has more each time it is asked does not keep
// Flush; a goroutine goes on.
func TestEndlessSource(t *testing.T) { onBoth(t, testEndlessSource) }

func testEndlessSource(t *testing.T, via path) {
	m := NewMetrics(nil)
	st := withTCP(newSite(t, newTestServer(t, via.config(Config{Metrics: m}))))
	p, v := st.dial("")
	v.mu.Lock()
	v.batch = 1
	v.mu.Unlock()
	var frames [][]byte
	for i := range 5000 {
		frames = append(frames, plain(fmt.Sprint(i)))
	}
	v.send(frames...)
	for i := range 5000 {
		p.expect(finBit|opText, fmt.Sprint(i))
	}
	eventually(t, "the writing goroutine has ended", func() bool { return m.slow.Load() == 0 })
}

// TestConcurrentFlush flushes from many goroutines: no frame is left behind, none
// is written twice.
func TestConcurrentFlush(t *testing.T) { onBoth(t, testConcurrentFlush) }

func testConcurrentFlush(t *testing.T, via path) {
	for name, open := range map[string]func(*site) *site{"TCP": withTCP, "TLS": withTLS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newSite(t, newTestServer(t, via.config(Config{})))
			open(st)
			p, v := st.connect()
			const senders, each = 8, 200
			var wg sync.WaitGroup
			for range senders {
				wg.Go(func() {
					for range each {
						v.send(plain("x"))
					}
				})
			}
			for range senders * each {
				p.expect(finBit|opText, "x")
			}
			wg.Wait()
		})
	}
}

// TestFlushBeforeClose: what was flushed before Close comes before the close
// frame, even where a goroutine writes.
func TestFlushBeforeClose(t *testing.T) { onBoth(t, testFlushBeforeClose) }

func testFlushBeforeClose(t *testing.T, via path) {
	for name, open := range map[string]func(*site) *site{"TCP": withTCP, "TLS": withTLS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newSite(t, newTestServer(t, via.config(Config{})))
			open(st)
			for range 50 {
				p, v := st.connect()
				v.send(plain("reconnect"))
				v.conn.Close(1012, "retry_ms=1")
				v.send(plain("too late"))
				p.expect(finBit|opText, "reconnect")
				p.expectClose(1012, "retry_ms=1")
				_ = p.Close()
				v.cause()
			}
		})
	}
}

// TestFlushDuringEnd flushes while peers reset: Next is never called after Closed,
// which the viewer checks.
func TestFlushDuringEnd(t *testing.T) { onBoth(t, testFlushDuringEnd) }

func testFlushDuringEnd(t *testing.T, via path) {
	st := withTCP(newSite(t, newTestServer(t, via.config(Config{}))))
	for range 20 {
		p, v := st.dial("")
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						v.send(plain("x"))
					}
				}
			})
		}
		_ = p.Conn.(*net.TCPConn).SetLinger(0)
		_ = p.Close()
		if got := v.cause(); got.Kind != Lost {
			t.Errorf("cause %v", got)
		}
		close(stop)
		wg.Wait()
	}
}

// constant is a source that has one frame each time it is flushed.
type constant struct {
	frame []byte
	due   atomic.Bool
	given atomic.Int64
}

func (s *constant) Next(dst [][]byte) [][]byte {
	if !s.due.CompareAndSwap(true, false) {
		return dst
	}
	s.given.Add(1)
	return append(dst, s.frame)
}
func (*constant) Message([]byte) {}
func (*constant) Closed(Cause)   {}

// flushSite opens n connections whose peers discard what they get.
func flushSite(t testing.TB, n int) ([]*Conn, []*constant) {
	s := newTestServer(t, Config{})
	conns := make([]*Conn, 0, n)
	sources := make([]*constant, 0, n)
	st := newSite(t, s)
	accepted := make(chan *Conn)
	st.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := s.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- c
	})
	st.Start()
	f := plain(strings.Repeat("x", 64))
	for range n {
		nc, err := net.Dial("tcp", st.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		p := newPeer(t, nc)
		p.write([]byte(request("")))
		c := <-accepted
		src := &constant{frame: f}
		c.Start(src)
		p.handshake()
		go func() { // ends when the test closes the connection
			_, _ = io.Copy(io.Discard, nc)
		}()
		conns, sources = append(conns, c), append(sources, src)
	}
	return conns, sources
}

// TestFlushAllocatesNothing is not parallel: it counts the allocations of the
// whole process.
func TestFlushAllocatesNothing(t *testing.T) {
	conns, sources := flushSite(t, 1)
	allowed := 0.0
	if raceEnabled {
		allowed = 8 // what the pools drop
	}
	// No more runs than the kernel takes even if the peer never gets to read.
	got := testing.AllocsPerRun(100, func() {
		sources[0].due.Store(true)
		conns[0].Flush()
	})
	if got > allowed {
		t.Errorf("a Flush of one frame allocates %.1f times", got)
	}
}

func BenchmarkFlush(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprintf("conns=%d", n), func(b *testing.B) {
			conns, sources := flushSite(b, n)
			b.ReportAllocs()
			for b.Loop() {
				for i, c := range conns {
					sources[i].due.Store(true)
					c.Flush()
				}
			}
			given := int64(0)
			for _, src := range sources {
				given += src.given.Load()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(given), "ns/delivery")
		})
	}
}

// BenchmarkWrite is the floor: the same bytes by write(2) alone.
func BenchmarkWrite(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() { // ends when the listener and its connection are closed
		nc, err := l.Accept()
		if err == nil {
			_, _ = io.Copy(io.Discard, nc)
			_ = nc.Close()
		}
	}()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	f := bytes.Clone(plain(strings.Repeat("x", 64)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := nc.Write(f); err != nil {
			b.Fatal(err)
		}
	}
}
