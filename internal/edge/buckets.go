package edge

import (
	"math"
	"time"
)

// bucket is a token bucket that is told its rate each time, so that it is small. Times
// are those of a clock that is never set: how long ago a registry began.
type bucket struct {
	tokens float32
	at     time.Duration // when tokens was right
}

// fullBucket is full at any rate.
func fullBucket() bucket { return bucket{tokens: math.MaxFloat32} }

// take takes one token. If there is none it returns after what time there will be
// one.
func (b *bucket) take(r Rate, now time.Duration) time.Duration {
	passed := max(0, now-b.at) // callers at the same time have read the clock in any order
	b.tokens = min(float32(r.Burst), b.tokens+float32(r.PerS)*float32(passed.Seconds()))
	b.at += passed
	if b.tokens < 1 {
		return time.Duration(float64(1-b.tokens) / r.PerS * 1e9)
	}
	b.tokens--
	return 0
}

// giveBack undoes a take.
func (b *bucket) giveBack() { b.tokens++ }

// fullAt is when the bucket will be full if nobody takes from it.
func (b *bucket) fullAt(r Rate) time.Duration {
	missing := float64(r.Burst) - float64(b.tokens)
	if missing <= 0 {
		return b.at
	}
	// Beyond a century nothing is told apart, and a Duration ends.
	return b.at + time.Duration(min(missing/r.PerS, 100*365*24*3600)*1e9)
}
