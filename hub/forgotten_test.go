package hub

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// poll polls and returns the new cursor.
func (w *world) poll(r *Room, since string, recovered bool, want string) string {
	w.t.Helper()
	msg, ok := r.polls(w.t.Context(), since)
	m, err := protocol.Decode(msg)
	if err != nil {
		w.t.Fatal(err)
	}
	if b := brief([]protocol.Message{m}); b != want || ok != recovered {
		w.t.Errorf("%v %s, want %v %s", ok, b, recovered, want)
	}
	return m.(*protocol.Comments).Cursor
}

// talk has so many comments said, a second apart, and returns where they are.
func (w *world) talk(n int) []uint64 {
	seqs := make([]uint64, n)
	for i := range seqs {
		seqs[i] = w.log.say(fmt.Sprint(i)).Seq
		time.Sleep(time.Second)
	}
	return seqs
}

// A cursor behind which the log has removed comments is not followed, however the
// viewer comes, and whenever they were removed; one that the node's own items reach is.
func TestForgottenCursors(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 2; c.RecoverMax = 5000 }, func(t *testing.T, w *world) {
		v0, _ := w.join("r", "")
		defer v0.Leave()
		seqs := w.talk(300)
		at := func(i int) string { return w.log.cursorAt(seqs[i]) }
		pages := func() int { n := w.log.pages; w.log.pages = 0; return n }
		r := v0.room
		check := func(name string, i int, recovered, read bool) {
			t.Helper()
			pages()
			v, s := w.join("r", at(i))
			got := s.take()
			v.Leave()
			if m := got[0].(*protocol.Welcome); m.Recovered != recovered {
				t.Errorf("%s: recovered %v", name, m.Recovered)
			}
			want := fmt.Sprint(300 - i - 1)
			if !recovered {
				want = "2"
			}
			if n := countOf(got); fmt.Sprint(n) != want {
				t.Errorf("%s: %d comments, want %s", name, n, want)
			}
			if n := pages(); n > 0 != read {
				t.Errorf("%s: %d pages of the log", name, n)
			}
		}
		check("nothing was removed", 50, true, true)
		time.Sleep(keepBackfill + 2*settleAfter)
		w.log.change(func() { w.log.forget(seqs[99]) })
		check("the next one was removed", 98, false, false)
		check("it was removed itself: nobody knows whether it was there", 99, false, false)
		check("all that follow are there", 100, true, true)
		check("after it", 150, true, false)
		check("in the items", 299, true, false)
		time.Sleep(keepBackfill + 2*settleAfter)
		w.log.change(func() { w.log.forget(seqs[299]) }) // all of it
		check("before the items", 150, false, false)
		check("in the items, though the log has nothing", 297, true, false)
		w.poll(r, at(150), false, "history[298 299]")
		w.poll(r, at(297), true, "history[298 299]")
		time.Sleep(keepBackfill + 2*settleAfter)

		// While it is being read.
		seqs = append(seqs, w.talk(200)...)
		w.log.change(func() {
			w.log.paging = func(int) { w.log.change(func() { w.log.forget(seqs[310]) }) }
		})
		v, s := w.join("r", at(300))
		w.expect(s, "welcome(false) state history[198 199]")
		v.Leave()
		w.poll(r, at(300), false, "history[198 199]")
	})
}

// countOf is how many comments there are in messages.
func countOf(got []protocol.Message) int {
	n := 0
	for _, m := range got {
		if c, ok := m.(*protocol.Comments); ok {
			n += len(c.Items)
		}
	}
	return n
}

// The log may remove comments between the pages of a long read.
func TestForgottenBetweenPages(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 2 }, func(t *testing.T, w *world) {
		const n = 3*maxPage + 10
		var seqs []uint64
		for i := range n {
			seqs = append(seqs, w.log.put("r", fmt.Sprint(i), AudienceAll).Seq)
		}
		v0, _ := w.join("r", "")
		defer v0.Leave()
		at := w.log.cursorAt(seqs[0])
		const last = 6 // 128 + 256 + 512 + 1024 + 1024 records, and the rest
		for _, c := range []struct {
			page, upTo int
			want       bool
		}{{1, -1, true}, {2, 0, false}, {2, 1, false}, {3, 1000, false}, {1, n - 200, false}, {last, 1000, true}} {
			w.log.change(func() {
				w.log.pages = 0
				w.log.paging = func(page int) {
					if page == c.page && c.upTo >= 0 {
						w.log.change(func() { w.log.forget(seqs[c.upTo]) })
					}
				}
			})
			saved := w.log.events["r"]
			v, s := w.join("r", at)
			got := s.take()
			v.Leave()
			if m := got[0].(*protocol.Welcome); m.Recovered != c.want {
				t.Errorf("removed up to %d: recovered %v", c.upTo, m.Recovered)
			}
			if have := countOf(got); c.want && have != n-1 {
				t.Errorf("removed up to %d: %d comments", c.upTo, have)
			}
			if c.want && w.log.pages != last {
				t.Errorf("%d pages were read", w.log.pages)
			}
			w.log.change(func() { w.log.first, w.log.events["r"], w.log.paging = 0, saved, nil })
			time.Sleep(keepBackfill + keepItems + 2*settleAfter)
		}
	})
}

