package hub

import (
	"sync/atomic"
	"time"
)

const (
	// A ring forgets frames that are so old, and more than so many bytes of them.
	keepFrames     = 15 * time.Second
	keepFrameBytes = 4 << 20
	// keepOwnBytes is the same for what single users get. In a flood a hundred times as many
	// comments are sampled out as are shown.
	keepOwnBytes = 16 << 20
)

// frame is a chunk in a ring.
type frame struct {
	chunk
	index    uint64 // in the ring, from 0
	first    uint64 // the ordinal of its first comment
	comments uint64 // how many it has
	before   string // the cursor of a viewer that has everything before it
	cut      uint64 // the view's cut: comments on both sides of it cannot be counted
	made     time.Time
	// It has what comes after a position, up to another one; both are the same where it is not a
	// stretch of the view's items.
	after  uint64
	upTo   Position
	notice bool // it has no comments
	brings bool // but some that an act has brought back
}

// ring is the latest frames of a view. One goroutine at a time pushes, holding
// Room.mu; everybody may get.
type ring struct {
	head  atomic.Uint64 // the index of the next frame
	slots []atomic.Pointer[frame]

	// Under Room.mu.
	tail  uint64 // the index of the oldest frame
	bytes int
	own   int // bytes of what frames have for single users
}

func (r *ring) push(f *frame) {
	f.index = r.head.Load()
	r.count(f, 1)
	for r.tail < f.index && (f.index-r.tail >= uint64(len(r.slots)) || r.bytes > keepFrameBytes || r.own > keepOwnBytes ||
		f.made.Sub(r.get(r.tail).made) > keepFrames) {
		r.drop()
	}
	r.slots[f.index%uint64(len(r.slots))].Store(f)
	r.head.Store(f.index + 1)
}

// replace puts another chunk in the place of a frame's.
func (r *ring) replace(f *frame, c chunk) {
	r.count(f, -1)
	other := *f
	other.chunk = c
	r.count(&other, 1)
	r.slots[f.index%uint64(len(r.slots))].Store(&other)
}

// trim forgets old frames, but for the newest: a viewer that is behind needs it to be told
// of a gap.
func (r *ring) trim(now time.Time) {
	for r.tail+1 < r.head.Load() && now.Sub(r.get(r.tail).made) > keepFrames {
		r.drop()
	}
}

// drop forgets the oldest frame.
func (r *ring) drop() {
	r.count(r.slots[r.tail%uint64(len(r.slots))].Swap(nil), -1)
	r.tail++
}

// count adds the bytes of a frame, or takes them away with sign -1.
func (r *ring) count(f *frame, sign int) {
	if f.frame != nil {
		r.bytes += sign * f.frame.size()
	}
	if f.own != nil {
		r.own += sign * f.own.bytes
	}
}

// get returns a frame; nil when the ring has forgotten it.
func (r *ring) get(index uint64) *frame {
	f := r.slots[index%uint64(len(r.slots))].Load()
	if f == nil || f.index != index {
		return nil
	}
	return f
}

// newest is the frame that was pushed last.
func (r *ring) newest() *frame { return r.get(r.head.Load() - 1) }
