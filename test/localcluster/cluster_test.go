//go:build unix

package localcluster

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// begin starts a cluster for a test, and fails it with what to do when that is not
// possible.
func begin(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	if cfg.Edges >= 0 {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cfg.Kansei = self
		cfg.EdgeEnv = append(cfg.EdgeEnv, fakeVariable+"=edge")
	}
	c, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// publish publishes until the stream takes it: what is sent to a leader that is gone is
// never answered.
func publish(ctx context.Context, t *testing.T, js jetstream.JetStream, text string) {
	t.Helper()
	for {
		try, stop := context.WithTimeout(ctx, 2*time.Second)
		_, err := js.Publish(try, "s.a", []byte(text), jetstream.WithMsgID(text))
		stop()
		if err == nil {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%q cannot be published: %v", text, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// alive reports whether there is a process with that id that has not ended.
func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// status is that of a GET; 0 when there is no answer.
func status(url string) int {
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

func TestCluster(t *testing.T) {
	t.Parallel()
	var exits atomic.Int32
	c := begin(t, Config{Edges: 2, OnExit: func(*Process, string) { exits.Add(1) }})

	// NATS: a stream with three copies takes a message on one server and gives it on
	// another.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	first, err := nats.Connect(c.NATS[0].URL)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	js, err := jetstream.New(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	// It takes a moment until the other servers know that the stream is there.
	publish(ctx, t, js, "x")
	if n := len(strings.Split(c.NATSURLs(), ",")); n != 3 {
		t.Errorf("%d addresses of NATS servers", n)
	}

	db := redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(c.Redis.URL, "redis://")})
	defer func() { _ = db.Close() }()
	if err := db.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}

	if len(c.Edges) != 2 {
		t.Fatalf("%d nodes", len(c.Edges))
	}
	for _, e := range c.Edges {
		if status(e.Ops+"/readyz") != 200 || status(e.URL+"/readyz") != 200 || !alive(e.PID()) {
			t.Errorf("%s is not there", e.Name())
		}
	}

	// A killed node is gone, and comes back where it was, with its data.
	e := c.Edges[1]
	old := e.PID()
	if err := e.Kill(); err != nil {
		t.Fatal(err)
	}
	if alive(old) || e.PID() != 0 || status(e.Ops+"/readyz") != 0 {
		t.Error("the node is there after it was killed")
	}
	for name, err := range map[string]error{"kill": e.Kill(), "stop": e.Stop(), "cont": e.Cont()} {
		if !errors.Is(err, ErrNotRunning) {
			t.Errorf("%s on a node that was killed: %v", name, err)
		}
	}
	if err := e.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if e.PID() == old || status(e.Ops+"/readyz") != 200 {
		t.Error("the node is not back")
	}
	if _, err := os.Stat(filepath.Join(c.Dir, e.Name(), "data")); err != nil {
		t.Error(err)
	}
	if err := e.start(ctx); !errors.Is(err, ErrRunning) {
		t.Errorf("starting what runs: %v", err)
	}

	// A frozen Redis answers nothing, and goes on with what it had.
	if err := c.Redis.Stop(); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(ctx, 300*time.Millisecond)
	if err := redisReady(short, strings.TrimPrefix(c.Redis.URL, "redis://")); err == nil {
		t.Error("a frozen Redis answers")
	}
	stop()
	if err := c.Redis.Cont(); err != nil {
		t.Fatal(err)
	}
	if v, err := db.Get(ctx, "k").Result(); err != nil || v != "v" {
		t.Errorf("Redis has %q, %v", v, err)
	}

	// Two servers of three go on; the third catches up.
	if err := c.NATS[2].Kill(); err != nil {
		t.Fatal(err)
	}
	publish(ctx, t, js, "y")
	if err := c.NATS[2].Restart(ctx); err != nil {
		t.Fatal(err)
	}

	pids := []int{c.Redis.PID(), c.NATS[0].PID(), c.Edges[0].PID()}
	if err := c.Edges[0].Stop(); err != nil { // frozen, and ended in order all the same
		t.Fatal(err)
	}
	dir := c.Dir
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is there after the end", pid)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is there after the end: %v", err)
	}
	if err := c.Redis.Restart(ctx); !errors.Is(err, errClosed) {
		t.Errorf("starting what is closed: %v", err)
	}
	if n := exits.Load(); n != 0 {
		t.Errorf("%d processes are said to have ended by themselves", n)
	}
}

