package reload

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// How files were read again.
const (
	resultOK     = "ok"
	resultFailed = "failed"
)

// Metrics is what a Set counts.
type Metrics struct {
	reloads *prometheus.CounterVec
	ok      prometheus.Gauge
	last    prometheus.Gauge
}

// NewMetrics registers the metrics of a Set.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{
		reloads: f.NewCounterVec(prometheus.CounterOpts{
			Name: "kansei_reloads_total", Help: "How often certificates, secrets and credentials were read again from their files, by result: a failure changes nothing.",
		}, []string{"result"}),
		ok: f.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_reload_ok", Help: "Whether these files could be read when they were last tried (1), or are broken (0).",
		}),
		last: f.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_reload_last_ok_timestamp_seconds", Help: "When these files were last read, in Unix seconds.",
		}),
	}
	for _, r := range []string{resultOK, resultFailed} {
		m.reloads.WithLabelValues(r)
	}
	return m
}

// good notes that all files were read.
func (m *Metrics) good(now time.Time) {
	m.ok.Set(1)
	m.last.Set(float64(now.UnixMilli()) / 1000)
}
