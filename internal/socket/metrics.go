package socket

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics counts what connections do. One may serve several servers.
type Metrics struct {
	sentBytes counter
	plain     counter
	deflated  counter
	messages  counter
	slow      atomic.Int64
	closes    map[Kind]prometheus.Counter
}

// NewMetrics registers the metrics of this package; nil registers nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{closes: make(map[Kind]prometheus.Counter)}
	f.NewCounterFunc(prometheus.CounterOpts{
		Name: "kansei_sent_bytes_total",
		Help: "Bytes that the kernel took for viewers: frames, and the answers to handshakes.",
	}, m.sentBytes.total)
	for form, c := range map[string]*counter{"plain": &m.plain, "deflated": &m.deflated} {
		f.NewCounterFunc(prometheus.CounterOpts{
			Name:        "kansei_frames_total",
			Help:        "Message frames handed to a connection, by form.",
			ConstLabels: prometheus.Labels{"form": form},
		}, c.total)
	}
	f.NewCounterFunc(prometheus.CounterOpts{
		Name: "kansei_received_messages_total",
		Help: "Whole messages received from viewers.",
	}, m.messages.total)
	f.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kansei_slow_writers",
		Help: "Viewers that are behind: something waits until they take it.",
	}, func() float64 { return float64(m.slow.Load()) })
	closes := f.NewCounterVec(prometheus.CounterOpts{
		Name: "kansei_closes_total",
		Help: "WebSocket connections that ended, those that were refused too, by what ended them.",
	}, []string{"cause"})
	for _, k := range Kinds() {
		m.closes[k] = closes.WithLabelValues(string(k))
	}
	return m
}

// countFrames counts frames by their form.
func (m *Metrics) countFrames(shard uint8, frames [][]byte) {
	deflated := 0
	for _, f := range frames {
		if len(f) > 0 && f[0]&rsv1Bit != 0 {
			deflated++
		}
	}
	if deflated > 0 {
		m.deflated.add(shard, deflated)
	}
	if plain := len(frames) - deflated; plain > 0 {
		m.plain.add(shard, plain)
	}
}

// counter is a sum in parts that do not share a cache line, because every write
// to every connection adds to it.
type counter [8]struct {
	n atomic.Uint64
	_ [56]byte
}

func (c *counter) add(shard uint8, n int) { c[shard%8].n.Add(uint64(n)) }

func (c *counter) total() float64 {
	var sum uint64
	for i := range c {
		sum += c[i].n.Load()
	}
	return float64(sum)
}

// SentBytes is how many bytes the kernel has taken for viewers so far.
func (s *Server) SentBytes() uint64 { return uint64(s.metrics.sentBytes.total()) }
