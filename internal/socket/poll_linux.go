package socket

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// polls tells connections when there is something to read, and when their peers
// take something again: once each time they ask for it. It opens when the first
// connection needs it.
//
// Reports come with descriptor and generation. A descriptor is used again as soon
// as it is closed, and a report about its last connection may be under way then
// (while a child process is being started that shares it, for one).
type polls struct {
	srv *Server

	mu         sync.Mutex
	in, out    *poll
	closed     bool
	conns      []*Conn // by descriptor
	generation uint32
}

// open makes sure that the polls are there; false when they cannot be.
func (s *polls) open() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.in != nil {
		return !s.closed
	}
	in, err := newPoll()
	if err != nil {
		return false
	}
	out, err := newPoll()
	if err != nil {
		in.close()
		return false
	}
	s.in, s.out = in, out
	// They end when Server.Close, which waits for them, closes the polls.
	s.srv.goroutines.Go(func() { s.run(in, (*Conn).readable) })
	s.srv.goroutines.Go(func() { s.run(out, (*Conn).writable) })
	return true
}

// close ends the reports.
func (s *polls) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.in != nil {
		s.in.close()
		s.out.close()
	}
}

// add gives a connection its generation, before it asks for anything.
func (s *polls) add(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation++
	c.generation = s.generation
	if more := int(c.fd) + 1 - len(s.conns); more > 0 {
		s.conns = append(s.conns, make([]*Conn, more)...)
	}
	s.conns[c.fd] = c
}

// forget follows the last report about a connection, and comes before its
// descriptor is closed, which ends what it has asked for.
func (s *polls) forget(c *Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c.fd] = nil
}

// run reports what a poll has to say, each to a goroutine of its own: a handler
// that does not return keeps only its connection.
func (s *polls) run(p *poll, ready func(*Conn)) {
	batch := make([]*Conn, 0, batchSize)
	for {
		events, err := p.wait()
		if err != nil {
			return
		}
		s.mu.Lock()
		for _, e := range events {
			if c := s.conns[e.Fd]; c != nil && c.generation == uint32(e.Pad) {
				batch = append(batch, c)
			}
		}
		s.mu.Unlock()
		for _, c := range batch {
			// It ends when it has read what there is, or when the peer has taken what it
			// does; the connection's end waits for it, and Server.Close for that.
			s.srv.goroutines.Go(func() { ready(c) })
		}
		clear(batch)
		batch = batch[:0]
		// They come first, so that there are few at a time however many are ready.
		runtime.Gosched()
	}
}

// batchSize is how many reports are taken at a time.
const batchSize = 64

// poll is an epoll instance. The runtime watches it, so that waiting for it keeps
// no thread.
type poll struct {
	file   *os.File
	raw    syscall.RawConn
	fd     int
	events [batchSize]unix.EpollEvent
	n      int
	look   func(fd uintptr) bool
}

func newPoll() (*poll, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or the runtime would not watch it
		_ = unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	p := &poll{fd: fd, file: os.NewFile(uintptr(fd), "epoll")}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	p.look = func(fd uintptr) bool {
		n, err := unix.EpollWait(int(fd), p.events[:], 0)
		p.n = max(n, 0)
		return p.n > 0 || errors.Is(err, unix.EINTR)
	}
	return p, nil
}

// wait returns the next reports, which are valid until the next call.
func (p *poll) wait() ([]unix.EpollEvent, error) {
	err := p.raw.Read(p.look)
	return p.events[:p.n], err
}

func (p *poll) close() { _ = p.file.Close() }

// ask asks for one report. c.fd is in use by the caller.
func (p *poll) ask(c *Conn, events uint32) error {
	e := unix.EpollEvent{Events: events | unix.EPOLLONESHOT, Fd: c.fd, Pad: int32(c.generation)}
	err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, int(c.fd), &e)
	if errors.Is(err, unix.ENOENT) {
		err = unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, int(c.fd), &e)
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// awaitRead asks for a report when there is something to read; the end of the
// stream and errors are something.
func (s *polls) awaitRead(c *Conn) error {
	c.armed.Store(true)
	return s.in.ask(c, unix.EPOLLIN)
}

// awaitWrite asks for a report when the peer takes something again.
func (s *polls) awaitWrite(c *Conn) error { return s.out.ask(c, unix.EPOLLOUT) }

// forgetWrite has the kernel keep nothing that only connections need which are
// behind.
func (s *polls) forgetWrite(c *Conn) {
	_ = unix.EpollCtl(s.out.fd, unix.EPOLL_CTL_DEL, int(c.fd), nil)
}
