package bench

import (
	"context"
	"fmt"
	"time"
)

const (
	// restFor is how long after the last join memory is read.
	restFor = 10 * time.Second
	// emptyFor is how long a node may take to come to rest before anybody is there.
	emptyFor = 2 * time.Second
)

// memory is goal 1.
func (b *bench) memory(ctx context.Context) error {
	viewers := b.scaled(15000)
	if err := sockets(viewers + spareFiles); err != nil {
		return err
	}
	n, err := b.startNode(ctx)
	if err != nil {
		return err
	}
	f := b.oneRoom("memory", viewers, 1, 1)
	c, err := b.crowd(n, f.people)
	if err != nil {
		return err
	}
	rest := min(restFor, b.cmd.Window)
	if err := sleep(ctx, min(emptyFor, rest)); err != nil {
		return err
	}
	empty, err := n.memory()
	if err != nil {
		return err
	}
	fill := func() (stock, error) {
		if err := b.fill(ctx, c, viewers); err != nil {
			return stock{}, err
		}
		if err := sleep(ctx, rest); err != nil {
			return stock{}, err
		}
		return n.memory()
	}
	first, err := fill()
	if err != nil {
		return err
	}
	if err := b.profile(ctx, n, "memory", func() error { return sleep(ctx, b.cmd.Window) }); err != nil {
		return err
	}
	if err := c.leave(ctx, viewers); err != nil {
		return err
	}
	if err := n.settled(ctx, 0); err != nil {
		return err
	}
	if err := sleep(ctx, rest); err != nil {
		return err
	}
	left, err := n.memory()
	if err != nil {
		return err
	}
	again, err := fill()
	if err != nil {
		return err
	}
	each := func(s, base int64) float64 { return float64(s-base) / 1024 / float64(viewers) }
	mib := func(s stock) string { return number(float64(s.resident) / (1 << 20)) }
	b.report.add(Row{Goal: 1, Scenario: f.name, Figure: "resident memory of an idle viewer", Unit: "KiB", Bound: within(3),
		Value: each(first.resident, empty.resident),
		Note:  fmt.Sprintf("%d viewers; empty %s MiB, full %s MiB, left %s MiB, full again %s MiB", viewers, mib(empty), mib(first), mib(left), mib(again))})
	b.report.add(Row{Goal: 1, Scenario: f.name, Figure: "the same after all left and came again, of before", Unit: "×", Bound: within(1.2),
		Value: each(again.resident, empty.resident) / each(first.resident, empty.resident)})
	b.report.add(Row{Goal: 1, Scenario: f.name, Figure: "kernel memory of a viewer, both ends", Unit: "KiB",
		Value: each(first.kernel, empty.kernel), Note: "growth of Slab and of TCP's buffers"})
	return nil
}

// stock is what memory a node takes, in bytes.
type stock struct {
	resident int64
	kernel   int64 // of the machine, for both ends of all connections
}

func (n *node) memory() (stock, error) {
	resident, err := n.resident()
	if err != nil {
		return stock{}, err
	}
	k, err := kernel()
	return stock{resident, k}, err
}

// fill brings everybody in; each sends a deflated beat and a ping, and all are counted.
func (b *bench) fill(ctx context.Context, c *crowd, viewers int) error {
	c.begin(schedule{})
	if err := c.bring(ctx, 0, viewers, b.cmd.JoinRate, normal); err != nil {
		return err
	}
	beat := []byte(`{"type":"beat","visible":true,"media_ms":123456}`)
	frame := clientFrame(opText, beat)
	if b.cmd.Compress {
		var err error
		if frame, err = deflated(beat); err != nil {
			return err
		}
	}
	ping := clientFrame(opPing, []byte("are you there"))
	for i := range viewers {
		c.send(i, frame)
		c.send(i, ping)
	}
	return c.await(ctx, joinPatience, func() (bool, string) {
		n := int64(viewers)
		return c.tally.beats >= n && c.tally.pongs >= n && c.counted.Users >= viewers,
			fmt.Sprintf("%d beats and %d pings are answered, and %d viewers are counted, of %d", c.tally.beats, c.tally.pongs, c.counted.Users, viewers)
	})
}
