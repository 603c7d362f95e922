package hub

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// The tests in this file send a kind of events, a slot of the latest and a form of frames
// that nothing else knows through everything that viewers and readers get.

// cheers are events of a kind that is no comment.
var cheers = map[string]*Kind{"cheer": {Message: func(e *Event, cursor string) []byte {
	return fmt.Appendf(nil, `{"type":"cheer","cursor":"%s","what":%s}`, cursor, e.Body)
}}}

// cheer adds an event of that kind to room r.
func (l *fakeLog) cheer(what, audience string) Event {
	e := l.put("r", what, audience)
	l.change(func() {
		all := l.events["r"]
		last := &all[len(all)-1]
		last.Kind, last.Body = "cheer", fmt.Appendf(nil, `{"n":%q}`, what)
		e = *last
	})
	l.tell("r")
	return e
}

// events is a form like that of server-sent events: each message is a block of lines.
var events = &Form{Encode: func(messages [][]byte) []byte {
	var b []byte
	for _, m := range messages {
		b = fmt.Appendf(b, "data: %s\n\n", m)
	}
	return b
}}

// stream is a socket of that form. It keeps what it is written as it is.
type stream struct {
	fakeSocket
	text bytes.Buffer
}

func (s *stream) Form() *Form { return events }
func (s *stream) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.frozen {
		frames := s.viewer.Next(nil)
		if len(frames) == 0 {
			return
		}
		for _, f := range frames {
			s.text.Write(f)
		}
	}
}

func (s *stream) freeze(frozen bool) {
	s.mu.Lock()
	s.frozen = frozen
	s.mu.Unlock()
	s.Flush()
}

// told returns what came since the last time, one word a message, and the last cursor.
func (s *stream) told(t *testing.T) (brief, cursor string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var words []string
	for block := range strings.SplitAfterSeq(s.text.String(), "\n\n") {
		if block == "" {
			break
		}
		m, ok := strings.CutPrefix(strings.TrimSuffix(block, "\n\n"), "data: ")
		if !ok {
			t.Errorf("no event: %q", block)
		}
		words = append(words, word(t, []byte(m)))
		if _, rest, ok := strings.Cut(m, `"cursor":"`); ok {
			cursor, _, _ = strings.Cut(rest, `"`)
		}
	}
	s.text.Reset()
	return strings.Join(words, " "), cursor
}

// word is a message at a glance.
func word(t *testing.T, m []byte) string {
	t.Helper()
	typ, rest, _ := strings.Cut(strings.TrimPrefix(string(m), `{"type":"`), `"`)
	if typ == "cheer" || typ == "level" {
		_, rest, _ = strings.Cut(rest, `"n":"`)
		rest, _, _ = strings.Cut(rest, `"`)
		return typ + ":" + rest
	}
	got, err := protocol.Decode(m)
	if err != nil {
		t.Errorf("%s: %v", m, err)
		return ""
	}
	if c, ok := got.(*protocol.Comments); ok && len(c.Messages) > 0 {
		out := brief([]protocol.Message{got})
		for _, m := range c.Messages {
			out += "+" + word(t, m)
		}
		return out
	}
	return brief([]protocol.Message{got})
}

func (w *world) joinStream(user, since string, staff bool) (*Viewer, *stream) {
	v := new(Viewer)
	s := &stream{fakeSocket: fakeSocket{viewer: v}}
	w.hub.Join(w.t.Context(), v, Join{Room: "r", User: user, Staff: staff, Socket: s, Since: since,
		Welcome: func(recovered bool) []byte { return protocol.Encode(&protocol.Welcome{Recovered: recovered}) }})
	return v, s
}

// level publishes the latest of a slot that nothing else knows.
func (r *Room) level(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := newFrame([][]byte{fmt.Appendf(nil, `{"type":"level","n":"%d"}`, n)}, r.wanted())
	r.publish("level", func(*view) *Frame { return f })
}

