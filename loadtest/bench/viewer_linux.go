package bench

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/kansei-live/kansei/protocol"
)

// form is how a viewer reads.
type form uint8

const (
	normal form = iota
	frozen      // not at all, once it is in
	slow        // only what it is told to, once it is in
)

// smallWindow is the receive buffer of a viewer that does not read, in bytes: the
// kernel of a phone that sleeps takes more, and it would only take longer to notice.
const smallWindow = 4096

// state is where a viewer's connection stands.
type state uint8

const (
	connecting state = iota
	answering        // the request is sent
	watching
	leaving // its close frame is sent
)

// viewer is one connection. All of it belongs to crowd.mu.
type viewer struct {
	number  int32
	fd      int32
	state   state
	form    form
	in      bool
	due     int64  // when it was to come
	request []byte // until it is sent
	pending []byte // of a frame that has not come whole
	got     int64  // comments of windows, since it came
	missed  int64  // that gaps and frames told of
}

// connect opens a viewer's connection.
func (c *crowd) connect(v *viewer, due int64, request []byte, f form) error {
	if v.fd >= 0 {
		return errors.New("it is here already")
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	*v = viewer{number: v.number, fd: -1, form: f, due: due, request: request}
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if f != normal {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, smallWindow)
	}
	// Its port is chosen by connect, as that of an unbound one.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	if err = unix.Bind(fd, source(int(v.number))); err != nil {
		return errors.Join(fmt.Errorf("bind: %w", err), unix.Close(fd))
	}
	if err = unix.Connect(fd, &c.address); err == nil || errors.Is(err, unix.EINPROGRESS) {
		err = unix.EpollCtl(c.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: v.number})
	}
	if err != nil {
		return errors.Join(fmt.Errorf("connect: %w", err), unix.Close(fd))
	}
	v.fd = int32(fd)
	c.open++
	return nil
}

// perSource is how many viewers come from one address of the machine: with more, the kernel
// would search long for a free port, and that would be in the time of the joins.
const perSource = 4000

// source is the address that a viewer comes from.
func source(number int) *unix.SockaddrInet4 {
	n := 1 + number/perSource
	return &unix.SockaddrInet4{Addr: [4]byte{127, 0, byte(n >> 8), byte(n)}}
}

