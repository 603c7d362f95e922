package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestIdleHasNoGoroutine is not parallel: it counts the goroutines of the whole
// process. Neither an idle viewer has one nor one that takes nothing.
func TestIdleHasNoGoroutine(t *testing.T) {
	m := NewMetrics(nil)
	_, st := slowSite(t, Config{Metrics: m})
	before := runtime.NumGoroutine()
	const n = 100
	large := plain(strings.Repeat("x", 8<<20)) // more than the kernel takes
	for i := range n {
		p, v := st.dial("")
		p.write(text("beat"), frame(finBit|opPing, ""))
		p.expect(finBit|opPong, "")
		v.message()
		if i%2 == 0 {
			v.send(large)
		}
	}
	// The polls, and HTTP's handlers that have not ended yet.
	eventually(t, "half of them are behind, and none has a goroutine", func() bool {
		return m.slow.Load() == n/2 && runtime.NumGoroutine() <= before+4
	})
}

// TestConnIsSmall: a field more costs every viewer, and what a delivery looks at is
// one line of a processor's cache: objects of 128 bytes lie on borders of 64.
func TestConnIsSmall(t *testing.T) {
	t.Parallel()
	if got := unsafe.Sizeof(Conn{}); got > 128 { // a size class of the allocator
		t.Errorf("a connection has %d bytes", got)
	}
	if got := unsafe.Offsetof(Conn{}.generation); got > 64 {
		t.Errorf("a delivery looks at %d bytes of a connection", got)
	}
}

// descriptors is how many descriptors this process has.
func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// TestDescriptorsAreReleased is not parallel: it counts the descriptors of the
// whole process, after connections have ended in every way, thousands of them while
// they wait.
func TestDescriptorsAreReleased(t *testing.T) {
	before := descriptors(t)
	s := NewServer(Config{CloseTimeout: 100 * time.Millisecond})
	st := withTCP(newSite(t, s))
	var peers []*peer
	for i := range 1000 {
		p, v := st.dial("")
		peers = append(peers, p)
		switch i % 10 {
		case 0:
			v.conn.Close(4400, "")
		case 1:
			_ = p.Close()
		case 2:
			p.write([]byte{0xff, 0xff})
		case 3:
			v.conn.abort(true)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if n := s.Len(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	st.Close()
	for _, p := range peers {
		_ = p.Close()
	}
	eventually(t, "all descriptors are closed", func() bool { return descriptors(t) <= before })
}

// TestStaleReport: a report for another connection that had the descriptor before
// is nobody's.
func TestStaleReport(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Config{})
	st := withTCP(newSite(t, s))
	p, v := st.dial("")
	in := &s.polls.in.fd
	c := v.conn
	stale := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: c.fd, Pad: int32(c.generation - 1)}
	if err := unix.EpollCtl(*in, unix.EPOLL_CTL_MOD, int(c.fd), &stale); err != nil {
		t.Fatal(err)
	}
	p.write(text("hello"))
	other, w := st.dial("") // its reports come behind the stale one
	for range 10 {
		other.write(text("x"))
		w.message()
	}
	if len(v.got) > 0 {
		t.Error("a stale report was taken")
	}
	if err := s.polls.awaitRead(c); err != nil {
		t.Fatal(err)
	}
	if got := v.message(); got != "hello" {
		t.Errorf("received %q", got)
	}
	// A report that nobody asked for is nothing either. The reader has asked for its
	// own by then; Swap, so that the next reader follows this one and that one.
	eventually(t, "the reader asks for a report", c.armed.Load)
	c.writable()
	c.armed.Swap(false)
	c.readable()
	c.armed.Swap(true)
	p.write(text("still there"))
	if got := v.message(); got != "still there" {
		t.Errorf("received %q", got)
	}
}

// TestWithoutPolls: connections are held otherwise when polls cannot be had.
func TestWithoutPolls(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Config{})
	s.polls.close()
	st := withTCP(newSite(t, s))
	p, v := st.dial("")
	if v.conn.nc == nil {
		t.Fatal("it is held by its descriptor")
	}
	p.write(text("hello"))
	v.message()
	v.send(plain("hello yourself"))
	p.expect(finBit|opText, "hello yourself")
}

