package natslog

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// task is what a follow has to read before it can go on.
type task uint8

const (
	taskWarm      task = 1 << iota // everything, for a Reset
	taskRead                       // the records up to follow.target, after a gap between live messages
	taskTail                       // the same, after a loss that the probe has found
	taskCheck                      // the records up to the end that the leader tells
	taskState                      // the state, if it is newer
	taskStateAnew                  // the state, whatever it is
)

const (
	maxInbox       = 1024             // of one room, while it is read back
	maxStates      = 8                // of one room; the latest counts
	workTime       = 10 * time.Second // of one go at a follow's tasks
	degradedAfter  = 3 * time.Second  // of tasks that fail
	reportsWorkers = 8                // rooms whose events are shown at once
)

// follow is one room that is followed. It has no goroutine: whatever happens to
// the room is noted under mu, and a worker of a pool takes it from there. There is
// one worker at a time for a follow (busy), so that reports come in order.
type follow struct {
	l        *Log
	room     string
	recent   int
	log      *stream // the room's partition
	follower hub.Follower

	reporting sync.Mutex // held during a report
	stopped   atomic.Bool

	// Everything up to here was reported; written by the worker. Its time is 0 when it is
	// not known.
	had   atomic.Uint64
	hadAt atomic.Int64
	rev   atomic.Uint64 // the sequence of the state that was reported; written by the worker
	revAt atomic.Int64
	// doubt is the last live message that followed on an older one than was reported, so
	// that what was between them, if anything was, had been removed; written by the worker.
	doubt atomic.Uint64
	// pasts is how often the log was found to have another past, or to be another one, and
	// told of how many of them a Reset has told.
	pasts, told atomic.Uint32

	mu         sync.Mutex
	busy       bool // a worker has it, or it is in a pool's queue
	poked      bool // look at it even if nothing else is to be done
	parked     bool // its tasks have failed; they wait until the stream was found well
	tasks      task
	target     uint64       // how far taskRead has to get
	expected   uint64       // how far the probe knows the room to go
	forgotten  hub.Position // up to here the log may have removed what was not reported; 0: nothing
	inbox      []*nats.Msg
	states     []liveState
	warm       bool
	freshLog   bool // warmed up since the last probe that included the room
	freshState bool

	// Of the worker.
	epoch        string // of the log that it has come so far in
	liveSubject  string // what is subscribed to; empty before
	stateSubject string
	actSubjects  string // with a wildcard
	sub          *nats.Subscription
	stateSub     *nats.Subscription
	actSub       *nats.Subscription
	failing      time.Time // since when the tasks fail; zero when they don't
	degraded     bool      // as it was reported
}

// liveState is a record of the state stream, and the subject on which it came if
// it was republished.
type liveState struct {
	record
	live string
}

// work is what a worker takes from a follow at once.
type work struct {
	tasks     task
	target    uint64
	forgotten hub.Position
	inbox     []*nats.Msg
	states    []liveState
}

func newFollow(l *Log, room string, recent int, follower hub.Follower) *follow {
	return &follow{
		l: l, room: room, recent: recent, follower: follower,
		log: l.logs[partition(room, len(l.logs))], tasks: taskWarm,
	}
}

// Stop implements [hub.Follow].
func (f *follow) Stop() {
	f.stopped.Store(true)
	f.log.leave(f)
	f.l.state.leave(f)
	f.wake(0)          // a worker unsubscribes
	f.reporting.Lock() // waits for the report that is under way
	defer f.reporting.Unlock()
}

// tell makes a report, unless the follow was stopped.
func (f *follow) tell(report func()) {
	f.reporting.Lock()
	defer f.reporting.Unlock()
	if !f.stopped.Load() {
		report()
	}
}

// wake adds tasks and has a worker look at the follow.
func (f *follow) wake(t task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tasks |= t
	f.poked = true
	f.schedule()
}

// unpark has the tasks tried again.
func (f *follow) unpark() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parked, f.poked = false, true
	f.schedule()
}

// schedule puts the follow into the queue of the pool that can do what is to be
// done, unless a worker has it already. f.mu is held.
func (f *follow) schedule() {
	if f.claim() {
		f.queue()
	}
}

// claim makes the caller the follow's worker, unless there is one. f.mu is held.
func (f *follow) claim() bool {
	if f.busy {
		return false
	}
	f.busy = true
	return true
}

// handOver gives a follow that was claimed to a pool.
func (f *follow) handOver() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue()
}

