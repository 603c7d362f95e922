package hub

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"time"
)

// A cursor is a tag, which tells the room and the epoch of its log, and behind it
// the position of the last event that it covers, in base 36.

const tagLen = 8

// cursorTag is the tag of the cursors of a room in one epoch of its log: 48 bits
// of their hash.
func cursorTag(epoch, room string) string {
	h := sha256.Sum256([]byte(epoch + "/" + room))
	return base64.RawURLEncoding.EncodeToString(h[:6])
}

func makeCursor(tag string, seq uint64) string {
	var b [tagLen + 13]byte
	return string(strconv.AppendUint(append(b[:0], tag...), seq, 36))
}

// parseCursor returns the position in a cursor; false when the cursor is not of
// the room and epoch of tag.
func parseCursor(tag, cursor string) (uint64, bool) {
	if len(cursor) <= tagLen || cursor[:tagLen] != tag {
		return 0, false
	}
	seq, err := strconv.ParseUint(cursor[tagLen:], 36, 64)
	return seq, err == nil
}

// spot is the place in a room's log that a cursor points to.
type spot struct {
	seq    uint64
	resets uint64 // of the room, when the cursor was read: beyond the next one it means nothing
	ahead  bool   // this node has not heard of the event there yet, but the log's leader has
}

// place returns the spot of a cursor; false when it cannot be followed.
func (r *Room) place(ctx context.Context, cursor string) (spot, bool) {
	r.mu.Lock()
	seq, ok := parseCursor(r.tag, cursor)
	s := spot{seq: seq, resets: r.resets}
	head, epoch := r.head, r.epoch
	r.mu.Unlock()
	if !ok || seq <= head {
		return s, ok
	}
	return r.confirm(ctx, s, epoch)
}

// confirm asks the log's leader about a cursor that is ahead of what this node has
// heard, and waits until the node has heard as much.
func (r *Room) confirm(ctx context.Context, s spot, epoch string) (spot, bool) {
	log := r.hub.cfg.Log
	last, err := log.Last(ctx, r.name)
	switch {
	case err != nil:
		return s, false
	case last == 0:
		// An empty room's cursor is a position of the log, not of an event.
		_, _, err := log.Read(ctx, r.name, epoch, s.seq, 1)
		return s, err == nil
	case s.seq > last:
		return s, false
	}
	// Repair at the tail takes a second or two; looking is cheap and rare.
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		r.mu.Lock()
		head, resets := r.head, r.resets
		r.mu.Unlock()
		if s.ahead = head < s.seq; !s.ahead || resets != s.resets {
			return s, resets == s.resets
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return s, true
		}
	}
}

// reaches tells whether a view's items have everything after a spot. Room.mu is held.
func (r *Room) reaches(v *view, s spot) bool { return s.resets == r.resets && s.seq >= v.floor }

// CommentID is the id that the comment which the log has put at seq bears
// everywhere: the position in base 36, so [0-9a-z]{1,13}.
func CommentID(seq uint64) string { return strconv.FormatUint(seq, 36) }
