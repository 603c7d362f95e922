package edge

import (
	"testing"
	"time"
)

func TestBucket(t *testing.T) {
	t.Parallel()
	rate := Rate{PerS: 2, Burst: 5}
	now := 5 * time.Minute
	b := fullBucket()
	takes := func() (n int) {
		for b.take(rate, now) == 0 {
			n++
		}
		return n
	}
	if n := takes(); n != 5 {
		t.Errorf("a full bucket has %d tokens", n)
	}
	if wait := b.take(rate, now); wait != time.Second/2 {
		t.Errorf("the next one comes after %v", wait)
	}
	if at := b.fullAt(rate); at != now+2500*time.Millisecond {
		t.Errorf("it is full after %v", at-now)
	}
	now += time.Second
	if n := takes(); n != 2 {
		t.Errorf("a second later %d tokens are there", n)
	}
	// Who asks at the same time has looked at the clock in another order.
	for range 1000 {
		now -= time.Millisecond
		if n := takes(); n != 0 {
			t.Fatalf("in no time %d tokens are there", n)
		}
		now += time.Millisecond
	}
	if n := takes(); n != 0 {
		t.Errorf("in no time %d tokens are there", n)
	}
	now += time.Hour
	if n := takes(); n != 5 {
		t.Errorf("an hour later %d tokens are there", n)
	}
	// The same bucket at another rate: no more than that one holds.
	now += time.Hour
	if rate = (Rate{PerS: 1, Burst: 3}); takes() != 3 {
		t.Error("it has more than its burst")
	}
	slow := Rate{PerS: 1e-9, Burst: 10_000}
	if at := b.fullAt(slow); at < now {
		t.Errorf("a bucket that is never full is full at %v", at)
	}
}
