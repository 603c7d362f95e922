package natslog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
)

// cluster is three servers that are a JetStream cluster, and keep their stores and
// ports.
type cluster struct {
	ports  []int
	dirs   [3]string
	change func(*server.Options)
}

func newCluster(t testing.TB, change func(*server.Options)) *cluster {
	t.Helper()
	c := &cluster{ports: freePorts(t, 6), change: change}
	for i := range c.dirs {
		c.dirs[i] = t.TempDir()
	}
	return c
}

// start starts some of the servers, and returns when they take connections.
func (c *cluster) start(t testing.TB, which ...int) []*server.Server {
	t.Helper()
	var routes []*url.URL
	for _, p := range c.ports[3:] {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", p)})
	}
	var servers []*server.Server
	for _, i := range which {
		o := &server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: c.ports[i],
			JetStream: true, StoreDir: c.dirs[i], NoLog: true, NoSigs: true,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: c.ports[3+i]},
			Routes:  routes,
		}
		if c.change != nil {
			c.change(o)
		}
		s, err := server.NewServer(o)
		if err != nil {
			t.Fatal(err)
		}
		servers = append(servers, s)
		s.Start()
		t.Cleanup(func() { stopServer(s) })
	}
	for _, s := range servers {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a server does not start")
		}
	}
	return servers
}

// urls are the addresses of all servers.
func (c *cluster) urls() []string {
	var u []string
	for _, p := range c.ports[:3] {
		u = append(u, fmt.Sprintf("nats://127.0.0.1:%d", p))
	}
	return u
}

// startCluster starts three servers that are a JetStream cluster.
func startCluster(t testing.TB, change func(*server.Options)) []*server.Server {
	t.Helper()
	return newCluster(t, change).start(t, 0, 1, 2)
}

// Three nodes, each on a server of its own, write and follow while the leader of
// the log is sent away again and again: nothing that was acknowledged is missing,
// doubled or out of order anywhere.
func TestLeaderStepsDownUnderLoad(t *testing.T) {
	t.Parallel()
	servers := startCluster(t, nil)
	cfg := Config{Partitions: 1, Replicas: 3}
	var logs []*Log
	for _, s := range servers {
		c := cfg
		c.URLs = urls(s)
		logs = append(logs, open(t, c))
	}
	for _, l := range logs {
		eventually(t, 60*time.Second, "the cluster is ready", l.Ready)
	}
	const rooms = 10
	type seen struct {
		node, room int
		o          *observer
	}
	var watched []seen
	for n, l := range logs {
		for r := range rooms {
			o, _ := followRoom(t, l, fmt.Sprint("r", r), 50)
			watched = append(watched, seen{n, r, o})
		}
	}

	type ack struct {
		room string
		seq  uint64
		body string
	}
	var (
		stop    atomic.Bool
		wg      sync.WaitGroup
		mu      sync.Mutex
		acks    []ack
		unknown atomic.Int64
	)
	for w, l := range logs {
		wg.Go(func() {
			slots := make(chan struct{}, 100)
			for i := 0; !stop.Load(); i++ {
				slots <- struct{}{}
				room := fmt.Sprint("r", rand.IntN(rooms))
				d := draft1(fmt.Sprint("w", w, "-", i))
				l.Append(room, d, func(r hub.Receipt, err error) {
					if err == nil {
						mu.Lock()
						acks = append(acks, ack{room, r.Seq, string(d.Body)})
						mu.Unlock()
					} else {
						unknown.Add(1)
					}
					<-slots
				})
				time.Sleep(time.Millisecond)
			}
			for range cap(slots) {
				slots <- struct{}{}
			}
		})
	}
	nc := dial(t, servers[0].ClientURL())
	for range 6 {
		time.Sleep(700 * time.Millisecond)
		// It may have none at this moment, which is fine too.
		if _, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN.KANSEI_LOG_0", nil, 2*time.Second); err != nil {
			t.Log("step down:", err)
		}
	}
	time.Sleep(500 * time.Millisecond)
	stop.Store(true)
	wg.Wait()

	ctx := testContext(t)
	all := make(map[string]map[uint64]string)
	history := make([][]hub.Event, rooms)
	for r := range rooms {
		room := fmt.Sprint("r", r)
		events, more, err := logs[r%3].Read(ctx, room, logs[r%3].epochOf(room), hub.Position{}, 1_000_000)
		if err != nil || more {
			t.Fatal(err)
		}
		history[r] = events
		all[room] = make(map[uint64]string)
		once := make(map[string]bool)
		for _, e := range events {
			all[room][e.Seq] = string(e.Body)
			if once[string(e.Body)] {
				t.Errorf("%s is in the log twice", e.Body)
			}
			once[string(e.Body)] = true
		}
	}
	for _, a := range acks {
		if all[a.room][a.seq] != a.body {
			t.Errorf("%s was acknowledged at %d, where the log has %q", a.body, a.seq, all[a.room][a.seq])
		}
	}
	for _, w := range watched {
		eventually(t, 20*time.Second, fmt.Sprintf("node %d has all of room %d", w.node, w.room), func() error {
			return w.o.isLog(history[w.room])
		})
		w.o.look(t, func() {
			if w.o.resets != 1 {
				t.Errorf("node %d, room %d: %d resets", w.node, w.room, w.o.resets)
			}
		})
	}
	gaps := 0.0
	for _, l := range logs {
		gaps += counter(t, l.metrics.gaps.WithLabelValues(gapLive)) + counter(t, l.metrics.gaps.WithLabelValues(gapTail))
	}
	t.Logf("%d acknowledged, %d not, %v gaps repaired", len(acks), unknown.Load(), gaps)
	if len(acks) < 500 {
		t.Errorf("only %d appends were acknowledged", len(acks))
	}
}

