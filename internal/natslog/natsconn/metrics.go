package natsconn

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What a connection does by itself, in the metric of failures.
const (
	OpConnect      = "connect"
	OpSubscribe    = "subscribe"     // and unsubscribe, flush
	OpSlowConsumer = "slow_consumer" // live messages dropped by the client
	OpAsync        = "async"         // whatever else the connection reports
	OpPermission   = "permission"    // whatever it was, the node's user may not do it
)

// Metrics are those of a [Conn].
type Metrics struct {
	Connected  prometheus.Gauge
	Reconnects prometheus.Counter
	Errors     *prometheus.CounterVec   // by op
	Requests   *prometheus.HistogramVec // by op
}

// NewMetrics registers the metrics of a connection. requests are the names of what is asked over
// it, others of what else may fail: all of them are there from the start.
func NewMetrics(reg prometheus.Registerer, requests, others []string) *Metrics {
	m := &Metrics{
		Connected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_nats_connected", Help: "1 while the node is connected to NATS.",
		}),
		Reconnects: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kansei_nats_reconnects_total", Help: "Connections to NATS made after one was lost.",
		}),
		Errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kansei_nats_errors_total", Help: "Failures of NATS by what was asked of it.",
		}, []string{"op"}),
		Requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kansei_nats_request_seconds",
			Help:    "Time that requests to NATS take, by what is asked.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}, []string{"op"}),
	}
	reg.MustRegister(m.Connected, m.Reconnects, m.Errors, m.Requests)
	for _, v := range requests {
		m.Requests.WithLabelValues(v)
		m.Errors.WithLabelValues(v)
	}
	for _, v := range append([]string{OpConnect, OpSubscribe, OpSlowConsumer, OpAsync, OpPermission}, others...) {
		m.Errors.WithLabelValues(v)
	}
	return m
}

// Failed counts a failure.
func (m *Metrics) Failed(op string) { m.Errors.WithLabelValues(op).Inc() }

// asked observes the end of a request that began at start.
func (m *Metrics) asked(op string, start time.Time) {
	m.Requests.WithLabelValues(op).Observe(time.Since(start).Seconds())
}
