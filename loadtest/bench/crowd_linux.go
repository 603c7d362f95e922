package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/kansei-live/kansei/protocol"
)

// crowd is the other end of many connections to one server: one goroutine that
// waits for all of them at once. It belongs to its maker, until close.
type crowd struct {
	address unix.SockaddrInet4
	// request is the HTTP request of the i-th viewer.
	request func(i int) []byte
	// welcomed says that a viewer is in when it has been welcomed; else it is with the
	// answer to its request.
	welcomed bool

	epfd, wake int
	done       chan struct{} // closed by the loop

	mu      sync.Mutex
	closed  bool
	viewers []*viewer
	in      int   // viewers that are in
	open    int   // viewers with a connection
	err     error // the first thing that went wrong with a viewer that should be in
	join    *hdrhistogram.Histogram
	counted protocol.Viewers // the latest that the server said
	plan    schedule
	tally   tally
	seed    maphash.Seed
	cache   map[uint64]*told // by the hash of the payload
	events  map[int]closing  // how viewers ended that the run did not end
}

// tally is what viewers got since the last reset.
type tally struct {
	frames     int64 // messages with comments
	bytes      int64 // of these, headers included
	deliveries int64 // comments of the window
	other      int64 // comments of other windows
	withheld   int64
	gaps       int64
	missed     int64 // comments that the gaps said were missed
	acks       int64
	beats      int64
	pongs      int64
	refused    map[protocol.ErrorCode]int64
	latency    *hdrhistogram.Histogram // in microseconds
	slowest    int64                   // the largest latency since it was asked for, in nanoseconds
}

// closing is how a connection ended.
type closing struct {
	code int // 0 if there was no close frame
	at   int64
}

func newTally() tally {
	return tally{refused: map[protocol.ErrorCode]int64{}, latency: newHistogram()}
}

// newHistogram counts microseconds up to ten minutes, with three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)
}

func record(h *hdrhistogram.Histogram, ns int64) {
	_ = h.RecordValue(min(max(ns/1000, 1), h.HighestTrackableValue())) // cannot fail: it is within the range
}

const (
	// maxCache bounds the frames that are known: more than are under way at one time.
	maxCache  = 16384
	wakeEvent = -1
)

// newCrowd starts the loop of a crowd, which ends with close.
func newCrowd(address string, welcomed bool, request func(i int) []byte) (*crowd, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().Is4() {
		return nil, fmt.Errorf("bench: address %q: want an IPv4 address and a port", address)
	}
	c := &crowd{
		address: unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())}, welcomed: welcomed, request: request,
		done: make(chan struct{}), join: newHistogram(), tally: newTally(), seed: maphash.MakeSeed(),
		cache: map[uint64]*told{}, events: map[int]closing{},
	}
	if c.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("bench: epoll: %w", err)
	}
	if c.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = unix.EpollCtl(c.epfd, unix.EPOLL_CTL_ADD, c.wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeEvent})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bench: epoll: %w", err), unix.Close(c.epfd))
	}
	go c.loop() // ends with close
	return c, nil
}

// close ends all connections at once, and the loop.
func (c *crowd) close() {
	c.mu.Lock()
	c.closed = true
	for _, v := range c.viewers {
		v.abort()
	}
	c.mu.Unlock()
	_, _ = unix.Write(c.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // an eventfd takes it
	<-c.done
	_ = unix.Close(c.wake)
	_ = unix.Close(c.epfd)
}

// loop serves all connections until close.
func (c *crowd) loop() {
	defer close(c.done)
	events := make([]unix.EpollEvent, 64)
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.EpollWait(c.epfd, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			c.mu.Lock()
			c.fail(fmt.Errorf("bench: epoll: %w", err))
			c.mu.Unlock()
			return
		}
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd != wakeEvent {
				c.ready(c.viewers[e.Fd], buf)
			}
		}
		c.mu.Unlock()
	}
}

// fail notes the first error. c.mu is held.
func (c *crowd) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// joinPatience is how long the last viewers may take to come in, or to leave.
const joinPatience = 60 * time.Second