// One of three servers goes for good: its node moves on to another, and nothing is
// lost.
func TestServerOfTheClusterIsGone(t *testing.T) {
	t.Parallel()
	servers := startCluster(t, nil)
	l := open(t, Config{URLs: urls(servers...), Replicas: 3})
	eventually(t, 60*time.Second, "the cluster is ready", l.Ready)
	o, _ := followRoom(t, l, "r", 10)
	mustAppend(t, l, "r", "a")
	waitEvents(t, o, 5*time.Second, "a")
	gone := l.conn.NATS().ConnectedServerName()
	for _, s := range servers {
		if s.Name() == gone {
			stopServer(s)
		}
	}
	// Sent on its way while nobody may be there to take it.
	want := []string{"a"}
	for i := range 20 {
		id := fmt.Sprint("b", i)
		a := appendAll(t, l, "r", draft1(id))[0]
		for errors.Is(a.err, hub.ErrUnavailable) {
			time.Sleep(100 * time.Millisecond)
			a = appendAll(t, l, "r", draft1(id))[0]
		}
		if a.err != nil {
			t.Fatal(a.err)
		}
		want = append(want, id)
	}
	waitEvents(t, o, 20*time.Second, want...)
	eventually(t, 20*time.Second, "the log is ready", l.Ready)
	if nc := l.conn.NATS(); nc.ConnectedServerName() == gone || counter(t, l.metrics.nats.Reconnects) == 0 {
		t.Errorf("connected to %s, which is gone", nc.ConnectedServerName())
	}
	o.look(t, func() {
		if o.resets != 1 {
			t.Errorf("%d resets", o.resets)
		}
	})
}

