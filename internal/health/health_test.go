package health

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errGone = errors.New("redis: connection refused")

func TestStates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		state State
		line  string
		ok    bool
	}{
		{nil, StateReady, "redis: ready", true},
		{errGone, StateUnready, "redis: connection refused", false},
		{Degraded(errGone), StateDegraded, "redis: degraded: connection refused", true},
		{fmt.Errorf("redis: once more: %w", Degraded(errGone)), StateDegraded, "redis: degraded: once more: redis: connection refused", true},
		{Planned(errGone), StateUnready, "redis: connection refused", false},
		{errors.Join(errors.New("one"), errors.New("two")), StateUnready, "redis: one; two", false},
		{errors.New(strings.Repeat("é", maxReason)), StateUnready, "redis: " + strings.Repeat("é", maxReason/2) + "…", false},
		{Degraded(nil), StateReady, "redis: ready", true},
		{Planned(nil), StateReady, "redis: ready", true},
	} {
		if got := StateOf(c.err); got != c.state {
			t.Errorf("%v: %v, want %v", c.err, got, c.state)
		}
		fine := Part{"edge", func() error { return nil }}
		lines, ok := Report([]Part{fine, {"redis", func() error { return c.err }}})
		if ok != c.ok || !slices.Equal(lines, []string{"edge: ready", c.line}) {
			t.Errorf("%v: %q %t, want %q %t", c.err, lines, ok, c.line, c.ok)
		}
		if c.err != nil && !errors.Is(c.err, errGone) && errors.Is(errGone, c.err) {
			t.Errorf("%v does not unwrap", c.err)
		}
	}
}

// bench is a checker of one part, in fake time.
type bench struct {
	*Checker
	reg *prometheus.Registry
	buf bytes.Buffer

	mu  sync.Mutex
	err error
}

func newBench(err error) *bench {
	b := &bench{reg: prometheus.NewRegistry(), err: err}
	b.Checker = Start([]Part{{"redis", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.err
	}}}, NewMetrics(b.reg, "redis"), slog.New(slog.NewTextHandler(&b.buf, nil)))
	return b
}

// is lets some time pass in which the part is like that, and returns what was logged.
func (b *bench) is(err error, d time.Duration) []string {
	b.mu.Lock()
	b.err = err
	b.mu.Unlock()
	time.Sleep(d)
	synctest.Wait()
	text := b.buf.String()
	b.buf.Reset()
	return slices.Collect(strings.Lines(text))
}

// want compares lines with parts of them.
func want(t *testing.T, what string, lines []string, parts ...string) {
	t.Helper()
	if len(lines) != len(parts) {
		t.Errorf("%s: %d lines, want %d:\n%s", what, len(lines), len(parts), strings.Join(lines, ""))
		return
	}
	for i, p := range parts {
		if !strings.Contains(lines[i], p) {
			t.Errorf("%s: %q, want %q in it", what, lines[i], p)
		}
	}
}

func TestChangesAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		defer b.Close()
		want(t, "ready", b.is(nil, time.Hour))
		want(t, "away", b.is(Degraded(errGone), 2*time.Second), `level=WARN msg="a part of this node is degraded: it takes viewers all the same" part=redis reason="connection refused"`)
		want(t, "again every minute", b.is(Degraded(errGone), 3*time.Minute), "for=1m", "for=2m", "for=3m")
		want(t, "another state", b.is(errGone, 11*time.Second), `level=WARN msg="a part of this node is not ready: /readyz answers 503" part=redis reason="connection refused"`)
		want(t, "another reason", b.is(errors.New("redis: NOAUTH"), 11*time.Second), `reason=NOAUTH`)
		want(t, "ready again", b.is(nil, 10*time.Second), `level=INFO msg="a part of this node is ready again" part=redis after=3m2`)
		want(t, "still ready", b.is(nil, time.Hour))
	})
}

func TestNothingFloods(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		defer b.Close()
		b.is(nil, time.Minute)
		var lines []string
		for i := range 120 { // the numbers and the server change all the time
			err := fmt.Errorf("nats: not connected to nats%c:4222, for %v", 'a'+i%3, time.Duration(i)*time.Second)
			lines = append(lines, b.is(err, time.Second)...)
		}
		if n := len(lines); n < 4 || n > 5 { // three servers, then once a minute
			t.Errorf("%d lines:\n%s", n, strings.Join(lines, ""))
		}
		b.is(nil, time.Hour)
		lines = nil
		for range 60 { // it comes and goes
			lines = append(lines, b.is(errGone, time.Second)...)
			lines = append(lines, b.is(nil, time.Second)...)
		}
		if n := len(lines); n < 2 || n > 3 {
			t.Errorf("%d lines:\n%s", n, strings.Join(lines, ""))
		}
		want(t, "it stays", b.is(nil, time.Minute), "ready again")
		lines = nil
		for i := range 120 { // the state changes every second
			err := errGone
			if i%2 == 0 {
				err = Degraded(err)
			}
			lines = append(lines, b.is(err, time.Second)...)
		}
		if n := len(lines); n > 13 {
			t.Errorf("%d lines:\n%s", n, strings.Join(lines, ""))
		}
		b.is(nil, time.Minute)
		lines = nil
		for i := range 120 { // no reason is like another
			lines = append(lines, b.is(fmt.Errorf("reason %s", strings.Repeat("x", i)), time.Second)...)
		}
		if n := len(lines); n > maxWhys+2 {
			t.Errorf("%d lines:\n%s", n, strings.Join(lines, ""))
		}
	})
}

func TestStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(errGone)
		want(t, "to reach an engine takes a moment", b.is(errGone, startGrace-time.Second))
		want(t, "and that it did is not said", b.is(nil, time.Minute))
		b.Close()
		b = newBench(errGone)
		defer b.Close()
		want(t, "an engine that is not reached", b.is(errGone, startGrace+2*time.Second), "for=5s")
		want(t, "is reached", b.is(nil, calm+2*time.Second), "ready again")
	})
}

func TestPlannedIsNotLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench(nil)
		defer b.Close()
		b.is(nil, time.Minute)
		want(t, "leaving", b.is(Planned(errGone), time.Hour))
		if got := testutil.ToFloat64(b.metrics.ready.WithLabelValues("redis")); got != 0 {
			t.Errorf("kansei_ready is %v", got)
		}
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			err             error
			ready, degraded float64
		}{{nil, 1, 0}, {errGone, 0, 0}, {Degraded(errGone), 1, 1}} {
			b := newBench(c.err) // right from the start
			if r, d := testutil.ToFloat64(b.metrics.ready), testutil.ToFloat64(b.metrics.degraded); r != c.ready || d != c.degraded {
				t.Errorf("%v: ready %v, degraded %v", c.err, r, d)
			}
			b.is(nil, 2*time.Second)
			if r, d := testutil.ToFloat64(b.metrics.ready), testutil.ToFloat64(b.metrics.degraded); r != 1 || d != 0 {
				t.Errorf("ready, after %v: ready %v, degraded %v", c.err, r, d)
			}
			if problems, err := testutil.GatherAndLint(b.reg); err != nil || len(problems) > 0 {
				t.Errorf("%v %v", problems, err)
			}
			b.Close()
		}
	})
}
