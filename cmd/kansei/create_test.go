package main

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
)

// A node that is not to create streams says which one it waits for.
func TestLogThatIsNotCreated(t *testing.T) {
	t.Parallel()
	logs := new(syncBuffer)
	n, err := start(context.Background(), parse(t, "--log-create=never"), slog.New(slog.NewTextHandler(logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := n.stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	tn := &testNode{n, t, logs}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		status, body := tn.get(n.ops + "/readyz")
		if status == http.StatusServiceUnavailable && strings.Contains(body, "stream KANSEI_LOG_0 is not there, and --log-create=never") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("readyz: %d %s", status, body)
		}
	}
}
