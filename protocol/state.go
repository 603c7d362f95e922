package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// The document of a room's state outlives the version of the node that wrote it: a node hands
// on what it does not know of it, and leaves it there when it changes the rest.

// stateFields are the fields of the document that this version knows, and those of its message.
var stateFields = []string{"type", "rev", "status", "title", "broadcast", "members", "degraded"}

// EncodeState encodes the message of a room's state: what s says, and from doc, the document
// that it was read from, all that this version does not know. doc may be nil, or no JSON
// object.
func EncodeState(doc []byte, s State) []byte { return withUnknown(doc, Encode(&s)) }

// MergeState returns the document that takes the place of doc: set, and what this version does
// not know of doc. One that makes the room live begins its next broadcast.
func MergeState(doc, set []byte) []byte {
	var before, after State
	if json.Unmarshal(set, &after) != nil {
		return set
	}
	_ = json.Unmarshal(doc, &before) // nothing, or what cannot be read: no broadcast has begun
	n := before.Broadcast
	if after.Status == StatusLive && before.Status != StatusLive {
		n++
	}
	if n > 0 && after.Broadcast == 0 && len(set) > 2 {
		set = fmt.Appendf(set[:len(set)-1:len(set)-1], `,"broadcast":%d}`, n)
	}
	return withUnknown(doc, set)
}

// withUnknown adds to an object those fields of doc that this version does not know and the
// object has not. What is no object is returned as it is.
func withUnknown(doc, object []byte) []byte {
	var more, has map[string]json.RawMessage
	if json.Unmarshal(doc, &more) != nil || json.Unmarshal(object, &has) != nil || len(has) == 0 {
		return object
	}
	for _, name := range stateFields {
		delete(more, name)
	}
	for name := range has {
		delete(more, name)
	}
	if len(more) == 0 {
		return object
	}
	var b bytes.Buffer
	b.Write(object[:len(object)-1])
	b.WriteByte(',')
	head := b.Len()
	appendJSON(&b, more)
	out := b.Bytes()
	copy(out[head:], out[head+1:]) // without the brace
	return out[:len(out)-1]
}
