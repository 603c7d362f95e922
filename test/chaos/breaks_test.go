//go:build unix

package chaos

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/loadtest/audit"
)

// The audit is sabotaged: a gap and a lost place are put into a run, each time in another
// stretch of it, and fail it unless the fault of that stretch explains them.
func TestUnexplainedBreaksFailARun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		during string // the fault; empty: before the first one
		gap    bool   // otherwise a cursor that was not recovered
		whole  bool   // told to whoever wants the log from its beginning
		want   string // part of what fails the run; empty: nothing does
	}{
		{during: "", gap: true, want: "before the first fault: 1 gaps"},
		{during: "", want: "before the first fault: 1 cursors not recovered"},
		{during: "kill-leader", gap: true, want: "kill-leader: 1 gaps"},
		{during: "kill-leader", want: "kill-leader: 1 cursors"},
		{during: "lost-keys", gap: true, whole: true, want: "lost-keys: 1 gaps"},
		{during: "kill-edge", gap: true, want: "kill-edge: 1 gaps"},
		{during: "kill-edge", want: "kill-edge: 1 cursors"},
		{during: "full-redis", want: "full-redis: 1 cursors"},
		{during: "all-nats"},
		{during: "all-nats", gap: true, want: "all-nats: 1 gaps"},
		{during: "overflow", gap: true},
		{during: "overflow", want: "overflow: 1 cursors"},
		{during: "behind", gap: true, want: "behind the last fault: 1 gaps"},
	} {
		journal := audit.NewJournal()
		viewer := journal.Viewer("room", "ann", c.whole)
		viewer.Welcomed(true)
		spoil := func(at string) {
			tick() // no two things happen at once
			if at == c.during && c.gap {
				viewer.Told()
			} else if at == c.during {
				viewer.Welcomed(false)
			}
			tick()
		}
		spoil("")
		var events []event
		for _, f := range faults {
			e := event{fault: f}
			e.window.From = journal.Now()
			e.window.To = e.window.From + 1
			events = append(events, e)
			spoil(f.name)
		}
		events[len(events)-1].window.To = journal.Now()
		spoil("behind")
		r := &Report{Verdict: journal.Verify(nil), Unexplained: unexplained(journal, events)}
		wrong := r.Wrong()
		found := slices.ContainsFunc(wrong, func(s string) bool { return c.want != "" && strings.HasPrefix(s, c.want) })
		if found != (c.want != "") || len(wrong) > 1 || len(wrong) == 1 && c.want == "" {
			t.Errorf("%q, gap %t: the run fails with %q, want %q", c.during, c.gap, wrong, c.want)
		}
	}
	for name := range breaking {
		if !slices.ContainsFunc(known(), func(f fault) bool { return f.name == name }) {
			t.Errorf("there is no fault %q", name)
		}
	}
}

// tick lets the clock of a journal move on.
func tick() {
	for began := time.Now(); time.Since(began) == 0; {
	}
}
