package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
)

// mover is a viewer that remembers what it got over all its connections.
type mover struct {
	mu        sync.Mutex
	got       []string        // texts
	told      []time.Duration // when it was told to come back, each time
	welcomes  []time.Time
	incidents []string // what should not happen in a rolling restart
}

func (m *mover) handler() client.Handler {
	with := func(f func()) { m.mu.Lock(); defer m.mu.Unlock(); f() }
	return client.Handler{
		Frame: func(raw []byte) {
			if bytes.HasPrefix(raw, []byte(`{"type":"reconnect"`)) {
				var r protocol.Reconnect
				err := json.Unmarshal(raw, &r)
				with(func() {
					if err != nil {
						m.incidents = append(m.incidents, err.Error())
					}
					m.told = append(m.told, time.Duration(r.AfterMS)*time.Millisecond)
				})
			}
		},
		Welcome:      func(*protocol.Welcome) { with(func() { m.welcomes = append(m.welcomes, time.Now()) }) },
		NotRecovered: func(string) { with(func() { m.incidents = append(m.incidents, "not recovered") }) },
		Gap:          func(*protocol.Gap) { with(func() { m.incidents = append(m.incidents, "a gap") }) },
		Comments: func(c *protocol.Comments) {
			with(func() {
				for _, it := range c.Items {
					m.got = append(m.got, it.Text)
				}
			})
		},
	}
}

