package main

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
)

// startNode starts a node that may never be ready; stop ends it before the test does.
func startNode(t *testing.T, args ...string) (n *testNode, stop func()) {
	t.Helper()
	logs := new(syncBuffer)
	one, err := start(context.Background(), parse(t, args...), slog.New(slog.NewTextHandler(logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := one.stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
	t.Cleanup(stop)
	return &testNode{one, t, logs}, stop
}

// says waits until /readyz has that status and a line that begins like that.
func (n *testNode) says(status int, line string) {
	n.t.Helper()
	got, body := 0, ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got, body = n.get(n.ops + "/readyz"); got == status && strings.Contains("\n"+body, "\n"+line) {
			return
		}
	}
	n.t.Fatalf("readyz: %d, want %d and %q:\n%s", got, status, line, body)
}

// shows waits until a metric has a value, and until the log has a line.
func (n *testNode) shows(metric, line string) {
	n.t.Helper()
	body := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if _, body = n.get(n.ops + "/metrics"); strings.Contains(body, "\n"+metric+"\n") && strings.Contains(n.logs.String(), line) {
			return
		}
	}
	n.t.Fatalf("not %q in the metrics, or not %q in the log:\n%s", metric, line, n.logs)
}

// TestReadinessOfRedis: a Redis that is away takes no node out of a load balancer; one that a
// node cannot use from the start does.
func TestReadinessOfRedis(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	m.ClockTTL(true)
	addr := m.Addr()
	n := runNode(t, "--redis=redis://"+addr)
	n.says(http.StatusOK, "redis: ready\n")
	n.shows("kansei_ready{part=\"redis\"} 1", "redis answers")
	m.Close()
	n.says(http.StatusOK, "redis: degraded: ")
	n.says(http.StatusOK, "edge: ready\nnats: ready\n")
	n.shows(`kansei_degraded{part="redis"} 1`, `level=WARN msg="a part of this node is degraded: it takes viewers all the same" part=redis reason="`)
	n.shows(`kansei_ready{part="redis"} 1`, "counts stand still")
	away, _ := startNode(t, "--redis=redis://"+addr)
	away.says(http.StatusOK, "redis: degraded: ")
	away.says(http.StatusOK, "nats: ready\n")
	if err := m.Restart(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*testNode{n, away} {
		x.says(http.StatusOK, "redis: ready\n")
	}
	n.shows(`kansei_degraded{part="redis"} 0`, `level=INFO msg="a part of this node is ready again" part=redis`)

	m.RequireAuth("s3cret")
	wrong, _ := startNode(t, "--redis=redis://:wr0ng@"+addr)
	wrong.says(http.StatusServiceUnavailable, "redis: ")
	wrong.says(http.StatusServiceUnavailable, "nats: ready\n")
	wrong.shows(`kansei_ready{part="redis"} 0`, `level=WARN msg="a part of this node is not ready: /readyz answers 503" part=redis reason="`)
	if _, body := wrong.get(wrong.ops + "/readyz"); !strings.Contains(body, "--redis") || strings.Contains(body+wrong.logs.String(), "wr0ng") {
		t.Errorf("readyz:\n%s\nthe log:\n%s", body, wrong.logs)
	}
}

// TestSecretsOfTwoNodes: a node with another secret than the others is not ready, and says which.
func TestSecretsOfTwoNodes(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	m.ClockTTL(true)
	const other, node = "another secret of more than thirty-two bytes", "a secret of nodes of more than 32 bytes"
	redis := "--redis=redis://" + m.Addr()
	first, stop := startNode(t, redis, "--node-secret="+node)
	first.says(http.StatusOK, "redis: ready\n")
	second, _ := startNode(t, redis, "--node-secret="+node+","+other)
	second.says(http.StatusOK, "redis: ready\n")
	wrong, _ := startNode(t, redis, "--node-secret="+node, "--auth-secret="+other)
	wrong.says(http.StatusServiceUnavailable, "redis: --auth-secret differs from the other nodes': give all nodes the same\n")
	wrong.shows(`kansei_ready{part="redis"} 0`, `part=redis reason="--auth-secret differs from the other nodes': give all nodes the same"`)
	both, stopBoth := startNode(t, redis, "--node-secret="+strings.ToUpper(node), "--auth-secret="+other)
	both.says(http.StatusServiceUnavailable, "redis: --auth-secret, --node-secret differs from the other nodes'")
	stopBoth()
	for _, n := range []*testNode{first, second} {
		n.says(http.StatusOK, "redis: ready\n")
	}
	shown := m.Dump() + wrong.logs.String() + both.logs.String()
	for _, secret := range []string{other, node, testSecret} {
		if strings.Contains(shown, secret) {
			t.Errorf("a secret is shown:\n%s", shown)
		}
	}
	stop()
	_ = second.stop(context.Background())
	wrong.says(http.StatusOK, "redis: ready\n") // nobody else is there
}
