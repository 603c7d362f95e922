package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
	"github.com/kansei-live/kansei/test/proxyrig"
)

const (
	operating    = "../../docs/OPERATING.md"
	proxyViewers = 60
	proxyDrain   = 6 * time.Second
)

// front starts a proxy in front of two nodes, given the addresses of their listeners, and
// returns its URL.
type front func(t *testing.T, nodes, ops []string) string

// documentedNGINX is what the operators' document has for nginx, with other addresses.
func documentedNGINX(t *testing.T, nodes, _ []string) string {
	cert, key := proxyrig.Certificate(t)
	return "https://" + proxyrig.NGINX(t, func(address string) string {
		return proxyrig.Replace(t, proxyrig.Block(t, operating, "nginx", "server {"),
			"10.0.0.11:8080", nodes[0], "10.0.0.12:8080", nodes[1], "listen 443 ssl", "listen "+address+" ssl",
			"/etc/ssl/live.example.com.crt", cert, "/etc/ssl/live.example.com.key", key)
	})
}

// documentedHAProxy is the same for HAProxy.
func documentedHAProxy(t *testing.T, nodes, ops []string) string {
	cert, key := proxyrig.Certificate(t)
	pem := filepath.Join(t.TempDir(), "both.pem")
	var both []byte
	for _, file := range []string{cert, key} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		both = append(both, b...)
	}
	if err := os.WriteFile(pem, both, 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(i int) string { // the checks' port is the node's own here: all are on one address
		_, port, _ := strings.Cut(ops[i], ":")
		return nodes[i] + " port " + port
	}
	return "https://" + proxyrig.HAProxy(t, func(address string) string {
		return proxyrig.Replace(t, proxyrig.Block(t, operating, "haproxy", "backend "),
			"10.0.0.11:8080", at(0), "10.0.0.12:8080", at(1), "bind :443", "bind "+address,
			"/etc/haproxy/live.example.com.pem", pem)
	})
}

// simpleNGINX knows nothing of nodes that leave.
func simpleNGINX(t *testing.T, nodes, _ []string) string {
	return "http://" + proxyrig.NGINX(t, func(address string) string {
		return fmt.Sprintf(`upstream nodes { least_conn; server %s; server %s; }
server {
  listen %s;
  location / {
    proxy_pass http://nodes;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection "upgrade";
    proxy_set_header Host $http_host;
    proxy_read_timeout 2m;
  }
}`, nodes[0], nodes[1], address)
	})
}

// simpleHAProxy has no checks.
func simpleHAProxy(t *testing.T, nodes, _ []string) string {
	return "http://" + proxyrig.HAProxy(t, func(address string) string {
		return fmt.Sprintf(`defaults
  mode http
  balance leastconn
  timeout connect 2s
  timeout client 70s
  timeout server 90s
  timeout tunnel 2m
listen nodes
  bind %s
  option redispatch 1
  server node1 %s
  server node2 %s
`, address, nodes[0], nodes[1])
	})
}

// gaps is how long a viewer was without comments.
type gaps struct {
	mu      sync.Mutex
	last    time.Time
	longest time.Duration
	refused int
}

func (g *gaps) handler() client.Handler {
	return client.Handler{
		Comments: func(c *protocol.Comments) {
			g.mu.Lock()
			defer g.mu.Unlock()
			now := time.Now()
			if !g.last.IsZero() {
				g.longest = max(g.longest, now.Sub(g.last))
			}
			g.last = now
		},
		Disconnected: func(err error, _ time.Duration) {
			if !errors.Is(err, client.ErrMoved) && !errors.Is(err, context.Canceled) {
				g.mu.Lock()
				g.refused++
				g.mu.Unlock()
			}
		},
	}
}

// A node leaves behind proxies, of which only one asks whether it is ready. Its viewers and
// newcomers get to the other one, back ends notice nothing, and it ends soon after its own
// viewers have gone.
func TestDrainBehindProxies(t *testing.T) {
	t.Parallel()
	type kind struct {
		start      front
		documented bool
	}
	for way, kinds := range map[string]map[string]kind{
		"--forwarded-header=x-forwarded-for": {
			"nginx with nothing but least_conn": {simpleNGINX, false}, "nginx as documented": {documentedNGINX, true}, "HAProxy without checks": {simpleHAProxy, false},
		},
		"--proxy-protocol": {"HAProxy as documented": {documentedHAProxy, true}},
	} {
		t.Run(way, func(t *testing.T) {
			c := startCluster(t, 2, "--drain="+proxyDrain.String(), way, "--trusted-proxy=127.0.0.1", "--max-per-user=1000", "--rate-staff=1000", "--burst-staff=1000")
			var nodes, ops []string
			for _, e := range c.Edges {
				nodes, ops = append(nodes, strings.TrimPrefix(e.URL, "http://")), append(ops, strings.TrimPrefix(e.Ops, "http://"))
			}
			for name, k := range kinds {
				t.Run(name, func(t *testing.T) { drainBehind(t, c, k.start(t, nodes, ops), k.documented) })
			}
		})
	}
}

