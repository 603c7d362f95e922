package hub

import (
	"crypto/sha256"
	"encoding/base64"
	"strconv"
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

// CommentID is the id that the comment which the log has put at seq bears
// everywhere: the position in base 36, so [0-9a-z]{1,13}.
func CommentID(seq uint64) string { return strconv.FormatUint(seq, 36) }
