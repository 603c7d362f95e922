package bench

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// frozenRate is so small that the machine is far from busy: what the others notice is not
	// hidden by what they do to each other.
	frozenRate = 4       // comments a second
	slowRate   = 10      // so that the slow one falls off the ring soon
	sipSize    = 1 << 10 // what the slow one reads in a second, in bytes
	sips       = 4       // in which it does so
	// Until those who do not read are behind, the broadcaster says long things quickly: fillSize
	// code points of three bytes, fillRate of them a second.
	fillRate = 20
	fillSize = 800
	// frozenWindow is the longest window of those who do not read: the node closes them after
	// 20 s.
	frozenWindow = 15 * time.Second
	// holdPatience is how long the node may take to see the last of who reads nothing, and the
	// slow one to fall off the ring.
	holdPatience = 4 * time.Minute
	mostRatio    = 1.25
	mostSeconds  = 60
	// wakerLater is how much later than the frozen one the waker is behind: more than a turn of
	// the node's wheel, which looks once a second.
	wakerLater = 2 * time.Second
)

const (
	behind  = "kansei_slow_writers"
	tooSlow = `kansei_closes_total{cause="too_slow"}`
	dropped = `kansei_dropped_comments_total{reason="slow"}`
)

// laggards are a room of viewers who read, and two who do not: they take no deflated
// messages, so that there is more for them than they take.
type laggards struct {
	*room
	frozen, slow int // their numbers
	waker        int // of one who does not read until the frozen one is gone
}

func (b *bench) laggards(ctx context.Context, name string, rate float64) (*laggards, error) {
	f := b.oneRoom(name, b.scaled(5000), 1, rate)
	known := f.people
	f.people = func(i int) who {
		if i >= f.viewers {
			return who{room: name, user: fmt.Sprintf("laggard%d", i), role: protocol.RoleViewer, plain: true}
		}
		return known(i)
	}
	r, err := b.room(ctx, f)
	if err != nil {
		return nil, err
	}
	return &laggards{room: r, frozen: f.viewers, slow: f.viewers + 1, waker: f.viewers + 2}, nil
}

// come brings the two in, and has the slow one read until stop.
func (l *laggards) come(ctx context.Context) (stop func(), err error) {
	if err := l.audience.bring(ctx, l.frozen, 1, 1000, frozen); err != nil {
		return nil, err
	}
	if err := l.audience.bring(ctx, l.slow, 1, 1000, slow); err != nil {
		return nil, err
	}
	reading, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { // ends with cancel
		for sleep(reading, time.Second/sips) == nil {
			l.audience.sip(l.slow, sipSize/sips)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}, nil
}

// fill says long things until so many are behind, and returns how many it said when everybody
// else has got them.
func (l *laggards) fill(ctx context.Context, laggards float64) (int, error) {
	plan := l.bench.newSchedule(fillRate, settlePatience)
	l.audience.begin(plan)
	long := strings.Repeat("長", fillSize)
	for n := range plan.count {
		frame, err := frameOf(plan.window, n, mark(plan.window, n)+" "+long)
		if err != nil {
			return 0, err
		}
		if err := sleepUntil(ctx, plan.due(uint32(n))); err != nil {
			return 0, err
		}
		l.audience.send(l.speaker(n), frame)
		m, err := l.node.metrics(ctx)
		if err != nil {
			return 0, err
		}
		if m[behind] >= laggards {
			said := n + 1
			return said, l.audience.settle(ctx, int64(said)*int64(l.members))
		}
	}
	return 0, fmt.Errorf("bench: %s is below %.0f after %d long comments", behind, laggards, plan.count)
}

// frozen is the first half of goal 8: what the others notice.
func (b *bench) frozen(ctx context.Context) error {
	l, err := b.laggards(ctx, "frozen", frozenRate)
	if err != nil {
		return err
	}
	length := min(frozenWindow, b.cmd.Window*3/2)
	if _, err := l.warm(ctx); err != nil {
		return err
	}
	var without, with, ratio Spread
	var lost int64
	behind := 0 // windows in which both were behind to the end
	for i := range b.cmd.Pairs {
		var alone, beside sample
		err := inTurn(i, func() (err error) {
			alone, err = l.play(ctx, length)
			return err
		}, func() (err error) {
			var still bool
			if beside, still, err = l.beside(ctx, length); still {
				behind++
			}
			return err
		})
		if err != nil {
			return err
		}
		without, with = append(without, alone.quantile(99)), append(with, beside.quantile(99))
		ratio = append(ratio, with[i]/without[i])
		lost += alone.lost + alone.missed + beside.lost + beside.missed
		b.say("  pair %d: p99 %.1f ms without, %.1f ms with; CPU of a delivery %.2f µs and %.2f µs", i+1, without[i], with[i], alone.cost(), beside.cost())
	}
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "the others' p99, of that without", Unit: "×", Bound: within(mostRatio),
		Values: ratio, Node: with, Floor: without, Raw: "ms",
		Note: fmt.Sprintf("floor: the same node without them; both behind to the end in %d of %d windows", behind, b.cmd.Pairs)})
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "the others' comments that did not come", Bound: within(0), Value: float64(lost)})
	return nil
}