// abort ends a viewer's connection without a word, and without TIME_WAIT.
func (v *viewer) abort() {
	if v.fd < 0 {
		return
	}
	_ = unix.SetsockoptLinger(int(v.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	_ = unix.Close(int(v.fd))
	v.fd = -1
}

// out takes a viewer out of those who are in.
func (c *crowd) out(v *viewer) {
	if v.in {
		v.in = false
		c.in--
	}
}

// end is the end of a connection, with the cause if there is one. Only who was told to
// leave, or does not read, may be ended by the server.
func (c *crowd) end(v *viewer, code int, cause error) {
	if v.fd < 0 {
		return
	}
	c.out(v)
	if v.state != leaving {
		if e, known := c.events[int(v.number)]; !known || e.code == 0 {
			c.events[int(v.number)] = closing{code, now()}
		}
		if v.form == normal {
			c.fail(fmt.Errorf("bench: viewer %d of port %d was cut off with code %d: %w", v.number, c.address.Port, code, cause))
		}
	}
	v.pending, v.request = nil, nil
	c.open--
	if err := unix.Close(int(v.fd)); err != nil {
		c.fail(fmt.Errorf("bench: close: %w", err))
	}
	v.fd = -1
}

var errEnd = errors.New("the connection has ended")

// ready serves a viewer whose socket is.
func (c *crowd) ready(v *viewer, buf []byte) {
	if v.fd < 0 {
		return
	}
	if v.state == connecting {
		c.ask(v)
		return
	}
	c.read(v, buf)
}

// read reads once, at most len(buf) bytes.
func (c *crowd) read(v *viewer, buf []byte) {
	n, err := unix.Read(int(v.fd), buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return
	case err == nil && n == 0:
		err = errEnd
	}
	if err != nil {
		c.end(v, 0, err)
		return
	}
	c.feed(v, buf[:n], now())
}

// ask sends the request, once there is a connection.
func (c *crowd) ask(v *viewer) {
	code, err := unix.GetsockoptInt(int(v.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	if err != nil {
		c.end(v, 0, fmt.Errorf("connect: %w", err))
		return
	}
	v.state = answering
	request := v.request
	v.request = nil
	c.write(v, request)
	if v.fd >= 0 {
		c.listen(v, unix.EPOLL_CTL_MOD)
	}
}

func (c *crowd) listen(v *viewer, op int) {
	if err := unix.EpollCtl(c.epfd, op, int(v.fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: v.number}); err != nil {
		c.end(v, 0, fmt.Errorf("epoll: %w", err))
	}
}

// write writes a frame. Viewers say little: what the kernel does not take at once is
// an error.
func (c *crowd) write(v *viewer, p []byte) {
	if v.fd < 0 {
		return
	}
	if n, err := unix.Write(int(v.fd), p); err != nil || n < len(p) {
		c.end(v, 0, fmt.Errorf("wrote %d of %d bytes: %w", n, len(p), err))
	}
}

// feed takes what came for a viewer.
func (c *crowd) feed(v *viewer, p []byte, at int64) {
	kept := len(v.pending) > 0
	if kept {
		v.pending = append(v.pending, p...)
		p = v.pending
	}
	for len(p) > 0 && v.fd >= 0 {
		rest, ok, err := c.take(v, p, at)
		if err != nil {
			c.end(v, 0, err)
			return
		}
		if !ok {
			break
		}
		p = rest
	}
	switch {
	case len(p) == 0 || v.fd < 0:
		v.pending = nil
	case kept:
		v.pending = append(v.pending[:0], p...)
	default:
		v.pending = bytes.Clone(p)
	}
}

// take takes the answer or the frame that p begins with; ok is false if it has not come
// whole.
func (c *crowd) take(v *viewer, p []byte, at int64) (rest []byte, ok bool, err error) {
	if v.state == answering {
		head, rest, whole := bytes.Cut(p, []byte("\r\n\r\n"))
		if !whole {
			return nil, false, nil
		}
		line, _, _ := bytes.Cut(head, []byte("\r\n"))
		if !bytes.HasPrefix(line, []byte("HTTP/1.1 101 ")) {
			return nil, false, fmt.Errorf("the server answers %q", line)
		}
		v.state = watching
		if !c.welcomed {
			c.enter(v, at)
		}
		return rest, true, nil
	}
	first, payload, rest, ok, err := serverFrame(p)
	if !ok || err != nil {
		return nil, false, err
	}
	return rest, true, c.frame(v, first, payload, len(p)-len(rest), at)
}

// enter notes that a viewer is in.
func (c *crowd) enter(v *viewer, at int64) {
	if v.in || v.state == leaving {
		return
	}
	v.in = true
	c.in++
	record(c.join, at-v.due)
	if v.form != normal {
		_ = unix.EpollCtl(c.epfd, unix.EPOLL_CTL_DEL, int(v.fd), nil) // it is there
	}
}

// frame takes one frame of size bytes in all.
func (c *crowd) frame(v *viewer, first byte, payload []byte, size int, at int64) error {
	switch first & opBits {
	case opPing:
		c.write(v, clientFrame(opPong, payload))
		return nil
	case opPong:
		c.tally.pongs++
		return nil
	case opClose:
		code := 1005
		if len(payload) >= 2 {
			code = int(binary.BigEndian.Uint16(payload))
		}
		c.end(v, code, fmt.Errorf("%q", payload))
		return nil
	case opText:
	default:
		return fmt.Errorf("a frame begins with %#x", first)
	}
	t, err := c.hear(payload, first&rsv1Bit != 0)
	if err != nil {
		return err
	}
	if t.comments {
		c.arrived(v, t, size, at)
		return nil
	}
	switch m := t.message.(type) {
	case *protocol.Welcome:
		c.enter(v, at)
	case *protocol.Viewers:
		c.counted = *m
	case *protocol.OK:
		c.tally.acks++
	case *protocol.Error:
		c.tally.refused[m.Code]++
	case *protocol.Gap:
		c.tally.gaps++
		v.missed += int64(m.Missed)
		if v.form == normal {
			c.tally.missed += int64(m.Missed)
		}
	case *protocol.Beat:
		c.tally.beats++
	}
	return nil
}

// arrived counts and times comments.
func (c *crowd) arrived(v *viewer, t *told, size int, at int64) {
	if t.history {
		return
	}
	v.got += int64(len(t.numbers))
	v.missed += t.withheld
	if v.form != normal {
		return // it is on its own
	}
	s := &c.tally
	s.frames++
	s.bytes += int64(size)
	s.withheld += t.withheld
	if t.window != c.plan.window {
		s.other += int64(len(t.numbers))
		return
	}
	s.deliveries += int64(len(t.numbers))
	for _, n := range t.numbers {
		late := at - c.plan.due(n)
		record(s.latency, late)
		s.slowest = max(s.slowest, late)
	}
}

// sip reads up to n bytes for a viewer that does not read by itself.
func (c *crowd) sip(i, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.viewers[i]; v.fd >= 0 {
		c.read(v, make([]byte, n))
	}
}
