package hub

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/kansei-live/kansei/protocol"
)

// KindComment is the kind of an event that is a comment.
const KindComment = "comment"

// Kind says what viewers get of the events of one kind other than comments.
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
	kind    *Kind // nil: it is a comment
}

// classify says who sees an event, and as what: the one place where that is decided, for
// what is shown live, what is recovered, and what is read over HTTP. It returns false if
// nobody does.
func (h *Hub) classify(e *Event) (sight, bool) {
	var s sight
	if e.Kind != KindComment {
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
	if s.kind == nil && s.user == "" && !inSample(e, h.cfg.RoomRate) {
		if who := author(e); !who.Role.Staff() {
			s.sampled, s.user = true, who.ID
		}
	}
	return s, true
}

// hasRole is in the body of a comment whose author has a role: one of the staff.
var hasRole = []byte(`"role":"`)

// hearStaff tells that one of the staff has said something.
func (r *Room) hearStaff(e *Event) {
	if r.hub.cfg.StaffSpoke == nil || !bytes.Contains(e.Body, hasRole) {
		return
	}
	if who := author(e); who.Role.Staff() {
		r.hub.cfg.StaffSpoke(r.name, who)
	}
}

// author reads the author out of a comment. Only those of comments that may be sampled out
// are read.
func author(e *Event) protocol.User {
	var body struct {
		User protocol.User `json:"user"`
	}
	if err := json.Unmarshal(e.Body, &body); err != nil {
		return protocol.User{} // nobody's comment
	}
	return body.User
}
