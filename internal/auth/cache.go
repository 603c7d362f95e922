package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	// cacheFor is how long a token is remembered whose signature took a public key: that takes
	// 30 to 100 times as long as everything else about it. Whoever polls or comes back at once
	// has the same one.
	cacheFor = 5 * time.Second
	// cacheSize bounds each of two halves of a cache: some 10 MiB in all.
	cacheSize = 8192
)

// cache remembers tokens that hold, for seconds. It has two halves: the older one is dropped
// when the newer one is full or old, so that nothing need be looked for to be forgotten.
type cache struct {
	mu         sync.Mutex
	of         *keySet // whose tokens they are; with other keys nothing is remembered
	began      time.Time
	now, older map[[sha256.Size]byte]remembered
}

// remembered is what a token says.
type remembered struct {
	Claims
	until time.Time
}

// get returns what a token says that is remembered, and holds.
func (c *cache) get(keys *keySet, t *sealed, now time.Time) (Claims, bool) {
	if t.alg == "HS256" {
		return Claims{}, false
	}
	id := sha256.Sum256([]byte(t.token))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of != keys {
		return Claims{}, false
	}
	r, ok := c.now[id]
	if !ok {
		r, ok = c.older[id]
	}
	return r.Claims, ok && now.Before(r.until)
}

// put remembers what a token says.
func (c *cache) put(keys *keySet, t *sealed, said Claims, now time.Time) {
	id := sha256.Sum256([]byte(t.token))
	until := now.Add(cacheFor)
	if said.Until.Before(until) {
		until = said.Until
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.of != keys:
		c.of, c.began, c.now, c.older = keys, now, map[[sha256.Size]byte]remembered{}, nil
	case len(c.now) >= cacheSize || now.Sub(c.began) > cacheFor:
		c.began, c.now, c.older = now, map[[sha256.Size]byte]remembered{}, c.now
	}
	c.now[id] = remembered{said, until}
}
