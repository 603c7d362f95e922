package edge

import (
	"net/http"
	"slices"

	"github.com/kansei-live/kansei/protocol"
)

// identity is who somebody is in one room.
type identity struct {
	id, name string
	role     protocol.Role
	comment  bool  // may comment
	guest    bool  // there is no token
	aside    bool  // may be in no count
	ends     int64 // the last second in which the token holds, Unix seconds; 0: there is no end
}

// can lists what somebody may do, as the welcome says it.
func (p *identity) can() []string {
	can := []string{}
	if p.comment {
		can = append(can, protocol.CanComment)
	}
	if p.role.Runs() {
		can = append(can, protocol.CanSet)
	}
	if p.aside {
		can = append(can, protocol.CanBeUncounted)
	}
	return can
}

// identify says who makes a request about a room. session names a guest: the same
// session is the same guest.
func (s *Server) identify(r *http.Request, room, session string) (identity, *refusal) {
	if !protocol.ValidRoom(room) {
		return identity{}, &refusal{close: protocol.CloseNoRoom, code: protocol.CodeNoRoom, reason: refusedRoom,
			message: "a room name is 1 to 64 of A-Z a-z 0-9 _ -, the first a letter or digit"}
	}
	t, given := token(r)
	if !given {
		return s.guest(session)
	}
	claims, err := s.cfg.Tokens.Verify(t, room)
	if err != nil {
		return identity{}, s.refuseToken(room, err)
	}
	return identity{
		id: claims.Subject, name: claims.Name, role: claims.Role,
		comment: claims.Role != protocol.RoleMonitor, ends: endOf(claims),
		aside: claims.Role.Staff() || slices.Contains(claims.Can, protocol.CanBeUncounted),
	}, nil
}

func (s *Server) guest(session string) (identity, *refusal) {
	if s.cfg.Guests == protocol.GuestsNone || session == "" {
		s.cfg.Metrics.tokens.WithLabelValues(string(causeMissing), "").Inc()
		return identity{}, unauthorized("a token is needed")
	}
	// The id tells nothing of the session, which is the guest's own secret.
	id, name := s.cfg.GuestIDs.Guest(session)
	return identity{
		id: id, name: name, role: protocol.RoleViewer,
		comment: s.cfg.Guests == protocol.GuestsComment, guest: true,
	}, nil
}
