package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is a log that is read while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

// lines returns the lines with a word in them.
func (j *journal) lines(word string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []string
	for line := range strings.Lines(j.b.String()) {
		if strings.Contains(line, word) {
			out = append(out, line)
		}
	}
	return out
}

// words is a source: files whose content must begin with the same word.
type words struct {
	flag  string
	files []string

	mu      sync.Mutex
	counts  string
	applied int
}

func (w *words) Files() []string { return w.files }

func (w *words) Load() (func(), error) {
	var all []string
	for _, path := range w.files {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, errors.New(w.flag + ": " + err.Error())
		}
		all = append(all, string(content))
	}
	for _, one := range all[1:] {
		if one != all[0] {
			return nil, errors.New(w.flag + ": " + strings.Join(w.files, " does not fit "))
		}
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.counts = all[0]
		w.applied++
	}, nil
}

func (w *words) now() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.counts
}

// put writes a file, in the place of the one that is there.
func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// rig is a set of a pair of files and a single one.
type rig struct {
	*Set
	pair, single     *words
	cert, key, alone string
	reg              *prometheus.Registry
	log              *journal
}

func newRig(t *testing.T) *rig {
	dir := t.TempDir()
	r := &rig{cert: filepath.Join(dir, "cert"), key: filepath.Join(dir, "key"), alone: filepath.Join(dir, "alone"), reg: prometheus.NewRegistry(), log: new(journal)}
	for _, path := range []string{r.cert, r.key, r.alone} {
		put(t, path, "one")
	}
	r.pair = &words{flag: "--pair", files: []string{r.cert, r.key}}
	r.single = &words{flag: "--single", files: []string{r.alone}}
	r.Set = New(Config{Metrics: NewMetrics(r.reg), Logger: slog.New(slog.NewTextHandler(r.log, nil))})
	r.Add("--pair", r.pair)
	r.Add("--single", r.single)
	return r
}

// counts checks what counts.
func (r *rig) counts(t *testing.T, pair, single string) {
	t.Helper()
	if r.pair.now() != pair || r.single.now() != single {
		t.Errorf("%q and %q count, want %q and %q", r.pair.now(), r.single.now(), pair, single)
	}
}

// metric checks one metric, such as "kansei_reloads_total{ok} 0".
func (r *rig) metric(t *testing.T, want string) {
	t.Helper()
	families, err := r.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, l := range m.GetLabel() {
				line += "{" + l.GetValue() + "}"
			}
			all = append(all, fmt.Sprint(line, " ", m.GetGauge().GetValue()+m.GetCounter().GetValue()))
		}
	}
	if !slices.Contains(all, want) {
		t.Errorf("no %s among %q", want, all)
	}
}

// The first load says all that is wrong, and nothing counts then.
func TestLoad(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	put(t, r.key, "two")
	if err := os.Remove(r.alone); err != nil {
		t.Fatal(err)
	}
	err := r.Load()
	if err == nil || !strings.Contains(err.Error(), "--pair: "+r.cert) || !strings.Contains(err.Error(), "--single: ") {
		t.Errorf("the error is %v", err)
	}
	r.counts(t, "", "")
	put(t, r.key, "one")
	put(t, r.alone, "x")
	if err := r.Load(); err != nil {
		t.Fatal(err)
	}
	r.counts(t, "one", "x")
	r.metric(t, "kansei_reload_ok 1")
	r.metric(t, "kansei_reloads_total{ok} 0")
}

// All files count or none does.
func TestReload(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.Load(); err != nil {
		t.Fatal(err)
	}
	put(t, r.alone, "two")
	put(t, r.cert, "two")
	if err := r.Reload("a test"); err == nil || !strings.Contains(err.Error(), "--pair: ") {
		t.Errorf("files that do not fit: %v", err)
	}
	r.counts(t, "one", "one")
	r.metric(t, "kansei_reload_ok 0")
	r.metric(t, "kansei_reloads_total{failed} 1")
	if l := r.log.lines("level=ERROR"); len(l) != 1 || !strings.Contains(l[0], r.cert) || !strings.Contains(l[0], "nothing was changed") {
		t.Errorf("the log says %q", l)
	}
	put(t, r.key, "two")
	if err := r.Reload("a test"); err != nil {
		t.Fatal(err)
	}
	r.counts(t, "two", "two")
	r.metric(t, "kansei_reload_ok 1")
	r.metric(t, "kansei_reloads_total{ok} 1")
	l := r.log.lines("count from now on")
	if len(l) != 1 || !strings.Contains(l[0], `settings="--pair, --single"`) || !strings.Contains(l[0], r.cert) || !strings.Contains(l[0], r.alone) {
		t.Errorf("the log says %q", l)
	}
	if err := r.Reload("a test"); err != nil || r.single.applied != 3 {
		t.Errorf("read again without a change: %v, applied %d times, want 3", err, r.single.applied)
	}
	if l := r.log.lines("none has changed"); len(l) != 1 {
		t.Errorf("the log says %q", l)
	}
}

// running runs a set in a bubble, where time is made of waiting.
func running(t *testing.T, test func(t *testing.T, r *rig, hup chan<- os.Signal)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		if err := r.Load(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		hup := make(chan os.Signal, 1)
		var all sync.WaitGroup
		all.Go(func() { r.Run(ctx, hup) }) // ends with cancel
		test(t, r, hup)
		cancel()
		all.Wait()
	})
}

