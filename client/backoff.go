package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// maxRefusals is how many tokens in a row a server may refuse before the client gives
// up: more than one, because a node may learn of a new key a little later than others.
const maxRefusals = 3

// pause is a wait before the next attempt, of which a server told the first part.
type pause struct{ wait, told time.Duration }

// next says how long to wait before the next attempt, and whether one makes
// sense after that ending.
func (c *Client) next(e ending) (p pause, again bool) {
	if errors.Is(e.err, ErrStaleToken) {
		return pause{}, false
	}
	if ce, ok := errors.AsType[*CloseError](e.err); ok {
		if ce.Code.NeedsToken() && !c.renew(ce) || !ce.Code.ComesBack(ce.Reason) {
			return pause{}, false
		}
	}
	if forGood(e.err) && !c.strike() {
		return pause{}, false
	}
	wait, awake := c.awake()
	c.spare(e.err)
	if !awake {
		wait = jitter(c.window(c.failures))
		c.failures++
	}
	free := c.free()
	return pause{wait: max(e.told+wait, free), told: max(e.told, free)}, true
}

// renew has the next attempt come with another token than the one that was refused;
// false if there is none, or has been too often.
func (c *Client) renew(refusal *CloseError) bool {
	c.refusals++
	if c.cfg.Token == nil || c.refusals > maxRefusals {
		return false
	}
	c.refused, c.refusal, c.haveToken = c.token, refusal, false
	return true
}

// window is the longest wait after that many failures in a row. It is doubled each
// time that all addresses have failed.
func (c *Client) window(failures int) time.Duration {
	window := c.cfg.BackoffBase
	for range min(failures/len(c.cfg.URLs), 62) {
		if window > c.cfg.BackoffMax/2 {
			return c.cfg.BackoffMax
		}
		window *= 2
	}
	return min(window, c.cfg.BackoffMax)
}

// forGood reports whether what answers at an address is nothing to come back to: no
// Kansei, or one that will not have this request. Another address may be another thing.
func forGood(err error) bool {
	if re, ok := errors.AsType[*RefusedError](err); ok {
		return !re.Temporary()
	}
	return errors.Is(err, ErrSubprotocol)
}

// jitter is a random time below window: clients that lost the same node at once
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
