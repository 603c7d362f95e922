package skew

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A program has the clock that it is told, and measures time like any other.
func TestBuild(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "clock")
	began := time.Now()
	if err := Build(t.Context(), "./testdata/clock", program); err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %v", time.Since(began).Round(time.Millisecond))

	for name, tc := range map[string]struct {
		env []string
		by  time.Duration
	}{
		"unset":        {nil, 0},
		"none":         {[]string{Env(0)}, 0},
		"ahead":        {[]string{Env(10 * time.Minute)}, 10 * time.Minute},
		"behind":       {[]string{Env(-10 * time.Minute)}, -10 * time.Minute},
		"ahead by ns":  {[]string{Env(time.Hour + 999_999_999)}, time.Hour + 999_999_999},
		"behind by ns": {[]string{Env(-time.Hour - 999_999_999)}, -time.Hour - 999_999_999},
		"the last one": {[]string{Env(time.Hour), Env(-time.Minute)}, -time.Minute},
		"by a year":    {[]string{Variable + "=-8760h"}, -8760 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), program)
			cmd.Env = append([]string{}, tc.env...) // and nothing of who runs the test
			before := time.Now()
			out, err := cmd.Output()
			after := time.Now()
			if err != nil {
				t.Fatal(err)
			}
			var got struct{ Now, Mono, Wall, Since int64 }
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			earliest, latest := before.Add(tc.by), after.Add(tc.by)
			if now := time.Unix(0, got.Now); now.Before(earliest) || now.After(latest) {
				t.Errorf("its time is %v, want %v to %v", now, earliest, latest)
			}
			if since := time.Unix(0, got.Since); since.Before(earliest.Add(-time.Millisecond)) || since.After(latest) {
				t.Errorf("time.Since takes it for %v, want %v to %v", since, earliest, latest)
			}
			most := int64(after.Sub(before))
			if least := int64(50 * time.Millisecond); got.Mono < least || got.Mono > most {
				t.Errorf("a wait of %v, within %v, took %v", time.Duration(least), time.Duration(most), time.Duration(got.Mono))
			}
			// The machine's clock may be slewed or set meanwhile, but not by so much.
			if d := time.Duration(got.Wall - got.Mono).Abs(); d > 5*time.Second {
				t.Errorf("it took %v by the monotonic clock, %v by the other", time.Duration(got.Mono), time.Duration(got.Wall))
			}
		})
	}

	t.Run("nonsense", func(t *testing.T) {
		t.Parallel()
		cmd := exec.CommandContext(t.Context(), program)
		cmd.Env = append(os.Environ(), Variable+"=soon")
		out, err := cmd.CombinedOutput()
		if _, failed := errors.AsType[*exec.ExitError](err); !failed || !strings.Contains(string(out), Variable) || !strings.Contains(string(out), "soon") {
			t.Errorf("a skew of \"soon\": %v\n%s", err, out)
		}
	})
}

func TestBuildFails(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "nothing")
	err := Build(t.Context(), "./testdata/absent", out)
	if err == nil || !strings.Contains(err.Error(), "./testdata/absent") || !strings.Contains(err.Error(), "directory not found") {
		t.Errorf("a package that is not there: %v", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it made a program: %v", err)
	}
}

// A Go whose time.Now is not the one that is known is refused, not built wrong.
func TestPatchRefusesWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	root, err := run(t.Context(), "env", "GOROOT")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(filepath.Join(strings.TrimSpace(root), "src", "time", "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	good := string(source)
	patched, err := patch(good)
	if err != nil || len(patched) <= len(good) {
		t.Fatalf("%s: %v", runtime.Version(), err)
	}
	for name, source := range map[string]string{
		"empty":          "",
		"renamed":        strings.Replace(good, "sec, nsec, mono := runtimeNow()", "sec, nsec, mono := clock()", 1),
		"something else": strings.Replace(good, "func Now() Time {\n", "func Now() Time {\n\tif bubbled() {\n\t\treturn Time{}\n\t}\n", 1),
		"a second one":   good + "\nfunc Then() Time {\n\tsec, nsec, _ := runtimeNow()\n\treturn unixTime(sec, nsec)\n}\n",
	} {
		if _, err := patch(source); !errors.Is(err, errSource) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
