package hub

import (
	"context"
	"slices"
)

// pollItems is how many comments one answer has at most, where no other limit is asked for.
const pollItems = 200

// Ask is what somebody who reads over HTTP asks of a room's comments: everything that
// comes after Since, if it can be followed, as one who was here; or a page of what the log
// keeps, up to Before or behind After; or the latest. At most one of the three is set.
type Ask struct {
	Since, Before, After string // cursors, or edges for the last two
	Limit                int    // of comments; 0: as many as there are by default
}

// limit is how many comments the answer has at most, if it is not the latest.
func (a Ask) limit() int {
	if a.Limit > 0 {
		return a.Limit
	}
	return pollItems
}

// Comments returns a comments message with what everybody may see. recovered is false when
// a was asked for no place, or for one that cannot be followed: then these are the latest
// comments. It waits for the room log for at most Config.JoinWait; it fails with
// ErrUnavailable when it needs the log and the log does not answer, or too many are reading
// it. The caller has acquired the room and found it ready.
func (r *Room) Comments(ctx context.Context, a Ask) (message []byte, recovered bool, err error) {
	v := r.views[audienceView]
	switch {
	case a.Before != "" || a.After != "":
		return r.readPage(ctx, v, a)
	case a.Since != "":
		if message, ok := r.poll(ctx, v, a); ok {
			return message, true, nil
		}
	}
	return r.latest(ctx, v, a.Limit), false, nil
}

// poll answers a reader that has a cursor; false when the cursor cannot be followed.
func (r *Room) poll(ctx context.Context, v *view, a Ask) ([]byte, bool) {
	ctx, cancel := context.WithTimeout(ctx, r.hub.cfg.JoinWait)
	defer cancel()
	s, known := r.place(ctx, poller, v, a.Since)
	if !known || !s.ahead && !r.catchUp(ctx, v, s) {
		return nil, false
	}
	// The message is made without the lock, which flushes and joins need.
	items, at, tag, known := r.since(v, s, a.limit())
	if !known {
		return nil, false
	}
	return pageOf(items, tag, at), true
}

// since returns the items of a poll and the position up to which they are all of them.
func (r *Room) since(v *view, s resumePoint, limit int) (items []item, at Position, tag string, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case (s.ahead || v.head != r.head) && s.Seq > v.head.Seq && s.resets == r.resets:
	case r.reaches(v, s):
		all := v.items[behind(v.items, s.Seq):]
		items = make([]item, 0, min(len(all), limit))
		at = s.Position
		for i := range all {
			if len(items) == limit {
				break
			}
			if at = all[i].position(); !all[i].hidden {
				items = append(items, all[i])
			}
		}
		return items, r.endOf(nil, v, at), r.tag, true
	default:
		return nil, Position{}, "", false
	}
	return items, r.endOf(items, v, s.Position), r.tag, true
}

// latest answers a reader that has none. Without a limit these are the comments that a viewer
// gets on coming. What the room's items do not hold of those that were asked for is read from
// the log; they are all there is when it does not answer.
func (r *Room) latest(ctx context.Context, v *view, limit int) []byte {
	r.mu.Lock()
	items, at, tag := v.items, v.floor, r.tag
	n := limit
	if n == 0 {
		n = r.hub.cfg.Recent
	}
	items = slices.Clone(items[lastComments(items, n):])
	at = r.endOf(items, v, at)
	items = showing(items, true)
	lasting := r.plainLasting(v, at.Seq)
	r.mu.Unlock()
	if len(items) < limit {
		if message, _, err := r.readPage(ctx, v, Ask{Limit: limit}); err == nil {
			return message
		}
	}
	return pageOf(items, tag, at, lasting...)
}

// endOf is the position of the last item, or at if there is none. Room.mu is held.
func (r *Room) endOf(items []item, v *view, at Position) Position {
	switch n := len(items); {
	case n > 0:
		return items[n-1].position()
	case !at.Known(): // there is nothing for everybody up to the end
		return v.head
	}
	return at
}

// pageOf makes the message of items that are all of them up to a position. Whether the log
// keeps earlier ones is not known.
func pageOf(items []item, tag string, at Position, others ...[]byte) []byte {
	cursor, before := makeCursor(tag, at), ""
	switch {
	case len(items) > 0:
		before = makeEdge(tag, items[0].position())
	case at.Known():
		before = cursor
	}
	return page(items, cursor, before, others...)
}
