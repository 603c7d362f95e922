package conformance

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/socket"
	"github.com/kansei-live/kansei/protocol"
)

// mode is how permessage-deflate comes about, or does not.
type mode struct {
	name    string
	offer   bool           // the client asks for it
	agree   bool           // the server has it
	options map[string]any // of the client
	// chopped: what the client writes leaves in small pieces.
	chopped bool
}

func (m mode) deflates() bool { return m.offer && m.agree }

// run is one scenario, played by one client once.
type run struct {
	*scenario
	id   int
	way  string
	mode mode

	mu     sync.Mutex
	conn   *socket.Conn
	out    [][]byte // to be fetched
	got    []string
	form   *hub.Form
	closed chan socket.Cause
	server *socket.Server
	house  *house
}

func (r *run) name() string {
	return strings.ReplaceAll(strings.Join([]string{r.way, r.mode.name, r.scenario.name}, "/"), " ", "_")
}

// url is where the client plays it.
func (r *run) url() string { return fmt.Sprintf("%s/run/%d", r.house.ways[r.way], r.id) }

// The ways of a server to read and to write.
const (
	byTCP  = "tcp"  // by descriptor: epoll on Linux
	byBare = "bare" // TCP without a descriptor: goroutines
	byTLS  = "tls"
)

// house is the servers that one client visits.
type house struct {
	t       *testing.T
	ways    map[string]string // to the URL without a path
	tls     *httptest.Server
	runs    []*run // in the order of their ids, not changed once a client visits
	servers []*socket.Server
	shared  map[socket.Config]*socket.Server // those of servers that several runs use
	// goroutines are the pumps and shutdowns; they end by themselves.
	goroutines sync.WaitGroup
}

func newHouse(t *testing.T) *house {
	h := &house{t: t, ways: map[string]string{}, shared: map[socket.Config]*socket.Server{}}
	start := func(way, scheme string, f func(*httptest.Server)) {
		s := httptest.NewUnstartedServer(http.HandlerFunc(h.serve))
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // browsers open connections that they do not use
		f(s)
		t.Cleanup(s.Close)
		h.ways[way] = scheme + strings.TrimPrefix(s.Listener.Addr().String(), "http")
	}
	start(byTCP, "ws://", (*httptest.Server).Start)
	start(byBare, "ws://", func(s *httptest.Server) {
		s.Listener = bareListener{s.Listener}
		s.Start()
	})
	start(byTLS, "wss://", func(s *httptest.Server) {
		s.StartTLS()
		h.tls = s
	})
	// Before the servers above close: they wait for what is not ended here.
	t.Cleanup(func() {
		for _, s := range h.servers {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			if err := s.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Close: %v", err)
			}
			cancel()
		}
		h.goroutines.Wait()
	})
	return h
}

// add takes in every scenario of the table that a client with these abilities
// plays, in all of the modes.
func (h *house) add(table []scenario, can ability, modes []mode) {
	for i := range table {
		s := &table[i]
		if s.needs&^can != 0 {
			continue
		}
		for _, m := range modes {
			if s.once && (!m.deflates() || m.chopped || m.options != nil) {
				continue
			}
			h.addRun(s, byTCP, m)
			h.addRun(s, byBare, m)
			if m.deflates() && !m.chopped { // above TLS is what byBare has
				h.addRun(s, byTLS, m)
			}
		}
	}
}

func (h *house) addRun(s *scenario, way string, m mode) {
	config := socket.Config{Deflate: m.agree, MaxMessage: s.limit, PingAfter: s.ping, SilenceLimit: s.silence,
		// On a busy machine the client may be slow; time is not what is tested.
		MessageTimeout: patience, WriteTimeout: patience, CloseTimeout: patience}
	server := h.shared[config]
	if server == nil || s.shutdown {
		server = socket.NewServer(config)
		h.servers = append(h.servers, server)
		if !s.shutdown {
			h.shared[config] = server
		}
	}
	h.runs = append(h.runs, &run{scenario: s, id: len(h.runs), way: way, mode: m,
		closed: make(chan socket.Cause, 1), server: server, house: h})
}

