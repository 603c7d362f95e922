package client

import (
	"context"
	"fmt"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// probeAnswer is how soon a beat must be answered after Wake.
	probeAnswer = 3 * time.Second
	// wakeGap is how far apart attempts are at least that Wake makes.
	wakeGap = time.Second
	// awakeFor is how long after Wake a loss is not waited for: longer than probeAnswer.
	awakeFor = 5 * time.Second
)

// errWoken says that an attempt gave way to another one because of Wake.
var errWoken = fmt.Errorf("%w: not connected yet when it was woken", ErrSilent)

// Wake tells the client that the network is back, or that the device was asleep. A
// connection that there is must answer a beat within 3 s, or the client comes back at
// once; an attempt that has been under way for a second is made anew; a wait for the
// next one is cut short, but not one that a server told. It never blocks.
func (c *Client) Wake() {
	c.mu.Lock()
	c.awakeUntil = time.Now().Add(awakeFor)
	l, abandon := c.link, c.abandon
	if time.Since(c.attemptAt) < wakeGap {
		abandon = nil
	}
	c.mu.Unlock()
	switch {
	case l != nil:
		l.probe(probeAnswer)
		return
	case abandon != nil:
		abandon()
	}
	select {
	case c.woken <- struct{}{}:
	default: // it has not noticed the last one yet
	}
}

// awake begins the row of failures anew if Wake was called since it last did. It tells
// whether that was a moment ago, and how long the next attempt must wait then.
func (c *Client) awake() (time.Duration, bool) {
	select {
	case <-c.woken:
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.awakeUntil.IsZero() {
		return 0, false
	}
	c.failures = 0
	lately := time.Now().Before(c.awakeUntil)
	c.awakeUntil = time.Time{}
	return max(0, time.Until(c.attemptAt.Add(wakeGap))), lately
}

// rest waits before the next attempt.
func (c *Client) rest(ctx context.Context, p pause) error {
	began := time.Now()
	t := time.NewTimer(p.wait)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-c.woken:
			c.mu.Lock()
			soonest := c.attemptAt.Add(wakeGap)
			c.mu.Unlock()
			p.wait = min(p.wait, max(p.told, soonest.Sub(began)))
			t.Reset(time.Until(began.Add(p.wait)))
		}
	}
}

// attempting notes when an attempt began, and how Wake can end it; nil: it is over.
func (c *Client) attempting(began time.Time, abandon func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.attemptAt, c.abandon = began, abandon
}

// Beat sends a beat now, if there is a connection: what Config.Watching tells has changed.
func (c *Client) Beat() {
	c.mu.Lock()
	l := c.link
	c.mu.Unlock()
	if l != nil {
		l.probe(beatAnswer)
	}
}

// watching is what is told of the viewer now; nil: nothing.
func (c *Client) watching() *protocol.BeatRequest {
	if c.cfg.Watching == nil {
		return nil
	}
	w := c.cfg.Watching()
	return &w
}
