package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// story is a small run of one room, in which everything is right until a test breaks it.
type story struct {
	j       *Journal
	log     []Entry
	viewers []*Viewer
}

const comments = 10

func item(s Serial) Item {
	return Item{Serial: s, ID: fmt.Sprint("c", s), Digest: Digest("p", fmt.Sprint(s))}
}

// tell begins a story: ten comments are sent, acknowledged and stored; what viewers receive is
// up to the test.
func tell(t *testing.T, viewers int) *story {
	t.Helper()
	s := &story{j: NewJournal()}
	for i := range viewers {
		v := s.j.Viewer("r", fmt.Sprint("v", i), false)
		v.Welcomed(true)
		s.viewers = append(s.viewers, v)
	}
	time.Sleep(time.Millisecond) // what is sent now is sent after the welcome
	for range comments {
		n := s.j.Sending("r", "p", false)
		s.j.Answered(n, Acknowledged, item(n).ID, "")
		s.log = append(s.log, Entry{Room: "r", Seq: uint64(n) * 3, Serial: n, Author: "p", Digest: item(n).Digest})
	}
	return s
}

func (s *story) receive(v *Viewer, serials ...Serial) {
	for _, n := range serials {
		v.Received([]Item{item(n)})
	}
}

func all() []Serial {
	var out []Serial
	for n := range Serial(comments) {
		out = append(out, n+1)
	}
	return out
}

func without(gone ...Serial) []Serial {
	return slices.DeleteFunc(all(), func(n Serial) bool { return slices.Contains(gone, n) })
}

