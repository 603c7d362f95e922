package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
)

// visitor is somebody in a room.
type visitor struct{ leave func() }

func visit(t *testing.T, c *localcluster.Cluster, e *localcluster.Edge, user string) *visitor {
	t.Helper()
	in := make(chan struct{}, 100)
	cl, err := client.New(client.Config{
		URLs: []string{e.URL}, Room: "lesson", Token: client.StaticToken(token(t, c, user, protocol.RoleViewer)),
		Handler: client.Handler{Welcome: func(*protocol.Welcome) { in <- struct{}{} }},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { // ends with leave
		defer close(done)
		_ = cl.Run(ctx)
	}()
	v := &visitor{func() { cancel(); <-done }}
	t.Cleanup(v.leave)
	select {
	case <-in:
	case <-time.After(promptly):
		t.Fatalf("%s does not get in", user)
	}
	return v
}

// members asks a node who is in the room.
func members(t *testing.T, e *localcluster.Edge, token string) (all []string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, e.URL+"/v1/rooms/lesson/viewers", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return []string{err.Error()}
	}
	defer res.Body.Close()
	var page protocol.Members
	if err := json.NewDecoder(res.Body).Decode(&page); err != nil || res.StatusCode != http.StatusOK {
		return []string{res.Status}
	}
	for _, u := range page.Users {
		all = append(all, u.ID)
	}
	slices.Sort(all)
	return all
}

// The example of the documents knows who is in a room, whatever becomes of the nodes and of Redis.
func TestPresenceExample(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "presence")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../docs/examples/presence").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	c := startCluster(t, 3, "--presence-leave-wait=2s")
	staff := token(t, c, "back end", protocol.RoleMonitor)
	ann := visit(t, c, c.Edges[0], "ann")
	eventually(t, promptly, "ann is listed", func() bool { return slices.Equal(members(t, c.Edges[0], staff), []string{"ann"}) })

	cmd := exec.CommandContext(t.Context(), program, "--nats", c.NATSURLs(), "--url", c.Edges[0].URL, "--room", "lesson", "--token", staff)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errors strings.Builder
	cmd.Stderr = &errors
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var lines []string
	var running sync.WaitGroup
	running.Go(func() { // ends with the program
		for s := bufio.NewScanner(out); s.Scan(); {
			mu.Lock()
			lines = append(lines, s.Text())
			mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		running.Wait()
		_ = cmd.Wait()
	})
	said := func(want ...string) {
		t.Helper()
		var have []string
		deadline := time.Now().Add(time.Minute)
		for {
			mu.Lock()
			have = slices.Clone(lines)
			mu.Unlock()
			if slices.Equal(have, want) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the example says %q, want %q\n%s", have, want, errors.String())
			}
			time.Sleep(50 * time.Millisecond)
		}
		mu.Lock()
		lines = nil
		mu.Unlock()
	}
	said("+ ann", "following 1")
	bob := visit(t, c, c.Edges[1], "bob")
	said("+ bob")
	bob.leave()
	visit(t, c, c.Edges[2], "cid")
	said("+ cid", "- bob")

	// Who is on a node that dies is gone in time; who comes back is not told.
	visit(t, c, c.Edges[2], "ann")
	ann.leave()
	if err := c.Edges[1].Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "two are listed", func() bool { return slices.Equal(members(t, c.Edges[0], staff), []string{"ann", "cid"}) })
	if err := c.Edges[2].Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "nobody is listed", func() bool { return len(members(t, c.Edges[0], staff)) == 0 })
	eventually(t, time.Minute, "both are told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(lines) == 2
	})
	mu.Lock()
	slices.Sort(lines)
	mu.Unlock()
	said("- ann", "- cid")

	// Redis comes back empty.
	visit(t, c, c.Edges[0], "dan")
	said("+ dan")
	eve := visit(t, c, c.Edges[0], "eve")
	said("+ eve")
	if err := c.Redis.Kill(); err != nil {
		t.Fatal(err)
	}
	eve.leave()
	if err := c.Redis.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	said("- eve")
	eventually(t, time.Minute, "one is listed", func() bool { return slices.Equal(members(t, c.Edges[0], staff), []string{"dan"}) })
}
