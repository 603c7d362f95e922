package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/kansei-live/kansei/loadtest"
	"github.com/kansei-live/kansei/protocol"
)

const (
	sanctions = 10_000
	removals  = 1_000
	// joinRounds is how often everybody comes in, for one figure.
	joinRounds = 5
)

// acts is what moderators leave behind: deliveries and joins in a room with 10,000 users banned and 1,000
// comments removed, of those in a room without, beside a second room without. Every room has somebody who stays. A node that has not had the rooms
// open opens them.
func (b *bench) acts(ctx context.Context) error {
	viewers, banned, removed := b.scaled(1000), b.scaled(sanctions), b.scaled(removals)
	if err := sockets(4*(viewers+2) + spareFiles); err != nil {
		return err
	}
	n, err := b.startNode(ctx, "--rate-staff=10000", "--burst-staff=10000", "--rate=10000", "--burst=10000", "--room-limit=0", "--rate-address=0")
	if err != nil {
		return err
	}
	names := []string{"plain", "moderated", "plain-2"}
	var rooms []*room
	for _, name := range names {
		f := b.oneRoom(name, viewers, 2, 50)
		c, err := b.crowd(n, f.people)
		if err != nil {
			return err
		}
		rooms = append(rooms, &room{fanout: f, bench: b, node: n, audience: c})
		stays, err := b.crowd(n, func(v int) who { return who{room: name, user: fmt.Sprint("stays", v), role: protocol.RoleViewer} })
		if err != nil {
			return err
		}
		if err := stays.bring(ctx, 0, 1, 100, normal); err != nil { // so that the room stays open
			return err
		}
	}
	if err := b.moderate(ctx, n, "moderated", banned, removed); err != nil {
		return err
	}
	cost, joins := make([]Spread, 3), make([]Spread, 3)
	for pair := range b.cmd.Pairs {
		for k := range rooms { // in another order each time
			i := (k + pair) % len(rooms)
			r := rooms[i]
			var join float64
			for round := range joinRounds { // one crowd says little
				if round > 0 {
					if err := errors.Join(r.audience.leave(ctx, r.viewers), n.settled(ctx, float64(len(rooms)))); err != nil {
						return err
					}
				}
				cost, err := b.bringCost(ctx, n, r.audience, r.viewers)
				if err != nil {
					return err
				}
				join += cost / joinRounds
			}
			if _, err := r.warm(ctx); err != nil {
				return err
			}
			s, err := r.play(ctx, b.cmd.Window)
			if err != nil {
				return err
			}
			cost[i], joins[i] = append(cost[i], s.cost()), append(joins[i], join)
			if err := errors.Join(r.audience.leave(ctx, r.viewers), n.settled(ctx, float64(len(rooms)))); err != nil {
				return err
			}
		}
		b.say("  pair %d: a delivery %.2f µs, moderated %.2f, plain again %.2f; a join %.1f µs, moderated %.1f, plain again %.1f", pair+1,
			cost[0][pair], cost[1][pair], cost[2][pair], joins[0][pair], joins[1][pair], joins[2][pair])
	}
	note := fmt.Sprintf("%d users banned, %d comments removed; %d viewers", banned, removed, viewers)
	for _, row := range []struct {
		figure string
		values []Spread
	}{{"CPU of a delivery", cost}, {"CPU of a join", joins}} {
		b.report.add(Row{Goal: 9, Scenario: "acts", Figure: row.figure + " in a moderated room, of one in a room that is not", Unit: "×", Bound: within(1.05),
			Values: ratios(row.values[1], row.values[0]), Node: row.values[1], Floor: row.values[0], Raw: "µs", Note: note})
		b.report.add(Row{Goal: 9, Scenario: "acts", Figure: row.figure + " in another room that is not moderated, of the same", Unit: "×",
			Values: ratios(row.values[2], row.values[0]), Node: row.values[2], Floor: row.values[0], Raw: "µs", Note: "what differs by itself"})
	}
	return b.openCold(ctx, names)
}

func ratios(a, b Spread) Spread {
	out := make(Spread, len(a))
	for i := range a {
		out[i] = a[i] / b[i]
	}
	return out
}