func TestVerify(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(s *story, v *Viewer)
		want   string // the findings, with their numbers
	}{
		"all is well": {func(s *story, v *Viewer) { s.receive(v, all()...) }, ""},
		"one is not delivered": {func(s *story, v *Viewer) { s.receive(v, without(5)...) },
			"lost on the way 1"},
		"the first is not delivered": {func(s *story, v *Viewer) { s.receive(v, without(1)...) },
			"lost on the way 1"},
		"the tail is not delivered": {func(s *story, v *Viewer) { s.receive(v, without(9, 10)...) },
			"lost on the way 2"},
		"nothing is delivered": {func(*story, *Viewer) {}, "lost on the way 10"},
		"one comes twice": {func(s *story, v *Viewer) { s.receive(v, 1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10) },
			"duplicated 1"},
		"one comes again later": {func(s *story, v *Viewer) { s.receive(v, append(all(), 2)...) },
			"duplicated 1"},
		"two are swapped": {func(s *story, v *Viewer) { s.receive(v, 1, 2, 4, 3, 5, 6, 7, 8, 9, 10) },
			"disordered 1"},
		"what was acknowledged is not stored": {func(s *story, v *Viewer) {
			s.log = slices.Delete(s.log, 3, 4)
			s.receive(v, without(4)...)
		}, "lost in the log 1"},
		"what was acknowledged is shown and not stored": {func(s *story, v *Viewer) {
			s.log = slices.Delete(s.log, 3, 4)
			s.receive(v, all()...)
		}, "lost in the log 1, not in the log 1"},
		"one is stored twice": {func(s *story, v *Viewer) {
			again := s.log[2]
			again.Seq = 1000
			s.log = append(s.log, again)
			s.receive(v, all()...)
		}, "duplicated in the log 1"},
		"what was refused is stored": {func(s *story, v *Viewer) {
			s.j.Answered(4, Refused, "", "unavailable")
			s.receive(v, all()...)
		}, "refused and there 1"},
		"what was refused is not stored": {func(s *story, v *Viewer) {
			s.j.Answered(4, Refused, "", "unavailable")
			s.log = slices.Delete(s.log, 3, 4)
			s.receive(v, without(4)...)
		}, ""},
		"an unknown outcome may go either way": {func(s *story, v *Viewer) {
			s.j.Answered(4, Unknown, "", "")
			s.j.Answered(5, Unknown, "", "")
			s.log = slices.Delete(s.log, 3, 4)
			s.receive(v, without(4)...)
		}, ""},
		"a stranger is stored": {func(s *story, v *Viewer) {
			s.log = append(s.log, Entry{Room: "r", Seq: 500, Serial: 99, Author: "p"})
			s.receive(v, all()...)
		}, "never sent 1"},
		"one is stored in another room": {func(s *story, v *Viewer) {
			s.log = append(s.log, Entry{Room: "other", Seq: 500, Serial: 3, Author: "p"})
			s.receive(v, all()...)
		}, "never sent 1"},
		"another content": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2)
			it := item(3)
			it.Digest++
			v.Received([]Item{it})
			s.receive(v, 4, 5, 6, 7, 8, 9, 10)
		}, "altered 1"},
		"another id than was acknowledged": {func(s *story, v *Viewer) {
			s.j.Answered(4, Acknowledged, "c50", "")
			s.receive(v, all()...)
		}, "misnamed 1"},
		"two comments are acknowledged with one id": {func(s *story, v *Viewer) {
			s.j.Answered(4, Acknowledged, "c5", "")
			s.receive(v, all()...)
		}, "misnamed 2"},
		"two comments with one id": {func(s *story, v *Viewer) {
			s.receive(v, without(10)...)
			it := item(10)
			it.ID = "c1"
			v.Received([]Item{it})
		}, "misnamed 3"},
		"a connection is lost and taken up again": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3)
			v.Lost(false)
			v.Welcomed(true)
			s.receive(v, 4, 5, 6, 7, 8, 9, 10)
		}, ""},
		"a connection is taken up again with a hole": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3)
			v.Lost(false)
			v.Welcomed(true)
			s.receive(v, 6, 7, 8, 9, 10)
		}, "lost on the way 2"},
		"a connection is never taken up again": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3)
			v.Lost(false)
		}, "lost on the way 7"},
		"a viewer is told of what it misses": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3)
			v.Told()
			s.receive(v, 6, 7, 8, 9, 10)
		}, ""},
		"being told forgives no other hole": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3)
			v.Told()
			s.receive(v, 6, 8, 9, 10)
		}, "lost on the way 1"},
		"the recent ones come again after a lost cursor": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3, 4)
			v.Lost(false)
			v.Welcomed(false)
			s.receive(v, 3, 4, 7, 8, 9, 10)
		}, ""},
		"and only then": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3, 4)
			v.Lost(false)
			v.Welcomed(false)
			s.receive(v, 3, 4, 7, 7, 8, 9, 10)
		}, "duplicated 1"},
		"one is sent away": {func(s *story, v *Viewer) {
			s.receive(v, all()...)
			v.Lost(false)
			v.Ended()
		}, "sent away 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, 2)
			c.damage(s, s.viewers[0])
			// The other viewer has everything that is there, in its order.
			inOrder := slices.SortedFunc(slices.Values(s.log), func(a, b Entry) int { return int(a.Seq) - int(b.Seq) })
			seen := map[Serial]bool{}
			for _, e := range inOrder {
				if e.Room == "r" && e.Serial <= comments && !seen[e.Serial] {
					seen[e.Serial] = true
					s.receive(s.viewers[1], e.Serial)
				}
			}
			v := s.j.Verify(s.log)
			var found []string
			for _, f := range v.Failed() {
				found = append(found, fmt.Sprint(f.Name, " ", f.N))
			}
			if got := strings.Join(found, ", "); got != c.want {
				t.Errorf("found %q, want %q\n%v", got, c.want, v)
			}
			if (len(found) > 0) != (len(v.Examples) > 0) {
				t.Errorf("examples %q", v.Examples)
			}
		})
	}
}

// A late viewer is owed what is sent from then on, and everything behind its first comment.
func TestWhoComesLate(t *testing.T) {
	t.Parallel()
	s := tell(t, 0)
	late := s.j.Viewer("r", "late", false)
	late.Welcomed(true)
	s.receive(late, 7, 8, 10) // 9 is missing, 1 to 6 are not
	time.Sleep(time.Millisecond)
	n := s.j.Sending("r", "p", false) // 11, which never comes
	s.j.Answered(n, Acknowledged, item(n).ID, "")
	s.log = append(s.log, Entry{Room: "r", Seq: 100, Serial: n, Author: "p", Digest: item(n).Digest})
	whole := s.j.Viewer("r", "whole", true)
	whole.Welcomed(true)
	s.receive(whole, append(without(1), 11)...) // 1 is missing
	if v := s.j.Verify(s.log); v.Missing != 3 || len(v.Failed()) != 1 {
		t.Errorf("%v", v)
	}
}

