package edge

import (
	"testing"
	"time"
)

// A clock that was ahead and is set right leaves everybody the rate that they had.
func TestBucketWhenTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	rate := Rate{PerS: 2, Burst: 5}
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	b := newBucket(rate, now)
	takes := func() (n int) {
		for b.take(rate, now) == 0 {
			n++
		}
		return n
	}
	if n := takes(); n != 5 {
		t.Errorf("a new bucket has %d tokens", n)
	}
	now = now.Add(-10 * time.Minute)
	if n := takes(); n != 0 {
		t.Errorf("the clock is set back, and %d tokens are there", n)
	}
	now = now.Add(time.Second)
	if n := takes(); n != 2 {
		t.Errorf("a second later %d tokens are there", n)
	}
	// Who asks at the same time has looked at the clock in another order.
	for range 1000 {
		now = now.Add(-time.Millisecond)
		if n := takes(); n != 0 {
			t.Fatalf("in no time %d tokens are there", n)
		}
		now = now.Add(time.Millisecond)
	}
	if n := takes(); n != 0 {
		t.Errorf("in no time %d tokens are there", n)
	}
	// Set forward it can only add what the bucket holds.
	now = now.Add(time.Hour)
	if n := takes(); n != 5 {
		t.Errorf("the clock is set forward, and %d tokens are there", n)
	}
}