// The whole cluster goes down and comes back on its stores, while rooms are open and
// comments are under way: nothing that was acknowledged is lost, nothing that was
// refused appears, no room begins anew, and cursors of before are good.
func TestWholeClusterIsDownAndBack(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	servers := c.start(t, 0, 1, 2)
	cfg := Config{URLs: c.urls(), Partitions: 2, Replicas: 3, AppendTimeout: 4 * time.Second}
	l, other := open(t, cfg), open(t, cfg)
	for _, l := range []*Log{l, other} {
		eventually(t, 60*time.Second, "the cluster is ready", l.Ready)
	}
	var (
		rooms [2]string
		os    [2]*observer
		want  [2]map[string]bool
		known [2]hub.Position // a cursor
	)
	for p := range rooms {
		rooms[p], want[p] = roomIn(p, 2), make(map[string]bool)
		os[p], _ = followRoom(t, l, rooms[p], 50)
		known[p] = placed(t, other, rooms[p], mustAppend(t, other, rooms[p], fmt.Sprint("before", p)))
		want[p][fmt.Sprint("before", p)] = true
	}
	type answer struct {
		room int
		id   string
		err  error
	}
	var (
		stop    atomic.Bool
		wg      sync.WaitGroup
		answers = make(chan answer, 1000)
	)
	for p := range rooms {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				id := fmt.Sprint("p", p, "-", i)
				answers <- answer{p, id, appendAll(t, other, rooms[p], draft1(id))[0].err}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	for _, s := range servers {
		go stopServer(s) // ends with the server
	}
	for p, o := range os {
		eventually(t, 30*time.Second, fmt.Sprintf("room %d is degraded", p), func() error { return degradedIs(o, true) })
	}
	if err := l.Ready(); err == nil {
		t.Error("ready without a server")
	}
	for _, s := range servers {
		s.WaitForShutdown()
	}
	c.start(t, 0, 1, 2)
	for _, l := range []*Log{l, other} {
		eventually(t, 90*time.Second, "the log is ready", l.Ready)
	}
	time.Sleep(300 * time.Millisecond)
	stop.Store(true)
	wg.Wait()
	close(answers)
	refused := make(map[string]bool)
	unknown := 0
	for a := range answers {
		switch {
		case a.err == nil:
			want[a.room][a.id] = true
		case errors.Is(a.err, hub.ErrUnavailable):
			refused[a.id] = true
		default:
			unknown++
		}
	}
	for p, room := range rooms {
		events, _, err := l.Read(testContext(t), room, l.epochOf(room), hub.Position{}, 100_000)
		if err != nil {
			t.Fatal(err)
		}
		if rest, _, err := l.Read(testContext(t), room, l.epochOf(room), known[p], 100_000); err != nil || len(rest) != len(events)-1 {
			t.Errorf("from a cursor of before: %d events of %d, %v", len(rest), len(events)-1, err)
		}
		inLog := make(map[string]bool)
		for _, e := range events {
			id := strings.TrimSuffix(strings.TrimPrefix(string(e.Body), `{"text":"`), `"}`)
			if inLog[id] || refused[id] {
				t.Errorf("%s is in the log; twice: %v, refused: %v", id, inLog[id], refused[id])
			}
			inLog[id] = true
		}
		for id := range want[p] {
			if !inLog[id] {
				t.Errorf("%s was acknowledged and is not in the log", id)
			}
		}
		o := os[p]
		eventually(t, 20*time.Second, "the room has all", func() error { return o.isLog(events) })
		eventually(t, 20*time.Second, "the room is not degraded", func() error { return degradedIs(o, false) })
		o.look(t, func() {
			if o.resets != 1 || len(o.forgot) > 0 {
				t.Errorf("%d resets, forgotten %d", o.resets, o.forgot)
			}
		})
	}
	t.Logf("%d acknowledged, %d refused, %d of unknown outcome", len(want[0])+len(want[1]), len(refused), unknown)
	if len(refused) == 0 {
		t.Error("nothing was refused, so nothing was down")
	}
}

// A node that starts while the cluster has no quorum is not ready and says so; its rooms
// open when there is one.
func TestStartWithoutQuorum(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.start(t, 0)
	l := open(t, Config{URLs: c.urls(), Replicas: 3, RequestTimeout: time.Second, AppendTimeout: 3 * time.Second})
	o := new(observer)
	f := l.Follow("r", 10, o)
	t.Cleanup(f.Stop)
	eventually(t, 30*time.Second, "the room is degraded", func() error { return degradedIs(o, true) })
	if err := l.Ready(); err == nil || !strings.Contains(err.Error(), "nats: ") {
		t.Errorf("without a quorum: %v", err)
	}
	began := time.Now()
	if a := appendAll(t, l, "r", draft1("refused"))[0]; !errors.Is(a.err, hub.ErrUnavailable) || time.Since(began) > 2*time.Second {
		t.Errorf("append without a quorum: %v after %v", a.err, time.Since(began))
	}
	c.start(t, 1, 2)
	eventually(t, 90*time.Second, "the log is ready", l.Ready)
	mustAppend(t, l, "r", "a")
	waitEvents(t, o, 20*time.Second, "a")
	eventually(t, 20*time.Second, "the room is not degraded", func() error { return degradedIs(o, false) })
}

// A server that is there, but cut off from the others, is left for another one.
func TestServerThatIsCutOff(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	c.start(t, 0) // it never finds the others
	s := startServer(t, t.TempDir(), 0)
	l := open(t, Config{URLs: append(c.urls()[:1:1], s.ClientURL()), Options: []nats.Option{nats.DontRandomize()}})
	eventually(t, 20*time.Second, "the first is connected to", func() error {
		if nc := l.conn.NATS(); nc == nil || nc.ConnectedServerName() != "n0" {
			return errors.New("it is not")
		}
		return nil
	})
	eventually(t, 60*time.Second, "the other is ready", l.Ready)
	o, _ := followRoom(t, l, "r", 10)
	mustAppend(t, l, "r", "a")
	waitEvents(t, o, 20*time.Second, "a")
	if got := l.conn.NATS().ConnectedServerName(); got != "one" {
		t.Errorf("connected to %s", got)
	}
	if counter(t, l.metrics.nats.Reconnects) == 0 {
		t.Error("no reconnect was counted")
	}
}
