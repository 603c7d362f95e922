//go:build unix

// Package localcluster runs a whole cluster on one machine, as processes without
// containers: three NATS servers with JetStream, a Redis server, and nodes of kansei
// before them, all on free loopback ports and with their data in one directory. `make
// cluster` starts one for people, tests start one to break it.
//
// cluster.go says what the parts are and starts and ends them in order; process.go
// holds one process, which can be killed, frozen and started again on the same ports;
// spawner.go is the thread that starts them, ready.go asks whether they are ready,
// ports.go finds ports, and binaries.go the programs.
//
// Nothing outlives a cluster: [Cluster.Close] ends every process, and on Linux the
// kernel does when whoever started them dies.
package localcluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

const (
	natsServers  = 3
	defaultEdges = 3
	startTimeout = time.Minute // generous: a cluster forms in seconds, also on a busy machine
	// drain is how long nodes take to send their viewers away, whom nobody will miss.
	drain = time.Second
)

// Config says what a cluster is to be.
type Config struct {
	Edges    int      // nodes; 0 for 3, less for none
	EdgeArgs []string // further flags of every node
	EdgeEnv  []string // further variables of every node; no KANSEI_… is inherited

	Dir    string // of data and logs; empty for one that Close removes
	Secret []byte // of the tokens; empty for a random one

	// The programs; those left empty are looked for in bin/ of the module around the
	// working directory, and in PATH.
	Kansei, NATSServer, RedisServer string

	// OnExit is called when a process that was ready ends by itself, with the end of its
	// log. It must not block.
	OnExit func(p *Process, log string)
}

// Cluster is a running cluster.
type Cluster struct {
	Edges  []*Edge
	NATS   []*NATS
	Redis  *Redis
	Secret []byte
	Dir    string // data and logs: name.log beside the directory name

	removeDir bool
	spawn     *spawner
	onExit    func(*Process, string)
}

// Edge is one node of kansei.
type Edge struct {
	*Process
	URL string // of the public listener, without a slash at the end
	Ops string // of the operators' listener
}

// NATS is one NATS server.
type NATS struct {
	*Process
	URL     string
	Monitor string // its HTTP monitoring
}

// Redis is the Redis server. It keeps nothing on disk: started again it is empty.
type Redis struct {
	*Process
	URL string
}

// Start starts a cluster and waits until all of it is ready, at most a minute. When
// it fails nothing is left running, and the error ends with what the process that
// failed has logged. ctx is for the start alone.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c := &Cluster{Secret: cfg.Secret, Dir: cfg.Dir, spawn: newSpawner(), onExit: cfg.OnExit}
	if err := c.start(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("local cluster: %w", err), c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, cfg Config) error {
	edges := cfg.Edges
	if edges == 0 {
		edges = defaultEdges
	}
	edges = max(0, edges)
	programs, err := findPrograms(cfg, edges > 0)
	if err != nil {
		return err
	}
	if len(c.Secret) == 0 {
		var b [auth.MinSecret]byte
		_, _ = rand.Read(b[:]) // never fails
		c.Secret = []byte(hex.EncodeToString(b[:]))
	}
	if c.Dir == "" {
		if c.Dir, err = os.MkdirTemp("", "kansei-cluster-"); err != nil {
			return err
		}
		c.removeDir = true
	}
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return err
	}
	ports, err := reserve(3*natsServers + 1 + 2*edges)
	if err != nil {
		return err
	}
	defer ports.release()
	if err := c.addNATS(programs.nats, ports); err != nil {
		return err
	}
	if err := c.addRedis(programs.redis, ports); err != nil {
		return err
	}
	for i := range edges {
		if err := c.addEdge(i, programs.kansei, cfg, ports); err != nil {
			return err
		}
	}
	if err := each(c.engine(), func(p *Process) error { return p.start(ctx) }); err != nil {
		return err
	}
	return each(c.nodes(), func(p *Process) error { return p.start(ctx) })
}

// engine and nodes are the processes; an engine is started before the nodes, and
// ended after them.
func (c *Cluster) engine() []*Process {
	var all []*Process
	for _, n := range c.NATS {
		all = append(all, n.Process)
	}
	if c.Redis != nil {
		all = append(all, c.Redis.Process)
	}
	return all
}

func (c *Cluster) nodes() []*Process {
	var all []*Process
	for _, e := range c.Edges {
		all = append(all, e.Process)
	}
	return all
}

