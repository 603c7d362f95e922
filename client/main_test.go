package client

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server hands each connection in turn to the next script; those beyond the last
// are handed to the last.
type server struct {
	t       *testing.T
	http    *http.Server
	conns   chan net.Conn
	stop    chan struct{}
	serving sync.WaitGroup
	client  *http.Client

	mu       sync.Mutex
	requests []*http.Request
	scripts  []func(*peer)
	refusals []func(http.ResponseWriter) // before the scripts
}

// newServer serves over pipes in memory, so that it can run in a bubble of
// synctest. It ends when the test does, or by close.
func newServer(t *testing.T, scripts ...func(*peer)) *server {
	s := &server{t: t, scripts: scripts, conns: make(chan net.Conn), stop: make(chan struct{})}
	s.http = &http.Server{Handler: s}
	s.serving.Go(func() { _ = s.http.Serve(s) }) // ends with Close, as its error says
	s.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			near, far := net.Pipe()
			select {
			case s.conns <- far:
				return near, nil
			case <-s.stop:
				return nil, errors.New("refused")
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}}
	return s
}

func (s *server) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.stop:
		return nil, net.ErrClosed
	}
}
func (s *server) Close() error   { return nil }
func (s *server) Addr() net.Addr { return &net.TCPAddr{} }

func (s *server) close() {
	close(s.stop)
	_ = s.http.Close()
	s.serving.Wait()
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	if len(s.refusals) > 0 {
		refuse := s.refusals[0]
		s.refusals = s.refusals[1:]
		s.mu.Unlock()
		refuse(w)
		return
	}
	script := s.scripts[0]
	if len(s.scripts) > 1 {
		s.scripts = s.scripts[1:]
	}
	s.serving.Add(1)
	s.mu.Unlock()
	defer s.serving.Done()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{protocol.Subprotocol}, CompressionMode: websocket.CompressionNoContextTakeover,
	})
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	script(&peer{s: s, ws: ws, r: r, ctx: ctx})
}

// asked is the request of the n-th connection.
func (s *server) asked(n int) *http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n >= len(s.requests) {
		s.t.Fatalf("%d connections, want more than %d", len(s.requests), n)
	}
	return s.requests[n]
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// peer is the server's end of one connection.
type peer struct {
	s   *server
	ws  *websocket.Conn
	r   *http.Request
	ctx context.Context
}

const testSession = "session-0123456789"

func (p *peer) welcome(recovered bool) {
	p.sendMessage(&protocol.Welcome{V: 1, Room: "r", Session: testSession, Recovered: recovered, BeatMS: 30_000})
}

func (p *peer) sendMessage(m protocol.Message) { p.send(string(protocol.Encode(m))) }

func (p *peer) send(s string) {
	// An error is the client's leaving, which the test sees on its side.
	_ = p.ws.Write(p.ctx, websocket.MessageText, []byte(s))
}

// read returns the next request, nil at the end of the connection.
func (p *peer) read() map[string]any {
	_, b, err := p.ws.Read(p.ctx)
	if err != nil {
		return nil
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		p.s.t.Errorf("request %s: %v", b, err)
	}
	return m
}

// answer answers beats and hands other requests to f, to the end.
func (p *peer) answer(f func(map[string]any)) {
	for m := p.read(); m != nil; m = p.read() {
		if m["type"] == protocol.TypeBeat {
			p.sendMessage(&protocol.Beat{Now: time.Now().UnixMilli()})
		} else if f != nil {
			f(m)
		}
	}
}

// Codes that no close frame has.
const (
	noStatus protocol.CloseCode = 1005 // the frame had none
	lost     protocol.CloseCode = 1006 // there was no frame
)

// end closes with any of the codes.
func (p *peer) end(code protocol.CloseCode, reason string) {
	if code == lost {
		_ = p.ws.CloseNow() // the client's side is what is tested
		return
	}
	p.close(code, reason)
}

func (p *peer) close(code protocol.CloseCode, reason string) {
	_ = p.ws.Close(websocket.StatusCode(code), reason) // the client's side is what is tested
}
