package hub

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// publishes adds an event of the application to room r, and writes the record of one that lasts, unless
// somebody has died before.
func (l *fakeLog) publishes(name, audience string, page int, lasting, recorded bool) Event {
	e := l.put("r", fmt.Sprint(name, page), audience)
	body := protocol.EncodeEventBody(protocol.Event{
		User: protocol.User{ID: "boss", Role: protocol.RoleBroadcaster}, Name: name,
		Data: json.RawMessage(fmt.Sprintf(`{"p":%d}`, page)), Lasting: lasting,
	})
	l.change(func() {
		all := l.events["r"]
		last := &all[len(all)-1]
		last.Kind, last.Body = KindEvent, body
		e = *last
		if lasting && recorded {
			l.standing = slices.DeleteFunc(l.standing, func(s Standing) bool { return s.ID == LastingID(name) })
			l.standing = append(l.standing, lastingRecord(e, name))
		}
	})
	l.tell("r")
	return e
}

func lastingRecord(e Event, name string) Standing {
	rec, _ := json.Marshal(Record{Lasting: &Lasting{Name: name, Last: &LastingEvent{Seq: e.Seq, At: e.At, ID: e.ID, Audience: e.Audience, Body: e.Body}}})
	return Standing{ID: LastingID(name), Seq: e.Seq, Body: rec}
}

// slides are the events that somebody got: name and page, "was" before those that bear no cursor.
func slides(s *fakeSocket) (got []string) {
	for _, m := range s.take() {
		if e, is := m.(*protocol.Event); is {
			var data struct{ P int }
			_ = json.Unmarshal(e.Data, &data)
			was := ""
			if e.Cursor == "" {
				was = "was "
			}
			got = append(got, fmt.Sprint(was, e.Name, data.P))
		}
	}
	return got
}

func expectSlides(t *testing.T, s *fakeSocket, want ...string) {
	t.Helper()
	if got := slides(s); !slices.Equal(got, want) {
		t.Errorf("got %q, not %q", got, want)
	}
}

// Who falls off the ring is told behind the gap the latest of what it has missed, and nothing else.
func TestLastingBehindAGap(t *testing.T) {
	inBubble(t, func(c *Config) { c.Ring, c.Recent = 16, 3 }, func(t *testing.T, w *world) {
		_, s := w.join("r", "")
		w.log.publishes("seen", AudienceAll, 1, true, true)
		time.Sleep(time.Second)
		expectSlides(t, s, "seen1")
		s.freeze(true)
		for page := range 3 {
			w.log.publishes("slide", AudienceAll, page, true, true)
			time.Sleep(time.Second)
		}
		w.log.publishes("gift", AudienceAll, 1, false, false)
		for range 30 {
			w.log.say("x")
			time.Sleep(time.Second)
		}
		w.log.publishes("late", AudienceAll, 1, true, true)
		w.log.say("y")
		time.Sleep(time.Second)
		s.freeze(false)
		got := slides(s)
		if !slices.Equal(got, []string{"was slide2", "was late1"}) {
			t.Errorf("got %q", got)
		}
		s.viewer.Leave()
	})
}

// A room that is opened has the latest of each name from its record, if the log has it behind what is read.
func TestLastingOfAColdRoom(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		w.log.publishes("slide", AudienceAll, 1, true, true)
		w.log.publishes("crew", AudienceStaff, 1, true, true)
		for range 100 {
			w.log.say("x")
		}
		w.log.publishes("fresh", AudienceAll, 1, true, false) // its record is on the way
		_, s := w.join("r", "")
		_, staff := w.joinAs("r", "", true)
		time.Sleep(time.Second)
		expectSlides(t, s, "was slide1", "was fresh1")
		expectSlides(t, staff, "was slide1", "was crew1", "was fresh1")
		w.log.publishes("slide", AudienceAll, 2, true, true)
		time.Sleep(time.Second)
		expectSlides(t, s, "slide2")
		_, later := w.join("r", "")
		expectSlides(t, later, "was fresh1", "was slide2")
		for _, s := range []*fakeSocket{s, staff, later} {
			s.viewer.Leave()
		}
	})
}

// What was found in the log behind a node that died is told to those who have come meanwhile.
func TestLastingIsSettled(t *testing.T) {
	var (
		mu       sync.Mutex
		finished []string
	)
	inBubble(t, func(c *Config) {
		c.Recent = 3
		c.Finish = func(_ string, s Standing) { mu.Lock(); finished = append(finished, s.ID); mu.Unlock() }
	}, func(t *testing.T, w *world) {
		e := w.log.publishes("slide", AudienceAll, 1, true, false)
		pending, _ := json.Marshal(Record{Lasting: &Lasting{Name: "slide", Pending: []Pending{{ID: e.ID}}}})
		w.log.change(func() { w.log.standing = []Standing{{ID: LastingID("slide"), Seq: 1, Body: pending}} })
		for range 100 {
			w.log.say("x")
		}
		_, s := w.join("r", "")
		time.Sleep(time.Second)
		expectSlides(t, s)
		mu.Lock()
		if len(finished) == 0 || finished[0] != LastingID("slide") {
			t.Errorf("finished %q", finished)
		}
		mu.Unlock()
		w.log.mu.Lock()
		f := w.log.follows["r"]
		w.log.mu.Unlock()
		f.f.Stands(lastingRecord(e, "slide"))
		f.f.Stands(lastingRecord(e, "slide"))
		time.Sleep(time.Second)
		expectSlides(t, s, "was slide1")
		_, later := w.join("r", "")
		expectSlides(t, later, "was slide1")
		s.viewer.Leave()
		later.viewer.Leave()
	})
}

