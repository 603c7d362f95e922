package hub

import "time"

// When a room has more comments than Config.RoomRate, viewers are shown a sample of
// them: all of the staff's, their own, and of the rest so many that about RoomRate a
// second are left. Which those are depends on the log alone, on an event's position
// and on the rate that it was drafted at, so that every node, every resume and every
// replay agree, and nobody can choose. The log keeps everything, and each frame says
// how many of how many it shows.

// Some authors may weigh more than others: guests, users, members. A comment of an author of weight w is drafted as if
// the room had w times fewer comments, relative to the mean weight of those that this node has drafted lately, so that
// about as many are shown as without weights. So the weight is in the log too, as a rate, and all nodes agree,
// those of older versions too.

// inSample reports whether an event is in the sample of a room that is shown rate comments a
// second, or all of them if rate is 0.
func inSample(e *Event, rate int) bool {
	limit := uint64(max(0, rate))
	return limit == 0 || uint64(e.Rate) <= limit || scatter(e.Seq)%uint64(e.Rate) < limit
}

// scatter spreads positions evenly over 64 bits: the finalizer of SplitMix64
// (Steele, Lea, Flood 2014).
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// pace counts comments over the last second, in tenths.
type pace struct {
	tenths [10]uint32
	last   int64   // the tenth of the second that was counted last, since 1970
	mean   float64 // the weight of those who have commented lately through this node; 0: nobody has
}

// weighing is how many comments the mean weight is about.
const weighing = 64

// weighed is the rate that a comment is drafted at whose author has a weight, at least 1, in a room that has so many
// comments a second and is shown limit of them.
func (p *pace) weighed(rate uint32, weight, limit int) uint32 {
	w := float64(max(weight, 1))
	if p.mean == 0 {
		p.mean = w
	}
	p.mean += (w - p.mean) / weighing
	if limit <= 0 || rate <= uint32(limit) { // #nosec G115 -- at most a million
		return rate
	}
	return max(1, uint32(float64(rate)*p.mean/w))
}

func (p *pace) count(now time.Time, n int) {
	p.advance(now)
	p.tenths[p.last%10] += uint32(n)
}

func (p *pace) rate(now time.Time) uint32 {
	p.advance(now)
	var sum uint32
	for _, n := range p.tenths {
		sum += n
	}
	return sum
}

// advance forgets what is more than a second ago, and everything when the clock was set
// back: it would be counted on until the clock is where it was. Callers that look at the
// clock at the same time are less than a second apart.
func (p *pace) advance(now time.Time) {
	tenth := now.UnixMilli() / 100
	if tenth < p.last-10 {
		*p = pace{last: tenth, mean: p.mean}
	}
	for n := min(tenth-p.last, 10); n > 0; n-- {
		p.tenths[(tenth-n+1)%10] = 0
	}
	p.last = max(p.last, tenth)
}
