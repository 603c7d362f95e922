package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/kansei-live/kansei/loadtest"
	"github.com/kansei-live/kansei/protocol"
)

const (
	watchViewers = 5000
	watchRate    = 5 // comments a second
	// watchRests is how long after it was set what is kept of a room, until it is so, and after all have left,
	// until all rows are written.
	watchRests = 2500 * time.Millisecond
)

// watch is what it costs to keep who watches: an evening in a room that keeps it, beside two evenings in rooms that do not. All come, tell that
// the page is seen, hide and show it, send another beat, hear some comments, and go.
func (b *bench) watch(ctx context.Context) error {
	viewers := b.scaled(watchViewers)
	if err := sockets(viewers + spareFiles); err != nil {
		return err
	}
	n, err := b.startNode(ctx)
	if err != nil {
		return err
	}
	modes := []string{protocol.WatchOff, protocol.WatchUsers, protocol.WatchOff}
	var rooms []*room
	for i, mode := range modes {
		f := b.oneRoom(fmt.Sprintf("watch-%d", i), viewers-1, 1, watchRate)
		c, err := b.crowd(n, f.people)
		if err != nil {
			return err
		}
		if err := b.keepWatch(ctx, n, f.name, mode); err != nil {
			return err
		}
		rooms = append(rooms, &room{fanout: f, bench: b, node: n, audience: c})
	}
	cost, rows := make([]Spread, len(rooms)), Spread{}
	for pair := range b.cmd.Pairs {
		for k := range rooms { // in another order each time
			i := (k + pair) % len(rooms)
			cpu, wrote, took, err := rooms[i].evening(ctx)
			if err != nil {
				return err
			}
			cost[i] = append(cost[i], float64(cpu.Milliseconds()))
			if modes[i] == protocol.WatchUsers {
				// Joins, leaves, three changes each (nobody has said at first whether the page is seen), and one a minute.
				rows = append(rows, wrote/(float64(viewers)*(5+took.Minutes())))
			} else if wrote > 0 {
				return fmt.Errorf("%.0f rows of a room that keeps none", wrote)
			}
		}
		b.say("  pair %d: an evening without %.0f ms of CPU, with %.0f, without %.0f", pair+1, cost[0][pair], cost[1][pair], cost[2][pair])
	}
	note := fmt.Sprintf("%d viewers come, send four beats, of which three tell that the page is shown or hidden, hear %d comments/s for %v, and go", viewers, watchRate, b.cmd.Window)
	b.report.add(Row{Goal: 11, Scenario: "watch", Figure: "CPU of the node with the watch log, of without", Unit: "×", Bound: within(1.05),
		Values: ratios(cost[1], cost[0]), Node: cost[1], Floor: cost[0], Raw: "ms", Note: note})
	b.report.add(Row{Goal: 11, Scenario: "watch", Figure: "the same of another room without, of without", Unit: "×",
		Values: ratios(cost[2], cost[0]), Node: cost[2], Floor: cost[0], Raw: "ms", Note: "what differs by itself"})
	b.report.add(Row{Goal: 11, Scenario: "watch", Figure: "rows, of joins + leaves + changes + viewers/60 s", Unit: "×", Bound: within(1), Values: rows})
	return nil
}

// evening has everybody come, watch and go. It returns the CPU of the node, the rows that it has written, and how long that took.
func (r *room) evening(ctx context.Context) (cpu time.Duration, rows float64, took time.Duration, err error) {
	b, n, began := r.bench, r.node, time.Now()
	before, err := n.cpu()
	if err != nil {
		return 0, 0, 0, err
	}
	written := func() (float64, error) {
		m, err := n.metrics(ctx)
		return m["kansei_watch_rows_total"], err
	}
	had, err := written()
	if err != nil {
		return 0, 0, 0, err
	}
	if err := r.audience.bring(ctx, 0, r.viewers, b.cmd.JoinRate, normal); err != nil {
		return 0, 0, 0, err
	}
	tell := func(visible bool, at int64) error {
		frame := clientFrame(opText, fmt.Appendf(nil, `{"type":"beat","visible":%t,"media_ms":%d}`, visible, at))
		for i := range r.viewers {
			r.audience.send(i, frame)
			if i%500 == 499 { // a second for all of them
				if err := sleep(ctx, time.Second/time.Duration(max(1, r.viewers/500))); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if _, err := r.play(ctx, b.cmd.Window); err != nil {
		return 0, 0, 0, err
	}
	err = errors.Join(tell(true, 0), tell(false, 1000), tell(true, 2000), tell(true, 3000),
		r.audience.leave(ctx, r.viewers), n.settled(ctx, 0), sleep(ctx, watchRests))
	if err != nil {
		return 0, 0, 0, err
	}
	after, err := n.cpu()
	if err != nil {
		return 0, 0, 0, err
	}
	has, err := written()
	return after - before, has - had, time.Since(began), err
}

// keepWatch sets what a room keeps of who watches.
func (b *bench) keepWatch(ctx context.Context, n *node, name, mode string) error {
	token, err := loadtest.Mint(b.secret, name, "owner", "owner", protocol.RoleBroadcaster, time.Now())
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, "http://"+n.address+"/v1/rooms/"+name, strings.NewReader(fmt.Sprintf(`{"watch":%q}`, mode)))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	if p, _ := io.ReadAll(io.LimitReader(res.Body, 1000)); res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s", res.Status, p)
	}
	return nil
}
