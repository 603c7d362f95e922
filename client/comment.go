package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// refWindow is how long after its first sending a request may be sent again: two
	// minutes are promised from when the server took it, less its time to append.
	refWindow = 100 * time.Second
	// answerTimeout is longer than a server takes to answer that the outcome is
	// unknown, 12 s.
	answerTimeout = 20 * time.Second
	// againBase and againMax bound the waits before a comment is sent again.
	againBase, againMax = 500 * time.Millisecond, 4 * time.Second
)

// Comment publishes a comment and returns its id once it is in the room's log. A
// ref is made if there is none. When the connection is lost, or the server says
// unavailable or unknown_outcome, the same request is sent again, until ctx ends;
// it is in the log at most once. Comments that have waited for a connection are sent as fast
// as the server takes them, and those that arrive meanwhile behind them.
//
// A refusal is a *[protocol.Error], also of what no server would take, which is not sent. So is, with unknown_outcome, the end of ctx
// or of the client while the comment may or may not have been published; the
// error then wraps that end too.
func (c *Client) Comment(ctx context.Context, req protocol.CommentRequest) (id string, err error) {
	if req.Ref == "" {
		req.Ref = rand.Text()
	}
	if err := check(&req); err != nil {
		return "", err
	}
	answers := make(chan protocol.Message, 1)
	c.mu.Lock()
	_, taken := c.pending[req.Ref]
	if !taken {
		c.pending[req.Ref] = answers
	}
	c.mu.Unlock()
	if taken {
		return "", fmt.Errorf("client: ref %q is being waited for already", req.Ref)
	}
	defer func() {
		c.mu.Lock()
		delete(c.pending, req.Ref)
		c.mu.Unlock()
	}()
	return (&commenting{c: c, req: &req, answers: answers}).run(ctx)
}

// commenting is one comment under way.
type commenting struct {
	c       *Client
	req     *protocol.CommentRequest
	answers <-chan protocol.Message

	// Of the first sending since which it may be in the log; zero when it cannot be.
	since   time.Time
	session string
	// doubt says that a sending before the last one may have reached the log.
	doubt bool
	// waited says that it was made before the connection that it is sent on, or behind
	// one that was: that the server takes no more at the moment is no answer then.
	waited bool
}

func (m *commenting) run(ctx context.Context) (string, error) {
	var last *link
	for attempt := 0; ; attempt++ {
		l, err := m.link(ctx, last)
		if err != nil {
			return "", m.failed(err)
		}
		last = l
		// Another session, or a later time, would make it another comment.
		if m.sent() && (l.session != m.session || since(m.since) > refWindow) {
			return "", m.unknown("it cannot be repeated any more")
		}
		if err := fits(m.req, l.within()); err != nil {
			if m.sent() {
				return "", m.unknown("this server does not take it")
			}
			return "", err
		}
		if !m.sent() {
			m.since, m.session = time.Now(), l.session
		}
		// An error is the end of the connection, or of its peer's reading: either is
		// waited for like an answer.
		_ = l.send(m.req)
		answer, err := waitFor(ctx, m.answers, l)
		if err != nil {
			return "", m.failed(err)
		}
		switch a := answer.(type) {
		case *protocol.OK:
			return a.ID, nil
		case *protocol.Error:
			if err := m.refused(a); err != nil {
				return "", err
			}
			told := time.Duration(min(a.RetryMS, maxTold.Milliseconds())) * time.Millisecond
			if err := sleep(ctx, told+jitter(min(againBase<<min(attempt, 10), againMax))); err != nil {
				return "", m.failed(err)
			}
		case nil:
			m.doubt = true
		}
	}
}

// link waits for a connection to send on, and for its turn among the comments that have waited
// for that one. last is the connection on which it was sent before, if it was.
func (m *commenting) link(ctx context.Context, last *link) (*link, error) {
	for {
		l, waited, err := m.c.welcomedLink(ctx)
		if err != nil {
			return nil, err
		}
		if waited || last != nil && last != l || l.behind.Load() > 0 {
			m.waited = true
		}
		if !m.waited || l == last {
			return l, nil
		}
		l.behind.Add(1)
		wait := l.pace.Reserve().Delay()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-l.done:
		case <-ctx.Done():
		}
		t.Stop()
		l.behind.Add(-1)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !isDone(l) {
			return l, nil
		}
	}
}

func isDone(l *link) bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// since is how long ago t was by the clock that goes on while the device sleeps, or by
// the one that nobody sets back, whichever says more.
func since(t time.Time) time.Duration {
	now := time.Now()
	return max(now.Sub(t), now.Round(0).Sub(t.Round(0)))
}

// refused is the error that a refusal ends the comment with; nil if it may be sent again.
func (m *commenting) refused(a *protocol.Error) error {
	switch a.Code {
	case protocol.CodeUnknownOutcome:
		m.doubt = true
		return nil
	case protocol.CodeUnavailable:
		if !m.doubt {
			m.since = time.Time{} // known not to be in the log
		}
		return nil
	case protocol.CodeBadMessage, protocol.CodeUnsupported, protocol.CodeTooLong, protocol.CodeEmpty:
		return a // as it was, or would have been, the time before
	}
	switch {
	case a.Code.Retry() && (m.doubt || m.waited):
		if !m.doubt {
			m.since = time.Time{} // known not to be in the log
		}
		return nil
	case !m.doubt:
		return a
	}
	// It was refused this time; the time before it may have been taken.
	return fmt.Errorf("%w: %w", m.unknown("it may have been published"), a)
}

// waitFor waits for the answer to what was sent over a link; none without an error means to send again.
// An answer that has been read counts, whatever has ended beside it.
func waitFor(ctx context.Context, answers <-chan protocol.Message, l *link) (protocol.Message, error) {
	t := time.NewTimer(answerTimeout)
	defer t.Stop()
	var err error
	select {
	case a := <-answers:
		return a, nil
	case <-l.done:
	case <-t.C:
		l.probe(beatAnswer) // perhaps nobody is there any more
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	select {
	case a := <-answers:
		return a, nil
	default:
		return nil, err
	}
}

func (m *commenting) sent() bool { return !m.since.IsZero() }

// failed is the error of a comment that err ended.
func (m *commenting) failed(err error) error {
	if !m.sent() {
		return fmt.Errorf("client: comment not sent: %w", err)
	}
	return fmt.Errorf("%w: %w", m.unknown("it may have been published"), err)
}

func (m *commenting) unknown(why string) error {
	return &protocol.Error{Ref: m.req.Ref, Code: protocol.CodeUnknownOutcome, Message: why}
}

// welcomedLink waits for a connection to send on. It reports whether there was none yet.
func (c *Client) welcomedLink(ctx context.Context) (l *link, waited bool, err error) {
	for ; ; waited = true {
		c.mu.Lock()
		l, changed, end := c.link, c.changed, c.end
		c.mu.Unlock()
		switch {
		case end != nil:
			return nil, waited, fmt.Errorf("%w: %w", ErrEnded, end)
		case ctx.Err() != nil:
			return nil, waited, context.Cause(ctx)
		case l != nil:
			return l, waited, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// answer hands an answer to the comment that waits for it.
func (c *Client) answer(ref string, m protocol.Message) bool {
	c.mu.Lock()
	answers, ok := c.pending[ref]
	c.mu.Unlock()
	if !ok {
		return false
	}
	select {
	case answers <- m:
	default: // a repeated request has two answers, and one is enough
	}
	return true
}