func (h *house) serve(w http.ResponseWriter, q *http.Request) {
	var id int
	if _, err := fmt.Sscanf(q.URL.Path, "/run/%d", &id); err != nil || id < 0 || id >= len(h.runs) {
		http.NotFound(w, q)
		return
	}
	r := h.runs[id]
	c, err := r.server.Accept(w, q)
	if err != nil {
		h.t.Errorf("%s: %v", r.name(), err)
		return
	}
	r.mu.Lock()
	if r.conn != nil {
		h.t.Errorf("%s: played twice", r.name())
	}
	r.conn, r.form = c, c.Form()
	for i, m := range r.greeting {
		if i < len(r.pings) {
			r.out = append(r.out, slices.Concat([]byte{0x89, byte(len(r.pings[i]))}, []byte(r.pings[i])))
		}
		r.add(m)
	}
	r.mu.Unlock()
	c.Flush()
	c.Start(r)
	if r.hangUp != nil && !r.onFirst {
		c.Close(r.hangUp.code, r.hangUp.reason)
	}
	if r.pump > 0 {
		// It ends by itself: nothing of it waits.
		h.goroutines.Go(r.pumpAll)
	}
}

// add puts a message into the outbox, plain and as the connection takes it. The
// caller holds mu.
func (r *run) add(m string) {
	r.out = append(r.out, encode(socket.Plain, m), encode(r.form, m))
}

// encode makes the frame of a message, plain where deflating it is not worth it.
func encode(form *hub.Form, m string) []byte {
	if b := form.Encode([][]byte{[]byte(m)}); b != nil {
		return b
	}
	return encode(form.Instead, m)
}

const pumped = "pumped "

func (r *run) pumpAll() {
	for i := range r.pump {
		form := socket.Plain
		if i%2 == 0 {
			form = r.form
		}
		r.mu.Lock()
		r.out = append(r.out, encode(form, fmt.Sprintf("%s%d %s", pumped, i, comments(i))))
		r.mu.Unlock()
		r.conn.Flush()
	}
}

// Next, Message and Closed make it the connection's handler.

func (r *run) Next(dst [][]byte) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	dst = append(dst, r.out...)
	r.out = nil
	return dst
}

func (r *run) Message(p []byte) {
	r.mu.Lock()
	r.got = append(r.got, string(p))
	if !r.mute {
		r.add(string(p))
	}
	first := len(r.got) == 1
	r.mu.Unlock()
	r.conn.Flush()
	switch {
	case first && r.shutdown:
		// It ends when this connection has.
		r.house.goroutines.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := r.server.Close(ctx); err != nil {
				r.house.t.Errorf("%s: %v", r.name(), err)
			}
		})
	case first && r.onFirst:
		r.conn.Close(r.hangUp.code, r.hangUp.reason)
	}
}

func (r *run) Closed(c socket.Cause) { r.closed <- c }

// report is what a client has seen of one run.
type report struct {
	ID         int      `json:"id"`
	Protocol   string   `json:"protocol"`
	Extensions string   `json:"extensions"`
	Messages   []string `json:"messages"`
	Pings      []string `json:"pings"`
	Pongs      []string `json:"pongs"`
	Code       int      `json:"code"`
	Reason     string   `json:"reason"`
	Clean      bool     `json:"clean"`
	Error      string   `json:"error"` // what kept it from playing to the end
}

// check checks every run by its report, of which reports holds one for each id.
func (h *house) check(t *testing.T, reports []*report, can ability) {
	// For the servers' side of all: that has had time while others played.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, r := range h.runs {
		t.Run(r.name(), func(t *testing.T) { r.check(ctx, t, reports[r.id], can) })
	}
}

