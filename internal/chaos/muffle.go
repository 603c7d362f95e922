//go:build unix

package chaos

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// muffler stands between a NATS client and a server, reads what the server says, and
// loses messages on their way as nothing does that only knows bytes: a lost message
// leaves no trace on the connection.
type muffler struct {
	upstream string
	listener net.Listener
	lose     atomic.Pointer[func(subject string) bool] // nil: nothing
	lost     atomic.Int64

	mu      sync.Mutex
	closed  bool
	conns   map[net.Conn]bool
	running sync.WaitGroup
}

func newMuffler(upstream string) (*muffler, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	m := &muffler{upstream: upstream, listener: l, conns: map[net.Conn]bool{}}
	m.running.Go(m.accept) // ends with close
	return m, nil
}

func (m *muffler) accept() {
	for {
		client, err := m.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", m.upstream)
		if err != nil {
			_ = client.Close() // it tries again
			continue
		}
		if !m.hold(client, server) {
			return
		}
		// Both end when either end of the connection does, or with close.
		m.running.Go(func() {
			defer m.drop(client, server)
			_, _ = io.Copy(server, client) // its end is the connection's
		})
		m.running.Go(func() {
			defer m.drop(client, server)
			_ = m.listen(client, server) // the same
		})
	}
}

func (m *muffler) hold(conns ...net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range conns {
		if m.closed {
			_ = c.Close()
		}
		m.conns[c] = true
	}
	return !m.closed
}

func (m *muffler) drop(conns ...net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
		delete(m.conns, c)
	}
}

func (m *muffler) close() {
	_ = m.listener.Close()
	m.mu.Lock()
	m.closed = true
	for c := range m.conns {
		_ = c.Close()
	}
	m.mu.Unlock()
	m.running.Wait()
}

// listen hands on what the server says, but for the messages to be lost. See
// docs.nats.io/reference/reference-protocols/nats-protocol.
func (m *muffler) listen(client io.Writer, server io.Reader) error {
	in, out := bufio.NewReaderSize(server, 64<<10), bufio.NewWriterSize(client, 64<<10)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		subject, size, is := message(line)
		if lose := m.lose.Load(); is && lose != nil && (*lose)(subject) {
			m.lost.Add(1)
			if _, err := in.Discard(size); err != nil {
				return err
			}
		} else {
			if _, err := out.Write(line); err != nil {
				return err
			}
			if _, err := io.CopyN(out, in, int64(size)); err != nil {
				return err
			}
		}
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
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
