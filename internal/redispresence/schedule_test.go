package redispresence

import (
	"testing"
	"time"
)

// TestAlign: quiet flushes keep an interval between them and fall together.
func TestAlign(t *testing.T) {
	t.Parallel()
	r := newPresence(Config{Interval: time.Second})
	quarter := r.cfg.Interval / 4
	moments := map[time.Duration]bool{}
	for i := range 100 {
		began := r.began.Add(time.Duration(i) * 37 * time.Millisecond)
		for range 5 {
			at := r.align(began.Add(r.cfg.Interval))
			if d := at.Sub(began); d < r.cfg.Interval-quarter/4 || d > r.cfg.Interval+quarter {
				t.Fatalf("a flush %v after the last one", d)
			}
			moments[at.Sub(r.began)%r.cfg.Interval] = true
			began = at.Add(3 * time.Millisecond) // flushes come a little late
		}
		if d := r.align(began.Add(r.cfg.Interval)).Sub(began); d > r.cfg.Interval {
			t.Fatalf("flushes drift: %v", d)
		}
	}
	if len(moments) != 4 {
		t.Errorf("flushes at %d moments of an interval, want 4", len(moments))
	}
}
