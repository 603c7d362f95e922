//go:build unix

package localcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

func (c *Cluster) addNATS(program string) error {
	var client, monitor, route [natsServers]string
	for i := range natsServers {
		client[i], monitor[i], route[i] = c.address(), c.address(), c.address()
	}
	for i := range natsServers {
		name := natsName(i)
		config := filepath.Join(c.Dir, name+".conf")
		// Pings and deadlines are short, so that a frozen server is noticed in seconds; two
		// minutes is NATS's own measure.
		routes, err := c.routes(i, route[:])
		if err != nil {
			return err
		}
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
%s  ping_interval: "2s"
  write_deadline: "2s"
}
`, name, client[i], monitor[i], filepath.Join(c.Dir, name), route[i], routes)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			return err
		}
		p, err := c.process(name, program, []string{"-c", config})
		if err != nil {
			return err
		}
		p.ready = func(ctx context.Context) error { return natsReady(ctx, "http://"+monitor[i]) }
		c.NATS = append(c.NATS, &NATS{p, "nats://" + client[i], "http://" + monitor[i], filepath.Join(c.Dir, name)})
	}
	return nil
}

// routes is the part of server i's configuration that says where the others are.
func (c *Cluster) routes(i int, route []string) (string, error) {
	var urls []string
	for j, address := range route {
		// With links each pair has one connection, which the later server makes. The first
		// one names itself, since it would not be part of a cluster without a name.
		if c.link != nil && (j > i || j == i && i > 0) || c.link == nil && j == i {
			continue
		}
		if j != i {
			var err error
			if address, err = c.reach(natsName(i), natsName(j), address); err != nil {
				return "", err
			}
		}
		urls = append(urls, fmt.Sprintf("%q", "nats://"+address))
	}
	text := "  routes: [" + strings.Join(urls, ", ") + "]\n"
	if c.link != nil {
		// What servers tell each other, and clients, would lead around the links: what they
		// tell is where nobody listens.
		text += "  no_advertise: true\n  advertise: \"127.0.0.1:1\"\n"
	}
	return text, nil
}

// reach is where from finds to, which listens at address.
func (c *Cluster) reach(from, to, address string) (string, error) {
	if c.link == nil {
		return address, nil
	}
	return c.link(from, to, address)
}

func natsName(i int) string { return fmt.Sprintf("nats-%d", i+1) }

func (c *Cluster) addRedis(name, program string) (*Redis, error) {
	address := c.address()
	host, port, _ := strings.Cut(address, ":")
	p, err := c.process(name, program, []string{
		"--bind", host, "--port", port, "--dir", filepath.Join(c.Dir, name),
		"--save", "", "--appendonly", "no", "--daemonize", "no", "--repl-diskless-sync-delay", "0",
	})
	if err != nil {
		return nil, err
	}
	p.ready = func(ctx context.Context) error { return redisReady(ctx, address) }
	return &Redis{p, "redis://" + address}, nil
}

func (c *Cluster) addEdge(i int, program string, cfg Config) error {
	public, ops := c.address(), c.address()
	name := fmt.Sprintf("edge-%d", i+1)
	var natsURLs []string
	for _, n := range c.NATS {
		address, err := c.reach(name, n.Name(), strings.TrimPrefix(n.URL, "nats://"))
		if err != nil {
			return err
		}
		natsURLs = append(natsURLs, "nats://"+address)
	}
	redis, err := c.reach(name, c.Redis.Name(), strings.TrimPrefix(c.Redis.URL, "redis://"))
	if err != nil {
		return err
	}
	args := append([]string{
		"serve", "--listen", public, "--ops-listen", ops, "--nats", strings.Join(natsURLs, ","), "--redis", "redis://" + redis,
		"--data-dir", filepath.Join(c.Dir, name), "--log-replicas", fmt.Sprint(natsServers), "--drain", drain.String(),
	}, cfg.EdgeArgs...)
	if cfg.EdgeArgsOf != nil {
		args = append(args, cfg.EdgeArgsOf(i)...)
	}
	p, err := c.process(name, program, args)
	if err != nil {
		return err
	}
	// The secrets are no flags: those can be read by everybody on the machine.
	p.env = append(p.env, "KANSEI_AUTH_SECRET="+string(c.Secret), "KANSEI_NODE_SECRET="+c.nodeSecret)
	p.env = append(p.env, cfg.EdgeEnv...)
	if cfg.EdgeEnvOf != nil {
		p.env = append(p.env, cfg.EdgeEnvOf(i)...)
	}
	p.ready = func(ctx context.Context) error { return httpReady(ctx, "http://"+ops+"/readyz") }
	c.Edges = append(c.Edges, &Edge{p, "http://" + public, "http://" + ops})
	return nil
}

func (c *Cluster) addFront(program string) error {
	public, ops := c.address(), c.address()
	var servers, last strings.Builder
	for _, e := range c.Edges {
		address, check := strings.TrimPrefix(e.URL, "http://"), e.Ops[strings.LastIndexByte(e.Ops, ':')+1:]
		fmt.Fprintf(&servers, "  server %s %s check port %s\n", e.Name(), address, check)
		fmt.Fprintf(&last, "  server %s-unready %s backup\n", e.Name(), address)
	}
	// A node that is not ready gets nobody while another is: but when all say so, as when all
	// are full, all are better than none.
	most, err := frontConnections()
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`global
  maxconn %d
defaults
  mode http
  timeout connect 2s
  timeout client 2m
  timeout server 2m
  timeout tunnel 2m
  timeout check 1s
  retries 3
  option redispatch 1
frontend ops
  bind %s
  monitor-uri /
frontend public
  bind %s
  default_backend nodes
backend nodes
  balance leastconn
  option httpchk GET /readyz
  option allbackups
  default-server inter 500ms fall 1 rise 1
%s%s`, most, ops, public, servers.String(), last.String())
	config := filepath.Join(c.Dir, "haproxy.conf")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	p, err := c.process("haproxy", program, []string{"-db", "-f", config})
	if err != nil {
		return err
	}
	p.ready = func(ctx context.Context) error { return httpReady(ctx, "http://"+ops) }
	c.Front = &Front{p, "http://" + public}
	return nil
}

// frontConnections is how many clients HAProxy may take: two descriptors each, out of as
// many as this machine allows, and no more than it needs memory for.
func frontConnections() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("haproxy: open files: %w", err)
	}
	return int(min(max(limit.Max, 400), 100_000)-200) / 2, nil
}
