package hub

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

// A cursor is a tag, which tells the room and the epoch of its log, and behind it the
// position of the last event that it covers: its sequence and its time, in base 36,
// with a dash between them. A position without a time has no dash: nobody can follow it.
//
// Where somebody reads backwards an edge stands for a cursor: the same with an underscore
// for the dash. It lies right before the event at its position, and not behind it. So every
// cursor and every edge is a place between two events.

const tagLen = 8

// cursorTag is the tag of the cursors of a room in one epoch of its log: 48 bits
// of their hash.
func cursorTag(epoch, room string) string {
	h := sha256.Sum256([]byte(epoch + "/" + room))
	return base64.RawURLEncoding.EncodeToString(h[:6])
}

func makeCursor(tag string, p Position) string {
	var b [tagLen + 13 + 1 + 13]byte
	c := strconv.AppendUint(append(b[:0], tag...), p.Seq, 36)
	if p.Known() {
		c = strconv.AppendInt(append(c, '-'), p.At, 36)
	}
	return string(c)
}

// makeEdge is the place before the event at a position; empty where its time is not known.
func makeEdge(tag string, p Position) string {
	seq, at, ok := strings.Cut(makeCursor(tag, p)[tagLen:], "-")
	if !ok {
		return ""
	}
	return tag + seq + "_" + at
}

// parsePlace returns the position in a cursor or an edge, and which it is; ok is false where
// parseCursor says so.
func parsePlace(tag, place string) (p Position, edge, ok bool) {
	if at := strings.IndexByte(place[min(tagLen, len(place)):], '_'); at >= 0 {
		edge = true
		place = place[:tagLen+at] + "-" + place[tagLen+at+1:]
	}
	p, ok = parseCursor(tag, place)
	return p, edge, ok
}

// parseCursor returns the position in a cursor; false when the cursor is not of
// the room and epoch of tag, or has no time.
func parseCursor(tag, cursor string) (Position, bool) {
	if len(cursor) <= tagLen || cursor[:tagLen] != tag {
		return Position{}, false
	}
	seq, at, _ := strings.Cut(cursor[tagLen:], "-")
	var (
		p         Position
		bad, late error
	)
	p.Seq, bad = strconv.ParseUint(seq, 36, 64)
	p.At, late = strconv.ParseInt(at, 36, 64)
	if bad != nil || late != nil || !p.Known() || p.Seq == 0 && p.At != 0 {
		return Position{}, false
	}
	return p, true
}

// resumePoint is the place in a room's log that a cursor points to.
type resumePoint struct {
	Position
	resets uint64 // of the room, when the cursor was read: beyond the next one it means nothing
	ahead  bool   // this node has not heard of the event there yet, but the log's leader has
}

// place returns the resume point of a cursor in a view; false when it cannot be followed. A
// position that the room remembers is judged from memory, and the log's leader is asked
// about the others.
func (r *Room) place(ctx context.Context, by asker, v *view, cursor string) (resumePoint, bool) {
	r.mu.Lock()
	p, ok := parseCursor(r.tag, cursor)
	s := resumePoint{Position: p, resets: r.resets}
	epoch := r.epoch
	right, sure := r.remembers(v, p)
	r.mu.Unlock()
	switch {
	case !ok:
		return s, false
	case sure:
		return s, right
	}
	return r.confirm(ctx, by, v, s, epoch)
}

// confirm asks the log's leader about a cursor. If the event there is one of the room's
// that this node has not heard of, it waits until the node has.
func (r *Room) confirm(ctx context.Context, by asker, v *view, s resumePoint, epoch string) (resumePoint, bool) {
	switch got, err := r.ask(ctx, by, s.Position, epoch); {
	case err != nil || got == AnchorNone:
		return s, false
	case got == AnchorLog:
		// It was given out while the room had no events: its owner has seen all that there was
		// up to there.
		return s, true
	}
	// Repair at the tail takes a second or two; looking is cheap and rare.
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		r.mu.Lock()
		head, resets := r.head.Seq, r.resets
		right, sure := r.remembers(v, s.Position)
		r.mu.Unlock()
		if s.ahead = head < s.Seq; !s.ahead || resets != s.resets {
			return s, resets == s.resets && (right || !sure)
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return s, true
		}
	}
}

// reaches reports whether a view's items have everything after a place. Room.mu is held.
func (r *Room) reaches(v *view, s resumePoint) bool {
	return s.resets == r.resets && s.Seq >= v.floor.Seq
}

const (
	idHash   = 4                 // characters of a comment's id that are of a hash
	idHashes = 36 * 36 * 36 * 36 // so many hashes
)

// CommentID is the id that a comment bears everywhere: its sequence in the log in base
// 36, and behind it four characters of the hash of its draft's ID. A log that has lost
// its end gives a sequence again, to another draft. It is [0-9a-z]{5,16} up to the
// sequence 36¹², which no log reaches.
func CommentID(seq uint64, draft string) string {
	var b [13 + idHash]byte
	id := strconv.AppendUint(b[:0], seq, 36)
	for n, unit := hash(draft)%idHashes, uint64(idHashes/36); unit > 0; unit /= 36 {
		id = append(id, "0123456789abcdefghijklmnopqrstuvwxyz"[n/unit%36])
	}
	return string(id)
}

// hash is FNV-1a, 64 bits, its halves folded: the low bits of the plain hash are weak.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h ^ h>>32
}

// commentID is the id of an event that is a comment. A record that somebody else has
// written may have no draft's ID: its time stands for it.
func commentID(e *Event) string {
	if e.ID == "" {
		return CommentID(e.Seq, strconv.FormatInt(e.At, 10))
	}
	return CommentID(e.Seq, e.ID)
}