// each calls f for all processes at once and waits for all.
func each(all []*Process, f func(*Process) error) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, p := range all {
		// Ends with f; waited for below.
		wg.Go(func() { errs[i] = f(p) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Close ends all processes, the nodes first, and waits for them. It may be called
// again.
func (c *Cluster) Close() error {
	errs := []error{
		each(c.nodes(), func(p *Process) error { return p.end() }),
		each(c.engine(), func(p *Process) error { return p.end() }),
	}
	c.spawn.close()
	if c.removeDir {
		errs = append(errs, os.RemoveAll(c.Dir))
	}
	return errors.Join(errs...)
}

// NATSURLs is the setting "nats" of a node of this cluster.
func (c *Cluster) NATSURLs() string {
	urls := make([]string, len(c.NATS))
	for i, n := range c.NATS {
		urls[i] = n.URL
	}
	return strings.Join(urls, ",")
}

// Token makes a token for a user of the cluster that holds for ttl.
func (c *Cluster) Token(claims auth.Claims, ttl time.Duration) (string, error) {
	return auth.Mint(c.Secret, claims, ttl)
}

// StudioURL is the address of the studio page of a room on node i, with a token in
// it that holds for ttl.
func (c *Cluster) StudioURL(i int, room string, ttl time.Duration) (string, error) {
	token, err := c.Token(auth.Claims{
		Subject: "broadcaster", Name: "Broadcaster", Role: protocol.RoleBroadcaster, Rooms: []string{room},
	}, ttl)
	if err != nil {
		return "", err
	}
	return c.Edges[i].URL + "/studio/" + room + "#token=" + token, nil
}

func (c *Cluster) addNATS(program string, ports *ports) error {
	var client, monitor, route [natsServers]string
	var routes []string
	for i := range natsServers {
		client[i], monitor[i], route[i] = ports.take(), ports.take(), ports.take()
		routes = append(routes, "nats://"+route[i])
	}
	for i := range natsServers {
		name := fmt.Sprintf("nats-%d", i+1)
		config := filepath.Join(c.Dir, name+".conf")
		// Pings and deadlines are short, so that a frozen server is noticed in seconds; two
		// minutes is NATS's own measure.
		text := fmt.Sprintf(`server_name: %s
listen: %q
http: %q
ping_interval: "2s"
ping_max: 2
write_deadline: "2s"
jetstream { store_dir: %q, sync_interval: "1s", max_memory_store: 64MB, max_file_store: 2GB }
cluster {
  name: kansei
  listen: %q
  routes: [%s]
  ping_interval: "2s"
  write_deadline: "2s"
}
`, name, client[i], monitor[i], filepath.Join(c.Dir, name), route[i], quoted(slices.DeleteFunc(slices.Clone(routes), func(r string) bool { return strings.HasSuffix(r, "//"+route[i]) })))
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return err
		}
		p, err := c.process(name, program, []string{"-c", config})
		if err != nil {
			return err
		}
		p.addresses, p.held = []string{client[i], monitor[i], route[i]}, ports
		p.ready = func(ctx context.Context) error { return natsReady(ctx, "http://"+monitor[i]) }
		c.NATS = append(c.NATS, &NATS{p, "nats://" + client[i], "http://" + monitor[i]})
	}
	return nil
}

func quoted(s []string) string {
	q := make([]string, len(s))
	for i := range s {
		q[i] = fmt.Sprintf("%q", s[i])
	}
	return strings.Join(q, ", ")
}

func (c *Cluster) addRedis(program string, ports *ports) error {
	address := ports.take()
	host, port, _ := strings.Cut(address, ":")
	p, err := c.process("redis", program, []string{
		"--bind", host, "--port", port, "--dir", filepath.Join(c.Dir, "redis"),
		"--save", "", "--appendonly", "no", "--daemonize", "no",
	})
	if err != nil {
		return err
	}
	p.addresses, p.held = []string{address}, ports
	p.ready = func(ctx context.Context) error { return redisReady(ctx, address) }
	c.Redis = &Redis{p, "redis://" + address}
	return nil
}

func (c *Cluster) addEdge(i int, program string, cfg Config, ports *ports) error {
	public, ops := ports.take(), ports.take()
	name := fmt.Sprintf("edge-%d", i+1)
	p, err := c.process(name, program, append([]string{
		"serve", "--listen", public, "--ops-listen", ops, "--nats", c.NATSURLs(), "--redis", c.Redis.URL,
		"--data-dir", filepath.Join(c.Dir, name), "--log-replicas", fmt.Sprint(natsServers), "--drain", drain.String(),
	}, cfg.EdgeArgs...))
	if err != nil {
		return err
	}
	// The secret is no flag: those can be read by everybody on the machine.
	p.env = append(p.env, "KANSEI_AUTH_SECRET="+string(c.Secret))
	p.env = append(p.env, cfg.EdgeEnv...)
	p.addresses, p.held = []string{public, ops}, ports
	p.ready = func(ctx context.Context) error { return httpReady(ctx, "http://"+ops+"/readyz") }
	c.Edges = append(c.Edges, &Edge{p, "http://" + public, "http://" + ops})
	return nil
}
