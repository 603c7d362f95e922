package client

import (
	"errors"
	"time"
)

// leftFor is how long a node that told when to leave it is not asked again.
const leftFor = 10 * time.Second

// addresses are those of the nodes, by their number in Config.URLs. They are asked in
// turn, but one that has named a time not before it.
type addresses struct {
	current int // of the last attempt; -1 before the first
	home    int // of the last welcome
	spared  []time.Time
}

func newAddresses(n int) addresses {
	return addresses{current: -1, spared: make([]time.Time, n)}
}

// turn goes on to the next address that may be asked; false if none may.
func (a *addresses) turn() bool {
	now := time.Now()
	for k := 1; k <= len(a.spared); k++ {
		if i := (a.current + k) % len(a.spared); !a.spared[i].After(now) {
			a.current = i
			return true
		}
	}
	return false
}

// free is how long it is until any address may be asked.
func (a *addresses) free() time.Duration {
	first := a.spared[0]
	for _, t := range a.spared[1:] {
		if t.Before(first) {
			first = t
		}
	}
	return max(0, time.Until(first))
}

// arrive says that the address whose turn it is has sent a welcome.
func (a *addresses) arrive() {
	a.home = a.current
	a.spared[a.home] = time.Time{}
}

// leave says that the node that the client is at wants to be left after d: for another
// one, if there is one.
func (a *addresses) leave(d time.Duration) {
	if len(a.spared) > 1 {
		a.spared[a.home] = time.Now().Add(d + leftFor)
	}
}

// spare keeps the address of the last attempt from being asked before the time that it
// told when it refused.
func (c *Client) spare(err error) {
	if re, ok := errors.AsType[*RefusedError](err); ok && re.RetryAfter > 0 {
		c.spared[c.current] = time.Now().Add(re.RetryAfter + jitter(c.window(c.failures)))
	}
}
