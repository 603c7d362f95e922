package edge

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/socket"
	"github.com/kansei-live/kansei/protocol"
)

// Why somebody is not let in.
const (
	refusedOrigin    = "origin"
	refusedHost      = "host"
	refusedFull      = "full"
	refusedHandshake = "handshake"
	refusedToken     = "token"
	refusedRoom      = "room"
	refusedLeaving   = "leaving"
	refusedBanned    = "banned"
	refusedUser      = "user"    // the user has as many connections as a user may have
	refusedAddress   = "address" // so has the address
	refusedProxy     = "proxy"   // a trusted proxy has begun without the PROXY protocol
)

// Why this node has closed a viewer's connection. What else ends one is a [socket.Kind].
const (
	leftRestart   = "restart" // the node was leaving, and the viewer had not gone by itself
	leftToken     = "token"   // its token had ended
	leftBanned    = "banned"
	leftNoRoom    = "no_room"   // its room was deleted
	leftTooMany   = "too_many"  // it sent too many messages
	leftMalformed = "malformed" // it sent too many that are none
)

// leaveReason says why a viewer has gone: in more detail than its connection's end where that
// was this node's doing.
func leaveReason(c socket.Cause) string {
	if c.Kind == socket.ClosedByServer {
		switch protocol.CloseCode(c.Code) {
		case protocol.CloseRestart:
			return leftRestart
		case protocol.CloseUnauthorized:
			return leftToken
		case protocol.CloseBanned:
			return leftBanned
		case protocol.CloseNoRoom:
			return leftNoRoom
		case protocol.CloseTooMany:
			return leftTooMany
		case protocol.CloseMalformed:
			return leftMalformed
		}
	}
	return string(c.Kind)
}

// What became of a fresh token over an open connection.
const (
	renewalAsked   = "asked" // its viewer was asked for one
	renewalTaken   = "taken"
	renewalRefused = "refused"
)

// How somebody comes in.
const (
	joinNew       = "new"
	joinRecovered = "recovered"
	joinLost      = "lost" // came with a cursor that could not be followed
)

// Metrics is what an edge counts.
type Metrics struct {
	connections prometheus.Gauge
	joins       *prometheus.CounterVec
	leaves      *prometheus.CounterVec
	refused     *prometheus.CounterVec
	comments    *prometheus.CounterVec
	events      *prometheus.CounterVec
	acts        *prometheus.CounterVec
	joinSeconds prometheus.Histogram
	draining    prometheus.Gauge
	told        prometheus.Counter
	expired     prometheus.Counter
	open        *prometheus.GaugeVec
	evicted     *prometheus.CounterVec
	tokens      *prometheus.CounterVec
	renewals    *prometheus.CounterVec
	revoked     prometheus.Counter

	acceptErrors *prometheus.CounterVec
	maxViewers   prometheus.Gauge
	maxEgress    prometheus.Gauge
}

// NewMetrics registers the metrics of an edge.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	counter := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := f.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		return v
	}
	reasons := []string{leftRestart, leftToken, leftBanned, leftNoRoom, leftTooMany, leftMalformed}
	for _, k := range socket.Kinds() {
		reasons = append(reasons, string(k))
	}
	results := []string{"ok"}
	for _, c := range protocol.ErrorCodes() {
		results = append(results, string(c))
	}
	open := f.NewGaugeVec(prometheus.GaugeOpts{
		Name: "kansei_http_connections", Help: "Connections that are no viewers': handshakes, requests, idle ones.",
	}, []string{"listener"})
	for _, l := range listeners() {
		open.WithLabelValues(l)
	}
	tokens := f.NewCounterVec(prometheus.CounterOpts{
		Name: "kansei_token_refusals_total", Help: "Tokens that were refused, over WebSocket and HTTP, by cause; claim is the one that is wrong.",
	}, []string{"cause", "claim"})
	for _, cause := range append(auth.Causes(), causeMissing, causeRevoked, causeAPIKey) {
		if cause != auth.CauseClaim {
			tokens.WithLabelValues(string(cause), "")
		}
	}
	for _, claim := range auth.ClaimNames() {
		tokens.WithLabelValues(string(auth.CauseClaim), claim)
	}
	acts := f.NewCounterVec(prometheus.CounterOpts{
		Name: "kansei_acts_total", Help: "Acts of moderators, and of users about themselves, by type and result.",
	}, []string{"type", "result"})
	for _, typ := range protocol.ActTypes() {
		acts.WithLabelValues(typ, "ok")
	}
	return &Metrics{
		acts: acts,
		open: open, tokens: tokens,
		renewals: counter("kansei_token_renewals_total", "Fresh tokens over open connections: viewers who were asked for one, tokens that were taken and refused.",
			"result", renewalAsked, renewalTaken, renewalRefused),
		evicted: counter("kansei_http_evicted_total", "Connections that asked for nothing, or without end, and were closed to make room for others.",
			"listener", listeners()...),
		acceptErrors: counter("kansei_accept_errors_total", "Connections that could not be taken at once, because descriptors or memory were short.",
			"listener", listeners()...),
		maxViewers: f.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_max_viewers", Help: "Viewers that the node takes: --max-viewers, or fewer where the limit of open files is too low.",
		}),
		maxEgress: f.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_max_egress_bytes", Help: "Bytes a second that the node may send to viewers (--max-egress), 0 for no limit; at nine tenths of it it takes nobody in.",
		}),
		connections: f.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_connections", Help: "WebSocket connections of viewers that were let in.",
		}),
		joins: counter("kansei_joins_total", "Viewers that came in: new, recovered with their cursor, or lost with one that could not be followed.",
			"result", joinNew, joinRecovered, joinLost),
		leaves: counter("kansei_leaves_total", "Viewers that had been let in and went, by reason.", "reason", reasons...),
		refused: counter("kansei_refused_total", "Viewers that were not let in, by reason.", "reason", refusedOrigin, refusedHost, refusedFull, refusedHandshake, refusedToken, refusedRoom, refusedLeaving,
			refusedBanned, refusedUser, refusedAddress, refusedProxy),
		comments: counter("kansei_comments_total", "Comments that somebody wanted to publish, by result.", "result", results...),
		events:   counter("kansei_events_total", "Events of the application that somebody wanted to publish, by result.", "result", results...),
		joinSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "kansei_join_seconds", Help: "Time from the request to the welcome.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5},
		}),
		draining: f.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_draining", Help: "1 while the node is leaving.",
		}),
		revoked: f.NewCounter(prometheus.CounterOpts{
			Name: "kansei_token_revocation_closes_total", Help: "Viewers that were closed because their token was revoked.",
		}),
		expired: f.NewCounter(prometheus.CounterOpts{
			Name: "kansei_token_ends_total", Help: "Viewers that were sent for a new token, because theirs had ended.",
		}),
		told: f.NewCounter(prometheus.CounterOpts{
			Name: "kansei_drain_told_total", Help: "Viewers that were told when to come back elsewhere, because the node is leaving.",
		}),
	}
}

// RefusedHosts counts requests to the public listener under the name of another host.
func (m *Metrics) RefusedHosts() prometheus.Counter { return m.refused.WithLabelValues(refusedHost) }

func (m *Metrics) join(resuming, recovered bool, took time.Duration) {
	result := joinNew
	switch {
	case recovered:
		result = joinRecovered
	case resuming:
		result = joinLost
	}
	m.joins.WithLabelValues(result).Inc()
	m.joinSeconds.Observe(took.Seconds())
}
