package edge

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/kansei-live/kansei/protocol"
)

// person is who somebody is in one room.
type person struct {
	id, name string
	role     protocol.Role
	comment  bool  // may comment
	guest    bool  // there is no token
	aside    bool  // may be in no count
	ends     int64 // the last second in which the token holds, Unix seconds; 0: there is no end
}

// can lists what a person may do, as the welcome says it.
func (p *person) can() []string {
	can := []string{}
	if p.comment {
		can = append(can, protocol.CanComment)
	}
	if p.runs() {
		can = append(can, protocol.CanSet)
	}
	if p.aside {
		can = append(can, protocol.CanBeUncounted)
	}
	return can
}

// runs reports whether a person may change the room's state.
func (p *person) runs() bool {
	return p.role == protocol.RoleBroadcaster || p.role == protocol.RoleModerator
}

// verdict is a refusal that concerns the viewer: over WebSocket a close code, over
// HTTP a problem.
type verdict struct {
	close   protocol.CloseCode
	code    protocol.ErrorCode
	message string
	retryMS int64
}

// identify says who makes a request about a room. session names a guest: the same
// session is the same guest.
func (s *Server) identify(r *http.Request, room, session string) (person, *verdict) {
	if !protocol.ValidRoom(room) {
		return person{}, &verdict{protocol.CloseNoRoom, protocol.CodeNoRoom,
			"a room name is 1 to 64 of A-Z a-z 0-9 _ -, the first a letter or digit", 0}
	}
	t, given := token(r)
	if !given {
		return s.guest(session)
	}
	claims, err := s.cfg.Tokens.Verify(t, room)
	if err != nil {
		return person{}, s.refuseToken(room, err)
	}
	return person{
		id: claims.Subject, name: claims.Name, role: claims.Role,
		comment: claims.Role != protocol.RoleMonitor, ends: endOf(claims),
		aside: claims.Role.Staff() || slices.Contains(claims.Can, protocol.CanBeUncounted),
	}, nil
}

func (s *Server) guest(session string) (person, *verdict) {
	if s.cfg.Guests == GuestsNone || session == "" {
		s.cfg.Metrics.tokens.WithLabelValues(string(causeMissing), "").Inc()
		return person{}, unauthorized("a token is needed")
	}
	// The id tells nothing of the session, which is the guest's own secret.
	id, name := s.cfg.GuestIDs.Guest(session)
	return person{
		id: id, name: name, role: protocol.RoleViewer,
		comment: s.cfg.Guests == GuestsComment, guest: true,
	}, nil
}

// sessionOf returns the session that a request goes on with, or a new one.
func (s *Server) sessionOf(q url.Values) string {
	if id := q.Get("session"); protocol.ValidSession(id) {
		return id
	}
	return s.cfg.GuestIDs.Session()
}
