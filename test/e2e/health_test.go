package e2e

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kansei-live/kansei/test/localcluster"
)

// readyz asks a node whether it should get viewers.
func readyz(e *localcluster.Edge) (status int, body string) {
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}).Get(e.Ops + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// says waits until a node's readyz has that status and lines that begin like that.
func says(t *testing.T, e *localcluster.Edge, status int, lines string) {
	t.Helper()
	eventually(t, time.Minute, "readyz of "+e.Name()+" says "+lines, func() bool {
		got, body := readyz(e)
		return got == status && strings.Contains("\n"+body, "\n"+lines)
	})
}

// gate leads connections on while it is open.
type gate struct {
	listener net.Listener
	to       string
	running  sync.WaitGroup

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]bool
}

func newGate(t *testing.T, to string) *gate {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{listener: l, to: to, conns: map[net.Conn]bool{}}
	g.running.Go(g.accept) // ends with the listener
	t.Cleanup(func() {
		_ = l.Close()
		g.set(true)
		g.running.Wait()
	})
	return g
}

func (g *gate) accept() {
	for {
		client, err := g.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", g.to)
		if err != nil || !g.enter(client, server) {
			_ = client.Close()
			if server != nil {
				_ = server.Close()
			}
			continue
		}
		for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
			g.running.Go(func() { // ends when either end does, or the gate is shut
				_, _ = io.Copy(way[0], way[1])
				_, _ = way[0].Close(), way[1].Close()
			})
		}
	}
}

func (g *gate) enter(conns ...net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range conns {
		g.conns[c] = true
	}
	return !g.shut
}

// set shuts the gate, and ends the connections, or opens it.
func (g *gate) set(shut bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = shut
	for c := range g.conns {
		if shut {
			_ = c.Close()
		}
	}
	if shut {
		clear(g.conns)
	}
}

// TestWhichNodeIsBetter: a node that is cut off from NATS leaves newcomers to one that is not. A
// NATS or a Redis that is away for all takes nobody out.
func TestWhichNodeIsBetter(t *testing.T) {
	t.Parallel()
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	var gates []*gate
	c := start(t, localcluster.Config{Edges: 2, Kansei: name, Link: func(from, to, address string) (string, error) {
		if from != "edge-1" || !strings.HasPrefix(to, "nats") {
			return address, nil
		}
		g := newGate(t, address)
		gates = append(gates, g)
		return g.listener.Addr().String(), nil
	}})
	shut := func(shut bool) {
		for _, g := range gates {
			g.set(shut)
		}
	}
	cutOff, other := c.Edges[0], c.Edges[1]
	const fine = "edge: ready\nnats: ready\nredis: ready\n"
	says(t, cutOff, http.StatusOK, fine)
	says(t, other, http.StatusOK, fine)

	shut(true)
	says(t, cutOff, http.StatusOK, "nats: degraded: ") // not at once: it may be away for all
	says(t, cutOff, http.StatusServiceUnavailable, "nats: not connected")
	if _, body := readyz(cutOff); !strings.Contains(body, "another node does better") {
		t.Errorf("readyz:\n%s", body)
	}
	says(t, other, http.StatusOK, fine)
	if err := c.Redis.Kill(); err != nil { // nobody knows any more
		t.Fatal(err)
	}
	says(t, cutOff, http.StatusOK, "nats: degraded: ")
	if err := c.Redis.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	says(t, cutOff, http.StatusServiceUnavailable, "nats: not connected")
	shut(false)
	says(t, cutOff, http.StatusOK, fine)

	for _, n := range c.NATS {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	says(t, cutOff, http.StatusOK, "nats: degraded: ")
	says(t, other, http.StatusOK, "nats: degraded: ")
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		for _, e := range c.Edges {
			if status, body := readyz(e); status != http.StatusOK {
				t.Fatalf("%s is taken out, and NATS is away for all:\n%s", e.Name(), body)
			}
		}
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
	for _, e := range c.Edges {
		says(t, e, http.StatusOK, fine)
	}
}
