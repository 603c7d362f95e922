package redispresence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/ports"
)

// Redis as people run it: members are exact behind a failover of Sentinel, and while slots of a
// cluster move.

// listedAs reports whether the members of a room are these users.
func listedAs(n *node, room string, want []string) error {
	var got []string
	for cursor := ""; ; {
		page, err := n.Members(context.Background(), hub.MembersQuery{Room: room, Cursor: cursor, Limit: 50})
		if err != nil {
			return err
		}
		for _, m := range page.Users {
			got = append(got, m.ID)
		}
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	slices.Sort(got)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(got, want) {
		return fmt.Errorf("%d members are listed, want %d", len(got), len(want))
	}
	return nil
}

// knowsReplica waits until a sentinel knows the replica of its server.
func knowsReplica(t *testing.T, sentinel *server) {
	t.Helper()
	eventually(t, "the sentinel knows the replica", func() error {
		s, err := sentinel.raw.Do(t.Context(), "SENTINEL", "REPLICAS", "main").Slice()
		if err == nil && (len(s) != 1 || !strings.Contains(fmt.Sprint(s[0]), "master-link-status ok")) {
			err = fmt.Errorf("%v", s)
		}
		return err
	})
}

func TestMembersAfterAFailover(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	first, second := ports.ForTest(t).Number, ports.ForTest(t).Number
	startProcess(t, first)
	startProcess(t, second, "--replicaof", "127.0.0.1 "+strconv.Itoa(first))
	sentinel := startSentinel(t, first)
	knowsReplica(t, sentinel)
	s := &server{url: strings.Replace(sentinel.url, "redis://", "redis+sentinel://", 1) + "/0"}
	client := func() redis.UniversalClient {
		c, err := Connect(s.url + "?master_name=main&read_timeout=60s")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	start := func() *node {
		n := &node{line: &line{}, metrics: NewMetrics(nil)}
		n.Presence = New(Config{Client: client(), Buckets: 2, Interval: testInterval, Lease: testLease, Timeout: patience, Metrics: n.metrics})
		t.Cleanup(func() { n.shut(t) })
		return n
	}
	a, b := start(), start()
	here, there := a.open("room"), b.open("room")
	want := users(300)
	for i, u := range want {
		[]*view{here, there}[i%2].Join(u)
	}
	here.want(t, "all are there", 300, 300)
	if err := listedAs(b, "room", want); err != nil {
		t.Error(err)
	}
	eventually(t, "the failover begins", func() error { return sentinel.raw.Do(ctx, "SENTINEL", "FAILOVER", "main").Err() })
	eventually(t, "the replica is the primary", func() error {
		addr, err := sentinel.raw.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main").StringSlice()
		if err == nil && addr[1] != strconv.Itoa(second) {
			err = fmt.Errorf("it is %v", addr)
		}
		return err
	})
	here.Join("late")
	there.Leave(want[1])
	want = append(slices.Delete(want, 1, 2), "late")
	here.want(t, "after the failover", 300, 300)
	there.want(t, "after the failover", 300, 300)
	for _, n := range []*node{a, b} {
		eventually(t, "all are listed", func() error { return listedAs(n, "room", want) })
	}
}

// clusterOf starts a Redis Cluster of primaries, whose slots are shared out among them.
func clusterOf(t *testing.T, n int) (*server, []*redis.Client) {
	t.Helper()
	ctx := t.Context()
	var nodes []*redis.Client
	var addrs []string
	for range n {
		url := startProcess(t, ports.ForTest(t).Number, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(ports.ForTest(t).Number))
		addrs = append(addrs, strings.TrimPrefix(url, "redis://"))
		c := redis.NewClient(&redis.Options{Addr: addrs[len(addrs)-1]})
		t.Cleanup(func() { _ = c.Close() })
		nodes = append(nodes, c)
	}
	for i, c := range nodes {
		if err := c.ClusterAddSlotsRange(ctx, i*16384/n, (i+1)*16384/n-1).Err(); err != nil {
			t.Fatal(err)
		}
		if err := c.Do(ctx, "CONFIG", "SET", "cluster-node-timeout", "5000").Err(); err != nil {
			t.Fatal(err)
		}
	}
	bus := func(i int) string { return nodes[i].ConfigGet(ctx, "cluster-port").Val()["cluster-port"] }
	for i := 1; i < n; i++ {
		host, port, _ := net.SplitHostPort(addrs[i])
		if err := nodes[0].Do(ctx, "CLUSTER", "MEET", host, port, bus(i)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range nodes {
		eventually(t, "the cluster is ready", func() error {
			info, err := c.ClusterInfo(ctx).Result()
			if err == nil && (!strings.Contains(info, "cluster_state:ok") || !strings.Contains(info, fmt.Sprintf("cluster_known_nodes:%d", n))) {
				err = fmt.Errorf("node %d: %s", i, info)
			}
			return err
		})
	}
	return dial(t, "redis+cluster://"+addrs[0]), nodes
}

func TestMembersWhileSlotsMove(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s, primaries := clusterOf(t, 3)
	configure := func(c *Config) { c.Buckets = 3 }
	a, b := s.node(t, configure), s.node(t, configure)
	rooms := map[string][2]*view{}
	want := map[string][]string{}
	for i := range 12 {
		room := fmt.Sprint("room-", i)
		rooms[room] = [2]*view{a.open(room), b.open(room)}
		for j, u := range users(60) {
			rooms[room][j%2].Join(u)
			want[room] = append(want[room], u)
		}
	}
	exact := func(what string) {
		t.Helper()
		for room, views := range rooms {
			for _, v := range views {
				v.want(t, what, len(want[room]), len(want[room]))
			}
			eventually(t, what+": the members of "+room, func() error { return listedAs(a, room, want[room]) })
		}
	}
	exact("before")
	// Every bucket's slot goes to the next primary, key by key, while users come and go.
	for i := range 3 {
		slot := s.raw.ClusterKeySlot(ctx, a.buckets[i].keys.counts()).Val()
		from := int(slot) * 3 / 16384
		to := (from + 1) % 3
		ids := make([]string, 3)
		for j, c := range primaries {
			ids[j] = c.Do(ctx, "CLUSTER", "MYID").Val().(string)
		}
		host, port, _ := net.SplitHostPort(primaries[to].Options().Addr)
		for _, err := range []error{
			primaries[to].Do(ctx, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[from]).Err(),
			primaries[from].Do(ctx, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[to]).Err(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for step := 0; ; step++ {
			keys, err := primaries[from].ClusterGetKeysInSlot(ctx, int(slot), 5).Result()
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) == 0 {
				break
			}
			for _, k := range keys {
				if err := primaries[from].Migrate(ctx, host, port, k, 0, time.Second).Err(); err != nil && !errors.Is(err, redis.Nil) {
					t.Fatal(err)
				}
			}
			for room, views := range rooms {
				u := fmt.Sprint("late-", i, "-", step)
				views[step%2].Join(u)
				want[room] = append(want[room], u)
			}
			time.Sleep(2 * testInterval)
		}
		for _, c := range []*redis.Client{primaries[to], primaries[from], primaries[(to+1)%3]} {
			if err := c.Do(ctx, "CLUSTER", "SETSLOT", slot, "NODE", ids[to]).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	exact("after all slots have moved")
	if n := a.reaped() + b.reaped(); n != 0 {
		t.Logf("%v incarnations were reaped meanwhile", n) // moving took longer than the lease
	}
	var found protocol.Rooms
	eventually(t, "all rooms are listed", func() (err error) {
		if found, err = b.Rooms(ctx, hub.RoomsQuery{Limit: 100}); err == nil && len(found.Rooms) != len(rooms) {
			err = fmt.Errorf("%d rooms", len(found.Rooms))
		}
		return err
	})
}

// A server that forbids what managed services forbid, over RESP3, is enough: everything that a
// presence does is in the ACL tests; this one lists over RESP2, which old proxies speak.
func TestMembersOverBothProtocols(t *testing.T) {
	t.Parallel()
	s := dial(t, startProcess(t, ports.ForTest(t).Number))
	for _, version := range []int{2, 3} {
		c, err := Connect(s.url + "?read_timeout=60s&protocol=" + strconv.Itoa(version))
		if err != nil {
			t.Fatal(err)
		}
		n := &node{line: &line{}, metrics: NewMetrics(nil)}
		n.Presence = New(Config{Client: c, Prefix: fmt.Sprint("p", version), Buckets: 1, Interval: testInterval, Lease: testLease, Timeout: patience, Metrics: n.metrics})
		v := n.open("room")
		for _, u := range users(200) {
			v.Join(u)
		}
		v.want(t, "all are there", 200, 200)
		if err := listedAs(n, "room", users(200)); err != nil {
			t.Errorf("RESP%d: %v", version, err)
		}
		found, err := n.Rooms(t.Context(), hub.RoomsQuery{Limit: 10})
		if err != nil || len(found.Rooms) != 1 || found.Rooms[0].Users != 200 {
			t.Errorf("RESP%d: rooms %+v, %v", version, found, err)
		}
		n.shut(t)
		_ = c.Close()
	}
}

// Lists are read from a replica, unless it is behind what its reader has seen.
func TestMembersFromReplicas(t *testing.T) {
	t.Parallel()
	t.Run("sentinel", func(t *testing.T) {
		t.Parallel()
		first, second := ports.ForTest(t).Number, ports.ForTest(t).Number
		startProcess(t, first)
		replica := dial(t, startProcess(t, second, "--replicaof", "127.0.0.1 "+strconv.Itoa(first)))
		sentinel := startSentinel(t, first)
		knowsReplica(t, sentinel)
		membersFrom(t, replica, strings.Replace(sentinel.url, "redis://", "redis+sentinel://", 1)+"/0?master_name=main&read_timeout=60s", func() error {
			return replica.raw.Do(t.Context(), "REPLICAOF", "NO", "ONE").Err()
		})
	})
	t.Run("cluster", func(t *testing.T) {
		t.Parallel()
		s, primaries := clusterOf(t, 1)
		replica := dial(t, startProcess(t, ports.ForTest(t).Number, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(ports.ForTest(t).Number)))
		host, port, _ := net.SplitHostPort(strings.TrimPrefix(replica.url, "redis://"))
		bus := replica.raw.ConfigGet(t.Context(), "cluster-port").Val()["cluster-port"]
		if err := primaries[0].Do(t.Context(), "CLUSTER", "MEET", host, port, bus).Err(); err != nil {
			t.Fatal(err)
		}
		id := primaries[0].Do(t.Context(), "CLUSTER", "MYID").Val()
		eventually(t, "the replica follows", func() error { return replica.raw.Do(t.Context(), "CLUSTER", "REPLICATE", id).Err() })
		eventually(t, "it has all", func() error {
			info, err := replica.raw.Info(t.Context(), "replication").Result()
			if err == nil && !strings.Contains(info, "master_link_status:up") {
				err = errors.New(info)
			}
			return err
		})
		eventually(t, "the cluster names it", func() error {
			slots, err := primaries[0].Do(t.Context(), "CLUSTER", "SLOTS").Slice()
			if err == nil {
				if first, _ := slots[0].([]any); len(first) != 4 { // two places, the primary, the replica
					err = fmt.Errorf("%v", slots)
				}
			}
			return err
		})
		membersFrom(t, replica, s.url+"?read_timeout=60s", func() error { // it does not get in again
			return errors.Join(replica.raw.ConfigSet(t.Context(), "masterauth", "wrong").Err(), replica.raw.Do(t.Context(), "CLIENT", "KILL", "TYPE", "MASTER").Err())
		})
	})
	if _, err := (Access{Replicas: true}).Connect("redis://127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "names one server") {
		t.Errorf("replicas of a single server: %v", err)
	}
}

// membersFrom reads lists with a replica of the server at url, which cut cuts off.
func membersFrom(t *testing.T, replica *server, url string, cut func() error) {
	t.Helper()
	ctx := t.Context()
	connect := func(a Access) redis.UniversalClient {
		c, err := a.Connect(url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	n := &node{line: &line{}, metrics: NewMetrics(nil)}
	n.Presence = New(Config{Client: connect(Access{}), Reads: connect(Access{Replicas: true}), Buckets: 1,
		Interval: testInterval, Lease: testLease, Timeout: patience, Metrics: n.metrics})
	t.Cleanup(func() { n.shut(t) })
	v := n.open("room")
	want := users(200)
	for _, u := range want {
		v.Join(u)
	}
	v.want(t, "all are there", 200, 200)
	asked := func() int {
		stats, err := replica.raw.InfoMap(ctx, "commandstats").Result()
		if err != nil {
			t.Fatal(err)
		}
		calls := 0
		for name, text := range stats["Commandstats"] {
			if strings.HasPrefix(name, "cmdstat_eval") {
				var n int
				_, _ = fmt.Sscanf(text, "calls=%d", &n)
				calls += n
			}
		}
		return calls
	}
	eventually(t, "the replica is asked, and has all", func() error {
		if err := listedAs(n, "room", want); err != nil {
			return err
		}
		if asked() < 4 {
			return fmt.Errorf("%d calls", asked())
		}
		return nil
	})
	// It gets nothing new any more: nobody who has come since may be missing.
	if err := cut(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		u := fmt.Sprint("late-", i)
		v.Join(u)
		want = append(want, u)
		v.want(t, "one more is there", len(want), len(want))
		if err := listedAs(n, "room", want); err != nil {
			t.Fatalf("from a replica that is behind: %v", err)
		}
	}
}
