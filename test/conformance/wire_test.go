package conformance

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
)

// wire is the connection below a client. It can keep back what is written, or send
// it in pieces.
type wire struct {
	net.Conn
	chopped bool

	mu     sync.Mutex
	corked bool
	writes int // that still are kept back; only while it is limited
	limit  bool
	kept   bytes.Buffer
}

func (w *wire) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if w.Conn != nil {
		return nil, errors.New("the client connects twice")
	}
	c, err := new(net.Dialer).DialContext(ctx, network, address)
	w.Conn = c
	return w, err
}

func (w *wire) cork() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.corked = true
}

// letGo keeps back further n writes, and then lets all go.
func (w *wire) letGo(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit, w.writes = true, n
}

func (w *wire) uncork() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pour()
}

func (w *wire) pour() error {
	w.corked = false
	if w.kept.Len() == 0 {
		return nil // the connection may be closed by now
	}
	_, err := w.put(w.kept.Bytes())
	w.kept.Reset()
	return err
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.corked {
		return w.put(p)
	}
	w.kept.Write(p)
	if w.limit {
		if w.writes--; w.writes <= 0 {
			return len(p), w.pour()
		}
	}
	return len(p), nil
}

// put writes p, in pieces if they are wanted. The caller holds mu.
func (w *wire) put(p []byte) (int, error) {
	if !w.chopped {
		return w.Conn.Write(p)
	}
	done := 0
	for i := 0; done < len(p); i++ {
		sizes := [...]int{1, 1, 2, 3, 5, 1, 7, 130, 1, 2000, 8000}
		n, err := w.Conn.Write(p[done:min(done+sizes[i%len(sizes)], len(p))])
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}
