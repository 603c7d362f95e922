package natslog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kansei-live/kansei/hub"
)

// startCluster starts three servers that are a JetStream cluster.
func startCluster(t testing.TB) []*server.Server {
	t.Helper()
	ports := freePorts(t, 6)
	var routes []*url.URL
	for _, p := range ports[3:] {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", p)})
	}
	servers := make([]*server.Server, 3)
	for i := range servers {
		s, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: ports[i],
			JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true,
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[3+i]},
			Routes:  routes,
		})
		if err != nil {
			t.Fatal(err)
		}
		servers[i] = s
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

// Three nodes, each on a server of its own, write and follow while the leader of
// the log is sent away again and again: nothing that was acknowledged is missing,
// doubled or out of order anywhere.
func TestLeaderStepsDownUnderLoad(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
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
		events, more, err := logs[r%3].Read(ctx, room, logs[r%3].epochOf(room), 0, 1_000_000)
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
	servers := startCluster(t)
	l := open(t, Config{URLs: urls(servers...), Replicas: 3})
	eventually(t, 60*time.Second, "the cluster is ready", l.Ready)
	o, _ := followRoom(t, l, "r", 10)
	mustAppend(t, l, "r", "a")
	waitEvents(t, o, 5*time.Second, "a")
	for _, s := range servers {
		if s.ClientURL() == l.nc.Load().ConnectedUrl() || s.Name() == l.nc.Load().ConnectedServerName() {
			stopServer(s)
			break
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
}
