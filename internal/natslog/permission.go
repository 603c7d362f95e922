package natslog

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// A NATS server refuses what a user may not do without an answer: the connection reports a
// violation some time later, in a text that names the subject. So a caller that needs an answer
// would wait until its time is over, and nobody would know before the first comment. Hence
//
//   - a request whose subject is reported fails at once (natsconn.Conn.Refuse), and so do appends
//     whose tries were all refused (appender.violated);
//   - whenever there is a new connection, everything that a stream is used for is tried, in
//     ways that change nothing (stream.prove);
//   - what was found missing is remembered, named by Log.Ready, and tried again until it is
//     there. While a stream may not be written to, appends to it are refused at once.

const (
	// proveEvery is how often permissions that are missing are tried again: each try is a
	// line in the log of the server.
	proveEvery = 5 * time.Second
	// probeToken stands for a room in the subjects that are tried. It is no room's name.
	probeToken = "_probe"
	// noStream is no stream's name. A message that bears it as the name of the stream that
	// it is meant for is refused by every stream, and stored by none.
	noStream = "kansei.probe"
)

// violated is told of a violation that the connection reports, and reports whether it is of
// something that the log needs.
func (l *Log) violated(v natsconn.Violation, _ error) bool {
	s, denied := l.named(v)
	if s == nil {
		return l.table.violated(v) || l.days.violated(v) || l.modlog.violated(v) || l.watch.violated(v) || l.archive.violated(v)
	}
	s.deny(denied)
	if !v.Subscribe {
		l.conn.Refuse(v.Subject, denied)
		l.appender.violated(v.Subject, denied)
	}
	return true
}

// named finds the stream that a violation is about, and the permission that is missing.
func (l *Log) named(v natsconn.Violation) (*stream, *natsconn.PermissionError) {
	for _, s := range l.streams() {
		switch {
		case v.Subscribe:
			if s.isLive(v.Subject) {
				return s, s.mayNotHear()
			}
		case strings.HasPrefix(v.Subject, s.subjects):
			return s, s.mayNotWrite()
		case strings.HasSuffix(v.Subject, "."+s.name):
			return s, &natsconn.PermissionError{Subscribe: false, Subjects: v.Subject}
		}
	}
	return nil, nil
}

// isLive reports whether a subject is of the stream's live records, of any epoch.
func (s *stream) isLive(subject string) bool {
	before, behind, _ := strings.Cut(s.liveSubjects("*"), "*")
	rest, ok := strings.CutPrefix(subject, before)
	_, room, more := strings.Cut(rest, ".")
	return ok && more && strings.HasPrefix("."+room, behind)
}

func (s *stream) mayNotWrite() *natsconn.PermissionError {
	return &natsconn.PermissionError{Subscribe: false, Subjects: s.subjects + ">"}
}

// mayNotHear names the subjects of every epoch: the operator who grants them does not know any.
func (s *stream) mayNotHear() *natsconn.PermissionError {
	return &natsconn.PermissionError{Subscribe: true, Subjects: s.liveSubjects("*") + ">"}
}

// denial is a permission that is missing.
type denial struct {
	*natsconn.PermissionError
	unheard bool // subscriptions were refused, and are missing until the connection is made anew
}

// deny remembers that a permission is missing.
func (s *stream) deny(e *natsconn.PermissionError) {
	d := denial{e, e.Subscribe}
	s.mu.Lock()
	i := slices.IndexFunc(s.denied, func(o denial) bool { return *o.PermissionError == *e })
	if i >= 0 {
		s.denied[i].unheard = d.unheard
	} else {
		s.denied = append(s.denied, d)
	}
	if i < 0 && *e == *s.mayNotWrite() {
		s.unwritable.Store(e)
	}
	s.mu.Unlock()
	s.unproven.Store(true)
	if i < 0 {
		s.l.quiet.Log(slog.LevelWarn, "NATS refuses this node's user what it needs: "+means(e, s), e.Subjects,
			"error", e, "stream", s.name)
	}
}

// means is what it means for users that a permission is missing.
func means(e *natsconn.PermissionError, s *stream) string {
	switch {
	case e.Subscribe:
		return "what is said is shown some seconds late"
	case *e == *s.mayNotWrite() && s.isState():
		return "the states of rooms cannot be changed"
	case *e == *s.mayNotWrite():
		return "comments are not taken"
	}
	return "rooms may not be opened, nor followed"
}

