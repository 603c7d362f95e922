package socket

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// path is a way in which a TCP connection is held.
type path struct {
	name     string
	portable bool
}

// config is c for connections that are held in this way.
func (p path) config(c Config) Config {
	c.portable = p.portable
	return c
}

// onBoth runs a test for each way in which a connection is held.
func onBoth(t *testing.T, test func(t *testing.T, via path)) {
	t.Parallel()
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			test(t, p)
		})
	}
}

// patience bounds what a test waits for; it is never what is measured.
const patience = time.Minute

// viewer is a Handler that records, and whose outbox is written.
type viewer struct {
	t         testing.TB
	conn      *Conn
	onMessage func(p []byte)
	got       chan string
	done      chan Cause

	mu      sync.Mutex
	outbox  [][]byte
	batch   int // at most so many frames a call of Next; 0: all
	calls   int // of Message and Closed under way
	fetches int // of Next under way
	ended   bool
}

func newViewer(t testing.TB) *viewer {
	return &viewer{t: t, got: make(chan string, 1000), done: make(chan Cause, 2)}
}

func (v *viewer) Next(dst [][]byte) [][]byte {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fetches++; v.fetches > 1 {
		v.t.Error("calls of Next overlap")
	}
	defer func() { v.fetches-- }()
	if v.ended {
		v.t.Error("Next was called after Closed")
	}
	n := len(v.outbox)
	if v.batch > 0 {
		n = min(n, v.batch)
	}
	dst = append(dst, v.outbox[:n]...)
	v.outbox = v.outbox[n:]
	return dst
}

func (v *viewer) enter(what string) func() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.calls++; v.calls > 1 {
		v.t.Errorf("%s overlaps another call", what)
	}
	if v.ended {
		v.t.Errorf("%s was called after Closed", what)
	}
	return func() { v.mu.Lock(); v.calls--; v.mu.Unlock() }
}

func (v *viewer) Message(p []byte) {
	defer v.enter("Message")()
	if v.onMessage != nil {
		v.onMessage(p)
		return
	}
	v.got <- string(p)
}

func (v *viewer) Closed(c Cause) {
	defer v.enter("Closed")()
	v.mu.Lock()
	v.ended = true
	v.mu.Unlock()
	v.done <- c
}

// send puts frames into the outbox and flushes.
func (v *viewer) send(frames ...[]byte) {
	v.mu.Lock()
	v.outbox = append(v.outbox, frames...)
	v.mu.Unlock()
	v.conn.Flush()
}

func (v *viewer) message() string {
	v.t.Helper()
	select {
	case m := <-v.got:
		return m
	case c := <-v.done:
		v.t.Fatalf("closed (%v) instead of a message", c)
	case <-time.After(patience):
		v.t.Fatal("no message")
	}
	return ""
}

func (v *viewer) cause() Cause {
	v.t.Helper()
	select {
	case c := <-v.done:
		return c
	case <-time.After(patience):
		v.t.Fatal("not closed")
	}
	return Cause{}
}

// newTestServer is a Server that is closed, and all of whose goroutines have
// ended, when the test ends.
func newTestServer(t testing.TB, config Config) *Server {
	t.Helper()
	s := NewServer(config)
	t.Cleanup(func() { closeServer(t, s) })
	return s
}

// closeServer closes s and does not wait for peers that the test has forgotten.
func closeServer(t testing.TB, s *Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if n := s.Len(); n != 0 {
		t.Errorf("%d connections after Close", n)
	}
}

// site is an HTTP server whose every request is accepted by a Server and started
// with a viewer of its own.
type site struct {
	*httptest.Server
	t       testing.TB
	viewers chan *viewer
	running atomic.Int64 // handlers
	prepare func(*viewer)
	wrap    func(http.ResponseWriter) http.ResponseWriter
}