// The cursor of an empty room is good on a node that opened the room at another time,
// unless something may have been said and removed since.
func TestCursorOfAnEmptyRoom(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		open := func(end uint64) *world {
			w.log.end = elsewhere(end)
			o := &world{t: t, log: w.log, presence: newFakePresence()}
			o.hub = New(Config{Log: w.log, Presence: o.presence})
			v, s := o.join("r", "")
			if at := cursor(o.expect(s, "welcome(false) state history[]")); at != makeCursor(cursorTag("e1", "r"), elsewhere(end)) {
				t.Errorf("the cursor is %s", at)
			}
			v.Leave()
			return o
		}
		early, late, last := open(10), open(20), open(20)
		come := func(o *world, at uint64, want string) {
			t.Helper()
			v, s := o.join("r", makeCursor(cursorTag("e1", "r"), elsewhere(at)))
			o.expect(s, want)
			v.Leave()
		}
		come(early, 20, "welcome(true) state")
		come(late, 10, "welcome(true) state")
		w.log.change(func() { w.log.first = 15 })
		time.Sleep(keepBackfill + time.Second)
		come(early, 20, "welcome(true) state")
		come(late, 10, "welcome(true) state") // it has looked before
		come(last, 10, "welcome(false) state history[]")
		come(early, 10, "welcome(true) state") // it has followed the room all the time
		early.hub.Close()
		late.hub.Close()
		last.hub.Close()
	})
}

// What the log removes before it was reported is a gap for everybody who is there, and
// nobody is recovered across it.
func TestLogWithAHole(t *testing.T) {
	inBubble(t, func(c *Config) { c.Ring = 4 }, func(t *testing.T, w *world) {
		v, s := w.join("r", "")
		slow, frozen := w.join("r", "")
		w.expect(s, "welcome(false) state history[]")
		frozen.take()
		w.log.say("a")
		synctest.Wait()
		frozen.take()
		frozen.freeze(true)
		b := w.log.say("b")
		c := w.log.put("r", "c", AudienceAll)
		f := w.log.follows["r"]
		w.log.change(func() { w.log.forget(c.Seq) })
		f.had = c.Seq
		f.f.Forgot(c.Position())
		d := w.log.say("d")
		time.Sleep(time.Second)
		at := cursor(w.expect(s, "comments[a] comments[b] gap(0) comments[d]")[:3])
		if at != w.log.cursorAt(c.Seq) {
			t.Errorf("the gap's cursor is %s, want that of %d", at, c.Seq)
		}
		for range 5 {
			w.log.say("x")
			time.Sleep(time.Second)
		}
		frozen.freeze(false)
		if got := frozen.take()[0].(*protocol.Gap); got.Missed != 0 || got.Cursor == "" {
			t.Errorf("a viewer that lags behind the hole is told of a gap of %d", got.Missed)
		}
		for _, p := range []struct {
			seq  uint64
			want bool
		}{{b.Seq, false}, {c.Seq, true}, {d.Seq, true}} {
			v, s := w.join("r", w.log.cursorAt(p.seq))
			if m := s.take()[0].(*protocol.Welcome); m.Recovered != p.want {
				t.Errorf("recovered from %d: %v", p.seq, m.Recovered)
			}
			v.Leave()
		}
		v.Leave()
		slow.Leave()
	})
}

// A viewer that falls off the ring across the beginning of another log is not told a
// number: its comments and the new ones cannot be counted together. Within one log it
// is.
func TestGapAcrossAReset(t *testing.T) {
	inBubble(t, func(c *Config) { c.Ring = 4; c.Recent = 2 }, func(t *testing.T, w *world) {
		v, s := w.join("r", "")
		v2, s2 := w.join("r", "")
		w.talk(3)
		s.take()
		s2.take()
		s.freeze(true)
		w.talk(2)
		f := w.log.follows["r"]
		w.log.change(func() { w.log.renew("e2") })
		for i := range 7 {
			w.log.put("r", fmt.Sprint("new", i), AudienceAll)
		}
		f.reset(2)
		time.Sleep(time.Second)
		w.expect(s2, "comments[0] comments[1] gap(0) history[new5 new6]")
		s2.freeze(true)
		w.talk(6)
		s.freeze(false)
		s2.freeze(false)
		at := cursor(w.expect(s, "gap(0) comments[5]")[:1])
		if at[:tagLen] != cursorTag("e2", "r") {
			t.Errorf("a cursor of the log that was: %s", at)
		}
		w.expect(s2, "gap(5) comments[5]")
		v.Leave()
		v2.Leave()
	})
}

