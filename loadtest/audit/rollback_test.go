package audit

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// The log is put back: comments 4 to 6 of ten, said within the window, are gone. Nothing
// else is forgiven by that.
func TestVerifyOfALogThatWasPutBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		happens func(s *story, v *Viewer)
		want    string
		gone    int
	}{
		"who is there is told": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3, 4, 5, 6)
			v.Told()
			s.receive(v, 2, 3, 7, 8, 9, 10)
		}, "", 3},
		"who is there is told late": { // the log had grown past its old end before
			func(s *story, v *Viewer) {
				s.receive(v, 1, 2, 3, 4, 5, 6)
				at(v, 5*time.Second)
				s.receive(v, 9)
				v.Told()
				s.receive(v, 8, 9, 10)
			}, "", 3},
		"who is there is told, and misses one of before": {func(s *story, v *Viewer) {
			s.receive(v, 1, 3, 4, 5, 6)
			at(v, 5*time.Second)
			s.receive(v, 9)
			v.Told()
			s.receive(v, 8, 9, 10)
		}, "lost on the way 1", 3},
		"who was told misses one later": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3)
			at(v, 5*time.Second)
			v.Told()
			s.receive(v, 7, 9)
			v.Told()
			s.receive(v, 10)
		}, "lost on the way 1", 3},
		"who comes back is told": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3, 4, 5, 6)
			v.Lost(false)
			v.Welcomed(false)
			s.receive(v, 8, 9, 10)
		}, "", 3},
		"who comes back is not told": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3, 4, 5, 6)
			v.Lost(false)
			v.Welcomed(true)
			s.receive(v, 9, 10)
		}, "lost on the way 2", 3},
		"an id is given out twice": {func(s *story, v *Viewer) {
			s.receive(v, 1, 2, 3, 4)
			v.Told()
			s.receive(v, 7, 8, 9)
			it := item(10)
			it.ID = "c4"
			v.Received([]Item{it})
		}, "misnamed 2", 3}, // it is another than was told, too
		"an id is told twice": {func(s *story, v *Viewer) {
			s.j.sends[9].ID = "c4"
			s.receive(v, 1, 2, 3, 7, 8, 9)
		}, "lost on the way 1, misnamed 1", 3},
		"one of before is gone": {func(s *story, v *Viewer) {
			s.log = slices.DeleteFunc(s.log, func(e Entry) bool { return e.Serial == 2 })
			s.receive(v, 1, 3)
			v.Told()
			s.receive(v, 7, 8, 9, 10)
		}, "lost in the log 1", 3},
		"one of after is gone": {func(s *story, v *Viewer) {
			s.log = slices.DeleteFunc(s.log, func(e Entry) bool { return e.Serial == 8 })
			s.receive(v, 1, 2, 3)
			v.Told()
			s.receive(v, 7, 9, 10)
		}, "lost in the log 1", 3},
		"one that was on its way when the log was copied is stored at another place": {func(s *story, v *Viewer) {
			s.j.sends[2].At, s.j.sends[2].Answered = 9*time.Second, 14*time.Second
			s.receive(v, 1, 2, 4, 5)
			it := item(3)
			it.ID = "elsewhere"
			v.Received([]Item{it})
			at(v, 18*time.Second)
			v.Told()
			s.receive(v, 2, 3, 7, 8, 9, 10)
		}, "", 3},
		"one is stored again that another node had answered": {func(s *story, v *Viewer) {
			s.log = append(s.log, Entry{Room: "r", Seq: 25, Serial: 5, Author: "p", Digest: item(5).Digest})
			s.receive(v, 1, 2, 3, 4, 5, 6)
			at(v, 18*time.Second)
			v.Told()
			s.receive(v, 9, 10) // so far back did the recent ones not reach
		}, "", 2},
		"one is stored again": {func(s *story, v *Viewer) {
			// Stored at first, not answered, and stored again behind the window.
			s.j.sends[5].Answered = 30 * time.Second
			s.j.sends[5].ID = "again"
			s.log = append(s.log, Entry{Room: "r", Seq: 25, Serial: 6, Author: "p", Digest: item(6).Digest})
			s.receive(v, 1, 2, 3, 6)
			at(v, 18*time.Second)
			v.Told()
			s.receive(v, 2, 3, 7, 8)
			it := item(6)
			it.ID = "again"
			v.Received([]Item{it})
			s.receive(v, 9, 10)
		}, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := tell(t, 1)
			v := s.viewers[0]
			v.events[0].at = 0
			for i := range s.j.sends { // one in 3 s
				at := time.Duration(i+1) * 3 * time.Second
				s.j.sends[i].At, s.j.sends[i].Answered = at, at+time.Millisecond
			}
			s.log = slices.DeleteFunc(s.log, func(e Entry) bool { return e.Serial >= 4 && e.Serial <= 6 })
			s.j.RolledBack(Window{From: 10 * time.Second, To: 19 * time.Second})
			c.happens(s, v)
			for i := range v.events { // what has no time came last
				if v.events[i].at < time.Second && i > 0 {
					v.events[i].at = 40 * time.Second
				}
			}
			got := s.j.Verify(s.log)
			var found []string
			for _, f := range got.Failed() {
				found = append(found, fmt.Sprint(f.Name, " ", f.N))
			}
			if have := strings.Join(found, ", "); have != c.want || got.RolledBack != c.gone {
				t.Errorf("found %q, %d gone; want %q, %d\n%v", have, got.RolledBack, c.want, c.gone, got)
			}
		})
	}
}

// at sets when all happened to a viewer so far, but for its beginning.
func at(v *Viewer, when time.Duration) {
	for i := range v.events[1:] {
		v.events[1+i].at = when
	}
}