// check compares what the client has seen with what it should have seen and with
// what the server has seen.
func (r *run) check(ctx context.Context, t *testing.T, p *report, can ability) {
	t.Helper()
	if p == nil {
		t.Fatal("the client reported nothing")
	}
	if p.Error != "" {
		t.Errorf("the client gave up: %s", p.Error)
	}
	var cause socket.Cause
	select {
	case cause = <-r.closed:
	case <-ctx.Done():
		t.Fatalf("the server's connection has not ended; the client saw %d messages, close code %d %q, clean %v",
			len(p.Messages), p.Code, p.Reason, p.Clean)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.Protocol != protocol.Subprotocol {
		t.Errorf("subprotocol %q", p.Protocol)
	}
	if want := r.mode.deflates(); (r.form == socket.Deflated) != want || strings.HasPrefix(p.Extensions, "permessage-deflate") != want {
		t.Errorf("permessage-deflate agreed on: server %v, client %q, want %v", r.form == socket.Deflated, p.Extensions, want)
	}
	compare(t, "the server received", r.got, r.sent(), false)
	var shown []string
	pump := 0
	for _, m := range p.Messages {
		if r.pump == 0 || !strings.HasPrefix(m, pumped) {
			shown = append(shown, m)
			continue
		}
		if want := fmt.Sprintf("%s%d %s", pumped, pump, comments(pump)); m != want {
			t.Errorf("pumped message %d is %.60q", pump, m)
		}
		pump++
	}
	compare(t, "the client received", shown, r.shown(), r.anyEcho)
	if pump != r.pump {
		t.Errorf("the client received %d of %d pumped messages", pump, r.pump)
	}
	if can&pings != 0 {
		r.checkPings(t, p)
	}

	if p.Code != r.end.code || p.Reason != r.end.reason || !p.Clean && !r.ragged {
		t.Errorf("the client saw code %d %q, clean %v; want %d %q", p.Code, p.Reason, p.Clean, r.end.code, r.end.reason)
	}
	want := r.end
	for _, st := range r.steps {
		if st.Op == "close" && r.kind == socket.ClosedByPeer {
			want.reason = st.Reason
		}
	}
	if r.kind != cause.Kind || cause.Code != want.code || cause.Reason != want.reason {
		t.Errorf("the server's cause is %v, want %s (%d): %s", cause, r.kind, want.code, want.reason)
	}
}

func (r *run) checkPings(t *testing.T, p *report) {
	t.Helper()
	if r.pinged && len(p.Pings) == 0 {
		t.Error("the client saw no ping")
	}
	if !r.pinged && !slices.Equal(p.Pings, r.pings) {
		t.Errorf("the client saw pings %.60q, want %.60q", p.Pings, r.pings)
	}
	left := p.Pongs
	for _, s := range r.steps {
		most := 0
		switch {
		case s.Op == "ping":
			most = 1
		case s.Between:
			most = len(s.Parts) - 1 // the server may answer the latest alone
		}
		n := 0
		for n < most && n < len(left) && left[n] == s.Text {
			n++
		}
		if most > 0 && n == 0 {
			t.Errorf("no pong %.60q; pongs: %.60q", s.Text, p.Pongs)
		}
		left = left[n:]
	}
	if len(left) > 0 {
		t.Errorf("pongs that nobody asked for: %.60q", left)
	}
}

// compare compares two lists; of the second one only the beginning may be there.
func compare(t *testing.T, what string, got, want []string, part bool) {
	t.Helper()
	if len(got) != len(want) && (!part || len(got) > len(want)) {
		t.Errorf("%s %d messages, want %d", what, len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Errorf("%s as message %d %.80q (%d bytes), want %.80q (%d bytes)", what, i, got[i], len(got[i]), want[i], len(want[i]))
			return
		}
	}
}

// certificate is the certificate of the way byTLS: as PEM, its SHA-256 as Firefox
// writes it, and that of its key as Chromium takes it.
func (h *house) certificate() (ca, fingerprint, key string) {
	c := h.tls.Certificate()
	ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	sum := sha256.Sum256(c.Raw)
	var pairs []string
	for _, b := range sum {
		pairs = append(pairs, strings.ToUpper(hex.EncodeToString([]byte{b})))
	}
	spki := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return ca, strings.Join(pairs, ":"), base64.StdEncoding.EncodeToString(spki[:])
}

// bareListener accepts connections that show no descriptor.
type bareListener struct{ net.Listener }

func (l bareListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return bareConn{c}, nil
}

// bareConn is what a TCP connection is where descriptors are of no use.
type bareConn struct{ net.Conn }

func (c bareConn) CloseWrite() error { return c.Conn.(*net.TCPConn).CloseWrite() }
