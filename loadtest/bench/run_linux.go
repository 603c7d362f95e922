package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kansei-live/kansei/loadtest"
)

// bench is one run under way. Everything that it starts it stops in the reverse
// order, at the end of the scenario or of the run.
type bench struct {
	cmd     *Command
	program string
	dir     string // for what the children keep
	stderr  io.Writer
	report  *Report
	engines []string // flags of a node
	secret  string
	windows uint32 // how many there were
	stops   []func() error
}

// measure makes the run and returns what was measured, also if it failed half way.
func (c *Command) measure(ctx context.Context, stderr io.Writer) (*Report, error) {
	// Children end with the thread that started them.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b, err := newBench(c, stderr)
	if err != nil {
		return nil, err
	}
	if err = b.startEngines(ctx); err != nil {
		return nil, errors.Join(err, b.close())
	}
	err = b.run(ctx)
	return b.report, errors.Join(err, b.close())
}

func newBench(c *Command, stderr io.Writer) (*bench, error) {
	program, err := ownProgram(c.Kansei)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "kansei-bench-")
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	return &bench{
		cmd: c, program: program, dir: dir, stderr: stderr, secret: strings.Repeat("kansei-bench-", 3),
		report: &Report{Machine: machine(), Pairs: c.Pairs},
	}, nil
}

// close stops everything and leaves nothing behind.
func (b *bench) close() error { return errors.Join(b.stop(0), os.RemoveAll(b.dir)) }

// ownProgram is the program of the children.
func ownProgram(given string) (string, error) {
	if given == "" {
		return os.Executable()
	}
	path, err := exec.LookPath(given)
	if err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	return filepath.Abs(path)
}

// onStop adds what to do at the end; what was added last is done first.
func (b *bench) onStop(f func() error) { b.stops = append(b.stops, f) }

// stop undoes everything but the first keep steps.
func (b *bench) stop(keep int) error {
	var errs []error
	for len(b.stops) > keep {
		last := len(b.stops) - 1
		errs = append(errs, b.stops[last]())
		b.stops = b.stops[:last]
	}
	return errors.Join(errs...)
}

func (b *bench) say(format string, a ...any) {
	_, _ = fmt.Fprintf(b.stderr, format+"\n", a...) // progress is no reason to fail
}

// run runs the scenarios. One that fails does not keep the others from running.
func (b *bench) run(ctx context.Context) error {
	keep := len(b.stops)
	scenarios := map[string]func(context.Context) error{
		"memory": b.memory, "quiet": b.quiet, "hot": b.hot, "storm": b.storm, "rooms": b.rooms, "idle": b.idle, "curve": b.curve,
		"joins": b.joins, "tokens": b.tokens, "acts": b.acts, "raid": b.raid, "watch": b.watch, "wire": b.wire, "gc": b.collector, "frozen": b.frozen, "slow": b.slow,
	}
	var errs []error
	for _, name := range names() {
		if len(b.cmd.Scenario) > 0 && !slices.Contains(b.cmd.Scenario, name) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		b.say("%s", name)
		told := len(b.report.Rows)
		err := errors.Join(scenarios[name](ctx), b.stop(keep))
		for _, row := range b.report.Rows[told:] {
			b.say("  %s: %s %s", row.Figure, row.Values, row.Unit)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			b.say("%s failed: %v", name, err)
		}
	}
	return errors.Join(errs...)
}

// scaled is a size of the goals made what was asked for.
func (b *bench) scaled(n int) int { return max(1, int(float64(n)*b.cmd.Scale+0.5)) }

// sockets raises the limit of open files so that so many connections can be open at once.
func sockets(n int) error { return loadtest.RaiseFileLimit(n) }

// machine says what the run is made on.
func machine() string {
	model := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	memory, _ := field("/proc/meminfo", "MemTotal:") // 0 says that it is not known
	kernel := "Linux"
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		kernel += " " + unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%d × %s, %d GiB, %s, %s", runtime.NumCPU(), model, (memory+1<<29)>>30, kernel, runtime.Version())
}
