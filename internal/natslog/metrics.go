package natslog

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// Results of appends.
const (
	resultOK          = "ok"
	resultDuplicate   = "duplicate"
	resultUnavailable = "unavailable"
	resultUnknown     = "unknown"
)

// Where gaps are found.
const (
	gapLive = "live" // between two live messages
	gapTail = "tail" // behind the last one, by the tail probe
	// The log has removed what a room was not told of: the only ones that stay.
	gapForgotten = "forgotten"
)

// What is asked of NATS, besides what natsconn asks by itself.
const (
	opPublish   = "publish"    // a draft, by the append path
	opInfo      = "info"       // a stream's identity and end
	opCreate    = "create"     // of a stream
	opLeaderGet = "leader_get" // one message, from the leader
	opDirectGet = "direct_get" // a batch, from any replica
	opTailProbe = "tail_probe" // last messages of many rooms
	opFeed      = "feed"       // a batch of events for back ends
	opModlog    = "modlog"     // an entry of the log of moderation
	opWatch     = "watch"      // a batch of the watch log
	opArchive   = "archive"    // what is known of an archived broadcast
	opConfig    = "config"     // an entry of the table
	opPurge     = "purge"      // the records of a room
	opUpdate    = "update"     // a stream is widened
	opProbe     = "probe"      // whether the user may write to a stream
	opStranger  = "stranger"   // an answer of another stream to an append
	opMirror    = "mirror"     // an answer of a mirror to a direct get
)

// Metrics are those of a [Log].
type Metrics struct {
	appendSeconds prometheus.Histogram
	appends       *prometheus.CounterVec
	gaps          *prometheus.CounterVec
	lostEnds      prometheus.Counter
	repairSeconds prometheus.Histogram
	degraded      prometheus.Gauge
	skipped       *prometheus.CounterVec
	newer         *prometheus.CounterVec
	nats          *natsconn.Metrics
	differences   *prometheus.GaugeVec
	replicas      *prometheus.GaugeVec
}

// NewMetrics registers the metrics of a log.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		nats: natsconn.NewMetrics(reg, []string{opInfo, opCreate, opLeaderGet, opDirectGet, opTailProbe, opProbe, opFeed, opModlog, opWatch, opArchive, opConfig, opPurge, opUpdate}, []string{opPublish, opStranger, opMirror}),
		appendSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kansei_append_seconds",
			Help:    "Time from an append to the room log's answer.",
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 12},
		}),
		appends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kansei_appends_total", Help: "Appends to the room log by result.",
		}, []string{"result"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kansei_log_gaps_total", Help: "Gaps in what rooms were told, by where they were found; all but the forgotten are read back.",
		}, []string{"where"}),
		lostEnds: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kansei_log_lost_ends_total", Help: "How often a stream was found to have lost its end, and to give its positions again.",
		}),
		repairSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kansei_log_repair_seconds",
			Help:    "Time to read back what a room was missing.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		degraded: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_log_degraded_rooms", Help: "Rooms on this node whose log cannot be followed at the moment.",
		}),
		skipped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kansei_log_skipped_total", Help: "Records in the log that are no events, by what is wrong with them.",
		}, []string{"reason"}),
		newer: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kansei_log_newer_records_total", Help: "Records of a newer schema than this node knows, by what they are: events are passed over, states are told as they are.",
		}, []string{"record"}),
		differences: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kansei_log_stream_differences", Help: "Settings in which the streams are not as this node is configured, by what that does.",
		}, []string{"effect"}),
		replicas: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kansei_log_replicas_missing", Help: "Replicas that the streams should have and do not, by what is wrong with them, as the leaders say.",
		}, []string{"state"}),
	}
	reg.MustRegister(m.appendSeconds, m.appends, m.gaps, m.lostEnds, m.repairSeconds, m.degraded, m.skipped, m.newer,
		m.differences, m.replicas)
	for _, v := range []string{resultOK, resultDuplicate, resultUnavailable, resultUnknown} {
		m.appends.WithLabelValues(v)
	}
	for _, v := range []string{gapLive, gapTail, gapForgotten} {
		m.gaps.WithLabelValues(v)
	}
	for _, v := range []skipReason{skipEnvelope, skipHeader, skipBody} {
		m.skipped.WithLabelValues(string(v))
	}
	for _, v := range []string{recordEvent, recordState} {
		m.newer.WithLabelValues(v)
	}
	for e := range effects {
		m.differences.WithLabelValues(effect(e).String())
	}
	for _, v := range replicaStates {
		m.replicas.WithLabelValues(v)
	}
	return m
}

func (m *Metrics) skip(reason skipReason) { m.skipped.WithLabelValues(string(reason)).Inc() }