// The audience of a room with a delay gets a lasting event when it is due, once, and who comes before that none.
func TestLastingWithDelay(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		w.log.change(func() { w.log.state = State{Rev: 1, Body: []byte(`{"status":"live","delay_ms":10000}`)} })
		w.log.publishes("slide", AudienceAll, 1, true, true)
		for range 10 {
			w.log.say("x")
		}
		_, s := w.join("r", "")
		_, staff := w.joinAs("r", "", true)
		time.Sleep(time.Second)
		expectSlides(t, s)
		expectSlides(t, staff, "was slide1")
		time.Sleep(15 * time.Second)
		expectSlides(t, s, "slide1")
		w.log.publishes("slide", AudienceAll, 2, true, true)
		_, early := w.join("r", "")
		expectSlides(t, early, "was slide1")
		time.Sleep(15 * time.Second)
		expectSlides(t, s, "slide2")
		expectSlides(t, early, "slide2")
		expectSlides(t, staff, "slide2")
		for _, s := range []*fakeSocket{s, early, staff} {
			s.viewer.Leave()
		}
	})
}

// An act hides a lasting event from who comes later, and what it was before is not back.
func TestLastingIsRemoved(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		w.log.publishes("slide", AudienceAll, 1, true, true)
		e := w.log.publishes("slide", AudienceAll, 2, true, true)
		_, s := w.join("r", "")
		expectSlides(t, s, "was slide2")
		boss := protocol.User{ID: "boss", Role: protocol.RoleBroadcaster}
		w.log.does(Act{ID: "x", Kind: protocol.TypeRemove, IDs: []string{CommentID(e.Seq, e.ID)}, By: boss})
		time.Sleep(time.Second)
		_, later := w.join("r", "")
		expectSlides(t, later)
		for range 20 {
			w.log.say("x")
		}
		time.Sleep(2 * time.Minute) // it is in no list any more
		w.log.say("x")
		time.Sleep(time.Minute)
		w.log.does(Act{Kind: protocol.TypeUndo, Undoes: []string{"x"}, By: boss})
		time.Sleep(time.Second)
		expectSlides(t, later, "was slide2")
		_, last := w.join("r", "")
		expectSlides(t, last, "was slide2")
		for _, s := range []*fakeSocket{s, later, last} {
			s.viewer.Leave()
		}
	})
}

// A lasting event that was pushed, and is removed while a viewer is behind, is not sent to it.
func TestPushedAndRemoved(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		e := w.log.publishes("slide", AudienceAll, 1, true, false)
		for range 100 {
			w.log.say("x")
		}
		_, s := w.join("r", "")
		time.Sleep(time.Second)
		s.take()
		spam := w.log.say("spam")
		time.Sleep(time.Second)
		s.take()
		s.freeze(true)
		w.log.mu.Lock()
		f := w.log.follows["r"]
		w.log.mu.Unlock()
		f.f.Stands(lastingRecord(e, "slide"))
		time.Sleep(time.Second)
		w.log.does(Act{Kind: protocol.TypeRemove, IDs: []string{CommentID(e.Seq, e.ID), CommentID(spam.Seq, spam.ID)},
			By: protocol.User{ID: "boss", Role: protocol.RoleBroadcaster}})
		time.Sleep(time.Second)
		s.freeze(false)
		expectSlides(t, s)
		s.viewer.Leave()
	})
}

// BenchmarkRecordsHeard measures what a room pays for a message of standing records that is republished, an act among forty,
// while 64 names of lasting events with 4 KiB of data each are in force.
func BenchmarkRecordsHeard(b *testing.B) {
	l := newFakeLog()
	h := New(Config{Log: l, Presence: newFakePresence(), Logger: slog.New(slog.DiscardHandler)})
	defer h.Close()
	data, _ := json.Marshal(map[string]string{"a": strings.Repeat("x", 4<<10)})
	var heard []Standing
	for i := range 64 {
		e := Event{Seq: 1, At: time.Now().UnixMilli(), ID: "x", Kind: KindEvent, Body: protocol.EncodeEventBody(protocol.Event{Name: fmt.Sprint("n", i), Data: data, Lasting: true})}
		l.standing = append(l.standing, lastingRecord(e, fmt.Sprint("n", i)))
	}
	for i := range 40 {
		rec, _ := json.Marshal(Record{Act: Act{ID: fmt.Sprint("a", i), Kind: protocol.TypeBan, Hash: fmt.Sprint(i)}, Pos: 1})
		heard = append(heard, Standing{ID: fmt.Sprint("a", i), Seq: 1, Body: rec})
	}
	l.say("x")
	r, _ := h.AcquireToRead("r")
	defer r.Release()
	if !r.Ready(b.Context()) {
		b.Fatal("the room is not ready")
	}
	for b.Loop() {
		for i := range heard {
			r.Stands(heard[i])
		}
	}
}
