package clientaddr

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// trusted are the proxies of the tests, exempt a school's networks.
var trusted, exempt = prefixes("10.1.0.0/16", "fd00::/8", "127.0.0.9/32"), prefixes("10.9.0.0/16", "2001:db8:5c00::/40")

func TestOf(t *testing.T) {
	t.Parallel()
	const nobody = ""
	tests := []struct {
		name   string
		header Header
		remote string
		lines  []string
		want   string // as one address of the group
	}{
		{"no proxy", XForwardedFor, "203.0.113.7:4711", nil, "203.0.113.7"},
		{"no proxy, and it says who it is", XForwardedFor, "203.0.113.7:4711", []string{"198.51.100.1"}, "203.0.113.7"},
		{"IPv6", XForwardedFor, "[2001:db8:1:2:3:4:5:6]:1", nil, "2001:db8:1:2::"},
		{"IPv6 with a zone", XForwardedFor, "[fe80::1%eth0]:1", nil, "fe80::"},
		{"IPv4 in IPv6", XForwardedFor, "[::ffff:203.0.113.7]:1", nil, "203.0.113.7"},
		{"IPv4 by NAT64", XForwardedFor, "[64:ff9b::203.0.113.7]:1", nil, "64:ff9b::203.0.113.7"},
		{"this machine", XForwardedFor, "127.0.0.1:1", nil, nobody},
		{"this machine, which is not trusted", XForwardedFor, "[::1]:1", []string{"198.51.100.1"}, nobody},
		{"this machine, which is", XForwardedFor, "127.0.0.9:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"an exempt network", XForwardedFor, "10.9.3.4:1", nil, nobody},
		{"an exempt network of IPv6", XForwardedFor, "[2001:db8:5cff::1]:1", nil, nobody},
		{"an exempt network behind a proxy", XForwardedFor, "10.1.0.1:1", []string{"10.9.3.4"}, nobody},
		{"a unix socket", XForwardedFor, "@", []string{"198.51.100.1"}, nobody},
		{"nothing", XForwardedFor, "", nil, nobody},
		{"no port", XForwardedFor, "203.0.113.7", nil, "203.0.113.7"},
		{"no address", XForwardedFor, "pipe", nil, nobody},
		{"unspecified", XForwardedFor, "0.0.0.0:1", nil, nobody},

		{"a proxy that says nothing", XForwardedFor, "10.1.0.1:1", nil, nobody},
		{"a proxy", XForwardedFor, "10.1.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"a proxy of IPv6", XForwardedFor, "[fd00::1]:1", []string{"2001:db8::1"}, "2001:db8::"},
		{"a proxy of IPv4 in IPv6", XForwardedFor, "[::ffff:10.1.0.1]:1", []string{"::ffff:198.51.100.1"}, "198.51.100.1"},
		{"two proxies", XForwardedFor, "10.1.0.1:1", []string{"198.51.100.1, 10.1.0.2"}, "198.51.100.1"},
		{"two proxies, two lines", XForwardedFor, "10.1.0.1:1", []string{"192.0.2.1, 198.51.100.1", "10.1.0.2"}, "198.51.100.1"},
		{"the client lies", XForwardedFor, "10.1.0.1:1", []string{"192.0.2.1, 198.51.100.1"}, "198.51.100.1"},
		{"the client claims to be a proxy", XForwardedFor, "10.1.0.1:1", []string{"10.1.0.7,198.51.100.1"}, "198.51.100.1"},
		{"the client writes rubbish", XForwardedFor, "10.1.0.1:1", []string{`",;="`, `\,,"`, "a\x00b , 198.51.100.1"}, "198.51.100.1"},
		{"proxies alone", XForwardedFor, "10.1.0.1:1", []string{"10.1.0.3, 10.1.0.2"}, nobody},
		{"the proxy writes rubbish", XForwardedFor, "10.1.0.1:1", []string{"192.0.2.1, unknown"}, nobody},
		{"an empty line", XForwardedFor, "10.1.0.1:1", []string{"192.0.2.1", ""}, nobody},
		{"a comma at the end", XForwardedFor, "10.1.0.1:1", []string{"192.0.2.1,"}, nobody},
		{"with a port", XForwardedFor, "10.1.0.1:1", []string{"198.51.100.1:5678"}, "198.51.100.1"},
		{"IPv6 with a port", XForwardedFor, "10.1.0.1:1", []string{"[2001:db8::1]:5678"}, "2001:db8::"},
		{"IPv6 in brackets", XForwardedFor, "10.1.0.1:1", []string{"[2001:db8::1]"}, "2001:db8::"},
		{"IPv4 in brackets", XForwardedFor, "10.1.0.1:1", []string{"[198.51.100.1]"}, nobody},
		{"a bad port", XForwardedFor, "10.1.0.1:1", []string{"198.51.100.1:x"}, nobody},
		{"a long port", XForwardedFor, "10.1.0.1:1", []string{"198.51.100.1:123456"}, nobody},
		{"an open bracket", XForwardedFor, "10.1.0.1:1", []string{"[2001:db8::1"}, nobody},
		{"something behind a bracket", XForwardedFor, "10.1.0.1:1", []string{"[2001:db8::1]x"}, nobody},
		{"it is this machine that the proxy saw", XForwardedFor, "10.1.0.1:1", []string{"192.0.2.1, 127.0.0.1"}, nobody},

		{"the header that the proxy does not write", Forwarded, "10.1.0.1:1", nil, nobody},
		{"no header counts", NoHeader, "10.1.0.1:1", []string{"192.0.2.1"}, nobody},
		{"Forwarded", Forwarded, "10.1.0.1:1", []string{"for=198.51.100.1"}, "198.51.100.1"},
		{"Forwarded with all there is", Forwarded, "10.1.0.1:1", []string{`By=10.1.0.1;FOR="198.51.100.1:99";host="a,b;c";proto=https`}, "198.51.100.1"},
		{"Forwarded with IPv6", Forwarded, "10.1.0.1:1", []string{`for="[2001:db8:cafe::17]:4711"`}, "2001:db8:cafe::"},
		{"Forwarded by two proxies", Forwarded, "10.1.0.1:1", []string{`for=192.0.2.1, for=198.51.100.1`, `for=10.1.0.2;proto=http`}, "198.51.100.1"},
		{"a quote that the client opened", Forwarded, "10.1.0.1:1", []string{`for="192.0.2.1, for=198.51.100.1;proto=http`}, "198.51.100.1"},
		{"a quote that the client escaped", Forwarded, "10.1.0.1:1", []string{`for="\", for=198.51.100.1`}, "198.51.100.1"},
		{"a quote that the client opened before a quoted one", Forwarded, "10.1.0.1:1", []string{`x="for=192.0.2.1, for="[2001:db8::7]"`}, "2001:db8::"},
		{"Forwarded, hidden", Forwarded, "10.1.0.1:1", []string{`for=192.0.2.1, for=_secret`}, nobody},
		{"Forwarded, unknown", Forwarded, "10.1.0.1:1", []string{`for=192.0.2.1, for=unknown`}, nobody},
		{"Forwarded without for", Forwarded, "10.1.0.1:1", []string{`for=192.0.2.1, proto=http`}, nobody},
		{"Forwarded with two", Forwarded, "10.1.0.1:1", []string{`for=192.0.2.1;for=192.0.2.2`}, nobody},
		{"Forwarded, a quote inside", Forwarded, "10.1.0.1:1", []string{`for="192.0.2.1"x""`}, nobody},
		{"Forwarded, a quote alone", Forwarded, "10.1.0.1:1", []string{`for="`}, nobody},
		{"Forwarded, an escape", Forwarded, "10.1.0.1:1", []string{`for="192.0.2.\1"`}, nobody},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := New(Config{Trusted: trusted, Header: tt.header, Exempt: exempt})
			req := &http.Request{RemoteAddr: tt.remote, Header: http.Header{}}
			if tt.header != NoHeader {
				req.Header[string(tt.header)] = tt.lines
			}
			// Of the other header nothing is believed.
			for other, line := range map[Header]string{XForwardedFor: "192.0.2.99", Forwarded: "for=192.0.2.99"} {
				if other != tt.header {
					req.Header[string(other)] = []string{line}
				}
			}
			got, somebody := r.Of(req)
			switch {
			case tt.want == nobody && somebody:
				t.Errorf("it is %v's; want nobody's", netip.AddrFrom16(got).Unmap())
			case tt.want != nobody && (!somebody || got != Group(netip.MustParseAddr(tt.want).As16())):
				t.Errorf("it is %v's (%v); want %s's", netip.AddrFrom16(got).Unmap(), somebody, tt.want)
			}
		})
	}
}

