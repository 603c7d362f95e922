package natslog

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func counter(t testing.TB, c prometheus.Collector) float64 {
	t.Helper()
	return testutil.ToFloat64(c)
}

func TestMetricsAreLintedAndBeginAtZero(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	NewMetrics(reg)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]int{
		"kansei_append_seconds": 1, "kansei_appends_total": 4, "kansei_log_gaps_total": 3, "kansei_log_lost_ends_total": 1,
		"kansei_log_repair_seconds": 1, "kansei_log_degraded_rooms": 1, "kansei_log_skipped_total": 3, "kansei_log_newer_records_total": 2,
		"kansei_nats_connected": 1, "kansei_nats_reconnects_total": 1, "kansei_nats_errors_total": 21,
		"kansei_nats_request_seconds": 13, "kansei_log_stream_differences": 3, "kansei_log_replicas_missing": 3,
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "kansei_") || len(f.GetMetric()) != values[f.GetName()] {
			t.Errorf("%s has %d values, wanted %d", f.GetName(), len(f.GetMetric()), values[f.GetName()])
		}
		delete(values, f.GetName())
	}
	if len(values) > 0 {
		t.Errorf("missing: %v", values)
	}
}

// asked returns how many requests have been answered.
func asked(t testing.TB, l *Log) (n uint64) {
	t.Helper()
	for _, op := range []string{opInfo, opCreate, opLeaderGet, opDirectGet, opTailProbe, opProbe} {
		n += requests(t, l, op)
	}
	return n
}

// requests returns how many requests of a kind have been answered.
func requests(t testing.TB, l *Log, op string) uint64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(l.metrics.nats.Requests)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == op {
			return m.GetHistogram().GetSampleCount()
		}
	}
	t.Fatalf("nothing is known of %s", op)
	return 0
}
