package bench

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const (
	// collections is how many cycles of the collector make a figure, and collectPatience how long
	// they may take: the node allocates so little that one takes half a minute.
	collections     = 5
	collectPatience = 5 * time.Minute
	mostCollector   = 5 // percent of the node's CPU
)

// What the node's runtime tells. The shares of CPU are brought up to date by each collection,
// so that a difference is one of whole cycles.
const (
	collected    = "go_gc_duration_seconds_count"
	collectorCPU = "go_cpu_classes_gc_total_cpu_seconds_total"
	wholeCPU     = "go_cpu_classes_total_cpu_seconds_total"
	idleCPU      = "go_cpu_classes_idle_cpu_seconds_total"
	allocations  = "go_memstats_mallocs_total"
)

// collector is goal 7.
func (b *bench) collector(ctx context.Context) error {
	r, err := b.room(ctx, b.oneRoom("gc", b.scaled(15000), 2, 100))
	if err != nil {
		return err
	}
	if _, err := r.warm(ctx); err != nil {
		return err
	}
	before, err := r.node.metrics(ctx)
	if err != nil {
		return err
	}
	for _, name := range [...]string{collected, collectorCPU, wholeCPU, idleCPU, allocations} {
		if _, ok := before[name]; !ok {
			return fmt.Errorf("bench: the node has no metric %s", name)
		}
	}
	var cpu, length time.Duration
	var deliveries int64
	var p50 Spread
	after := before
	since := func(name string) float64 { return after[name] - before[name] }
	// A scaled node never collects; its figures are nothing anyway.
	patience := min(collectPatience, 30*b.cmd.Window)
	for length < patience && since(collected) < collections {
		s, err := r.play(ctx, b.cmd.Window)
		if err != nil {
			return err
		}
		cpu, length, deliveries, p50 = cpu+s.cpu, length+s.length, deliveries+s.deliveries, append(p50, s.quantile(50))
		if after, err = r.node.metrics(ctx); err != nil {
			return err
		}
	}
	b.report.add(Row{Goal: 7, Scenario: r.name, Figure: "collector, of the node's CPU", Unit: "%", Bound: within(mostCollector),
		Value: 100 * since(collectorCPU) / max(since(wholeCPU)-since(idleCPU), math.SmallestNonzeroFloat64),
		Note: fmt.Sprintf("%.0f collections in %v; %s processors, %s µs a delivery, p50 %s ms", since(collected), length.Round(time.Second),
			number(cpu.Seconds()/length.Seconds()), number(float64(cpu.Nanoseconds())/1000/float64(deliveries)), number(p50.Median()))})
	b.report.add(Row{Goal: 7, Scenario: r.name, Figure: "longest pause, at most", Unit: "ms", Value: 1000 * longestPause(before, after)})
	b.report.add(Row{Goal: 7, Scenario: r.name, Figure: "allocations of a delivery", Value: since(allocations) / float64(deliveries),
		Note: "all that the node allocates: comments, frames, scripts, its metrics"})
	return r.profile(ctx)
}

// longestPause is the upper end of the highest bucket of pauses that has got something
// since before, in seconds.
func longestPause(before, after map[string]float64) float64 {
	const name = `go_sched_pauses_total_gc_seconds_bucket{le="`
	total := after["go_sched_pauses_total_gc_seconds_count"] - before["go_sched_pauses_total_gc_seconds_count"]
	least := math.Inf(1)
	for k, v := range after {
		rest, ok := strings.CutPrefix(k, name)
		if !ok {
			continue
		}
		le, err := strconv.ParseFloat(strings.TrimSuffix(rest, `"}`), 64)
		if err == nil && v-before[k] >= total {
			least = min(least, le)
		}
	}
	if total == 0 || math.IsInf(least, 1) {
		return 0
	}
	return least
}
