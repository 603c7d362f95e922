package clientaddr

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// v2 is a header of version 2.
func v2(command, family byte, block string) string {
	b := append([]byte(signatureV2), 0x20|command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(block)))) + block
}

const (
	block4 = "\xc6\x33\x64\x07\x0a\x01\x00\x01\x12\x34\x01\xbb"
	block6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\xfd\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x12\x34\x01\xbb"
)

func TestProxyHeader(t *testing.T) {
	t.Parallel()
	const bad, nobody = "bad", ""
	for _, tt := range []struct{ name, header, want string }{
		{"v1", "PROXY TCP4 198.51.100.7 10.1.0.1 4660 443\r\n", "198.51.100.7:4660"},
		{"v1, IPv6", "PROXY TCP6 2001:db8::7 fd00::1 4660 443\r\n", "[2001:db8::7]:4660"},
		{"v1, IPv4 in IPv6", "PROXY TCP6 ::ffff:198.51.100.7 ::ffff:10.1.0.1 1 2\r\n", "[::ffff:198.51.100.7]:1"},
		{"v1, not known", "PROXY UNKNOWN\r\n", nobody},
		{"v1, not known, with more", "PROXY UNKNOWN ffff:f...f:ffff what 65535 65535\r\n", nobody},
		{"v1, the longest", "PROXY TCP6 " + strings.Repeat("ffff:", 7) + "ffff " + strings.Repeat("ffff:", 7) + "ffff 65535 65535\r\n", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
		{"v1, too long", "PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", bad},
		{"v1, without end", "PROXY UNKNOWN", bad},
		{"v1, ends with LF", "PROXY TCP4 198.51.100.7 10.1.0.1 4660 443\n", bad},
		{"v1, a line too early", "PROXY T\nCP4 198.51.100.7 10.1.0.1 4660 443\r\n", bad},
		{"v1, short", "PROXY TCP4\r\n", bad},
		{"v1, a field more", "PROXY TCP4 198.51.100.7 10.1.0.1 4660 443 1\r\n", bad},
		{"v1, two blanks", "PROXY TCP4  198.51.100.7 10.1.0.1 4660 443\r\n", bad},
		{"v1, another family", "PROXY TCP5 198.51.100.7 10.1.0.1 4660 443\r\n", bad},
		{"v1, the other family", "PROXY TCP4 2001:db8::7 fd00::1 4660 443\r\n", bad},
		{"v1, the other family again", "PROXY TCP6 198.51.100.7 10.1.0.1 4660 443\r\n", bad},
		{"v1, a zone", "PROXY TCP6 fe80::1%eth0 fd00::1 4660 443\r\n", bad},
		{"v1, a name", "PROXY TCP4 localhost 10.1.0.1 4660 443\r\n", bad},
		{"v1, a bad port", "PROXY TCP4 198.51.100.7 10.1.0.1 65536 443\r\n", bad},
		{"v1, a port of zeros", "PROXY TCP4 198.51.100.7 10.1.0.1 00001 443\r\n", bad},
		{"v1, a port with a sign", "PROXY TCP4 198.51.100.7 10.1.0.1 +1 443\r\n", bad},
		{"v1, a bad destination", "PROXY TCP4 198.51.100.7 10.1.0 4660 443\r\n", bad},
		{"v1 in lower case", "proxy TCP4 198.51.100.7 10.1.0.1 4660 443\r\n", bad},

		{"v2", v2(1, 0x11, block4), "198.51.100.7:4660"},
		{"v2, IPv6", v2(1, 0x21, block6), "[2001:db8::7]:4660"},
		{"v2 with notes", v2(1, 0x11, block4+"\x04\x00\x01x"), "198.51.100.7:4660"},
		{"v2 with a certificate", v2(1, 0x11, block4+strings.Repeat("x", 4000)), "198.51.100.7:4660"},
		{"v2, a health check", v2(0, 0, ""), nobody},
		{"v2, a health check with an address", v2(0, 0x11, block4), nobody},
		{"v2, a health check with anything", v2(0, 0x77, "abc"), nobody},
		{"v2, not said", v2(1, 0, ""), nobody},
		{"v2, not said, with notes", v2(1, 0, "\x04\x00\x01x"), nobody},
		{"v2, UDP", v2(1, 0x12, block4), nobody},
		{"v2, a unix socket", v2(1, 0x31, strings.Repeat("\x00", 216)), nobody},
		{"v2, too short for IPv4", v2(1, 0x11, block4[:11]), bad},
		{"v2, too short for IPv6", v2(1, 0x21, block4), bad},
		{"v2, a family that is not known", v2(1, 0x41, block6), bad},
		{"v2, a transport that is not known", v2(1, 0x13, block4), bad},
		{"v2, another command", v2(2, 0x11, block4), bad},
		{"v2, another version", strings.Replace(v2(1, 0x11, block4), "\x21", "\x31", 1), bad},
		{"v2, cut off", v2(1, 0x11, block4)[:27], bad},
		{"v2, cut off in the head", v2(1, 0x11, block4)[:14], bad},
		{"v2, endless", v2(1, 0x11, block4+strings.Repeat("x", 5000)), bad},

		{"none", "GET / HTTP/1.1\r\n", bad},
		{"nothing", "", bad},
		{"a little", "PROXY", bad},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03xxxxx", bad},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			const behind = "GET / HTTP/1.1\r\n"
			for name, r := range map[string]io.Reader{
				"at once": strings.NewReader(tt.header + behind), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.header + behind)),
			} {
				if strings.Contains(tt.name, "cut off") || tt.name == "nothing" || tt.name == "a little" || tt.name == "v1, without end" {
					r = strings.NewReader(tt.header)
				}
				got, err := readProxyHeader(r)
				if tt.want == bad {
					if !errors.Is(err, ErrProxyHeader) {
						t.Errorf("%s: %v, %v; want %v", name, got, err, ErrProxyHeader)
					}
					continue
				}
				if err != nil || got.IsValid() != (tt.want != nobody) || got.IsValid() && got != netip.MustParseAddrPort(tt.want) {
					t.Errorf("%s: %v, %v; want %s", name, got, err, tt.want)
				}
				if rest, _ := io.ReadAll(r); string(rest) != behind {
					t.Errorf("%s: %q is left for HTTP", name, rest)
				}
			}
		})
	}
}

