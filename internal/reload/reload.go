// Package reload reads files again while a node runs: certificates, secrets, credentials.
//
// A [Source] is something that comes from files. A [Set] loads all sources, and puts what they
// have read in force only when all of them could be read: a broken file changes nothing. It does
// so once at the start ([Set.Load]), on SIGHUP, and when a file has changed ([Set.Run]).
//
// Files are looked at every [Interval], by their content: that sees whatever replaces a file,
// such as the links that Kubernetes swaps, and on every file system. What has changed is
// loaded when two looks in a row have found the same, so that nothing is read that is half
// written. A certificate and its key are replaced one after the other, and do not fit each
// other in between: a failure is tried again at every look and told only when it lasts for
// [Patience]. On SIGHUP somebody waits for the outcome, and it is told at once.
package reload

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kansei-live/kansei/internal/private"
)

const (
	// Interval is how often files are looked at: a few small files, on a disk that has them
	// in memory.
	Interval = 2 * time.Second
	// Patience is how long files that do not fit each other are waited for, after the first
	// of them has changed.
	Patience = 10 * time.Second
	// again is how often it is told that files are broken, while they are.
	again = 10 * time.Minute
	// maxFile bounds what is read of a file to see whether it has changed, in bytes. Sources
	// refuse larger ones.
	maxFile = 1 << 20
)

// Source is something that is read from files.
type Source interface {
	// Load reads and checks everything, and changes nothing until apply is called, if it is.
	// apply cannot fail. The error names the setting and the file, and holds nothing secret.
	Load() (apply func(), err error)
	// Files are the paths that are watched. They need not exist; empty ones do not count.
	Files() []string
}

// Watcher is a [Source] that wants to see what time it is, every few seconds, and never while
// it is loaded.
type Watcher interface{ Watch(now time.Time) }

// Config is what a Set needs. Zero durations stand for their defaults.
type Config struct {
	Interval time.Duration // between two looks at the files
	Patience time.Duration // before a failure is told that nobody has asked for
	Metrics  *Metrics
	Logger   *slog.Logger
}

// Set is the sources of a process.
type Set struct {
	cfg     Config
	sources []named

	mu      sync.Mutex
	applied prints // of the files whose content counts
}

// named is a source with its settings, such as "--tls-cert, --tls-key".
type named struct {
	name string
	Source
}

// prints is what each file holds, by hash, and who may do what with it; or why it cannot be
// read.
type prints map[string]string

// New makes a Set without sources.
func New(cfg Config) *Set {
	if cfg.Interval == 0 {
		cfg.Interval = Interval
	}
	if cfg.Patience == 0 {
		cfg.Patience = Patience
	}
	return &Set{cfg: cfg}
}

// Add adds a source, before the first [Set.Load]. Its name is that of its settings.
func (s *Set) Add(name string, source Source) {
	s.sources = append(s.sources, named{name, source})
}

// Load loads all sources for the first time. Its error says everything that is wrong, and
// nothing counts then.
func (s *Set) Load() error {
	_, err := s.load()
	return err
}

// Reload loads all sources again. If all can be loaded they count from now on, otherwise
// nothing changes. It logs which one it was, and returns the error.
func (s *Set) Reload(cause string) error {
	changed, err := s.load()
	if err != nil {
		s.failed(cause, err)
		return err
	}
	s.done(cause, changed)
	return nil
}

