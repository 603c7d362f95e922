package watchlog

import "github.com/prometheus/client_golang/prometheus"

// Metrics is what a tracker counts.
type Metrics struct {
	rows, dropped, batches, errors prometheus.Counter
	pending                        prometheus.Gauge
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "kansei", Subsystem: "watch", Name: name, Help: help})
		reg.MustRegister(c)
		return c
	}
	m := &Metrics{
		rows:    counter("rows_total", "Rows of the watch log that were written, beside those that say that nothing has changed."),
		dropped: counter("rows_dropped_total", "Rows of the watch log that were dropped, for too many waited for the stream."),
		batches: counter("batches_total", "Batches of rows that the stream has taken."),
		errors:  counter("errors_total", "Tries to store a batch that failed."),
		pending: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "kansei", Subsystem: "watch", Name: "pending_bytes", Help: "Batches of rows that wait for the stream, in bytes."}),
	}
	reg.MustRegister(m.pending)
	return m
}
