package hub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

func TestCursors(t *testing.T) {
	t.Parallel()
	tag := cursorTag("e", "r")
	for _, p := range []Position{{}, {1, 1}, {123456, 1767225600123}, {1<<64 - 1, 1<<63 - 1}} {
		c := makeCursor(tag, p)
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{1,40}$`).MatchString(c) {
			t.Errorf("cursor %s", c)
		}
		if got, ok := parseCursor(tag, c); !ok || got != p {
			t.Errorf("%s is %v, %v; want %v", c, got, ok, p)
		}
	}
	if c := makeCursor(tag, Position{Seq: 5}); strings.Contains(c[tagLen:], "-") {
		t.Errorf("%s has a time", c)
	}
	for _, c := range []string{"", tag, tag + "5", tag + "5-", tag + "-5", tag + "5-0", tag + "0-5", tag + "5--5", tag + "5-5-5", tag + "5-zzzzzzzzzzzzzzz",
		makeCursor(cursorTag("e", "s"), Position{1, 1})} {
		if p, ok := parseCursor(tag, c); ok {
			t.Errorf("%q is %v", c, p)
		}
	}
}

func TestCommentID(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for seq := range uint64(1000) {
		for _, draft := range []string{"a", "b", "ab", ""} {
			id := CommentID(seq, draft)
			if !regexp.MustCompile(`^[0-9a-z]{5,16}$`).MatchString(id) || seen[id] {
				t.Fatalf("%d, %q: %s, seen %v", seq, draft, id, seen[id])
			}
			seen[id] = true
		}
	}
	if id := CommentID(1<<62-1, "x"); len(id) > 16 {
		t.Errorf("%s has %d characters", id, len(id))
	}
	e := Event{Seq: 5, At: 7}
	other := Event{Seq: 5, At: 8}
	if commentID(&e) == commentID(&other) {
		t.Error("two records without an id, in two pasts, have one id")
	}
	if e.ID = "x"; commentID(&e) != CommentID(5, "x") {
		t.Error("the id of a comment is another one than was acknowledged")
	}
}

func TestTrail(t *testing.T) {
	t.Parallel()
	var tr trail
	now := time.Now()
	const n = 5 * keepTrail / 2
	at := func(i int) Position { return Position{uint64(3 * i), int64(10*i + 1)} }
	for i := 1; i <= n; i++ {
		tr.add(at(i), now)
	}
	tr.add(at(n), now)
	tr.add(Position{Seq: 1 << 40}, now)
	if have := len(tr.old) + len(tr.young); have > 2*keepTrail || have < keepTrail {
		t.Errorf("it has %d positions", have)
	}
	for range 1000 {
		i := n - rand.IntN(keepTrail)
		if p, ok := tr.find(at(i).Seq); !ok || p != at(i) {
			t.Fatalf("%d is %v, %v", i, p, ok)
		}
		if p, ok := tr.find(at(i).Seq + 1); ok {
			t.Fatalf("%v is not there", p)
		}
	}
	if p, ok := tr.find(at(1).Seq); ok {
		t.Errorf("%v was kept", p)
	}
	for i := range 3 {
		now = now.Add(keepItems + time.Second)
		tr.add(at(n+1+i), now)
	}
	if len(tr.old)+len(tr.young) != 2 {
		t.Errorf("%d positions after two minutes", len(tr.old)+len(tr.young))
	}
}

// cutTo has the log lose what comes behind a position, as a restore does. l.mu is held.
func (l *fakeLog) cutTo(seq uint64) {
	for room, all := range l.events {
		for len(all) > 0 && all[len(all)-1].Seq > seq {
			all = all[:len(all)-1]
		}
		l.events[room] = all[:len(all):len(all)]
		l.seqs[room] = seq
	}
}

// A log that was restored from a backup gives sequences again. Cursors of what it has
// lost are followed nowhere: not where the room remembers what is there, nor where the
// log must be asked; those of before it are.
func TestCursorsOfAnotherPast(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		v, s := w.join("r", "")
		old := w.talk(100)
		kept := w.log.cursorAt(old[9])
		lost := map[string]string{}
		for _, i := range []int{30, 50, 60, 99} {
			lost[fmt.Sprint(i)] = w.log.cursorAt(old[i])
		}
		s.take()
		ids := map[string]bool{}
		for _, e := range w.log.events["r"] {
			ids[commentID(&e)] = true
		}
		f := w.log.follows["r"]
		w.log.change(func() { w.log.cutTo(old[9]) })
		f.reset(3)
		synctest.Wait()
		w.expect(s, "gap(0) history[7 8 9]")
		for i := range 80 {
			e := w.log.say(fmt.Sprint("new", i))
			if ids[commentID(&e)] {
				t.Errorf("the id %s was given out twice", commentID(&e))
			}
			time.Sleep(time.Second)
		}
		cold := &world{t: t, log: w.log, presence: newFakePresence()}
		cold.hub = New(Config{Log: w.log, Presence: cold.presence, Recent: 3})
		defer cold.hub.Close()
		first, _ := cold.join("r", "")
		defer first.Leave()
		for name, o := range map[string]*world{"a node that was there": w, "a new node": cold} {
			for at, c := range lost {
				v, s := o.join("r", c)
				o.expect(s, "welcome(false) state history[new77 new78 new79]")
				v.Leave()
				if _, recovered := v.room.polls(t.Context(), c); recovered {
					t.Errorf("%s: a poll from %s is recovered", name, at)
				}
			}
			v, s := o.join("r", kept)
			got := s.take()
			v.Leave()
			if m := got[0].(*protocol.Welcome); !m.Recovered || countOf(got) != 80 {
				t.Errorf("%s: from before what was lost: recovered %v, %d comments", name, m.Recovered, countOf(got))
			}
		}
		v.Leave()
	})
}

// A node that died had viewers in thousands of places, and tens of thousands in one: the
// log is asked once about each, and not at all about what the room remembers.
func TestEachCursorIsAskedAboutOnce(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 1 }, func(t *testing.T, w *world) {
		w.log.put("r", "a", AudienceAll)
		first, _ := w.join("r", "")
		defer first.Leave()
		seqs := w.talk(20)
		w.log.asked = 0
		come := func(cursor string, recovered bool) {
			v, s := w.join("r", cursor)
			defer v.Leave()
			if m := s.take()[0].(*protocol.Welcome); m.Recovered != recovered {
				t.Errorf("%s: recovered %v", cursor, m.Recovered)
			}
		}
		for _, seq := range seqs {
			come(w.log.cursorAt(seq), true)
		}
		if w.log.asked != 0 {
			t.Errorf("the log was asked %d times about what the room remembers", w.log.asked)
		}
		together := func(cursor string, recovered bool) {
			t.Helper()
			w.log.change(func() { w.log.asked, w.log.slow = 0, 100*time.Millisecond })
			var all sync.WaitGroup
			for i := range 2000 {
				all.Go(func() {
					time.Sleep(time.Duration(i) * time.Millisecond / 4)
					come(cursor, recovered)
				})
			}
			all.Wait()
			w.log.change(func() { w.log.slow = 0 })
			if w.log.asked != 1 {
				t.Errorf("the log was asked %d times about %s", w.log.asked, cursor)
			}
		}
		// The cursor of an empty room: a position of the log, ahead of this node's or not.
		together(makeCursor(cursorTag("e1", "r"), elsewhere(1000)), true)
		together(makeCursor(cursorTag("e1", "r"), Position{1000, 5}), false)

		// What fails is not remembered, and whoever has asked may leave.
		at := makeCursor(cursorTag("e1", "r"), elsewhere(2000))
		w.log.hasErr = errors.New("no leader")
		come(at, false)
		w.log.hasErr = nil
		come(at, true)
		for i := range 3 * keepAnswers {
			come(makeCursor(cursorTag("e1", "r"), elsewhere(uint64(3000+i))), true)
		}
		if n := len(first.room.questions[joiner]); n > keepAnswers {
			t.Errorf("%d answers are kept", n)
		}
	})
}

// A reader that polls with any number of unknown cursors holds up no viewer that returns
// back.
func TestPollsDoNotHoldUpViewers(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		first, _ := w.join("r", "")
		defer first.Leave()
		const slow = 2 * time.Second
		w.log.change(func() { w.log.slow = slow })
		var all sync.WaitGroup
		for i := range 2 * keepAnswers {
			all.Go(func() {
				if _, recovered := first.room.polls(t.Context(), makeCursor(cursorTag("e1", "r"), Position{uint64(1000 + i), 5})); recovered {
					t.Error("recovered from nowhere")
				}
			})
		}
		synctest.Wait()
		if n := len(first.room.questions[poller]); n > keepAnswers {
			t.Errorf("%d questions are kept", n)
		}
		began := time.Now()
		for range 3 { // the second and the third share the first one's question
			v, s := w.join("r", makeCursor(cursorTag("e1", "r"), elsewhere(5)))
			if m := s.take()[0].(*protocol.Welcome); !m.Recovered {
				t.Error("a viewer was not recovered")
			}
			v.Leave()
		}
		if took := time.Since(began); took > slow {
			t.Errorf("the viewers waited %v", took)
		}
		all.Wait()
	})
}
