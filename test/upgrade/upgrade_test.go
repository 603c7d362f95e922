//go:build unix

// Package upgrade runs an earlier build of kansei beside this one, in one cluster with an
// audience, and has everything judged: an upgrade without a pause, and a way back.
package upgrade

import (
	"bytes"
	"context"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/test/chaos"
)

var long = flag.Bool("long", false, "more viewers, for longer")

// commitFile names the commit of the earlier build. Whoever changes what is stored moves it
// on to a commit that tolerates the change.
const commitFile = "../earlier-commit"

// An earlier build and this one share a cluster. The nodes are replaced by ones of the other
// version while everybody watches and comments, and back, once with streams and keys that
// the earlier build has made, and once with this one's.
func TestTwoVersions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	earlier, now := filepath.Join(dir, "earlier"), filepath.Join(dir, "now")
	build(t, worktree(t, commit(t)), earlier)
	build(t, "../..", now)
	for name, programs := range map[string][2]string{"made by the earlier build": {earlier, now}, "made by this build": {now, earlier}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, programs[0], programs[1])
		})
	}
}

func run(t *testing.T, from, to string) {
	cfg := chaos.Config{
		Seed: 1, Only: []string{"upgrade"}, Rounds: 1, Pace: 0.3, Rooms: 2, Partitions: 2, Viewers: 50, Publishers: 2, Rate: 4,
		Drain: 2 * time.Second, Trace: os.Getenv("KANSEI_TRACE"), Dir: t.TempDir(), Kansei: from, Other: to,
	}
	if *long {
		cfg.Rounds, cfg.Pace, cfg.Rooms, cfg.Viewers, cfg.Rate, cfg.Drain = 3, 1, 6, 300, 8, 5*time.Second
	}
	var log bytes.Buffer
	cfg.Log = &log
	r, err := chaos.Run(t.Context(), cfg)
	t.Logf("%s", &log)
	if err != nil {
		t.Fatal(err)
	}
	var report strings.Builder
	if err := r.Write(&report); err != nil {
		t.Fatal(err)
	}
	t.Log(report.String())
	for _, wrong := range r.Wrong() {
		t.Error(wrong)
	}
	if v := r.Verdict; v.Acknowledged < 100 || v.Received < 10*v.Acknowledged {
		t.Error("next to nothing happened")
	}
	if t.Failed() {
		logs, _ := filepath.Glob(filepath.Join(cfg.Dir, "edge-*.log"))
		for _, name := range logs {
			text, _ := os.ReadFile(name)
			t.Logf("%s:\n%s", name, text[max(0, len(text)-4000):])
		}
	}
}

// commit is the commit of the earlier build.
func commit(t *testing.T) string {
	text, err := os.ReadFile(commitFile)
	if err != nil {
		t.Fatal(err)
	}
	var hash string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			hash = line
		}
	}
	if out, err := git(t.Context(), "merge-base", "--is-ancestor", hash, "HEAD"); err != nil {
		t.Fatalf("%s names %q, which is no ancestor of HEAD in this clone (a shallow one needs git fetch --unshallow): %v\n%s", commitFile, hash, err, out)
	}
	return hash
}

// worktree checks a commit out into a directory that is gone after the test.
func worktree(t *testing.T, hash string) string {
	dir := filepath.Join(t.TempDir(), "source")
	if out, err := git(t.Context(), "worktree", "add", "--detach", dir, hash); err != nil {
		t.Fatalf("check %s out: %v\n%s", hash, err, out)
	}
	t.Cleanup(func() {
		if out, err := git(context.Background(), "worktree", "remove", "--force", dir); err != nil {
			t.Errorf("remove the worktree: %v\n%s", err, out)
		}
	})
	return dir
}

func build(t *testing.T, source, out string) {
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", out, "./cmd/kansei")
	cmd.Dir, cmd.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", source, err, text)
	}
}

func git(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", args...).CombinedOutput()
	return string(out), err
}