func TestExitIsTold(t *testing.T) {
	t.Parallel()
	told := make(chan string, 8)
	c := begin(t, Config{Edges: 1, OnExit: func(p *Process, log string) { told <- p.Name() + ": " + log }})
	if err := syscall.Kill(c.Edges[0].PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case s := <-told:
		if !strings.HasPrefix(s, "edge-1: ") || !strings.Contains(s, "ends in order") {
			t.Errorf("told %q", s)
		}
	case <-time.After(20 * time.Second):
		t.Error("nobody is told that a node has ended")
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	fake := []string{fakeVariable + "=edge"}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		cfg  Config
		want []string
	}{
		"a node that fails": {Config{Edges: 1, Kansei: self, EdgeEnv: fake, EdgeArgs: []string{"--fail"}},
			[]string{"edge-1 ended instead of starting: exit status 1", "fails because it is told to"}},
		"NATS that fails":   {Config{Edges: -1, NATSServer: "false"}, []string{"nats-1 ended instead of starting: exit status 1"}},
		"Redis that fails":  {Config{Edges: -1, RedisServer: "false"}, []string{"redis ended instead of starting"}},
		"no NATS, no Redis": {Config{Edges: -1, NATSServer: "/nowhere/nats", RedisServer: "/nowhere/redis"}, []string{"nats-server: it is not installed: run make setup", "redis-server: it is not installed: run make setup"}},
		"no kansei":         {Config{Kansei: "/nowhere/kansei"}, []string{"kansei: it is not installed: run make build"}},
		"no directory":      {Config{Edges: -1, Dir: file}, []string{"file"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := Start(t.Context(), tt.cfg)
			if err == nil {
				_ = c.Close()
				t.Fatal("the cluster starts")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error\n%v\nwant\n%s", err, want)
				}
			}
		})
	}
}

func TestStartGivesUp(t *testing.T) {
	t.Parallel()
	// A server that never answers: sleep takes no notice of its arguments.
	quiet := filepath.Join(t.TempDir(), "quiet")
	if err := os.WriteFile(quiet, []byte("#!/bin/sh\necho quiet here\nexec sleep 60\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := Start(ctx, Config{Edges: -1, RedisServer: quiet})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "redis did not become ready") || !strings.Contains(err.Error(), "quiet here") {
		t.Errorf("error %v", err)
	}
}

func TestStudioURL(t *testing.T) {
	t.Parallel()
	c := &Cluster{Secret: []byte(strings.Repeat("s", 32)), Edges: []*Edge{{URL: "http://127.0.0.1:1"}}}
	url, err := c.StudioURL(0, "r", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	page, token, _ := strings.Cut(url, "#token=")
	v, err := auth.NewVerifier(c.Secret)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := v.Verify(token, "r")
	if page != "http://127.0.0.1:1/studio/r" || err != nil || claims.Role != protocol.RoleBroadcaster {
		t.Errorf("studio %s, %+v, %v", page, claims, err)
	}
}

// When whoever started a cluster is killed, the kernel ends the cluster.
func TestDiesWithItsParent(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Logf("%s does not end processes with their parents", runtime.GOOS)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), self, t.TempDir())
	parent.Env = append(os.Environ(), fakeVariable+"=parent")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pids []int
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "ready" {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Fatalf("the parent says %q", lines.Text())
		}
		pids = append(pids, pid)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // says that it was killed
	if len(pids) != natsServers+1 {
		t.Fatalf("the parent has started %d processes", len(pids))
	}
	deadline := time.Now().Add(20 * time.Second)
	for _, pid := range pids {
		for !gone(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d outlives its parent", pid)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// gone reports whether a process has ended, if only as a zombie that nobody has waited
// for yet.
func gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}