// Nor is one that has lost only frames of comments that were sampled out.
func TestGapOfSampledComments(t *testing.T) {
	inBubble(t, func(c *Config) { c.Ring = 4; c.RoomRate = 1 }, func(t *testing.T, w *world) {
		v, s := w.join("r", "")
		s.take()
		s.freeze(true)
		var at, before Position
		for range 8 {
			before = at
			for at.Seq++; scatter(at.Seq)%1000 < 1; {
				at.Seq++
			}
			at.At = time.Now().UnixMilli()
			v.room.Deliver([]Event{{Seq: at.Seq, At: at.At, Kind: KindComment, Rate: 1000, Body: body("x")}})
			time.Sleep(time.Second)
		}
		s.freeze(false)
		got := s.take()
		gap, ok := got[0].(*protocol.Gap)
		if !ok || gap.Missed != 0 || gap.Cursor != makeCursor(cursorTag("e1", "r"), before) {
			t.Errorf("told %s, %+v", brief(got), gap)
		}
		if string(protocol.Encode(gap)) != fmt.Sprintf(`{"type":"gap","cursor":"%s"}`, gap.Cursor) {
			t.Errorf("%s has a number", protocol.Encode(gap))
		}
		v.Leave()
	})
}

// The log becomes another one while a viewer is being recovered from it.
func TestNewEpochInTheMiddle(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 2 }, func(t *testing.T, w *world) {
		v0, s0 := w.join("r", "")
		r := v0.room
		seqs := w.talk(100)
		s0.take()
		at := w.log.cursorAt(seqs[10])
		f := w.log.follows["r"]
		renew := func(epoch string) func(int) {
			return func(int) {
				w.log.change(func() {
					w.log.paging = nil
					if epoch != "e1" {
						w.log.renew(epoch)
					} else {
						w.log.events["r"], w.log.seqs["r"] = w.log.events["r"][:50:50], seqs[49]
					}
				})
				for i := range 10 {
					w.log.put("r", fmt.Sprint(epoch, "-", i), AudienceAll)
				}
				f.reset(2)
			}
		}
		// The same epoch: the log has lost its end and was read anew.
		w.log.change(func() { w.log.paging = renew("e1") })
		v, s := w.join("r", at)
		w.expect(s, "welcome(false) state history[e1-8 e1-9]")
		v.Leave()
		v, s = w.join("r", at)
		got := s.take()
		var texts []string
		for _, m := range got {
			if c, ok := m.(*protocol.Comments); ok {
				for _, it := range c.Items {
					texts = append(texts, it.Text)
				}
			}
		}
		if !got[0].(*protocol.Welcome).Recovered || len(texts) != 39+10 || texts[38] != "49" || texts[39] != "e1-0" {
			t.Errorf("recovered %v, got %v", got[0].(*protocol.Welcome).Recovered, texts)
		}
		v.Leave()
		time.Sleep(keepBackfill + keepItems) // what was read is let go
		w.log.change(func() { w.log.paging = renew("e2") })
		w.poll(r, w.log.cursorAt(seqs[5]), false, "history[e2-8 e2-9]")
		time.Sleep(time.Second)
		v, s = w.join("r", at)
		w.expect(s, "welcome(false) state history[e2-8 e2-9]")
		v.Leave()
		v0.Leave()
	})
}

// The views of a room are read back each for itself, once for all of its viewers, and
// once more for all who poll, who get it in parts.
func TestReadBackOfTheViews(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 2 }, func(t *testing.T, w *world) {
		v0, _ := w.join("r", "")
		first := w.log.put("r", "first", AudienceAll)
		for i := range 500 {
			audience := AudienceAll
			if i%5 == 0 {
				audience = AudienceStaff
			}
			w.log.put("r", fmt.Sprint(i), audience)
			w.log.tell("r")
			time.Sleep(time.Second)
		}
		at := w.log.cursorAt(first.Seq)
		w.log.pages = 0
		for _, staff := range []bool{false, true, false, true} {
			v, s := w.joinAs("r", at, staff)
			got := s.take()
			v.Leave()
			want := 400
			if staff {
				want = 500
			}
			if n := countOf(got); n != want || !got[0].(*protocol.Welcome).Recovered {
				t.Errorf("staff %v: %d comments, want %d", staff, n, want)
			}
		}
		r := v0.room
		var n []int
		for len(n) < 4 {
			msg, ok := r.polls(t.Context(), at)
			m, err := protocol.Decode(msg)
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			c := m.(*protocol.Comments)
			if at = c.Cursor; len(c.Items) > 0 && c.Items[0].Text != [...]string{"1", "251"}[len(n)] {
				t.Errorf("a part begins with %s", c.Items[0].Text)
			}
			n = append(n, len(c.Items))
		}
		if fmt.Sprint(n) != "[200 200 0 0]" {
			t.Errorf("polled %v", n)
		}
		if w.log.pages != 6 { // 128 + 256 + 512 events, for each view
			t.Errorf("%d pages of the log for two views and those who poll", w.log.pages)
		}
		v0.Leave()
	})
}
