package edge

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sent atomic.Uint64
		e := newEgress(1000, sent.Load)
		defer e.close()
		for _, c := range []struct {
			bytes uint64
			full  bool
		}{{0, false}, {800, false}, {950, true}, {5000, true}, {100, false}} {
			sent.Add(c.bytes)
			time.Sleep(egressTick)
			synctest.Wait()
			if e.full() != c.full {
				t.Errorf("%d bytes in a second: full is %v", c.bytes, e.full())
			}
		}
	})
}

func TestNoEgressLimit(t *testing.T) {
	t.Parallel()
	e := newEgress(0, nil)
	if e.full() {
		t.Error("full without a limit")
	}
	e.close()
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	r := Rate{PerS: 2, Burst: 3}
	b := newBucket(r, now)
	for range 3 {
		if wait := b.take(r, now); wait != 0 {
			t.Fatalf("refused for %v", wait)
		}
	}
	if wait := b.take(r, now); wait != 500*time.Millisecond {
		t.Errorf("the next one after %v, want 500ms", wait)
	}
	if wait := b.take(r, now.Add(-time.Minute)); wait <= 0 {
		t.Error("a clock that went back made tokens")
	}
	if wait := b.take(r, now.Add(500*time.Millisecond)); wait != 0 {
		t.Errorf("refused for %v when there was a token", wait)
	}
	all := newBuckets()
	for i := range maxBuckets + 10 {
		all.take(string(rune(i)), r, now.Add(time.Duration(i)*time.Millisecond))
	}
	if len(all.of) > maxBuckets {
		t.Errorf("%d buckets are kept", len(all.of))
	}
}
