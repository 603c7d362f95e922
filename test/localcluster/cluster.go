//go:build unix

// Package localcluster runs a whole cluster on one machine, as processes without
// containers: three NATS servers with JetStream, a Redis server, nodes of kansei before
// them and, if wanted, HAProxy before these, all on free loopback ports and with their
// data in one directory. `make cluster` starts one for people, tests and `make chaos`
// start one to break it.
//
// cluster.go starts and ends the parts in order, parts.go says what each is; process.go
// holds one process, which can be killed, frozen and started again on the same ports;
// spawner.go is the thread that starts them, ready.go asks whether they are ready, and
// binaries.go finds the programs.
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
	"strings"
	"sync"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/private"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/ports"
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
	// EdgeArgsOf and EdgeEnvOf, if set, are those of one node, counted from 0.
	EdgeArgsOf, EdgeEnvOf func(edge int) []string

	// Spare has a second Redis server run, of which the nodes know nothing.
	Spare bool
	// Front has HAProxy stand before the nodes: one address for all, which leads to those
	// that are ready.
	Front bool
	// Link, if set, returns the address at which process from finds process to, which listens
	// at address. So something can stand between them. NATS servers then tell
	// nobody of each other, and of two of them the one that was named later connects.
	Link func(from, to, address string) (string, error)

	Dir    string // of data and logs; empty for one that Close removes
	Secret []byte // of the tokens; empty for a random one

	// The programs; those left empty are looked for in bin/ of the module around the
	// working directory, and in PATH.
	Kansei, NATSServer, RedisServer, HAProxy string

	// OnExit is called when a process that was ready ends by itself, with the end of its
	// log. It must not block.
	OnExit func(p *Process, log string)
}

// Cluster is a running cluster.
type Cluster struct {
	Edges  []*Edge
	NATS   []*NATS
	Redis  *Redis
	Spare  *Redis // nil when none was wanted
	Front  *Front // nil when none was wanted
	Secret []byte
	Dir    string // data and logs: name.log beside the directory name

	nodeSecret string // of the ids of guests
	link       func(from, to, address string) (string, error)
	removeDir  bool
	spawn      *spawner
	onExit     func(*Process, string)
	ports      []*ports.Port // held until Close
	taken      int           // how many of them have an owner
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
	Store   string // the directory of what it keeps
}

// Redis is the Redis server. It keeps nothing on disk: started again it is empty.
type Redis struct {
	*Process
	URL string
}

// Front is HAProxy before the nodes.
type Front struct {
	*Process
	URL string // of all nodes, without a slash at the end
}

// Start starts a cluster and waits until all of it is ready, at most a minute. When
// it fails nothing is left running, and the error ends with what the process that
// failed has logged. ctx is for the start alone.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c := &Cluster{Secret: cfg.Secret, Dir: cfg.Dir, link: cfg.Link, spawn: newSpawner(), onExit: cfg.OnExit}
	if err := c.start(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("local cluster: %w", err), c.Close())
	}
	return c, nil
}

// address returns one of the addresses, each once.
func (c *Cluster) address() string {
	c.taken++
	return c.ports[c.taken-1].String()
}

func newSecret() string {
	var b [private.MinSecret]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (c *Cluster) start(ctx context.Context, cfg Config) error {
	edges := cfg.Edges
	if edges == 0 {
		edges = defaultEdges
	}
	edges = max(0, edges)
	programs, err := findPrograms(cfg, edges > 0, cfg.Front)
	if err != nil {
		return err
	}
	if len(c.Secret) == 0 {
		c.Secret = []byte(newSecret())
	}
	c.nodeSecret = newSecret()
	if c.Dir == "" {
		if c.Dir, err = os.MkdirTemp("", "kansei-cluster-"); err != nil {
			return err
		}
		c.removeDir = true
	}
	if c.Dir, err = filepath.Abs(c.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	for range 3*natsServers + 2 + 2*edges + 2 {
		p, err := ports.Reserve()
		if err != nil {
			return err
		}
		c.ports = append(c.ports, p)
	}
	if err := c.addNATS(programs.nats); err != nil {
		return err
	}
	if c.Redis, err = c.addRedis("redis", programs.redis); err != nil {
		return err
	}
	if cfg.Spare {
		if c.Spare, err = c.addRedis("redis-spare", programs.redis); err != nil {
			return err
		}
	}
	for i := range edges {
		if err := c.addEdge(i, programs.kansei, cfg); err != nil {
			return err
		}
	}
	if cfg.Front {
		if err := c.addFront(programs.haproxy); err != nil {
			return err
		}
	}
	for _, some := range [][]*Process{c.engine(), c.nodes(), c.front()} {
		if err := each(some, func(p *Process) error { return p.start(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// engine, nodes and front are the processes; an engine is started before the nodes, and
// ended after them, and the nodes before what stands in front of them.
func (c *Cluster) engine() []*Process {
	var all []*Process
	for _, n := range c.NATS {
		all = append(all, n.Process)
	}
	if c.Redis != nil {
		all = append(all, c.Redis.Process)
	}
	if c.Spare != nil {
		all = append(all, c.Spare.Process)
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

func (c *Cluster) front() []*Process {
	if c.Front == nil {
		return nil
	}
	return []*Process{c.Front.Process}
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
		each(c.front(), func(p *Process) error { return p.end() }),
		each(c.nodes(), func(p *Process) error { return p.end() }),
		each(c.engine(), func(p *Process) error { return p.end() }),
	}
	c.spawn.close()
	for _, p := range c.ports {
		p.Close()
	}
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
