package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

const (
	manyRooms  = 2000
	perRoom    = 5
	mostOfMany = 1.5 // what a delivery may cost, of the floor's
)

// inRooms says who is in so many rooms: one viewer in each of them, then the next in each.
func inRooms(name string, rooms int, letter byte, role protocol.Role) func(i int) who {
	return func(i int) who {
		return who{room: fmt.Sprintf("%s-%d", name, i%rooms), user: fmt.Sprintf("%c%d", letter, i), role: role}
	}
}

// rooms is goal 4: many rooms with few viewers, whose comments come one by one, spread over the
// second. The floor has the same pattern: for each comment it writes to the few sockets that
// get it. Comments come in at another node, as most do where there are many nodes; and, in
// further windows, at this one, which then does their publishing too.
func (b *bench) rooms(ctx context.Context) error {
	rooms := b.scaled(manyRooms)
	rate := float64(rooms)
	r, err := b.room(ctx, fanout{
		name: "rooms", viewers: rooms * perRoom, members: perRoom, rate: rate, people: inRooms("rooms", rooms, 'v', protocol.RoleViewer),
		// In each room its viewers take turns.
		speaker: func(n int) int { return n%rooms + rooms*(n/rooms%perRoom) },
	})
	if err != nil {
		return err
	}
	speakers := 0
	var outside *crowd
	if b.shared() {
		speakers = rooms
		if err := sockets(r.viewers + speakers + spareFiles); err != nil {
			return err
		}
		if outside, err = b.outside(ctx, inRooms("rooms", rooms, 's', protocol.RoleBroadcaster), speakers); err != nil {
			return err
		}
	}
	g, err := b.ground(ctx, r.viewers, r.viewers+speakers)
	if err != nil {
		return err
	}
	last, err := r.warm(ctx)
	if err != nil {
		return err
	}
	// A floor with fewer sockets writes to all of them more often, so that it writes as much.
	passes := float64(r.viewers) / float64(g.sockets)
	var here, there, hereBurst, thereBurst pairs
	for i := range b.cmd.Pairs {
		var own, other, spread, burst sample
		err := inTurn(i, func() (err error) {
			if outside != nil {
				other, err = r.playFrom(ctx, outside, func(n int) int { return n % rooms }, b.cmd.Window)
			}
			return err
		}, func() (err error) {
			spread, err = g.toSome(ctx, rate, last.frameSize(), perRoom)
			return err
		}, func() (err error) {
			own, err = r.play(ctx, b.cmd.Window)
			return err
		}, func() (err error) {
			burst, err = g.toAll(ctx, passes, last.frameSize())
			return err
		})
		if err != nil {
			return err
		}
		last = own
		here.add(own, spread)
		hereBurst.add(own, burst)
		b.say("  pair %d: node %.2f µs; floor %.2f µs, all at once %.2f µs", i+1, own.cost(), spread.cost(), burst.cost())
		if outside != nil {
			there.add(other, spread)
			thereBurst.add(other, burst)
			b.say("          node %.2f µs when comments come in at another one", other.cost())
		}
	}
	sockets := fmt.Sprintf("floor: %d sockets", g.sockets)
	some := fmt.Sprintf("%s, %d for each of %d comments/s", sockets, perRoom, rooms)
	all := sockets + ", all in one go"
	if outside != nil {
		b.costs(4, r.name, &there, within(mostOfMany), "the floor's, comments from another node", some)
		b.costs(4, r.name, &thereBurst, nil, "a burst's, comments from another node", all)
		b.costs(4, r.name, &here, nil, "the floor's, comments from here", some)
	} else { // the log is inside the node: there is no other
		b.costs(4, r.name, &here, within(mostOfMany), "the floor's, comments from here", some)
	}
	b.costs(4, r.name, &hereBurst, nil, "a burst's, comments from here", all)
	b.arrivals(4, r.fanout, slices.Concat(here.node, there.node))
	b.latency(4, r.fanout, &here, 50, nil)
	return r.profile(ctx)
}

// outside brings people who speak in at a node that is not measured.
func (b *bench) outside(ctx context.Context, people func(i int) who, n int) (*crowd, error) {
	other, err := b.startNode(ctx)
	if err != nil {
		return nil, err
	}
	c, err := b.crowd(other, people)
	if err != nil {
		return nil, err
	}
	return c, c.bring(ctx, 0, n, b.cmd.JoinRate, normal)
}

// idle is what rooms cost in which nothing happens: a node with many rooms of one viewer each,
// against one with as many viewers in one room and one with nobody. All three do nothing in
// the same seconds.
func (b *bench) idle(ctx context.Context) error {
	viewers := b.scaled(manyRooms)
	many, err := b.room(ctx, fanout{viewers: viewers, people: inRooms("idle", viewers, 'v', protocol.RoleViewer)})
	if err != nil {
		return err
	}
	one, err := b.room(ctx, fanout{viewers: viewers, people: inRooms("idle-one", 1, 'v', protocol.RoleViewer)})
	if err != nil {
		return err
	}
	empty, err := b.startNode(ctx)
	if err != nil {
		return err
	}
	if err := sleep(ctx, min(restFor, b.cmd.Window)); err != nil {
		return err
	}
	nodes := [...]*node{many.node, one.node, empty}
	var costs, wakes [len(nodes)]Spread
	for range b.cmd.Pairs {
		var before [len(nodes)]effort
		for i, n := range nodes {
			if before[i], err = n.effort(); err != nil {
				return err
			}
		}
		if err := sleep(ctx, b.cmd.Window); err != nil {
			return err
		}
		for i, n := range nodes {
			after, err := n.effort()
			if err != nil {
				return err
			}
			seconds := float64(after.at-before[i].at) / 1e9
			costs[i] = append(costs[i], (after.cpu-before[i].cpu).Seconds()*1000/seconds)
			wakes[i] = append(wakes[i], float64(after.wakes-before[i].wakes)/seconds)
		}
	}
	note := fmt.Sprintf("%d rooms of one viewer; floor: the other node", viewers)
	for _, f := range []struct {
		figure, unit string
		of           *[len(nodes)]Spread
	}{{"CPU of idle rooms", "ms/s", &costs}, {"wake-ups of idle rooms", "/s", &wakes}} {
		for i, against := range [...]string{"as many viewers in one room", "a node with nobody"} {
			b.report.add(Row{Goal: 4, Scenario: "idle", Figure: f.figure + ", above " + against, Unit: f.unit,
				Values: f.of[0].less(f.of[i+1]), Node: f.of[0], Floor: f.of[i+1], Raw: f.unit, Note: note})
		}
	}
	return nil
}

// effort is what a process has done so far.
type effort struct {
	at    int64
	cpu   time.Duration
	wakes int64 // how often its threads have slept and were woken
}

func (p *process) effort() (effort, error) {
	cpu, err := p.cpu()
	if err != nil {
		return effort{}, err
	}
	wakes, err := p.wakes()
	return effort{now(), cpu, wakes}, err
}
