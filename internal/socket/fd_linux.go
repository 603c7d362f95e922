package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setNotSentLowat bounds what the kernel takes for a peer that reads nothing.
func setNotSentLowat(nc net.Conn, n int) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return
	}
	if rc, err := sc.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n)
		})
	}
}

// takeFD takes the descriptor of a TCP connection away from net, so that what net
// and the runtime keep of it beside is let go, and so that only this package's
// polls wake for it. It returns false, and leaves tcp as it is, if that cannot be
// done.
func takeFD(tcp *net.TCPConn) (fd int32, ok bool) {
	rc, err := tcp.SyscallConn()
	if err != nil {
		return 0, false
	}
	// net closes its own descriptor; the socket stays, non-blocking as it was.
	dup := -1
	if rc.Control(func(fd uintptr) {
		dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	}) != nil || err != nil {
		return 0, false
	}
	_ = tcp.Close()
	return int32(dup), true
}

// abortFD ends both directions, so that waiting callers wake, and
// has releaseFD reset the connection if hard. The caller holds mu.
func (c *Conn) abortFD(hard bool) {
	fd := int(c.fd)
	if hard {
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	_ = unix.Shutdown(fd, unix.SHUT_RDWR)
}

// sendFIN follows the close frame. The holder of the token calls it.
func (c *Conn) sendFIN() { _ = unix.Shutdown(int(c.fd), unix.SHUT_WR) }

// releaseFD closes the descriptor: nobody uses it any more.
func (c *Conn) releaseFD() {
	c.srv.polls.forget(c)
	_ = unix.Close(int(c.fd))
}

// readable reads what there is and asks to be told when there is more. It is the
// reader, one call at a time: a peer that sends without end is read no oftener
// than others.
func (c *Conn) readable() {
	if !c.armed.CompareAndSwap(true, false) {
		return
	}
	buf := c.srv.decoding.buffers.get()
	n, err := read(c.fd, buf.b)
	if n > 0 {
		c.received(buf.b[:n])
	}
	c.srv.decoding.buffers.put(buf)
	switch {
	case err != nil && !errors.Is(err, unix.EAGAIN):
		err = os.NewSyscallError("read", err)
	case n == 0 && err == nil:
		err = c.endOfStream()
	default:
		err = c.arm()
	}
	if err != nil {
		c.finish(err)
	}
}

// endOfStream tells whose end it is.
func (c *Conn) endOfStream() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.aborted {
		return net.ErrClosed
	}
	return io.EOF
}

// arm asks to be told when there is something to read. The reader calls it.
func (c *Conn) arm() error { return c.srv.polls.awaitRead(c) }

// writable goes on with the batch that is waiting.
func (c *Conn) writable() {
	c.mu.Lock()
	x := c.extra
	if x == nil || x.waiting == nil {
		c.mu.Unlock()
		return
	}
	t := x.waiting
	x.waiting = nil
	if !c.unwritable {
		// Control frames go between the frames.
		var room [2][]byte
		t.frames = slices.Insert(t.frames, t.boundary(), c.control(room[:0])...)
	}
	c.mu.Unlock()
	c.goOn(t)
}

// goOn writes what t holds and what comes to be fetched meanwhile, until there is
// nothing or the peer does not take it now.
func (c *Conn) goOn(t *batch) {
	for c.attempt(t) {
		if !c.gather(t) {
			return
		}
	}
	c.await(t)
}

// await has writable go on with t, of which something is left.
func (c *Conn) await(t *batch) {
	c.mu.Lock()
	c.behind(t.raw.taken > 0)
	t.raw.taken = 0
	c.extra.waiting = t
	c.mu.Unlock()
	if err := c.srv.polls.awaitWrite(c); err != nil {
		c.mu.Lock()
		c.extra.waiting = nil
		c.mu.Unlock()
		c.cannotWrite(t, err)
		c.gather(t)
	}
}

// awaitNoMore is for a connection that is not behind any more.
func (c *Conn) awaitNoMore() { c.srv.polls.forgetWrite(c) }

// maxVector is how many frames one system call writes.
const maxVector = 64

// rawWrite is one system call that writes and does not wait.
type rawWrite struct {
	vector  [maxVector]unix.Iovec
	message unix.Msghdr
	taken   int // bytes, since somebody has looked at it
}

// attempt writes what t holds as far as the kernel takes it now. It returns true
// when nothing of it is left.
func (c *Conn) attempt(t *batch) bool {
	for t.left() {
		n, size, err := t.raw.write(c.fd, t)
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		if err != nil {
			c.cannotWrite(t, os.NewSyscallError("write", err))
			return true
		}
		c.srv.metrics.sentBytes.add(c.shard, n)
		t.raw.taken += n
		t.wrote(n)
		if n < size {
			return false
		}
	}
	return true
}

// write is one system call; size is how much it would write at best. It is send(2)
// or sendmsg(2), which are the same as write(2) and writev(2) but for what those look
// up about files.
func (w *rawWrite) write(fd int32, t *batch) (n, size int, err error) {
	const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	if t.next == len(t.frames)-1 {
		p := t.frames[t.next][t.offset:]
		n, err = rawCall(unix.SYS_SENDTO, fd, unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)), flags)
		return n, len(p), err
	}
	used := 0
	for i, offset := t.next, t.offset; i < len(t.frames) && used < maxVector; i, offset = i+1, 0 {
		p := t.frames[i][offset:]
		w.vector[used].Base = unsafe.SliceData(p)
		w.vector[used].SetLen(len(p))
		used++
		size += len(p)
	}
	w.message.Iov = &w.vector[0]
	w.message.SetIovlen(used)
	n, err = rawCall(unix.SYS_SENDMSG, fd, unsafe.Pointer(&w.message), flags, 0)
	clear(w.vector[:used])
	return n, size, err
}

func read(fd int32, p []byte) (int, error) {
	return rawCall(unix.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(p)), uintptr(len(p)), 0)
}

// rawCall is a system call that does not wait, so that the scheduler need not be told
// of it.
func rawCall(trap uintptr, fd int32, p unsafe.Pointer, a, b uintptr) (int, error) {
	for {
		r, _, errno := syscall.RawSyscall6(trap, uintptr(fd), uintptr(p), a, b, 0, 0)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
