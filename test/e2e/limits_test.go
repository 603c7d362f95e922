package e2e

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
)

// A user who is on two nodes has the rate of one, and a room takes no more than its limit, whatever
// nodes its comments come through.
func TestRatesOverNodes(t *testing.T) {
	t.Parallel()
	const rate, limit = 2, 40
	c := startCluster(t, 2, "--guests=none", fmt.Sprint("--rate=", rate), "--burst=4", fmt.Sprint("--room-limit=", limit))
	// flood sends comments of a user through a node as fast as they are answered, every 20 ms at most, and
	// counts those that are taken.
	flood := func(ctx context.Context, node int, user, room string, taken *atomic.Int64) {
		conn, err := client.Dial(ctx, client.Options{URL: c.Edges[node].URL, Room: room, Token: token(t, c, user, protocol.RoleViewer)})
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.CloseNow() }()
		for n := 0; ctx.Err() == nil; n++ {
			if conn.Send(ctx, &protocol.CommentRequest{Ref: fmt.Sprint(n), Text: fmt.Sprint(user, " ", n)}) != nil {
				return
			}
			for answered := false; !answered; {
				m, err := conn.Read(ctx)
				if err != nil {
					return
				}
				switch m := m.(type) {
				case *protocol.OK:
					taken.Add(1)
					answered = true
				case *protocol.Error:
					if m.Code != protocol.CodeRateLimited || m.RetryMS < 1 {
						t.Errorf("refused with %+v", m)
					}
					answered = true
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	// during counts what is taken in a stretch of time, when the nodes have found each other out.
	during := func(room string, users, nodes int, d time.Duration) float64 {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		var taken atomic.Int64
		var wg sync.WaitGroup
		for u := range users {
			for node := range nodes {
				wg.Go(func() { flood(ctx, node, fmt.Sprint("u", u), room, &taken) }) // ends with cancel
			}
		}
		time.Sleep(8 * time.Second)
		before := taken.Load()
		time.Sleep(d)
		got := float64(taken.Load() - before)
		cancel()
		wg.Wait()
		return got / d.Seconds()
	}
	alone := during("alone", 1, 1, 6*time.Second)
	both := during("both", 1, 2, 6*time.Second)
	if alone < 0.7*rate || alone > 1.3*rate || both < 0.5*rate || both > 1.4*rate {
		t.Errorf("a user of %d a second got %.1f on one node, %.1f on two", rate, alone, both)
	}
	if full := during("full", 60, 1, 6*time.Second); full < limit/2 || full > 1.3*limit {
		t.Errorf("a room of %d a second took %.1f of 60 users", limit, full)
	}
}
