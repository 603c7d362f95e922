//go:build unix

package chaos

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A short run of everything but split-leader, after which NATS needs long to make its
// copies whole. Its seed is always the same, or that of CHAOS_SEED.
func TestChaos(t *testing.T) {
	t.Parallel()
	seed := uint64(1)
	if s := os.Getenv("CHAOS_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal("CHAOS_SEED:", err)
		}
	}
	dir := t.TempDir()
	var log bytes.Buffer
	all, _ := Faults()
	r, err := Run(t.Context(), Config{
		Seed: seed, Only: slices.DeleteFunc(all, func(f string) bool { return f == "split-leader" || f == "restore" || f == "upgrade" }), Rounds: 1, Pace: 0.4, Rooms: 4, Partitions: 2, Viewers: 100, Publishers: 2, Rate: 5, Acts: 1,
		Drain: 3 * time.Second, Skew: 3 * time.Minute, Trace: os.Getenv("KANSEI_TRACE"), Dir: dir, Log: &log,
	})
	t.Logf("%s", &log)
	if err != nil {
		t.Fatal(err)
	}
	var report strings.Builder
	if err := r.Write(&report); err != nil {
		t.Fatal(err)
	}
	t.Log(report.String())
	for _, wrong := range r.Wrong() { // what was late is for `make chaos` to say
		t.Error(wrong)
	}
	if v := r.Verdict; v.Acknowledged < 500 || v.Received < 100*v.Acknowledged/4/2 {
		t.Error("next to nothing happened")
	}
	if r.Verdict.Events < 50 {
		t.Errorf("%d events of the application", r.Verdict.Events)
	}
	if v := r.Verdict; v.Acts < 50 || v.Hidden < 20 {
		t.Errorf("%d acts, %d comments hidden: next to nothing was moderated", v.Acts, v.Hidden)
	}
	if v := r.Verdict; v.Sweeps < 2 || v.Shields < 4 {
		t.Errorf("%d sweeps, %d changes of the shield", v.Sweeps, v.Shields)
	}
	tellLogs(t, dir)
}

// tellLogs shows the ends of the nodes' logs if the test has failed.
func tellLogs(t *testing.T, dir string) {
	if !t.Failed() {
		return
	}
	logs, _ := filepath.Glob(filepath.Join(dir, "edge-*.log"))
	for _, name := range logs {
		text, _ := os.ReadFile(name)
		t.Logf("%s:\n%s", name, text[max(0, len(text)-4000):])
	}
}

// The same seed makes the same schedule, another one another, and each fault happens
// once a round.
func TestScheduleIsRepeatable(t *testing.T) {
	t.Parallel()
	order := func(seed uint64) string { return names(Config{Seed: seed, Rounds: 2}.schedule()) }
	if first := order(1); first != order(1) || first == order(2) {
		t.Error("the schedule does not depend on the seed alone")
	}
	all, _ := Faults()
	all = all[:len(all)-len(alone)]
	got := strings.Split(order(3), ", ")
	for _, round := range [][]string{got[:len(all)], got[len(all):]} {
		if !slices.Equal(slices.Sorted(slices.Values(round)), slices.Sorted(slices.Values(all))) {
			t.Errorf("a round is %v", round)
		}
	}
	if got := names(Config{Seed: 1, Rounds: 1, Only: []string{"drain"}}.schedule()); got != "drain" {
		t.Errorf("drain alone is %q", got)
	}
	if got := names(Config{Seed: 1, Rounds: 2, Only: []string{"restore"}}.schedule()); got != "restore, restore" {
		t.Errorf("restore alone is %q", got)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := Config{Rounds: 1, Pace: 1, Rooms: 1, Partitions: 1, Viewers: 1, Publishers: 1, Rate: 1}
	if err := good.check(); err != nil {
		t.Error(err)
	}
	for want, spoil := range map[string]func(*Config){
		"no fault \"quake\"": func(c *Config) { c.Only = []string{"quake"} },
		"happens alone":      func(c *Config) { c.Only = []string{"drain", "restore"} },
		"0 rounds":           func(c *Config) { c.Rounds = 0 },
		"pace 2":             func(c *Config) { c.Pace = 2 },
		"want rooms":         func(c *Config) { c.Viewers = 0 },
	} {
		c := good
		spoil(&c)
		if err := c.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
