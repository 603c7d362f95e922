package edge

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/pprof"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kansei-live/kansei/internal/health"
)

// Ops is the operators' listener: /metrics, /healthz, /readyz, /drain, /debug/pprof/, and keys and
// revocations at /v1/.
// drain makes the node leave, returns at once and may be called again; it tells how
// many viewers are here and how long it takes to send them away. more are further entrances.
func (s *Server) Ops(reg *prometheus.Registry, parts []health.Part, drain func() (viewers int, left time.Duration), more map[string]http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { readyz(w, parts) })
	// A page in an operator's browser must not be able to stop a node.
	mux.Handle("POST /drain", ownPages(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		viewers, left := drain()
		writeJSON(w, http.StatusAccepted, draining{viewers, math.Ceil(left.Seconds()*10) / 10})
	})))
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /debug/pprof/":        pprof.Index,
		"GET /debug/pprof/cmdline": program,
		"GET /debug/pprof/profile": pprof.Profile,
		"GET /debug/pprof/symbol":  pprof.Symbol,
		"POST /debug/pprof/symbol": pprof.Symbol,
		"GET /debug/pprof/trace":   pprof.Trace,
	} {
		mux.Handle(pattern, ownPages(h)) // each takes time, and some stop the node for a moment
	}
	s.registerAccess(mux)
	for pattern, h := range more {
		mux.Handle(pattern, ownPages(h))
	}
	return mux
}

// program answers with the name of the program, which is what readers of profiles want
// of the command line. Its arguments may be secrets.
func program(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, os.Args[0]) // the client is gone: nobody to tell
}

// draining is the answer to POST /drain.
type draining struct {
	Viewers int     `json:"viewers"` // still here
	Seconds float64 `json:"seconds"` // until the last one is to have left
}

// readyz says of each part, in a line, whether it is ready, degraded, or what is wrong. Only the
// last makes the answer 503.
func readyz(w http.ResponseWriter, parts []health.Part) {
	lines, ok := health.Report(parts)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, l := range lines {
		fmt.Fprintln(w, l)
	}
}
