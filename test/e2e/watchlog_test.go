package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
	"github.com/kansei-live/kansei/test/ports"
	"github.com/kansei-live/kansei/test/skew"
)

// spectator is a viewer of whom it is known when they watched.
type spectator struct {
	*client.Client
	visible atomic.Bool
	came    time.Time
	leave   func()
}

// spectate sends somebody to a node, and waits for the welcome.
func (e *evening) spectate(node int, user string, visible bool) *spectator {
	e.t.Helper()
	s := new(spectator)
	s.visible.Store(visible)
	in := make(chan struct{}, 1)
	began := time.Now()
	c, err := client.New(client.Config{
		URLs: []string{e.c.Edges[node].URL}, Room: e.room, Token: client.StaticToken(token(e.t, e.c, user, protocol.RoleViewer)), BackoffBase: time.Hour,
		Watching: func() protocol.BeatRequest {
			is, at := s.visible.Load(), time.Since(began).Milliseconds()
			return protocol.BeatRequest{Visible: &is, MediaMS: &at}
		},
		Handler: client.Handler{Welcome: func(w *protocol.Welcome) {
			if w.Watch != protocol.WatchUsers {
				e.t.Errorf("the welcome says %q of what is kept", w.Watch)
			}
			in <- struct{}{}
		}},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	s.Client = c
	ctx, stop := context.WithCancel(e.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = c.Run(ctx) }()
	s.leave = sync.OnceFunc(func() { stop(); <-done })
	e.t.Cleanup(s.leave)
	select {
	case <-in:
	case <-time.After(30 * time.Second):
		e.t.Fatalf("%s does not come in at node %d", user, node)
	}
	s.came = time.Now()
	return s
}

func (s *spectator) show(visible bool) {
	s.visible.Store(visible)
	s.Beat()
}

// worker starts kansei archive, whose clock is wrong.
func (e *evening) worker(program, dir string, ahead time.Duration) *exec.Cmd {
	e.t.Helper()
	//nolint:gosec // the program under test
	cmd := exec.Command(program, "archive", "--nats="+e.c.NATSURLs(), "--archive-url=file://"+dir, "--archive-settle=5s", "--archive-late=200s",
		"--ops-listen="+ports.ForTest(e.t).String(), "--log-level=debug")
	cmd.Env = append(os.Environ(), skew.Env(ahead))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.CreateTemp(e.t.TempDir(), "archive-*.log")
	if err != nil {
		e.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if e.t.Failed() {
			p, _ := os.ReadFile(log.Name())
			e.t.Logf("a worker:\n%s", p[max(0, len(p)-4000):])
		}
	})
	return cmd
}

// A cluster whose nodes' clocks are fourteen minutes apart knows who watched: over reconnects, three devices, and hidden pages. One node is
// killed 70 s after its viewers came: each of them has a row, estimated, at most one checkpoint short. The leaders of the streams change, one of
// two workers is killed, and both revisions and what nodes answer say the same.
func TestWatchLogOfACluster(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "kansei")
	if err := skew.Build(t.Context(), "../../cmd/kansei", program); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := start(t, localcluster.Config{
		Edges: 3, Kansei: program, EdgeArgs: []string{"--beat=5s", "--archive-url=file://" + dir},
		EdgeEnvOf: func(edge int) []string { return []string{skew.Env(ahead[edge])} },
	})
	e := &evening{t: t, c: c, boss: token(t, c, "boss", protocol.RoleBroadcaster), room: "watched"}
	workers := []*exec.Cmd{e.worker(program, dir, ahead[slow]), e.worker(program, dir, ahead[fast])}
	nc, err := nats.Connect(c.NATSURLs())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	stepDown := func() {
		for _, stream := range []string{"KANSEI_WATCH", "KANSEI_ARCHIVE"} {
			_, _ = nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, time.Second) // there may be none yet
		}
	}

	e.must(slow, http.MethodPatch, "", e.boss, `{"status":"live"}`)
	began := time.Now()
	type want struct{ connected, visible time.Duration }
	truth := map[string]*want{}
	stays := e.spectate(slow, "stays", true)
	returns := e.spectate(right, "returns", true)
	hidden := e.spectate(right, "hidden", false)
	flips := e.spectate(slow, "flips", true)
	devices := []*spectator{e.spectate(slow, "devices", true), e.spectate(right, "devices", true)}
	var killed []*spectator
	for i := range 20 {
		killed = append(killed, e.spectate(fast, fmt.Sprint("killed-", i), true))
	}
	last := killed[len(killed)-1].came
	time.Sleep(20 * time.Second)
	stepDown()
	returns.leave()
	truth["returns"] = &want{connected: time.Since(returns.came)}
	flips.show(false)
	shown := time.Since(flips.came)
	time.Sleep(15 * time.Second)
	returns = e.spectate(slow, "returns", true)
	flips.show(true)
	shownAgain := time.Now()
	devices[0].leave()
	devices = append(devices, e.spectate(right, "devices", false))
	time.Sleep(time.Until(last.Add(70 * time.Second)))
	if err := c.Edges[fast].Kill(); err != nil {
		t.Fatal(err)
	}
	kill := time.Now()
	stepDown()
	for _, v := range []*spectator{stays, returns, hidden, flips, devices[1], devices[2]} {
		v.leave()
	}
	left := time.Now()
	truth["stays"] = &want{left.Sub(stays.came), left.Sub(stays.came)}
	truth["returns"].connected += left.Sub(returns.came)
	truth["returns"].visible = truth["returns"].connected
	truth["hidden"] = &want{connected: left.Sub(hidden.came)}
	truth["flips"] = &want{left.Sub(flips.came), shown + left.Sub(shownAgain)}
	truth["devices"] = &want{left.Sub(devices[0].came), left.Sub(devices[0].came)}
	for _, v := range killed {
		v.leave()
	}
	e.must(right, http.MethodPatch, "", e.boss, `{"status":"ended"}`)
	took := time.Since(began)

	// What is known at once.
	var log protocol.WatchLog
	read := func(node int) {
		t.Helper()
		eventually(t, 30*time.Second, "the watch log is read", func() bool { // a stream may have no leader for a moment
			log = protocol.WatchLog{}
			status, body := e.call(node, http.MethodGet, "/watchlog", e.boss, "")
			return status == http.StatusOK && json.Unmarshal([]byte(body), &log) == nil
		})
	}
	check := func(slack time.Duration) {
		t.Helper()
		found := map[string]protocol.WatchUser{}
		for _, u := range log.Users {
			found[u.ID] = u
		}
		near := func(id, what string, ms int64, want, less time.Duration) {
			t.Helper()
			if got := time.Duration(ms) * time.Millisecond; got > want+slack || got < want-slack-less {
				t.Errorf("%s: %s %v, in truth %v", id, what, got, want)
			}
		}
		for id, w := range truth {
			near(id, "connected", found[id].ConnectedMS, w.connected, 0)
			near(id, "visible", found[id].VisibleMS, w.visible, 0)
			if found[id].Estimated {
				t.Errorf("%s is estimated", id)
			}
		}
		for i, v := range killed {
			id := fmt.Sprint("killed-", i)
			u, is := found[id]
			if !is {
				t.Errorf("%s has no row", id)
			}
			near(id, "connected", u.ConnectedMS, kill.Sub(v.came), time.Minute)
		}
		if len(found) != len(truth)+len(killed) {
			t.Errorf("%d users, in truth %d", len(found), len(truth)+len(killed))
		}
		near("the broadcast", "duration", log.Summary.DurationMS, took, 0)
	}
	eventually(t, 30*time.Second, "all who left have left", func() bool {
		read(slow)
		return log.Summary.Users == len(truth)+len(killed)
	})
	time.Sleep(2 * time.Second) // and what they said last is stored
	read(right)
	check(3 * time.Second)

	eventually(t, time.Minute, "the first revision", func() bool { read(slow); return log.Revision > 0 })
	if err := workers[0].Process.Kill(); err != nil {
		t.Fatal(err)
	}
	stepDown()
	eventually(t, 5*time.Minute, "it is final", func() bool { time.Sleep(time.Second); read(slow); return log.Final })
	check(3 * time.Second)
	for i := range killed {
		for _, u := range log.Users {
			if u.ID == fmt.Sprint("killed-", i) && !u.Estimated {
				t.Errorf("%s is not estimated", u.ID)
			}
		}
	}
	if log.Summary.Estimated != len(killed) || log.Revision < 2 {
		t.Errorf("%+v", log.Summary)
	}
	files, err := filepath.Glob(filepath.Join(dir, e.room, "1", fmt.Sprint(log.Revision), "*"))
	if err != nil || len(files) != 4 || !strings.Contains(strings.Join(files, " "), "users.parquet") {
		t.Errorf("%q, %v", files, err)
	}
}
