package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/internal/edge"
	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/protocol"
)

// ask makes a request with a host and headers of the caller's, and returns its status
// and body.
func (n *testNode) ask(method, url, host string, header ...string) (int, string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, url, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// A page whose own name leads to this machine reaches neither listener.
func TestRebinding(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--host=me.example", "--ops-host=ops.example")
	for _, c := range []struct {
		url, host string
		status    int
		says      string
	}{
		{n.ops + "/debug/pprof/cmdline", "evil.example", 421, "--ops-host=evil.example"},
		{n.ops + "/metrics", "evil.example", 421, "--ops-host=evil.example"},
		{n.ops + "/healthz", "me.example", 421, "--ops-host=me.example"},
		{n.ops + "/healthz", "ops.example:8081", 200, "ok"},
		{n.url + "/v1/rooms/r", "evil.example", 421, "--host=evil.example"},
		{n.url + "/", "evil.example", 421, "--host=evil.example"},
		{n.url + "/v1/rooms/r", "ops.example", 421, "--host=ops.example"},
		{n.url + "/v1/rooms/r", "me.example", 200, `"room":"r"`},
		{n.url + "/v1/rooms/r", "localhost:8080", 200, `"room":"r"`},
	} {
		if status, body := n.ask("GET", c.url, c.host); status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("GET %s of %s: %d %.200s", c.url, c.host, status, body)
		}
	}
	if status, _ := n.ask("POST", n.ops+"/drain", "evil.example"); status != 421 || n.edge.Ready() != nil {
		t.Errorf("POST /drain: %d, then %v", status, n.edge.Ready())
	}
	_, res, err := websocket.Dial(t.Context(), n.url+"/v1/rooms/r/ws",
		&websocket.DialOptions{Host: "evil.example", Subprotocols: []string{protocol.Subprotocol}})
	if err == nil || res == nil || res.StatusCode != 421 {
		t.Errorf("a WebSocket: %v, %v", res, err)
	}
	if _, metrics := n.get(n.ops + "/metrics"); !strings.Contains(metrics, `kansei_refused_total{reason="host"} 4`) {
		t.Error("those refused are not counted")
	}
}

// The public listener asks for its name only where this machine alone reaches it.
func TestPublicNames(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--listen=0.0.0.0:0")
	if status, body := n.ask("GET", n.url+"/v1/rooms/r", "any.example"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
}

// at is a listener with an address and nothing else.
type at struct {
	net.Listener
	address string
}

func (a at) Addr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a.address)) }

// What a listener is reached by decides, not what it was told: the name of a machine
// leads to loopback on many. The name that it was told is its own.
func TestNamesThatListen(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"127.0.0.1:80": true, "127.0.1.1:80": true, "[::1]:80": true, "0.0.0.0:80": false, "[::]:80": false, "10.0.0.1:80": false,
	} {
		if got := onLoopback(at{address: address}); got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
	for listen, status := range map[string]map[string]int{
		"node1.internal:8081": {"node1.internal": 200, "NODE1.internal:9": 200, "other.internal": 421},
		":8081":               {"node1.internal": 421, "127.0.0.1": 200},
		"0.0.0.0:8081":        {"node1.internal": 421},
	} {
		h := edge.Hosts{Names: hostNames([]string{"more.internal"}, listen), Flag: "ops-host", Log: quiet.New(slog.New(slog.DiscardHandler))}.
			Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		status["more.internal"] = 200
		for host, want := range status {
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
			r.Host = host
			if h.ServeHTTP(w, r); w.Code != want {
				t.Errorf("--ops-listen %s, Host %s: %d, want %d", listen, host, w.Code, want)
			}
		}
	}
}

func TestOperatorsSecretsStayInside(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	status, body := n.get(n.ops + "/debug/pprof/cmdline")
	if status != 200 || body != os.Args[0] {
		t.Errorf("cmdline: %d %q", status, body)
	}
	for _, path := range []string{"/debug/vars", "/debug/pprof/", "/metrics", "/readyz", "/debug/pprof/goroutine?debug=2"} {
		if _, body := n.get(n.ops + path); strings.Contains(body, testSecret) {
			t.Errorf("%s tells the secret", path)
		}
	}
}

func TestDemoStopAsksForItsOrigin(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--demo")
	if status, _ := n.ask("POST", n.url+demoStop, "", "Origin", "https://evil.example"); status != 403 || !n.demoRunning() {
		t.Errorf("another origin: %d, the demo runs: %v", status, n.demoRunning())
	}
	if status, _ := n.ask("POST", n.url+demoStop, "", "Origin", n.url); status != 204 || n.demoRunning() {
		t.Errorf("its own page: %d, the demo runs: %v", status, n.demoRunning())
	}
}

