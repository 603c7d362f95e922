package bench

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kansei-live/kansei/protocol"
)

const (
	laggardRate = 10      // comments a second
	sipSize     = 1 << 10 // what the slow one reads in a second, in bytes
	sips        = 4       // in which it does so
	// holdPatience is how long the node may take to see the last of who reads nothing, and the
	// slow one to fall off the ring.
	holdPatience = 4 * time.Minute
	mostRatio    = 1.25
)

// laggards are a room of viewers who read, and two who do not: they take no deflated
// messages, so that there is more for them than they take.
type laggards struct {
	fanout
	node         *node
	crowd        *crowd
	viewers      int
	frozen, slow int // their numbers
	waker        int // of one who does not read until the frozen one is gone
}

func (b *bench) laggards(ctx context.Context, name string) (*laggards, error) {
	viewers := b.scaled(5000)
	l := &laggards{fanout: b.oneRoom(name, viewers, 1, laggardRate), viewers: viewers, frozen: viewers + 1, slow: viewers + 2, waker: viewers + 3}
	if err := sockets(viewers + 4 + spareFiles); err != nil {
		return nil, err
	}
	var err error
	if l.node, err = b.startNode(ctx); err != nil {
		return nil, err
	}
	l.crowd, err = b.crowd(l.node, func(i int) who {
		if i > viewers {
			return who{room: name, user: fmt.Sprintf("laggard%d", i), role: protocol.RoleViewer, plain: true}
		}
		return l.people(i)
	})
	if err != nil {
		return nil, err
	}
	return l, l.crowd.bring(ctx, 0, viewers+1, b.cmd.JoinRate, normal)
}

// come brings the two in, and has the slow one read until stop, which takes both away.
func (l *laggards) come(ctx context.Context) (stop func(), err error) {
	if err := l.crowd.bring(ctx, l.frozen, 1, 1000, frozen); err != nil {
		return nil, err
	}
	if err := l.crowd.bring(ctx, l.slow, 1, 1000, slow); err != nil {
		return nil, err
	}
	reading, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { // ends with cancel
		for sleep(reading, time.Second/sips) == nil {
			l.crowd.sip(l.slow, sipSize/sips)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}, nil
}

// frozen is the first half of goal 8: what the others notice.
func (b *bench) frozen(ctx context.Context) error {
	l, err := b.laggards(ctx, "frozen")
	if err != nil {
		return err
	}
	play := func(length time.Duration) (sample, error) {
		return b.play(ctx, l.node, l.crowd, l.crowd, l.rate, length, l.members, l.speaker)
	}
	if _, err := play(b.cmd.Window / 5); err != nil {
		return err
	}
	var without, with, ratio, lost Spread
	for i := range b.cmd.Pairs {
		alone, err := play(b.cmd.Window)
		if err != nil {
			return err
		}
		stop, err := l.come(ctx)
		if err != nil {
			return err
		}
		beside, err := play(b.cmd.Window)
		stop()
		l.crowd.dismiss(l.frozen, l.slow)
		if err != nil {
			return err
		}
		without, with = append(without, alone.quantile(99)), append(with, beside.quantile(99))
		ratio, lost = append(ratio, with[i]/without[i]), append(lost, float64(max(beside.lost, 0)))
		b.say("  pair %d: p99 %.1f ms without, %.1f ms with", i+1, without[i], with[i])
	}
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "the others' p99, of that without", Unit: "×", Bound: within(mostRatio),
		Values: ratio, Node: with, Floor: without, Raw: "ms", Note: "floor: the same node without them"})
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "the others' comments that did not come", Bound: within(0), Values: lost})
	return nil
}

// dismiss ends connections without a word.
func (c *crowd) dismiss(numbers ...int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range numbers {
		if v := c.viewers[i]; v.fd >= 0 {
			c.out(v)
			c.open--
			v.abort()
		}
		delete(c.events, i)
	}
}

// port is the local port of a viewer's connection.
func (c *crowd) port(i int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.viewers[i]; v.fd >= 0 {
		if a, err := unix.Getsockname(int(v.fd)); err == nil {
			if in4, ok := a.(*unix.SockaddrInet4); ok {
				return in4.Port
			}
		}
	}
	return 0
}

// hold is what the node and the kernel hold for the two.
type hold struct {
	frozen, slow int64 // the most in the sending queues, in bytes
	closedAfter  time.Duration
	code         int
	resident     int64 // growth of the node, in bytes
}

// wakerLater is how much later than who never reads somebody comes who wakes up when the other
// has been thrown away: within the time that the node gives for the close frame, in order to
// see it.
const wakerLater = 2 * time.Second

const tooSlow = `kansei_closes_total{cause="too_slow"}`

