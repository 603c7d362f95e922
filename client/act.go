package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Act does an act of a moderator, or of a user about themselves (take back a comment, acknowledge a
// warning), and returns when it is in force. A ref is made if there is none. When the connection is
// lost, or the server says unavailable or unknown_outcome, the same request is sent again, until ctx
// ends: it is one act.
//
// A refusal is a *[protocol.Error]. So is, with unknown_outcome, the end of ctx or of the client while the
// act may or may not be done.
func (c *Client) Act(ctx context.Context, req protocol.ActRequest) (protocol.ActDone, error) {
	if req.Ref == "" {
		req.Ref = rand.Text()
	}
	if _, err := protocol.DecodeAct(protocol.EncodeRequest(&req)); err != nil {
		return protocol.ActDone{}, err
	}
	ok, err := c.request(ctx, req.Ref, &req)
	if err != nil {
		return protocol.ActDone{}, err
	}
	return protocol.ActDone{Act: ok.Act, Cursor: ok.Cursor}, nil
}

// Set changes the room's state: patch is an object with the fields that are to change, null for those
// that are to go. rev is the revision that the state must have; 0: any. It returns the new one. Of a
// conflict the *[protocol.Error] has the state as it is. It is sent again as an act is.
func (c *Client) Set(ctx context.Context, rev uint64, patch any) (uint64, error) {
	p, err := json.Marshal(patch)
	if err != nil {
		return 0, fmt.Errorf("client: patch: %w", err)
	}
	req := &protocol.SetRequest{Ref: rand.Text(), State: p}
	if rev > 0 {
		req.Rev = &rev
	}
	if _, err := protocol.DecodePatch(p); err != nil {
		return 0, err
	}
	ok, err := c.request(ctx, req.Ref, req)
	if err != nil {
		return 0, err
	}
	return ok.Rev, nil
}

// Event publishes an event of the application, and returns its id once it is in the room's log. A ref is
// made if there is none. It is sent again as an act is: it is one event.
func (c *Client) Event(ctx context.Context, req protocol.EventRequest) (id string, err error) {
	if req.Ref == "" {
		req.Ref = rand.Text()
	}
	if req.Data != nil && !json.Valid(req.Data) {
		return "", &protocol.Error{Ref: req.Ref, Code: protocol.CodeBadMessage, Message: "data is not JSON"}
	}
	if _, err := protocol.DecodeRequest(protocol.EncodeRequest(&req)); err != nil {
		return "", err
	}
	ok, err := c.request(ctx, req.Ref, &req)
	if err != nil {
		return "", err
	}
	return ok.ID, nil
}

// request sends a request that is safe to repeat, until it is answered.
func (c *Client) request(ctx context.Context, ref string, req protocol.Request) (*protocol.OK, error) {
	answers := make(chan protocol.Message, 1)
	c.mu.Lock()
	_, taken := c.pending[ref]
	if !taken {
		c.pending[ref] = answers
	}
	c.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("client: ref %q is being waited for already", ref)
	}
	defer func() {
		c.mu.Lock()
		delete(c.pending, ref)
		c.mu.Unlock()
	}()
	var (
		first   time.Time // when it was sent first
		session string
		doubt   bool // a sending may have been taken
	)
	unknown := func(why string, err error) error {
		e := &protocol.Error{Ref: ref, Code: protocol.CodeUnknownOutcome, Message: why}
		if err == nil {
			return e
		}
		return fmt.Errorf("%w: %w", e, err)
	}
	for attempt := 0; ; attempt++ {
		l, _, err := c.welcomedLink(ctx)
		switch {
		case err != nil && doubt:
			return nil, unknown("it may have been done", err)
		case err != nil:
			return nil, fmt.Errorf("client: request not sent: %w", err)
		case doubt && (l.session != session || since(first) > refWindow):
			return nil, unknown("it cannot be repeated any more", nil)
		case first.IsZero() || !doubt:
			first, session = time.Now(), l.session
		}
		_ = l.send(req) // an error is the end of the connection, which is waited for like an answer
		answer, err := waitFor(ctx, answers, l)
		if err != nil {
			return nil, unknown("it may have been done", err)
		}
		told := time.Duration(0)
		switch a := answer.(type) {
		case *protocol.OK:
			return a, nil
		case *protocol.Error:
			switch {
			case a.Code == protocol.CodeUnknownOutcome:
				doubt = true
			case a.Code == protocol.CodeUnavailable, a.Code.Retry() && doubt:
			case doubt:
				return nil, unknown("it may have been done", a)
			default:
				return nil, a
			}
			told = time.Duration(min(a.RetryMS, maxTold.Milliseconds())) * time.Millisecond
		case nil:
			doubt = true
		}
		if err := sleep(ctx, told+jitter(min(againBase<<min(attempt, 10), againMax))); err != nil {
			if doubt {
				return nil, unknown("it may have been done", err)
			}
			return nil, fmt.Errorf("client: request not done: %w", err)
		}
	}
}
