//go:build unix

// Command chaos starts a cluster of kansei on this machine, with an audience in it, breaks
// it in every way it knows, and checks that nobody lost anything. `make chaos` builds what
// it needs and starts it.
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/kansei-live/kansei/test/chaos"
)

type command struct {
	Seed   uint64   `help:"What the schedule is drawn from; by default another one each time, which is printed."`
	Only   []string `placeholder:"FAULT" help:"Of the faults, these alone: ${faults}."`
	Rounds int      `default:"2" help:"How often each fault happens."`
	Pace   float64  `default:"1" help:"How long each fault lasts, of its full length."`

	Rooms      int           `default:"6"`
	Partitions int           `default:"2" help:"Streams of the room log."`
	Viewers    int           `default:"300" help:"Over all rooms."`
	Publishers int           `default:"2" help:"In each room; half as many back ends besides."`
	Rate       float64       `default:"8" help:"Comments a second in each room."`
	Acts       float64       `default:"1" help:"Acts of moderators, a second in each room; none beside a restore or an upgrade."`
	Drain      time.Duration `default:"5s" help:"--drain of the nodes."`
	Skew       time.Duration `default:"3m" help:"How far the clocks of two nodes are off, one back and one forth; not with --kansei."`
	Trace      string        `env:"KANSEI_TRACE" placeholder:"FILE" help:"A recorded audience whose texts are said; by default they are made up."`

	Kansei string `placeholder:"FILE" help:"The program of the nodes; by default one is built whose clock can be set."`
	Other  string `placeholder:"FILE" help:"A program of another version, for the fault upgrade."`
	Dir    string `placeholder:"DIR" help:"Where data and logs are kept; by default in a directory that is removed at the end."`
	Out    string `placeholder:"FILE" help:"A file for the report as Markdown."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	names, what := chaos.Faults()
	var c command
	k := kong.Parse(&c, kong.Name("chaos"), kong.Description("Break a cluster of kansei on this machine, and check that nobody lost anything.\n\n"+list(names, what)),
		kong.Vars{"faults": strings.Join(names, ", ")})
	k.FatalIfErrorf(c.run(ctx))
}

func list(names, what []string) string {
	var b strings.Builder
	for i := range names {
		fmt.Fprintf(&b, "%s: %s.\n", names[i], what[i])
	}
	return b.String()
}

func (c *command) run(ctx context.Context) error {
	if c.Seed == 0 {
		c.Seed = rand.Uint64N(1_000_000)
	}
	report, err := chaos.Run(ctx, chaos.Config{
		Seed: c.Seed, Only: c.Only, Rounds: c.Rounds, Pace: c.Pace, Rooms: c.Rooms, Partitions: c.Partitions,
		Viewers: c.Viewers, Publishers: c.Publishers, Rate: c.Rate, Acts: c.Acts, Drain: c.Drain, Skew: c.Skew, Trace: c.Trace,
		Kansei: c.Kansei, Other: c.Other, Dir: c.Dir, Log: os.Stderr,
	})
	if err != nil {
		return err
	}
	if err := report.Write(os.Stdout); err != nil {
		return err
	}
	if c.Out != "" {
		var b strings.Builder
		if err := report.Markdown(&b); err != nil {
			return err
		}
		if err := os.WriteFile(c.Out, []byte(b.String()), 0o644); err != nil {
			return err
		}
	}
	if failed := append(report.Wrong(), report.Late()...); len(failed) > 0 {
		return errors.New(strings.Join(failed, "; "))
	}
	return nil
}
