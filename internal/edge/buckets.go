package edge

import (
	"sync"
	"time"
)

// bucket is a token bucket that is told its rate each time, so that it is small.
// The zero value is empty.
type bucket struct {
	tokens float32
	at     int64 // Unix nanoseconds when tokens was right
}

func newBucket(r Rate, now time.Time) bucket {
	return bucket{tokens: float32(r.Burst), at: now.UnixNano()}
}

// setBack is how far back a time must lie for the clock to have been set back. Less than
// that lies between those who ask at the same time; whoever took it for more would count
// the same time twice.
const setBack = time.Second

// take takes one token. If there is none it returns after what time there will be
// one.
func (b *bucket) take(r Rate, now time.Time) time.Duration {
	n := now.UnixNano()
	switch passed := n - b.at; {
	case passed > 0:
		b.tokens = min(float32(r.Burst), b.tokens+float32(r.PerS)*float32(passed)/1e9)
		b.at = n
	case passed < -int64(setBack):
		b.at = n // or nothing would be added until the clock is where it was
	}
	if b.tokens < 1 {
		return time.Duration(float64(1-b.tokens) / r.PerS * 1e9)
	}
	b.tokens--
	return 0
}

// maxBuckets bounds how many posters are remembered at once. One that is forgotten
// starts with a full bucket.
const maxBuckets = 10_000

// buckets are those of people who have no connection to keep one in: who posts.
type buckets struct {
	mu sync.Mutex
	of map[string]*bucket
}

func newBuckets() *buckets { return &buckets{of: map[string]*bucket{}} }

func (b *buckets) take(who string, r Rate, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.of[who]
	if one == nil {
		if len(b.of) >= maxBuckets {
			b.forget(now)
		}
		fresh := newBucket(r, now)
		one = &fresh
		b.of[who] = one
	}
	return one.take(r, now)
}

// forget drops who has not posted for a minute, and anybody if that is not enough.
func (b *buckets) forget(now time.Time) {
	for who, one := range b.of {
		if now.UnixNano()-one.at > int64(time.Minute) {
			delete(b.of, who)
		}
	}
	for who := range b.of {
		if len(b.of) < maxBuckets {
			break
		}
		delete(b.of, who)
	}
}