func newSite(t testing.TB, s *Server, options ...func(*site)) *site {
	t.Helper()
	st := &site{t: t, viewers: make(chan *viewer, 10000)}
	for _, o := range options {
		o(st)
	}
	st.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		st.running.Add(1)
		defer st.running.Add(-1)
		if st.wrap != nil {
			w = st.wrap(w)
		}
		c, err := s.Accept(w, r)
		if err != nil {
			return
		}
		v := newViewer(t)
		v.conn = c
		if st.prepare != nil {
			st.prepare(v)
		}
		c.Start(v)
		st.viewers <- v
	}))
	t.Cleanup(st.Close)
	return st
}

func withTCP(st *site) *site { st.Start(); return st }
func withTLS(st *site) *site { st.StartTLS(); return st }

func (st *site) viewer() *viewer {
	st.t.Helper()
	select {
	case v := <-st.viewers:
		return v
	case <-time.After(patience):
		st.t.Fatal("no viewer arrived")
	}
	return nil
}

// peer is a client that speaks in bytes.
type peer struct {
	net.Conn
	t  testing.TB
	br *bufio.Reader
}

const offerDeflate = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"

func request(extra string) string {
	return "GET /v1/rooms/r/ws HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" +
		"Sec-WebSocket-Protocol: " + protocol.Subprotocol + "\r\n" + extra + "\r\n"
}

// dial opens a connection to the site and completes the handshake.
func (st *site) dial(extra string) (*peer, *viewer) {
	st.t.Helper()
	nc, err := net.Dial("tcp", st.Listener.Addr().String())
	if err != nil {
		st.t.Fatal(err)
	}
	p := newPeer(st.t, nc)
	if _, err := io.WriteString(nc, request(extra)); err != nil {
		st.t.Fatal(err)
	}
	p.handshake()
	return p, st.viewer()
}

func newPeer(t testing.TB, nc net.Conn) *peer {
	t.Cleanup(func() { _ = nc.Close() })
	return &peer{Conn: nc, t: t, br: bufio.NewReaderSize(nc, 16)}
}

func (p *peer) handshake() {
	p.t.Helper()
	r, err := http.ReadResponse(p.br, &http.Request{Method: http.MethodGet})
	if err != nil {
		p.t.Fatal(err)
	}
	if r.StatusCode != http.StatusSwitchingProtocols {
		p.t.Fatalf("handshake: %s", r.Status)
	}
}

func (p *peer) write(b ...[]byte) {
	p.t.Helper()
	if _, err := p.Write(bytes.Join(b, nil)); err != nil {
		p.t.Fatal(err)
	}
}

// read reads one frame of the server.
func (p *peer) read() (first byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(p.br, head); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1])
	switch n {
	case 126:
		b := make([]byte, 2)
		if _, err := io.ReadFull(p.br, b); err != nil {
			return 0, nil, err
		}
		n = uint64(binary.BigEndian.Uint16(b))
	case 127:
		b := make([]byte, 8)
		if _, err := io.ReadFull(p.br, b); err != nil {
			return 0, nil, err
		}
		n = binary.BigEndian.Uint64(b)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(p.br, payload)
	return head[0], payload, err
}

// expect reads one frame and checks it.
func (p *peer) expect(first byte, payload string) {
	p.t.Helper()
	f, b, err := p.read()
	if err != nil || f != first || string(b) != payload {
		p.t.Fatalf("received %#x %.100q (%d bytes, %v), want %#x %.100q", f, b, len(b), err, first, payload)
	}
}

// expectCloseFrame reads up to the close frame.
func (p *peer) expectCloseFrame(code int, reason string) {
	p.t.Helper()
	for {
		f, b, err := p.read()
		if err != nil {
			p.t.Fatalf("%v instead of a close frame with %d", err, code)
		}
		if f != finBit|opClose {
			continue
		}
		if len(b) < 2 {
			p.t.Fatalf("close frame with %q, want %d", b, code)
		}
		if got := int(binary.BigEndian.Uint16(b)); got != code || !strings.Contains(string(b[2:]), reason) {
			p.t.Fatalf("closed with %d %q, want %d %q", got, b[2:], code, reason)
		}
		return
	}
}

