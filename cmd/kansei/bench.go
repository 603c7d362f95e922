package main

import (
	"context"
	"io"
	"os"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kansei-live/kansei/loadtest/bench"
)

type benchCommand struct {
	bench.Command
}

// Run makes the run.
func (c *benchCommand) Run(ctx context.Context, stdout io.Writer, stderr errorStream) error {
	return c.Command.Run(ctx, stdout, stderr)
}

type floorCommand struct {
	bench.Floor
}

// Run measures the bare program, or is it.
func (c *floorCommand) Run(ctx context.Context, stdout io.Writer, stderr errorStream) error {
	return c.Floor.Run(ctx, os.Stdin, stdout, stderr)
}

// goCollector tells of the Go runtime, and beside the usual what the collector costs:
// its share of the CPU, what that is a share of, and its pauses.
func goCollector() prometheus.Collector {
	return collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{
		Matcher: regexp.MustCompile(`^/(cpu/classes/(gc/total|total|idle):cpu-seconds|sched/pauses/total/gc:seconds)$`),
	}))
}
