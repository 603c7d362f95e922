package hub

import (
	"context"
	"slices"
)

// pollItems is how many comments one poll returns at the most.
const pollItems = 200

// Poll returns a comments message for those who poll: what everybody may see after
// a cursor, at most 200 comments; without a cursor, or with one that cannot be
// followed (then recovered is false), the recent ones. It waits for the room log for
// at most Config.JoinWait. The caller has acquired the room and found it ready.
func (r *Room) Poll(ctx context.Context, cursor string) (message []byte, recovered bool) {
	v := r.views[audienceView]
	var (
		s      spot
		before []item
	)
	if cursor != "" {
		ctx, cancel := context.WithTimeout(ctx, r.hub.cfg.JoinWait)
		defer cancel()
		s, before, recovered = r.pollFrom(ctx, v, cursor)
	}
	// The message is made without the lock, which rounds and joins need.
	items, at, tag, recovered := r.page(v, s, before, recovered)
	return appendPast(items, makeCursor(tag, at)), recovered
}

// page returns the items of a poll, the position up to which they are all of them,
// and the tag of its cursor.
func (r *Room) page(v *view, s spot, before []item, recovered bool) ([]item, Position, string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	items, at := v.items, v.floor
	switch {
	case recovered && s.ahead && s.Seq > r.head.Seq && s.resets == r.resets:
		items, at = nil, s.Position
	case recovered && r.reaches(v, s):
		items = items[v.after(s.Seq)-v.base:]
		items = slices.Concat(before, items[:min(len(items), pollItems-len(before))])
		at = s.Position
	default:
		recovered = false
		items = slices.Clone(items[max(0, len(items)-r.hub.cfg.Recent):])
	}
	switch n := len(items); {
	case n > 0:
		at = items[n-1].position()
	case !at.Known(): // there is nothing for everybody up to the end
		at = r.head
	}
	return items, at, r.tag, recovered
}

// pollFrom finds the place from which on a poll goes on in the view's items, and what
// has to come before: as much of it as one poll returns.
func (r *Room) pollFrom(ctx context.Context, v *view, cursor string) (spot, []item, bool) {
	s, known := r.place(ctx, poller, v, cursor)
	if !known || s.ahead {
		return s, nil, known
	}
	r.mu.Lock()
	floor := v.floor.Seq
	r.mu.Unlock()
	if s.Seq >= floor {
		return s, nil, true
	}
	var before []item
	known = r.readBack(ctx, v, &v.polled, s, func(_ *past, missed []item, upTo Position, _ encoder) {
		before = slices.Clone(missed[:min(len(missed), pollItems)])
		s.Position = upTo
	})
	return s, before, known
}