// expectClose reads up to the close frame, answers it, and reads the end of the
// stream.
func (p *peer) expectClose(code int, reason string) {
	p.t.Helper()
	p.expectCloseFrame(code, reason)
	_, _ = p.Write(closing(code, "")) // the server may not wait for it
	if _, ok := p.Conn.(*net.TCPConn); !ok {
		return
	}
	if b, err := io.ReadAll(p.br); err != nil || len(b) > 0 {
		p.t.Fatalf("after the close frame: % x, %v", b, err)
	}
}

// frame is a client's frame, masked.
func frame(first byte, payload string) []byte {
	return frameLen(first, len(payload), payload)
}

// frameLen is a client's frame whose header claims n bytes.
func frameLen(first byte, n int, payload string) []byte {
	b := []byte{first}
	switch {
	case n <= 125:
		b = append(b, maskBit|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), uint64(n))
	}
	return append(b, masked(payload)...)
}

func masked(payload string) []byte {
	key := []byte{0x12, 0x34, 0x56, 0x78}
	b := append(bytes.Clone(key), payload...)
	for i := range len(payload) {
		b[4+i] ^= key[i&3]
	}
	return b
}

func text(s string) []byte { return frame(finBit|opText, s) }

func closing(code int, reason string) []byte {
	return frame(finBit|opClose, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
}

// deflated is s as a client deflates it.
func deflated(t testing.TB, s string) string {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestSpeed)
	if err == nil {
		_, err = io.WriteString(w, s)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// pipe is a connection over net.Pipe, accepted but not started.
func pipe(t testing.TB, s *Server) (*Conn, *peer) {
	t.Helper()
	server, client := net.Pipe()
	p := newPeer(t, client)
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request(""))))
	if err != nil {
		t.Fatal(err)
	}
	shaken := make(chan struct{})
	go func() { // ends when the handshake has been read, or the test has closed the pipe
		defer close(shaken)
		p.handshake()
	}()
	c, err := s.Accept(&hijackable{header: http.Header{}, nc: server}, r)
	if err != nil {
		t.Fatal(err)
	}
	<-shaken
	return c, p
}

// started is a connection over net.Pipe with a viewer.
func started(t testing.TB, s *Server) (*viewer, *peer) {
	t.Helper()
	c, p := pipe(t, s)
	v := newViewer(t)
	v.conn = c
	c.Start(v)
	return v, p
}

// hijackable is a response over any connection.
type hijackable struct {
	header http.Header
	nc     net.Conn
	early  string
	status int
	body   bytes.Buffer
}

func (h *hijackable) Header() http.Header { return h.header }
func (h *hijackable) WriteHeader(s int)   { h.status = s }
func (h *hijackable) Write(p []byte) (int, error) {
	if h.status == 0 {
		h.status = http.StatusOK
	}
	return h.body.Write(p)
}

func (h *hijackable) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if h.nc == nil {
		return nil, nil, errors.New("not to be taken")
	}
	br := bufio.NewReader(io.MultiReader(strings.NewReader(h.early), h.nc))
	if h.early != "" {
		if _, err := br.Peek(1); err != nil {
			return nil, nil, fmt.Errorf("peek: %w", err)
		}
	}
	return h.nc, bufio.NewReadWriter(br, bufio.NewWriter(h.nc)), nil
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// connect is dial for sites over TLS as well.
func (st *site) connect() (*peer, *viewer) {
	st.t.Helper()
	if st.TLS == nil {
		return st.dial("")
	}
	nc, err := tls.Dial("tcp", st.Listener.Addr().String(), &tls.Config{RootCAs: pool(st.Certificate()), ServerName: "example.com"})
	if err != nil {
		st.t.Fatal(err)
	}
	p := newPeer(st.t, nc)
	if _, err := io.WriteString(nc, request("")); err != nil {
		st.t.Fatal(err)
	}
	p.handshake()
	return p, st.viewer()
}

func pool(c *x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c)
	return p
}