func TestRunSeesChanges(t *testing.T) {
	running(t, func(t *testing.T, r *rig, _ chan<- os.Signal) {
		time.Sleep(time.Minute)
		if r.single.applied != 1 {
			t.Errorf("without a change the files were applied %d times", r.single.applied)
		}
		put(t, r.alone, "two")
		time.Sleep(2*Interval + time.Second)
		r.counts(t, "one", "two")
		// In place, too, with the same size; and what is still being written is not read.
		if err := os.WriteFile(r.alone, []byte("thr"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(Interval)
		if err := os.WriteFile(r.alone, []byte("three"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(Interval)
		r.counts(t, "one", "two")
		time.Sleep(Interval)
		r.counts(t, "one", "three")
		if l := r.log.lines("level="); len(l) != 2 {
			t.Errorf("the log says %q", l)
		}
	})
}

// Kubernetes puts new files behind a link, and swaps the link.
func TestRunFollowsLinks(t *testing.T) {
	running(t, func(t *testing.T, r *rig, _ chan<- os.Signal) {
		dir := filepath.Dir(r.alone)
		version := func(name, content string) {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, name, "alone"), content)
			if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")); err != nil {
				t.Fatal(err)
			}
		}
		version("..1", "first")
		if err := os.Remove(r.alone); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..data", "alone"), r.alone); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * Interval)
		r.counts(t, "one", "first")
		version("..2", "second")
		time.Sleep(3 * Interval)
		r.counts(t, "one", "second")
	})
}

// A certificate and its key are replaced one after the other: nobody is told of the time in
// between.
func TestRunIsPatient(t *testing.T) {
	running(t, func(t *testing.T, r *rig, _ chan<- os.Signal) {
		put(t, r.cert, "two")
		time.Sleep(Patience - 2*time.Second)
		r.counts(t, "one", "one")
		put(t, r.key, "two")
		time.Sleep(3 * Interval)
		r.counts(t, "two", "one")
		if l := r.log.lines("level="); len(l) != 1 {
			t.Errorf("the log says %q", l)
		}
		r.metric(t, "kansei_reloads_total{failed} 0")
	})
}

// What stays broken is told once in a while; other files do not count meanwhile.
func TestRunTellsWhatIsBroken(t *testing.T) {
	running(t, func(t *testing.T, r *rig, _ chan<- os.Signal) {
		put(t, r.cert, "two")
		put(t, r.alone, "two")
		time.Sleep(again)
		r.counts(t, "one", "one")
		l := r.log.lines("level=")
		if len(l) != 1 || !strings.Contains(l[0], "level=ERROR") || !strings.Contains(l[0], "--pair: ") || !strings.Contains(l[0], `cause="a change"`) {
			t.Errorf("in ten minutes the log says %q", l)
		}
		r.metric(t, "kansei_reload_ok 0")
		time.Sleep(time.Minute)
		if l := r.log.lines("level=ERROR"); len(l) != 2 {
			t.Errorf("in eleven minutes the log says %q", l)
		}
		// Broken in another way: that is news.
		put(t, r.cert, "three")
		time.Sleep(2 * time.Minute)
		if l := r.log.lines("level=ERROR"); len(l) != 3 {
			t.Errorf("in another way: %q", l)
		}
		// As it was.
		put(t, r.cert, "one")
		put(t, r.alone, "one")
		time.Sleep(3 * Interval)
		if l := r.log.lines("again as they were"); len(l) != 1 {
			t.Errorf("the log says %q", l)
		}
		r.metric(t, "kansei_reload_ok 1")
		put(t, r.alone, "two")
		time.Sleep(3 * Interval)
		r.counts(t, "one", "two")
	})
}

// Something that rewrites a broken file all the time does not fill the log.
func TestRunIsQuiet(t *testing.T) {
	running(t, func(t *testing.T, r *rig, _ chan<- os.Signal) {
		for i := range 60 {
			put(t, r.cert, strings.Repeat("x", i+1))
			time.Sleep(5 * time.Second)
		}
		if l := r.log.lines("level="); len(l) < 2 || len(l) > 6 {
			t.Errorf("in five minutes: %d lines, %q", len(l), l)
		}
	})
}

// Whoever sends a signal is told at once.
func TestRunOnSignal(t *testing.T) {
	running(t, func(t *testing.T, r *rig, hup chan<- os.Signal) {
		put(t, r.cert, "two")
		hup <- syscall.SIGHUP
		synctest.Wait()
		if l := r.log.lines("level=ERROR"); len(l) != 1 || !strings.Contains(l[0], "cause=SIGHUP") {
			t.Errorf("the log says %q", l)
		}
		time.Sleep(30 * time.Second)
		if l := r.log.lines("level="); len(l) != 1 {
			t.Errorf("told twice: %q", l)
		}
		put(t, r.key, "two")
		hup <- syscall.SIGHUP
		synctest.Wait()
		r.counts(t, "two", "one")
		hup <- syscall.SIGHUP
		synctest.Wait()
		if l := r.log.lines("none has changed"); len(l) != 1 {
			t.Errorf("the log says %q", l)
		}
		time.Sleep(time.Minute)
		if l := r.log.lines("level="); len(l) != 3 {
			t.Errorf("the log says %q", l)
		}
		// What only its mode breaks is no change of content.
		if err := os.Chmod(r.alone, 0o644); err != nil { // #nosec G302 -- as somebody might
			t.Fatal(err)
		}
		time.Sleep(3 * Interval)
		if l := r.log.lines("count from now on"); len(l) != 2 {
			t.Errorf("after another mode: %q", l)
		}
	})
}

func TestMetricsAreWellNamed(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewRegistry()
	NewMetrics(reg)
	NewCertificate("c", "k", reg, slog.New(slog.DiscardHandler))
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	if want := []string{"kansei_certificate_not_after_timestamp_seconds", "kansei_reload_last_ok_timestamp_seconds", "kansei_reload_ok", "kansei_reloads_total"}; !slices.Equal(names, want) {
		t.Errorf("the metrics are %v, want %v", names, want)
	}
}
