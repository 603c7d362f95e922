package hub

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/kansei-live/kansei/protocol"
)

// Viewers come, lag, leave and come back with their cursors while comments pour in:
// every one of them sees the log's order, each comment at most once, and as many
// are missing as gaps told of.
func TestStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Ring = 8; c.Window = 2 * time.Millisecond })
	t.Cleanup(w.hub.Close)
	const comments = 3000
	keep, _ := w.join("r", "")
	defer keep.Leave()

	var wg sync.WaitGroup
	done := make(chan struct{})
	for n := range 20 {
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		wg.Go(func() {
			at, next := "", -1
			for last := false; !last; {
				v, s := w.join("r", at)
				for range 1 + rng.IntN(5) {
					time.Sleep(time.Duration(rng.IntN(8)) * time.Millisecond)
					s.freeze(rng.IntN(2) == 0)
				}
				select {
				case <-done:
					last = true
				default:
				}
				s.freeze(false)
				got := s.take()
				for end := time.Now().Add(20 * time.Second); last && next != comments && lastText(got) != comments-1 && time.Now().Before(end); {
					time.Sleep(time.Millisecond)
					got = append(got, s.take()...)
				}
				v.Leave()
				got = append(got, s.take()...)
				if at != "" && !got[0].(*protocol.Welcome).Recovered {
					t.Errorf("viewer %d was not recovered", n)
				}
				if next = follow(t, got, next); t.Failed() {
					return
				}
				if c := cursor(got); c != "" {
					at = c
				}
			}
			if next != comments {
				t.Errorf("viewer %d ended before %d", n, next)
			}
		})
	}
	for i := range comments {
		w.log.say(strconv.Itoa(i))
		if i%10 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	close(done)
	wg.Wait()
}

// lastText is the number of the last comment among messages, -1 without any.
func lastText(got []protocol.Message) int {
	for _, m := range slices.Backward(got) {
		if c, ok := m.(*protocol.Comments); ok && len(c.Items) > 0 {
			n, _ := strconv.Atoi(c.Items[len(c.Items)-1].Text)
			return n
		}
	}
	return -1
}

// follow checks what one viewer got from one connection, and returns the number of
// the comment that it waits for next; -1 while it waits for any.
func follow(t *testing.T, got []protocol.Message, next int) int {
	t.Helper()
	for _, m := range got {
		switch m := m.(type) {
		case *protocol.Gap:
			next += m.Missed
		case *protocol.Comments:
			for _, c := range m.Items {
				if i, _ := strconv.Atoi(c.Text); next < 0 || i == next {
					next = i + 1
				} else {
					t.Errorf("got %d, want %d: %s", i, next, brief(got))
					return next
				}
			}
		}
	}
	return next
}

// ready is a socket that takes everything and keeps nothing.
type ready struct {
	viewer *Viewer
	dst    [][]byte
	frames int
}

func (s *ready) Form() *Form       { return lines }
func (s *ready) Close(int, string) {}
func (s *ready) Flush() {
	for {
		s.dst = s.viewer.Next(s.dst[:0])
		if len(s.dst) == 0 {
			return
		}
		s.frames += len(s.dst)
	}
}

func TestNextDoesNotAllocate(t *testing.T) {
	w := newWorld(t, nil)
	t.Cleanup(w.hub.Close)
	v := new(Viewer)
	s := &ready{viewer: v}
	w.hub.Join(t.Context(), v, Join{Room: "r", User: "u", Socket: s, Welcome: func(bool) []byte { return []byte("w") }})
	defer v.Leave()
	r := v.room
	n := 0
	allocs := testing.AllocsPerRun(100, func() {
		r.mu.Lock()
		v.view.ring.head.Store(1) // the same frame again and again
		r.mu.Unlock()
		v.next = 0
		if v.view.ring.get(0) == nil {
			v.view.ring.slots[0].Store(&frame{chunk: chunk{frame: newFrame([][]byte{[]byte("x")}, demand{{lines, 1}})}})
		}
		s.Flush()
		n++
	})
	if allocs > 0 {
		t.Errorf("%v allocations a delivery", allocs)
	}
	if s.frames < n {
		t.Errorf("%d deliveries in %d runs", s.frames, n)
	}
}

// TestViewerIsCompact: what a delivery looks at is one line of a processor's cache.
func TestViewerIsCompact(t *testing.T) {
	t.Parallel()
	if at := unsafe.Offsetof(Viewer{}.replies); at > 64 {
		t.Errorf("a delivery looks at %d bytes of a viewer", at)
	}
}

// TestDeflateWhereItPays: few viewers of a small message get it plain.
func TestDeflateWhereItPays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		deflating, bytes int
		want             bool
	}{
		{0, 1 << 20, false}, {1, 200, false}, {5, 200, false}, {1, 12 << 10, true}, {50, 200, true}, {5000, 130, true},
	} {
		got := false
		optional := &Form{Instead: lines, Encode: func([][]byte) []byte { got = true; return nil }}
		var d demand
		d.count(optional, c.deflating)
		newFrame([][]byte{make([]byte, c.bytes)}, d)
		if got != c.want {
			t.Errorf("%d viewers, %d bytes: deflated %v, want %v", c.deflating, c.bytes, got, c.want)
		}
	}
}

// TestWorkers: a flush uses another processor only when one would not be done within
// half a window.
func TestWorkers(t *testing.T) {
	t.Parallel()
	most := runtime.GOMAXPROCS(0)
	for _, c := range []struct {
		cost    time.Duration
		viewers int
		want    int
	}{
		{0, 100_000, 1}, {5 * time.Microsecond, 5, 1}, {5 * time.Microsecond, 4000, 1},
		{time.Millisecond, 600, 1}, {time.Millisecond, 100_000, most},
	} {
		r := &Room{hub: New(Config{Window: 50 * time.Millisecond}), cost: c.cost}
		if got := r.workers(c.viewers); got != c.want {
			t.Errorf("%v a viewer, %d viewers: %d workers, want %d", c.cost, c.viewers, got, c.want)
		}
	}
}

// BenchmarkFlush measures what one flush costs beside the system calls.
func BenchmarkFlush(b *testing.B) {
	for _, viewers := range []int{5, 2000, 15000} {
		b.Run(fmt.Sprint(viewers), func(b *testing.B) {
			w := newWorld(b, nil)
			defer w.hub.Close()
			all, sockets := make([]*Viewer, viewers), make([]Socket, viewers)
			for i := range all {
				all[i] = new(Viewer)
				sockets[i] = &ready{viewer: all[i]}
				w.hub.Join(b.Context(), all[i], Join{Room: "r", User: "u", Socket: sockets[i],
					Welcome: func(bool) []byte { return []byte("w") }})
			}
			r := all[0].room
			e := w.log.put("r", "かわいい", AudienceAll)
			b.ReportAllocs()
			for b.Loop() {
				e.Seq++
				r.mu.Lock()
				r.add(&e, time.Now(), true)
				r.makeFrames(r.views[audienceView], time.Now())
				r.sent = r.sent[:0]
				r.mu.Unlock()
				flush(sockets, 1)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*viewers), "ns/delivery")
			for _, v := range all {
				v.Leave()
			}
		})
	}
}
