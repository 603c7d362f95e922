package natslog

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A cluster that has lost a server goes on, and says that it cannot lose another.
func TestMissingReplicas(t *testing.T) {
	t.Parallel()
	c := newCluster(t, nil)
	servers := c.start(t, 0, 1, 2)
	out := new(lines)
	l := open(t, Config{URLs: []string{servers[0].ClientURL(), servers[1].ClientURL()}, Replicas: 3, Logger: out.logger()})
	eventually(t, 60*time.Second, "the cluster is ready", l.Ready)
	followRoom(t, l, "r", 1)
	missing := func(want float64) error {
		sum := 0.0
		for _, state := range replicaStates {
			sum += counter(t, l.metrics.replicas.WithLabelValues(state))
		}
		if sum != want {
			return fmt.Errorf("%v are missing", sum)
		}
		return nil
	}
	eventually(t, 30*time.Second, "all are there", func() error { return missing(0) })

	stopServer(servers[2])
	eventually(t, 60*time.Second, "two streams lack one", func() error {
		return errors.Join(missing(2), out.once("level=WARN", "missing replicas", "stream=KANSEI_LOG_0 replicas=3", "n2 ", `may_lose="0 more"`),
			out.once("level=WARN", "missing replicas", "stream=KANSEI_STATE"))
	})
	eventually(t, 30*time.Second, "the node is ready", l.Ready)
	mustAppend(t, l, "r", "a")

	c.start(t, 2)
	eventually(t, 60*time.Second, "all are there again", func() error {
		return errors.Join(missing(0), out.once("level=INFO", "all its replicas again", "stream=KANSEI_LOG_0 replicas=3"),
			out.once("level=INFO", "all its replicas again", "stream=KANSEI_STATE"))
	})
	closeLog(t, l)
	if err := missing(0); err != nil {
		t.Error("closed:", err)
	}
}

func TestReplicasThatCount(t *testing.T) {
	t.Parallel()
	well, behind := &jetstream.PeerInfo{Name: "w", Current: true}, &jetstream.PeerInfo{Name: "b", Lag: 7}
	offline := &jetstream.PeerInfo{Name: "o", Offline: true}
	for name, c := range map[string]struct {
		replicas int
		peers    []*jetstream.PeerInfo
		want     string
	}{
		"all":                       {3, []*jetstream.PeerInfo{well, well}, "map[] "},
		"one":                       {1, nil, "map[] "},
		"one that moves":            {1, []*jetstream.PeerInfo{behind}, "map[] "},
		"one behind":                {3, []*jetstream.PeerInfo{well, behind}, "map[behind:1] b behind"},
		"one offline":               {3, []*jetstream.PeerInfo{offline, well}, "map[offline:1] o offline"},
		"one absent":                {3, []*jetstream.PeerInfo{well}, "map[absent:1] 1 absent"},
		"all kinds":                 {5, []*jetstream.PeerInfo{well, offline, behind}, "map[absent:1 behind:1 offline:1] o offline, b behind, 1 absent"},
		"more while a stream moves": {3, []*jetstream.PeerInfo{well, well, offline, behind}, "map[] "},
	} {
		info := &jetstream.StreamInfo{Config: jetstream.StreamConfig{Replicas: c.replicas}, Cluster: &jetstream.ClusterInfo{Replicas: c.peers}}
		counts, which := missingReplicas(info)
		if got := fmt.Sprint(counts, " ", which); got != c.want {
			t.Errorf("%s: %s, wanted %s", name, got, c.want)
		}
	}
	if counts, _ := missingReplicas(&jetstream.StreamInfo{}); len(counts) > 0 {
		t.Errorf("without a cluster: %v", counts)
	}
}

// A replica that is behind for a moment is in the metric, and in no log.
func TestReplicasThatFlap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := new(lines)
		cfg, err := Config{Logger: out.logger()}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		s := newStream(&Log{cfg: cfg, log: cfg.Logger, metrics: cfg.Metrics}, "KANSEI_LOG_0", 0, "kansei.log.0.", "0")
		info := func(current bool) *jetstream.StreamInfo {
			return &jetstream.StreamInfo{Config: jetstream.StreamConfig{Replicas: 3}, Cluster: &jetstream.ClusterInfo{
				Replicas: []*jetstream.PeerInfo{{Name: "a", Current: true}, {Name: "b", Current: current}}}}
		}
		see := func(current bool, times int) {
			for range times {
				s.tellReplicas(info(current))
				time.Sleep(time.Second)
			}
		}
		for range 10 {
			see(false, 4)
			if n := counter(t, s.l.metrics.replicas.WithLabelValues(replicaBehind)); n != 1 {
				t.Errorf("%v are behind", n)
			}
			see(true, 1)
		}
		if all := out.with(); len(all) > 0 {
			t.Errorf("logged: %v", all)
		}
		see(false, 60)
		see(true, 60)
		if err := errors.Join(out.once("level=WARN", `missing="b behind"`, `may_lose="0 more"`), out.once("level=INFO", "after=1m0s")); err != nil {
			t.Error(err)
		}
		if n := counter(t, s.l.metrics.replicas.WithLabelValues(replicaBehind)); n != 0 {
			t.Errorf("%v are behind", n)
		}
	})
}
