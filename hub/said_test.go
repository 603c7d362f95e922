package hub

import (
	"fmt"
	"testing"
	"time"
)

// append adds an event that was a draft with an id, and reports it.
func (w *world) append(id string) Event {
	e := w.log.put("r", "text of "+id, AudienceAll)
	w.log.change(func() {
		all := w.log.events["r"]
		all[len(all)-1].ID = id
	})
	w.log.tell("r")
	return e
}

func TestSaid(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 2 }, func(t *testing.T, w *world) {
		for i := range 3 {
			w.append(fmt.Sprint("old", i))
		}
		if _, ok, _ := w.hub.Said("r", "old2"); ok {
			t.Error("known of a room that is not open")
		}
		v, _ := w.join("r", "")
		defer v.Leave()
		expect := func(id string, want bool) {
			t.Helper()
			if _, ok, _ := w.hub.Said("r", id); ok != want {
				t.Errorf("%s is known: %v", id, ok)
			}
		}
		expect("old0", false) // longer ago than what the room was opened with
		expect("old2", true)
		e := w.append("a")
		if seq, ok, sure := w.hub.Said("r", "a"); !ok || !sure || seq != e.Seq {
			t.Errorf("a is at %d %v %v, not at %d", seq, ok, sure, e.Seq)
		}
		expect("", false)
		time.Sleep(saidFor - time.Second)
		expect("a", true)
		w.append("b") // in the same generation
		time.Sleep(2 * time.Second)
		w.append("c")
		expect("a", true)
		time.Sleep(saidFor)
		w.append("d")
		expect("a", false)
		expect("c", true)
		expect("d", true)
	})
}

// Another log does not have what was said in the one that was.
func TestSaidIsForgottenWithTheLog(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		v, _ := w.join("r", "")
		defer v.Leave()
		w.append("a")
		w.log.change(func() { w.log.renew("e2") })
		w.log.follows["r"].reset(50)
		if _, ok, _ := w.hub.Said("r", "a"); ok {
			t.Error("known of a log that is no more")
		}
	})
}

// While the log may have lost what was said it is not sure that it is there.
func TestSaidIsNotTrustedWhenTheLogMayHaveLostIt(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		v, _ := w.join("r", "")
		defer v.Leave()
		w.append("a")
		for _, unsure := range []bool{true, false} {
			w.log.change(func() { w.log.unsure = unsure })
			if _, known, sure := w.hub.Said("r", "a"); !known || sure == unsure {
				t.Errorf("the log is unsure %v: known %v, sure %v", unsure, known, sure)
			}
		}
	})
}

// However much is said, a bounded number of ids is kept, and the latest among them.
func TestSaidIsBounded(t *testing.T) {
	var s said
	now := time.Now()
	for i := range 5 * saidMost / 2 {
		s.add(fmt.Sprint(i), uint64(i), now)
	}
	if n := len(s.fresh) + len(s.old); n > 2*saidMost {
		t.Errorf("%d ids are kept", n)
	}
	if _, ok := s.find(fmt.Sprint(5*saidMost/2 - saidMost)); !ok {
		t.Error("one of the latest is forgotten")
	}
}