// missing is the error of the permissions that are missing; nil when none is.
// s.mu is held.
func (s *stream) missing() error {
	errs := make([]string, len(s.denied))
	for i, d := range s.denied {
		errs[i] = d.Error()
	}
	if len(errs) == 0 {
		return nil
	}
	return errors.New(strings.Join(errs, "; "))
}

// prove finds out what this node's user may do with a stream of that epoch, if that is not
// known. Nothing is changed by it: the requests are for a room that cannot be, and the
// message to it is for a stream that cannot be. It looks for permissions that are missing
// alone; whatever else is wrong is found by what it is needed for.
func (s *stream) prove(ctx context.Context, epoch string) {
	if !s.unproven.Load() || time.Since(s.tried) < proveEvery && s.triedOn == s.l.conn.Connections() {
		return
	}
	s.unproven.Store(false)
	s.l.conn.Forgive()
	s.tried, s.triedOn = time.Now(), s.l.conn.Connections()
	var (
		mu      sync.Mutex
		missing []*natsconn.PermissionError
		silent  bool // something was not answered
		all     sync.WaitGroup
	)
	try := func(f func() error) {
		// Ends with its request; prove waits for it.
		all.Go(func() {
			err := f()
			mu.Lock()
			defer mu.Unlock()
			if e, ok := errors.AsType[*natsconn.PermissionError](err); ok {
				missing = append(missing, e)
			} else if err != nil && !errors.Is(err, natsconn.ErrNoResponders) { // who is told of nobody was let through
				silent = true
			}
		})
	}
	try(func() error { _, err := s.leaderLast(ctx, probeToken); return err })
	try(func() error { _, err := s.directGet(ctx, probeToken, 1, nil, 1); return err })
	try(func() error { return s.tryWrite(ctx) })
	if epoch != "" {
		try(func() error { return s.l.conn.TryHear(s.liveSubjects(epoch)+probeToken, s.mayNotHear()) })
	}
	all.Wait()
	if ctx.Err() != nil || s.triedOn != s.l.conn.Connections() || !s.l.conn.Connected() {
		s.unproven.Store(true) // of another connection
		return
	}
	for _, e := range missing {
		s.deny(e)
	}
	if silent {
		s.unproven.Store(true)
	}
	s.granted(missing, silent)
}

// granted forgets the permissions that were missing and are there.
func (s *stream) granted(missing []*natsconn.PermissionError, silent bool) {
	unheard, writable := false, false
	s.mu.Lock()
	before := len(s.denied)
	s.denied = slices.DeleteFunc(s.denied, func(d denial) bool {
		if silent || slices.ContainsFunc(missing, func(e *natsconn.PermissionError) bool { return *e == *d.PermissionError }) {
			return false
		}
		unheard = unheard || d.unheard
		if d.PermissionError == s.unwritable.Load() {
			s.unwritable.Store(nil)
			writable = true
		}
		return true
	})
	after := len(s.denied)
	s.mu.Unlock()
	if before > 0 && after == 0 {
		s.l.quiet.Log(slog.LevelInfo, "NATS permits this node's user what it needs again", s.name, "stream", s.name)
	}
	if writable {
		s.l.appender.resend()
	}
	if unheard {
		s.l.resubscribe()
	}
}

// tryWrite publishes a message that no stream stores.
func (s *stream) tryWrite(ctx context.Context) error {
	m := &nats.Msg{Subject: s.subjects + probeToken, Header: nats.Header{nats.ExpectedStreamHdr: {noStream}}}
	return s.l.conn.AskWith(ctx, opProbe, m, 1, func(*nats.Msg) bool { return false })
}

// resubscribe has the connection made anew, and with it every subscription: those that
// were refused are not there, whatever is permitted since. Once does for all streams.
func (l *Log) resubscribe() {
	for _, s := range l.streams() {
		s.mu.Lock()
		for i := range s.denied {
			s.denied[i].unheard = false
		}
		s.mu.Unlock()
	}
	l.conn.Reconnect()
}
