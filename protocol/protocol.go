// Package protocol is Kansei's wire contract, version 1: the messages that a
// viewer and a server exchange, their limits, and the codes with which requests
// are refused and connections end. PROTOCOL.md beside this file is the same
// contract for people who write a client in another language.
//
// One WebSocket text message is one JSON object with a "type". The server
// decodes what viewers send with [DecodeRequest] and encodes what it sends with
// [Encode]; a client does the reverse with [EncodeRequest] and [Decode].
// Receivers ignore fields and types that they do not know.
//
// Besides, [DecodePost], [DecodeState], [Room] and [Problem] are the bodies of the
// HTTP entrances, [ErrorCode] and [CloseCode] the codes with what to do about them.
// What others send is read strictly: field names as they are written, no field
// twice, numbers within what every language can hold (fields.go).
//
// A comment is stored in the room log as the JSON object of a [Comment] without
// its id and time, which only the log can give; [AppendItem] joins the two. The
// result is encoded once and shared by everyone who receives it.
//
// The package depends on the standard library alone.
package protocol

// Version is the version that a welcome carries as "v".
const Version = 1

// Subprotocol is the WebSocket subprotocol that client and server must agree on.
const Subprotocol = "kansei.v1"

// BearerPrefix precedes a token that a browser offers as a second subprotocol.
const BearerPrefix = "bearer."

// Limits of the contract. What operators may set (text length, rates, message
// size) comes with the welcome instead.
const (
	MaxRoomName   = 64        // bytes of a room name
	MaxRef        = 64        // code points of a ref
	MaxCursor     = 40        // bytes of a cursor
	MaxID         = 16        // bytes of a comment id
	MaxActID      = 32        // bytes of the id of an act
	MaxListCursor = 700       // bytes of a cursor of a list
	MaxUserID     = 64        // bytes of a user id
	MaxAnyUser    = 256       // bytes of a user id of another issuer, or of a pseudonym
	MaxUserName   = 64        // code points of a user name
	MaxSession    = 64        // bytes of a session
	MaxTitle      = 200       // code points of a room's title
	MaxNotice     = 1000      // code points of a room's notice, and of a pinned text
	MaxURL        = 2000      // bytes of a room's media_url
	MaxData       = 4 << 10   // bytes of a room's data
	MaxState      = 24 << 10  // bytes of a room's state in all
	MaxSlowMS     = 300_000   // of slow mode
	MaxDelayMS    = 60_000    // by which the audience is behind
	MaxText       = 7500      // code points of a comment: four bytes of each, and what is around them, are less than 32 KiB
	MaxType       = 64        // code points of the type of a request
	MaxMediaMS    = 1<<53 - 1 // the largest whole number that every JSON reader takes
)

// ValidRoom reports whether name is a room name: [A-Za-z0-9][A-Za-z0-9_-]{0,63}.
func ValidRoom(name string) bool {
	return name != "" && name[0] != '_' && name[0] != '-' && isToken(name, MaxRoomName)
}

// ValidCursor reports whether s has the form of a cursor: [A-Za-z0-9_-]{1,40}.
func ValidCursor(s string) bool { return isToken(s, MaxCursor) }

// ValidSession reports whether s has the form of a session: [A-Za-z0-9_-]{16,64}.
func ValidSession(s string) bool { return len(s) >= 16 && isToken(s, MaxSession) }

// ValidID reports whether s has the form of a comment's id: [0-9a-z]{5,16}.
func ValidID(s string) bool {
	if len(s) < 5 || len(s) > MaxID {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

func isToken(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}

// Role is a user's standing in a room.
type Role string

// The roles, from the least standing to the most; a monitor sees what the staff
// sees and does nothing.
const (
	RoleViewer      Role = "viewer"
	RoleMonitor     Role = "monitor"
	RoleModerator   Role = "moderator"
	RoleBroadcaster Role = "broadcaster"
)

// Valid reports whether r is one of the four roles.
func (r Role) Valid() bool {
	switch r {
	case RoleViewer, RoleMonitor, RoleModerator, RoleBroadcaster:
		return true
	}
	return false
}

// Staff reports whether r sees what is meant for the staff of a room.
func (r Role) Staff() bool { return r == RoleModerator || r == RoleBroadcaster || r == RoleMonitor }

// Rank is r's place in the order of standing, 0 for viewers. Nobody acts on who has their own rank
// or a higher one.
func (r Role) Rank() int {
	switch r {
	case RoleMonitor:
		return 1
	case RoleModerator:
		return 2
	case RoleBroadcaster:
		return 3
	}
	return 0
}

// Runs reports whether r may change a room's state.
func (r Role) Runs() bool { return r == RoleModerator || r == RoleBroadcaster }

// Guests says what somebody without a token may do.
type Guests string

// The settings of guests.
const (
	GuestsNone    Guests = "none" // nothing: a token is needed
	GuestsWatch   Guests = "watch"
	GuestsComment Guests = "comment"
)

// What a user may do, as listed in [You.Can].
const (
	CanComment = "comment"
	CanReact   = "react"
	CanSet     = "set"
	CanAct     = "act" // on others: remove, mute, ban, …
	// CanBeUncounted: with ?count=0 the connection is in no count.
	CanBeUncounted = "uncounted"
	// CanPublishAs: to publish comments of other users, over HTTP.
	CanPublishAs = "publish_as"
)
