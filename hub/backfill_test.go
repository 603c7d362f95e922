package hub

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Everybody who was on a node that died comes back at once, with nearly the same
// cursors: the log is read for all of them together, while comments go on, and each
// gets what it has missed, once and in order.
func TestComeBackTogether(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		_, first := w.join("r", "")
		first.take()
		var cursors []string
		said := 0
		say := func(pause time.Duration) {
			w.log.say(fmt.Sprint(said))
			said++
			time.Sleep(pause)
		}
		for range 300 {
			say(time.Second)
			cursors = append(cursors, cursor(first.take()))
		}
		w.log.mu.Lock()
		w.log.slow, w.log.pages = 200*time.Millisecond, 0
		w.log.mu.Unlock()

		const viewers = 200
		comeBack := func() (pages int) {
			sockets := make([]*fakeSocket, viewers)
			var wg sync.WaitGroup
			for i := range viewers {
				wg.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond)
					var v *Viewer
					v, sockets[i] = w.join("r", cursors[100+i%7])
					defer v.Leave()
					time.Sleep(10 * time.Second)
				})
			}
			for range 100 {
				say(20 * time.Millisecond)
			}
			wg.Wait()
			for i, s := range sockets {
				next := 101 + i%7
				for _, m := range s.take() {
					switch m := m.(type) {
					case *protocol.Welcome:
						if !m.Recovered {
							t.Fatalf("viewer %d is not recovered", i)
						}
					case *protocol.Gap:
						t.Fatalf("viewer %d is told of a gap of %d", i, m.Missed)
					case *protocol.Comments:
						for _, c := range m.Items {
							if c.Text != fmt.Sprint(next) {
								t.Fatalf("viewer %d got %s, want %d", i, c.Text, next)
							}
							next++
						}
					}
				}
				if next != said {
					t.Fatalf("viewer %d got everything before %d, want %d", i, next, said)
				}
			}
			w.log.mu.Lock()
			defer w.log.mu.Unlock()
			pages, w.log.pages = w.log.pages, 0
			return pages
		}
		if n := comeBack(); n < 1 || n > 3 {
			t.Errorf("%d pages of the log for %d viewers with 7 cursors", n, viewers)
		}
		time.Sleep(keepBackfill + 2*settleAfter)
		synctest.Wait()
		if n, _ := first.viewer.keeps(); n > 200 {
			t.Errorf("%d items are kept", n)
		}
		if n := comeBack(); n < 1 || n > 3 {
			t.Errorf("%d pages of the log the second time", n)
		}
		first.viewer.Leave()
	})
}

// One who has missed too much takes nothing from those who have not, and does not
// have the log read again and again.
func TestTooMuchForOne(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3; c.RecoverMax = 200 }, func(t *testing.T, w *world) {
		_, first := w.join("r", "")
		first.take()
		var cursors []string
		for i := range 500 {
			w.log.say(fmt.Sprint(i))
			time.Sleep(time.Second)
			cursors = append(cursors, cursor(first.take()))
		}
		recovered := func(cursor string) bool {
			v, s := w.join("r", cursor)
			defer v.Leave()
			return s.take()[0].(*protocol.Welcome).Recovered
		}
		for _, c := range []struct {
			at   int
			want bool
		}{{10, false}, {350, true}, {10, false}, {5, false}, {400, true}, {310, true}, {250, false}, {320, true}} {
			if got := recovered(cursors[c.at]); got != c.want {
				t.Errorf("recovered from %d: %v, want %v", c.at, got, c.want)
			}
		}
		w.log.pages = 0
		for range 100 {
			recovered(cursors[10])
		}
		if w.log.pages > 0 {
			t.Errorf("%d pages of the log for those who have missed too much", w.log.pages)
		}
		first.viewer.Leave()
	})
}

// Items that are forgotten while a page before them is read leave no hole.
func TestForgottenDuringBackfill(t *testing.T) {
	for _, page := range []int{1, 2} {
		t.Run(fmt.Sprint("page ", page), func(t *testing.T) {
			inBubble(t, func(c *Config) { c.Recent, c.RecoverMax = 3, 300 }, func(t *testing.T, w *world) {
				cursors, first := w.hour(250)
				time.Sleep(50 * time.Second)
				next := 250
				w.log.change(func() {
					w.log.pages = 0
					w.log.paging = func(n int) {
						if n == page { // a flush forgets what is old
							w.log.say(fmt.Sprint(next))
							next++
							time.Sleep(time.Second)
						}
					}
				})
				v, s := w.join("r", cursors[10])
				got := s.take()
				if !got[0].(*protocol.Welcome).Recovered {
					t.Error("not recovered")
				}
				want := 11
				for _, m := range got {
					if c, ok := m.(*protocol.Comments); ok {
						for _, it := range c.Items {
							if it.Text != fmt.Sprint(want) {
								t.Fatalf("page %d: got %s, want %d", page, it.Text, want)
							}
							want++
						}
					}
				}
				if want != next {
					t.Errorf("ends before %d, want %d", want, next)
				}
				v.Leave()
				first.viewer.Leave()
			})
		})
	}
}

// A log that does not answer at once costs a returning viewer time, and its place only if it
// does not answer in time.
func TestBackfillTriesAgain(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		cursors, first := w.hour(200)
		w.log.change(func() { w.log.pageErr = ErrUnavailable })
		come := func() (recovered bool, took time.Duration) {
			began := time.Now()
			v, s := w.join("r", cursors[10])
			defer v.Leave()
			return s.take()[0].(*protocol.Welcome).Recovered, time.Since(began)
		}
		if recovered, took := come(); recovered || took < 3*time.Second || took > 4*time.Second {
			t.Errorf("recovered %v after %v", recovered, took)
		}
		time.AfterFunc(time.Second, func() { w.log.change(func() { w.log.pageErr = nil }) })
		if recovered, took := come(); !recovered || took > 2*time.Second {
			t.Errorf("recovered %v after %v, when the log answers again", recovered, took)
		}
		first.viewer.Leave()
	})
}
