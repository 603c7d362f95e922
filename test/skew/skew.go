// Package skew builds programs whose wall clock stands apart from the machine's, so
// that tests can run nodes that disagree about the time.
//
// A Go program asks the kernel for the time by itself: neither a preloaded library nor
// a time namespace, which leaves the wall clock alone, can tell it another one. So
// [Build] replaces what time.Now reads, in the source of package time, while it builds.
// The program then takes from its environment how far its clock is ahead: see [Env].
// Without that it is the program that it would be anyway.
//
// The monotonic clock is the machine's. So timers, deadlines and the time between two
// readings of time.Now are what they are everywhere, as they are on a machine whose
// clock is wrong but runs evenly.
package skew

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Variable is the variable in which a program finds how far its clock is ahead, as a
// duration. It is none of KANSEI_…, which nodes know all of.
const Variable = "CLOCK_SKEW"

// Env sets the clock of a program by so much, forward or back.
func Env(by time.Duration) string { return Variable + "=" + by.String() }

// Build builds the program of a package, as go build would, into the file out. pkg is
// an import path, or a path from the working directory on. What it compiles remains in
// Go's build cache, whoever asks for it, but for the linking.
func Build(ctx context.Context, pkg, out string) error {
	if err := build(ctx, pkg, out); err != nil {
		return fmt.Errorf("build %s with another clock: %w", pkg, err)
	}
	return nil
}

func build(ctx context.Context, pkg, out string) error {
	root, err := run(ctx, "env", "GOROOT")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "kansei-skew-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	list, err := overlay(filepath.Join(strings.TrimSpace(root), "src", "time"), dir)
	if err != nil {
		return err
	}
	// Paths, the state of the repository and a C compiler would make it another program
	// for each who builds it; debugging tables take time to link.
	_, err = run(ctx, "build", "-overlay", list, "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, pkg)
	return err
}

// run runs go, and returns what it prints.
func run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.WaitDelay = 10 * time.Second // for compilers that outlive a go that was killed
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// overlay writes into dir what takes the place of files in timeDir, the source of
// package time, and returns the file that lists it.
func overlay(timeDir, dir string) (string, error) {
	original := filepath.Join(timeDir, "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	patched, err := patch(string(source))
	if err != nil {
		return "", fmt.Errorf("%s: %w", original, err)
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": {
		original:                                filepath.Join(dir, "time.go"),
		filepath.Join(timeDir, "clock_skew.go"): filepath.Join(dir, "clock_skew.go"),
	}})
	if err != nil {
		return "", err
	}
	for name, text := range map[string]string{"time.go": patched, "clock_skew.go": added, "overlay.json": string(list)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "overlay.json"), nil
}

// How time.Now begins. Nothing else in the package makes a Time of what it reads from
// the wall clock: it otherwise looks up today's zone.
const (
	reading = "runtimeNow()\n"
	now     = "func Now() Time {\n\tsec, nsec, mono := " + reading
)

var errSource = errors.New("time.Now does not read the clock as it does in Go 1.26")

// patch has time.Now, in the source of time.go, read the clock that added sets.
func patch(source string) (string, error) {
	before, after, found := strings.Cut(source, now)
	if !found || strings.Contains(before+after, reading) {
		return "", errSource
	}
	return before + now + "\tsec, nsec = skewed(sec, nsec)\n" + after, nil
}

// added is a further file of package time.
const added = `package time

import "syscall"

var clockSkew = readClockSkew()

func readClockSkew() Duration {
	s, found := syscall.Getenv("` + Variable + `")
	if !found {
		return 0
	}
	d, err := ParseDuration(s)
	if err != nil {
		panic("` + Variable + `: " + err.Error())
	}
	return d
}

func skewed(sec int64, nsec int32) (int64, int32) {
	n := int64(nsec) + int64(clockSkew%Second)
	sec += int64(clockSkew / Second)
	switch {
	case n < 0:
		return sec - 1, int32(n + 1e9)
	case n >= 1e9:
		return sec + 1, int32(n - 1e9)
	}
	return sec, int32(n)
}
`
