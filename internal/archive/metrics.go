package archive

import "github.com/prometheus/client_golang/prometheus"

// Metrics is what a worker counts.
type Metrics struct {
	up, open          prometheus.Gauge
	revisions, errors prometheus.Counter
	hooks             *prometheus.CounterVec
}

// NewMetrics registers them.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "kansei", Subsystem: "archive", Name: name, Help: help}
	}
	m := &Metrics{
		up:        prometheus.NewGauge(prometheus.GaugeOpts(opts("up", "Whether the worker could do all that was to be done when it looked last."))),
		open:      prometheus.NewGauge(prometheus.GaugeOpts(opts("open_rooms", "Rooms with a broadcast that runs, or of which more may come."))),
		revisions: prometheus.NewCounter(prometheus.CounterOpts(opts("revisions_total", "Revisions of broadcasts that this worker has made."))),
		errors:    prometheus.NewCounter(prometheus.CounterOpts(opts("errors_total", "Times that the worker could not do all that was to be done."))),
		hooks:     prometheus.NewCounterVec(prometheus.CounterOpts(opts("hooks_total", "Calls of the web hook, by what became of them.")), []string{"result"}),
	}
	for _, result := range []string{"ok", "failed", "undelivered"} {
		m.hooks.WithLabelValues(result)
	}
	reg.MustRegister(m.up, m.open, m.revisions, m.errors, m.hooks)
	return m
}

func (m *Metrics) hook(err error, given bool) {
	switch {
	case err == nil:
		m.hooks.WithLabelValues("ok").Inc()
	case given:
		m.hooks.WithLabelValues("undelivered").Inc()
	default:
		m.hooks.WithLabelValues("failed").Inc()
	}
}
