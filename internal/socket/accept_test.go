package socket

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/protocol"
)

// TestAccept checks what is answered to a handshake.
func TestAccept(t *testing.T) {
	t.Parallel()
	const offer = "Sec-WebSocket-Protocol: " + protocol.Subprotocol + "\r\n"
	s := newTestServer(t, Config{Deflate: true})
	st := withTCP(newSite(t, s))
	without := func(line string) func(string) string {
		return func(r string) string { return strings.Replace(r, line+"\r\n", "", 1) }
	}
	with := func(old, now string) func(string) string {
		return func(r string) string { return strings.Replace(r, old, now, 1) }
	}
	for _, c := range []struct {
		name   string
		edit   func(string) string
		status int
		header map[string]string
	}{
		{"as it should be", func(r string) string { return r }, 101, map[string]string{"Sec-WebSocket-Protocol": "kansei.v1", "Sec-WebSocket-Extensions": "", "Upgrade": "websocket"}},
		{"with a token", with(offer, "Sec-WebSocket-Protocol: kansei.v1, bearer.secret\r\n"), 101, map[string]string{"Sec-WebSocket-Protocol": "kansei.v1"}},
		{"with a token first, in two lines", with(offer, "Sec-WebSocket-Protocol: bearer.secret\r\n"+offer), 101, map[string]string{"Sec-WebSocket-Protocol": "kansei.v1"}},
		{"another origin", with(offer, offer+"Origin: https://elsewhere.example\r\n"), 101, nil},
		{"deflate", with(offer, offer+offerDeflate), 101, map[string]string{"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover; server_no_context_takeover"}},
		{"deflate with a small window", with(offer, offer+"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n"), 101, map[string]string{"Sec-WebSocket-Extensions": ""}},
		{"second offer of deflate", with(offer, offer+"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9, permessage-deflate\r\n"), 101, map[string]string{"Sec-WebSocket-Extensions": "permessage-deflate; client_no_context_takeover; server_no_context_takeover"}},
		{"no subprotocol", without(strings.TrimSpace(offer)), 400, nil},
		{"another subprotocol", with("kansei.v1", "kansei.v2, bearer.kansei.v1"), 400, nil},
		{"no upgrade", without("Upgrade: websocket"), 426, nil},
		{"no key", without("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="), 400, nil},
		{"bad key", with("AAAA==", "=="), 400, nil},
		{"version 8", with("Version: 13", "Version: 8"), 400, map[string]string{"Sec-WebSocket-Version": "13"}},
		{"POST", with("GET", "POST"), 405, nil},
		{"a body", with(offer, offer+"Content-Length: 5\r\n"), 400, nil},
		{"a body in chunks", with(offer, offer+"Transfer-Encoding: chunked\r\n"), 400, nil},
		{"an empty body", with(offer, offer+"Content-Length: 0\r\n"), 101, nil},
		{"HTTP/1.0", with("HTTP/1.1", "HTTP/1.0"), 426, nil},
		{"a long header", with("Upgrade: websocket", "Upgrade: "+strings.Repeat("x", 2000)), 426, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			nc, err := net.Dial("tcp", st.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = nc.Close() }()
			if _, err := io.WriteString(nc, c.edit(request(""))); err != nil {
				t.Fatal(err)
			}
			r, err := http.ReadResponse(bufio.NewReader(nc), nil)
			if err != nil {
				t.Fatal(err)
			}
			if r.StatusCode != c.status {
				t.Fatalf("status %s, want %d", r.Status, c.status)
			}
			for k, want := range c.header {
				if got := r.Header.Get(k); got != want {
					t.Errorf("%s is %q, want %q", k, got, want)
				}
			}
			if c.status != http.StatusSwitchingProtocols {
				if body, err := io.ReadAll(r.Body); err != nil || len(body) > maxRefusal {
					t.Errorf("refused with %d bytes, %v", len(body), err)
				}
				_ = r.Body.Close()
				return
			}
			v := st.viewer()
			if got, want := v.conn.Form() == Deflated, r.Header.Get("Sec-WebSocket-Extensions") != ""; got != want {
				t.Errorf("Deflates is %v, want %v", got, want)
			}
		})
	}
}

// TestDeflateOff: a server that does not deflate does not agree to it.
func TestDeflateOff(t *testing.T) {
	t.Parallel()
	st := withTCP(newSite(t, newTestServer(t, Config{})))
	p, v := st.dial(offerDeflate)
	if v.conn.Form() == Deflated {
		t.Error("it deflates")
	}
	p.write(frame(0xc1, deflated(t, "x")))
	p.expectClose(1002, "reserved bit")
}

