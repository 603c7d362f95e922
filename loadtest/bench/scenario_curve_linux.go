package bench

import (
	"context"
	"fmt"
	"time"
)

// curve is the hot room against the time for which comments are gathered: a node for each, all
// of them there all the time, so that they have their windows in turns.
func (b *bench) curve(ctx context.Context) error {
	var rooms []*room
	var points []Point
	for _, ms := range []time.Duration{1, 25, 50, 75, 100, 150} {
		coalesce := ms * time.Millisecond
		r, err := b.room(ctx, b.hotRoom(fmt.Sprintf("curve-%d", ms)), fmt.Sprintf("--coalesce=%v", coalesce))
		if err != nil {
			return err
		}
		rooms, points = append(rooms, r), append(points, Point{Coalesce: coalesce})
	}
	g, err := b.ground(ctx, rooms[0].viewers, len(rooms)*rooms[0].viewers)
	if err != nil {
		return err
	}
	var last sample
	for _, r := range rooms {
		if last, err = r.warm(ctx); err != nil {
			return err
		}
	}
	for i := range b.cmd.Pairs {
		node := make([]sample, len(rooms))
		var floor sample
		// The floor's frames are those of the longest window.
		steps := []func() error{func() (err error) {
			floor, err = g.toAll(ctx, last.frameRate(), last.frameSize())
			return err
		}}
		for j, r := range rooms {
			steps = append(steps, func() (err error) {
				node[j], err = r.play(ctx, b.cmd.Window)
				return err
			})
		}
		if err := inTurn(i, steps...); err != nil {
			return err
		}
		last = node[len(node)-1]
		for j := range points {
			points[j].add(&node[j], &floor)
		}
		b.say("  round %d: %.2f to %.2f µs, floor %.2f µs", i+1, node[0].cost(), last.cost(), floor.cost())
	}
	b.report.Curve = points
	return nil
}

func (p *Point) add(s, floor *sample) {
	p.CostUS = append(p.CostUS, s.cost())
	p.Ratio = append(p.Ratio, s.cost()/floor.cost())
	p.PerFrame = append(p.PerFrame, s.perFrame())
	p.Size = append(p.Size, s.size())
	p.P50MS = append(p.P50MS, s.quantile(50))
	p.P99MS = append(p.P99MS, s.quantile(99))
}
