package watchlog

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/protocol"
)

// BenchmarkEvening is what a viewer costs who comes, tells that the page is hidden and shown, and goes: five rows.
func BenchmarkEvening(b *testing.B) {
	t := New(Config{
		Now: time.Now, Store: func(context.Context, string, string, []byte) error { return nil }, Mode: protocol.WatchUsers, Beat: 30 * time.Second,
		Metrics: NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
	})
	defer func() { _ = t.Close(context.Background()) }()
	viewers := make([]*viewer, 1000)
	for i := range viewers {
		viewers[i] = &viewer{who: Who{User: fmt.Sprint("user-", i), Name: "さくら", Session: fmt.Sprint("session-", i), Device: DevicePhone}}
	}
	at, seen, hidden := int64(1000), true, false
	b.ReportAllocs()
	for b.Loop() {
		for _, v := range viewers {
			v.View = View{} //nolint:govet // nobody has it
			t.Join(&v.View, v, "r", protocol.WatchUsers, nil, nil)
		}
		t.tick()
		for _, tell := range []*bool{&seen, &hidden, &seen} {
			at += 1000
			for _, v := range viewers {
				v.Beat(tell, &at)
			}
			t.tick()
		}
		for _, v := range viewers {
			v.Leave(EndLeft, 0)
		}
		t.tick()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(viewers)), "ns/viewer")
}
