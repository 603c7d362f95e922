package natslog

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
	"github.com/kansei-live/kansei/protocol"
)

const (
	headerID = nats.MsgIdHdr
	// complainEvery is how often one of the appends that fail is logged, at the most.
	complainEvery = 10 * time.Second
)

// appender appends. A draft is published with a reply of its own, and again, with
// the same id, while its outcome is unknown: the stream knows the ids of the last
// two minutes and answers the second one with the position of the first.
//
// What is known not to have happened is told apart: a try that the connection has
// refused to write, that nobody was there to take, or that the stream has refused, is
// settled. A draft none of whose tries is open is unavailable; while one is, nothing
// that answers another makes its outcome known, but success. (A client that loses its
// connection drops what is in its buffer, and keeps nothing for the next one; so what
// was given to it is open until it is answered.)
//
// Nobody waits for the connection but the goroutine that publishes, since a write
// may take as long as the network does.
type appender struct {
	l     *Log
	inbox string // and a dot

	ready chan struct{} // something is in queue
	alarm chan struct{} // something is in refused, or due earlier than it was

	mu      sync.Mutex
	closed  bool
	pending map[string]*draft // by token
	count   uint64
	queue   []*draft // to be published, in order
	due     dueHeap
	refused []func()      // answers to appends that never were in flight
	ended   bool          // keepTime has ended
	idle    chan struct{} // closed when closed and nothing is in flight
	// answering is how many drafts are not pending any more and being answered; settled
	// tells that idle is closed.
	answering  int
	settled    bool
	complained time.Time // the last time
	unsaid     int       // appends that have failed since, and were not complained of
	strange    time.Time // when another stream's answer was complained of last
	// barred counts, by subject, the tries on this connection that the server did not let
	// through; strays the tries on it that were not answered when their drafts were over.
	barred map[string]int
	strays int
}

// draft is an append in flight.
type draft struct {
	token  string
	stream *stream
	msg    *nats.Msg
	start  time.Time
	end    time.Time // of all tries
	done   func(hub.Receipt, error)
	known  hub.Position // the log had this record before the draft was published

	// Under appender.mu.
	next   time.Time // when something must happen; end at the latest
	index  int       // in the heap; -1 when it is not there
	queued bool
	tries  int // that may have been written
	open   int // of these, those that may have been done, or may still be
	over   bool
	last   string // what became of the last try
}

func newAppender(l *Log) *appender {
	return &appender{
		l: l, inbox: l.conn.NewInbox(),
		ready: make(chan struct{}, 1), alarm: make(chan struct{}, 1),
		pending: make(map[string]*draft), idle: make(chan struct{}), barred: make(map[string]int),
	}
}

// Append implements [hub.RoomLog].
func (l *Log) Append(room string, d hub.Draft, done func(hub.Receipt, error)) {
	if !protocol.ValidRoom(room) {
		l.appender.refuse("", done, fmt.Errorf("natslog: %w: %w: %.80q", hub.ErrUnavailable, errNoRoom, room))
		return
	}
	if wrong := checkDraft(d); wrong != "" {
		l.appender.refuse("", done, fmt.Errorf("natslog: %w: draft for room %s: %s", hub.ErrUnavailable, room, wrong))
		return
	}
	s := l.logs[partition(room, len(l.logs))]
	l.appender.add(s, encodeDraft(s.subjects+room, d), done)
}

func (a *appender) add(s *stream, msg *nats.Msg, done func(hub.Receipt, error)) {
	now := time.Now()
	err := s.closedTo()
	a.mu.Lock()
	switch {
	case a.closed:
		err = errClosed
	case err == nil && len(a.pending) >= a.l.cfg.MaxPending:
		err = fmt.Errorf("%d appends are in flight", len(a.pending))
	}
	if err != nil {
		a.mu.Unlock()
		a.refuse(s.name, done, fmt.Errorf("natslog: %w: %w", hub.ErrUnavailable, err))
		return
	}
	a.count++
	d := &draft{
		token: strconv.FormatUint(a.count, 36), stream: s, msg: msg, start: now, end: now.Add(a.l.cfg.AppendTimeout),
		done: done, index: -1, queued: true, known: s.highest(),
	}
	msg.Reply = a.inbox + d.token
	a.pending[d.token] = d
	a.queue = append(a.queue, d)
	a.at(d, d.end)
	a.mu.Unlock()
	signal(a.ready)
}

