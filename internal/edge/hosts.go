package edge

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/internal/quiet"
)

// maxShown is how many bytes of what a client has sent are shown, to it or in the log.
const maxShown = 100

// Hosts has a listener answer only to names that are its own. A page of anybody's can
// have its own name lead to this machine (DNS rebinding): to a browser this listener is
// then of the page's origin, and the page may do and read everything here. It cannot do
// that to an address, nor to localhost.
type Hosts struct {
	Names []string // beside addresses and localhost; "*" for any
	Flag  string   // that adds a name
	Log   *quiet.Logger
	// Refused counts who was refused; nil: nobody does.
	Refused prometheus.Counter
}

// Handler refuses what does not come to a name of the listener's with 421.
func (h Hosts) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := hostname(r.Host)
		if h.own(name) {
			next.ServeHTTP(w, r)
			return
		}
		if h.Refused != nil {
			h.Refused.Inc()
		}
		shown := quiet.Cut(name, maxShown)
		flag := "--" + h.Flag + "=" + shown
		h.Log.Log(slog.LevelWarn, "refused a request to the name of another host; if it is this node's start with --"+h.Flag, name, "host", shown, "flag", flag)
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "this listener does not answer to the name "+shown+"; if it is this node's, start it with "+flag, http.StatusMisdirectedRequest)
	})
}

// own reports whether name is the listener's. A request without a name comes from no
// browser, but from an old health check.
func (h Hosts) own(name string) bool {
	if name == "" || name == "localhost" || strings.HasSuffix(name, ".localhost") { // which nobody can own (RFC 6761)
		return true
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return slices.ContainsFunc(h.Names, func(own string) bool { return own == "*" || hostname(own) == name })
}

// hostname is a host in one form, without its port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// ownPages refuses what a page of another site makes a browser ask for, if the browser
// says so. It is http.CrossOriginProtection for requests that act or cost whatever their
// method is: that lets every GET pass.
func ownPages(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		acting := r.WithContext(r.Context()) // a copy
		acting.Method = http.MethodPost
		if protection.Check(acting) != nil {
			http.Error(w, "pages of other sites may not ask for this", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