// load returns the files that have changed, if all could be loaded.
func (s *Set) load() (changed []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.look() // before: what changes while it is read is read once more
	var errs []error
	var applies []func()
	for _, src := range s.sources {
		apply, err := src.Load()
		if err != nil {
			errs = append(errs, err)
		} else if apply != nil {
			applies = append(applies, apply)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for _, apply := range applies {
		apply()
	}
	for path := range now {
		if s.applied[path] != now[path] {
			changed = append(changed, path)
		}
	}
	slices.Sort(changed)
	s.applied = now
	s.cfg.Metrics.good(time.Now())
	return changed, nil
}

// look reads all files.
func (s *Set) look() prints {
	p := prints{}
	for _, src := range s.sources {
		for _, path := range src.Files() {
			if _, known := p[path]; !known && path != "" {
				p[path] = printOf(path)
			}
		}
	}
	return p
}

func printOf(path string) string {
	content, info, err := private.Read(path, maxFile)
	if err != nil {
		return err.Error()
	}
	sum := sha256.Sum256(content)
	return fmt.Sprint(string(sum[:]), info.Mode(), private.Owned(info))
}

// settings names the settings that files belong to.
func (s *Set) settings(files []string) string {
	var names []string
	for _, src := range s.sources {
		if slices.ContainsFunc(src.Files(), func(path string) bool { return slices.Contains(files, path) }) {
			names = append(names, src.name)
		}
	}
	return strings.Join(names, ", ")
}

func (s *Set) done(cause string, changed []string) {
	s.cfg.Metrics.reloads.WithLabelValues(resultOK).Inc()
	if len(changed) == 0 {
		s.cfg.Logger.Info("all files were read again, none has changed", "cause", cause)
		return
	}
	s.cfg.Logger.Info("files have changed, and count from now on", "settings", s.settings(changed), "files", strings.Join(changed, ", "), "cause", cause)
}

func (s *Set) failed(cause string, err error) {
	s.cfg.Metrics.reloads.WithLabelValues(resultFailed).Inc()
	s.cfg.Metrics.ok.Set(0)
	s.cfg.Logger.Error("files cannot be read again: nothing was changed, what was read before counts until they are mended",
		"error", oneLine(err), "cause", cause)
}

// oneLine is an error, which may be several, in one line of a log.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// What has had files read again.
const (
	causeSignal = "SIGHUP"
	causeChange = "a change"
)

// watch is what Run remembers between two looks.
type watch struct {
	last  prints    // at the last look
	since time.Time // when files began to differ from those that count; zero while they do not
	told  time.Time // when it was last told that they are broken; zero if it was not
	found prints    // that was told
}

// Run loads all sources again whenever something comes from hup and when a file has changed,
// until ctx ends. [Set.Load] must have been called.
func (s *Set) Run(ctx context.Context, hup <-chan os.Signal) {
	ticks := time.NewTicker(s.cfg.Interval)
	defer ticks.Stop()
	var w watch
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			w = watch{}
			if s.Reload(causeSignal) != nil {
				w.since, w.told, w.found = time.Now(), time.Now(), s.look()
			}
		case now := <-ticks.C:
			s.changes(&w)
			s.tick(now)
		}
	}
}

// tick tells the sources that want it what time it is.
func (s *Set) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.sources {
		if watcher, ok := src.Source.(Watcher); ok {
			watcher.Watch(now)
		}
	}
}

// changes looks at the files and loads them when they have changed.
func (s *Set) changes(w *watch) {
	s.mu.Lock()
	now := s.look()
	same := maps.Equal(now, s.applied)
	s.mu.Unlock()
	if same {
		if !w.told.IsZero() {
			if _, err := s.load(); err != nil {
				return // for what no file shows
			}
			s.cfg.Logger.Info("the files are again as they were when they were last read: nothing has changed")
		}
		*w = watch{last: now}
		return
	}
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if !maps.Equal(now, w.last) { // somebody may still be writing
		w.last = now
		return
	}
	changed, err := s.load()
	if err == nil {
		s.done(causeChange, changed)
		*w = watch{}
		return
	}
	fresh := !maps.Equal(now, w.found) && time.Since(w.told) >= time.Minute // a minute: something may rewrite them all the time
	if time.Since(w.since) >= s.cfg.Patience && (fresh || time.Since(w.told) >= again) {
		w.told, w.found = time.Now(), now
		s.failed(causeChange, err)
	}
}
