package hub

import (
	"sort"
	"sync/atomic"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// maxFrame bounds the message of one frame, in bytes, as long as it has more
	// than one item: many WebSocket libraries refuse messages of 32 KiB and more. One
	// item with all around it has less than that by protocol.MaxText.
	maxFrame = 24 << 10
	// chunkItems is how many items the shared frames of a resume hold.
	chunkItems = 64
	// Beside the recent ones a view keeps items for those who were gone for a
	// short time: so old, and so many bytes of them, at the most.
	keepItems     = time.Minute
	keepItemBytes = 4 << 20
	// A ring forgets frames that are so old, and more than so many bytes of them.
	keepFrames     = 15 * time.Second
	keepFrameBytes = 4 << 20
	// keepOwnBytes is the same for the comments that were sampled out, which their authors
	// get: in a flood a hundred times as many as are shown.
	keepOwnBytes = 16 << 20
	// keepResumes is for how many cursors frames are kept, and keepResumeBytes how many
	// bytes of them that only one cursor needs.
	keepResumes     = 64
	keepResumeBytes = 4 << 20
)

// kept is frames for viewers who come back, shared by all who come back to the same place.
// They are not to be changed or appended to. There are few such places after a node has
// died, and any number of them for whoever keeps old cursors.
type kept[K comparable] struct {
	of    map[K][]Frame
	bytes int
}

// keep keeps the frames of a place, of which so many bytes are nobody else's. Once
// there are too many it begins anew.
func (k *kept[K]) keep(place K, frames []Frame, bytes int) {
	if k.of == nil || len(k.of) >= keepResumes || k.bytes+bytes > keepResumeBytes {
		*k = kept[K]{of: map[K][]Frame{}}
	}
	k.of[place] = frames
	k.bytes += bytes
}

// sizeOf is how many bytes the messages of frames have.
func sizeOf(frames []Frame) int {
	n := 0
	for _, f := range frames {
		n += len(f.Plain) + len(f.Deflated)
	}
	return n
}

// item is one event of a view, encoded once.
type item struct {
	seq  uint64
	at   int64         // by the log's clock
	came time.Duration // how old the hub was: what is kept does not depend on clocks
	json []byte
}

func (it *item) position() Position { return Position{it.seq, it.at} }

// view is what one audience sees of a room: the items, and the frames of them.
// Items are counted from 0 as they come, in ordinals: unlike the positions of the
// log they have no holes, so that what a viewer missed can be counted.
type view struct {
	staff bool

	// Under Room.mu.
	items  []item // items[k] has the ordinal base+k
	base   uint64
	bytes  int
	floor  Position // items has every event of this view that came after it
	framed uint64   // the ordinal of the first item that is in no frame yet
	at     Position // up to which everything is in frames
	held   []held   // what was sampled out and is in no frame yet

	viewers   []*Viewer
	sockets   []Socket // of the viewers
	deflating int      // viewers that take deflated frames
	late      []late   // viewers that wait for what this node has not heard of yet
	cut       uint64   // one more than the ring's index of the latest cut; 0: none

	past   past // has its own turn
	polled past // the same for those who poll: anybody may, and viewers come first

	snapshot []Frame            // for who comes now; nil: to be made
	resumes  kept[uint64]       // for who comes back, by the first ordinal; good until the next frame
	chunks   map[uint64][]Frame // whole chunks of resumes, by ordinal / chunkItems

	ring ring
}

// frame is a Frame in a ring.
type frame struct {
	Frame
	index  uint64 // in the ring, from 0
	first  uint64 // the ordinal of its first item
	items  uint64 // how many it has
	before string // the cursor of who has everything before it
	cut    uint64 // the view's cut: what lies on both sides of it cannot be counted
	made   time.Time
	own    *personal // when somebody's comment was sampled out
}

// ring is the latest frames of a view. One goroutine at a time pushes, holding
// Room.mu; everybody may get.
type ring struct {
	head  atomic.Uint64 // the index of the next frame
	slots []atomic.Pointer[frame]

	// Under Room.mu.
	tail  uint64 // the index of the oldest frame
	bytes int
	own   int // bytes of what frames have for single viewers
}

func (r *ring) push(f *frame) {
	head := r.head.Load()
	f.index = head
	r.count(f, 1)
	for r.tail < head && (head-r.tail >= uint64(len(r.slots)) || r.bytes > keepFrameBytes || r.own > keepOwnBytes ||
		f.made.Sub(r.get(r.tail).made) > keepFrames) {
		r.count(r.slots[r.tail%uint64(len(r.slots))].Swap(nil), -1)
		r.tail++
	}
	r.slots[head%uint64(len(r.slots))].Store(f)
	r.head.Store(head + 1)
}

