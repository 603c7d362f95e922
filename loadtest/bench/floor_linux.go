package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"github.com/kansei-live/kansei/protocol"
)

// order tells the floor to write frames of size bytes, one for each comment of a schedule: to
// everybody, or to a group of its sockets, each group in its turn.
type order struct {
	Window uint32        `json:"window"`
	Began  int64         `json:"began"`
	Every  time.Duration `json:"every_ns"`
	Count  int           `json:"count"`
	Size   int           `json:"size"`
	Group  int           `json:"group,omitempty"` // 0: everybody
}

// answer is a line of the floor's output: first its address, then an answer to
// each order.
type answer struct {
	Address string `json:"address,omitempty"`
	Writes  int64  `json:"writes"`
	Bytes   int64  `json:"bytes"`
	Failed  int64  `json:"failed"` // writes that the kernel did not take whole
}

// floor is the bare program: what a node would be if it did nothing but hold WebSockets and
// write to them.
type floor struct {
	holding sync.WaitGroup // of the connections

	mu  sync.Mutex
	fds []int
}

// serveFloor runs the bare program until in ends or ctx does: orders come as lines of in,
// answers go as lines to out.
func serveFloor(ctx context.Context, in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	f := &floor{}
	life, cancel := context.WithCancel(ctx)
	defer f.holding.Wait()
	defer cancel()
	srv := &http.Server{Handler: f, ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return life }}
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(l) }) // ends with Close
	defer serving.Wait()
	defer func() { _ = srv.Close() }() // connections end with life

	say := json.NewEncoder(out)
	if err := say.Encode(answer{Address: l.Addr().String()}); err != nil {
		return fmt.Errorf("floor: %w", err)
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			return fmt.Errorf("floor: order %q: %w", lines.Bytes(), err)
		}
		done, err := f.write(ctx, o)
		if err != nil {
			return err
		}
		if err := say.Encode(done); err != nil {
			return fmt.Errorf("floor: %w", err)
		}
	}
	return lines.Err()
}

// write carries out an order.
func (f *floor) write(ctx context.Context, o order) (answer, error) {
	plan := schedule{window: o.Window, began: o.Began, every: o.Every, count: o.Count}
	var a answer
	for n := range o.Count {
		frame := floorFrame(o.Window, n, o.Size)
		if err := sleepUntil(ctx, plan.due(uint32(n))); err != nil {
			return a, err
		}
		f.mu.Lock()
		group := f.fds
		if groups := len(f.fds) / max(o.Group, 1); o.Group > 0 && groups > 0 {
			group = f.fds[n%groups*o.Group:][:o.Group]
		}
		for _, fd := range group {
			if !writeRaw(fd, frame) {
				a.Failed++
			}
		}
		a.Writes += int64(len(group))
		f.mu.Unlock()
		a.Bytes += int64(len(frame))
	}
	return a, nil
}

// ServeHTTP accepts a WebSocket and reads from it until it ends, as every program
// would.
func (f *floor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.holding.Add(1)
	defer f.holding.Done()
	g := &grip{ResponseWriter: w}
	c, err := websocket.Accept(g, r, &websocket.AcceptOptions{
		Subprotocols: []string{protocol.Subprotocol}, InsecureSkipVerify: true,
		CompressionMode: websocket.CompressionNoContextTakeover,
	})
	if err != nil {
		return // it has been answered
	}
	defer func() { _ = c.CloseNow() }()
	fd, err := g.descriptor()
	if err != nil {
		return
	}
	f.mu.Lock()
	f.fds = append(f.fds, fd)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		i := slices.Index(f.fds, fd)
		f.fds[i] = f.fds[len(f.fds)-1]
		f.fds = f.fds[:len(f.fds)-1]
	}()
	for {
		if _, _, err := c.Read(r.Context()); err != nil {
			return
		}
	}
}

// grip keeps the connection that websocket.Accept takes.
type grip struct {
	http.ResponseWriter
	nc net.Conn
}

// Hijack implements http.Hijacker.
func (g *grip) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(g.ResponseWriter).Hijack()
	g.nc = nc
	return nc, rw, err
}

// descriptor is the connection's, as long as that is open.
func (g *grip) descriptor() (int, error) {
	sc, ok := g.nc.(syscall.Conn)
	if !ok {
		return 0, errors.New("floor: not a socket")
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var fd int
	err = rc.Control(func(p uintptr) { fd = int(p) })
	return fd, err
}

// writeRaw is write(2) and nothing else; the socket does not block.
func writeRaw(fd int, p []byte) bool {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return errno == 0 && int(n) == len(p)
}