// bringCost brings everybody in, and returns the CPU of one join in microseconds.
func (b *bench) bringCost(ctx context.Context, n *node, c *crowd, viewers int) (float64, error) {
	before, err := n.cpu()
	if err != nil {
		return 0, err
	}
	if err := c.bring(ctx, 0, viewers, b.cmd.JoinRate, normal); err != nil {
		return 0, err
	}
	if err := sleep(ctx, afterJoins); err != nil {
		return 0, err
	}
	after, err := n.cpu()
	return float64((after - before).Microseconds()) / float64(viewers), err
}

// openCold measures how long the first viewer of a room waits on a node that has not had it open.
func (b *bench) openCold(ctx context.Context, names []string) error {
	if !b.shared() {
		b.say("  no node is opened cold: NATS and Redis are inside the node")
		return nil
	}
	took := make([]Spread, len(names))
	for pair := range b.cmd.Pairs {
		n, err := b.startNode(ctx)
		if err != nil {
			return err
		}
		for k := range names {
			i := (k + pair) % len(names)
			c, err := b.crowd(n, func(v int) who {
				return who{room: names[i], user: fmt.Sprint("first", v), role: protocol.RoleViewer}
			})
			if err != nil {
				return err
			}
			if err := c.bring(ctx, 0, 1, 100, normal); err != nil {
				return err
			}
			took[i] = append(took[i], c.joins(50).Seconds()*1000)
			if err := c.leave(ctx, 1); err != nil {
				return err
			}
		}
	}
	differences := func(a, b Spread) Spread {
		out := make(Spread, len(a))
		for i := range a {
			out[i] = a[i] - b[i]
		}
		return out
	}
	b.report.add(Row{Goal: 9, Scenario: "acts", Figure: "first join of a moderated room on a cold node, above that of one that is not", Unit: "ms", Bound: within(100),
		Values: differences(took[1], took[0]), Node: took[1], Floor: took[0], Raw: "ms"})
	return nil
}

// moderate fills a room with acts: so many users banned, so many comments said and removed.
func (b *bench) moderate(ctx context.Context, n *node, room string, banned, removed int) error {
	mint := func(user string, role protocol.Role) (string, error) {
		return loadtest.Mint(n.secret, room, user, user, role, time.Now())
	}
	moderator, err := mint("moderator", protocol.RoleModerator)
	if err != nil {
		return err
	}
	heckler, err := mint("heckler", protocol.RoleViewer)
	if err != nil {
		return err
	}
	base := "http://" + n.address + "/v1/rooms/" + room
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 32}, Timeout: startTimeout}
	defer client.CloseIdleConnections()
	jobs := make(chan func() error)
	failed := make(chan error, 32)
	var workers sync.WaitGroup
	for range 32 {
		workers.Go(func() { // ends with jobs
			for job := range jobs {
				if err := job(); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			}
		})
	}
	for i := range banned {
		jobs <- func() error {
			_, err := post(ctx, client, base+"/acts", moderator, map[string]any{"type": "ban", "user": fmt.Sprint("banned", i), "for_ms": 24 * 3600 * 1000, "reason": "spam"})
			return err
		}
	}
	for i := range removed {
		jobs <- func() error {
			said, err := post(ctx, client, base+"/comments", heckler, map[string]any{"text": fmt.Sprint("spam ", i)})
			if err != nil {
				return err
			}
			_, err = post(ctx, client, base+"/acts", moderator, map[string]any{"type": "remove", "ids": []string{said.ID}})
			return err
		}
	}
	close(jobs)
	workers.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// post makes a request that has to succeed.
func post(ctx context.Context, client *http.Client, url, token string, body any) (said protocol.Posted, err error) {
	p, err := json.Marshal(body)
	if err != nil {
		return said, fmt.Errorf("bench: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(p))
	if err != nil {
		return said, fmt.Errorf("bench: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := client.Do(req)
	if err != nil {
		return said, fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	answer, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err == nil && res.StatusCode/100 != 2 {
		err = fmt.Errorf("bench: %s: %s: %.200s", url, res.Status, answer)
	}
	if err == nil {
		err = json.Unmarshal(answer, &said)
	}
	return said, err
}
