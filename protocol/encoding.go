package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

// Encode encodes a message for a viewer.
func Encode(m Message) []byte { return encode(m.messageType(), m) }

// encode puts the type in front of the fields of v, a pointer to a struct.
func encode(typ string, v any) []byte {
	fields := marshal(v)
	out := make([]byte, 0, len(fields)+len(typ)+12)
	out = append(out, `{"type":"`...)
	out = append(out, typ...)
	out = append(out, '"')
	if len(fields) > 2 {
		out = append(out, ',')
	}
	return append(out, fields[1:]...)
}

// marshal is json.Marshal without the escapes that only HTML needs. The types of
// this package cannot fail to encode.
func marshal(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("protocol: %T: %v", v, err))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// Decode decodes a message that a server sent. A type that this version does not
// know is nil without an error: receivers ignore it.
func Decode(p []byte) (Message, error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(p, &head); err != nil {
		return nil, fmt.Errorf("protocol: decode message: %w", err)
	}
	var m Message
	switch head.Type {
	case TypeWelcome:
		m = new(Welcome)
	case TypeComments:
		m = new(Comments)
	case TypeViewers:
		m = new(Viewers)
	case TypeState:
		m = new(State)
	case TypeOK:
		m = new(OK)
	case TypeError:
		m = new(Error)
	case TypeGap:
		m = new(Gap)
	case TypeBeat:
		m = new(Beat)
	case TypeReconnect:
		m = new(Reconnect)
	default:
		return nil, nil
	}
	if err := json.Unmarshal(p, m); err != nil {
		return nil, fmt.Errorf("protocol: decode %s: %w", head.Type, err)
	}
	return m, nil
}

// EncodeBody encodes what the room log keeps of a comment: everything but its id
// and time, which the log gives.
func EncodeBody(c Comment) []byte {
	c.ID, c.At = "", 0
	return marshal(&c)
}

// AppendItem appends the item of one event to dst: the fields of body, a JSON
// object as [EncodeBody] makes it, behind the id and the time that the log gave.
func AppendItem(dst []byte, id string, at int64, body []byte) []byte {
	dst = append(dst, `{"id":"`...)
	dst = append(dst, id...)
	dst = append(dst, `","at":`...)
	dst = strconv.AppendInt(dst, at, 10)
	dst = append(dst, ',')
	return append(dst, body[1:]...)
}

// AppendComments appends a comments message with items that are encoded already.
func AppendComments(dst []byte, cursor string, history bool, items [][]byte) []byte {
	dst = append(dst, `{"type":"comments","cursor":"`...)
	dst = append(dst, cursor...)
	dst = append(dst, '"')
	if history {
		dst = append(dst, `,"history":true`...)
	}
	dst = append(dst, `,"items":[`...)
	for i, it := range items {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, it...)
	}
	return append(dst, "]}"...)
}

func bad(ref, format string, a ...any) *Error {
	return &Error{Ref: ref, Code: CodeBadMessage, Message: fmt.Sprintf(format, a...)}
}

// describe says what encoding/json found wrong, without Go's names for it.
func describe(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if e.Field == "" {
			return "it is a " + e.Value
		}
		return e.Field + " must not be a " + e.Value
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("%s at byte %d", e.Error(), e.Offset)
	}
	return err.Error()
}

func firstByte(p []byte) byte {
	p = bytes.TrimLeft(p, " \t\r\n")
	if len(p) == 0 {
		return 0
	}
	return p[0]
}
