package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Encode encodes a message for a viewer. Lists that are nil are encoded as empty.
func Encode(m Message) []byte {
	switch v := m.(type) {
	case *Welcome:
		if v.You.Can == nil {
			c := *v
			c.You.Can = []string{}
			m = &c
		}
	case *YouNow:
		if v.Can == nil {
			c := *v
			c.Can = []string{}
			m = &c
		}
	case *Comments:
		if v.Items == nil {
			c := *v
			c.Items = []Comment{}
			m = &c
		}
	case *Restored:
		if v.Items == nil {
			m = &Restored{Items: []Comment{}, Events: v.Events}
		}
	}
	return encode(m.messageType(), m)
}

// encode puts the type in front of the fields of v, a pointer to a struct.
func encode(typ string, v any) []byte {
	var b bytes.Buffer
	b.Grow(320) // a welcome
	b.WriteString(`{"type":`)
	if strings.Trim(typ, "abcdefghijklmnopqrstuvwxyz_") == "" { // all types of this version
		b.WriteByte('"')
		b.WriteString(typ)
		b.WriteByte('"')
	} else {
		appendJSON(&b, typ)
	}
	head := b.Len()
	appendJSON(&b, v)
	// The fields go on where the type ended.
	out := b.Bytes()
	if out[head+1] == '}' {
		return append(out[:head], '}')
	}
	out[head] = ','
	return out
}

// appendJSON is json.Marshal without the escapes that only HTML needs. What this
// package encodes cannot fail to be encoded, as long as [Limits.PerS] is finite.
func appendJSON(b *bytes.Buffer, v any) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("protocol: %T: %v", v, err))
	}
	b.Truncate(b.Len() - 1) // the line break
}

// Decode decodes a message that a server sent. A type that this version does not
// know is nil without an error: receivers ignore it.
func Decode(p []byte) (Message, error) {
	typ, bad := messageType(p)
	if bad != nil {
		return nil, fmt.Errorf("protocol: decode message: %s", bad.Message)
	}
	var m Message
	switch typ {
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
	case TypeYou:
		m = new(YouNow)
	case TypeRenew:
		m = new(Renew)
	case TypeRemoved:
		m = new(Removed)
	case TypeRestored:
		m = new(Restored)
	case TypeEvent:
		m = new(Event)
	case TypeModeration:
		m = new(Moderation)
	default:
		if !json.Valid(p) {
			return nil, fmt.Errorf("protocol: decode %s: not JSON", typ)
		}
		return nil, nil
	}
	if err := json.Unmarshal(p, m); err != nil {
		return nil, fmt.Errorf("protocol: decode %s: %w", typ, err)
	}
	return m, nil
}

// messageType returns the type of a message. Servers put it first, so that it can
// be told without reading the whole message.
func messageType(p []byte) (string, *Error) {
	if rest, ok := bytes.CutPrefix(p, []byte(`{"type":"`)); ok {
		if typ, _, ok := bytes.Cut(rest, []byte(`",`)); ok && isToken(string(typ), MaxType) {
			return string(typ), nil
		}
	}
	if err := checkObject(p); err != nil {
		return "", err
	}
	var typ string
	if err := readFields(p, "", field{name: "type", into: &typ, want: wantString}); err != nil {
		return "", err
	}
	if typ == "" {
		return "", bad("the message has no type")
	}
	return typ, nil
}

// EncodeBody encodes what the room log keeps of a comment: everything but its id
// and time, which the log gives. The role of a viewer is left out.
func EncodeBody(c Comment) []byte {
	c.ID, c.At = "", 0
	if c.User.Role == RoleViewer {
		c.User.Role = ""
	}
	var b bytes.Buffer
	appendJSON(&b, &c)
	return b.Bytes()
}

