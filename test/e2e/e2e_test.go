// Package e2e tests the whole: a cluster of real processes, with virtual viewers,
// browsers, and processes that are killed.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/loadtest"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
)

// binary is bin/kansei of this source, built once.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kansei-e2e-")
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "kansei")
	out, err := exec.Command("go", "build", "-o", name, "../../cmd/kansei").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return name, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if name, err := binary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(name))
	}
	os.Exit(code)
}

// startCluster starts a cluster of this source that ends with the test.
func startCluster(t *testing.T, edges int, args ...string) *localcluster.Cluster {
	t.Helper()
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, localcluster.Config{Edges: edges, EdgeArgs: args, Kansei: name})
}

// start starts a cluster that ends with the test. When the test has failed, the logs of
// the nodes are shown.
func start(t *testing.T, cfg localcluster.Config) *localcluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cfg.Dir = t.TempDir()
	c, err := localcluster.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close the cluster: %v", err)
		}
		if !t.Failed() {
			return
		}
		for _, e := range c.Edges {
			log, _ := os.ReadFile(e.LogFile())
			t.Logf("%s:\n%s", e.Name(), log[max(0, len(log)-4000):])
		}
	})
	return c
}

func urls(c *localcluster.Cluster) []string {
	var out []string
	for _, e := range c.Edges {
		out = append(out, e.URL)
	}
	return out
}

// counts asks a node for the counts of a room, again for some seconds while it does not
// know them. It is nil when the node does not answer, and of -1 connections when it never
// knows.
func counts(t *testing.T, e *localcluster.Edge, token, room string) *protocol.Viewers {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.URL+"/v1/rooms/"+room, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			return nil
		}
		var r protocol.Room
		err = json.NewDecoder(res.Body).Decode(&r)
		_ = res.Body.Close()
		switch {
		case err == nil && r.Viewers != nil:
			return r.Viewers
		case err != nil, time.Now().After(end):
			return &protocol.Viewers{Connections: -1}
		}
	}
}

