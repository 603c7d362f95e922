// Package clientaddr finds out whose address a request comes from, for limits that count
// by address.
//
// It is that of the connection, or what a proxy says that an operator trusts: at the
// beginning of the connection, by the PROXY protocol ([Listen]), or in each request, in
// X-Forwarded-For or Forwarded. A client can write such a header too. So only one of the
// two counts, the one that the proxies write, and it is read from its end, where the
// nearest proxy has added whom it saw; the first address that is not a trusted proxy's is
// the client's.
//
// Some addresses are nobody's, and nothing is counted for them: those of trusted proxies,
// of this machine, of networks that are excepted, and what is no address. A proxy that
// does not say who its clients are is no client that is to be locked out.
package clientaddr

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// Header is where trusted proxies say whom they have seen, in the canonical form of
// net/http.
type Header string

// The headers that are known.
const (
	XForwardedFor Header = "X-Forwarded-For"
	Forwarded     Header = "Forwarded" // RFC 7239
	NoHeader      Header = ""
)

// Config is what a [Resolver] is made of.
type Config struct {
	Trusted []netip.Prefix // addresses of proxies
	Header  Header
	Exempt  []netip.Prefix // networks that nothing is counted for
}

// Resolver finds clients' addresses.
type Resolver struct{ cfg Config }

// New makes a Resolver.
func New(cfg Config) *Resolver { return &Resolver{cfg} }

// Group is whom addresses are counted as: one IPv4 address, or the /64 of an IPv6
// address, because the owner of one of those addresses has them all.
type Group [16]byte

// Of returns whom a request counts as; false if it is nobody.
func (r *Resolver) Of(req *http.Request) (Group, bool) {
	return r.group(r.client(req))
}

// OfConn returns whom a connection counts as before anything was read from it; false if it
// is nobody. Proxies are nobody, whoever's connections they bring.
func (r *Resolver) OfConn(nc net.Conn) (Group, bool) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if _, ok := nc.(*proxied); ok { // which would wait for its header to tell the address
		return Group{}, false
	}
	return r.group(addrOf(nc.RemoteAddr()))
}

// client is the address that makes a request; not valid if that is unknown.
func (r *Resolver) client(req *http.Request) netip.Addr {
	addr := parseNode(req.RemoteAddr)
	if r.cfg.Header == NoHeader || !within(r.cfg.Trusted, addr) {
		return addr
	}
	lines := req.Header[string(r.cfg.Header)]
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			var hop string
			if r.cfg.Header == Forwarded {
				rest, hop, more = cutLastQuoted(rest)
				hop = forwardedFor(hop)
			} else {
				rest, hop, more = cutLast(rest)
			}
			before := parseNode(hop)
			if !before.IsValid() {
				return addr
			}
			if addr = before; !within(r.cfg.Trusted, addr) {
				return addr
			}
		}
	}
	return addr
}

// nat64 is the well-known prefix of RFC 6052: what comes from it is IPv4.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// group says whom addr counts as.
func (r *Resolver) group(addr netip.Addr) (Group, bool) {
	if !addr.IsValid() || addr.IsLoopback() || addr.IsUnspecified() || within(r.cfg.Trusted, addr) || within(r.cfg.Exempt, addr) {
		return Group{}, false
	}
	g := Group(addr.As16())
	if addr.Is6() && !nat64.Contains(addr) {
		clear(g[8:])
	}
	return g, true
}

// within reports whether addr is in one of the networks.
func within(networks []netip.Prefix, addr netip.Addr) bool {
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// addrOf is the address of one end of a connection; not valid if it has none.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok && tcp != nil {
		return plain(tcp.AddrPort().Addr())
	}
	return netip.Addr{}
}

// plain is addr as it is compared: IPv4 in IPv6 is IPv4, and without a zone.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// cutLast cuts the last element off a list with commas; more reports whether there
// are others.
func cutLast(list string) (rest, last string, more bool) {
	if i := strings.LastIndexByte(list, ','); i >= 0 {
		return list[:i], list[i+1:], true
	}
	return "", list, false
}

// cutLastQuoted is cutLast where elements may be quoted. What stands before the last
// comma, as a client may have written it, does not change what is behind it.
func cutLastQuoted(list string) (rest, last string, more bool) {
	quoted := false
	for i := len(list) - 1; i >= 0; i-- {
		switch list[i] {
		case '"':
			quoted = !quoted
		case ',':
			if !quoted {
				return list[:i], list[i+1:], true
			}
		}
	}
	return "", list, false
}

// forwardedFor returns the node that an element of Forwarded says that the request came
// from; "" if it does not say it, or not rightly.
func forwardedFor(element string) string {
	// No address needs an escape, and without one quotes are simple.
	if strings.Contains(element, `\`) || strings.Count(element, `"`)%2 != 0 {
		return ""
	}
	node, found := "", false
	for rest, more := element, true; more; {
		var pair string
		pair, rest, more = cutPair(rest)
		name, value, ok := strings.Cut(strings.Trim(pair, " \t"), "=")
		if !ok || !strings.EqualFold(name, "for") {
			continue
		}
		if found {
			return ""
		}
		if found = true; strings.HasPrefix(value, `"`) {
			if len(value) < 2 || strings.IndexByte(value[1:], '"') != len(value)-2 {
				return ""
			}
			value = value[1 : len(value)-1]
		}
		node = value
	}
	return node
}

// cutPair cuts the first pair off an element of Forwarded.
func cutPair(element string) (pair, rest string, more bool) {
	quoted := false
	for i := range len(element) {
		switch element[i] {
		case '"':
			quoted = !quoted
		case ';':
			if !quoted {
				return element[:i], element[i+1:], true
			}
		}
	}
	return element, "", false
}

// parseNode returns the address of a node: an IP address, with or without a port, IPv6 with
// or without brackets; not valid if it is anything else, such as "unknown" or the name of a
// socket.
func parseNode(s string) netip.Addr {
	s = strings.Trim(s, " \t")
	host, port := s, ""
	if inner, ok := strings.CutPrefix(s, "["); ok {
		host, port, ok = strings.Cut(inner, "]")
		if !ok || !strings.Contains(host, ":") || port != "" && !isPort(port) {
			return netip.Addr{}
		}
	} else if i := strings.IndexByte(s, ':'); i >= 0 && strings.LastIndexByte(s, ':') == i {
		if host, port = s[:i], s[i:]; !isPort(port) {
			return netip.Addr{}
		}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return plain(addr)
}

// isPort reports whether s is a colon and a port.
func isPort(s string) bool {
	if len(s) < 2 || len(s) > 6 || s[0] != ':' {
		return false
	}
	for _, c := range []byte(s[1:]) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
