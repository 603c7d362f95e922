package hub

import (
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// inBubble runs a test under fake time and shuts the hub at its end.
func inBubble(t *testing.T, change func(*Config), f func(t *testing.T, w *world)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change)
		f(t, w)
		w.hub.Close()
	})
}

func TestJoinThenLive(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.log.put("r", "old", AudienceAll)
		v, s := w.join("r", "")
		if s.writes != 1 {
			t.Errorf("a join took %d writes", s.writes)
		}
		w.expect(s, "welcome(false) state history[old]")
		w.log.say("a")
		synctest.Wait()
		w.expect(s, "comments[a]") // at once, without time passing
		v.Leave()
		v.Leave()
		w.log.say("b")
		time.Sleep(time.Second)
		w.expect(s, "")
	})
}

func TestEmptyRoomGivesACursor(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		v, s := w.join("r", "")
		at := cursor(w.expect(s, "welcome(false) state history[]"))
		v.Leave()
		w.log.say("a")
		synctest.Wait()
		v, s = w.join("r", at)
		w.expect(s, "welcome(true) state history[a]")
		v.Leave()
	})
}

func TestOneRoundPerWindow(t *testing.T) {
	inBubble(t, func(c *Config) { c.Window = 50 * time.Millisecond }, func(t *testing.T, w *world) {
		v, s := w.join("r", "")
		s.take()
		for i := range 12 {
			w.log.say(fmt.Sprint(i))
			time.Sleep(11 * time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond)
		w.expect(s, "comments[0] comments[1 2 3 4] comments[5 6 7 8 9] comments[10 11]")
		v.Leave()
	})
}

func TestLargeFramesAreSplit(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		v, s := w.join("r", "")
		s.take()
		long := make([]byte, 5000)
		for i := range long {
			long[i] = 'x'
		}
		for range 20 {
			w.log.put("r", string(long), AudienceAll)
		}
		w.log.tell("r")
		synctest.Wait()
		n := 0
		for _, m := range s.take() {
			c := m.(*protocol.Comments)
			if size := len(protocol.Encode(c)); size > maxFrame+6000 {
				t.Errorf("a frame of %d bytes", size)
			}
			n += len(c.Items)
		}
		if n != 20 {
			t.Errorf("%d of 20 comments", n)
		}
		v.Leave()
	})
}

func TestResume(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3; c.RecoverMax = 400 }, func(t *testing.T, w *world) {
		_, first := w.join("r", "")
		start := cursor(first.take())
		other, _ := w.join("other", "")
		other.Leave()
		var cursors []string
		for i := range 300 {
			w.log.say(fmt.Sprint(i))
			time.Sleep(time.Second)
			cursors = append(cursors, cursor(first.take()))
		}
		pages := func() int { n := w.log.pages; w.log.pages = 0; return n }

		check := func(name, since string, recovered bool, from, wantPages int) {
			t.Helper()
			v, s := w.join("r", since)
			defer v.Leave()
			got := s.take()
			if b := brief(got[:2]); b != fmt.Sprintf("welcome(%v) state", recovered) {
				t.Errorf("%s: %s", name, b)
			}
			next := from
			for _, m := range got[2:] {
				for _, c := range m.(*protocol.Comments).Items {
					if c.Text != fmt.Sprint(next) {
						t.Fatalf("%s: %s, want %d", name, c.Text, next)
					}
					next++
				}
			}
			if next != 300 {
				t.Errorf("%s: ends before %d", name, next)
			}
			if n := pages(); n != wantPages {
				t.Errorf("%s: %d pages of the log, want %d", name, n, wantPages)
			}
		}
		check("nothing missed", cursors[299], true, 300, 0)
		check("one missed", cursors[298], true, 299, 0)
		check("within the items", cursors[250], true, 251, 0)
		check("before the items", cursors[10], true, 11, 2)
		check("from the beginning", start, true, 0, 0)
		check("of another room", makeCursor(cursorTag("e1", "other"), Position{4, 1}), false, 297, 0)
		check("of another epoch", makeCursor(cursorTag("e0", "r"), Position{4, 1}), false, 297, 0)
		check("garbage", "garbage", false, 297, 0)
		check("not even a number", cursors[0][:tagLen]+"-_", false, 297, 0)
		check("from the future", makeCursor(cursorTag("e1", "r"), Position{1 << 40, 1}), false, 297, 0)
		check("none", "", false, 297, 0)

		for i := 300; i < 450; i++ {
			w.log.say(fmt.Sprint(i))
		}
		time.Sleep(time.Second)
		v, s := w.join("r", cursors[10])
		w.expect(s, "welcome(false) state history[447 448 449]")
		v.Leave()
		first.viewer.Leave()
	})
}

