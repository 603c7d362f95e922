package bench

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s    Spread
		want float64
		text string
	}{
		{nil, 0, "–"},
		{Spread{2}, 2, "2.00"},
		{Spread{9, 1, 5}, 5, "5.00 (1.00–9.00)"},
		{Spread{4, 0.02, 1000, 2}, 3, "3.00 (0.0200–1000)"},
	} {
		before := slices.Clone(c.s)
		if got := c.s.Median(); got != c.want || c.s.String() != c.text {
			t.Errorf("%v: %v %q", c.s, got, c.s.String())
		}
		if !slices.Equal(before, c.s) {
			t.Errorf("%v was put into order", before)
		}
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	var r Report
	r.add(Row{Goal: 2, Scenario: "quiet", Figure: "cost", Unit: "×", Bound: within(1.15), Values: Spread{1, 1.1, 3},
		Node: Spread{10, 11, 30}, Floor: Spread{10, 10, 10}, Raw: "µs"})
	r.add(Row{Goal: 3, Scenario: "hot", Figure: "delay", Bound: within(1), Value: 2})
	r.add(Row{Goal: 7, Scenario: "gc", Figure: "pause", Value: 2})
	if got := r.Missed(); len(got) != 1 || got[0] != "hot: delay" {
		t.Errorf("missed: %q", got)
	}
	text := r.String()
	for _, want := range []string{
		"| 2 | quiet | cost | 1.10 (1.00–3.00) × | ≤ 1.15 | ok | 11.0 (10.0–30.0) µs | 10.0 (10.0–10.0) µs |  |",
		"| 3 | hot | delay | 2.00  | ≤ 1.00 | **missed** |",
		"| 7 | gc | pause | 2.00  |  |  |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// A bound that is missed is an error, after the report, unless only that is wanted.
func TestMissed(t *testing.T) {
	t.Parallel()
	var r Report
	r.add(Row{Goal: 3, Scenario: "hot", Figure: "delay", Bound: within(1), Value: 2})
	r.Curve = []Point{{Coalesce: 25 * time.Millisecond, CostUS: Spread{1.5}}}
	var out strings.Builder
	err := (&Command{}).deliver(&r, &out)
	if !errors.Is(err, ErrMissed) || !strings.Contains(err.Error(), "hot: delay") || !strings.Contains(out.String(), "| 25ms | 1.50 |") {
		t.Errorf("%v\n%s", err, out.String())
	}
	if err := (&Command{Report: true}).deliver(&r, io.Discard); err != nil {
		t.Error(err)
	}
	if err := (&Command{Out: t.TempDir()}).deliver(&r, io.Discard); err == nil {
		t.Error("a directory is written")
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	good := Command{Pairs: 5, Window: time.Second, Scale: 1, JoinRate: 1, Speed: 1, Quiet: true}
	for want, change := range map[string]func(*Command){
		"no scenario": func(c *Command) { c.Scenario = []string{"hot", "cold"} },
		"pairs":       func(c *Command) { c.Pairs = 0 },
		"window":      func(c *Command) { c.Window = 0 },
		"scale":       func(c *Command) { c.Scale = -1 },
		"join-rate":   func(c *Command) { c.JoinRate = 0 },
		"speed":       func(c *Command) { c.Speed = 0 },
	} {
		c := good
		change(&c)
		if err := c.Run(t.Context(), io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// An interrupted run ends soon, and leaves no process.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := Command{Pairs: 1, Window: time.Second, Scale: 1, JoinRate: 1, Speed: 1, Quiet: true}
	if err := c.Run(ctx, io.Discard, io.Discard); !errors.Is(err, context.Canceled) && !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}