// ReplaceUser returns the body of a comment, as [EncodeBody] makes it, with another id of its
// author; nil if it has no author that can be read. What this version does not know of it stays.
func ReplaceUser(body []byte, other func(id string) string) []byte {
	const usual = `{"user":{"id":"`
	if rest, is := bytes.CutPrefix(body, []byte(usual)); is {
		if end := bytes.IndexByte(rest, '"'); end >= 0 && bytes.IndexByte(rest[:end], '\\') < 0 {
			id := other(string(rest[:end]))
			out := append(make([]byte, 0, len(body)+len(id)), `{"user":{"id":`...)
			return append(append(out, quoted(id)...), rest[end+1:]...)
		}
	}
	var fields, user map[string]json.RawMessage
	var id string
	if json.Unmarshal(body, &fields) != nil || json.Unmarshal(fields["user"], &user) != nil || json.Unmarshal(user["id"], &id) != nil {
		return nil
	}
	user["id"] = quoted(other(id))
	var b bytes.Buffer
	appendJSON(&b, user)
	fields["user"] = b.Bytes()
	var out bytes.Buffer
	appendJSON(&out, fields)
	return out.Bytes()
}

// AuthorOf returns the id and the role of the author of a comment, out of its body as [EncodeBody]
// makes it; both are empty when it has none that can be read.
func AuthorOf(body []byte) (id string, role Role) {
	const usual = `{"user":{"id":"`
	if rest, is := bytes.CutPrefix(body, []byte(usual)); is {
		end := bytes.IndexByte(rest, '"')
		if end >= 0 && bytes.IndexByte(rest[:end], '\\') < 0 && !bytes.Contains(body, []byte(`"role":`)) {
			return string(rest[:end]), ""
		}
	}
	var of struct {
		User User `json:"user"`
	}
	if json.Unmarshal(body, &of) != nil {
		return "", ""
	}
	return of.User.ID, of.User.Role
}

// quoted is a text as JSON.
func quoted(s string) []byte {
	var b bytes.Buffer
	appendJSON(&b, s)
	return b.Bytes()
}

// AppendItem appends the item of one event to dst: the fields of body, a JSON
// object as [EncodeBody] makes it, behind the id and the time that the log gave.
func AppendItem(dst []byte, id string, at int64, body []byte) []byte {
	dst = append(dst, `{"id":"`...)
	dst = append(dst, id...)
	dst = append(dst, `","at":`...)
	dst = strconv.AppendInt(dst, at, 10)
	if len(body) <= len("{}") {
		return append(dst, '}')
	}
	dst = append(dst, ',')
	return append(dst, body[1:]...)
}

// AppendComments appends a comments message with items that are encoded already.
func AppendComments(dst []byte, cursor string, history bool, items [][]byte) []byte {
	return appendComments(dst, cursor, "", history, items)
}

// AppendPage is AppendComments for a piece of the past that somebody reads over HTTP:
// before is where to go on backwards, or empty. messages are those that a viewer was sent
// beside the comments, encoded already.
func AppendPage(dst []byte, cursor, before string, items, messages [][]byte) []byte {
	dst = appendComments(dst, cursor, before, true, items)
	if len(messages) == 0 {
		return dst
	}
	dst = appendList(append(dst[:len(dst)-1], `,"messages":[`...), messages)
	return append(dst, "]}"...)
}

func appendComments(dst []byte, cursor, before string, history bool, items [][]byte) []byte {
	dst = append(dst, `{"type":"comments","cursor":"`...)
	dst = append(dst, cursor...)
	dst = append(dst, '"')
	if before != "" {
		dst = append(dst, `,"before":"`...)
		dst = append(dst, before...)
		dst = append(dst, '"')
	}
	if history {
		dst = append(dst, `,"history":true`...)
	}
	dst = appendList(append(dst, `,"items":[`...), items)
	return append(dst, "]}"...)
}

// appendList appends JSON values with commas between them.
func appendList(dst []byte, values [][]byte) []byte {
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, v...)
	}
	return dst
}

// AppendSample is AppendComments for a stretch of of comments of which not all are
// shown: those in items are.
func AppendSample(dst []byte, cursor string, of int, items [][]byte) []byte {
	dst = AppendComments(dst, cursor, false, items)
	if of <= len(items) {
		return dst
	}
	dst = dst[:len(dst)-1]
	if len(items) > 0 {
		dst = append(dst, `,"shown":`...)
		dst = strconv.AppendInt(dst, int64(len(items)), 10)
	}
	dst = append(dst, `,"of":`...)
	dst = strconv.AppendInt(dst, int64(of), 10)
	return append(dst, '}')
}