func (f *follow) queue() {
	if f.tasks != 0 && !f.parked && !f.stopped.Load() {
		// What is behind goes ahead of what is new: thousands of rooms may be opened at once.
		f.log.reads.add(f, f.tasks&(taskRead|taskTail) != 0)
	} else {
		f.l.reports.add(f, false)
	}
}

// push takes a live message from a stream, and reports whether the caller has claimed
// the follow by it. It does not wait: what is too much is dropped and read back.
func (f *follow) push(s *stream, m *nats.Msg) (claimed bool) {
	if s.isState() {
		rec, ok := parseRecord(m)
		if !ok {
			f.l.metrics.skip(skipEnvelope)
			return false
		}
		return f.pushState(liveState{rec, m.Subject})
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.inbox) < maxInbox {
		f.inbox = append(f.inbox, m)
	} else {
		f.tasks |= taskCheck
	}
	return !f.parked && f.claim()
}

func (f *follow) pushState(st liveState) (claimed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.states) < maxStates {
		f.states = append(f.states, st)
	} else {
		f.tasks |= taskState
	}
	return !f.parked && f.claim()
}

// position is how far the follow has come in a stream.
func (f *follow) position(s *stream) uint64 {
	if s.isState() {
		return f.rev.Load()
	}
	return f.had.Load()
}

// fresh tells, once, that the follow was warmed up since the last probe of a
// stream.
func (f *follow) fresh(s *stream) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	flag := &f.freshLog
	if s.isState() {
		flag = &f.freshState
	}
	was := *flag
	*flag = false
	return was
}

// expect is told of a record of the room, and reports whether it has not come yet.
func (f *follow) expect(seq uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.warm || seq <= f.had.Load() {
		return false
	}
	f.expected = max(f.expected, seq)
	return true
}

// behind reports whether what was expected has still not come.
func (f *follow) behind() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.warm || f.expected <= f.had.Load() {
		return false
	}
	f.target = max(f.target, f.expected)
	return true
}

// missed reports whether the room may have had records that were not reported and are
// removed: the log begins at first, and is known up to another position.
func (f *follow) missed(known, first uint64) bool {
	return first > known+1 && (f.had.Load() < first-1 || f.doubt.Load() > known)
}

// contradicts reports whether a record cannot be what the follow takes it for, one that it
// has had: a later one at the same place or before it.
func (f *follow) contradicts(rec record) bool {
	had := f.place()
	return rec.seq <= had.Seq && had.At > 0 && rec.at > had.At
}

// place is up to where everything was reported.
func (f *follow) place() hub.Position {
	return hub.Position{Seq: f.had.Load(), At: f.hadAt.Load()}
}

// come notes that everything up to a position was reported.
func (f *follow) come(p hub.Position) {
	f.had.Store(p.Seq)
	f.hadAt.Store(p.At)
	f.log.note(p)
}

// lose is told that the log may have removed what was not reported, up to a position.
func (f *follow) lose(upTo hub.Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.warm {
		if upTo.Seq > f.forgotten.Seq {
			f.forgotten = upTo
		}
		f.poked = true
		f.schedule()
	}
}

// report and read are what the workers of the two pools do.
func (f *follow) report() { f.run(false) }
func (f *follow) read()   { f.run(true) }

// run does what there is to be done. A worker that may not read hands a follow
// that must over to one that may.
func (f *follow) run(reading bool) {
	f.mu.Lock()
	f.poked = false
	switch {
	case f.stopped.Load():
		f.mu.Unlock()
		f.dismiss() // and remains busy, so that no worker comes again
		return
	case f.parked:
		f.mu.Unlock()
		f.tellHealth()
		f.finish()
		return
	case f.tasks != 0 && !reading:
		f.queue()
		f.mu.Unlock()
		return
	}
	w := work{f.tasks, f.target, f.forgotten, f.inbox, f.states}
	f.tasks, f.target, f.forgotten, f.inbox, f.states = 0, 0, hub.Position{}, nil, nil
	f.mu.Unlock()

	if w.forgotten.Seq > 0 && w.tasks&taskWarm == 0 {
		f.forget(w.forgotten)
	}
	if w.tasks&(taskWarm|taskRead) == 0 {
		// Nothing is known to be missing before these, and they may be what the
		// tasks are about.
		f.show(w.inbox)
		w.inbox = nil
	}
	if w.tasks != 0 {
		if err := f.do(&w); err != nil {
			f.park(w, err)
			return
		}
		f.failing = time.Time{}
	}
	f.show(w.inbox)
	f.showStates(w.states)
	f.tellHealth()
	f.finish()
}

