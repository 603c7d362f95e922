package client

import (
	"errors"
	"math"
	"slices"
	"time"
)

// leftFor is how long after the time that a node told to leave it, it is asked only if
// there is no other.
const leftFor = 10 * time.Second

// addresses are those of the nodes, by their number in Config.URLs. They are asked in
// turn, but one that has named a time not before it.
type addresses struct {
	current   int // of the last attempt; -1 before the first
	home      int // of the last welcome
	left      int // of the node that wants to be left, until leftUntil
	leftUntil time.Time
	spared    []time.Time
	struck    []bool // those that have refused for good since the last welcome
}

func newAddresses(n int) addresses {
	return addresses{current: -1, spared: make([]time.Time, n), struck: make([]bool, n)}
}

// next goes on to the next address that may be asked; false if none may.
func (a *addresses) next() bool {
	now, found := time.Now(), -1
	for k := len(a.spared); k >= 1; k-- {
		i := (a.current + k) % len(a.spared)
		if a.struck[i] || a.spared[i].After(now) {
			continue
		}
		if found < 0 || i != a.left || !now.Before(a.leftUntil) {
			found = i
		}
	}
	if found < 0 {
		return false
	}
	a.current = found
	return true
}

// free is how long it is until any address may be asked.
func (a *addresses) free() time.Duration {
	first := time.Duration(math.MaxInt64)
	for i, t := range a.spared {
		if !a.struck[i] {
			first = min(first, time.Until(t))
		}
	}
	return max(0, first)
}

// strike leaves out the address of the last attempt, which has refused for good, and
// reports whether there is another.
func (a *addresses) strike() bool {
	a.struck[a.current] = true
	return slices.Contains(a.struck, false)
}

// arrive says that the address whose turn it is has sent a welcome.
func (a *addresses) arrive() {
	a.home = a.current
	a.spared[a.home] = time.Time{}
	clear(a.struck) // what was wrong with the others may have been mended by the time they are needed
}

// leave says that the node that the client is at wants to be left after d.
func (a *addresses) leave(d time.Duration) {
	a.left, a.leftUntil = a.home, time.Now().Add(d+leftFor)
}

// spare keeps the address of the last attempt from being asked before the time that it
// told when it refused.
func (c *Client) spare(err error) {
	if re, ok := errors.AsType[*RefusedError](err); ok && re.RetryAfter > 0 {
		c.spared[c.current] = time.Now().Add(re.RetryAfter + jitter(c.window(c.failures)))
	}
}