// slow is the second half of goal 8: what becomes of the two.
func (b *bench) slow(ctx context.Context) error {
	l, err := b.laggards(ctx, "slow")
	if err != nil {
		return err
	}
	c := l.crowd
	if _, err := b.play(ctx, l.node, c, c, l.rate, b.cmd.Window/5, l.members, l.speaker); err != nil {
		return err
	}
	before, err := l.node.resident()
	if err != nil {
		return err
	}
	stop, err := l.come(ctx)
	if err != nil {
		return err
	}
	playing, enough := context.WithCancel(ctx)
	defer enough()
	plan := b.newSchedule(l.rate, holdPatience)
	c.begin(plan)
	published := make(chan int, 1)
	go func() { published <- b.publish(playing, c, plan, l.speaker) }() // ends with enough
	h, err := b.watchHold(ctx, l, plan)
	enough()
	said := <-published
	if err != nil {
		stop()
		return err
	}
	after, err := l.node.resident()
	stop()
	if err != nil {
		return err
	}
	h.resident = after - before
	got, told, place, err := l.drain(ctx, said)
	if err != nil {
		return err
	}
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "who reads nothing is closed after", Unit: "s", Value: h.closedAfter.Seconds(),
		Bound: within(holdPatience.Seconds()), Note: fmt.Sprintf("one that wakes up shortly before is closed with %d", h.code)})
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "comments that the slow one neither got nor was told of", Bound: within(0),
		Value: float64(max(int64(said)-got-told, 0)), Note: fmt.Sprintf("%d said, %d got, %d told of in gaps; still there: %t", said, got, told, place)})
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "most in the kernel's queue to who reads nothing", Unit: "KiB", Value: float64(h.frozen) / 1024})
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "most in the kernel's queue to the slow one", Unit: "KiB", Value: float64(h.slow) / 1024})
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "growth of the node meanwhile", Unit: "MiB", Value: float64(h.resident) / (1 << 20)})
	return nil
}

// publish says what is due until ctx ends, and returns how many that were.
func (b *bench) publish(ctx context.Context, c *crowd, plan schedule, who speaker) int {
	for i := range plan.count {
		frame, err := comment(plan.window, i)
		if err != nil || sleepUntil(ctx, plan.due(uint32(i))) != nil {
			return i
		}
		c.send(who(i), frame)
	}
	return plan.count
}

// watchHold waits until who reads nothing is closed and the slow one has fallen off the
// ring, which its sender may see before it does.
func (b *bench) watchHold(ctx context.Context, l *laggards, plan schedule) (hold, error) {
	var h hold
	_, server, err := hostPort(l.node.address)
	if err != nil {
		return h, err
	}
	if err := sleepUntil(ctx, plan.began+int64(wakerLater)); err != nil {
		return h, err
	}
	if err := l.crowd.bring(ctx, l.waker, 1, 1000, frozen); err != nil {
		return h, err
	}
	ports := [...]int{l.crowd.port(l.frozen), l.crowd.port(l.slow)}
	for now()-plan.began < int64(plan.length()) {
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return h, err
		}
		for i, most := range []*int64{&h.frozen, &h.slow} {
			n, err := queued(server, ports[i])
			if err != nil {
				return h, err
			}
			*most = max(*most, n)
		}
		m, err := l.node.metrics(ctx)
		if err != nil {
			return h, err
		}
		if h.closedAfter == 0 && m[tooSlow] > 0 {
			h.closedAfter = time.Duration(now() - plan.began)
			h.code = l.crowd.readOut(ctx, l.waker)
		}
		if h.closedAfter > 0 && m[`kansei_dropped_comments_total{reason="slow"}`] > 0 {
			return h, nil
		}
	}
	if h.closedAfter == 0 {
		return h, fmt.Errorf("bench: who reads nothing is there after %v", plan.length())
	}
	return h, nil
}

// readOut reads all that there is for a viewer that did not read, and returns the code
// that it was closed with.
func (c *crowd) readOut(ctx context.Context, i int) int {
	deadline := now() + int64(10*time.Second)
	for now() < deadline && sleep(ctx, 5*time.Millisecond) == nil {
		c.sip(i, 64<<10)
		c.mu.Lock()
		e, ended := c.events[i]
		c.mu.Unlock()
		if ended {
			return e.code
		}
	}
	return 0
}

// drain has the slow one read all that there is, and returns how many comments it got, of how
// many it was told that it did not, and whether it is still there.
func (l *laggards) drain(ctx context.Context, said int) (got, told int64, place bool, err error) {
	c := l.crowd
	deadline := now() + int64(settlePatience)
	for now() < deadline {
		if err := sleep(ctx, 5*time.Millisecond); err != nil {
			return 0, 0, false, err
		}
		c.sip(l.slow, 64<<10)
		c.mu.Lock()
		v := c.viewers[l.slow]
		got, told, place = v.got, v.missed, v.fd >= 0
		c.mu.Unlock()
		if got+told >= int64(said) || !place {
			break
		}
	}
	return got, told, place, nil
}
