//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/kansei-live/kansei/loadtest/audit"
	"github.com/kansei-live/kansei/loadtest/crowd"
)

// event is one fault that happened.
type event struct {
	fault
	window audit.Window  // until the next one
	mended time.Duration // since the run began
	healed time.Duration // from mended until all nodes were ready
	copied time.Duration // from then until NATS had all copies, or was given up
	phases []audit.Window
	err    error
}

// Run makes a run and reports on it. Its error says that the run could not be made, not
// that it has found something: see [Report.Wrong] and [Report.Late].
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	say := func(format string, a ...any) { _, _ = fmt.Fprintf(cfg.Log, format+"\n", a...) } // progress is no reason to fail
	r := &Report{Config: cfg}
	plan := cfg.schedule()
	say("seed %d: %d viewers and %d publishers in %d rooms; %s", cfg.Seed, cfg.Viewers, cfg.Rooms*cfg.Publishers, cfg.Rooms, names(plan))
	l, err := openLab(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	began := time.Now()

	journal := l.journal
	watches := cfg.watches(plan)
	if watches {
		if err := l.goLive(ctx); err != nil {
			return nil, err
		}
		l.startWorkers()
	}
	var nodes []string
	for _, e := range l.cluster.Edges {
		nodes = append(nodes, e.URL)
	}
	l.crowd, err = crowd.Join(ctx, crowd.Config{
		Front: l.cluster.Front.URL, Nodes: nodes, Secret: string(l.cluster.Secret), Rooms: cfg.rooms(),
		Viewers: cfg.Viewers, JoinRate: joinRate, Publishers: cfg.Publishers, Rate: cfg.Rate,
		Acts: cfg.acts(plan), Events: cfg.Other == "", Trace: cfg.Trace, Seed: cfg.Seed, Journal: journal,
	})
	if err != nil {
		return nil, err
	}
	cursors, err := l.cursors(ctx)
	if err != nil {
		return nil, err
	}
	backEnd := l.follow()
	defer backEnd.close()
	talk := l.crowd.Publish()
	if err := sleep(ctx, rest); err != nil {
		return nil, err
	}

	rng := rand.New(rand.NewPCG(cfg.Seed, 1))
	for i, f := range plan {
		// Each has dice of its own, so that what one draws does not change the next.
		s := &strike{lab: l, rng: rand.New(rand.NewPCG(cfg.Seed, rng.Uint64()))}
		e := event{fault: f}
		e.window.From = journal.Now()
		e.err = f.do(ctx, s)
		if watches {
			l.killWorker(i)
		}
		e.mended, e.phases = journal.Now(), s.phases
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if i == len(plan)-1 {
			r.Counted, r.CountsWrong = l.counted(ctx)
		}
		var waited, calmErr error
		e.healed, waited, calmErr = l.calm(ctx)
		e.err = errors.Join(e.err, calmErr)
		copied, missing, err := l.replicated(ctx)
		if err != nil {
			return nil, err
		}
		e.copied = copied
		if err := sleep(ctx, rest); err != nil {
			return nil, err
		}
		e.window.To = journal.Now()
		r.events = append(r.events, e)
		say("%4.0fs  %-14s %4.1f s; nodes ready %.1f s later, NATS caught up %.1f s after that%s%s", time.Since(began).Seconds(), f.name,
			(e.mended - e.window.From).Seconds(), e.healed.Seconds(), e.copied.Seconds(),
			after(", nodes were waiting for ", waited)+missing, after(": ", e.err))
	}

	talk.Stop()
	last, err := l.crowd.Mark(ctx)
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(settleTime); l.crowd.Behind(last) > 0 && time.Now().Before(end); {
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
	r.Behind = l.crowd.Behind(last)
	if r.CountsWrong == nil { // what was exact because nobody had looked is not exact for long
		_, r.CountsWrong = l.counted(ctx)
	}
	if !slices.ContainsFunc(plan, func(f fault) bool { return f.name == "restore" || f.name == "upgrade" }) {
		// A log that was put back has lost what was told; an older version tells nothing.
		r.CountsWrong = errors.Join(r.CountsWrong, backEnd.knows(ctx))
	}
	history, cancel := context.WithTimeout(ctx, settleTime)
	r.History = l.crowd.History(history, cursors, last)
	cancel()
	l.crowd.Leave()
	if watches {
		if r.Watched, err = l.watched(ctx, plan); err != nil {
			return nil, err
		}
	}
	log, err := l.readLog(ctx)
	if err != nil {
		return nil, err
	}
	r.Verdict = journal.Verify(log)
	r.took = time.Since(began)
	r.measure(journal)
	r.Unexplained = unexplained(journal, r.events)
	return r, nil
}

// cursors waits until every room has told somebody where it begins.
func (l *lab) cursors(ctx context.Context) (map[string]string, error) {
	for {
		if c := l.crowd.Cursors(); len(c) == l.cfg.Rooms {
			return c, nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// after is an error behind some words, on one line; nothing when there is none.
func after(words string, err error) string {
	if err == nil {
		return ""
	}
	return words + strings.ReplaceAll(err.Error(), "\n", "; ")
}
