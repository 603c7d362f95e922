package hub

import (
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// What a room keeps for returning viewers does not depend on how this node's clock
// and the log's stand to each other, and a clock that is set back does not make a room
// look busy.
func TestClocksApart(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-10 * time.Minute, 0, 10 * time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			defer w.hub.Close()
			w.log.behind = ahead
			keep, _ := w.join("r", "")
			defer keep.Leave()
			for i := range 3 * 60 * 2 { // two a second for three minutes
				w.log.say(strconv.Itoa(i))
				time.Sleep(500 * time.Millisecond)
			}
			r := keep.room
			r.mu.Lock()
			defer r.mu.Unlock()
			if n := len(r.views[audienceView].items); n < 100 || n > 130 {
				t.Errorf("a node that is ahead of the log by %v keeps %d comments of the last minute's 120", ahead, n)
			}
		})
	}
}

func TestPaceWhenTheClockIsSetBack(t *testing.T) {
	t.Parallel()
	var p pace
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	play := func() {
		for range 100 {
			now = now.Add(100 * time.Millisecond)
			p.count(now, 2)
		}
	}
	play()
	now = now.Add(-10 * time.Minute)
	if n := p.rate(now); n != 0 {
		t.Errorf("the clock is set back, and the rate is %d", n)
	}
	play()
	if n := p.rate(now.Add(-50 * time.Millisecond)); n != 20 {
		t.Errorf("the rate is %d, want 20", n)
	}
}