// A header is read to its end and no further, whatever it is.
func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 198.51.100.7 10.1.0.1 4660 443\r\n", "PROXY UNKNOWN\r\n", "PROXY \r\n", "PROXY TCP6 :: :: 0 0\r\n", "PROXY     \r\n\r\n",
		v2(1, 0x11, block4), v2(1, 0x21, block6), v2(0, 0, ""), v2(1, 0x11, block4+"\x04\x00\x01x"), "GET / HTTP/1.1\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		addr, err := readProxyHeader(r)
		if err != nil {
			if !errors.Is(err, ErrProxyHeader) || addr.IsValid() {
				t.Fatalf("%v, %v", addr, err)
			}
			return
		}
		header := b[:len(b)-r.Len()]
		again, err := readProxyHeader(bytes.NewReader(header))
		if err != nil || again != addr {
			t.Fatalf("the header alone is %v, %v; with more behind it %v", again, err, addr)
		}
		if _, err := readProxyHeader(bytes.NewReader(header[:len(header)-1])); err == nil {
			t.Fatal("a byte less is a header too")
		}
	})
}

// site answers each request with the address that it comes from, and notes who asked.
func site(t *testing.T, timeout time.Duration, trusted ...netip.Prefix) (address string, asked chan string, refused chan error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked, refused = make(chan string, 1000), make(chan error, 1000)
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.RemoteAddr)
			asked <- r.URL.Path + " " + r.RemoteAddr
		}),
	}
	done := make(chan struct{})
	// Ends with Close.
	go func() {
		defer close(done)
		_ = srv.Serve(Listen(l, trusted, timeout, func(_ net.Addr, err error) { refused <- err }))
	}()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return l.Addr().String(), asked, refused
}

// ask writes pieces to the site, from an address of this machine, and returns all that it
// answers.
func ask(t *testing.T, address, from string, pieces ...string) string {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	for _, p := range pieces {
		if _, err := io.WriteString(c, p); err != nil {
			return ""
		}
	}
	b, err := io.ReadAll(c)
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Fatalf("no end; %q until then", b)
	}
	return string(b)
}

