package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if name, err := built(); err == nil {
			_ = os.Remove(name)
		}
		os.Exit(code)
	}))
}

// program is kansei of this source, built once for all tests.
func program(t *testing.T) string {
	t.Helper()
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var built = sync.OnceValues(func() (string, error) {
	name := filepath.Join(os.TempDir(), fmt.Sprintf("kansei-bench-test-%d", os.Getpid()))
	if out, err := exec.Command("go", "build", "-o", name, "../../cmd/kansei").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return name, nil
})

// small is a run of a few viewers and seconds: it shows that the figures are taken, not that
// they are good.
func small(t *testing.T, scenario string) Command {
	return Command{
		Scenario: []string{scenario}, Pairs: 2, Window: time.Second, Scale: 1, Quick: true, JoinRate: 500, Compress: true,
		Speed: 5, Kansei: program(t), Report: true, Quiet: true, JSON: true,
	}
}

func TestScenarios(t *testing.T) {
	t.Parallel()
	goals := map[string][]int{
		"memory": {1, 1, 1}, "quiet": {2, 2, 2, 2, 2}, "hot": {3, 3, 3, 3}, "storm": {3, 3, 3, 3, 3}, "rooms": {4, 4, 4, 4, 4},
		"idle": {4, 4, 4, 4}, "joins": {5, 5}, "tokens": {5, 5, 5}, "acts": {9, 9, 9, 9}, "raid": {10, 10, 10, 10, 10}, "watch": {11, 11, 11}, "wire": {6, 6, 6, 6}, "gc": {7, 7, 7}, "frozen": {8, 8}, "slow": {8, 8, 8, 8, 8},
		"curve": nil,
	}
	for _, name := range names() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := small(t, name)
			if name == "slow" { // it falls off soon
				c.Serve = []string{"--ring=16"}
			}
			var out bytes.Buffer
			if err := c.Run(t.Context(), &out, t.Output()); err != nil {
				t.Fatal(err)
			}
			var r Report
			if err := json.Unmarshal(out.Bytes(), &r); err != nil {
				t.Fatal(err)
			}
			var got []int
			for i := range r.Rows {
				row := &r.Rows[i]
				got = append(got, row.Goal)
				if row.Scenario != name {
					t.Errorf("a row of %s", row.Scenario)
				}
				// Whatever the machine does meanwhile, nothing may be lost.
				if row.Bound != nil && *row.Bound == 0 && row.Value > 0 {
					t.Errorf("%s: %v", row.Figure, row.Value)
				}
			}
			if !slices.Equal(got, goals[name]) {
				t.Errorf("rows of goals %v, want %v", got, goals[name])
			}
			if points := len(r.Curve); name == "curve" && points != 6 || name != "curve" && points != 0 {
				t.Errorf("%d points of the curve", points)
			}
			if r.Engines != "NATS and Redis inside the node" || r.Version == "" {
				t.Errorf("%q %q", r.Engines, r.Version)
			}
		})
	}
}

// NATS and Redis as processes of their own let comments come from another node. Profiles are
// taken, and the report is written, where that is wanted.
func TestEnginesAndProfiles(t *testing.T) {
	t.Parallel()
	c := small(t, "rooms")
	c.NATSServer, c.RedisServer = natsServer(t), "redis-server"
	if _, err := exec.LookPath(c.RedisServer); err != nil {
		t.Fatalf("redis-server: run make setup (%v)", err)
	}
	dir := t.TempDir()
	c.Profiles, c.Out = filepath.Join(dir, "profiles"), filepath.Join(dir, "report.md")
	c.JSON = false
	var out bytes.Buffer
	if err := c.Run(t.Context(), &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NATS and Redis beside the node", "the floor's, comments from another node"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if written, err := os.ReadFile(c.Out); err != nil || string(written) != out.String() {
		t.Errorf("%v\n%s", err, written)
	}
	for _, name := range []string{"rooms.cpu.pprof", "rooms.heap.pprof", "rooms.allocs.pprof"} {
		if info, err := os.Stat(filepath.Join(c.Profiles, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// natsServer is the one that setup builds, or that of PATH.
func natsServer(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"../../bin/nats-server", "nats-server"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("nats-server: run make setup")
	return ""
}

func TestFloor(t *testing.T) {
	t.Parallel()
	f := Floor{Viewers: 20, Rate: 50, Size: 200, Window: 200 * time.Millisecond, JoinRate: 1000, Kansei: program(t), JSON: true}
	var out bytes.Buffer
	if err := f.Run(t.Context(), nil, &out, t.Output()); err != nil {
		t.Fatal(err)
	}
	var r FloorReport
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.Writes != 200 || r.CostUS <= 0 || r.JoinUS <= 0 || r.P50MS <= 0 || r.Bytes < 190 || r.Bytes > 210 {
		t.Errorf("%+v", r)
	}
	f.Viewers = 0
	if err := f.Run(t.Context(), nil, &out, t.Output()); err == nil {
		t.Error("no viewers are taken")
	}
}

// An engine that was asked for by its path is not replaced by another.
func TestNoEngine(t *testing.T) {
	t.Parallel()
	c := small(t, "quiet")
	c.NATSServer = filepath.Join(t.TempDir(), "nats-server")
	if err := c.Run(t.Context(), io.Discard, t.Output()); err == nil || !strings.Contains(err.Error(), c.NATSServer) {
		t.Errorf("%v", err)
	}
}

func TestLongestPause(t *testing.T) {
	t.Parallel()
	at := func(low, mid, high, n float64) map[string]float64 {
		const name = "go_sched_pauses_total_gc_seconds"
		return map[string]float64{
			name + `_bucket{le="1e-05"}`: low, name + `_bucket{le="0.001"}`: mid, name + `_bucket{le="0.1"}`: high,
			name + `_bucket{le="+Inf"}`: n, name + "_count": n,
		}
	}
	// The long pause was before.
	if got := longestPause(at(1, 1, 2, 2), at(1, 4, 5, 5)); got != 0.001 {
		t.Errorf("%v", got)
	}
	if got := longestPause(at(1, 1, 2, 2), at(1, 1, 2, 2)); got != 0 {
		t.Errorf("no pause is %v", got)
	}
}

func TestSeries(t *testing.T) {
	t.Parallel()
	s := series{1, 2, 1, 5, 3, 4}
	if got := s.thirds(); !slices.Equal(got, Spread{2, 5, 4}) || s.grown() != 0.8 {
		t.Errorf("%v %v", got, s.grown())
	}
	if got := (series{}).grown(); got != 0 {
		t.Errorf("nothing grows by %v", got)
	}
}