// TestTakeFD: a connection whose descriptor cannot be taken is left as it is.
func TestTakeFD(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	tcp := nc.(*net.TCPConn)
	_ = tcp.Close()
	if fd, ok := takeFD(tcp); ok {
		t.Errorf("took descriptor %d of a closed connection", fd)
	}
	if _, ok := takeFD(new(net.TCPConn)); ok {
		t.Error("took a descriptor of nothing")
	}
}

// TestPollsFail: connections end when the kernel does not let them wait.
func TestPollsFail(t *testing.T) {
	t.Parallel()
	fail := func(t *testing.T, what func(s *Server) *int, use func(v *viewer, m *Metrics)) {
		t.Parallel()
		m := NewMetrics(nil)
		s, st := slowSite(t, Config{Metrics: m, CloseTimeout: 100 * time.Millisecond})
		_, v := st.dial("")
		fd := what(s)
		was := *fd
		*fd = -1
		use(v, m)
		if got := v.cause(); got.Kind != Lost || !errors.Is(got.Err, syscall.EBADF) {
			t.Errorf("cause %v", got)
		}
		*fd = was
		eventually(t, "nobody is behind", func() bool { return m.slow.Load() == 0 })
	}
	t.Run("writing", func(t *testing.T) {
		fail(t, func(s *Server) *int { return &s.polls.out.fd }, func(v *viewer, m *Metrics) {
			v.send(plain(strings.Repeat("x", 8<<20)))
		})
	})
	t.Run("starting", func(t *testing.T) {
		t.Parallel()
		s := newTestServer(t, Config{})
		if !s.polls.open() {
			t.Fatal("no polls")
		}
		was := s.polls.in.fd
		s.polls.in.fd = -1
		st := withTCP(newSite(t, s))
		_, v := st.dial("")
		if got := v.cause(); got.Kind != Lost || !errors.Is(got.Err, syscall.EBADF) {
			t.Errorf("cause %v", got)
		}
		s.polls.in.fd = was
	})
}

// TestDescriptorReuse has many connections follow one another on few descriptors:
// each hears what its own peer says.
func TestDescriptorReuse(t *testing.T) {
	t.Parallel()
	st := withTCP(newSite(t, newTestServer(t, Config{}), echoing))
	done := make(chan error)
	const workers, each = 8, 100
	for k := range workers {
		go func() { // ends after its connections
			var err error
			for i := range each {
				if err = echoOnce(st, fmt.Sprintf("%d of %d", i, k), i%3 == 0); err != nil {
					break
				}
			}
			done <- err
		}()
	}
	for range workers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// echoOnce opens a connection, has it echo and ends it.
func echoOnce(st *site, what string, reset bool) error {
	nc, err := net.Dial("tcp", st.Listener.Addr().String())
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }()
	p := newPeer(st.t, nc)
	p.write([]byte(request("")))
	p.handshake()
	for range 3 {
		p.write(text(what))
		if _, got, err := p.read(); err != nil || string(got) != what {
			return fmt.Errorf("received %q, %w, want %q", got, err, what)
		}
	}
	if reset {
		return nc.(*net.TCPConn).SetLinger(0)
	}
	return nil
}

// TestDirect: a layer of the listener's that has done its work costs no descriptor.
func TestDirect(t *testing.T) {
	t.Parallel()
	st := newSite(t, newTestServer(t, Config{}))
	st.Listener = layering{st.Listener}
	p, v := withTCP(st).dial("")
	if v.conn.nc != nil {
		t.Error("it is read by a goroutine")
	}
	p.write(text("hello"))
	if got := v.message(); got != "hello" {
		t.Errorf("received %q", got)
	}
	v.send(plain("hello yourself"))
	p.expect(finBit|opText, "hello yourself")
}

type layering struct{ net.Listener }

func (l layering) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return layer{c}, err
}

type layer struct{ net.Conn }

func (l layer) Direct() net.Conn { return l.Conn }
