package socket

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// rawConn is the descriptor of a connection that has one of its own.
func rawConn(nc net.Conn) syscall.RawConn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return rc
}

// setNotSentLowat bounds what the kernel takes for a peer that reads nothing.
func setNotSentLowat(nc net.Conn, n int) {
	if rc := rawConn(nc); rc != nil {
		_ = rc.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n)
		})
	}
}

// maxVector is how many frames one system call writes.
const maxVector = 64

// rawWrite is one write(2) or writev(2) that does not wait. It is pooled with its
// turn, so that the closure is made once.
type rawWrite struct {
	vector [maxVector]syscall.Iovec
	used   int
	call   func(fd uintptr)
	n      int
	err    error
}

func (w *rawWrite) init() { w.call = w.do }

func (w *rawWrite) do(fd uintptr) {
	for {
		var n int
		var err error
		if w.used == 1 {
			n, err = unix.Write(int(fd), unsafe.Slice(w.vector[0].Base, w.vector[0].Len))
		} else {
			r, _, errno := syscall.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&w.vector[0])), uintptr(w.used))
			if n = int(r); errno != 0 {
				err = errno
			}
		}
		if !errors.Is(err, unix.EINTR) {
			w.n, w.err = max(n, 0), err
			return
		}
	}
}

// attempt writes what t holds as far as the kernel takes it now. It returns true
// when nothing of it is left.
func (c *Conn) attempt(t *turn) bool {
	w := &t.raw
	for t.left() {
		w.used = 0
		size := 0
		for i, offset := t.next, t.offset; i < len(t.frames) && w.used < maxVector; i, offset = i+1, 0 {
			p := t.frames[i][offset:]
			v := &w.vector[w.used]
			v.Base = unsafe.SliceData(p)
			v.SetLen(len(p))
			w.used++
			size += len(p)
		}
		err := c.rc.Control(w.call)
		if err == nil {
			err = w.err
		}
		clear(w.vector[:w.used])
		if errors.Is(err, syscall.EAGAIN) {
			return false
		}
		if err != nil {
			c.broken(err)
			t.reset()
			t.last = false
			return true
		}
		c.srv.metrics.sentBytes.add(c.shard, w.n)
		t.wrote(w.n)
		if w.n < size {
			return false
		}
	}
	return true
}

// receiveRaw reads until it cannot any more. It holds a buffer only while there
// are bytes.
func (c *Conn) receiveRaw() error {
	pool := &c.srv.decoding.buffers
	var (
		buf *buffer
		n   int
		err error
	)
	poll := func(fd uintptr) bool {
		buf = pool.get()
		for {
			n, err = unix.Read(int(fd), buf.b)
			if err != unix.EINTR {
				break
			}
		}
		if err == unix.EAGAIN {
			pool.put(buf)
			buf = nil
			return false
		}
		return true
	}
	for {
		if err := c.rc.Read(poll); err != nil {
			return err
		}
		if n > 0 {
			c.received(buf.b[:n])
		}
		pool.put(buf)
		buf = nil
		if err != nil {
			return os.NewSyscallError("read", err)
		}
		if n == 0 {
			return io.EOF
		}
	}
}