func TestListen(t *testing.T) {
	t.Parallel()
	const proxy, get = "127.0.0.1", "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
	address, _, refused := site(t, 10*time.Second, netip.MustParsePrefix(proxy+"/32"))
	for _, tt := range []struct {
		name, from string
		pieces     []string
		want       string // the end of the answer; "" for none
	}{
		{"v1", proxy, []string{"PROXY TCP4 198.51.100.7 10.1.0.1 4660 443\r\n" + get}, "198.51.100.7:4660"},
		{"v1 in pieces", proxy, []string{"PRO", "XY TCP4 198.51.100.7 10.1.0.1 ", "4660 443\r", "\n", get}, "198.51.100.7:4660"},
		{"v2", proxy, []string{v2(1, 0x21, block6) + get}, "[2001:db8::7]:4660"},
		{"a health check", proxy, []string{v2(0, 0, "") + get}, ":"},
		{"another peer", "127.0.0.2", []string{get}, ":"},
	} {
		got := ask(t, address, tt.from, tt.pieces...)
		_, body, _ := strings.Cut(got, "\r\n\r\n")
		if want := tt.want; want == ":" {
			if !strings.HasPrefix(body, tt.from+":") {
				t.Errorf("%s: %q", tt.name, got)
			}
		} else if body != want {
			t.Errorf("%s: %q; want %s", tt.name, got, want)
		}
	}
	if n := len(refused); n != 0 {
		t.Errorf("%d are refused", n)
	}
	if got := ask(t, address, proxy, get); got != "" {
		t.Errorf("a proxy without a header is answered %q", got)
	}
	if err := <-refused; !errors.Is(err, ErrProxyHeader) {
		t.Errorf("it is refused for %v", err)
	}
	for _, header := range []string{"PROXY TCP4 198.51.100.7 10.1.0.1 4660 443\r\n", v2(1, 0x11, block4)} {
		if got := ask(t, address, "127.0.0.2", header, get); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("another peer with a header is answered %q", got)
		}
	}
}

// A proxy that says nothing holds up nobody, and not for ever.
func TestListenWaitsForNobody(t *testing.T) {
	t.Parallel()
	address, _, refused := site(t, 3*time.Second, netip.MustParsePrefix("127.0.0.1/32"))
	silent, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	const get = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
	if got := ask(t, address, "127.0.0.1", "PROXY TCP4 198.51.100.7 10.1.0.1 4660 443\r\n"+get); !strings.HasSuffix(got, "198.51.100.7:4660") {
		t.Errorf("behind a silent one the answer is %q", got)
	}
	if len(refused) > 0 {
		t.Error("it waited for the silent one")
	}
	_ = silent.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := silent.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Errorf("the silent one got %d bytes", n)
	} else if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		t.Error("the silent one is kept")
	}
	if err := <-refused; !errors.Is(err, ErrProxyHeader) {
		t.Errorf("it is refused for %v", err)
	}
}

// A health check that only connects is no proxy that is set up wrongly; one that has begun
// to say something is.
func TestListenToChecks(t *testing.T) {
	t.Parallel()
	address, _, refused := site(t, 10*time.Second, netip.MustParsePrefix("127.0.0.1/32"))
	for _, tt := range []struct {
		says  string
		reset bool
	}{{"", false}, {"", true}, {"PROXY", false}} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if tt.reset {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		_, _ = io.WriteString(c, tt.says)
		_ = c.Close()
	}
	// The site has come to each of them when it answers the next one.
	if got := ask(t, address, "127.0.0.1", "PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("it is answered %q", got)
	}
	if err := <-refused; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("one is refused for %v", err)
	}
	if n := len(refused); n != 0 {
		t.Errorf("%d more are refused: %v", n, <-refused)
	}
}

// TLS begins behind the header.
func TestListenBelowTLS(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RemoteAddr) }))
	srv.Listener = Listen(srv.Listener, prefixes("127.0.0.1/32"), 10*time.Second, func(_ net.Addr, err error) { t.Error(err) })
	srv.StartTLS()
	t.Cleanup(srv.Close)
	client := srv.Client()
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		if err == nil {
			_, err = io.WriteString(c, v2(1, 0x11, block4))
		}
		return c, err
	}
	res, err := client.Get(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != "198.51.100.7:4660" {
		t.Errorf("the client is %q (%v)", b, err)
	}
}