// A cursor may cover what this node has heard of but not framed, and what it has
// not heard of yet.
func TestResumeAheadOfTheRounds(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		v0, s0 := w.join("r", "")
		s0.take()
		w.log.say("a")
		synctest.Wait()
		b := w.log.say("b") // waits for the window
		w.log.say("c")
		tag := cursorTag("e1", "r")
		v, s := w.join("r", w.log.cursorAt(b.Seq))
		w.expect(s, "welcome(true) state history[c]")
		time.Sleep(time.Second)
		w.expect(s, "")
		w.expect(s0, "comments[a] comments[b c]")
		v.Leave()

		d := w.log.put("r", "d", AudienceAll) // this node's report is late
		e := w.log.put("r", "e", AudienceAll)
		time.AfterFunc(time.Second, func() { w.log.tell("r") })
		v, s = w.join("r", w.log.cursorAt(d.Seq))
		time.Sleep(time.Second)
		got := brief(s.take())
		if got != "welcome(true) state history[e]" && got != "welcome(true) state comments[e]" {
			t.Error(got)
		}
		v.Leave()

		v, s = w.join("r", makeCursor(tag, Position{e.Seq + 1, e.At})) // nobody has heard of it
		w.expect(s, "welcome(false) state history[a b c d e]")
		v.Leave()
		v0.Leave()
	})
}

func TestSlowViewerGetsAGap(t *testing.T) {
	inBubble(t, func(c *Config) { c.Ring = 4 }, func(t *testing.T, w *world) {
		fast, sf := w.join("r", "")
		slow, ss := w.join("r", "")
		sf.take()
		ss.take()
		say := func(from, to int) {
			for i := from; i < to; i++ {
				w.log.say(fmt.Sprint(i))
				time.Sleep(100 * time.Millisecond)
			}
		}
		say(0, 1)
		ss.freeze(true)
		say(1, 5)
		ss.freeze(false)
		w.expect(ss, "comments[0] comments[1] comments[2] comments[3] comments[4]")
		ss.freeze(true)
		say(5, 20)
		ss.freeze(false)
		at := cursor(w.expect(ss, "gap(14) comments[19]"))
		say(20, 21)
		w.expect(ss, "comments[20]")
		slow.Leave()
		slow, ss = w.join("r", at)
		w.expect(ss, "welcome(true) state history[20]")
		if n := len(sf.take()); n != 21 {
			t.Errorf("the fast viewer got %d frames", n)
		}
		slow.Leave()
		fast.Leave()
	})
}

func TestNewEpoch(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.log.put("r", "old", AudienceAll)
		v, s := w.join("r", "")
		at := cursor(w.expect(s, "welcome(false) state history[old]"))
		w.log.mu.Lock()
		w.log.renew("e2")
		f := w.log.follows["r"]
		w.log.mu.Unlock()
		w.log.put("r", "new", AudienceAll)
		f.reset(50)
		synctest.Wait()
		w.expect(s, "gap(0) history[new]")
		v.Leave()
		v, s = w.join("r", at)
		w.expect(s, "welcome(false) state history[new]")
		v.Leave()
	})
}

func TestLogThatIsNotThere(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.log.silent = true
		before := time.Now()
		v, s := w.join("r", "anything")
		if waited := time.Since(before); waited > 3*time.Second {
			t.Errorf("waited %v", waited)
		}
		w.expect(s, "welcome(false) state")
		w.log.put("r", "old", AudienceAll)
		w.log.mu.Lock()
		f := w.log.follows["r"]
		w.log.mu.Unlock()
		f.f.Degraded(true)
		synctest.Wait()
		w.expect(s, "state")
		f.reset(50)
		f.f.Degraded(false)
		time.Sleep(time.Second)
		if got := brief(s.take()); got != "history[old] state" && got != "state history[old]" {
			t.Error(got)
		}
		v.Leave()
	})
}

