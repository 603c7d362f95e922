package e2e

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
)

// What one node or a command revokes is in force on every node within a second, and after
// restarts.
func TestRevocationOnAllNodes(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, "--guests=none")
	run := func(args ...string) string {
		t.Helper()
		name, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		var out, errs bytes.Buffer
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %v %s", args, err, &errs)
		}
		return strings.TrimSpace(out.String())
	}
	key := run("key", "new", "--nats="+c.NATSURLs(), "--name=admin", "--scope=admin,publish", "--room=*")
	do := func(node int, method, path, body string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, c.Edges[node].URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	within := func(d time.Duration, what string, is func() bool) {
		t.Helper()
		eventually(t, d, what, is)
	}
	within(time.Second, "both nodes take the key", func() bool {
		return do(0, http.MethodGet, "/v1/revocations", "") == 200 && do(1, http.MethodGet, "/v1/revocations", "") == 200
	})
	dial := func(node int, token string) (*client.Conn, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		conn, err := client.Dial(ctx, client.Options{URL: c.Edges[node].URL, Room: "r", Token: token})
		if err != nil {
			return nil, err
		}
		m, err := conn.Read(ctx)
		if _, is := m.(*protocol.Welcome); err == nil && !is {
			err = errors.New("no welcome")
		}
		return conn, err
	}
	ended := func(conn *client.Conn) <-chan time.Time {
		at := make(chan time.Time, 1)
		go func() { // ends with the connection
			for {
				if _, err := conn.Read(t.Context()); err != nil {
					if e, is := errors.AsType[*client.CloseError](err); is && e.Code == protocol.CloseUnauthorized {
						at <- time.Now()
					}
					return
				}
			}
		}()
		return at
	}
	old := token(t, c, "u", protocol.RoleViewer)
	conn, err := dial(1, old)
	if err != nil {
		t.Fatal(err)
	}
	closed := ended(conn)
	began := time.Now()
	if status := do(0, http.MethodPost, "/v1/revocations", `{"user":"u"}`); status != http.StatusCreated {
		t.Fatalf("revoke: %d", status)
	}
	select {
	case at := <-closed:
		if took := at.Sub(began); took > 2*time.Second {
			t.Errorf("closed on the other node after %v", took)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the connection to the other node stays")
	}
	if err := c.Edges[1].Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Edges[1].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for node := range c.Edges {
		if _, err := dial(node, old); err == nil {
			t.Errorf("node %d takes a revoked token", node)
		} else if e, is := errors.AsType[*client.CloseError](err); !is || e.Code != protocol.CloseUnauthorized {
			t.Errorf("node %d: %v", node, err)
		}
	}
	// A key that is revoked while requests are under way is refused within a second, and what was
	// answered before is done.
	done := make(chan int, 1)
	revoked := make(chan struct{})
	go func() { // ends when the key is refused, or after 10 s
		n := 0
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
			switch do(1, http.MethodPost, "/v1/rooms/r/comments", `{"text":"x"}`) {
			case http.StatusCreated:
				n++
			case http.StatusUnauthorized:
				select {
				case <-revoked:
				default:
					t.Error("refused before it was revoked")
				}
				done <- n
				return
			}
		}
		done <- -1
	}()
	time.Sleep(300 * time.Millisecond)
	close(revoked)
	run("key", "revoke", "--nats="+c.NATSURLs(), "admin")
	began = time.Now()
	if n := <-done; n <= 0 || time.Since(began) > 2*time.Second {
		t.Errorf("%d comments, refused after %v", n, time.Since(began))
	}
}
