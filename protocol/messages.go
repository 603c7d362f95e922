package protocol

import "encoding/json"

// The types of the messages that a server sends.
const (
	TypeWelcome   = "welcome"
	TypeComments  = "comments"
	TypeViewers   = "viewers"
	TypeState     = "state"
	TypeOK        = "ok"
	TypeError     = "error"
	TypeGap       = "gap"
	TypeBeat      = "beat"
	TypeReconnect = "reconnect"
	TypeYou       = "you"
	TypeRenew     = "renew"
	TypeRemoved   = "removed"
	TypeRestored  = "restored"
)

// Message is what a server sends: one of *Welcome, *Comments, *Viewers, *State,
// *OK, *Error, *Gap, *Beat, *Reconnect, *YouNow, *Renew, *Removed,
// *Restored, *Moderation and *Event.
type Message interface{ messageType() string }

// Welcome is the first message of a connection. It is the only personal one
// besides the answers to one's own requests.
type Welcome struct {
	V       int    `json:"v"`
	Room    string `json:"room"`
	Session string `json:"session"` // offered again as ?session= it keeps the identity over reconnects
	You     You    `json:"you"`
	Now     int64  `json:"now"` // the server's clock, Unix milliseconds
	// Recovered says that everything after the cursor offered as ?since= follows.
	// False: the connection starts from now, with the recent comments.
	Recovered bool   `json:"recovered"`
	BeatMS    int64  `json:"beat_ms"` // how often the viewer sends a beat
	Limits    Limits `json:"limits"`
	// Watch is what is kept of who watches: [WatchOff], [WatchTotals] or [WatchUsers]; empty where the room does not know it yet.
	Watch string `json:"watch,omitempty"`
}

// You says who the server takes the viewer for.
type You struct {
	ID   string   `json:"id"`
	Name string   `json:"name"`
	Role Role     `json:"role"`
	Can  []string `json:"can"`
	// User is one's own id, where the room sees another one: ID.
	User string `json:"user,omitempty"`
	// Avatar is the address of one's picture, as others get it.
	Avatar string `json:"avatar,omitempty"`
	Ends   int64  `json:"ends,omitempty"` // when the token ends, Unix milliseconds; 0: there is none
	// Blocked says why one may not comment now; nil: one may, as far as the room is concerned.
	Blocked *Blocked `json:"blocked,omitempty"`
}

// YouNow says who the server takes the viewer for now, when that or its limits have changed.
type YouNow struct {
	You
	Limits Limits `json:"limits"`
}

// Renew asks for a fresh token, by [AuthRequest], before the one that counts ends.
type Renew struct {
	Ends int64 `json:"ends"` // when that is, Unix milliseconds
}

// Limits are those of this viewer in this room.
type Limits struct {
	Text  int     `json:"text"`  // code points of a comment, after NFC
	PerS  float64 `json:"per_s"` // comments a second, sustained; finite
	Burst int     `json:"burst"` // comments at once
}

// Comments carries comments in the room's order.
type Comments struct {
	Cursor  string    `json:"cursor"`            // where to resume after these
	Before  string    `json:"before,omitempty"`  // over HTTP: where to go on backwards; empty where nothing earlier is kept
	History bool      `json:"history,omitempty"` // they were said before this connection came
	Items   []Comment `json:"items"`
	// Shown of Of comments of this stretch are in Items; both are 0 when all are.
	Shown int `json:"shown,omitempty"`
	Of    int `json:"of,omitempty"`
	// Messages, over HTTP, are the messages of other types that viewers were sent among these
	// comments, in their order.
	Messages []json.RawMessage `json:"messages,omitempty"`
}

// Comment is one comment as everybody in the room receives it.
type Comment struct {
	ID      string `json:"id,omitempty"` // [0-9a-z]{1,16}, unique in the room
	At      int64  `json:"at,omitempty"` // the log's clock, Unix milliseconds
	User    User   `json:"user"`
	Text    string `json:"text"`
	MediaMS *int64 `json:"media_ms,omitempty"` // position in the programme, milliseconds
	Style   *Style `json:"style,omitempty"`
	// Data is the application's own, a JSON object of at most [MaxCommentData] bytes.
	Data json.RawMessage `json:"data,omitempty"`
}

// User is the author of a comment.
type User struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
	Role Role   `json:"role,omitempty"` // left out for viewers
	// Avatar is the https address of a picture, on one of the hosts that the operator allows.
	Avatar string `json:"avatar,omitempty"`
	// Confusable says that the name looks like that of one of the room's staff. Part of the id
	// stands behind it.
	Confusable bool `json:"confusable,omitempty"`
}

// Style is how a comment wants to be drawn over the programme. The empty value
// of a field is its first one.
type Style struct {
	Position string `json:"position,omitempty"` // scroll, top, bottom
	Size     string `json:"size,omitempty"`     // medium, small, big
	Color    string `json:"color,omitempty"`    // #rrggbb
}

// Viewers is the true number of viewers of the room, over all nodes.
type Viewers struct {
	Connections int   `json:"connections"`
	Users       int   `json:"users"`      // distinct
	PeakUsers   int   `json:"peak_users"` // the most so far
	At          int64 `json:"at"`         // when it was counted, Unix milliseconds
}

// OK answers a request that was done. For a comment: it is in the room's log.
type OK struct {
	Ref string `json:"ref"`
	ID  string `json:"id,omitempty"`
	// For an act: its id, and the cursor behind it. Whoever has passed that is not shown what the
	// act hides.
	Act    string `json:"act,omitempty"`
	Cursor string `json:"cursor,omitempty"`
	Rev    uint64 `json:"rev,omitempty"` // for a change of the state: its new revision
}

// Error answers a request that was not done, or a message that was no request
// at all (then without ref).
type Error struct {
	Ref     string    `json:"ref,omitempty"`
	Code    ErrorCode `json:"code"`
	Message string    `json:"message"`
	RetryMS int64     `json:"retry_ms,omitempty"` // after which to try again; 0: not said
	Sanction
	State json.RawMessage `json:"state,omitempty"` // of a conflict: the state as it is
}

// Error makes an Error an error.
func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Gap tells of comments that this viewer was not sent.
type Gap struct {
	Missed int    `json:"missed,omitempty"` // 0 when the number is not known
	Cursor string `json:"cursor"`           // where to resume behind the gap
}

// Beat is the answer to a beat.
type Beat struct {
	Now int64 `json:"now"` // the server's clock, Unix milliseconds
}

// Reconnect asks to come back after that time: this node is leaving, or what the viewer is has
// changed.
type Reconnect struct {
	AfterMS int64 `json:"after_ms"` // milliseconds
}

func (*Welcome) messageType() string   { return TypeWelcome }
func (*Comments) messageType() string  { return TypeComments }
func (*Viewers) messageType() string   { return TypeViewers }
func (*State) messageType() string     { return TypeState }
func (*OK) messageType() string        { return TypeOK }
func (*Error) messageType() string     { return TypeError }
func (*Gap) messageType() string       { return TypeGap }
func (*Beat) messageType() string      { return TypeBeat }
func (*Reconnect) messageType() string { return TypeReconnect }
func (*YouNow) messageType() string    { return TypeYou }
func (*Renew) messageType() string     { return TypeRenew }