// finish gives the follow back: to a queue when something has come meanwhile.
func (f *follow) finish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.poked || f.stopped.Load() || !f.parked && (f.tasks != 0 || len(f.inbox) > 0 || len(f.states) > 0) {
		f.queue()
		return
	}
	f.busy = false
}

// park puts the work back until the stream was found well.
func (f *follow) park(w work, err error) {
	if f.failing.IsZero() {
		f.failing = time.Now()
	}
	if f.l.ctx.Err() == nil && !errors.Is(err, natsconn.ErrNotConnected) {
		f.l.quiet.Log(slog.LevelDebug, "a room cannot be read: it is tried again when its stream answers, and said to be degraded meanwhile", f.room, "room", f.room, "stream", f.log.name, "error", err)
	}
	f.mu.Lock()
	f.tasks |= w.tasks
	f.target = max(f.target, w.target)
	f.inbox = append(w.inbox, f.inbox...)
	if len(f.inbox) > maxInbox {
		f.inbox = f.inbox[:maxInbox:maxInbox]
		f.tasks |= taskCheck
	}
	f.states = append(w.states, f.states...)
	if len(f.states) > maxStates {
		f.states = f.states[len(f.states)-maxStates:]
	}
	f.parked = true
	f.mu.Unlock()
	// Only now: whoever takes it from there finds it parked.
	f.log.await(f)
	f.tellHealth()
	f.finish()
}

// dismiss ends the subscriptions of a follow that was stopped.
func (f *follow) dismiss() {
	f.unsubscribe(f.log, &f.sub)
	f.unsubscribe(f.l.state, &f.stateSub)
	f.unsubscribe(f.l.state, &f.actSub)
	if f.degraded {
		f.degraded = false
		f.l.metrics.degraded.Dec()
	}
}

// show reports live messages: those that follow on what was reported. At a gap
// the rest waits until what is missing was read.
func (f *follow) show(inbox []*nats.Msg) {
	if len(inbox) == 0 {
		return
	}
	var (
		events = make([]hub.Event, 0, len(inbox))
		had    = f.place()
	)
	for i, m := range inbox {
		if m.Subject != f.liveSubject {
			continue // of a subscription that was ended
		}
		rec, ok := parseRecord(m)
		if !ok {
			f.l.metrics.skip(skipEnvelope)
			continue
		}
		if rec.seq <= had.Seq {
			if had.At > 0 && rec.at > had.At {
				f.log.suspect(had) // the log gives its positions again
			}
			continue
		}
		if rec.previous > had.Seq {
			f.l.metrics.gaps.WithLabelValues(gapLive).Inc()
			f.mu.Lock()
			f.tasks |= taskRead
			f.target = max(f.target, rec.previous)
			f.inbox = append(slices.Clip(inbox[i:]), f.inbox...)
			f.mu.Unlock()
			break
		}
		if rec.previous < had.Seq {
			f.doubt.Store(rec.seq)
		}
		had = hub.Position{Seq: rec.seq, At: rec.at}
		if e, reason := rec.event(); reason != "" {
			f.l.skip(&rec, reason)
		} else {
			events = append(events, e)
		}
	}
	f.deliver(events, had)
}

// deliver reports events; everything up to had is reported then.
func (f *follow) deliver(events []hub.Event, had hub.Position) {
	if had.Seq <= f.had.Load() {
		return
	}
	f.come(had)
	if len(events) > 0 {
		f.tell(func() { f.follower.Deliver(events) })
	}
}

// tellHealth reports whether the room can be followed, when that has changed.
func (f *follow) tellHealth() {
	degraded := !f.log.isWell() || !f.l.state.isWell() ||
		!f.failing.IsZero() && time.Since(f.failing) > degradedAfter
	if degraded == f.degraded {
		return
	}
	f.degraded = degraded
	if degraded {
		f.l.metrics.degraded.Inc()
	} else {
		f.l.metrics.degraded.Dec()
	}
	f.tell(func() { f.follower.Degraded(degraded) })
}

// do does the tasks of a piece of work. When it fails, what it has got done is
// done all the same.
func (f *follow) do(w *work) error {
	ctx, cancel := context.WithTimeout(f.l.ctx, workTime)
	defer cancel()
	if w.tasks&taskWarm != 0 {
		if f.liveSubject != "" {
			// What came before belongs to the log that was.
			w.inbox = nil
		}
		return f.warmUp(ctx)
	}
	if w.tasks&(taskRead|taskTail|taskCheck) != 0 {
		if err := f.readBack(ctx, w); err != nil {
			return err
		}
	}
	if w.tasks&(taskState|taskStateAnew) != 0 {
		return f.readState(ctx, w.tasks&taskStateAnew != 0)
	}
	return nil
}
