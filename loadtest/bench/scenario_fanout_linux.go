package bench

import (
	"context"
	"fmt"

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
func (b *bench) costs(goal int, name string, p *pairs, bound *float64, against, note string) {
	cost := (*sample).cost
	b.report.add(Row{
		Goal: goal, Scenario: name, Figure: "CPU of a delivery, of " + against, Unit: "×", Bound: bound,
		Values: p.each(func(n, w *sample) float64 { return n.cost() / w.cost() }),
		Node:   spread(p.node, cost), Floor: spread(p.floor, cost), Raw: "µs", Note: note,
	})
}

// rows adds what all fan-outs tell.
func (b *bench) rows(goal int, f fanout, p *pairs, bound float64, against string) {
	b.costs(goal, f.name, p, within(bound), against, fmt.Sprintf("%d connections", f.viewers))
	b.arrivals(goal, f, p.node)
}

// arrivals adds what came in all windows of the node.
func (b *bench) arrivals(goal int, f fanout, windows []sample) {
	var lost int64
	for i := range windows {
		lost += windows[i].lost + windows[i].missed
	}
	b.report.add(Row{Goal: goal, Scenario: f.name, Figure: "comments that did not come", Bound: within(0), Value: float64(lost)})
	b.report.add(Row{
		Goal: goal, Scenario: f.name, Figure: "comments in a frame", Values: spread(windows, (*sample).perFrame),
		Note: fmt.Sprintf("%s B a comment, headers included", number(spread(windows, (*sample).size).Median())),
	})
}

// quiet is goal 2.
func (b *bench) quiet(ctx context.Context) error {
	const rate = 10
	f := b.oneRoom("quiet", b.scaled(5000), 1, rate)
	p, err := b.compare(ctx, f, func(*sample) float64 { return rate })
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

// hotRoom is the room of goal 3.
func (b *bench) hotRoom(name string) fanout { return b.oneRoom(name, b.scaled(2000), 2, 100) }

// hot is the first half of goal 3.
func (b *bench) hot(ctx context.Context) error {
	f := b.hotRoom("hot")
	p, err := b.compare(ctx, f, (*sample).frameRate)
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