// A rolling restart: nodes are drained one after the other, by a signal and by request,
// under viewers and a publisher. Nobody misses anything, sees anything twice or in
// another order, and nobody comes in a wave.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	const viewers, drain = 240, 3 * time.Second
	c := startCluster(t, 3, "--drain="+drain.String())
	tok := token(t, c, "boss", protocol.RoleBroadcaster)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	newClient := func(n int, user string, h client.Handler) *client.Client {
		all := urls(c)
		cl, err := client.New(client.Config{
			URLs: slices.Concat(all[n%3:], all[:n%3]), Room: "rolling", Handler: h,
			Token: client.StaticToken(token(t, c, user, protocol.RoleBroadcaster)),
		})
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() { _ = cl.Run(ctx) }) // ends with cancel
		return cl
	}
	crowd := make([]*mover, viewers)
	for i := range crowd {
		crowd[i] = new(mover)
		newClient(i, "viewer"+strconv.Itoa(i), crowd[i].handler())
	}
	everybody := func(f func(*mover) bool) func() bool {
		return func() bool {
			return !slices.ContainsFunc(crowd, func(m *mover) bool { m.mu.Lock(); defer m.mu.Unlock(); return !f(m) })
		}
	}
	eventually(t, 30*time.Second, "everybody is in", everybody(func(m *mover) bool { return len(m.welcomes) > 0 }))
	eventually(t, 10*time.Second, "everybody is counted", func() bool {
		n := counts(t, c.Edges[0], tok, "rolling")
		return n != nil && n.Users == viewers
	})

	// The publisher is a viewer too, and moves.
	publisher := newClient(1, "publisher", client.Handler{})
	var said atomic.Int64
	silence := make(chan struct{})
	published := make(chan error, 1)
	running.Go(func() { // ends with silence or cancel
		tick := time.NewTicker(60 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-silence:
				published <- nil
				return
			}
			if _, err := publisher.Comment(ctx, protocol.CommentRequest{Text: fmt.Sprint(said.Load())}); err != nil {
				published <- err
				return
			}
			said.Add(1)
		}
	})
	eventually(t, 10*time.Second, "comments flow", everybody(func(m *mover) bool { return len(m.got) > 3 }))

	var fewest, mostUsers, mostConnections atomic.Int64 // that another viewer was told of
	fewest.Store(viewers + 1)
	counting := client.Handler{Viewers: func(v *protocol.Viewers) {
		fewest.Store(min(fewest.Load(), int64(v.Users)))
		mostUsers.Store(max(mostUsers.Load(), int64(v.Users)))
		mostConnections.Store(max(mostConnections.Load(), int64(v.Connections)))
	}}
	eventually(t, 10*time.Second, "the publisher is counted", func() bool {
		n := counts(t, c.Edges[2], tok, "rolling")
		return n != nil && n.Users == viewers+1
	})
	newClient(2, "publisher", counting)

	for i, e := range c.Edges {
		before := counts(t, c.Edges[(i+1)%3], tok, "rolling")
		ask := func() error { return post(ctx, e.Ops+"/drain") }
		if i == 1 {
			ask = nil // SIGTERM
		}
		told := make([]int, viewers)
		for k, m := range crowd {
			m.mu.Lock()
			told[k] = len(m.told)
			m.mu.Unlock()
		}
		began := time.Now()
		status, err := e.End(ctx, ask)
		took := time.Since(began)
		if err != nil || status != 0 {
			t.Fatalf("%s ended with %d, %v", e.Name(), status, err)
		}
		if took > drain+10*time.Second {
			t.Errorf("%s needed %v", e.Name(), took)
		}
		// What was told cannot come from a busy machine; when they came can.
		var moments, moved []time.Duration
		for k, m := range crowd {
			m.mu.Lock()
			moments = append(moments, m.told[told[k]:]...)
			for _, at := range m.welcomes {
				if d := at.Sub(began); d > 0 {
					moved = append(moved, d)
				}
			}
			m.mu.Unlock()
		}
		average := float64(len(moments)) / (drain * 3 / 4).Seconds() // the first quarter is notice
		if len(moments) < viewers/4 || float64(most(moments)) > 2*average {
			t.Errorf("%s told %d viewers to move, %d of them within one second", e.Name(), len(moments), most(moments))
		}
		var after *protocol.Viewers
		eventually(t, 10*time.Second, "everybody is counted", func() bool {
			after = counts(t, c.Edges[(i+1)%3], tok, "rolling")
			return after != nil && after.Users == viewers+1
		})
		t.Logf("%s: %d told, at most %d in a second (%.0f on average); %d came, at most %d in a second; ended after %v; counted %v, then %v",
			e.Name(), len(moments), most(moments), average, len(moved), most(moved), took.Round(10*time.Millisecond), before, after)
		if err := e.Restart(ctx); err != nil {
			t.Fatal(err)
		}
	}

	close(silence)
	if err := <-published; err != nil {
		t.Errorf("a comment was not published: %v", err)
	}
	n := int(said.Load())
	eventually(t, 10*time.Second, "everybody has every comment", everybody(func(m *mover) bool { return len(m.got) >= n }))
	for k, m := range crowd {
		m.mu.Lock()
		for i, text := range m.got {
			if text != strconv.Itoa(i) {
				t.Errorf("viewer %d: comment %d is %s", k, i, text)
				break
			}
		}
		if len(m.got) != n || len(m.incidents) > 0 || len(m.welcomes) > len(m.told)+1 {
			t.Errorf("viewer %d has %d of %d comments, %d connections, was told %d times; %v", k, len(m.got), n, len(m.welcomes), len(m.told), m.incidents)
		}
		m.mu.Unlock()
	}
	t.Logf("%d comments at %d viewers; one was told of %d to %d users, up to %d connections",
		n, viewers, fewest.Load(), mostUsers.Load(), mostConnections.Load())
	if mostUsers.Load() > viewers+1 {
		t.Errorf("%d users were counted, there are %d", mostUsers.Load(), viewers+1)
	}
}

// most is the most of the times that lie within one second, wherever it begins.
func most(at []time.Duration) int {
	at = slices.Sorted(slices.Values(at))
	n, from := 0, 0
	for i := range at {
		for at[i]-at[from] >= time.Second {
			from++
		}
		n = max(n, i-from+1)
	}
	return n
}

func post(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body)
	if res.StatusCode != http.StatusAccepted {
		return fmt.Errorf("POST %s: %s", url, res.Status)
	}
	return nil
}