// closedTo is why the stream takes no appends, as far as this node knows; nil if it does.
func (s *stream) closedTo() error {
	if !s.l.conn.Connected() {
		return natsconn.ErrNotConnected
	}
	if err := s.l.conn.Deaf(); err != nil {
		return err
	}
	if s.identity().epoch == "" {
		return fmt.Errorf("stream %s: %w", s.name, errUnusable)
	}
	if e := s.unwritable.Load(); e != nil {
		return e
	}
	return nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// refuse answers an append that was not begun, from another goroutine.
func (a *appender) refuse(stream string, done func(hub.Receipt, error), err error) {
	if !errors.Is(err, errClosed) {
		a.complain(stream, err)
	}
	answer := func() {
		a.l.metrics.appends.WithLabelValues(resultUnavailable).Inc()
		done(hub.Receipt{}, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		go answer() // nobody is left to do it; ends at once, since done does not block
		return
	}
	a.refused = append(a.refused, answer)
	signal(a.alarm)
}

// at sets when something must happen to a draft. a.mu is held.
func (a *appender) at(d *draft, t time.Time) {
	if t.After(d.end) {
		t = d.end
	}
	d.next = t
	if d.index < 0 {
		heap.Push(&a.due, d)
	} else {
		heap.Fix(&a.due, d.index)
	}
	if a.due[0] == d {
		signal(a.alarm)
	}
}

// send publishes what is queued, until the log ends.
func (a *appender) send() {
	for {
		select {
		case <-a.ready:
		case <-a.l.ctx.Done():
			return
		}
		a.mu.Lock()
		queue := a.queue
		a.queue = nil
		a.mu.Unlock()
		for _, d := range queue {
			a.publish(d)
		}
	}
}

func (a *appender) publish(d *draft) {
	a.mu.Lock()
	d.queued = false
	if d.over {
		a.mu.Unlock()
		return
	}
	if e := d.stream.unwritable.Load(); e != nil {
		a.bar(d, e)
		return
	}
	// Counted before it is written: from here on the outcome is unknown.
	d.tries++
	d.open++
	a.at(d, time.Now().Add(jitter(a.l.cfg.RequestTimeout)))
	a.mu.Unlock()

	nc := a.l.conn.NATS()
	err := nc.PublishMsg(d.msg)
	if err == nil {
		return
	}
	a.l.metrics.nats.Failed(opPublish)
	a.l.conn.Broken(nc, err)
	a.mu.Lock()
	d.last = err.Error()
	if natsconn.NotSent(err) {
		d.tries--
		if d.open--; d.open == 0 {
			a.end(d, hub.Receipt{}, fmt.Errorf("natslog: %w: %w", hub.ErrUnavailable, err))
			return
		}
	}
	if !d.over {
		a.at(d, time.Now().Add(jitter(200*time.Millisecond)))
	}
	a.mu.Unlock()
}

// end answers a draft and unlocks a.mu, which is held.
func (a *appender) end(d *draft, r hub.Receipt, err error) {
	if d.over {
		a.mu.Unlock()
		return
	}
	d.over = true
	delete(a.pending, d.token)
	if d.index >= 0 {
		heap.Remove(&a.due, d.index)
	}
	a.answering++
	unknown := err != nil && d.open > 0
	_, conflict := errors.AsType[*sequenceError](err)
	complain := err != nil && !conflict && !a.closed
	a.strays += d.open
	barred := a.barred[d.msg.Subject] > 0
	a.mu.Unlock()
	defer a.answered()
	if barred {
		defer a.settleBarred(d.msg.Subject)
	}

	a.l.metrics.appendSeconds.Observe(time.Since(d.start).Seconds())
	result := resultOK
	switch {
	case conflict:
		d.done(r, err)
		return
	case err == nil && r.Duplicate:
		result = resultDuplicate
	case unknown:
		result = resultUnknown
	case err != nil:
		result = resultUnavailable
	}
	a.l.metrics.appends.WithLabelValues(result).Inc()
	if complain {
		a.complain(d.stream.name, err)
	}
	d.done(r, err)
}

// complain logs one of the appends that fail, once in a while.
func (a *appender) complain(stream string, err error) {
	a.mu.Lock()
	if time.Since(a.complained) < complainEvery {
		a.unsaid++
		a.mu.Unlock()
		return
	}
	unsaid := a.unsaid
	a.complained, a.unsaid = time.Now(), 0
	a.mu.Unlock()
	what := "a comment or a state was not stored: its sender was told so, and may send it again"
	if errors.Is(err, hub.ErrUnknownOutcome) {
		what = "whether a comment or a state was stored is not known: its sender was told so, and may send it again"
	}
	args := []any{"error", err}
	if stream != "" {
		args = append(args, "stream", stream)
	}
	if unsaid > 0 {
		args = append(args, "left_out", unsaid)
	}
	a.l.log.Warn(what, args...)
}

// answered follows the answer to a draft: Close waits for the last one.
func (a *appender) answered() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answering--
	a.settle()
}

// settle tells Close when nothing is in flight any more. a.mu is held.
func (a *appender) settle() {
	if a.closed && !a.settled && len(a.pending)+a.answering == 0 {
		a.settled = true
		close(a.idle)
	}
}

// keepTime has what is due happen, and refuses what is refused, until the log ends.
func (a *appender) keepTime() {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		a.mu.Lock()
		refused := a.refused
		a.refused = nil
		a.mu.Unlock()
		for _, answer := range refused {
			answer()
		}
		for a.tryNext(time.Now()) {
		}
		a.mu.Lock()
		wait := time.Hour
		if len(a.due) > 0 {
			wait = time.Until(a.due[0].next)
		}
		a.mu.Unlock()
		t.Reset(wait)
		select {
		case <-t.C:
		case <-a.alarm:
		case <-a.l.ctx.Done():
			a.abandon()
			return
		}
	}
}

