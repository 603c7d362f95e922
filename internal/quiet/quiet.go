// Package quiet writes the log lines that clients cause, and cuts what clients send
// before it is shown to anybody.
//
// A client that can make a node write a line can make it write a million, and chooses what is
// in them. So of each kind of line few are written in a while, one for each key, such as an
// origin; the next one tells how many were left out. What a client has sent goes through
// [Cut] first.
package quiet

import (
	"context"
	"log"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	// Window is the time in which a kind of line has its few, unless it is told otherwise.
	Window = 10 * time.Second
	// Lines is how many lines of one kind are written in a window. Each is of another
	// key: enough to see whether one client or many are at it.
	Lines = 5
)

const (
	maxKey   = 128     // bytes of a key that count
	maxPanic = 8 << 10 // bytes that are kept of a panic: its value and the innermost frames
	maxText  = 512     // bytes that are kept of another text
)

// Logger writes lines that clients cause.
type Logger struct {
	log    *slog.Logger
	window time.Duration

	mu    sync.Mutex
	kinds map[string]*kind // by message, of which the program has a handful
}

// kind is what was written of one kind of line.
type kind struct {
	since   time.Time // when its window began
	keys    []string  // that were written in it
	leftOut int       // lines since the last one that was written
}

// New makes a Logger that writes to log.
func New(log *slog.Logger) *Logger { return Every(Window, log) }

// Every is New with another window.
func Every(window time.Duration, log *slog.Logger) *Logger {
	return &Logger{log: log, window: window, kinds: map[string]*kind{}}
}

// Log writes a line, unless there were enough like it: its kind is message, which is
// the program's own, and its key whatever tells one cause from another.
func (l *Logger) Log(level slog.Level, message, key string, args ...any) {
	if !l.log.Enabled(context.Background(), level) {
		return
	}
	leftOut, ok := l.admit(message, key)
	if !ok {
		return
	}
	if leftOut > 0 {
		args = append(slices.Clip(args), "left_out", leftOut)
	}
	l.log.Log(context.Background(), level, message, args...)
}

// admit reports whether a line may be written, and how many were not before it.
func (l *Logger) admit(message, key string) (leftOut int, ok bool) {
	key = strings.Clone(key[:min(len(key), maxKey)]) // the rest may be large
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[message]
	if k == nil {
		k = &kind{since: now}
		l.kinds[message] = k
	}
	if now.Sub(k.since) >= l.window {
		k.since, k.keys = now, nil
	}
	if len(k.keys) >= Lines || slices.Contains(k.keys, key) {
		k.leftOut++
		return 0, false
	}
	k.keys = append(k.keys, key)
	leftOut, k.leftOut = k.leftOut, 0
	return leftOut, true
}

// HTTP is the error log of an http.Server. A panic is an error of ours and a connection
// that cannot be taken a want of the machine; the rest is what clients do wrong.
func (l *Logger) HTTP() *log.Logger { return log.New(serverLog{l}, "", 0) }

type serverLog struct{ *Logger }

// Write implements io.Writer; the log package calls it once for each line.
func (l serverLog) Write(p []byte) (int, error) {
	text := strings.TrimSpace(string(p))
	switch {
	case strings.Contains(text[:min(len(text), 40)], "panic serving"):
		l.Log(slog.LevelError, "a request has ended in a panic", text, "error", shorten(text, maxPanic))
	case strings.HasPrefix(text, "http: Accept error"):
		l.Log(slog.LevelWarn, "a connection could not be taken", text, "error", shorten(text, maxText))
	default:
		l.Log(slog.LevelDebug, "a client was refused by net/http", text, "error", shorten(text, maxText))
	}
	return len(p), nil
}

// Cut is s for a log or an answer: at most n bytes of it, "…" in the place of the rest,
// and escaped as in Go what does not print.
func Cut(s string, n int) string {
	short := shorten(s, n)
	quoted := strconv.Quote(short)
	return quoted[1 : len(quoted)-1]
}

// shorten returns s, or what of it fits n bytes, with "…" behind it.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n]) + "…"
}
