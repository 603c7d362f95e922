package redisroster

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := newRoster(Config{Buckets: 4, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	refused := errors.New("connection refused")
	for i, s := range []struct {
		answered bool // from here on
		bucket   int
		fails    int
		err      error
		ready    string // part of what Ready says; empty: nothing is wrong
		lines    int    // in the log so far
	}{
		{false, sweeping, 0, nil, "no answer yet", 0}, // every bucket was in use: nobody was asked
		{false, sweeping, 1, refused, "refused", 1},
		{false, 2, 1, refused, "refused", 1},
		{false, 2, 2, refused, "refused", 1},
		{true, sweeping, 0, nil, "presence bucket 2 (1 of 4", 1},
		{true, 2, 0, nil, "", 2},
		{true, 3, 1, refused, "", 2}, // once is nothing
		{true, 3, 0, nil, "", 2},
		{true, 1, 1, refused, "", 2},
		{true, 1, 2, refused, "refused", 3},
		{true, 3, 0, nil, "refused", 3},
		{true, 1, 3, refused, "refused", 3},
		{true, 1, 0, nil, "", 4},
	} {
		if s.answered {
			r.answered.Store(true)
		}
		r.note(s.bucket, s.fails, s.err)
		err := r.Ready()
		if (err == nil) != (s.ready == "") || err != nil && (!strings.Contains(err.Error(), s.ready) || !strings.HasPrefix(err.Error(), "redis: ")) {
			t.Errorf("step %d: ready says %v, want %q", i, err, s.ready)
		}
		if n := strings.Count(log.String(), "\n"); n != s.lines {
			t.Errorf("step %d: %d lines in the log, want %d:\n%s", i, n, s.lines, log.String())
		}
		if up := testutil.ToFloat64(r.metrics.up); (up == 1) != (err == nil) && s.answered {
			t.Errorf("step %d: kansei_redis_up is %v, ready says %v", i, up, err)
		}
	}
}
