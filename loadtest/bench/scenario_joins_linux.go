package bench

import (
	"context"
	"fmt"
	"time"
)

// recent is how many comments are in the room that viewers join.
const recent = 60

// joins is goal 5.
func (b *bench) joins(ctx context.Context) error {
	viewers := b.scaled(15000)
	if err := sockets(viewers + spareFiles); err != nil {
		return err
	}
	n, err := b.startNode(ctx)
	if err != nil {
		return err
	}
	f, err := b.startFloor(ctx)
	if err != nil {
		return err
	}
	room := b.oneRoom("joins", viewers, 1, 1)
	c, err := b.crowd(n, room.people)
	if err != nil {
		return err
	}
	// The broadcaster is there all the time, and has said what everybody gets.
	if err := c.bring(ctx, viewers, 1, b.cmd.JoinRate, normal); err != nil {
		return err
	}
	if _, err := b.play(ctx, n, c, c, 50, recent*time.Second/50, 1, func(int) int { return viewers }); err != nil {
		return err
	}
	others, err := b.floorCrowd(f)
	if err != nil {
		return err
	}
	var node, floor, ratio, p50, p99, bareP99 Spread
	for i := range b.cmd.Pairs {
		var mine, bare float64
		err := inTurn(i, func() (err error) {
			if mine, err = b.cost(ctx, n.process, c, viewers); err != nil {
				return err
			}
			p50, p99 = append(p50, c.joins(50).Seconds()*1000), append(p99, c.joins(99).Seconds()*1000)
			return n.settled(ctx, 1)
		}, func() (err error) {
			bare, err = b.cost(ctx, f.process, others, viewers)
			bareP99 = append(bareP99, others.joins(99).Seconds()*1000)
			return err
		})
		if err != nil {
			return err
		}
		node, floor, ratio = append(node, mine), append(floor, bare), append(ratio, mine/bare)
		b.say("  pair %d: node %.1f µs a join, p99 %.1f ms; bare %.1f µs, p99 %.1f ms", i+1, mine, p99[i], bare, bareP99[i])
	}
	b.report.add(Row{Goal: 5, Scenario: room.name, Figure: "CPU of a join, of a bare websocket.Accept", Unit: "×", Bound: within(1.3),
		Values: ratio, Node: node, Floor: floor, Raw: "µs", Note: fmt.Sprintf("%d joins at %.0f/s", viewers, b.cmd.JoinRate)})
	b.report.add(Row{Goal: 5, Scenario: room.name, Figure: "time to join, p99", Unit: "ms", Values: p99, Floor: bareP99, Raw: "ms",
		Note: fmt.Sprintf("p50 %s ms", number(p50.Median()))})
	return b.profile(ctx, n, room.name, func() error { _, err := b.cost(ctx, n.process, c, viewers); return err })
}

// afterJoins is what belongs to joins beside them: the counts are told once a second.
const afterJoins = time.Second

// cost is the CPU of one join in microseconds. Everybody has left when it returns.
func (b *bench) cost(ctx context.Context, p *process, c *crowd, viewers int) (float64, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	if err := c.bring(ctx, 0, viewers, b.cmd.JoinRate, normal); err != nil {
		return 0, err
	}
	if err := sleep(ctx, afterJoins); err != nil {
		return 0, err
	}
	after, err := p.cpu()
	if err != nil {
		return 0, err
	}
	return float64((after - before).Microseconds()) / float64(viewers), c.leave(ctx, viewers)
}