func TestNewKindSlotAndForm(t *testing.T) {
	inBubble(t, func(c *Config) { c.Kinds, c.Recent, c.Ring = cheers, 3, 4 }, func(t *testing.T, w *world) {
		expect := func(s *stream, want string) (cursor string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			got, cursor := s.told(t)
			if got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			return cursor
		}
		v, s := w.joinStream("u", "", false)
		plain, ps := w.join("r", "")
		start := expect(s, "welcome(false) state history[]")
		ps.take()

		// Live: in the log's order, in one write.
		w.log.put("r", "a", AudienceAll)
		w.log.put("r", "b", AudienceAll)
		w.log.cheer("hey", AudienceAll)
		w.log.say("c")
		v.room.level(1)
		v.room.level(2)
		at := expect(s, "comments[a b] cheer:hey level:2 comments[c]")
		if ps.writes != 3 { // the welcome, the first flush, the second
			t.Errorf("%d writes", ps.writes)
		}
		v.Leave()

		// Resumed: from memory, then from the log, and on a cold node.
		want := "welcome(true) state level:2 history[a b] cheer:hey history[c]"
		v, s = w.joinStream("u", start, false)
		expect(s, want)
		v.Leave()
		for range 100 {
			w.log.cheer("x", AudienceStaff) // nobody here sees them
			time.Sleep(time.Second)
		}
		v, s = w.joinStream("u", start, false)
		expect(s, want)
		v.Leave()
		cold := &world{t: t, log: newFakeLog(), presence: newFakePresence()}
		cold.log.events, cold.log.times = w.log.events, w.log.times
		cold.hub = New(Config{Log: cold.log, Presence: cold.presence, Kinds: cheers, Recent: 3})
		v, s = cold.joinStream("u", start, false)
		expect(s, strings.Replace(want, " level:2", "", 1))
		v.Leave()

		// New: the latest three comments and what came among them, though the latest hundred
		// events are of another kind and not for everybody.
		v, s = cold.joinStream("u", "", false)
		expect(s, "welcome(false) state history[a b] cheer:hey history[c]")
		v.Leave()
		cold.hub.Close()

		// Read over HTTP.
		r := w.read("r")
		for name, ask := range map[string]Ask{"poll": {Since: start}, "latest": {}, "before": {Before: at}, "after": {After: start}} {
			m, _, err := r.Comments(t.Context(), ask)
			if got := word(t, m); err != nil || got != "history[a b c]+cheer:hey" {
				t.Errorf("%s: %s, %v", name, got, err)
			}
		}
		r.Release()

		// Behind a gap: comments are counted, other events are not.
		v, s = w.joinStream("u", at, false)
		expect(s, "welcome(true) state level:2")
		s.freeze(true)
		for i := range 6 {
			w.log.say(fmt.Sprint("m", i))
			time.Sleep(time.Second)
			w.log.cheer(fmt.Sprint("n", i), AudienceAll)
			time.Sleep(time.Second)
		}
		s.freeze(false)
		expect(s, "gap(6) cheer:n5")
		v.Leave()
		plain.Leave()
	})
}

// Events for one user reach that user's connections alone, in their places; nobody else
// gets a frame, or can tell that they exist.
func TestEventsForOneUser(t *testing.T) {
	inBubble(t, func(c *Config) { c.Kinds, c.Recent = cheers, 3 }, func(t *testing.T, w *world) {
		_, mine := w.joinStream("me", "", false)
		_, also := w.joinStream("me", "", false)
		_, yours := w.joinStream("you", "", false)
		_, staff := w.joinStream("mod", "", true)
		all := []*stream{mine, also, yours, staff}
		expect := func(want ...string) (cursors []string) {
			t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			for i, s := range all {
				got, cursor := s.told(t)
				if got != want[i] {
					t.Errorf("socket %d:\ngot  %s\nwant %s", i, got, want[i])
				}
				cursors = append(cursors, cursor)
			}
			return cursors
		}
		hello := "welcome(false) state history[]"
		start := expect(hello, hello, hello, hello)
		w.log.cheer("1", AudienceUser+"me")
		after := expect("cheer:1", "cheer:1", "", "")
		w.log.cheer("2", AudienceStaffAndUser+"me")
		expect("cheer:2", "cheer:2", "", "cheer:2")
		w.log.put("r", "a", AudienceAll)
		w.log.put("r", "mine", AudienceUser+"me") // a comment, as one that waits for approval
		w.log.say("b")
		expect("comments[a mine b]", "comments[a mine b]", "comments[a b]", "comments[a b]")

		// Resumes hold them, once: behind the cursor that came with the first there is no
		// second.
		comeBack := func(user, since string, staff bool, want string) {
			t.Helper()
			v, s := w.joinStream(user, since, staff)
			time.Sleep(time.Second)
			if got, _ := s.told(t); got != want {
				t.Errorf("%s:\ngot  %s\nwant %s", user, got, want)
			}
			v.Leave()
		}
		check := func() {
			t.Helper()
			comeBack("me", start[0], false, "welcome(true) state cheer:1 cheer:2 history[a mine b]")
			comeBack("me", after[0], false, "welcome(true) state cheer:2 history[a mine b]")
			comeBack("you", start[0], false, "welcome(true) state history[a b]")
			comeBack("mod", start[0], true, "welcome(true) state cheer:2 history[a b]")
		}
		check()
		for range 5 { // until only the log has them
			w.log.say("x")
			time.Sleep(keepItems)
		}
		expect("comments[x] comments[x] comments[x] comments[x] comments[x]", "comments[x] comments[x] comments[x] comments[x] comments[x]",
			"comments[x] comments[x] comments[x] comments[x] comments[x]", "comments[x] comments[x] comments[x] comments[x] comments[x]")
		comeBack("me", start[0], false, "welcome(true) state cheer:1 cheer:2 history[a mine b x x x x x]")
		comeBack("you", start[0], false, "welcome(true) state history[a b x x x x x]")

		// One who lags gets them when it goes on.
		mine.freeze(true)
		w.log.cheer("3", AudienceUser+"me")
		w.log.say("c")
		time.Sleep(time.Second)
		mine.freeze(false)
		expect("cheer:3 comments[c]", "cheer:3 comments[c]", "comments[c]", "comments[c]")
		for _, s := range all {
			s.viewer.Leave()
		}
	})
}

