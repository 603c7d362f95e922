package watchlog

import (
	"sync"
	"time"
)

// pauses knows when the node stood still: what it notices right behind that has happened meanwhile, nobody knows when.
type pauses struct {
	mu       sync.Mutex
	at       time.Time // of the last tick
	tick     int64     // the same by the log's clock
	from, to int64     // the last pause, from its last tick to the next one
}

// pausedFor is for how long behind a pause, at most, the end of a connection counts as having come in it, and a beat as having been sent
// in it: the kernel tells of all that it has heard at once, but there may be many. It is no longer than the pause was.
const pausedFor = 15_000

// behind reports whether a moment is so soon behind the last pause that what is heard then may be of it. p.mu is held.
func (p *pauses) behind(now int64) bool {
	return p.to > 0 && now <= p.to+min(pausedFor, p.to-p.from)
}

// proves reports whether a beat that is heard now proves that its viewer is there now.
func (p *pauses) proves(v *View, now int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notice(now)
	return !p.behind(now) || v.from >= p.to
}

// ticked is told of every tick, before anything is done in it.
func (p *pauses) ticked(now int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notice(now)
	p.at, p.tick = time.Now(), now
}

// notice notes a pause, if the next tick is late by now. p.mu is held.
func (p *pauses) notice(now int64) {
	if !p.at.IsZero() && time.Since(p.at) > pauseLimit {
		p.from, p.to = p.tick, now
	}
}

// last is the last moment at which a viewer was there for sure who is found to be gone now.
func (p *pauses) last(v *View, now int64, silence time.Duration) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notice(now)
	at := now - silence.Milliseconds()
	switch {
	case p.to == 0 || v.from >= p.to || v.beat >= p.to: // it came later, or was heard since
		return at
	case silence > 0 && at-(p.to-p.from) <= p.from: // time stood still, so its silence was longer
		return max(v.beat, at-(p.to-p.from))
	case p.behind(now):
		return max(v.beat, p.from)
	}
	return at
}
