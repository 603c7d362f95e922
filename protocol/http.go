package protocol

import (
	"encoding/json"
	"unicode/utf8"
)

// This file holds the bodies of the HTTP entrances that are no messages.

// Post is the body of POST /v1/rooms/{room}/comments: the fields of a comment
// request, without its type, and whose comment it is if not the token's user's.
type Post struct {
	CommentRequest
	User *User `json:"user,omitempty"` // without role
}

// DecodePost decodes a [Post]. Its error is always an *[Error] as
// [DecodeRequest] returns it.
func DecodePost(p []byte) (*Post, error) {
	post, err := decodePost(p)
	if err != nil {
		return nil, err
	}
	return post, nil
}

func decodePost(p []byte) (*Post, *Error) {
	c, u, err := readPost(p, decodeComment)
	if err != nil {
		return nil, err
	}
	return &Post{CommentRequest: *c, User: u}, nil
}

// readPost reads a request as decode does, and beside its fields whose it is. An error has the ref.
func readPost[T any](p []byte, decode func(p []byte, ref string, more ...field) (*T, *Error)) (*T, *User, *Error) {
	if err := checkObject(p); err != nil {
		return nil, nil, err
	}
	ref, err := readRef(p)
	if err != nil {
		return nil, nil, err
	}
	var user json.RawMessage
	req, err := decode(p, ref, field{name: "user", into: &user, want: wantObject})
	if err == nil {
		var u *User
		if u, err = readUser(user); err == nil {
			return req, u, nil
		}
	}
	err.Ref = ref
	return nil, nil, err
}

func readUser(p json.RawMessage) (*User, *Error) {
	if p == nil {
		return nil, nil
	}
	if p[0] != '{' {
		return nil, bad("user must be %s", wantObject)
	}
	var u User
	if err := readFields(p, "user.",
		field{name: "id", into: &u.ID, want: wantString},
		field{name: "name", into: &u.Name, want: wantString},
	); err != nil {
		return nil, err
	}
	switch {
	case u.ID == "" || len(u.ID) > MaxAnyUser:
		return nil, bad("user.id must be a string of 1 to %d bytes", MaxAnyUser)
	case utf8.RuneCountInString(u.Name) > MaxUserName:
		return nil, bad("user.name must be a string of at most %d characters", MaxUserName)
	}
	return &u, nil
}

// Posted is the answer to a [Post] that was done.
type Posted struct {
	ID string `json:"id"`
}

// DecodeState decodes the body of PUT /v1/rooms/{room}: the new state, with the
// revision of the one that it replaces. The length of the title is not judged
// here. Its error is always an *[Error].
func DecodeState(p []byte) (*State, error) {
	if err := checkObject(p); err != nil {
		return nil, err
	}
	var s State
	if err := readFields(p, "",
		field{name: "rev", into: &s.Rev, want: "a whole number, 0 or more"},
		field{name: "status", into: &s.Status, want: wantString},
		field{name: "title", into: &s.Title, want: wantString},
		field{name: "members", into: &s.Members, want: "true or false"},
	); err != nil {
		return nil, err
	}
	if !ValidStatus(s.Status) {
		return nil, bad("status must be %s, %s or %s, not %.20q", StatusScheduled, StatusLive, StatusEnded, s.Status)
	}
	return &s, nil
}

// Room is the answer to GET /v1/rooms/{room}.
type Room struct {
	Room    string   `json:"room"`
	State   State    `json:"state"`
	Viewers *Viewers `json:"viewers,omitempty"` // left out while not known
}

// Problem is the body of every HTTP response that is an error, as
// application/problem+json (RFC 9457).
type Problem struct {
	Title   string    `json:"title"`              // the status in words
	Status  int       `json:"status"`             // the HTTP status
	Detail  string    `json:"detail"`             // what was wrong this time, for people
	Code    ErrorCode `json:"code"`               // what was wrong, for programs
	RetryMS int64     `json:"retry_ms,omitempty"` // when to try again, if that may help
	// Close is the code with which a WebSocket to the same room with the same
	// token would be closed; left out when its upgrade would be refused.
	Close CloseCode `json:"close,omitempty"`
	Sanction
	State json.RawMessage `json:"state,omitempty"` // of a conflict: the state as it is
}

// HTTPStatus is the status of the HTTP response for a request that was not done.
func (c ErrorCode) HTTPStatus() int {
	switch c {
	case CodeUnauthorized:
		return 401
	case CodeForbidden, CodeMuted, CodeLocked, CodeBanned, CodeWarned:
		return 403
	case CodeNoRoom, CodeNoAct:
		return 404
	case CodeConflict:
		return 409
	case CodeTooLong, CodeEmpty, CodeNoLinks:
		return 422
	case CodeRateLimited, CodeSlowMode:
		return 429
	case CodeUnsupported:
		return 501
	case CodeUnavailable:
		return 503
	case CodeUnknownOutcome:
		return 504
	}
	return 400 // bad_message
}

// Revocation says which tokens are not to count any more: one of User, JTI and Before, or User and
// Before together.
type Revocation struct {
	User   string `json:"user,omitempty"`   // whose tokens; without Before, all that were issued up to now
	JTI    string `json:"jti,omitempty"`    // the token of this id
	Before int64  `json:"before,omitempty"` // those that were issued up to then, Unix seconds
	At     int64  `json:"at,omitempty"`     // in answers: when it was made, Unix seconds
	Until  int64  `json:"until,omitempty"`  // in answers: how long it is kept, Unix seconds
}

