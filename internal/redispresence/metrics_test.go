package redispresence

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	NewMetrics(reg)
	problems, err := testutil.GatherAndLint(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for name, want := range map[string]int{
		"kansei_redis_up":              1,
		"kansei_redis_errors_total":    7,
		"kansei_redis_request_seconds": 1,
		"kansei_roster_resyncs_total":  4,
		"kansei_roster_reaped_total":   1,
	} {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n != want {
			t.Errorf("%s: %d series, want %d registered at zero; %v", name, n, want, err)
		}
	}
}
