package bench

import (
	"context"
	"fmt"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// oneRoom is a room of viewers, and behind them some broadcasters who take turns.
func (b *bench) oneRoom(name string, viewers, broadcasters int, rate float64) fanout {
	return fanout{
		name: name, viewers: viewers + broadcasters, members: viewers + broadcasters, rate: rate,
		people: func(i int) who {
			if i >= viewers {
				return who{room: name, user: fmt.Sprintf("b%d", i-viewers), role: protocol.RoleBroadcaster}
			}
			return who{room: name, user: fmt.Sprintf("v%d", i), role: protocol.RoleViewer}
		},
		speaker: func(n int) int { return viewers + n%broadcasters },
	}
}

// costs adds what a delivery costs.
func (b *bench) costs(goal int, f fanout, p *pairs, bound float64, against string) {
	cost := (*sample).cost
	b.report.add(Row{
		Goal: goal, Scenario: f.name, Figure: "CPU of a delivery, of " + against, Unit: "×", Bound: within(bound),
		Values: p.each(func(n, w *sample) float64 { return n.cost() / w.cost() }),
		Node:   spread(p.node, cost), Floor: spread(p.floor, cost), Raw: "µs",
		Note: fmt.Sprintf("%d connections", f.viewers),
	})
}

// rows adds what all fan-outs tell.
func (b *bench) rows(goal int, f fanout, p *pairs, bound float64, against string) {
	b.costs(goal, f, p, bound, against)
	b.report.add(Row{
		Goal: goal, Scenario: f.name, Figure: "comments that did not come", Bound: within(0),
		Values: spread(p.node, func(s *sample) float64 { return float64(s.lost + s.missed) }),
	})
	perFrame := spread(p.node, func(s *sample) float64 { return float64(s.deliveries) / float64(max(s.frames, 1)) })
	size := spread(p.node, func(s *sample) float64 { return float64(s.bytes) / float64(max(s.deliveries, 1)) })
	b.report.add(Row{
		Goal: goal, Scenario: f.name, Figure: "comments in a frame", Values: perFrame,
		Note: fmt.Sprintf("%s B a comment, headers included", number(size.Median())),
	})
}

// quiet is goal 2.
func (b *bench) quiet(ctx context.Context) error {
	const rate = 10
	f := b.oneRoom("quiet", b.scaled(5000), 1, rate)
	f.floorRate = func(*sample) float64 { return rate }
	p, err := b.compare(ctx, f)
	if err != nil {
		return err
	}
	b.rows(2, f, p, 1.15, "the floor's")
	b.latency(2, f, p, 50, within(5))
	b.latency(2, f, p, 99, nil)
	return nil
}

// latency adds how much later than by the floor a comment comes.
func (b *bench) latency(goal int, f fanout, p *pairs, q float64, bound *float64) {
	at := func(s *sample) float64 { return s.quantile(q) }
	b.report.add(Row{
		Goal: goal, Scenario: f.name, Figure: fmt.Sprintf("latency p%.0f, above the floor's", q), Unit: "ms", Bound: bound,
		Values: p.each(func(n, w *sample) float64 { return at(n) - at(w) }),
		Node:   spread(p.node, at), Floor: spread(p.floor, at), Raw: "ms",
	})
}

// hot is goal 3.
func (b *bench) hot(ctx context.Context) error {
	f := b.oneRoom("hot", b.scaled(2000), 2, 100)
	f.floorRate = (*sample).frameRate
	p, err := b.compare(ctx, f)
	if err != nil {
		return err
	}
	b.rows(3, f, p, 0.2, "the floor's write")
	p99 := func(s *sample) float64 { return s.quantile(99) }
	b.report.add(Row{
		Goal: 3, Scenario: f.name, Figure: "latency p99", Unit: "ms", Bound: within(200),
		Values: spread(p.node, p99), Floor: spread(p.floor, p99), Raw: "ms",
	})
	return nil
}

// rooms is goal 4: many rooms with few viewers. What is said comes in at another node, as most
// does where there are many nodes, and in further windows at this one.
func (b *bench) rooms(ctx context.Context) error {
	const members = 5
	rooms := b.scaled(2000)
	name := func(i int) string { return fmt.Sprintf("rooms-%d", i%rooms) }
	f := fanout{
		name: "rooms", viewers: rooms * members, members: members, rate: float64(rooms),
		people: func(i int) who { return who{room: name(i), user: fmt.Sprintf("v%d", i), role: protocol.RoleViewer} },
		// In each room its viewers take turns.
		speaker:   func(n int) int { return n%rooms + rooms*(n/rooms%members) },
		floorRate: func(*sample) float64 { return 1 },
	}
	if b.shared() {
		f.speakers = rooms
		f.outsider = func(i int) who {
			return who{room: name(i), user: fmt.Sprintf("s%d", i), role: protocol.RoleBroadcaster}
		}
	}
	s, err := b.stage(ctx, f)
	if err != nil {
		return err
	}
	if err := s.warm(ctx); err != nil {
		return err
	}
	var here, there, paced pairs
	for i := range b.cmd.Pairs {
		own, err := s.play(ctx, s.audience, s.speaker, b.cmd.Window)
		if err != nil {
			return err
		}
		loop, err := s.write(ctx, 1, own.frameSize(), 0)
		if err != nil {
			return err
		}
		apart, err := s.write(ctx, 1, own.frameSize(), min(members, s.held))
		if err != nil {
			return err
		}
		here.add(own, loop)
		paced.add(own, apart)
		b.say("  pair %d: node %.2f µs; floor %.2f µs, spread over the second %.2f µs", i+1, own.cost(), loop.cost(), apart.cost())
		if s.outside == nil {
			continue
		}
		other, err := s.play(ctx, s.outside, func(n int) int { return n % rooms }, b.cmd.Window)
		if err != nil {
			return err
		}
		there.add(other, loop)
		b.say("          node %.2f µs when comments come in at another one", other.cost())
	}
	if s.outside != nil {
		b.costs(4, f, &there, 1.5, "the floor's, comments from another node")
	}
	b.rows(4, f, &here, 1.5, "the floor's, comments from here")
	b.report.add(Row{
		Goal: 4, Scenario: f.name, Figure: "the same, of a floor that spreads its writes over the second", Unit: "×",
		Values: paced.each(func(n, w *sample) float64 { return n.cost() / w.cost() }),
		Floor:  spread(paced.floor, (*sample).cost), Raw: "µs", Note: fmt.Sprintf("%d sockets at a time", members),
	})
	b.latency(4, f, &here, 50, nil)
	return b.profile(ctx, s.node, f.name, func() error { _, err := s.play(ctx, s.audience, s.speaker, b.cmd.Window); return err })
}

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
	n, err := b.startNode(ctx)
	if err != nil {
		return err
	}
	if err := sockets(f.viewers + spareFiles); err != nil {
		return err
	}
	c, err := b.crowd(n, f.people)
	if err != nil {
		return err
	}
	if err := c.bring(ctx, 0, f.viewers, b.cmd.JoinRate, normal); err != nil {
		return err
	}
	length := 3 * b.cmd.Window
	watching, stop := context.WithCancel(ctx)
	watched := make(chan *watch, 1)
	go func() { watched <- watchGrowth(watching, n, c) }() // ends with stop
	s, err := b.play(ctx, n, c, c, rate, length, f.members, f.speaker)
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
	return b.profile(ctx, n, f.name, func() error {
		_, err := b.play(ctx, n, c, c, rate, b.cmd.Window, f.members, f.speaker)
		return err
	})
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

// collector is goal 7.
func (b *bench) collector(ctx context.Context) error {
	const rate = 100
	f := b.oneRoom("gc", b.scaled(15000), 2, rate)
	n, err := b.startNode(ctx)
	if err != nil {
		return err
	}
	if err := sockets(f.viewers + spareFiles); err != nil {
		return err
	}
	c, err := b.crowd(n, f.people)
	if err != nil {
		return err
	}
	if err := c.bring(ctx, 0, f.viewers, b.cmd.JoinRate, normal); err != nil {
		return err
	}
	play := func(length time.Duration) (sample, error) {
		return b.play(ctx, n, c, c, rate, length, f.members, f.speaker)
	}
	if _, err := play(b.cmd.Window / 5); err != nil {
		return err
	}
	before, err := n.metrics(ctx)
	if err != nil {
		return err
	}
	// As many windows as it takes for the collector to have worked some times.
	const collections, mostWindows = 3, 12
	const collected = "go_gc_duration_seconds_count"
	var all []sample
	after := before
	for len(all) < mostWindows && after[collected]-before[collected] < collections {
		s, err := play(b.cmd.Window)
		if err != nil {
			return err
		}
		all = append(all, s)
		if after, err = n.metrics(ctx); err != nil {
			return err
		}
	}
	var cpu, length time.Duration
	var deliveries int64
	for i := range all {
		cpu, length, deliveries = cpu+all[i].cpu, length+all[i].length, deliveries+all[i].deliveries
	}
	const spent = "go_cpu_classes_gc_total_cpu_seconds_total"
	if _, ok := after[spent]; !ok {
		return fmt.Errorf("bench: the node has no metric %s", spent)
	}
	since := func(name string) float64 { return after[name] - before[name] }
	b.report.add(Row{Goal: 7, Scenario: f.name, Figure: "collector, of the node's CPU", Unit: "%", Bound: within(5),
		Value: 100 * since(spent) / cpu.Seconds(),
		Note: fmt.Sprintf("%.0f collections in %v; %s processors, %s µs a delivery, p50 %s ms", since(collected), length.Round(time.Second),
			number(cpu.Seconds()/length.Seconds()), number(float64(cpu.Nanoseconds())/1000/float64(deliveries)), number(all[0].quantile(50)))})
	b.report.add(Row{Goal: 7, Scenario: f.name, Figure: "longest pause, at most", Unit: "ms", Value: 1000 * longestPause(before, after)})
	b.report.add(Row{Goal: 7, Scenario: f.name, Figure: "allocations of a delivery", Value: since("go_memstats_mallocs_total") / float64(deliveries),
		Note: "everything that the node allocates counts: comments, frames, scripts"})
	return b.profile(ctx, n, f.name, func() error { _, err := play(b.cmd.Window); return err })
}
