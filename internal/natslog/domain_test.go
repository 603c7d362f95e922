package natslog

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// The log may be in the JetStream domain of a hub, and nodes connect to the hub or to its leaf
// nodes, with JetStream of their own or without.
func TestDomain(t *testing.T) {
	t.Parallel()
	ports := freePorts(t, 4)
	hub := startConfigured(t, fmt.Sprintf(`listen: "127.0.0.1:%d", server_name: hub, jetstream {store_dir: %q, domain: hub}, leafnodes {listen: "127.0.0.1:%d"}`,
		ports[0], t.TempDir(), ports[1]))
	servers := map[string]*server.Server{"hub": hub}
	for i, js := range []string{fmt.Sprintf("jetstream {store_dir: %q, domain: leaf}", t.TempDir()), "jetstream: disabled"} {
		servers[fmt.Sprint("leaf", i)] = startConfigured(t, fmt.Sprintf(`listen: "127.0.0.1:%d", server_name: leaf%d, %s, leafnodes {remotes: [{url: "nats://127.0.0.1:%d"}]}`,
			ports[2+i], i, js, ports[1]))
	}
	eventually(t, 30*time.Second, "the leaf nodes are connected", func() error {
		if n := hub.NumLeafNodes(); n != 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	logs, seen := map[string]*Log{}, map[string]*observer{}
	for name, s := range servers {
		logs[name] = openReady(t, Config{URLs: urls(s), Domain: "hub", Partitions: 2})
	}
	for name, l := range logs {
		seen[name], _ = followRoom(t, l, "r", 10)
	}
	var ids []string
	for name, l := range logs {
		mustAppend(t, l, "r", name)
		ids = append(ids, name)
		for _, o := range seen {
			waitEvents(t, o, 30*time.Second, ids...)
		}
	}
	for _, l := range logs {
		o, _ := followRoom(t, l, "r", 10) // read back from the hub
		waitEvents(t, o, 30*time.Second, ids...)
	}
	leaf, err := jetstream.NewWithDomain(dial(t, servers["leaf0"].ClientURL()), "leaf")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Stream(testContext(t), "KANSEI_LOG_0"); !errors.Is(err, jetstream.ErrStreamNotFound) {
		t.Errorf("the leaf node has a stream of its own: %v", err)
	}

	lost := open(t, Config{URLs: urls(servers["leaf0"]), Domain: "nowhere"})
	eventually(t, 30*time.Second, "a domain that is not there is named", func() error {
		if err := lost.Ready(); err == nil || !strings.Contains(err.Error(), "JetStream domain nowhere (--nats-domain)") {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	})
}

// With a domain, the grants that the document gives have its name behind $JS, and are enough
// on a leaf node; those without it are not, and the one that is missing is named.
func TestDomainGrants(t *testing.T) {
	t.Parallel()
	block, _ := documentedGrants(t)
	ports := freePorts(t, 4)
	hub := startConfigured(t, fmt.Sprintf(`listen: "127.0.0.1:%d", server_name: hub, jetstream {store_dir: %q, domain: hub}, leafnodes {listen: "127.0.0.1:%d"}`,
		ports[0], t.TempDir(), ports[1]))
	leaf := func(i int, grants string) *server.Server {
		return startConfigured(t, fmt.Sprintf("listen: \"127.0.0.1:%d\", server_name: leaf%d, leafnodes {remotes: [{url: \"nats://127.0.0.1:%d\"}]}\n%s",
			ports[2+i], i, ports[1], grants))
	}
	with := leaf(0, strings.ReplaceAll(block, "$JS.API.", "$JS.hub.API."))
	without := leaf(1, block)
	eventually(t, 30*time.Second, "the leaf nodes are connected", func() error {
		if n := hub.NumLeafNodes(); n != 2 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	var out lines
	l := openReady(t, Config{URLs: []string{grantedURL(with)}, Domain: "hub", Logger: out.debug()})
	mustAppend(t, l, "r", "a")
	o, _ := followRoom(t, l, "r", 10)
	waitEvents(t, o, 30*time.Second, "a")
	if refused := append(out.with("refuse"), out.with("iolation")...); len(refused) > 0 {
		t.Errorf("NATS has refused something:\n%s", strings.Join(refused, ""))
	}
	readySays(t, open(t, Config{URLs: []string{grantedURL(without)}, Domain: "hub"}), "this account may not publish to $JS.hub.API.")
}

// Logs with different prefixes share a server and nothing else.
func TestPrefix(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	one := openReady(t, Config{URLs: urls(s)})
	two := openReady(t, Config{URLs: urls(s), Prefix: "live-2", Partitions: 3})
	a, _ := followRoom(t, one, "r", 10)
	b, _ := followRoom(t, two, "r", 10)
	mustAppend(t, one, "r", "first")
	mustAppend(t, two, "r", "second")
	waitEvents(t, a, 30*time.Second, "first")
	waitEvents(t, b, 30*time.Second, "second")
	nc := dial(t, s.ClientURL())
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	names := js.StreamNames(testContext(t))
	n := 0
	for name := range names.Name() {
		if n++; !strings.HasPrefix(name, "KANSEI_") && !strings.HasPrefix(name, "LIVE-2_") {
			t.Errorf("there is a stream %s", name)
		}
	}
	if names.Err() != nil || n != 2+4 {
		t.Errorf("%d streams, %v", n, names.Err())
	}
}