// Who shares a /64 is counted together, who does not is not.
func TestGroup(t *testing.T) {
	t.Parallel()
	r := New(Config{})
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"203.0.113.7:1", "203.0.113.7:2", true},
		{"203.0.113.7:1", "203.0.113.8:1", false},
		{"[2001:db8::1]:1", "[2001:db8::ffff:1]:1", true},
		{"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		{"[64:ff9b::203.0.113.7]:1", "[64:ff9b::203.0.113.8]:1", false},
		{"[::ffff:203.0.113.7]:1", "203.0.113.7:1", true},
	} {
		a, ok1 := r.Of(&http.Request{RemoteAddr: tt.a})
		b, ok2 := r.Of(&http.Request{RemoteAddr: tt.b})
		if !ok1 || !ok2 || (a == b) != tt.same {
			t.Errorf("%s and %s: %v %v, %v %v; the same: want %v", tt.a, tt.b, a, ok1, b, ok2, tt.same)
		}
	}
}

func TestAddrOf(t *testing.T) {
	t.Parallel()
	for _, a := range []net.Addr{nil, (*net.TCPAddr)(nil), &net.TCPAddr{}, &net.UnixAddr{Name: "@x", Net: "unix"}, &net.TCPAddr{IP: net.IP{1, 2, 3}}} {
		if got := addrOf(a); got.IsValid() {
			t.Errorf("%v has the address %v", a, got)
		}
	}
	if got := addrOf(&net.TCPAddr{IP: net.ParseIP("::ffff:10.1.2.3"), Zone: "eth0"}); got != netip.MustParseAddr("10.1.2.3") {
		t.Errorf("an address of IPv4 is %v", got)
	}
}

