package hub

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// A node that hears of a viewer's place long after the viewer has come brings it what
// comes behind its place, once: neither what the viewer has already, nor less.
func TestLateViewer(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		v0, s0 := w.join("r", "")
		w.log.say("a")
		synctest.Wait()
		s0.take()
		w.log.put("r", "b", AudienceAll)
		c := w.log.put("r", "c", AudienceAll)
		w.log.put("r", "d", AudienceAll)

		began := time.Now()
		v, s := w.join("r", w.log.cursorAt(c.Seq))
		if waited := time.Since(began); waited < 3*time.Second || waited > 4*time.Second {
			t.Errorf("welcomed after %v", waited)
		}
		w.expect(s, "welcome(true) state")
		gone, _ := w.join("r", w.log.cursorAt(c.Seq))
		gone.Leave()
		f := w.log.follows["r"].f
		f.Degraded(true)
		time.Sleep(time.Second)
		if st := w.expect(s, "state")[0].(*protocol.State); !st.Degraded {
			t.Error("a viewer that waits is not told that the room is degraded")
		}
		f.Degraded(false)
		w.log.tell("r")
		time.Sleep(time.Second)
		w.expect(s, "state state history[d]")
		w.expect(s0, "state state comments[b c d]")
		w.log.say("e")
		synctest.Wait()
		w.expect(s, "comments[e]")
		v.Leave()
		v0.Leave()
		if n := len(v0.view.late) + len(v0.view.viewers); n > 0 {
			t.Errorf("%d viewers are left", n)
		}
	})
}

// A poll in the same place gets nothing, and keeps its place.
func TestLatePoll(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		r := w.read("r")
		defer r.Release()
		w.log.say("a")
		if !r.Ready(t.Context()) {
			t.Fatal("not ready")
		}
		b := w.log.put("r", "b", AudienceAll)
		w.log.put("r", "c", AudienceAll)
		at := w.log.cursorAt(b.Seq)
		at = w.poll(r, at, true, "history[]")
		w.log.tell("r")
		w.poll(r, at, true, "history[c]")
	})
}

// Those who wait are told when the log becomes another one, or has a hole.
func TestLateViewerOfALogThatChanges(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.log.put("r", "a", AudienceAll)
		v0, s0 := w.join("r", "")
		s0.take()
		b, c := w.log.put("r", "b", AudienceAll), w.log.put("r", "c", AudienceAll)
		d := w.log.put("r", "d", AudienceAll)
		vb, sb := w.join("r", w.log.cursorAt(b.Seq))
		vc, sc := w.join("r", w.log.cursorAt(c.Seq))
		vd, sd := w.join("r", w.log.cursorAt(d.Seq))
		for _, s := range []*fakeSocket{sb, sc, sd} {
			w.expect(s, "welcome(true) state")
		}
		ff := w.log.follows["r"]
		w.log.change(func() { w.log.forget(c.Seq) })
		ff.f.Forgot(c.Position())
		time.Sleep(time.Second)
		w.expect(s0, "gap(0)")
		w.expect(sb, "gap(0) state")
		w.expect(sc, "state")
		w.expect(sd, "")
		w.log.change(func() { w.log.renew("e2") })
		w.log.put("r", "new", AudienceAll)
		ff.reset(50)
		time.Sleep(time.Second)
		for _, s := range []*fakeSocket{s0, sb, sc} {
			w.expect(s, "gap(0) history[new]")
		}
		w.expect(sd, "state gap(0) history[new]")
		for _, v := range []*Viewer{v0, vb, vc, vd} {
			v.Leave()
		}
	})
}

// More may arrive at once than the room keeps for returning viewers.
func TestLateViewerOfAFlood(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3; c.Ring = 16 }, func(t *testing.T, w *world) {
		w.log.put("r", "a", AudienceAll)
		v0, _ := w.join("r", "")
		b := w.log.put("r", "b", AudienceAll)
		v, s := w.join("r", w.log.cursorAt(b.Seq))
		w.expect(s, "welcome(true) state")
		const n = 3000
		for i := range n {
			w.log.put("r", fmt.Sprint(i, strings.Repeat("x", 2000)), AudienceAll)
		}
		w.log.tell("r")
		time.Sleep(time.Second)
		got := s.take()
		if gap, ok := got[0].(*protocol.Gap); !ok || gap.Missed != 0 {
			t.Errorf("not told of a gap, but of %T", got[0])
		}
		next := -1
		for _, m := range got {
			c, ok := m.(*protocol.Comments)
			if !ok {
				continue
			}
			for _, it := range c.Items {
				var i int
				if _, err := fmt.Sscan(strings.TrimRight(it.Text, "x"), &i); err != nil {
					t.Fatal(err)
				}
				if next >= 0 && i != next {
					t.Fatalf("got %d, want %d", i, next)
				}
				next = i + 1
			}
		}
		if next != n {
			t.Errorf("got everything before %d, want %d", next, n)
		}
		v.Leave()
		v0.Leave()
	})
}
