package redispresence

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// What a request to Redis is for: the values of the label op.
const (
	opTick  = "tick"  // renews a lease, brings changes, fetches counts
	opReap  = "reap"  // takes a dead or retired incarnation out
	opSweep = "sweep" // looks after a bucket in which this node has nothing
	opPin   = "pin"   // compares the number of buckets with that of the other nodes
	opNodes = "nodes" // renews the record of the node
	opList  = "list"  // reads who is where
	opFeed  = "feed"  // takes what back ends are to be told
)

// Why a node wrote itself anew: the values of the label reason.
const (
	resyncLost   = "lost"   // Redis knows nothing of the node: restarted empty or flushed
	resyncReaped = "reaped" // the node was away for longer than its lease
	resyncTick   = "tick"   // Redis is at another tick: back at an older state
	resyncKeys   = "keys"   // Redis has lost some keys: the rooms that these were about
)

// resyncCause is what each reason means, for the log.
var resyncCause = map[string]string{
	resyncLost:   "redis was started empty, or flushed",
	resyncReaped: "this node was silent for longer than --presence-lease, and the others took it for dead",
	resyncTick:   "redis is back at an older state, such as that of a replica after a failover",
	resyncKeys:   "redis has lost some keys: find out what evicts or deletes them",
}

// Metrics are the metrics of a [Presence].
type Metrics struct {
	up      prometheus.Gauge
	errors  *prometheus.CounterVec
	seconds prometheus.Histogram
	resyncs *prometheus.CounterVec
	reaped  prometheus.Counter

	feedBatches, feedErrors prometheus.Counter
}

// NewMetrics registers the metrics with reg; with nil they are kept but not
// registered.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{
		up: f.NewGauge(prometheus.GaugeOpts{
			Name: "kansei_redis_up",
			Help: "Whether Redis answers, and takes presence, for every bucket that this node uses.",
		}),
		errors: f.NewCounterVec(prometheus.CounterOpts{
			Name: "kansei_redis_errors_total",
			Help: "Requests to Redis that failed or were not answered in time, by what they were for.",
		}, []string{"op"}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "kansei_redis_request_seconds",
			Help:    "Time that requests to Redis took, failed ones included.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2.5, 12), // 100 µs to 2.4 s
		}),
		resyncs: f.NewCounterVec(prometheus.CounterOpts{
			Name: "kansei_roster_resyncs_total",
			Help: "Times that this node wrote its presence in a bucket anew, by reason.",
		}, []string{"reason"}),
		reaped: f.NewCounter(prometheus.CounterOpts{
			Name: "kansei_roster_reaped_total",
			Help: "Incarnations of dead nodes that this node took out of a bucket.",
		}),
	}
	m.feedBatches = f.NewCounter(prometheus.CounterOpts{
		Name: "kansei_presence_events_total",
		Help: "Batches of joins and leaves that this node published for back ends.",
	})
	m.feedErrors = f.NewCounter(prometheus.CounterOpts{
		Name: "kansei_presence_event_errors_total",
		Help: "Times that batches of joins and leaves could not be taken from Redis or published; they are tried again.",
	})
	for _, op := range []string{opTick, opReap, opSweep, opPin, opNodes, opList, opFeed} {
		m.errors.WithLabelValues(op)
	}
	for _, reason := range []string{resyncLost, resyncReaped, resyncTick, resyncKeys} {
		m.resyncs.WithLabelValues(reason)
	}
	return m
}
