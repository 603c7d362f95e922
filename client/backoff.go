package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// next says how long to wait before the next attempt, and whether one makes
// sense after that ending. It turns to the next address.
func (c *Client) next(e ending) (wait time.Duration, again bool) {
	told := e.told
	if errors.Is(e.err, ErrSubprotocol) || errors.Is(e.err, ErrStaleToken) {
		return 0, false
	}
	if ce, ok := errors.AsType[*CloseError](e.err); ok {
		switch {
		case ce.Code.NeedsToken():
			if c.cfg.Token == nil {
				return 0, false
			}
			c.refused, c.refusal, c.haveToken = c.token, ce, false
		case !ce.Code.Reconnect():
			return 0, false
		}
	}
	if re, ok := errors.AsType[*RefusedError](e.err); ok {
		if !re.Temporary() {
			return 0, false
		}
		told = max(told, re.RetryAfter)
	}
	told += jitter(c.window(c.failures))
	c.failures++
	c.address = (c.address + 1) % len(c.cfg.URLs)
	return told, true
}

// window is the longest wait after that many failures in a row.
func (c *Client) window(failures int) time.Duration {
	return min(c.cfg.BackoffBase<<min(failures, 20), c.cfg.BackoffMax)
}

// jitter is a random time below window: those who lost the same node at once
// must not come back at once.
func jitter(window time.Duration) time.Duration {
	return time.Duration(rand.Int64N(max(int64(window), 1)))
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