// An author whose comments were sampled out gets them in a resume too, in their places.
func TestSampledOutIsResumed(t *testing.T) {
	inBubble(t, func(c *Config) { c.RoomRate = 1; c.Recent = -1 }, func(t *testing.T, w *world) {
		v, s := w.joinUser("me", "")
		at := cursor(s.take())
		w.burst(100, 1000)
		time.Sleep(time.Second)
		live, _, _ := seen(s.take())
		v.Leave()
		for range 2 {
			v, s = w.joinUser("me", at)
			back, _, _ := seen(s.take())
			v.Leave()
			if !slices.EqualFunc(live, back, func(a, b protocol.Comment) bool { return a.ID == b.ID }) || len(back) < 20 {
				t.Errorf("%d live, %d resumed", len(live), len(back))
			}
			time.Sleep(3 * keepItems) // then from the log
		}
	})
}

// What changes in a view's past is what every later viewer sees.
func TestCacheIsInvalidated(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 200 }, func(t *testing.T, w *world) {
		_, first := w.join("r", "")
		start := cursor(first.take())
		for i := range 150 {
			w.log.say(fmt.Sprint("t", i))
		}
		time.Sleep(time.Second)
		texts := func(since string) string {
			v, s := w.join("r", since)
			defer v.Leave()
			return brief(s.take())
		}
		for range 2 {
			if got := texts("") + texts(start); strings.Count(got, "t70 ") != 2 {
				t.Fatal(got)
			}
		}
		r, v := first.viewer.room, first.viewer.view
		r.mu.Lock()
		v.items[70].json = bytes.ReplaceAll(v.items[70].json, []byte(`"t70"`), []byte(`"gone"`))
		v.cache.invalidate(v.base + 70)
		if _, ok := v.cache.get(piece{from: v.base, to: v.base + chunkItems}); !ok {
			t.Error("the chunk before it was forgotten too")
		}
		r.mu.Unlock()
		if got := texts("") + texts(start); strings.Contains(got, "t70") || strings.Count(got, "gone") != 2 {
			t.Error(got)
		}
		first.viewer.Leave()
	})
}

// A document of the room's state of which a node knows a part is handed on whole.
func TestStateIsHandedOn(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		v, s := w.joinStream("u", "", false)
		s.told(t)
		f := w.log.follows["r"].f
		f.SetState(State{Rev: 7, Body: []byte(`{"status":"ended","title":"t","slow_ms":3000,"rev":1,"type":"x"}`)})
		time.Sleep(time.Second)
		s.mu.Lock()
		got := s.text.String()
		s.mu.Unlock()
		if want := "data: {\"type\":\"state\",\"rev\":7,\"status\":\"ended\",\"title\":\"t\",\"slow_ms\":3000}\n\n"; got != want {
			t.Errorf("got  %swant %s", got, want)
		}
		s.told(t)
		f.SetState(State{Rev: 7, Body: []byte(`{"status":"ended"}`)}) // the same revision is the same state
		time.Sleep(time.Second)
		if got, _ := s.told(t); got != "" {
			t.Errorf("told again: %s", got)
		}
		v.Leave()
	})
}
