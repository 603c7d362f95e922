package health

import (
	"log/slog"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

const (
	// every is how often the parts are asked.
	every = time.Second
	// startGrace is how long a part that was never ready is not spoken of: to reach the
	// engines takes a moment at every start.
	startGrace = 5 * time.Second
	// calm is how long a part must be ready before it is called ready again. One that comes
	// and goes is spoken of as one that is not.
	calm = 5 * time.Second
	// between is the least time between two lines about a part that is not ready, when the
	// state or the reason changes.
	between = 10 * time.Second
	// again is how often a part is spoken of that stays as it is.
	again = time.Minute
	// maxWhys is how many reasons of one part are told apart: each of several servers may give
	// one of its own, in turn.
	maxWhys = 8
)

// Metrics are the metrics of a [Checker].
type Metrics struct{ ready, degraded *prometheus.GaugeVec }

// NewMetrics registers the metrics of these parts with reg; with nil they are kept but not
// registered.
func NewMetrics(reg prometheus.Registerer, parts ...string) *Metrics {
	f := promauto.With(reg)
	m := &Metrics{
		ready: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kansei_ready",
			Help: "Whether a part of this node has nothing against viewers: at 0 /readyz answers 503.",
		}, []string{"part"}),
		degraded: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kansei_degraded",
			Help: "Whether a part of this node works less well, with no better node to go to: /readyz answers 200.",
		}, []string{"part"}),
	}
	for _, p := range parts {
		m.ready.WithLabelValues(p)
		m.degraded.WithLabelValues(p)
	}
	return m
}

func (m *Metrics) set(part string, s State) {
	ready, degraded := 1.0, 0.0
	switch s {
	case StateReady:
	case StateDegraded:
		degraded = 1
	case StateUnready:
		ready = 0
	}
	m.ready.WithLabelValues(part).Set(ready)
	m.degraded.WithLabelValues(part).Set(degraded)
}

// Checker asks the parts of a node once a second, logs what changes, and keeps the metrics.
type Checker struct {
	parts   []*watched
	metrics *Metrics
	log     *slog.Logger
	quit    chan struct{}
	done    sync.WaitGroup
}

// Start begins to ask the parts. The metrics are right when it returns.
func Start(parts []Part, m *Metrics, log *slog.Logger) *Checker {
	c := &Checker{metrics: m, log: log, quit: make(chan struct{})}
	now := time.Now()
	for _, p := range parts {
		c.parts = append(c.parts, &watched{Part: p, began: now})
	}
	c.look(now)
	c.done.Go(c.run) // ends with quit; Close waits for it
	return c
}

// Close ends the asking.
func (c *Checker) Close() {
	close(c.quit)
	c.done.Wait()
}

func (c *Checker) run() {
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-c.quit:
			return
		case <-t.C:
			c.look(time.Now())
		}
	}
}

func (c *Checker) look(now time.Time) {
	for _, p := range c.parts {
		err := p.Ready()
		c.metrics.set(p.Name, StateOf(err))
		if !isPlanned(err) {
			p.note(c.log, err, now)
		}
	}
}

// watched is a part and what was logged of it.
type watched struct {
	Part
	began time.Time // when the part was asked first
	was   bool      // it was ready once

	ill  time.Time // since when it is not ready, but for moments; zero: it is
	well time.Time // since when it is ready, while ill is not zero

	told State     // what the last line said
	at   time.Time // when
	whys []string  // the reasons that were told in this state, without what changes all the time
}

// note takes in how the part is, and logs it where that is news.
func (w *watched) note(log *slog.Logger, err error, now time.Time) {
	state := StateOf(err)
	if state == StateReady {
		w.was = true
		if w.well.IsZero() {
			w.well = now
		}
		switch {
		case w.ill.IsZero():
		case w.told == StateReady: // nobody was told that it was not
			w.ill = time.Time{}
		case now.Sub(w.well) >= calm:
			log.Info("a part of this node is ready again", "part", w.Name, "after", w.well.Sub(w.ill).Round(time.Second))
			w.ill, w.told, w.whys = time.Time{}, StateReady, nil
		}
		return
	}
	w.well = time.Time{}
	if w.ill.IsZero() {
		w.ill = now
	}
	text := reason(w.Name, err)
	why := lasting(text)
	switch known := len(w.whys) == maxWhys || slices.Contains(w.whys, why); {
	case !w.was && now.Sub(w.began) < startGrace:
		return
	case w.told == StateReady:
	case state == w.told && known && now.Sub(w.at) < again:
		return
	case now.Sub(w.at) < between:
		return
	case state == w.told && !known:
		w.whys = append(w.whys, why)
	}
	if state != w.told {
		w.whys = []string{why}
	}
	w.told, w.at = state, now
	message := "a part of this node is not ready: /readyz answers 503"
	if state == StateDegraded {
		message = "a part of this node is degraded: it takes viewers all the same"
	}
	log.Warn(message, "part", w.Name, "reason", text, "for", now.Sub(w.ill).Round(time.Second))
}

// lasting is a reason without its numbers, such as ports and durations, which change while
// the reason stays what it is.
func lasting(reason string) string { return numbers.ReplaceAllString(reason, "") }

// numbers are what lasting takes out, with the units of durations.
var numbers = regexp.MustCompile(`[0-9]+(\.[0-9]+)?(ns|µs|ms|[hms]\b|[hm])?`)