// count adds the bytes of a frame, or takes them away with sign -1.
func (r *ring) count(f *frame, sign int) {
	r.bytes += sign * (len(f.Plain) + len(f.Deflated))
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

// sees reports whether a view shows an event.
func (v *view) sees(e *Event) bool {
	switch e.Audience {
	case AudienceAll:
		return true
	case AudienceStaff:
		return v.staff
	}
	return false
}

// admit and remove are a viewer's coming and going.

func (v *view) admit(viewer *Viewer, sock Socket) {
	viewer.place = len(v.viewers)
	v.viewers, v.sockets = append(v.viewers, viewer), append(v.sockets, sock)
	if viewer.deflates {
		v.deflating++
	}
}

func (v *view) remove(viewer *Viewer) {
	at, end := viewer.place, len(v.viewers)-1
	v.viewers[end].place = at
	v.viewers[at], v.viewers[end] = v.viewers[end], nil
	v.sockets[at], v.sockets[end] = v.sockets[end], nil
	v.viewers, v.sockets = v.viewers[:end], v.sockets[:end]
	v.forget(viewer)
	viewer.place = -1
	if viewer.deflates {
		v.deflating--
	}
}

func (v *view) end() uint64 { return v.base + uint64(len(v.items)) }

// restart forgets all items: the log is another one, or has a hole behind them.
func (v *view) restart(floor Position) {
	v.base, v.framed = v.end(), v.end()
	v.items, v.bytes, v.floor, v.at, v.held = nil, 0, floor, floor, nil
	v.snapshot, v.resumes, v.chunks = nil, kept[uint64]{}, nil
}

func (v *view) add(it item) {
	v.items = append(v.items, it)
	v.bytes += len(it.json)
}

// trim forgets the items that nobody who joins or comes back will need.
func (v *view) trim(age time.Duration, recent int) {
	old := age - keepItems
	n := 0
	for n < len(v.items)-recent && v.base+uint64(n) < v.framed &&
		(v.bytes > keepItemBytes || v.items[n].came < old) {
		v.bytes -= len(v.items[n].json)
		v.floor = v.items[n].position()
		v.items[n] = item{}
		n++
	}
	if n == 0 {
		return
	}
	v.items = v.items[n:] // append moves what is left, and frees the rest, when it is full
	v.base += uint64(n)
	for k := range v.chunks {
		if k*chunkItems < v.base {
			delete(v.chunks, k)
		}
	}
}

// after returns the ordinal of the first item that comes after a position.
func (v *view) after(seq uint64) uint64 {
	return v.base + uint64(sort.Search(len(v.items), func(i int) bool { return v.items[i].seq > seq }))
}

// deflateFrom is how many bytes a message must come to, over all viewers that take it
// deflated, for it to be deflated. It is done once, takes some 6 µs for one comment and
// 25 µs for forty, as much as one or a few writes, and saves a sixth of one and four
// fifths of forty: below this, processor time would be spent on next to no bandwidth.
const deflateFrom = 8 << 10

// encoder makes the frames of one room's items.
type encoder struct {
	frame     Framer
	tag       string
	deflating int // viewers that would take them deflated
}

// seal makes the frame of a message.
func (e encoder) seal(message []byte) Frame {
	return e.frame(message, e.deflating*len(message) >= deflateFrom)
}

// split calls f with stretches of items that make a message of at most maxFrame
// bytes each, or have one item.
func split(items []item, f func([]item)) {
	for len(items) > 0 {
		n, size := 0, 0
		for n < len(items) && (n == 0 || size+len(items[n].json) <= maxFrame) {
			size += len(items[n].json)
			n++
		}
		f(items[:n])
		items = items[n:]
	}
}

// comments makes one frame of the past; at is the position that its cursor stands
// for.
func (e encoder) comments(items []item, at Position) Frame {
	return e.seal(appendPast(items, makeCursor(e.tag, at)))
}

// live makes one frame of what happens: items, out of so many.
func (e encoder) live(items []item, at Position, of int) Frame {
	parts, size := texts(items)
	return e.seal(protocol.AppendSample(make([]byte, 0, size), makeCursor(e.tag, at), of, parts))
}

func appendPast(items []item, cursor string) []byte {
	parts, size := texts(items)
	return protocol.AppendComments(make([]byte, 0, size), cursor, true, parts)
}

// appendPage makes the message of one page; before may be empty.
func appendPage(items []item, cursor, before string) []byte {
	parts, size := texts(items)
	return protocol.AppendPage(make([]byte, 0, size), cursor, before, parts)
}

// texts returns the JSON of items, and about how long their message will be.
func texts(items []item) (parts [][]byte, size int) {
	parts = make([][]byte, len(items))
	size = 128
	for i := range items {
		parts[i] = items[i].json
		size += len(items[i].json) + 1
	}
	return parts, size
}

// history makes the frames of items that were said before somebody came.
func (e encoder) history(items []item) []Frame {
	var out []Frame
	split(items, func(part []item) {
		out = append(out, e.comments(part, part[len(part)-1].position()))
	})
	return out
}

// recent returns the frames for who comes now: the latest n items that are in
// frames, and with them the cursor. They are shared.
func (v *view) recent(e encoder, n int) []Frame {
	if v.snapshot == nil {
		have := v.items[:v.framed-v.base]
		if have = have[max(0, len(have)-n):]; len(have) > 0 {
			v.snapshot = e.history(have)
		} else {
			v.snapshot = []Frame{e.comments(nil, v.at)}
		}
	}
	return v.snapshot
}

// since returns the frames of all framed items from an ordinal on. They are shared
// by who comes back to the same place before the next frame is made, and all but
// their ends by everyone.
func (v *view) since(e encoder, from uint64) []Frame {
	if got, ok := v.resumes.of[from]; ok {
		return got
	}
	var out []Frame
	size := 0 // of what no other resume shares
	for at := from; at < v.framed; {
		to := min(v.framed, (at/chunkItems+1)*chunkItems)
		part := v.items[at-v.base : to-v.base]
		if len(part) == chunkItems {
			out = append(out, v.chunk(e, at/chunkItems, part)...)
		} else {
			own := e.history(part)
			out, size = append(out, own...), size+sizeOf(own)
		}
		at = to
	}
	v.resumes.keep(from, out, size)
	return out
}

func (v *view) chunk(e encoder, n uint64, items []item) []Frame {
	c, ok := v.chunks[n]
	if !ok {
		c = e.history(items)
		if v.chunks == nil {
			v.chunks = map[uint64][]Frame{}
		}
		v.chunks[n] = c
	}
	return c
}