// beside is a window with the two, who are behind all the time; still says that they were so at
// its end.
func (l *laggards) beside(ctx context.Context, length time.Duration) (s sample, still bool, err error) {
	stop, err := l.come(ctx)
	if err != nil {
		return s, false, err
	}
	if _, err = l.fill(ctx, 2); err == nil {
		s, err = l.play(ctx, length)
	}
	stop()
	if err != nil {
		return s, false, err
	}
	m, err := l.node.metrics(ctx)
	if err != nil {
		return s, false, err
	}
	l.audience.dismiss(l.frozen, l.slow)
	return s, m[behind] >= 2, l.node.settled(ctx, float64(l.viewers))
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

// local is a viewer's end of its connection, as /proc/net/tcp has it; "" if it has none.
func (c *crowd) local(i int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.viewers[i]; v.fd >= 0 {
		if a, err := unix.Getsockname(int(v.fd)); err == nil {
			if in4, ok := a.(*unix.SockaddrInet4); ok {
				return tcpAddress(netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port)))
			}
		}
	}
	return ""
}

// hold is what the node and the kernel hold for the two.
type hold struct {
	frozen, slow int64 // the most in the sending queues, in bytes
	closedAfter  time.Duration
	code         int
	resident     int64 // growth of the node, in bytes
}

// slow is the second half of goal 8: what becomes of the two.
func (b *bench) slow(ctx context.Context) error {
	l, err := b.laggards(ctx, "slow", slowRate)
	if err != nil {
		return err
	}
	if _, err := l.warm(ctx); err != nil {
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
	said, h, err := l.linger(ctx)
	stop()
	if err != nil {
		return err
	}
	after, err := l.node.resident()
	if err != nil {
		return err
	}
	h.resident = after - before
	got, told, place, err := l.drain(ctx, said)
	if err != nil {
		return err
	}
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "who reads nothing is closed after", Unit: "s", Value: h.closedAfter.Seconds(),
		Bound: within(mostSeconds), Note: fmt.Sprintf("from when it was behind; one that wakes up shortly before is closed with %d", h.code)})
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "comments that the slow one neither got nor was told of", Bound: within(0),
		Value: float64(max(int64(said)-got-told, 0)), Note: fmt.Sprintf("%d said, %d got, %d told of in gaps; still there: %t", said, got, told, place)})
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "most in the kernel's queue to who reads nothing", Unit: "KiB", Value: float64(h.frozen) / 1024})
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "most in the kernel's queue to the slow one", Unit: "KiB", Value: float64(h.slow) / 1024})
	b.report.add(Row{Goal: 8, Scenario: l.name, Figure: "growth of the node meanwhile", Unit: "MiB", Value: float64(h.resident) / (1 << 20)})
	return nil
}

// linger speaks on until who reads nothing is closed and the slow one has fallen off the ring,
// and returns how much was said. A little later than the frozen one somebody else comes to
// be behind, who wakes up when that one has been thrown away: within the 5 s that the node gives
// for the close frame, in order to see it.
func (l *laggards) linger(ctx context.Context) (said int, h hold, err error) {
	first, err := l.fill(ctx, 2)
	if err != nil {
		return 0, h, err
	}
	began := now()
	if err := sleep(ctx, wakerLater); err != nil {
		return 0, h, err
	}
	if err := l.audience.bring(ctx, l.waker, 1, 1000, frozen); err != nil {
		return 0, h, err
	}
	second, err := l.fill(ctx, 3)
	if err != nil {
		return 0, h, err
	}
	plan := l.bench.newSchedule(l.rate, holdPatience)
	l.audience.begin(plan)
	playing, enough := context.WithCancel(ctx)
	published := make(chan int, 1)
	go func() { published <- publish(playing, l.audience, plan, l.speaker) }() // ends with enough
	h, err = l.watchHold(ctx, began)
	enough()
	return first + second + <-published, h, err
}

// publish says what is due until ctx ends, and returns how many that were.
func publish(ctx context.Context, c *crowd, plan schedule, who speaker) int {
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
func (l *laggards) watchHold(ctx context.Context, began int64) (hold, error) {
	var h hold
	address, err := netip.ParseAddrPort(l.node.address)
	if err != nil {
		return h, fmt.Errorf("bench: %w", err)
	}
	server := tcpAddress(address)
	ends := [...]string{l.audience.local(l.frozen), l.audience.local(l.slow)}
	for now()-began < int64(holdPatience) {
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return h, err
		}
		for i, most := range []*int64{&h.frozen, &h.slow} {
			n, err := queued(server, ends[i])
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
			h.closedAfter = time.Duration(now() - began)
			h.code = l.audience.readOut(ctx, l.waker)
		}
		if h.closedAfter > 0 && m[dropped] > 0 {
			return h, nil
		}
	}
	if h.closedAfter == 0 {
		return h, fmt.Errorf("bench: who reads nothing is there after %v", holdPatience)
	}
	return h, fmt.Errorf("bench: who reads %d bytes a second has lost nothing after %v", sipSize, holdPatience)
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
	c := l.audience
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
