package bench

import (
	"context"
	"fmt"
	"time"
)

const (
	// mostGrowth is how much more memory the last third of a storm may take than the
	// middle one: in the first the node grows to what it needs.
	mostGrowth = 1.1
	// mostLag is how late a comment may come in the last third, in milliseconds.
	mostLag = 1000
)

// storm is the second half of goal 3: more comments than people can read.
func (b *bench) storm(ctx context.Context) error {
	viewers := b.scaled(2000)
	// Everybody says something, each half as often as a viewer may.
	rate := min(1000, float64(viewers)/2)
	f := b.oneRoom("storm", viewers, 1, rate)
	f.speaker = func(n int) int { return n % viewers }
	// What the staff says is never left out: the audience speaks, twice as much as is shown.
	r, err := b.room(ctx, f, fmt.Sprintf("--room-rate=%d", max(1, int(rate/2))))
	if err != nil {
		return err
	}
	length := 3 * b.cmd.Window
	watching, stop := context.WithCancel(ctx)
	watched := make(chan *watch, 1)
	go func() { watched <- watchGrowth(watching, r.node, r.audience) }() // ends with stop
	s, err := r.play(ctx, length)
	stop()
	w := <-watched
	if err != nil {
		return err
	}
	if w.err != nil {
		return w.err
	}
	asked := float64(s.deliveries + s.withheld + s.missed + s.lost)
	b.report.add(Row{Goal: 3, Scenario: f.name, Figure: "memory, last third of the middle one", Unit: "×", Bound: within(mostGrowth),
		Value: w.resident.grown(), Node: w.resident.thirds(), Raw: "MiB"})
	b.report.add(Row{Goal: 3, Scenario: f.name, Figure: "largest latency, last third", Unit: "ms", Bound: within(mostLag),
		Value: w.lag.third(2), Node: w.lag.thirds(), Raw: "ms", Note: fmt.Sprintf("p50 %s ms, p99 %s ms", number(s.quantile(50)), number(s.quantile(99)))})
	b.report.add(Row{Goal: 3, Scenario: f.name, Figure: "comments left out without a word", Bound: within(0), Value: float64(s.lost)})
	b.report.add(Row{Goal: 3, Scenario: f.name, Figure: "comments left out as told", Unit: "%",
		Value: 100 * float64(s.withheld) / max(asked, 1), Note: fmt.Sprintf("%d comments in gaps", s.missed)})
	b.report.add(Row{Goal: 3, Scenario: f.name, Figure: "CPU of the node", Unit: "processors", Value: s.cpu.Seconds() / s.length.Seconds(),
		Note: fmt.Sprintf("%s µs a delivery", number(s.cost()))})
	return r.profile(ctx)
}

// watch is how something went over time.
type watch struct {
	resident, lag series // MiB, milliseconds
	err           error
}

type series []float64

// third is the largest value in the i-th third.
func (s series) third(i int) float64 {
	n := len(s)
	worst := 0.0
	for _, v := range s[n*i/3 : n*(i+1)/3] {
		worst = max(worst, v)
	}
	return worst
}

func (s series) thirds() Spread { return Spread{s.third(0), s.third(1), s.third(2)} }

func (s series) grown() float64 {
	if middle := s.third(1); middle > 0 {
		return s.third(2) / middle
	}
	return 0
}

// watchGrowth notes memory and lag ten times a second until ctx ends.
func watchGrowth(ctx context.Context, n *node, c *crowd) *watch {
	var w watch
	for sleep(ctx, 100*time.Millisecond) == nil {
		rss, err := n.resident()
		if err != nil {
			w.err = err
			return &w
		}
		w.resident = append(w.resident, float64(rss)/(1<<20))
		w.lag = append(w.lag, float64(c.lag())/1e6)
	}
	return &w
}
