package redispresence

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/test/ports"
)

func TestMain(m *testing.M) {
	logging.Disable() // servers that are not there are part of the tests
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must come; nothing that works needs
// a fraction of it.
const patience = 30 * time.Second

// Times of the presence layers in tests that run in real time.
const (
	testInterval = 40 * time.Millisecond
	testLease    = 400 * time.Millisecond
)

// server is a Redis for one test.
type server struct {
	url string
	raw redis.UniversalClient // for the test itself
}

// backends are the servers over which the tests run.
var backends = []struct {
	name  string
	start func(*testing.T) *server
}{
	{"redis", func(t *testing.T) *server { return dial(t, startProcess(t, ports.ForTest(t).Number)) }},
	{"miniredis", func(t *testing.T) *server {
		t.Helper()
		m := miniredis.RunT(t)
		m.ClockTTL(true)
		return dial(t, "redis://"+m.Addr())
	}},
}

// overBackends runs a test over each of them.
func overBackends(t *testing.T, test func(*testing.T, *server)) {
	t.Parallel()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			test(t, b.start(t))
		})
	}
}

// overCluster runs a test over a Redis Cluster, which takes two seconds to start,
// and over each of the others.
func overCluster(t *testing.T, test func(*testing.T, *server)) {
	overBackends(t, test)
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		test(t, startCluster(t))
	})
}

func dial(t *testing.T, url string) *server {
	t.Helper()
	s := &server{url: url}
	s.raw = s.client(t)
	return s
}

func (s *server) client(t testing.TB) redis.UniversalClient {
	t.Helper()
	// A busy machine with the race detector takes seconds for what takes milliseconds.
	c, err := Connect(s.url + "?read_timeout=60s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
			t.Error(err)
		}
	})
	return c
}

// startProcess starts a redis-server that ends with the test.
func startProcess(t testing.TB, port int, args ...string) (url string) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("%v: `make setup` installs it", err)
	}
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	args = append([]string{"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--save", "", "--dir", t.TempDir()}, args...)
	cmd := exec.Command(path, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = c.Close() }()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if err = c.Ping(context.Background()).Err(); err == nil {
			return "redis://" + addr
		}
		if time.Now().After(deadline) {
			t.Fatalf("redis-server does not answer: %v\n%s", err, out.String())
		}
	}
}

// startCluster starts a Redis Cluster of one node, which refuses keys of different
// slots in one script as any cluster does.
func startCluster(t *testing.T) *server {
	t.Helper()
	port := ports.ForTest(t).Number
	// The bus needs a port of its own, by default port + 10,000.
	url := startProcess(t, port, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(ports.ForTest(t).Number))
	one := redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(url, "redis://")})
	defer func() { _ = one.Close() }()
	ctx := context.Background()
	if err := one.ClusterAddSlotsRange(ctx, 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the cluster is ready", func() error {
		info, err := one.ClusterInfo(ctx).Result()
		if err == nil && !strings.Contains(info, "cluster_state:ok") {
			err = errors.New(info)
		}
		return err
	})
	return dial(t, strings.Replace(url, "redis://", "redis+cluster://", 1))
}

// eventually waits until check returns nil.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
	}
}

// node is a presence under test.
type node struct {
	*Presence
	line    *line // between it and Redis
	metrics *Metrics
}

func (s *server) node(t testing.TB, change func(*Config)) *node {
	t.Helper()
	n := s.prepare(t, change)
	n.Presence = New(n.cfg)
	t.Cleanup(func() { n.shut(t) })
	return n
}

// shut closes the node, unless the test has.
func (n *node) shut(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n.line.heal()
	if err := n.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
	<-n.done
}

// prepare makes a node whose flushes the test does itself.
func (s *server) prepare(t testing.TB, change func(*Config)) *node {
	t.Helper()
	c := s.client(t)
	n := &node{line: &line{}, metrics: NewMetrics(prometheus.NewRegistry())}
	c.AddHook(n.line)
	cfg := Config{
		Client: c, Buckets: 4, Interval: testInterval, Lease: testLease, Timeout: patience, Metrics: n.metrics,
	}
	if change != nil {
		change(&cfg)
	}
	n.Presence = newPresence(cfg)
	for _, b := range n.buckets {
		b.closed = true // nothing happens by itself
	}
	return n
}

// kill ends a node as a crash does.
func (n *node) kill() {
	n.closing.Store(true)
	n.stop()
	<-n.done
}

func (n *node) resyncs(reason string) float64 {
	return testutil.ToFloat64(n.metrics.resyncs.WithLabelValues(reason))
}

func (n *node) reaped() float64 { return testutil.ToFloat64(n.metrics.reaped) }

// view is an open room and the last report about it.
type view struct {
	hub.Membership
	reports atomic.Int64
	last    atomic.Pointer[hub.Counts]
	mu      sync.Mutex
	all     []hub.Counts
}

func (n *node) open(room string) *view {
	v := &view{}
	v.Membership = n.Open(room, func(c hub.Counts) {
		v.reports.Add(1)
		v.last.Store(&c)
		v.mu.Lock()
		v.all = append(v.all, c)
		v.mu.Unlock()
	})
	return v
}

// Join counts a connection of a user who has the id for a name.
func (v *view) Join(id string) { v.Membership.Join(hub.Member{ID: id, Name: id}) }

// is reports whether the last report had these users and connections.
func (v *view) is(users, conns int) error {
	c := v.last.Load()
	if c == nil {
		return errors.New("no report")
	}
	if c.Users != users || c.Connections != conns {
		return fmt.Errorf("%d users, %d connections; want %d, %d", c.Users, c.Connections, users, conns)
	}
	return nil
}

func (v *view) want(t testing.TB, what string, users, conns int) {
	t.Helper()
	eventually(t, what, func() error { return v.is(users, conns) })
}

// line is a hook that spoils requests.
type line struct {
	mu    sync.Mutex
	cut   bool                                   // no request gets through
	fault func(redis.Cmder) (before, after bool) // whether to lose the request, or the answer
	full  func() bool                            // whether Redis is at maxmemory
}

// oom is what a Redis at maxmemory answers.
type oom struct{}

func (oom) Error() string { return "OOM command not allowed when used memory > 'maxmemory'." }
func (oom) RedisError()   {}

// needsMemory reports whether a Redis at maxmemory would refuse a script.
func needsMemory(cmd redis.Cmder) bool {
	args := cmd.Args()
	if s := newScripts().tick; len(args) < 4 || args[1] != s.Hash() && args[1] != tickLua {
		return false
	}
	keys, _ := args[2].(int)
	return args[3+keys+7] != "1"
}

var errFault = errors.New("the test has broken the line")

func (l *line) DialHook(next redis.DialHook) redis.DialHook { return next }

func (l *line) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *line) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		switch cmd.Name() {
		case "eval", "evalsha", "hgetall":
		default:
			return next(ctx, cmd)
		}
		l.mu.Lock()
		before, after := l.cut, false
		if l.fault != nil && !before {
			before, after = l.fault(cmd)
		}
		full := l.full != nil && l.full()
		l.mu.Unlock()
		if !before && full && needsMemory(cmd) {
			cmd.SetErr(oom{})
			return oom{}
		}
		if before {
			cmd.SetErr(errFault)
			return errFault
		}
		err := next(ctx, cmd)
		if after {
			cmd.SetErr(errFault)
			return errFault
		}
		return err
	}
}

func (l *line) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
}

func (l *line) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.fault, l.full = false, nil, nil
}

func users(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("user-%06d", i)
	}
	return out
}
