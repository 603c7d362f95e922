package socket

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"github.com/kansei-live/kansei/protocol"
)

// crowd is a server with peers in a process of their own.
type crowd struct {
	*Server
	peers    *peers
	conns    []*Conn
	received atomic.Int64 // messages
	said     int          // bytes that the peers have to receive
}

// ear is the handler of a connection of which only the messages are counted.
type ear struct{ *crowd }

func (ear) Next(dst [][]byte) [][]byte { return dst }
func (e ear) Message([]byte)           { e.received.Add(1) }
func (ear) Closed(Cause)               {}

// openCrowd opens a crowd of n; ready is called when the server is there and
// nobody else.
func openCrowd(t testing.TB, config Config, n int, handler func(*crowd) Handler, ready func()) *crowd {
	config.Deflate = true
	cr := &crowd{Server: newTestServer(t, config)}
	accepted := make(chan *Conn, n)
	st := newSite(t, cr.Server)
	st.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := cr.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		accepted <- c
	})
	st.Start()
	ready()
	cr.peers = startPeers(t, st.Listener.Addr().String(), n)
	for range n {
		c := <-accepted
		c.Start(handler(cr))
		cr.conns = append(cr.conns, c)
	}
	return cr
}

// beats has every peer say its beat, and waits until it is answered.
func (cr *crowd) beats() {
	cr.peers.do("say")
	cr.said += len(cr.conns) * (2 + len("ping"))
	cr.peers.do("until %d", cr.said)
}

// resident is the resident memory of this process in bytes.
func resident(t testing.TB) uint64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var size, pages uint64
	if _, err := fmt.Sscan(string(b), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * uint64(os.Getpagesize())
}

// BenchmarkIdle reports what an idle viewer costs this process, after a deflated
// beat and a ping: as it is after 5 s, and what is left after a collection.
func BenchmarkIdle(b *testing.B) {
	const n = 10000
	for _, path := range paths {
		b.Run(path.name, func(b *testing.B) {
			for b.Loop() {
				var empty, full runtime.MemStats
				var none uint64
				cr := openCrowd(b, path.config(Config{}), n, func(cr *crowd) Handler { return ear{cr} }, func() {
					debug.FreeOSMemory()
					runtime.ReadMemStats(&empty)
					none = resident(b)
				})
				start := processTime()
				cr.beats()
				b.ReportMetric(float64((processTime()-start).Nanoseconds())/n, "beat-ns/viewer")
				time.Sleep(5 * time.Second)
				per := func(now, before uint64) float64 { return float64(int64(now-before)) / n }
				b.ReportMetric(per(resident(b), none), "rss-B/viewer")
				debug.FreeOSMemory()
				runtime.ReadMemStats(&full)
				b.ReportMetric(per(resident(b), none), "rss-after-GC-B/viewer")
				b.ReportMetric(per(full.HeapAlloc, empty.HeapAlloc), "heap-B/viewer")
				b.ReportMetric(per(full.StackInuse, empty.StackInuse), "stack-B/viewer")
				b.ReportMetric(per(full.OtherSys+full.GCSys+full.MSpanSys+full.BuckHashSys, empty.OtherSys+empty.GCSys+empty.MSpanSys+empty.BuckHashSys), "other-B/viewer")
				b.ReportMetric(float64(runtime.NumGoroutine())/n, "goroutines/viewer")
				if got := cr.received.Load(); got != n {
					b.Errorf("%d messages, want %d", got, n)
				}
				cr.peers.stop()
				eventually(b, "all have left", func() bool { return cr.Len() == 0 })
			}
		})
	}
}

// processTime is the CPU time of this process.
func processTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) // it cannot fail
	return time.Duration(ts.Nano())
}

func median(d []float64) float64 {
	slices.Sort(d)
	return d[len(d)/2]
}

// BenchmarkJoin compares the CPU of this process for a connection accepted and
// started with that for a bare websocket.Accept, in turns.
func BenchmarkJoin(b *testing.B) {
	const n = 2000
	bare := func() float64 {
		var mu sync.Mutex
		var conns []*websocket.Conn
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
				Subprotocols: []string{protocol.Subprotocol}, CompressionMode: websocket.CompressionNoContextTakeover,
			})
			if err != nil {
				b.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, c)
		}))
		defer s.Close()
		start := processTime()
		defer startPeers(b, s.Listener.Addr().String(), n).stop()
		took := processTime() - start
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.CloseNow()
		}
		return float64(took.Nanoseconds()) / n
	}
	ours := func(via path) float64 {
		var start time.Duration
		cr := openCrowd(b, via.config(Config{}), n, func(cr *crowd) Handler { return ear{cr} }, func() { start = processTime() })
		took := processTime() - start
		cr.peers.stop()
		eventually(b, "all have left", func() bool { return cr.Len() == 0 })
		return float64(took.Nanoseconds()) / n
	}
	taken := make(map[string][]float64)
	for b.Loop() {
		bare := bare()
		taken["bare-ns/join"] = append(taken["bare-ns/join"], bare)
		for _, via := range paths {
			took := ours(via)
			taken[via.name+"-ns/join"] = append(taken[via.name+"-ns/join"], took)
			taken[via.name+"-ratio"] = append(taken[via.name+"-ratio"], took/bare)
		}
	}
	for unit, all := range taken {
		b.ReportMetric(median(all), unit)
	}
}

// BenchmarkFloor compares the CPU of this process for a Flush of one frame with
// that for a write(2) of the same bytes to the same sockets, in turns.
func BenchmarkFloor(b *testing.B) {
	for _, n := range []int{2000, 5000} {
		b.Run(fmt.Sprintf("conns=%d", n), func(b *testing.B) {
			f := plain(strings.Repeat("x", 250))
			var sources []*constant
			cr := openCrowd(b, Config{}, n, func(*crowd) Handler {
				sources = append(sources, &constant{frame: f})
				return sources[len(sources)-1]
			}, func() {})
			fds := make([]int, n)
			for i, c := range cr.conns {
				fds[i] = int(c.fd)
			}
			flush := func() {
				for i, c := range cr.conns {
					sources[i].due.Store(true)
					c.Flush()
				}
			}
			write := func() {
				for _, fd := range fds {
					if m, err := unix.Write(fd, f); m != len(f) {
						b.Fatal(m, err)
					}
				}
			}
			timed := func(round func()) float64 {
				start := processTime()
				round()
				took := processTime() - start
				cr.said += n * len(f)
				cr.peers.do("until %d", cr.said)
				return float64(took.Nanoseconds()) / float64(n)
			}
			var flushes, writes, ratios []float64
			for b.Loop() {
				// The second one finds less in the caches.
				var w, f float64
				if len(ratios)%2 == 0 {
					w, f = timed(write), timed(flush)
				} else {
					f, w = timed(flush), timed(write)
				}
				writes, flushes, ratios = append(writes, w), append(flushes, f), append(ratios, f/w)
			}
			b.ReportMetric(median(flushes), "flush-ns/delivery")
			b.ReportMetric(median(writes), "write-ns/delivery")
			b.ReportMetric(median(ratios), "ratio")
		})
	}
}
