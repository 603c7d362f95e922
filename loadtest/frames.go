package loadtest

import (
	"bytes"
	"hash/maphash"

	"github.com/kansei-live/kansei/protocol"
)

// frame is a comments message that one or more viewers received: what it says,
// found out once, and when it came.
type frame struct {
	raw     []byte // nil when it is not in the cache
	items   []int32
	history bool
	// withheld is how many comments of its stretch the message says it leaves out.
	withheld int64
	// plain says that the items stand one behind the other in the order.
	plain bool
	// bad is how many of its items had no valid id, 1 if it could not be decoded.
	bad int64

	// Arrivals since the last harvest: how many in each arrivalStep after began.
	began    int64
	arrivals []uint32
}

const (
	// maxFrames bounds the cache: far more than the frames that are under way to
	// some viewer at one time.
	maxFrames = 4096
	// arrivalStep is how exactly arrivals are timed, in nanoseconds.
	arrivalStep = 100_000
	// maxArrivals bounds the memory of one frame's arrivals: 2 s.
	maxArrivals = 20_000
)

// frames finds a frame by its bytes. The oldest leaves first.
type frames struct {
	seed   maphash.Seed
	byHash map[uint64]*frame
	ring   []uint64
	next   int
}

func newFrames() frames {
	return frames{seed: maphash.MakeSeed(), byHash: make(map[uint64]*frame)}
}

// find returns the frame with those bytes, nil if there is none.
func (f *frames) find(hash uint64, raw []byte) *frame {
	fr := f.byHash[hash]
	if fr == nil || !bytes.Equal(fr.raw, raw) {
		return nil
	}
	return fr
}

// add keeps a frame and returns the one that had to leave for it, if any. One
// whose hash is taken is not kept.
func (f *frames) add(hash uint64, raw []byte, fr *frame) (left *frame) {
	if f.byHash[hash] != nil {
		return nil
	}
	fr.raw = bytes.Clone(raw)
	f.byHash[hash] = fr
	if len(f.ring) < maxFrames {
		f.ring = append(f.ring, hash)
		return nil
	}
	left = f.byHash[f.ring[f.next]]
	delete(f.byHash, f.ring[f.next])
	f.ring[f.next] = hash
	f.next = (f.next + 1) % maxFrames
	left.raw = nil
	return left
}

// parsed is what matters here of a comments message.
type parsed struct {
	items    []received
	history  bool
	withheld int64
	bad      int64
}

// parse reads a comments message; of another message it says false.
func parse(raw []byte) (p parsed, ok bool) {
	m, err := protocol.Decode(raw)
	if err != nil {
		return parsed{bad: 1}, true
	}
	c, ok := m.(*protocol.Comments)
	if !ok {
		return parsed{}, false
	}
	p.history = c.History
	p.withheld = int64(max(c.Of-c.Shown, 0))
	p.items = make([]received, 0, len(c.Items))
	for i := range c.Items {
		it := &c.Items[i]
		id, ok := parseID(it.ID)
		if !ok {
			p.bad++
			continue
		}
		p.items = append(p.items, received{id: id, at: it.At, user: it.User.ID})
	}
	return p, true
}

// arrive notes an arrival at t; false if it is too long after the first one.
func (fr *frame) arrive(t int64) bool {
	if fr.arrivals == nil {
		fr.began = t - t%arrivalStep
	}
	n := int(max(t-fr.began, 0) / arrivalStep)
	if n >= maxArrivals {
		return false
	}
	for len(fr.arrivals) <= n {
		fr.arrivals = append(fr.arrivals, 0)
	}
	fr.arrivals[n]++
	return true
}
