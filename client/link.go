package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/kansei-live/kansei/protocol"
)

// link is one connection of a Client with its clocks: for the welcome, for the
// beats, and for a reconnect that the server asked for. The functions of the
// clocks run on goroutines of their own; close waits for them.
type link struct {
	conn  *Conn
	ctx   context.Context              // for writing; it has no end, the connection has
	done  chan struct{}                // closed when the connection is over
	since string                       // the cursor that it came with
	first []byte                       // a message that has been read already; nil: none
	mover func()                       // goes elsewhere; set before anything is read
	tells func() *protocol.BeatRequest // what a beat says

	session string          // of the welcome; set before the link is shared
	limits  protocol.Limits // the same; mu guards later ones
	pace    *rate.Limiter   // of comments that have waited for the link; set with session
	behind  atomic.Int64    // comments that wait for pace

	// turn holds one place, for the goroutine that may take in messages and owns the cursor:
	// the goroutine of Run, and mover while it looks for another connection.
	turn  chan struct{}
	next  *link // the connection that takes the place of this one
	moves int   // attempts to find it that failed

	mu       sync.Mutex
	cause    error // why this side ended the connection
	told     time.Time
	over     bool
	running  sync.WaitGroup // functions of the clocks, while not over
	silence  *time.Timer    // ends the connection if the server says nothing
	beat     *time.Timer
	move     *time.Timer
	waiting  bool      // for the answer to a beat
	due      time.Time // of that answer
	every    time.Duration
	welcomed time.Time
}

func newLink(ctx context.Context, conn *Conn, timeout time.Duration, since string, tells func() *protocol.BeatRequest) *link {
	l := &link{conn: conn, tells: tells, ctx: context.WithoutCancel(ctx), done: make(chan struct{}), since: since, turn: make(chan struct{}, 1)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silence = l.after(timeout, func() {
		l.fail(fmt.Errorf("%w: no welcome in time", ErrSilent))
	})
	return l
}

// after runs f after d unless the link is over then.
func (l *link) after(d time.Duration, f func()) *time.Timer {
	return time.AfterFunc(d, func() { l.do(f) })
}

// do runs f unless the link is over; close waits for it.
func (l *link) do(f func()) {
	l.mu.Lock()
	if l.over {
		l.mu.Unlock()
		return
	}
	l.running.Add(1)
	l.mu.Unlock()
	defer l.running.Done()
	f()
}

// welcome starts the beats; false if there was a welcome before.
func (l *link) welcome(w *protocol.Welcome) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.welcomed.IsZero() {
		return false
	}
	l.welcomed, l.session, l.limits = time.Now(), w.Session, w.Limits
	l.pace = rate.NewLimiter(rate.Limit(cmp.Or(max(w.Limits.PerS, 0), 1)), max(w.Limits.Burst, 1))
	l.silence.Stop()
	if w.BeatMS > 0 {
		l.every = max(time.Duration(min(w.BeatMS, maxTold.Milliseconds()))*time.Millisecond, minBeat)
		// The first one at any time, so that clients that came at once do not beat at once.
		l.beat = l.after(l.every/2+jitter(l.every/2), l.sendBeat)
	}
	return true
}

// limit takes limits that have changed.
func (l *link) limit(limits protocol.Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = limits
	if l.pace != nil {
		l.pace.SetLimit(rate.Limit(cmp.Or(max(limits.PerS, 0), 1)))
		l.pace.SetBurst(max(limits.Burst, 1))
	}
}

// within are the limits that count.
func (l *link) within() protocol.Limits {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limits
}

// lasted is how long ago the welcome was; 0 if there was none.
func (l *link) lasted() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.welcomed.IsZero() {
		return 0
	}
	return time.Since(l.welcomed)
}

func (l *link) sendBeat() {
	l.mu.Lock()
	if !l.over {
		l.beat.Reset(l.every)
	}
	l.mu.Unlock()
	l.ask(beatAnswer)
}

// probe asks at once, without waiting for anything.
func (l *link) probe(limit time.Duration) { l.after(0, func() { l.ask(limit) }) }

// ask sends a beat, which must be answered within limit.
func (l *link) ask(limit time.Duration) {
	l.mu.Lock()
	if due := time.Now().Add(limit); !l.waiting || due.Before(l.due) {
		l.waiting, l.due = true, due
		l.silence.Stop()
		l.silence = l.after(limit, func() {
			l.fail(fmt.Errorf("%w: no answer to a beat within %v", ErrSilent, limit))
		})
	}
	l.mu.Unlock()
	beat := new(protocol.BeatRequest)
	if w := l.tells(); w != nil {
		beat = w
	}
	if err := l.send(beat); err != nil {
		l.fail(err)
	}
}

func (l *link) beatAnswered() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting {
		l.waiting = false
		l.silence.Stop()
	}
}

// moveAfter goes to another node when the time that this one told is over, and returns
// that time. If the node closes first, the rest of it is waited then.
func (l *link) moveAfter(ms int64) time.Duration {
	d := time.Duration(min(max(ms, 0), maxTold.Milliseconds())) * time.Millisecond
	l.mu.Lock()
	l.told = time.Now().Add(d)
	l.mu.Unlock()
	l.moveIn(d)
	return d
}

func (l *link) moveIn(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.over:
	case l.move == nil:
		l.move = l.after(d, l.mover)
	default:
		l.move.Reset(d)
	}
}

// send writes a request within the time that a server has to read it.
func (l *link) send(r protocol.Request) error {
	ctx, cancel := context.WithTimeout(l.ctx, sendTimeout)
	defer cancel()
	return l.conn.Send(ctx, r)
}

// fail ends the connection at once.
func (l *link) fail(err error) {
	l.because(err)
	_ = l.conn.CloseNow() // the cause is what counts
}

// giveUp ends the connection unless it has its welcome.
func (l *link) giveUp(err error) {
	if l.lasted() == 0 {
		l.fail(err)
	}
}

// leave ends the connection with a goodbye.
func (l *link) leave(err error) {
	l.do(func() {
		l.because(err)
		_ = l.conn.Close(protocol.CloseNormal, "") // the cause is what counts
	})
}

func (l *link) because(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause == nil {
		l.cause = err
	}
}

// ended says why the connection is over, given the error of reading it.
func (l *link) ended(err error) ending {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cause != nil {
		err = l.cause
	}
	e := ending{err: err}
	if !l.told.IsZero() {
		e.told = max(time.Until(l.told), 0)
	}
	if ce, ok := errors.AsType[*CloseError](err); ok {
		e.told = max(e.told, ce.RetryAfter())
	}
	return e
}

// close stops the clocks, ends the connection and waits for what still runs.
func (l *link) close() {
	l.mu.Lock()
	l.over = true
	for _, t := range []*time.Timer{l.silence, l.beat, l.move} {
		if t != nil {
			t.Stop()
		}
	}
	l.mu.Unlock()
	_ = l.conn.CloseNow() // it is over whatever this says
	l.running.Wait()
	close(l.done)
}
