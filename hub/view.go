package hub

import (
	"slices"
	"sync/atomic"
	"time"
)

const (
	// maxFrame bounds the messages of one frame, in bytes, as long as it has more than one
	// item: many WebSocket libraries refuse messages of 32 KiB and more. One item with all
	// around it has less than that by protocol.MaxText.
	maxFrame = 24 << 10
	// chunkItems is how many items the shared chunks of a resume hold.
	chunkItems = 64
	// Beside the recent ones a view keeps items for viewers that were gone for a short
	// time: so old, and so many bytes of them, at the most.
	keepItems     = time.Minute
	keepItemBytes = 4 << 20
	// keepBackfill is how long what was read back from the log is kept: the viewers of a node
	// that died come back within this time.
	keepBackfill = 10 * time.Second
)

// view is what one audience sees of a room. A place in it has three coordinates:
//
//	position    of an event in the room's log      12   15   16   21   30    grows, with holes
//	ordinal     of an item of this view             7    8    -    9   10    grows by one
//	ring index  of the frame that brought it        4    5    5    5    6    grows by one
//
// Position 16 is an event that this view does not show, or shows to one user only: an aside.
// Cursors stand for positions, what is missed is counted in ordinals (of comments), and a
// viewer that is there is a ring index.
type view struct {
	staff bool

	latest atomic.Pointer[latest] // read by viewers without a lock, replaced under Room.mu
	ring   ring

	// Under Room.mu.
	items    []item // items[k] has the ordinal base+k
	asides   []aside
	base     uint64
	bytes    int      // of items
	ownBytes int      // of asides
	floor    Position // items and asides have every event of this view that came after it
	framed   uint64   // the ordinal of the first item that is in no frame yet
	counted  uint64   // how many comments are in frames
	fresh    int      // how many asides are in no frame yet, the last ones
	at       Position // up to which everything is in frames
	head     Position // up to which the view has everything
	restored []item   // what the act which is being applied has brought back
	notices  atomic.Pointer[notices]
	lasting  atomic.Pointer[lasts]

	viewers   []*Viewer
	sockets   []Socket // of the viewers
	wanted    demand   // the forms of the viewers
	everybody bool     // a flush is needed, for all viewers
	late      []late   // viewers that wait for what this node has not heard of yet
	cut       uint64   // one more than the ring's index of the latest cut; 0: none

	backfill backfill
	cache    cache
}

// firstOrdinal is that of the first item of a view: what is read back comes before it.
const firstOrdinal = 1 << 32

func newView(staff bool) *view {
	v := &view{staff: staff, base: firstOrdinal, framed: firstOrdinal}
	v.latest.Store(new(latest))
	v.notices.Store(new(notices))
	return v
}

// admit and remove are a viewer's coming and going.

func (v *view) admit(viewer *Viewer, sock Socket) {
	viewer.place = len(v.viewers)
	v.viewers, v.sockets = append(v.viewers, viewer), append(v.sockets, sock)
	v.wanted.count(viewer.form, 1)
}

func (v *view) remove(viewer *Viewer) {
	at, end := viewer.place, len(v.viewers)-1
	v.viewers[end].place = at
	v.viewers[at], v.viewers[end] = v.viewers[end], nil
	v.sockets[at], v.sockets[end] = v.sockets[end], nil
	v.viewers, v.sockets = v.viewers[:end], v.sockets[:end]
	v.forget(viewer)
	viewer.place = -1
	v.wanted.count(viewer.form, -1)
}

// end is the ordinal of the next item.
func (v *view) end() uint64 { return v.base + uint64(len(v.items)) }

// after returns the ordinal of the first item that comes after a position.
func (v *view) after(seq uint64) uint64 { return v.base + uint64(behind(v.items, seq)) }

// restart forgets all items: the log is another one, or has a hole behind them.
func (v *view) restart(floor Position) {
	v.base, v.framed = v.end(), v.end()
	v.items, v.bytes, v.floor, v.at, v.head = nil, 0, floor, floor, floor
	v.asides, v.fresh, v.ownBytes = nil, 0, 0
	v.cache.clear()
}

// add puts an event into the view, as far as its audience sees it.
func (v *view) add(s *sight, it item) {
	sees := s.views[audienceView]
	if v.staff {
		sees = s.views[staffView]
	}
	switch {
	case it.json == nil:
	case sees && !s.sampled:
		v.items = append(v.items, it)
		v.bytes += len(it.json)
		v.everybody = v.everybody || !it.hidden
		if s.see == mine && !v.staff {
			it.hidden = false
			v.addAside(aside{item: it, user: s.author, mine: true})
		}
	case sees || s.user != "" && !s.sampled:
		it.hidden = s.see == hidden
		v.addAside(aside{item: it, user: s.user, sampled: s.sampled})
		v.everybody = v.everybody || sees // they are told how many there are
	}
}

func (v *view) addAside(a aside) {
	v.asides = append(v.asides, a)
	v.fresh++
	v.ownBytes += len(a.json)
}

// prepend puts items and asides before those that are there: they are all of the view's
// events after floor.
func (v *view) prepend(items []item, asides []aside, floor Position) {
	for i := range items {
		v.bytes += len(items[i].json)
	}
	for i := range asides {
		v.ownBytes += len(asides[i].json)
	}
	v.cache.forget(v.base + 1) // the first piece may have asides more
	v.base -= uint64(len(items))
	v.items = slices.Concat(items, v.items)
	v.asides = slices.Concat(asides, v.asides)
	v.floor = floor
}

// recent is the index of the first of the latest n comments that are in frames.
func (v *view) recent(n int) int { return lastComments(v.items[:v.framed-v.base], n) }

// lastComments is the index of the first of the last n comments among items, or, if other
// items are many, of the last 4n items.
func lastComments(items []item, n int) int {
	at := len(items)
	for last := max(0, at-4*n); at > last && n > 0; at-- {
		if items[at-1].comment && !items[at-1].hidden {
			n--
		}
	}
	return at
}

// trim forgets the items that neither new nor returning viewers need, and reports whether
// there are others that will be forgotten.
func (v *view) trim(now, began time.Time, recent, recoverMax int) (more bool) {
	old, keeping := now.Sub(began)-keepItems, now.Before(v.backfill.until)
	n, keep := 0, v.recent(recent)
	for ; n < keep; n++ {
		tooMany := len(v.items)-n > recoverMax+1 // nobody is recovered from before
		if !tooMany && (keeping || v.bytes <= keepItemBytes && v.items[n].came >= old) {
			break
		}
		v.bytes -= len(v.items[n].json)
		v.floor = later(v.floor, v.items[n].position())
		v.items[n] = item{}
	}
	v.items = v.items[n:] // append moves what is left, and frees the rest, when it is full
	v.base += uint64(n)
	if n > 0 {
		v.cache.forget(v.base)
	}
	return v.trimAsides(old, keeping) || n < keep
}

// trimAsides forgets asides that are old or too many. Viewers that come back from before one
// that was for a single user have the log read; comments that were sampled out are not worth
// that: their authors are not sent them so late.
func (v *view) trimAsides(old time.Duration, keeping bool) (more bool) {
	n := 0
	for ; n < len(v.asides)-v.fresh; n++ {
		a := &v.asides[n]
		if a.seq > v.floor.Seq {
			if v.ownBytes <= keepOwnBytes && (keeping || a.came >= old) {
				break
			}
			if !a.sampled {
				v.floor = a.position()
			}
		}
		v.ownBytes -= len(a.json)
		v.asides[n] = aside{}
	}
	v.asides = v.asides[n:]
	return len(v.asides) > v.fresh
}
