package protocol

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// TypeEvent is the type of an event of the application, both ways.
const TypeEvent = "event"

// Limits of events, and of the data of comments.
const (
	MaxEventName   = 32      // bytes of the name of an event
	MaxEventData   = 4 << 10 // bytes of the data of an event
	MaxCommentData = 1 << 10 // bytes of the data of a comment
)

// Audiences of an event: everybody when it is left out; one user by [AudienceUser] and the id.
const (
	AudienceStaff = "staff"
	AudienceUser  = "user:"
)

// Event is an event of the application, as those who see it receive it: a gift, a question, a
// slide that was turned. The server gives it a place among the comments, and knows nothing of what it
// means.
type Event struct {
	ID       string          `json:"id,omitempty"` // as that of a comment
	At       int64           `json:"at,omitempty"` // the log's clock, Unix milliseconds
	User     User            `json:"user"`         // who has published it
	Name     string          `json:"name"`         // [A-Za-z0-9_-]{1,32}
	Data     json.RawMessage `json:"data,omitempty"`
	Audience string          `json:"audience,omitempty"`
	// Lasting says that the latest one of the name is told to whoever comes later.
	Lasting bool `json:"lasting,omitempty"`
	// Cursor is where to resume behind it; empty when it is told to somebody who has come later, and
	// when it is back.
	Cursor string `json:"cursor,omitempty"`
}

func (*Event) messageType() string { return TypeEvent }

// EventRequest asks to publish an event.
type EventRequest struct {
	Ref      string          `json:"ref,omitempty"`
	Name     string          `json:"name"`
	Data     json.RawMessage `json:"data,omitempty"` // a JSON object
	Audience string          `json:"audience,omitempty"`
	Lasting  bool            `json:"lasting,omitempty"`
}

func (*EventRequest) requestType() string { return TypeEvent }

// EventPost is the body of POST /v1/rooms/{room}/events: an event, and who publishes it if not the
// token's user.
type EventPost struct {
	EventRequest
	User *User `json:"user,omitempty"` // without role
}

// ValidEventName reports whether name is one of an event: [A-Za-z0-9_-]{1,32}.
func ValidEventName(name string) bool { return isToken(name, MaxEventName) }

// DecodeEvent decodes an [EventPost]. Its error is always an *[Error].
func DecodeEvent(p []byte) (*EventPost, error) {
	post, err := decodeEventPost(p)
	if err != nil {
		return nil, err
	}
	return post, nil
}

func decodeEventPost(p []byte) (*EventPost, *Error) {
	e, u, err := readPost(p, decodeEvent)
	if err != nil {
		return nil, err
	}
	return &EventPost{EventRequest: *e, User: u}, nil
}

func decodeEvent(p []byte, ref string, more ...field) (*EventRequest, *Error) {
	e := &EventRequest{Ref: ref}
	err := readFields(p, "", append(more,
		field{name: "name", into: &e.Name, want: wantString},
		field{name: "data", into: &e.Data, want: wantObject},
		field{name: "audience", into: &e.Audience, want: wantString},
		field{name: "lasting", into: &e.Lasting, want: wantBool},
	)...)
	if err != nil {
		return nil, err
	}
	if !ValidEventName(e.Name) {
		return nil, bad("name must be 1 to %d of A-Z a-z 0-9 _ -, not %.40q", MaxEventName, e.Name)
	}
	if e.Data, err = readData(e.Data, MaxEventData); err != nil {
		return nil, err
	}
	user, one := strings.CutPrefix(e.Audience, AudienceUser)
	switch {
	case e.Audience == "all":
		e.Audience = ""
	case e.Audience == "", e.Audience == AudienceStaff:
	case one && user != "" && len(user) <= MaxAnyUser:
		if e.Lasting {
			return nil, bad("lasting and an audience of one user exclude each other")
		}
	default:
		return nil, bad("audience must be all, %s, or %s and the id of a user, not %.40q", AudienceStaff, AudienceUser, e.Audience)
	}
	return e, nil
}

// readData checks the application's own data, and returns a copy without white space between its parts.
func readData(p json.RawMessage, most int) (json.RawMessage, *Error) {
	if p == nil {
		return nil, nil
	}
	if p[0] != '{' {
		return nil, bad("data must be %s", wantObject)
	}
	var b bytes.Buffer
	_ = json.Compact(&b, p) // it is valid
	if b.Len() > most {
		return nil, &Error{Code: CodeTooLong, Message: fmt.Sprintf("data has %d bytes, at most %d are allowed", b.Len(), most)}
	}
	return b.Bytes(), nil
}

// EncodeEventBody encodes what the room log keeps of an event: everything but its id, its time and
// its audience.
func EncodeEventBody(e Event) []byte {
	e.ID, e.At, e.Audience, e.Cursor = "", 0, "", ""
	if e.User.Role == RoleViewer {
		e.User.Role = ""
	}
	var b bytes.Buffer
	appendJSON(&b, &e)
	return b.Bytes()
}

const (
	eventHead = `{"type":"event",`
	eventTail = `,"cursor":"`
)

// AppendEvent appends the message of an event: the fields of body, as [EncodeEventBody] makes it, behind
// what the log gave, and the cursor last.
func AppendEvent(dst []byte, id string, at int64, audience string, body []byte, cursor string) []byte {
	item := AppendItem(nil, id, at, body)
	dst = append(append(dst, eventHead...), item[1:len(item)-1]...)
	if audience != "" {
		dst = append(append(dst, `,"audience":`...), quoted(audience)...)
	}
	return append(append(append(dst, eventTail...), cursor...), `"}`...)
}

// PlainEvent returns a message as [AppendEvent] makes it without its cursor.
func PlainEvent(message []byte) []byte {
	n := bytes.LastIndex(message, []byte(eventTail))
	return append(append(make([]byte, 0, n+1), message[:n]...), '}')
}

// EventItem returns a message as [AppendEvent] makes it without its cursor and its type.
func EventItem(message []byte) []byte {
	return append([]byte{'{'}, PlainEvent(message)[len(eventHead):]...)
}

// EventOf reads the name of an event out of its body, as [EncodeEventBody] makes it, and whether it lasts; one that does
// not has none.
func EventOf(body []byte) (name string, lasting bool) {
	if !bytes.Contains(body, []byte(`"lasting":true`)) { // as almost always; data may say so too
		return "", false
	}
	var e struct {
		Name    string `json:"name"`
		Lasting bool   `json:"lasting"`
	}
	if json.Unmarshal(body, &e) != nil || !e.Lasting {
		return "", false
	}
	return e.Name, true
}