func TestEffect(t *testing.T) {
	t.Parallel()
	j := NewJournal()
	v := j.Viewer("r", "v", false)
	ms := time.Millisecond
	v.events = []event{
		{at: 1 * ms, kind: welcomed},
		{at: 2 * ms, kind: received, serial: 1},
		{at: 10 * ms, kind: lost},
		{at: 30 * ms, kind: welcomed},
		{at: 45 * ms, kind: received, serial: 2},
		{at: 50 * ms, kind: moved},
		{at: 50 * ms, kind: welcomed},
		{at: 55 * ms, kind: received, serial: 3},
		{at: 90 * ms, kind: received, serial: 4},
	}
	j.sends = []Send{
		{At: 1 * ms, Answered: 2 * ms, Outcome: Acknowledged}, {At: 12 * ms, Answered: 40 * ms, Outcome: Acknowledged},
		{At: 13 * ms, Answered: 14 * ms, Outcome: Refused, Once: true}, {At: 14 * ms},
	}
	e := j.Effect(Window{5 * ms, 52 * ms})
	got := fmt.Sprint(e.Without, e.Away, e.Back, e.Returns, e.Moved, e.Answers, e.Known, e.Delivery, e.Acknowledged, e.Refused, e.Unknown)
	if want := "[40ms] [20ms] [35ms] [30ms 50ms] 1 [1ms] [28ms 1ms] [33ms 42ms 76ms] 1 1 1"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if q := Quantile([]time.Duration{3, 1, 2}, 0.5); q != 2 {
		t.Errorf("the median is %d", q)
	}
	if n := Most([]time.Duration{5 * time.Second, 100 * ms, 1000 * ms, 1099 * ms, 1100 * ms}); n != 3 {
		t.Errorf("%d in a second", n)
	}
}

func TestBreaks(t *testing.T) {
	t.Parallel()
	j := NewJournal()
	for _, whole := range []bool{false, true} {
		v := j.Viewer("r", "v", whole)
		v.events = []event{{at: 1, kind: welcomed}, {at: 2, kind: told}, {at: 5, kind: notRecovered}, {at: 6, kind: told}, {at: 9, kind: told}}
	}
	if gaps, lost := j.Breaks(Window{2, 9}); gaps != 4 || lost != 2 {
		t.Errorf("%d gaps, %d places lost; want 4, 2", gaps, lost)
	}
	if gaps, lost := j.Breaks(Window{6, 9}); gaps != 2 || lost != 0 {
		t.Errorf("%d gaps, %d places lost; want 2, 0", gaps, lost)
	}
}

// An event of the application is owed to who was there, and to who comes back, and not to who comes later.
func TestEventsAreOwed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		came    func(s *story, v *Viewer)
		missing int
	}{
		"there": {func(s *story, v *Viewer) { s.receive(v, without(4)...) }, 1},
		"came later": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3)
			v.Lost(false)
			v.Welcomed(false)
			s.receive(v, 5, 6, 7, 8, 9, 10)
		}, 0},
		"came later, and is owed": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3)
			v.Lost(false)
			v.Welcomed(false)
			s.receive(v, 6, 7, 8, 9)
		}, 1},
		"came back": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3)
			v.Lost(false)
			v.Welcomed(true)
			s.receive(v, 5, 6, 7, 8, 9, 10)
		}, 1},
		"wants all from the start": {func(s *story, v *Viewer) { v.whole = true; s.receive(v, without(4)...) }, 1},
	} {
		s := tell(t, 1)
		s.log[3].Event, s.log[3].At = true, time.Now()
		time.Sleep(time.Millisecond)
		c.came(s, s.viewers[0])
		v := s.j.Verify(s.log)
		if v.Missing != c.missing || v.Events != 1 {
			t.Errorf("%s: %d missing\n%s", name, v.Missing, v)
		}
	}
}
