package hub

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Reasons for which a comment of the log is not sent to a viewer.
const (
	dropSlow    = "slow"    // the viewer fell off the ring
	dropSampled = "sampled" // the room had more than its rate
)

// Metrics is what a hub counts.
type Metrics struct {
	rooms        prometheus.Gauge
	viewers      prometheus.Gauge
	dropped      *prometheus.CounterVec
	delivery     prometheus.Histogram
	frameItems   prometheus.Histogram
	flushViewers prometheus.Histogram
	flushSeconds prometheus.Histogram
}

// NewMetrics registers the metrics of a hub; with nil they are kept to themselves.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{
		rooms: f.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_rooms", Help: "Rooms that are open on this node.",
		}),
		viewers: f.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_viewers", Help: "Viewers that are in a room on this node.",
		}),
		dropped: f.NewCounterVec(prometheus.CounterOpts{
			Name: "kansei_dropped_comments_total", Help: "Comments that a viewer was not sent but told of, by reason.",
		}, []string{"reason"}),
		delivery: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "kansei_delivery_seconds",
			Help:    "Time from a comment's entry into the log to the end of the flush that wrote it to the sockets.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}),
		frameItems: f.NewHistogram(prometheus.HistogramOpts{
			Name: "kansei_frame_comments", Help: "Comments in one frame.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 9),
		}),
		flushViewers: f.NewHistogram(prometheus.HistogramOpts{
			Name: "kansei_round_viewers", Help: "Viewers flushed at once.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 9),
		}),
		flushSeconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "kansei_round_seconds", Help: "Duration of one flush.",
			Buckets: prometheus.ExponentialBuckets(.00001, 4, 10),
		}),
	}
	m.dropped.WithLabelValues(dropSlow)
	m.dropped.WithLabelValues(dropSampled)
	return m
}
