package natslog

import (
	"context"
	"errors"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// A NATS server refuses what a user may not do without an answer: the connection reports a
// violation some time later, in a text that names the subject. So whoever needs an answer
// would wait until its time is over, and nobody would know before the first comment. Hence
//
//   - a request whose subject is reported fails at once (caller.refused), and so do appends
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

// permissionError says what this node's user may not do.
type permissionError struct {
	subscribe bool   // or publish
	subjects  string // as they are granted
}

// Error implements error.
func (e *permissionError) Error() string {
	what := "publish to "
	if e.subscribe {
		what = "subscribe to "
	}
	return "this account may not " + what + e.subjects + ": grant it to the node's NATS user (OPERATING.md, \"Permissions\")"
}

// violationText takes apart what a server says of a violation: it has no other form.
var violationText = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]*)"`)

// violation is what a server has refused.
type violation struct {
	subscribe bool
	subject   string
}

func parseViolation(err error) (v violation, ok bool) {
	m := violationText.FindStringSubmatch(err.Error())
	if m == nil {
		return v, false
	}
	return violation{strings.EqualFold(m[1], "subscription"), m[2]}, true
}

// violated is told of a violation that the connection reports.
func (l *Log) violated(err error) {
	l.metrics.failed(opPermission)
	v, ok := parseViolation(err)
	if !ok {
		l.quiet.Log(slog.LevelWarn, "NATS refuses something to this node's user", err.Error(), "error", err)
		return
	}
	for _, inbox := range []string{l.caller.inbox, l.appender.inbox} {
		if v.subscribe && v.subject == inbox+"*" {
			l.denyInbox(&permissionError{true, naming{l.cfg.Prefix}.inboxes()})
			return
		}
	}
	s, denied := l.named(v)
	if s == nil {
		l.quiet.Log(slog.LevelWarn, "NATS refuses something to this node's user", v.subject, "error", err)
		return
	}
	s.deny(denied)
	if !v.subscribe {
		l.caller.refused(v.subject, denied)
		l.appender.violated(v.subject, denied)
	}
}