// bring brings viewers first to first+n-1 in, rate a second, and waits until they are.
// Their time to join counts from the time at which they were due.
func (c *crowd) bring(ctx context.Context, first, n int, rate float64, form form) error {
	began := now()
	c.mu.Lock()
	c.join.Reset()
	for len(c.viewers) < first+n {
		c.viewers = append(c.viewers, &viewer{number: int32(len(c.viewers)), fd: -1})
	}
	want := c.in + n
	c.mu.Unlock()
	for i := range n {
		due := began + int64(float64(i)/rate*float64(time.Second))
		if err := sleepUntil(ctx, due); err != nil {
			return err
		}
		request := c.request(first + i)
		c.mu.Lock()
		err := c.connect(c.viewers[first+i], due, request, form)
		if err == nil {
			err = c.err
		}
		c.mu.Unlock()
		if err != nil {
			return fmt.Errorf("bench: viewer %d: %w", first+i, err)
		}
	}
	return c.await(ctx, joinPatience, func() (bool, string) {
		return c.in >= want, fmt.Sprintf("%d of %d viewers are in", c.in, want)
	})
}

// await waits until ready says yes, which is called under c.mu and says how far it is.
func (c *crowd) await(ctx context.Context, patience time.Duration, ready func() (bool, string)) error {
	deadline := now() + int64(patience)
	for {
		c.mu.Lock()
		ok, how := ready()
		err := c.err
		c.mu.Unlock()
		switch {
		case err != nil:
			return err
		case ok:
			return nil
		case now() > deadline:
			return fmt.Errorf("bench: after %v %s", patience, how)
		}
		if err := sleepUntil(ctx, now()+int64(2*time.Millisecond)); err != nil {
			return err
		}
	}
}

// sleepUntil returns at that time, or with ctx's error before.
func sleepUntil(ctx context.Context, at int64) error {
	d := at - now()
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(time.Duration(d))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sleep(ctx context.Context, d time.Duration) error { return sleepUntil(ctx, now()+int64(d)) }

// leave closes the connections of the first n viewers properly and waits until the server
// has ended them.
func (c *crowd) leave(ctx context.Context, n int) error {
	bye := clientFrame(opClose, []byte{1000 >> 8, 1000 & 0xff})
	c.mu.Lock()
	for _, v := range c.viewers[:n] {
		if v.fd >= 0 {
			c.out(v)
			v.state = leaving
			c.write(v, bye)
		}
	}
	c.mu.Unlock()
	return c.await(ctx, joinPatience, func() (bool, string) {
		left := 0
		for _, v := range c.viewers[:n] {
			if v.fd >= 0 {
				left++
			}
		}
		return left == 0, fmt.Sprintf("%d viewers are not gone", left)
	})
}

// send writes a frame to the server as the i-th viewer.
func (c *crowd) send(i int, frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write(c.viewers[i], frame)
}

// begin makes the window's schedule the one that comments are timed by, and forgets
// what was counted before.
func (c *crowd) begin(s schedule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.plan, c.tally = s, newTally()
}

// counts returns what was counted since begin.
func (c *crowd) counts() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tally
	t.refused = maps.Clone(t.refused)
	t.latency = hdrhistogram.Import(t.latency.Export())
	return t
}

// lag returns the largest latency since it was asked for last.
func (c *crowd) lag() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := time.Duration(c.tally.slowest)
	c.tally.slowest = 0
	return d
}

// joins returns the percentiles of the last bring.
func (c *crowd) joins(quantile float64) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.join.ValueAtQuantile(quantile)) * time.Microsecond
}

// hear finds out what a message says, once for all viewers that get the same one.
func (c *crowd) hear(payload []byte, compressed bool) (*told, error) {
	if !compressed && !isShared(payload) {
		return tell(payload)
	}
	hash := maphash.Bytes(c.seed, payload)
	if t := c.cache[hash]; t != nil {
		return t, nil
	}
	if compressed {
		var err error
		if payload, err = inflate(payload); err != nil {
			return nil, err
		}
	}
	t, err := tell(payload)
	if err != nil {
		return nil, err
	}
	if len(c.cache) >= maxCache {
		clear(c.cache)
	}
	c.cache[hash] = t
	return t, nil
}

// isShared reports whether a message goes to many viewers.
func isShared(payload []byte) bool {
	for _, start := range [...]string{`{"type":"comments"`, `{"type":"viewers"`, `{"type":"state"`} {
		if bytes.HasPrefix(payload, []byte(start)) {
			return true
		}
	}
	return false
}
