package audit

import (
	"fmt"
	"testing"
	"time"
)

// act puts an act into the log, at a place.
func (s *story) act(seq uint64, a LogAct) {
	s.log = append(s.log, Entry{Room: "r", Seq: seq, Act: &a})
}

// The comments of a story have the ids c1 to c10 and lie at 3, 6, … 30. The judge of acts is tried with
// what a viewer must not be shown, and with what it may.
func TestVerifyActs(t *testing.T) {
	t.Parallel()
	remove := func(id string, comments ...string) LogAct { return LogAct{ID: id, Kind: "remove", Comments: comments} }
	for name, c := range map[string]struct {
		run  func(s *story, v *Viewer)
		want string
	}{
		"shown before it is removed": {func(s *story, v *Viewer) {
			s.act(16, remove("a", "c5"))
			s.receive(v, all()...)
		}, ""},
		"not shown after it was removed": {func(s *story, v *Viewer) {
			s.act(16, remove("a", "c5"))
			s.receive(v, without(5)...)
		}, ""},
		"shown after it was removed": {func(s *story, v *Viewer) {
			s.act(16, remove("a", "c5"))
			s.receive(v, without(5)...)
			v.Restored([]Item{item(5)})
		}, "shown 1"},
		"in one message with what comes behind its removal": {func(s *story, v *Viewer) {
			s.act(16, remove("a", "c5"))
			s.receive(v, 1, 2, 3, 4)
			v.Received([]Item{item(5), item(6)})
			s.receive(v, 7, 8, 9, 10)
		}, "shown 1"},
		"brought back": {func(s *story, v *Viewer) {
			s.act(16, remove("a", "c5"))
			s.act(19, LogAct{ID: "u", Kind: "undo", Undoes: []string{"a"}})
			s.receive(v, without(5)...)
			v.Restored([]Item{item(5)})
		}, ""},
		"brought back later than it is shown": {func(s *story, v *Viewer) {
			s.act(16, remove("a", "c5"))
			s.act(50, LogAct{ID: "u", Kind: "undo", Undoes: []string{"a"}})
			s.receive(v, without(5)...)
			v.Restored([]Item{item(5)})
		}, ""}, // the node was further than the viewer
		"removed by another one too": {func(s *story, v *Viewer) {
			s.act(16, remove("a", "c5"))
			s.act(17, remove("b", "c5"))
			s.act(19, LogAct{ID: "u", Kind: "undo", Undoes: []string{"a"}})
			s.receive(v, without(5)...)
			v.Restored([]Item{item(5)})
		}, "shown 1"},
		"undone before it was done": {func(s *story, v *Viewer) {
			s.act(16, LogAct{ID: "u", Kind: "undo", Undoes: []string{"a"}})
			s.act(17, remove("a", "c5"))
			s.receive(v, all()...)
			v.Restored([]Item{item(5)})
		}, ""},
		"cleared": {func(s *story, v *Viewer) {
			s.act(16, LogAct{ID: "a", Kind: "clear"})
			s.receive(v, all()...)
			v.Restored([]Item{item(1), item(5), item(6)})
		}, "shown 2"},
		"swept": {func(s *story, v *Viewer) {
			s.act(16, LogAct{ID: "a", Kind: "sweep", Comments: []string{"c2", "c5"}, Users: []string{"p"}, Ends: time.Now().Add(time.Hour)})
			s.receive(v, all()...)
			v.Restored([]Item{item(2), item(3)})
		}, "shown 6"}, // the five behind it, and one that was swept
		"swept, and let in again": {func(s *story, v *Viewer) {
			s.act(16, LogAct{ID: "a", Kind: "sweep", Comments: []string{"c5"}, Users: []string{"p", "q"}})
			s.act(17, LogAct{ID: "b", Kind: "unmute", User: "p", Lifts: []string{"a"}})
			s.receive(v, all()...)
			v.Restored([]Item{item(5)})
		}, "shown 1"},
		"another one is let in again": {func(s *story, v *Viewer) {
			s.act(16, LogAct{ID: "a", Kind: "sweep", Users: []string{"p", "q"}})
			s.act(17, LogAct{ID: "b", Kind: "unmute", User: "q", Lifts: []string{"a"}})
			s.receive(v, all()...)
		}, "shown 5"},
		"swept by name alone": {func(s *story, v *Viewer) {
			s.act(16, LogAct{ID: "a", Kind: "sweep", Comments: []string{"c5"}})
			s.receive(v, without(5)...)
		}, ""},
		"said by somebody who is muted": {func(s *story, v *Viewer) {
			s.act(16, LogAct{ID: "a", Kind: "mute", User: "p", Ends: time.Now().Add(time.Hour)})
			s.receive(v, all()...)
		}, "shown 5"},
		"said by somebody who was muted": {func(s *story, v *Viewer) {
			s.act(16, LogAct{ID: "a", Kind: "mute", User: "p", Ends: time.Now().Add(-time.Hour)})
			s.receive(v, all()...)
		}, ""},
		"said by another one": {func(s *story, v *Viewer) {
			s.act(16, LogAct{ID: "a", Kind: "ban", User: "q", Clear: true})
			s.receive(v, all()...)
		}, ""},
		"an act that was acknowledged is lost": {func(s *story, v *Viewer) {
			s.j.Acted(s.j.Acting("r"), Acknowledged, "gone", "")
			s.receive(v, all()...)
		}, "acts lost 1"},
		"an act that was refused is there": {func(s *story, v *Viewer) {
			n := s.j.Acting("r")
			s.j.Acted(n, Refused, "", "unavailable")
			s.act(40, LogAct{ID: "a", Kind: "trust", Number: n})
			s.receive(v, all()...)
		}, "acts refused and there 1"},
		"not delivered and never hidden": {func(s *story, v *Viewer) {
			s.act(16, remove("a", "c5"))
			s.receive(v, without(6)...)
		}, "lost on the way 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, 1)
			for i := range s.log {
				s.log[i].ID, s.log[i].At = item(s.log[i].Serial).ID, time.Now()
			}
			c.run(s, s.viewers[0])
			v := s.j.Verify(s.log)
			got := ""
			for _, f := range v.Failed() {
				got += fmt.Sprintf("%s %d", f.Name, f.N)
			}
			if got != c.want {
				t.Errorf("found %q, want %q\n%s", got, c.want, v)
			}
		})
	}
}

// Whoever reads the history when all is done is shown all that is not hidden, and nothing else.
func TestHistoryAfterActs(t *testing.T) {
	t.Parallel()
	s := tell(t, 0)
	for i := range s.log {
		s.log[i].ID = item(s.log[i].Serial).ID
	}
	s.act(40, LogAct{ID: "a", Kind: "remove", Comments: []string{"c2", "c4"}})
	s.act(41, LogAct{ID: "u", Kind: "undo", Undoes: []string{"b"}})
	v := s.j.Viewer("r", "historian", true)
	v.Welcomed(true)
	s.receive(v, without(2, 3)...)
	got := s.j.Verify(s.log)
	if got.Shown != 1 || got.Missing != 1 || got.Hidden != 2 || got.StoredActs != 2 {
		t.Errorf("%+v", got)
	}
}
