package edge

import (
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/protocol"
)

// maxOrigin is how many bytes an origin may have: a host has at most 253.
const maxOrigin = 300

// origin is where a page comes from, in one form.
type origin struct {
	scheme string // empty: any
	name   string // in lower case, without a dot at its end
	port   string // empty: that of the scheme
}

// defaultPort is the port of a scheme; empty for others than browsers' own.
func defaultPort(scheme string) string {
	switch scheme {
	case "http":
		return "80"
	case "https":
		return "443"
	}
	return ""
}

// originOf is the origin of a page, or of a setting, which may be a host alone.
func originOf(u *url.URL) origin {
	o := origin{scheme: u.Scheme, name: hostname(u.Host), port: u.Port()}
	if o.port != "" && o.port == defaultPort(o.scheme) {
		o.port = ""
	}
	return o
}

// allows reports whether o, of a setting, allows the pages of p. Without a scheme any will
// do, at the port of the setting.
func (o origin) allows(p origin) bool {
	if o.scheme != "" || o.port == "" {
		return o.name == p.name && o.port == p.port && (o.scheme == "" || o.scheme == p.scheme)
	}
	port := p.port
	if port == "" {
		port = defaultPort(p.scheme)
	}
	return o.name == p.name && o.port == port
}

// parseOrigins returns the origins of a setting; "*" and "null" are no origins of a host.
func parseOrigins(all []string) []origin {
	var out []origin
	for _, s := range all {
		if !strings.Contains(s, "://") {
			s = "//" + s
		}
		if u, err := url.Parse(strings.TrimSuffix(s, "/")); err == nil && u.Host != "" {
			out = append(out, originOf(u))
		}
	}
	return out
}

// ownHost reports whether a page of the origin p, of that host as the browser wrote it, is
// of the host of a request. A port that is the default of a scheme counts as none: whether a
// proxy in front speaks the scheme of the page, and what it adds to Host, is not known here.
func ownHost(p origin, written, host string) bool {
	if strings.EqualFold(written, host) {
		return true
	}
	h := origin{name: hostname(host)}
	if _, port, err := net.SplitHostPort(host); err == nil && port != "80" && port != "443" {
		h.port = port
	}
	return p.name == h.name && p.port == h.port
}

// originAllowed reports whether the page that makes a request may do so. Clients other than
// browsers name no origin.
func (s *Server) originAllowed(r *http.Request) bool {
	from := r.Header.Get("Origin")
	if from == "" {
		return true
	}
	if len(from) > maxOrigin { // no browser's, and the answer would repeat it
		return false
	}
	if slices.Contains(s.cfg.Origins, "*") {
		return true
	}
	u, err := url.Parse(from)
	if err != nil || u.Host == "" {
		return slices.Contains(s.cfg.Origins, from) // "null"
	}
	p := originOf(u)
	if ownHost(p, u.Host, r.Host) || s.cfg.Loopback && isLoopback(p.name) {
		return true
	}
	return slices.ContainsFunc(s.origins, func(o origin) bool { return o.allows(p) })
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// foreign refuses the page of a foreign origin.
func (s *Server) foreign(r *http.Request) *refusal {
	from := r.Header.Get("Origin")
	shown := quiet.Cut(from, maxShown)
	s.quiet.Log(slog.LevelWarn, "refused a page of another origin than the host of its request; if viewers reach this node there, and a proxy changes Host, start with --public-url, to permit another site with --origin",
		from, "origin", shown, "host", quiet.Cut(r.Host, maxShown), "own", "--public-url="+shown, "other", "--origin="+shown)
	return &refusal{code: protocol.CodeForbidden, message: `pages of the origin "` + shown + `" may not connect to this node`, reason: refusedOrigin, hard: true}
}
