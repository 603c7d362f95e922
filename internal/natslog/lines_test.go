package natslog

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// lines is what a log has written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// debug is a logger that writes everything.
func (l *lines) debug() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// with are the lines that hold all of the parts.
func (l *lines) with(parts ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for line := range strings.Lines(l.b.String()) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// once is nil when exactly one line holds all of the parts.
func (l *lines) once(parts ...string) error {
	if found := l.with(parts...); len(found) != 1 {
		return fmt.Errorf("%d lines with %q:\n%s", len(found), parts, strings.Join(l.with(), "\n"))
	}
	return nil
}