// Finding an address allocates nothing: every join does it.
func TestOfAllocates(t *testing.T) {
	for header, line := range map[Header]string{XForwardedFor: "192.0.2.1, 198.51.100.1, 10.1.0.2", Forwarded: `for=192.0.2.1, for="[2001:db8::1]:80"`} {
		r := New(Config{Trusted: trusted, Header: header, Exempt: exempt})
		req := &http.Request{RemoteAddr: "10.1.0.1:1", Header: http.Header{string(header): {line}}}
		if n := testing.AllocsPerRun(1000, func() { r.Of(req) }); n != 0 {
			t.Errorf("%s: %v allocations", header, n)
		}
	}
}

// Whatever a client writes, the address that a trusted proxy adds behind it is the
// client's.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"", "192.0.2.1", `for="[::1]:1";by=x`, `"`, `\"`, `,,`, `for=";`, "10.1.0.2", `for="a,b`, "for=10.1.0.2, for=10.1.0.3"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, written string) {
		want := netip.MustParseAddr("198.51.100.1")
		for header, added := range map[Header]string{XForwardedFor: "198.51.100.1", Forwarded: "for=198.51.100.1;proto=http"} {
			r := New(Config{Trusted: trusted, Header: header})
			for _, lines := range [][]string{{written + ", " + added}, {written, added}} {
				got := r.client(&http.Request{RemoteAddr: "10.1.0.1:1", Header: http.Header{string(header): lines}})
				if got != want {
					t.Fatalf("%s %q: the client is %v", header, lines, got)
				}
			}
			// By itself it may say anything, but nothing odd.
			alone := r.client(&http.Request{RemoteAddr: "10.1.0.1:1", Header: http.Header{string(header): {written}}})
			if !alone.IsValid() || alone.Zone() != "" || alone.Is4In6() {
				t.Fatalf("%s %q: the client is %v", header, written, alone)
			}
		}
	})
}

// An address with or without a port is found again.
func FuzzNode(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "192.0.2.1:80", "[2001:db8::1]:80", "2001:db8::1", "[", "]:", "[]:1", ":1", "1.2.3.4:", "fe80::1%x", "[fe80::1%x]:1", " 1.2.3.4\t"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		addr := parseNode(s)
		if !addr.IsValid() {
			return
		}
		if addr.Zone() != "" || addr.Is4In6() {
			t.Fatalf("%q is %v", s, addr)
		}
		for _, again := range []string{addr.String(), netip.AddrPortFrom(addr, 80).String()} {
			if parseNode(again) != addr {
				t.Fatalf("%q is %v, but %q is %v", s, addr, again, parseNode(again))
			}
		}
		if before, _, zone := strings.Cut(s, "%"); !zone && strings.ContainsAny(before, ",;\"\\=") {
			t.Fatalf("%q is an address", s)
		}
	})
}

// A connection counts as its address at once; one of a proxy as nobody, without waiting for
// what it says.
func TestOfConn(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	proxies := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	nc, err := Listen(l, proxies, time.Hour, func(net.Addr, error) {}).Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	r := New(Config{Trusted: proxies})
	for name, c := range map[string]net.Conn{"plain": nc, "TLS": tls.Server(nc, &tls.Config{MinVersion: tls.VersionTLS12})} {
		if g, somebody := r.OfConn(c); somebody {
			t.Errorf("%s: a proxy that has said nothing is %v", name, g)
		}
	}
	at := func(address string) net.Conn { return addressed{address: netip.MustParseAddrPort(address)} }
	first, ok1 := r.OfConn(at("198.51.100.7:1"))
	second, ok2 := r.OfConn(at("198.51.100.7:2"))
	if !ok1 || !ok2 || first != second {
		t.Errorf("one address is %v %v and %v %v", first, ok1, second, ok2)
	}
	if _, somebody := r.OfConn(at("127.0.0.1:1")); somebody {
		t.Error("this machine is somebody")
	}
}

// addressed is a connection that has an address and nothing else.
type addressed struct {
	net.Conn
	address netip.AddrPort
}

func (a addressed) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(a.address) }