// insecure is an HTTP client that takes every certificate for good.
func insecure() *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true} //nolint:gosec // it was made by this test
	return &http.Client{Transport: transport}
}

func drainBehind(t *testing.T, c *localcluster.Cluster, front string, documented bool) {
	const room = "behind"
	leaving := c.Edges[0]
	http1 := insecure()
	tok := token(t, c, "boss", protocol.RoleBroadcaster)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	join := func() *gaps {
		g := new(gaps)
		cl, err := client.New(client.Config{URLs: []string{front}, Room: room, Handler: g.handler(), Token: client.StaticToken(tok), HTTPClient: http1,
			Header: http.Header{"Origin": {front}}}) // as from a page of its own
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() { _ = cl.Run(ctx) }) // ends with cancel
		return g
	}
	since := func(all []*gaps, at time.Time) bool {
		return !slices.ContainsFunc(all, func(g *gaps) bool { g.mu.Lock(); defer g.mu.Unlock(); return g.last.Before(at) })
	}
	var crowd, newcomers []*gaps
	for range proxyViewers {
		crowd = append(crowd, join())
	}
	var said, unsaid atomic.Int64
	running.Go(func() { // ends with cancel
		for tick := time.NewTicker(50 * time.Millisecond); ; {
			select {
			case <-tick.C:
			case <-ctx.Done():
				tick.Stop()
				return
			}
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, front+"/v1/rooms/"+room+"/comments", strings.NewReader(`{"text":"a comment"}`))
			req.Header.Set("Authorization", "Bearer "+tok)
			res, err := http1.Do(req)
			if ctx.Err() != nil {
				continue
			}
			if err == nil {
				_ = res.Body.Close()
			}
			if err != nil || res.StatusCode != http.StatusCreated {
				unsaid.Add(1)
				t.Logf("not published: %v %v", res, err)
				continue
			}
			said.Add(1)
		}
	})
	eventually(t, 30*time.Second, "comments flow", func() bool { return since(crowd, time.Now().Add(-time.Second)) })
	for _, g := range crowd {
		g.mu.Lock()
		g.longest, g.refused = 0, 0
		g.mu.Unlock()
	}

	began := time.Now()
	ended := make(chan error, 1)
	go func() { // ends with the node
		status, err := leaving.End(t.Context(), func() error { return post(t.Context(), leaving.Ops+"/drain") })
		if err == nil && status != 0 {
			err = fmt.Errorf("status %d", status)
		}
		ended <- err
	}()
	for over := false; !over; {
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the node ended: %v", err)
			}
			over = true
		case <-time.After(100 * time.Millisecond):
			newcomers = append(newcomers, join())
		}
	}
	took := time.Since(began)
	eventually(t, 30*time.Second, "everybody has comments", func() bool { return since(slices.Concat(crowd, newcomers), began.Add(took)) })
	cancel()
	running.Wait()

	var longest []time.Duration
	refused, refusedNew := 0, 0
	for _, g := range crowd {
		longest, refused = append(longest, g.longest), refused+g.refused
	}
	for _, g := range newcomers {
		refusedNew += g.refused
	}
	slices.Sort(longest)
	t.Logf("ended after %v; %d viewers without comments for %v (p50), %v at most, disconnected %d times; %d newcomers disconnected %d times; %d comments, %d not published",
		took.Round(10*time.Millisecond), len(crowd), longest[len(longest)/2].Round(time.Millisecond), longest[len(longest)-1].Round(time.Millisecond), refused, len(newcomers), refusedNew, said.Load(), unsaid.Load())
	if took > proxyDrain+8*time.Second {
		t.Errorf("the node needed %v", took)
	}
	log, err := os.ReadFile(leaving.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"not handed back", "in flight", "by force"} {
		if bytes.Contains(log, []byte(bad)) {
			t.Errorf("the node's log says %q", bad)
		}
	}
	// A viewer leaves its node only when it is welcome elsewhere, so that even a busy machine
	// makes no gap of the length of a drain.
	if worst := longest[len(longest)-1]; worst > proxyDrain/2 || refused > 0 {
		t.Errorf("viewers were without comments for up to %v, and lost their connections %d times", worst, refused)
	}
	if documented && refusedNew > 0 {
		t.Errorf("newcomers were refused %d times", refusedNew)
	}
	if unsaid.Load() > 0 {
		t.Errorf("%d of %d comments were not published", unsaid.Load(), said.Load())
	}
	if err := leaving.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}
