//go:build unix

package chaos

import (
	"bufio"
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// link stands between two processes and hands on what they say to each other, as well as
// its weather allows. Where one is a NATS server and the other its client it can lose
// single messages as well, as nothing can that only knows bytes: a lost message leaves no
// trace on the connection.
type link struct {
	name     string // from>to
	listener net.Listener
	nats     bool // what comes back are NATS messages

	weather atomic.Pointer[weather]
	lose    atomic.Pointer[func(subject string) bool] // nil: nothing
	lost    atomic.Int64

	mu       sync.Mutex
	upstream string        // where what comes is led
	done     chan struct{} // closed when the link is
	conns    map[net.Conn]bool
	running  sync.WaitGroup
}

// weather is what a link does to what passes it. It does not change.
type weather struct {
	cut           bool // nothing passes; what was on its way comes when the weather is over
	delay, jitter time.Duration
	over          chan struct{} // closed when other weather has come
}

func newLink(name, upstream string, nats bool) (*link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{name: name, upstream: upstream, listener: listener, nats: nats, done: make(chan struct{}), conns: map[net.Conn]bool{}}
	l.weather.Store(&weather{over: make(chan struct{})})
	l.running.Go(l.accept) // ends with close
	return l, nil
}

func (l *link) accept() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", l.target())
		if err != nil {
			_ = client.Close() // it tries again
			continue
		}
		if !l.hold(client, server) {
			return
		}
		there, back := l.pass, l.pass
		if l.nats {
			back = l.listen
		}
		// Both end when either end of the connection does, or with close.
		l.running.Go(func() { defer l.drop(client, server); there(server, client) })
		l.running.Go(func() { defer l.drop(client, server); back(client, server) })
	}
}

// hold remembers connections, so that they can be closed; false when the link is.
func (l *link) hold(conns ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		if l.conns == nil {
			_ = c.Close()
		} else {
			l.conns[c] = true
		}
	}
	return l.conns != nil
}

func (l *link) drop(conns ...net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(l.conns, c)
	}
}

// reset closes all connections, without a goodbye.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // it is closed either way
		}
		_ = c.Close()
	}
}

func (l *link) target() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.upstream
}

// lead leads the link to somewhere else from the next connection on, and ends those there
// are.
func (l *link) lead(upstream string) {
	l.mu.Lock()
	l.upstream = upstream
	l.mu.Unlock()
	l.reset()
}

// become changes the weather.
func (l *link) become(w weather) {
	w.over = make(chan struct{})
	close(l.weather.Swap(&w).over)
}

func (l *link) close() {
	_ = l.listener.Close()
	l.reset()
	l.mu.Lock()
	l.conns = nil
	l.mu.Unlock()
	close(l.done)
	l.running.Wait()
}

// wait waits as long as the weather wants what is on its way to wait; false when the link
// is closed.
func (l *link) wait() bool {
	for {
		w := l.weather.Load()
		if !w.cut {
			pause := w.delay
			if w.jitter > 0 {
				pause += rand.N(2*w.jitter) - w.jitter
			}
			time.Sleep(pause) // short
			return true
		}
		select {
		case <-w.over:
		case <-l.done:
			return false
		}
	}
}

// pass hands on bytes until either end is closed.
func (l *link) pass(to io.Writer, from io.Reader) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || !l.wait() {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// listen hands on what a NATS server says, but for the messages to be lost. See
// docs.nats.io/reference/reference-protocols/nats-protocol.
func (l *link) listen(client io.Writer, server io.Reader) {
	in, out := bufio.NewReaderSize(server, 64<<10), bufio.NewWriterSize(client, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		subject, size, is := message(line)
		if lose := l.lose.Load(); is && lose != nil && (*lose)(subject) {
			l.lost.Add(1)
			if _, err := in.Discard(size); err != nil {
				return
			}
		} else {
			if _, err := out.Write(line); err != nil {
				return
			}
			if _, err := io.CopyN(out, in, int64(size)); err != nil {
				return
			}
		}
		if in.Buffered() == 0 && (!l.wait() || out.Flush() != nil) {
			return
		}
	}
}

// message reads the head of a message: MSG subject sid [reply] size, or HMSG subject sid
// [reply] headers size. size is what follows the line; 0 for other lines.
func message(line []byte) (subject string, size int, is bool) {
	if !bytes.HasPrefix(line, []byte("MSG ")) && !bytes.HasPrefix(line, []byte("HMSG ")) {
		return "", 0, false
	}
	fields := strings.Fields(string(line))
	if len(fields) < 4 {
		return "", 0, false
	}
	n, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil || n < 0 {
		return "", 0, false
	}
	return fields[1], n + len("\r\n"), true
}
