package client

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/kansei-live/kansei/protocol"
)

// readHead reads the type of a message, and the cursor if it carries one. Both
// stand first in what a Kansei server sends, so that no more than the beginning
// is looked at; another order of the fields is decoded whole.
func readHead(raw []byte) (typ, cursor []byte, err error) {
	typ, rest, ok := stringField(raw, `{"type":"`)
	if ok {
		switch string(typ) {
		case protocol.TypeWelcome, protocol.TypeViewers, protocol.TypeState, protocol.TypeOK,
			protocol.TypeError, protocol.TypeBeat, protocol.TypeReconnect:
			return typ, nil, nil // they have none
		}
		if cursor, _, ok = stringField(rest, `,"cursor":"`); ok && protocol.ValidCursor(string(cursor)) {
			return typ, cursor, nil
		}
	}
	var head struct {
		Type   string `json:"type"`
		Cursor any    `json:"cursor"` // another type's cursor may be something else
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if s, ok := head.Cursor.(string); ok && protocol.ValidCursor(s) {
		cursor = []byte(s)
	} else {
		cursor = nil
	}
	return []byte(head.Type), cursor, nil
}

// stringField returns the string that follows prefix at the beginning of p, and
// what follows it; not one with escapes.
func stringField(p []byte, prefix string) (value, rest []byte, ok bool) {
	if !bytes.HasPrefix(p, []byte(prefix)) {
		return nil, nil, false
	}
	p = p[len(prefix):]
	end := bytes.IndexByte(p, '"')
	if end < 0 || bytes.IndexByte(p[:end], '\\') >= 0 {
		return nil, nil, false
	}
	return p[:end], p[end+1:], true
}
