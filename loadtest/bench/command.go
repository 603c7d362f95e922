package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Command is one run: its fields are the flags of "kansei bench", tagged for kong.
type Command struct {
	Scenario []string      `sep:"," placeholder:"NAME" help:"What to measure: memory, quiet, hot, storm, rooms, idle, joins, tokens, acts, raid, watch, wire, gc, frozen, slow, curve; repeated or separated by commas. All by default."`
	Pairs    int           `default:"5" help:"How many pairs of windows, node and floor, a ratio is the median of."`
	Window   time.Duration `default:"10s" help:"Length of a window."`
	Scale    float64       `default:"1" help:"Size of audiences, 1 being that of the goals."`
	JoinRate float64       `default:"3000" placeholder:"N" help:"How many viewers come in a second."`
	Quick    bool          `help:"A hundredth of the audience in short windows: shows that everything works, not what it costs."`
	Compress bool          `default:"true" negatable:"" help:"Viewers take deflated messages, as browsers do."`

	Trace string   `env:"KANSEI_TRACE" placeholder:"FILE" help:"Audience of the scenario wire, as of kansei load; made up without it."`
	Speed float64  `default:"5" help:"How many times faster than it was to play the trace."`
	Serve []string `sep:"none" placeholder:"FLAG" help:"A further flag of the node, as --serve=--coalesce=20ms; repeatable."`

	Kansei      string `placeholder:"FILE" help:"The program of node and floor; this one by default."`
	NATSServer  string `name:"nats-server" default:"nats-server" placeholder:"FILE" help:"NATS as a process of its own, in PATH or beside this program; empty, or not found: inside the node."`
	RedisServer string `name:"redis-server" default:"redis-server" placeholder:"FILE" help:"Redis as a process of its own; likewise."`

	Profiles string `placeholder:"DIR" help:"Take CPU and heap profiles of the node in a further window of each scenario, into this directory."`
	Out      string `placeholder:"FILE" help:"Write the report into this file too, as Markdown."`
	JSON     bool   `name:"json" help:"Print the report as one JSON document."`
	Report   bool   `help:"A missed bound is no failure."`
	Quiet    bool   `help:"Show no progress."`
}

// ErrMissed says that a run came to its end and a bound was missed.
var ErrMissed = errors.New("bench: bounds missed")

// names are the scenarios, in the order in which they run.
func names() []string {
	return []string{"memory", "quiet", "hot", "storm", "rooms", "idle", "joins", "tokens", "acts", "raid", "watch", "wire", "gc", "frozen", "slow", "curve"}
}

func (c *Command) check() error {
	for _, s := range c.Scenario {
		if !slices.Contains(names(), s) {
			return fmt.Errorf("bench: no scenario %q: want %s", s, strings.Join(names(), ", "))
		}
	}
	for _, f := range []struct {
		name string
		ok   bool
		got  any
		want string
	}{
		{"pairs", c.Pairs >= 1 && c.Pairs <= 1000, c.Pairs, "1 to 1000"},
		{"window", c.Window >= 100*time.Millisecond && c.Window <= time.Hour, c.Window, "100ms to 1h"},
		{"scale", c.Scale > 0 && c.Scale <= 100, c.Scale, "more than 0, up to 100"},
		{"join-rate", c.JoinRate > 0, c.JoinRate, "more than 0"},
		{"speed", c.Speed > 0, c.Speed, "more than 0"},
	} {
		if !f.ok {
			return fmt.Errorf("bench: %s is %v, want %s", f.name, f.got, f.want)
		}
	}
	return nil
}

// Run makes the run: progress goes to stderr, the report to stdout, also what there
// is of it when a scenario failed. The error wraps [ErrMissed] if a bound was missed.
func (c *Command) Run(ctx context.Context, stdout, stderr io.Writer) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Quiet {
		stderr = io.Discard
	}
	run := *c
	if c.Quick {
		run.Scale, run.Window, run.Pairs = c.Scale/100, min(c.Window, 500*time.Millisecond), min(c.Pairs, 2)
	}
	report, failed := run.measure(ctx, stderr)
	if report == nil {
		return failed
	}
	return errors.Join(failed, c.deliver(report, stdout))
}

// deliver prints the report, and says what is missed.
func (c *Command) deliver(report *Report, stdout io.Writer) error {
	if c.Out != "" {
		if err := os.WriteFile(c.Out, []byte(report.String()), 0o644); err != nil {
			return fmt.Errorf("bench: %w", err)
		}
	}
	var err error
	if c.JSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(report)
	} else {
		_, err = io.WriteString(stdout, report.String())
	}
	if missed := report.Missed(); err == nil && len(missed) > 0 && !c.Report {
		return fmt.Errorf("%w: %s", ErrMissed, strings.Join(missed, ", "))
	}
	return err
}

// Floor is "kansei floor": the bare program alone.
type Floor struct {
	Viewers  int           `default:"5000" help:"How many sockets."`
	Rate     float64       `default:"10" help:"Writes to each a second."`
	Size     int           `default:"250" help:"Bytes of a write."`
	Group    int           `placeholder:"N" help:"Write to so many sockets at a time, spread over the second; to all at once by default."`
	Window   time.Duration `default:"10s" help:"Length of the measurement."`
	Kansei   string        `placeholder:"FILE" help:"The program of the floor; this one by default."`
	JSON     bool          `name:"json" help:"Print the figures as one JSON document."`
	Obey     bool          `hidden:"" help:"Be the bare program: take orders as lines of the input."`
	JoinRate float64       `default:"3000" placeholder:"N" help:"How many viewers come in a second."`
}
