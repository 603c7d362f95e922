package edge

import (
	"net/http"
	"slices"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// identity is who somebody is in one room.
type identity struct {
	id, name string
	role     protocol.Role
	comment  bool // may comment
	guest    bool // there is no token
	aside    bool // may be in no count
	token    tokenInfo
}

// tokenInfo is what is kept of a token. Times are Unix seconds.
type tokenInfo struct {
	id     string // its own; may be empty
	issued int64  // 0: it does not say
	exp    int64  // its end as it says; 0: there is no token
	until  int64  // the last second in which it holds here
}

func infoOf(c *auth.Claims) tokenInfo {
	t := tokenInfo{id: c.ID, exp: c.Expires.Unix(), until: c.Until.Unix()}
	if !c.Issued.IsZero() {
		t.issued = c.Issued.Unix()
	}
	return t
}

// older reports whether a token was made before another one of the same user, or, where they do
// not say, ends before it.
func (t *tokenInfo) older(than *tokenInfo) bool {
	if t.issued > 0 && than.issued > 0 && t.issued != than.issued {
		return t.issued < than.issued
	}
	return t.exp < than.exp
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
	return identityOf(claims), nil
}

// identityOf is who a token says that somebody is.
func identityOf(c auth.Claims) identity {
	return identity{
		id: c.Subject, name: c.Name, role: c.Role,
		comment: c.Role != protocol.RoleMonitor, token: infoOf(&c),
		aside: c.Role.Staff() || slices.Contains(c.Can, protocol.CanBeUncounted),
	}
}

// you is the identity as its owner is told.
func (p *identity) you() protocol.You {
	return protocol.You{ID: p.id, Name: p.name, Role: p.role, Can: p.can(), Ends: p.token.exp * 1000}
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