// TestEarlyData: what comes behind the request in one piece is refused.
func TestEarlyData(t *testing.T) { onBoth(t, testEarlyData) }

func testEarlyData(t *testing.T, via path) {
	s := newTestServer(t, via.config(Config{}))
	st := withTCP(newSite(t, s))
	nc, err := net.Dial("tcp", st.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	if _, err := io.WriteString(nc, request("")+string(text("early"))); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(r.Body); r.StatusCode != http.StatusBadRequest || err != nil || !strings.Contains(string(body), "handshake") {
		t.Errorf("answered %s %q, %v", r.Status, body, err)
	}
	if n := s.Len(); n != 0 {
		t.Errorf("%d connections", n)
	}

	server, client := net.Pipe()
	defer func() { _ = client.Close() }()
	go func() { _, _ = io.Copy(io.Discard, client) }() // ends with the pipe
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header = headerOf(t)
	if _, err := s.Accept(&hijackable{header: http.Header{}, nc: server, early: "x"}, req); !errors.Is(err, ErrEarlyData) {
		t.Errorf("Accept: %v", err)
	}
}

func headerOf(t *testing.T) http.Header {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request(""))))
	if err != nil {
		t.Fatal(err)
	}
	return r.Header
}

// TestNotToBeTaken: where the connection cannot be taken, the answer is plain HTTP.
func TestNotToBeTaken(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Config{})
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header = headerOf(t)
	for name, w := range map[string]http.ResponseWriter{
		"no hijacker":  httptest.NewRecorder(),
		"hijack fails": &hijackable{header: http.Header{}},
		"broken already": func() http.ResponseWriter {
			server, client := net.Pipe()
			_ = client.Close()
			return &hijackable{header: http.Header{}, nc: server}
		}(),
	} {
		if _, err := s.Accept(w, req); err == nil {
			t.Errorf("%s: accepted", name)
		}
		for _, h := range []string{"Upgrade", "Sec-Websocket-Accept"} {
			if name != "broken already" && w.Header().Get(h) != "" {
				t.Errorf("%s: the answer bears %s", name, h)
			}
		}
	}
	if got := req.Header.Get("Sec-Websocket-Protocol"); got != protocol.Subprotocol {
		t.Errorf("the caller's header is changed: %q", got)
	}
	if s.Len() != 0 {
		t.Errorf("%d connections", s.Len())
	}

	st := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.Accept(w, r); err == nil {
			t.Error("accepted over HTTP/2")
		}
	}))
	st.EnableHTTP2 = true
	st.StartTLS()
	defer st.Close()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, st.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Sec-WebSocket-Protocol", protocol.Subprotocol)
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")
	res, err := st.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.ProtoMajor != 2 || res.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("HTTP/%d: %s", res.ProtoMajor, res.Status)
	}
	for _, h := range []string{"Connection", "Upgrade"} { // strict clients take them for a broken stream
		if v := res.Header.Get(h); v != "" {
			t.Errorf("an answer over HTTP/2 bears %s: %s", h, v)
		}
	}
}

// wrapped is a response as middleware passes it on.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// TestWrapped accepts through middleware, over a connection that hides its
// descriptor, and over TLS.
func TestWrapped(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]func(*site){
		"middleware": {func(st *site) {
			st.wrap = func(w http.ResponseWriter) http.ResponseWriter { return wrapped{w} }
		}},
		"listener": nil,
		"TLS":      nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newSite(t, newTestServer(t, Config{}), options...)
			switch name {
			case "listener":
				st.Listener = hiding{st.Listener}
				st.Start()
			case "TLS":
				st.StartTLS()
			default:
				st.Start()
			}
			p, v := st.connect()
			if raw := v.conn.nc == nil; name != "middleware" && raw {
				t.Error("it has a descriptor of its own")
			}
			p.write(text("hello"))
			if got := v.message(); got != "hello" {
				t.Errorf("received %q", got)
			}
			v.send(plain("hello yourself"))
			p.expect(finBit|opText, "hello yourself")
			p.write(closing(1000, ""))
			p.expectClose(1000, "")
			_ = p.Close()
			if got := v.cause(); got.Kind != ClosedByPeer {
				t.Errorf("cause %v", got)
			}
		})
	}
}

// hiding is a listener whose connections hide what they are.
type hiding struct{ net.Listener }

func (l hiding) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return struct{ net.Conn }{c}, nil
}