// What clients send fills neither the log nor an answer.
func TestLogFlood(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	long := strings.Repeat("x", 14_000)
	before := len(n.logs.String())
	for i := range 200 {
		if status, body := n.ask("PUT", n.url+"/v1/rooms/r", "", "Origin", fmt.Sprint("https://", i, long)); status != 403 || len(body) > 1000 {
			t.Fatalf("%d, %d bytes", status, len(body))
		}
	}
	for _, c := range []struct{ method, path, host string }{{strings.Repeat("M", 10_000), "/v1/rooms/r", ""}, {"GET", "/v1/rooms/" + long, ""}, {"GET", "/" + long, ""}} {
		if _, body := n.ask(c.method, n.url+c.path, c.host); strings.Contains(body, strings.Repeat("M", 100)) || strings.Contains(body, long) {
			t.Errorf("%.20s %.20s is answered with %d bytes of it", c.method, c.path, len(body))
		}
	}
	if logged := len(n.logs.String()) - before; logged > 5_000 || logged == 0 {
		t.Errorf("200 requests have logged %d bytes", logged)
	}
	w := n.mustDial("r", "")
	w.say(`{"type":"` + strings.Repeat(`\u0007`, protocol.MaxType) + `","ref":"a"}`)
	if m := w.next("error"); m["code"] != "unsupported" || strings.Contains(m["message"].(string), "\a") {
		t.Errorf("an unknown type is answered with %v", m)
	}
}

// serveWith serves h as a node does, but with another time for answers.
func serveWith(t *testing.T, n *testNode, h http.Handler, write time.Duration) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := httpServer(h, write, n.quiet)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }() // ends with srv
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

// Whoever does not read an answer is cut off; a viewer and a profile are not, though
// they take longer.
func TestSlowReaders(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	const limit = 300 * time.Millisecond
	t.Run("an answer", func(t *testing.T) {
		t.Parallel()
		ended := make(chan error, 1)
		url := serveWith(t, n, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, err := w.Write(make([]byte, 64<<20))
			ended <- err
		}), limit)
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err == nil {
				t.Error("64 MB are gone, to somebody who reads nothing")
			}
		case <-time.After(20 * time.Second):
			t.Error("somebody who reads nothing is waited for")
		}
	})
	t.Run("a viewer", func(t *testing.T) {
		t.Parallel()
		mux := http.NewServeMux()
		n.edge.Register(mux)
		other := &testNode{node: &node{url: serveWith(t, n, mux, limit)}, t: t, logs: n.logs}
		w := other.mustDial("r", "")
		w.next("comments")
		time.Sleep(3 * limit)
		w.say(`{"type":"beat"}`)
		w.next("beat")
	})
	t.Run("a profile", func(t *testing.T) {
		t.Parallel()
		url := serveWith(t, n, n.edge.Ops(prometheus.NewRegistry(), nil, nil, nil), limit)
		if status, body := n.get(url + "/debug/pprof/trace?seconds=1"); status != 200 || len(body) == 0 {
			t.Errorf("%d %.100q", status, body)
		}
	})
}

// A full public listener keeps neither viewers nor operators out.
func TestIdleSockets(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-http=20")
	for range 100 {
		c, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
	}
	if status, body := n.get(n.ops + "/readyz"); status != 200 {
		t.Errorf("readyz: %d %s", status, body)
	}
	w := n.mustDial("r", "")
	w.next("comments")
	w.say(`{"type":"beat"}`)
	w.next("beat")
}

// certificate writes a certificate for 127.0.0.1 and its key, and returns their files.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pool = x509.NewCertPool()
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, key, pool
}

// Over HTTP/2 a WebSocket is refused with an answer that a client can read.
func TestWebSocketOverHTTP2(t *testing.T) {
	t.Parallel()
	cert, key, pool := certificate(t)
	n := runNode(t, "--tls-cert="+cert, "--tls-key="+key)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+"/v1/rooms/r/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-WebSocket-Protocol", protocol.Subprotocol)
	for range 2 { // the connection goes on
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.ProtoMajor != 2 || res.StatusCode != http.StatusUpgradeRequired || res.Header.Get("Upgrade") != "" || !bytes.Contains(body, []byte("HTTP/1.1")) {
			t.Errorf("%s %s, %v: %v, %s", res.Proto, res.Status, err, res.Header, body)
		}
	}
}

func TestCertificateThatIsNone(t *testing.T) {
	t.Parallel()
	cert, key, _ := certificate(t)
	none, open := filepath.Join(t.TempDir(), "none.pem"), filepath.Join(t.TempDir(), "open.pem")
	if err := os.WriteFile(open, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o602); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ cert, key, says string }{
		{none, key, "--tls-cert: "}, {cert, none, "--tls-key: "}, {t.TempDir(), key, "not a regular file"}, {key, cert, "--tls-cert, --tls-key: "},
		{cert, open, "anybody may write it"},
	} {
		n, err := start(t.Context(), parse(t, "--tls-cert="+c.cert, "--tls-key="+c.key), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.says, err)
		}
		if err == nil {
			_ = n.stop(t.Context())
		}
	}
}
