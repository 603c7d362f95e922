package natslog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// startOld starts a server that is too old, by a configuration.
func startOld(t *testing.T, conf string) {
	t.Helper()
	program, err := exec.LookPath("nats-server-2.10")
	if err != nil {
		t.Fatalf("nats-server-2.10: run make setup (%v)", err)
	}
	path := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-c", path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	})
}

// says is nil when a log is not ready and says all of the parts.
func says(l *Log, parts ...string) error {
	err := l.Ready()
	for _, p := range parts {
		if err == nil || !strings.Contains(err.Error(), p) {
			return fmt.Errorf("it says %w, and not %q", err, p)
		}
	}
	return nil
}

// A server that does not know what the log is read by is refused by name; nothing is
// stored in it.
func TestOldServer(t *testing.T) {
	t.Parallel()
	port := freePorts(t, 1)[0]
	startOld(t, fmt.Sprintf(`listen: "127.0.0.1:%d", jetstream {store_dir: %q}`, port, t.TempDir()))
	url := fmt.Sprintf("nats://127.0.0.1:%d", port)
	l := open(t, Config{URLs: []string{url}})
	eventually(t, 20*time.Second, "it says so", func() error {
		return says(l, "nats: nats-server 2.10.", url, "kansei needs 2.11 or later on every server")
	})
	start := time.Now()
	if a := appendAll(t, l, "r", draft1("a"))[0]; !errors.Is(a.err, hub.ErrUnavailable) || time.Since(start) > 5*time.Second {
		t.Errorf("append: %v after %v", a.err, time.Since(start))
	}
	if all := streamConfigs(t, jetStream(t, url)); len(all) > 0 {
		t.Errorf("it has streams: %v", all)
	}
}

// A node is connected to a server that is new enough, and the stream is led by one that is
// not.
func TestOldLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, func(o *server.Options) { o.Tags.Add("new") })
	routes := ""
	for _, p := range c.ports[3:] {
		routes += fmt.Sprintf("\"nats://127.0.0.1:%d\", ", p)
	}
	startOld(t, fmt.Sprintf(`server_name: n2, server_tags: ["old"], listen: "127.0.0.1:%d", jetstream {store_dir: %q},
		cluster {name: c, listen: "127.0.0.1:%d", routes: [%s]}`, c.ports[2], c.dirs[2], c.ports[5], routes))
	servers := c.start(t, 0, 1)
	js := jetStream(t, servers[0].ClientURL())
	cfg, err := Config{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	made := newStream(&Log{cfg: cfg}, "KANSEI_LOG_0", 0, "kansei.log.0.", "0").wanted("epoch")
	made.Placement = &jetstream.Placement{Tags: []string{"old"}}
	eventually(t, 60*time.Second, "the stream is made on the old server", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second) // nobody answers before there is a leader
		defer cancel()
		_, err := js.CreateOrUpdateStream(ctx, made)
		return err
	})
	l := open(t, Config{URLs: urls(servers...)})
	eventually(t, 20*time.Second, "it says so", func() error {
		return says(l, "nats: stream KANSEI_LOG_0: it is led by a nats-server n2 older than 2.11: kansei needs 2.11 or later on every server")
	})
	if a := appendAll(t, l, "r", draft1("a"))[0]; !errors.Is(a.err, hub.ErrUnavailable) {
		t.Errorf("append: %v", a.err)
	}
}

// A replica on such a server answers direct gets with one message, whatever was asked for.
// Rooms are read from the leader, and the probe says why it fails.
func TestOldReplica(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	p := startReplica(t, s.ClientURL())
	p.set(func(r map[string]any) {
		delete(r, "batch")
		delete(r, "max_bytes")
		delete(r, "multi_last")
	})
	l := openReady(t, Config{URLs: urls(s), directGet: "fake.replica."})
	for _, id := range []string{"a", "b", "c"} {
		mustAppend(t, l, "r", id)
	}
	events, _, err := l.Read(testContext(t), "r", l.epochOf("r"), hub.Position{}, 10)
	if err != nil || len(events) != 3 {
		t.Errorf("%d events, %v", len(events), err)
	}
	followRoom(t, l, "r", 10)
	mustAppend(t, l, "r", "d")
	eventually(t, 30*time.Second, "it says so", func() error {
		return says(l, "tail probe of KANSEI_LOG_0", "answered by a nats-server older than 2.11: kansei needs 2.11 or later on every server")
	})
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for v, older := range map[string]bool{
		"2.10.29": true, "2.9.0": true, "1.99.1": true, "v2.10.0-RC.1": true,
		"2.11.0": false, "2.11.0-dev": false, "2.15.2": false, "3.0.0": false, "10.0": false, "": false, "ours": false, "2": false,
	} {
		if got := olderThan(v, oldestServer); got != older {
			t.Errorf("%q: older %v", v, got)
		}
	}
	info := &jetstream.StreamInfo{Config: jetstream.StreamConfig{Metadata: map[string]string{serverVersion: "2.10.99"}}}
	if err := checkLeader(info); !errors.Is(err, errOldServer) {
		t.Errorf("%v", err)
	}
	info.Config.Metadata[serverVersion] = "2.15.2"
	if err := checkLeader(info); err != nil {
		t.Error(err)
	}
}
