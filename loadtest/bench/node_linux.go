package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kansei-live/kansei/loadtest"
	"github.com/kansei-live/kansei/protocol"
)

// startEngines starts NATS and Redis as processes of their own, if they are there.
func (b *bench) startEngines(ctx context.Context) error {
	var inside []string
	for _, e := range []struct {
		engine, program string
		start           func(context.Context, string) error
	}{{"NATS", b.cmd.NATSServer, b.startNATS}, {"Redis", b.cmd.RedisServer, b.startRedis}} {
		path, err := b.find(e.program)
		if err != nil {
			return err
		}
		if path == "" {
			inside = append(inside, e.engine)
			continue
		}
		if err := e.start(ctx, path); err != nil {
			return err
		}
	}
	b.report.Engines = "NATS and Redis beside the node"
	if len(inside) > 0 {
		b.report.Engines = strings.Join(inside, " and ") + " inside the node"
	}
	return nil
}

// find returns the path of a program: of a name in PATH or beside this program, "" if it is in
// neither; a path must be right.
func (b *bench) find(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	path, err := exec.LookPath(name)
	if err != nil && name == filepath.Base(name) {
		if path, err = exec.LookPath(filepath.Join(filepath.Dir(b.program), name)); err != nil {
			return "", nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	return path, nil
}

// shared reports whether more than one node can be in the same rooms: both engines are
// beside them.
func (b *bench) shared() bool {
	return slices.ContainsFunc(b.engines, func(f string) bool { return strings.HasPrefix(f, "--nats=") }) &&
		slices.ContainsFunc(b.engines, func(f string) bool { return strings.HasPrefix(f, "--redis=") })
}

func (b *bench) startNATS(ctx context.Context, path string) error {
	p, err := spawn("nats-server", path, "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", filepath.Join(b.dir, "nats"))
	if err != nil {
		return err
	}
	b.onStop(p.stop)
	var address string
	err = p.line(ctx, startTimeout, func(l string) bool {
		if _, at, ok := strings.Cut(l, "Listening for client connections on "); ok {
			address = strings.TrimSpace(at)
		}
		return address != "" && strings.Contains(l, "Server is ready")
	})
	if err != nil {
		return err
	}
	b.engines = append(b.engines, "--nats=nats://"+address, "--log-replicas=1")
	return nil
}

func (b *bench) startRedis(ctx context.Context, path string) error {
	socket := filepath.Join(b.dir, "redis.sock")
	p, err := spawn("redis-server", path, "--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", b.dir)
	if err != nil {
		return err
	}
	b.onStop(p.stop)
	if err := p.line(ctx, startTimeout, func(l string) bool { return strings.Contains(strings.ToLower(l), "ready to accept connections") }); err != nil {
		return err
	}
	b.engines = append(b.engines, "--redis=unix://"+socket)
	return nil
}

// node is a node that is measured.
type node struct {
	*process
	address string // of the public listener
	ops     string // of the operators', as a URL
	secret  string
}

// startNode starts a node that ends with the scenario, with these flags beside the usual ones.
func (b *bench) startNode(ctx context.Context, flags ...string) (*node, error) {
	dir, err := os.MkdirTemp(b.dir, "node-")
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	args := []string{
		"serve", "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--data-dir=" + dir, "--auth-secret=" + b.secret,
		"--guests=none", "--drain=0s", "--log-format=json",
	}
	p, err := spawn("node", b.program, slices.Concat(args, b.engines, flags, b.cmd.Serve)...)
	if err != nil {
		return nil, err
	}
	b.onStop(p.stop)
	n := &node{process: p, secret: b.secret}
	err = p.line(ctx, startTimeout, func(l string) bool {
		var said struct{ Msg, Listen, Ops, Version string }
		if json.Unmarshal([]byte(l), &said) != nil || said.Msg != "the node runs" {
			return false
		}
		n.address, n.ops, b.report.Version = strings.TrimPrefix(said.Listen, "http://"), said.Ops, said.Version
		return true
	})
	if err != nil {
		return nil, err
	}
	deadline := now() + int64(startTimeout)
	for {
		body, err := n.get(ctx, "/readyz")
		if err == nil {
			return n, nil
		}
		if now() > deadline {
			return nil, p.trouble(fmt.Sprintf("not ready: %v %s", err, body))
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// get reads a page of the operators' listener.
func (n *node) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute) // a CPU profile takes its time
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.ops+path, nil)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("bench: %s: %s", path, res.Status)
	}
	return body, err
}

// metrics reads the node's metrics, by name and labels as they are written.
func (n *node) metrics(ctx context.Context) (map[string]float64, error) {
	body, err := n.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	s := bufio.NewScanner(strings.NewReader(string(body)))
	for s.Scan() {
		name, value, ok := strings.Cut(s.Text(), " ")
		if i := strings.LastIndexByte(s.Text(), ' '); i > 0 && ok {
			name, value = s.Text()[:i], s.Text()[i+1:]
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil && !strings.HasPrefix(name, "#") {
			out[name] = v
		}
	}
	return out, s.Err()
}

// settled waits until the node has no more than so many connections.
func (n *node) settled(ctx context.Context, connections float64) error {
	deadline := now() + int64(joinPatience)
	for {
		m, err := n.metrics(ctx)
		if err != nil {
			return err
		}
		if m["kansei_connections"] <= connections {
			return nil
		}
		if now() > deadline {
			return fmt.Errorf("bench: the node still has %.0f connections", m["kansei_connections"])
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// who is one viewer of a crowd of a node.
type who struct {
	room string
	user string
	role protocol.Role
	// plain says that it takes no deflated messages, whatever others do.
	plain bool
}

// crowd makes a crowd for a node; token makes the i-th viewer's.
func (b *bench) crowd(n *node, people func(i int) who) (*crowd, error) {
	return b.newCrowd(n.address, true, func(i int) []byte {
		w := people(i)
		token, err := loadtest.Mint(n.secret, w.room, w.user, w.user, w.role, time.Now())
		if err != nil {
			token = err.Error() // the node will say that it is no token
		}
		return upgrade(n.address, w.room, token, b.cmd.Compress && !w.plain)
	})
}

// newCrowd makes a crowd that ends with the scenario.
func (b *bench) newCrowd(address string, welcomed bool, request func(i int) []byte) (*crowd, error) {
	c, err := newCrowd(address, welcomed, request)
	if err != nil {
		return nil, err
	}
	b.onStop(func() error { c.close(); return nil })
	return c, nil
}

// upgrade is the request of one viewer.
func upgrade(host, room, token string, compress bool) []byte {
	extensions := ""
	if compress { // as browsers offer it
		extensions = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
	}
	return fmt.Appendf(nil, "GET /v1/rooms/%s/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%sSec-WebSocket-Protocol: %s, %s%s\r\n\r\n",
		room, host, extensions, protocol.Subprotocol, protocol.BearerPrefix, token)
}

// bare is the floor as a child.
type bare struct {
	*process
	address string
}

// startFloor starts a floor that ends with the scenario.
func (b *bench) startFloor(ctx context.Context) (*bare, error) {
	p, err := spawn("floor", b.program, "floor", "--obey")
	if err != nil {
		return nil, err
	}
	b.onStop(p.stop)
	f := &bare{process: p}
	a, err := f.answer(ctx, startTimeout)
	f.address = a.Address
	return f, err
}

// answer reads the floor's next answer.
func (f *bare) answer(ctx context.Context, within time.Duration) (answer, error) {
	var a answer
	err := f.line(ctx, within, func(l string) bool { return json.Unmarshal([]byte(l), &a) == nil })
	return a, err
}

// write has the floor write to groups of its sockets, or to all with 0, and waits until it has.
func (f *bare) write(ctx context.Context, s schedule, size, group int) (answer, error) {
	line, err := json.Marshal(order{Window: s.window, Began: s.began, Every: s.every, Count: s.count, Size: size, Group: group})
	if err != nil {
		return answer{}, fmt.Errorf("bench: %w", err)
	}
	if _, err := f.in.Write(append(line, '\n')); err != nil {
		return answer{}, errors.Join(fmt.Errorf("bench: %w", err), f.trouble("it takes no order"))
	}
	return f.answer(ctx, s.length()+startTimeout)
}

// floorCrowd makes a crowd for the floor.
func (b *bench) floorCrowd(f *bare) (*crowd, error) {
	token, err := loadtest.Mint(b.secret, "floor", "v0", "v0", protocol.RoleViewer, time.Now())
	if err != nil {
		return nil, err
	}
	request := upgrade(f.address, "floor", token, b.cmd.Compress)
	return b.newCrowd(f.address, false, func(int) []byte { return request })
}