// LinkRequest asks for a token for somebody of the crew of a room.
type LinkRequest struct {
	Role  Role
	User  string   // left out: one that is made up
	Name  string   // left out: the role
	Can   []string // permissions beside what the role may
	ForMS int64    // how long it holds; left out: 12 hours
	// Page is the address of the page that is to be opened with the token; left out: none.
	Page string
}

// Link is the answer: a token, and the page with it.
type Link struct {
	Token string `json:"token"`
	JTI   string `json:"jti"`  // its id, to revoke it by
	User  string `json:"user"` // who its bearer is
	Ends  int64  `json:"ends"` // Unix milliseconds
	URL   string `json:"url,omitempty"`
	QR    *QR    `json:"qr,omitempty"`
}

// QR is a QR code of Size by Size squares; Path draws the dark ones, as the d of an SVG path.
type QR struct {
	Size int    `json:"size"`
	Path string `json:"path"`
}

// DecodeLink decodes the body of POST /v1/rooms/{room}/links. Its error is an *[Error].
func DecodeLink(p []byte) (*LinkRequest, error) {
	if err := checkObject(p); err != nil {
		return nil, err
	}
	l := new(LinkRequest)
	var role string
	if err := readFields(p, "",
		field{name: "role", into: &role, want: wantString},
		field{name: "user", into: &l.User, want: wantString},
		field{name: "name", into: &l.Name, want: wantString},
		field{name: "can", into: &l.Can, want: "a list of strings"},
		field{name: "for_ms", into: &l.ForMS, want: wantWhole},
		field{name: "page", into: &l.Page, want: wantString},
	); err != nil {
		return nil, err
	}
	if l.Role = Role(role); !l.Role.Valid() {
		return nil, bad("role must be viewer, monitor, moderator or broadcaster")
	}
	return l, nil
}

// Revocations is the answer to GET /v1/revocations.
type Revocations struct {
	Revocations []Revocation `json:"revocations"`
}

// DecodeRevocation decodes the body of POST /v1/revocations. Its error is an *[Error].
func DecodeRevocation(p []byte) (*Revocation, error) {
	if err := checkObject(p); err != nil {
		return nil, err
	}
	r := new(Revocation)
	if err := readFields(p, "",
		field{name: "user", into: &r.User, want: wantString},
		field{name: "jti", into: &r.JTI, want: wantString},
		field{name: "before", into: &r.Before, want: wantWhole},
	); err != nil {
		return nil, err
	}
	return r, nil
}

// Member is somebody who is in a room.
type Member struct {
	ID      string `json:"id"`
	Name    string `json:"name,omitempty"`
	Role    Role   `json:"role"`
	Since   int64  `json:"since"`   // Unix milliseconds
	Devices int    `json:"devices"` // connections; 0: the last one has just ended
	// FirstSeen is when the user was first seen in the room, Unix milliseconds; left out when
	// that is not known.
	FirstSeen int64 `json:"first_seen,omitempty"`
}

// Listing is what all lists have beside their entries.
type Listing struct {
	Cursor string `json:"cursor,omitempty"` // of the next page; empty: there is none
	// Stale says that the list cannot be read now, and AgeMS how old this page is.
	Stale bool  `json:"stale,omitempty"`
	AgeMS int64 `json:"age_ms,omitempty"`
}

// Members is the answer to GET /v1/rooms/{room}/viewers.
type Members struct {
	Users []Member `json:"users"`
	Listing
	// Generation is that of the [PresenceEvent]s which go on from here.
	Generation string `json:"generation,omitempty"`
	// Distinct is who has been in the broadcast that runs; nil if none does.
	Distinct *Distinct `json:"distinct,omitempty"`
}

// Distinct is how many distinct users a broadcast has had.
type Distinct struct {
	Broadcast int64   `json:"broadcast"`
	Users     int64   `json:"users"`
	Exact     bool    `json:"exact"`
	Error     float64 `json:"error,omitempty"` // the standard error of an estimate, as a part of users
}

// UserRoom is a room that a user is in.
type UserRoom struct {
	Room  string `json:"room"`
	Since int64  `json:"since"` // Unix milliseconds
}

// UserRooms is the answer to GET /v1/users/{user}/rooms.
type UserRooms struct {
	Rooms []UserRoom `json:"rooms"`
	Listing
}

// RoomUsers is a room and how many distinct users are in it.
type RoomUsers struct {
	Room  string `json:"room"`
	Users int    `json:"users"`
}

// Rooms is the answer to GET /v1/rooms?sort=users.
type Rooms struct {
	Rooms []RoomUsers `json:"rooms"`
	Listing
}

// PresenceEvent is a batch of joins and leaves of one room, for back ends. A user joins with the
// first connection to any node, and leaves some time after the last one has ended.
type PresenceEvent struct {
	V          int            `json:"v"`    // 1
	Type       string         `json:"type"` // presence
	Room       string         `json:"room"`
	Generation string         `json:"generation"` // with another one than before, events may be missing
	Seq        int64          `json:"seq"`        // rises within a generation; it has holes
	At         int64          `json:"at"`         // Unix milliseconds
	Joined     []PresenceUser `json:"joined,omitempty"`
	Left       []PresenceUser `json:"left,omitempty"`
}

// PresenceUser is who joins or leaves.
type PresenceUser struct {
	ID    string `json:"id"`
	Name  string `json:"name,omitempty"`
	Role  Role   `json:"role"`
	Since int64  `json:"since"`          // when the user came, Unix milliseconds
	Lost  bool   `json:"lost,omitempty"` // the user's node has died
}
