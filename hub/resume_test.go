package hub

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// What one viewer has to be sent of the past is shared with those that return to the
// same place, and does not change when they do.
func TestBacklogsAreTheirOwn(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		_, first := w.join("r", "")
		first.take()
		w.log.say("start")
		time.Sleep(time.Second)
		start := cursor(first.take())
		pad := strings.Repeat("x", 180)
		for i := range 300 { // three frames, in a slice that has room for a fourth
			w.log.say(fmt.Sprint(i, pad))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * keepItems)
		w.log.say("last") // what is older is in the log alone
		time.Sleep(time.Second)
		_, a := w.join("r", start)
		a.take()
		w.log.say("X")
		time.Sleep(time.Second)

		vb := new(Viewer)
		b := &fakeSocket{viewer: vb, frozen: true}
		w.hub.Join(t.Context(), vb, Join{Room: "r", User: "u", Socket: b, Since: start, Welcome: welcome})
		w.log.say("Y")
		time.Sleep(time.Second)
		_, c := w.join("r", start)
		c.take()
		b.freeze(false)
		seen := map[string]bool{}
		for _, m := range b.take() {
			if m, ok := m.(*protocol.Comments); ok {
				for _, it := range m.Items {
					if seen[it.ID] {
						t.Errorf("%s came twice", it.Text)
					}
					seen[it.ID] = true
				}
			}
		}
		if len(seen) != 303 {
			t.Errorf("%d comments, want 303", len(seen))
		}
		for _, s := range []*fakeSocket{first, a, b, c} {
			s.viewer.Leave()
		}
	})
}

// keeps is how many items a viewer's view keeps, and how many bytes of chunks.
func (v *Viewer) keeps() (items, bytes int) {
	v.room.mu.Lock()
	defer v.room.mu.Unlock()
	return len(v.view.items), v.view.cache.bytes
}

// Viewers with every possible cursor leave little behind, where the cursors are found
// among the items and where the log has to be read.
func TestResumesAreBounded(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		_, first := w.join("r", "")
		first.take()
		pad := strings.Repeat("x", 4000)
		var cursors []string
		say := func(n int) {
			for range n {
				w.log.say(pad)
				time.Sleep(100 * time.Millisecond)
				cursors = append(cursors, cursor(first.take()))
			}
		}
		visit := func() (most int) {
			for _, c := range cursors {
				v := new(Viewer)
				if !w.hub.Join(t.Context(), v, Join{Room: "r", User: "u", Since: c, Welcome: welcome,
					Socket: &fakeSocket{viewer: v, frozen: true}}) {
					t.Fatal("a cursor is not known")
				}
				v.Leave()
				_, bytes := first.viewer.keeps()
				if most = max(most, bytes); bytes > keepCacheBytes {
					t.Fatalf("%d bytes are kept", bytes)
				}
			}
			return most
		}
		say(150)
		if most := visit(); most < keepCacheBytes/4 {
			t.Errorf("at most %d bytes at a time were kept of what is in memory", most)
		}
		time.Sleep(2 * keepItems)
		say(1)
		if n, _ := first.viewer.keeps(); n > 10 {
			t.Fatalf("%d items are left", n)
		}
		if most := visit(); most < keepCacheBytes/4 {
			t.Errorf("at most %d bytes at a time were kept of what was read back", most)
		}
		time.Sleep(keepBackfill + 3*settleAfter)
		if n, bytes := first.viewer.keeps(); n > 10 || bytes > 10*5000 {
			t.Errorf("an idle room keeps %d items and %d bytes of chunks", n, bytes)
		}
		first.viewer.Leave()
	})
}

// What was read back from the log is let go, also when more was read at the time.
func TestBackfillIsFreed(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		cursors, first := w.hour(300)
		w.log.change(func() { w.log.slow = 200 * time.Millisecond })
		v, _ := w.join("r", cursors[100]) // read after 0.2 s, to be freed after 10 s
		v.Leave()
		time.Sleep(keepBackfill - 300*time.Millisecond)
		v, _ = w.join("r", cursors[50]) // is read at that moment
		v.Leave()
		time.Sleep(keepBackfill + keepItems + 2*settleAfter)
		synctest.Wait()
		if n, _ := first.viewer.keeps(); n > 3 {
			t.Errorf("%d items are kept", n)
		}
		first.viewer.room.mu.Lock()
		if first.viewer.room.settling != nil {
			t.Error("an idle room has a timer")
		}
		first.viewer.room.mu.Unlock()
		first.viewer.Leave()
	})
}

// hour says n comments, one a second, and returns the cursors and who has got them.
func (w *world) hour(n int) (cursors []string, first *fakeSocket) {
	_, first = w.join("r", "")
	first.take()
	for i := range n {
		w.log.say(fmt.Sprint(i))
		time.Sleep(time.Second)
		cursors = append(cursors, cursor(first.take()))
	}
	return cursors, first
}

// Viewers with ever older cursors, all at the same time, cost few reads of the log, and
// keep no other viewer from returning.
func TestEverOlderCursors(t *testing.T) {
	for _, how := range []string{"poll", "join"} {
		t.Run(how, func(t *testing.T) {
			inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
				cursors, first := w.hour(500)
				w.log.change(func() { w.log.slow, w.log.pages = 30*time.Millisecond, 0 })
				room := w.read("r")
				const many = 200
				done := make(chan bool)
				for k := range many {
					go func() {
						at := cursors[400-2*k]
						if how == "poll" {
							_, recovered := room.polls(t.Context(), at)
							done <- recovered
							return
						}
						v, s := w.join("r", at)
						v.Leave()
						done <- s.take()[0].(*protocol.Welcome).Recovered
					}()
					synctest.Wait() // in this order
				}
				began := time.Now()
				v, s := w.join("r", cursors[399])
				if got := s.take(); !got[0].(*protocol.Welcome).Recovered || time.Since(began) > 200*time.Millisecond {
					t.Errorf("recovered: %v, after %v", got[0].(*protocol.Welcome).Recovered, time.Since(began))
				}
				v.Leave()
				for range many {
					if !<-done {
						t.Error("one of many is not recovered")
					}
				}
				// All of them are among the first 400 comments.
				if w.log.pages > 3 {
					t.Errorf("%d pages of the log", w.log.pages)
				}
				synctest.Wait()
				room.mu.Lock()
				if b := &first.viewer.view.backfill; len(b.waiting) > 0 || b.reading {
					t.Errorf("%d wait still", len(b.waiting))
				}
				room.mu.Unlock()
				room.Release()
				first.viewer.Leave()
			})
		})
	}
}

// Of those who wait together, one whose cursor is too old costs the others a read, and
// nothing else.
func TestTooOldAmongOthers(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3; c.RecoverMax = 200 }, func(t *testing.T, w *world) {
		cursors, first := w.hour(500)
		w.log.change(func() { w.log.slow, w.log.pages = 30*time.Millisecond, 0 })
		type result struct {
			at        int
			recovered bool
		}
		done := make(chan result)
		ats := []int{350, 10, 340, 5, 330}
		for _, at := range ats {
			go func() {
				v, s := w.join("r", cursors[at])
				v.Leave()
				done <- result{at, s.take()[0].(*protocol.Welcome).Recovered}
			}()
			synctest.Wait()
		}
		for range ats {
			if got := <-done; got.recovered != (got.at > 300) {
				t.Errorf("recovered from %d: %v", got.at, got.recovered)
			}
		}
		if w.log.pages > 4 {
			t.Errorf("%d pages of the log", w.log.pages)
		}
		first.viewer.Leave()
	})
}