// named finds the stream that a violation is about, and the permission that is missing.
func (l *Log) named(v violation) (*stream, *permissionError) {
	for _, s := range l.streams() {
		switch {
		case v.subscribe:
			if s.isLive(v.subject) {
				return s, s.mayNotHear()
			}
		case strings.HasPrefix(v.subject, s.subjects):
			return s, s.mayNotWrite()
		case strings.HasSuffix(v.subject, "."+s.name):
			return s, &permissionError{false, v.subject}
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

func (s *stream) mayNotWrite() *permissionError { return &permissionError{false, s.subjects + ">"} }

// mayNotHear names the subjects of every epoch: whoever grants them does not know any.
func (s *stream) mayNotHear() *permissionError {
	return &permissionError{true, s.liveSubjects("*") + ">"}
}

// denial is a permission that is missing.
type denial struct {
	*permissionError
	unheard bool // subscriptions were refused, and are missing until the connection is made anew
}

// deny remembers that a permission is missing.
func (s *stream) deny(e *permissionError) {
	d := denial{e, e.subscribe}
	s.mu.Lock()
	i := slices.IndexFunc(s.denied, func(o denial) bool { return *o.permissionError == *e })
	if i >= 0 {
		s.denied[i].unheard = d.unheard
	} else {
		s.denied = append(s.denied, d)
	}
	if i < 0 && *e == *s.mayNotWrite() {
		s.mute.Store(e)
	}
	s.mu.Unlock()
	s.unproven.Store(true)
	if i < 0 {
		s.l.quiet.Log(slog.LevelWarn, "NATS refuses this node's user what it needs: "+means(e, s), e.subjects,
			"error", e, "stream", s.name)
	}
}

// means is what it means for users that a permission is missing.
func means(e *permissionError, s *stream) string {
	switch {
	case e.subscribe:
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
	if !s.unproven.Load() || time.Since(s.tried) < proveEvery && s.triedOn == s.l.connections.Load() {
		return
	}
	s.unproven.Store(false)
	s.l.caller.forgive()
	s.tried, s.triedOn = time.Now(), s.l.connections.Load()
	var (
		mu      sync.Mutex
		missing []*permissionError
		silent  bool // something was not answered
		all     sync.WaitGroup
	)
	try := func(f func() error) {
		// Ends with its request; prove waits for it.
		all.Go(func() {
			err := f()
			mu.Lock()
			defer mu.Unlock()
			if e, ok := errors.AsType[*permissionError](err); ok {
				missing = append(missing, e)
			} else if err != nil && !errors.Is(err, errNoResponders) { // who is told of nobody was let through
				silent = true
			}
		})
	}
	try(func() error { _, err := s.leaderLast(ctx, probeToken); return err })
	try(func() error { _, err := s.directGet(ctx, probeToken, 1, nil, 1); return err })
	try(func() error { return s.tryWrite(ctx) })
	if epoch != "" {
		try(func() error { return s.l.tryHear(s.liveSubjects(epoch)+probeToken, s.mayNotHear()) })
	}
	all.Wait()
	if ctx.Err() != nil || s.triedOn != s.l.connections.Load() || !s.l.connected.Load() {
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
func (s *stream) granted(missing []*permissionError, silent bool) {
	unheard, muted := false, false
	s.mu.Lock()
	before := len(s.denied)
	s.denied = slices.DeleteFunc(s.denied, func(d denial) bool {
		if silent || slices.ContainsFunc(missing, func(e *permissionError) bool { return *e == *d.permissionError }) {
			return false
		}
		unheard = unheard || d.unheard
		if d.permissionError == s.mute.Load() {
			s.mute.Store(nil)
			muted = true
		}
		return true
	})
	after := len(s.denied)
	s.mu.Unlock()
	if before > 0 && after == 0 {
		s.l.quiet.Log(slog.LevelInfo, "NATS permits this node's user what it needs again", s.name, "stream", s.name)
	}
	if muted {
		s.l.appender.resend()
	}
	if unheard {
		s.l.resubscribe()
	}
}

// tryWrite publishes a message that no stream stores.
func (s *stream) tryWrite(ctx context.Context) error {
	m := &nats.Msg{Subject: s.subjects + probeToken, Header: nats.Header{nats.ExpectedStreamHdr: {noStream}}}
	return s.l.caller.askWith(ctx, opProbe, m, 1, func(*nats.Msg) bool { return false })
}

// tryHear subscribes to a subject for a moment. It returns may if that is not permitted.
func (l *Log) tryHear(subject string, may *permissionError) error {
	nc := l.nc.Load()
	if nc == nil || !l.connected.Load() {
		return errNotConnected
	}
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		return err
	}
	defer func() {
		if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			l.metrics.failed(opSubscribe)
		}
	}()
	// A violation comes before the answer to the flush.
	if err := nc.FlushTimeout(l.cfg.RequestTimeout); err != nil {
		return err
	}
	if _, err := sub.NextMsg(time.Millisecond); errors.Is(err, nats.ErrPermissionViolation) {
		return may
	}
	return nil
}

// denyInbox is told that no answers can come: nothing works without them.
func (l *Log) denyInbox(e *permissionError) {
	if l.deaf.Swap(e) == nil {
		l.quiet.Log(slog.LevelWarn, "NATS refuses this node's user what it needs: no answer of NATS reaches the node; comments are neither taken nor shown",
			e.subjects, "error", e)
	}
	l.caller.refuseAll()
}

// tryInbox looks whether answers can come again, if they could not. One goroutine calls it.
func (l *Log) tryInbox() error {
	e := l.deaf.Load()
	if e == nil {
		return nil
	}
	if time.Since(l.listened) < proveEvery {
		return e
	}
	l.listened = time.Now()
	if err := l.tryHear(l.caller.inbox+"*", e); err != nil {
		return err
	}
	l.deaf.CompareAndSwap(e, nil)
	l.log.Info("NATS permits this node's user what it needs again", "subjects", e.subjects)
	l.resubscribe()
	return nil
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
	if nc := l.nc.Load(); nc != nil {
		if err := nc.ForceReconnect(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			l.metrics.failed(opConnect)
		}
	}
}