// tryNext deals with the first draft that is due; false when none is.
func (a *appender) tryNext(now time.Time) bool {
	a.mu.Lock()
	if len(a.due) == 0 || a.due[0].next.After(now) {
		a.mu.Unlock()
		return false
	}
	d := a.due[0]
	if !d.end.After(now) {
		a.end(d, hub.Receipt{}, a.tooLate(d))
		return true
	}
	a.again(d)
	a.mu.Unlock()
	return true
}

// tooLate is the error of a draft whose time is over. a.mu is held.
func (a *appender) tooLate(d *draft) error {
	err := hub.ErrUnknownOutcome
	if d.open == 0 {
		err = hub.ErrUnavailable
	}
	if d.last == "" {
		d.last = "no answer"
	}
	return fmt.Errorf("natslog: %w after %v and %d tries: %s", err, time.Since(d.start).Round(time.Millisecond), d.tries, d.last)
}

// again queues a draft for another try. a.mu is held.
func (a *appender) again(d *draft) {
	if !d.queued {
		d.queued = true
		a.queue = append(a.queue, d)
		signal(a.ready)
	}
	a.at(d, d.end) // until it is published
}

// resend tries again soon what was sent over a connection that was lost.
func (a *appender) resend() {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, d := range a.pending {
		if !d.queued {
			a.at(d, now.Add(rand.N(100*time.Millisecond)))
		}
	}
}

// finish refuses what comes and waits for what is in flight, until the context
// ends.
func (a *appender) finish(ctx context.Context) error {
	a.mu.Lock()
	a.closed = true
	a.settle()
	a.mu.Unlock()
	select {
	case <-a.idle: // also when ctx is over
		return nil
	default:
	}
	select {
	case <-a.idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("natslog: close: appends are in flight: %w", ctx.Err())
	}
}

// abandon answers whatever is left when the log ends.
func (a *appender) abandon() {
	for {
		a.mu.Lock()
		refused := a.refused
		a.refused = nil
		if len(refused) == 0 && len(a.due) == 0 {
			a.ended = true
			a.mu.Unlock()
			return
		}
		if len(a.due) > 0 {
			d := a.due[0]
			d.last = errClosed.Error()
			a.end(d, hub.Receipt{}, a.tooLate(d))
		} else {
			a.mu.Unlock()
		}
		for _, answer := range refused {
			answer()
		}
	}
}

// dueHeap orders drafts by when something must happen to them.
type dueHeap []*draft

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].next.Before(h[j].next) }
func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *dueHeap) Push(x any) {
	d := x.(*draft)
	d.index = len(*h)
	*h = append(*h, d)
}
func (h *dueHeap) Pop() any {
	old := *h
	n := len(old) - 1
	d := old[n]
	old[n] = nil
	*h = old[:n]
	d.index = -1
	return d
}