func TestStaffView(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		viewer, sv := w.joinAs("r", "", false)
		staff, ss := w.joinAs("r", "", true)
		sv.take()
		ss.take()
		w.log.put("r", "all", AudienceAll)
		w.log.put("r", "secret", AudienceStaff)
		w.log.put("r", "one", AudienceUser+"u")
		w.log.tell("r")
		synctest.Wait()
		w.expect(sv, "comments[all one]")
		w.expect(ss, "comments[all secret one]")
		viewer.Leave()
		staff.Leave()
	})
}

func TestCountsAndState(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		v, s := w.join("r", "")
		s.take()
		w.presence.tell("r")
		synctest.Wait()
		w.expect(s, "viewers(1)")
		w.presence.report["r"](Counts{At: 1}) // from before the viewer came
		synctest.Wait()
		w.expect(s, "")
		s.freeze(true)
		for range 5 {
			w.presence.tell("r")
			time.Sleep(time.Second)
		}
		synctest.Wait()
		w.log.follows["r"].f.SetState(State{Rev: 3, Body: []byte(`{"status":"ended","title":"t"}`)})
		time.Sleep(time.Second)
		s.freeze(false)
		got := s.take()
		if b := brief(got); b != "state viewers(1)" {
			t.Errorf("a viewer that lagged got %s", b)
		}
		if st := *got[0].(*protocol.State); !reflect.DeepEqual(st, protocol.State{Rev: 3, Status: "ended", Title: "t"}) {
			t.Errorf("state %+v", st)
		}
		v.Leave()
	})
}

func TestRoomsComeAndGo(t *testing.T) {
	inBubble(t, func(c *Config) { c.Linger = 10 * time.Second }, func(t *testing.T, w *world) {
		v, _ := w.join("r", "")
		v.Leave()
		time.Sleep(9 * time.Second)
		v, _ = w.join("r", "")
		time.Sleep(9 * time.Second)
		if w.log.stopped != 0 {
			t.Error("a room with a viewer was shut")
		}
		v.Leave()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if w.log.stopped != 1 || w.presence.closed != 1 || w.presence.conns["r"] != 0 {
			t.Errorf("stopped %d, closed %d, %d there", w.log.stopped, w.presence.closed, w.presence.conns["r"])
		}
		synctest.Wait()
		if len(w.hub.rooms) != 0 {
			t.Error("the room is still there")
		}
	})
}

func TestUnreadAnswersAreBounded(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		v, s := w.join("r", "")
		s.freeze(true)
		for range maxReplies + 1 {
			v.Send(s, []byte(`{"type":"beat","now":1}`))
		}
		if s.closed != int(protocol.CloseTooSlow) {
			t.Errorf("closed with %d", s.closed)
		}
		v.Leave()
	})
}

func TestPoll(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 2 }, func(t *testing.T, w *world) {
		for i := range 5 {
			w.log.put("r", fmt.Sprint(i), AudienceAll)
		}
		r := w.read("r")
		defer r.Release()
		if !r.Ready(t.Context()) {
			t.Fatal("not ready")
		}
		poll := func(since string, recovered bool, want string) string {
			t.Helper()
			msg, ok := r.polls(t.Context(), since)
			m, err := protocol.Decode(msg)
			if err != nil {
				t.Fatal(err)
			}
			if b := brief([]protocol.Message{m}); b != want || ok != recovered {
				t.Errorf("%v %s, want %v %s", ok, b, recovered, want)
			}
			return m.(*protocol.Comments).Cursor
		}
		at := poll("", false, "history[3 4]")
		at = poll(at, true, "history[]")
		w.log.say("5")
		w.log.say("6")
		at = poll(at, true, "history[5 6]")
		poll(at, true, "history[]")
		poll("nonsense", false, "history[5 6]")
	})
}
