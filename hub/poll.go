package hub

import (
	"context"
)

// pollItems is how many comments one poll returns at the most.
const pollItems = 200

// Poll returns a comments message for those who poll: what everybody may see after
// a cursor, at most 200 comments; without a cursor, or with one that cannot be
// followed (then recovered is false), the recent ones. The caller has acquired the
// room and found it ready.
func (r *Room) Poll(ctx context.Context, cursor string) (message []byte, recovered bool) {
	v := r.views[audienceView]
	since, known := uint64(0), false
	if cursor != "" {
		since, known = r.place(ctx, cursor)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	items := v.items
	if known = known && since >= v.floor; known {
		items = items[v.after(since)-v.base:]
		items = items[:min(len(items), pollItems)]
	} else {
		items = items[max(0, len(items)-r.hub.cfg.Recent):]
		since = v.floor
	}
	if len(items) > 0 {
		since = items[len(items)-1].seq
	}
	return appendPast(items, makeCursor(r.tag, since)), known
}

// place returns the position of a cursor that this node can follow.
func (r *Room) place(ctx context.Context, cursor string) (uint64, bool) {
	r.mu.Lock()
	since, ok := parseCursor(r.tag, cursor)
	head := r.head
	r.mu.Unlock()
	return since, ok && (since <= head || r.await(ctx, since))
}
