package loadtest

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// harvest is the arrivals of one frame, with the times at which its comments were
// due: the latencies of all of them at once.
type harvest struct {
	began    int64
	arrivals []uint32
	due      []int64
	untimed  int64 // comments in it that have no such time
}

// reapAfter is longer than an acknowledgement takes: whatever was not acknowledged
// by then is timed without it. In nanoseconds.
const reapAfter = int64(30 * time.Second)

// arrive notes when a frame reached one viewer.
func (c *checker) arrive(fr *frame, at int64) {
	if len(fr.items) == 0 {
		return
	}
	if fr.arrivals == nil {
		c.dirty = append(c.dirty, fr)
	}
	if !fr.arrive(at) {
		c.reap(fr, true)
		fr.arrive(at)
	}
}

// reap makes a harvest of a frame's arrivals, if all its comments have been
// acknowledged or if it must be.
func (c *checker) reap(fr *frame, must bool) {
	if fr.arrivals == nil {
		return
	}
	h := harvest{began: fr.began, arrivals: fr.arrivals, due: make([]int64, 0, len(fr.items))}
	for _, i := range fr.items {
		switch e := &c.order.entries[i]; {
		case e.acked:
			h.due = append(h.due, e.due)
		case !must:
			return
		default:
			h.untimed++
		}
	}
	fr.arrivals = nil
	c.ripe = append(c.ripe, h)
}

// collect reaps what can be reaped, or everything, and hands over the harvests.
func (c *checker) collect(everything bool) []harvest {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := c.dirty[:0]
	for _, fr := range c.dirty {
		c.reap(fr, everything || now-fr.began > reapAfter)
		if fr.arrivals != nil {
			rest = append(rest, fr)
		}
	}
	clear(c.dirty[len(rest):])
	c.dirty = rest
	ripe := c.ripe
	c.ripe = nil
	return ripe
}

// newHistogram counts microseconds up to ten minutes, with three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, int64(10*time.Minute/time.Microsecond), 3)
}

// record adds n times d to h; what is beyond ten minutes counts as ten minutes.
func record(h *hdrhistogram.Histogram, d time.Duration, n int64) {
	us := min(max(d.Microseconds(), 1), h.HighestTrackableValue())
	_ = h.RecordValues(us, n) // cannot fail: the value is within the range
}

// latencies adds up harvests. It belongs to one goroutine.
type latencies struct {
	total, recent *hdrhistogram.Histogram
	untimed       int64 // deliveries of comments that were never acknowledged
}

func newLatencies() *latencies {
	return &latencies{total: newHistogram(), recent: newHistogram()}
}

// add records harvests, as recent ones besides.
func (l *latencies) add(harvests []harvest) {
	l.recent.Reset()
	for _, h := range harvests {
		for n, count := range h.arrivals {
			if count == 0 {
				continue
			}
			at := h.began + int64(n)*arrivalStep + arrivalStep/2
			for _, due := range h.due {
				record(l.recent, time.Duration(at-due), int64(count))
			}
			l.untimed += h.untimed * int64(count)
		}
	}
	l.total.Merge(l.recent)
}
