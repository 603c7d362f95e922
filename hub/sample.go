package hub

import (
	"encoding/json"
	"sort"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// When a room has more comments than Config.RoomRate, viewers are shown a sample of
// them: all of the staff's, their own, and of the rest so many that about RoomRate a
// second are left. Which those are depends on the log alone, on an event's position
// and on the rate that it was drafted at, so that every node, every resume and every
// replay agree, and nobody can choose. The log keeps everything, and each frame says
// how many of how many it shows.

// shows reports whether an event is in the sample.
func (r *Room) shows(e *Event) bool {
	limit := uint64(max(0, r.hub.cfg.RoomRate))
	if limit == 0 || uint64(e.Rate) <= limit || scatter(e.Seq)%uint64(e.Rate) < limit {
		return true
	}
	return author(e).Role.Staff()
}

// scatter spreads positions evenly over 64 bits: the finalizer of SplitMix64
// (Steele, Lea, Flood 2014).
func scatter(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// author reads the author out of a comment. It is only asked about comments that
// would not be shown.
func author(e *Event) protocol.User {
	var body struct {
		User protocol.User `json:"user"`
	}
	if err := json.Unmarshal(e.Body, &body); err != nil {
		return protocol.User{} // nobody's comment
	}
	return body.User
}

// held is an item that was sampled out.
type held struct {
	item
	author string
}

// personal is what a frame needs to have other bytes for the authors of what was sampled
// out of it. It does not change once it is made.
type personal struct {
	enc   encoder
	at    Position // what the frame's cursor stands for
	items []item   // that everybody gets
	own   map[string][]item
	out   []uint64 // the positions of what was sampled out
	bytes int      // of the items in own
}

func newPersonal(enc encoder, at Position, items []item, out []held) *personal {
	p := &personal{enc: enc, at: at, items: items, own: make(map[string][]item, len(out)), out: make([]uint64, len(out))}
	p.enc.deflating = 0 // for one viewer
	for i, h := range out {
		p.own[h.author] = append(p.own[h.author], h.item)
		p.out[i] = h.seq
		p.bytes += len(h.json)
	}
	return p
}

// append appends to dst the frame f for one viewer, with its own comments in their
// places: more than one if that makes it too long. Each tells how many of how many
// it shows of what lies before its cursor.
func (p *personal) append(dst [][]byte, f *frame, v *Viewer) [][]byte {
	mine := p.own[v.user]
	if len(mine) == 0 {
		return append(dst, f.Bytes(v.deflates))
	}
	all := append(append(make([]item, 0, len(p.items)+len(mine)), p.items...), mine...)
	sort.Slice(all, func(i, j int) bool { return all[i].seq < all[j].seq })
	out, left := p.out, len(all)
	split(all, func(part []item) {
		upTo := part[len(part)-1].position()
		if left -= len(part); left == 0 {
			upTo = p.at
		}
		n := sort.Search(len(out), func(i int) bool { return out[i] > upTo.Seq })
		own := sort.Search(len(mine), func(i int) bool { return mine[i].seq > upTo.Seq })
		dst = append(dst, p.enc.live(part, upTo, len(part)+n-own).Plain)
		out, mine = out[n:], mine[own:]
	})
	return dst
}

// pace counts comments over the last second, in tenths.
type pace struct {
	tenths [10]uint32
	last   int64 // the tenth of the second that was counted last, since 1970
}

func (p *pace) count(now time.Time, n int) {
	p.turn(now)
	p.tenths[p.last%10] += uint32(n)
}

func (p *pace) rate(now time.Time) uint32 {
	p.turn(now)
	var sum uint32
	for _, n := range p.tenths {
		sum += n
	}
	return sum
}

// turn forgets what is more than a second ago, and everything when the clock was set
// back: it would be counted on until the clock is where it was. Less than a second lies
// between those who look at the clock at the same time.
func (p *pace) turn(now time.Time) {
	tenth := now.UnixMilli() / 100
	if tenth < p.last-10 {
		*p = pace{last: tenth}
	}
	for n := min(tenth-p.last, 10); n > 0; n-- {
		p.tenths[(tenth-n+1)%10] = 0
	}
	p.last = max(p.last, tenth)
}