func token(t *testing.T, c *localcluster.Cluster, user string, role protocol.Role) string {
	t.Helper()
	tok, err := c.Token(auth.Claims{Subject: user, Name: user, Role: role, Rooms: []string{auth.AllRooms}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// eventually waits until f is true.
func eventually(t *testing.T, limit time.Duration, what string, f func() bool) {
	t.Helper()
	start := time.Now()
	for !f() {
		if time.Since(start) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// promptly is how long a test waits for what must not hang.
const promptly = 20 * time.Second

// fetch asks for a page over a connection of its own.
func fetch(url string) (status int, body string, err error) {
	c := http.Client{Timeout: promptly, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// load is one run of virtual viewers: the recorded audience if there is one.
type load struct {
	t    *testing.T
	cmd  loadtest.Command
	out  bytes.Buffer
	err  error
	done chan struct{}
}

func startLoad(t *testing.T, c *localcluster.Cluster, room string, viewers int, length time.Duration) *load {
	l := &load{t: t, done: make(chan struct{}), cmd: loadtest.Command{
		URL: urls(c), Room: room, AuthSecret: string(c.Secret), Viewers: viewers, JoinRate: 200, UserIDs: "short",
		Trace: os.Getenv("KANSEI_TRACE"), Speed: 4, Rate: 50, Duration: length, Settle: 30 * time.Second, Seed: 1, JSON: true,
	}}
	go func() { // ends with the run, which is bounded by its length and settle time
		defer close(l.done)
		l.err = l.cmd.Run(t.Context(), &l.out, io.Discard)
	}()
	t.Cleanup(func() { <-l.done })
	return l
}

// passed waits for the end of the run and checks that all its checks passed.
func (l *load) passed() {
	l.t.Helper()
	<-l.done
	if l.err != nil {
		l.t.Errorf("load: %v\n%s", l.err, l.out.String())
	}
}

// Viewers on two nodes get every comment once and in order, even when one of the
// nodes is killed: its viewers go on at the other, and the count is right again.
func TestNodeKilled(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	const viewers = 100
	l := startLoad(t, c, "killed", viewers, 20*time.Second)
	tok := token(t, c, "watch", protocol.RoleMonitor)
	// Viewers, and the broadcasters who publish.
	var before int
	eventually(t, 30*time.Second, "all viewers are there", func() bool {
		n := counts(t, c.Edges[0], tok, "killed")
		if n == nil {
			return false
		}
		before = n.Connections
		return n.Users >= viewers+1
	})
	time.Sleep(3 * time.Second) // comments flow
	if n := counts(t, c.Edges[0], tok, "killed"); n != nil {
		before = n.Connections
	}
	if err := c.Edges[1].Kill(); err != nil {
		t.Fatal(err)
	}
	// At first it is what it was, because nobody has noticed; then too many, while the
	// viewers are back and the dead node's are not reaped; then right for good.
	killed := time.Now()
	var wrong time.Duration
	for time.Since(killed) < 13*time.Second {
		if n := counts(t, c.Edges[0], tok, "killed"); n == nil || n.Connections != before {
			wrong = time.Since(killed)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("%d connections, right again after %v", before, wrong.Round(10*time.Millisecond))
	if wrong == 0 || wrong > 10*time.Second {
		t.Errorf("the count was wrong for %v, want some time and at most 10s", wrong)
	}
	l.passed()
}

// With NATS or Redis away a node keeps its sockets, says what is missing, and heals;
// what it acknowledged is there.
func TestEngineAway(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, "--append-timeout=3s")
	edge := c.Edges[0]
	tok := token(t, c, "boss", protocol.RoleBroadcaster)
	watcher := watch(t, edge.URL, "away", tok)

	var acknowledged []string
	post := func(text string) int {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, edge.URL+"/v1/rooms/away/comments", strings.NewReader(`{"text":"`+text+`"}`))
		req.Header.Set("Authorization", "Bearer "+tok)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		if res.StatusCode == http.StatusCreated {
			acknowledged = append(acknowledged, text)
		}
		return res.StatusCode
	}
	isReady := func() {
		t.Helper()
		says(t, edge, http.StatusOK, "edge: ready\nnats: ready\nredis: ready\n")
	}

	if s := post("one"); s != http.StatusCreated {
		t.Fatalf("POST: %d", s)
	}

	// Redis away: comments flow, the count heals.
	if err := c.Redis.Kill(); err != nil {
		t.Fatal(err)
	}
	says(t, edge, http.StatusOK, "redis: degraded: ") // no other node does better
	if s := post("without redis"); s != http.StatusCreated {
		t.Errorf("POST without Redis: %d", s)
	}
	if err := c.Redis.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	isReady()
	eventually(t, 10*time.Second, "the count is right", func() bool {
		n := counts(t, edge, tok, "away")
		return n != nil && n.Connections == 1
	})

	// NATS away: unavailable or unknown, never acknowledged, sockets stay.
	for _, n := range c.NATS {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	says(t, edge, http.StatusOK, "nats: degraded: ")
	if s := post("without nats"); s != http.StatusServiceUnavailable {
		t.Errorf("POST without NATS: %d", s)
	}
	var wg sync.WaitGroup
	for _, n := range c.NATS { // each is ready only with a quorum
		wg.Go(func() {
			if err := n.Restart(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	isReady()
	eventually(t, 60*time.Second, "comments are taken again", func() bool { return post("again") == http.StatusCreated })

	eventually(t, 20*time.Second, "the viewer has everything that was acknowledged", func() bool {
		return strings.Join(watcher.texts(), ",") == strings.Join(acknowledged, ",")
	})
	if n := watcher.connections(); n != 1 {
		t.Errorf("the viewer needed %d connections", n)
	}

	// A node that starts while its engines are away keeps trying.
	for _, n := range c.NATS {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	if err := edge.Kill(); err != nil {
		t.Fatal(err)
	}
	restarted := make(chan error, 1)
	go func() { restarted <- edge.Restart(t.Context()) }() // ends when the node is ready
	says(t, edge, http.StatusServiceUnavailable, "nats: ")
	for _, n := range c.NATS {
		wg.Go(func() {
			if err := n.Restart(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := <-restarted; err != nil {
		t.Errorf("the node never became ready: %v", err)
	}
}
