package hub

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/kansei-live/kansei/protocol"
)

// The kinds of events that somebody has said.
const (
	KindComment = "comment"
	KindEvent   = "event" // of the application: the body is made by [protocol.EncodeEventBody]
)

// Kind says what viewers get of the events of a further kind.
type Kind struct {
	// Message returns the message of an event: one JSON object, which bears the cursor.
	Message func(e *Event, cursor string) []byte
}

// Audiences of events.
const (
	AudienceAll   = "" // everybody in the room
	AudienceStaff = "staff"
	// AudienceUser precedes the id of the one user who gets the event.
	AudienceUser = "user:"
	// AudienceStaffAndUser precedes the id of the one user who gets it beside the staff.
	AudienceStaffAndUser = "staff+user:"
)

// sight is who sees an event.
type sight struct {
	views [2]bool // by the indices of a room's views
	user  string  // sees it too, whatever the view; empty: nobody
	// sampled says that the room had too many comments when this one was made: the views
	// are told that it exists, and only its author sees it.
	sampled bool
	kind    *Kind // nil: it is a comment, an event of the application, or an act
	act     bool

	// Of what somebody has said.
	see    sightOf
	author string
	rank   int
}

// classify says who sees an event, and as what: the one place where that is decided, for
// what is shown live, what is recovered, and what is read over HTTP. It returns false if
// nobody does.
// Room.mu is held: what acts hide is seen by nobody.
func (r *Room) classify(e *Event) (sight, bool) {
	var s sight
	h := r.hub
	switch e.Kind {
	case KindComment, KindEvent:
	case KindAct:
		s.act = true
	default:
		if s.kind = h.cfg.Kinds[e.Kind]; s.kind == nil {
			return s, false
		}
	}
	rest, staff := strings.CutPrefix(e.Audience, "staff+")
	user, one := strings.CutPrefix(rest, AudienceUser)
	switch {
	case e.Audience == AudienceAll:
		s.views = [2]bool{true, true}
	case e.Audience == AudienceStaff:
		s.views[staffView] = true
	case one && user != "":
		s.views[staffView], s.user = staff, user
	default:
		return s, false
	}
	if e.Kind != KindComment && e.Kind != KindEvent {
		return s, true
	}
	author, role := protocol.AuthorOf(e.Body)
	s.author, s.rank = author, role.Rank()
	s.see = r.visibleEvent(e, author, s.rank)
	if e.Kind == KindComment && s.user == "" && !inSample(e, h.cfg.RoomRate) && !role.Staff() {
		if s.see == hidden {
			return s, false // it would have been its author's alone
		}
		s.sampled, s.user = true, author
	}
	return s, true
}

// hearStaff tells that one of the staff has said something.
func (r *Room) hearStaff(e *Event) {
	if r.hub.cfg.StaffSpoke == nil {
		return
	}
	if who := author(e); who.Role.Staff() {
		r.hub.cfg.StaffSpoke(r.name, who)
	}
}

// CommentID is the id of an event that somebody has said.
func (e *Event) CommentID() string { return commentID(e) }

// CommentSeq is the position in the id of a comment; 0 when it has none.
func CommentSeq(id string) uint64 {
	seq, _ := seqOf(id)
	return seq
}

// StateDraft is the event that tells a room's log of its state.
func StateDraft(room string, s State) (Draft, error) {
	body, err := json.Marshal(struct {
		Rev   uint64          `json:"rev"`
		State json.RawMessage `json:"state"`
	}{s.Rev, s.Body})
	return Draft{ID: "state-" + strconv.FormatUint(hash(room), 36) + "-" + strconv.FormatUint(s.Rev, 36), Kind: KindState, Body: body}, err
}

// author reads the author out of a comment, whole.
func author(e *Event) protocol.User {
	var body struct {
		User protocol.User `json:"user"`
	}
	if err := json.Unmarshal(e.Body, &body); err != nil {
		return protocol.User{} // nobody's comment
	}
	return body.User
}
