package edge

import (
	"net/http"
	"slices"

	"github.com/kansei-live/kansei/internal/access"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// identity is who somebody is in one room.
type identity struct {
	id, name string
	avatar   string // empty: none that may be shown
	role     protocol.Role
	comment  bool // may comment
	guest    bool // there is no token
	aside    bool // may be in no count
	anybody  bool // may publish as anybody
	admin    bool // may say which tokens count, and make links
	member   bool // of whatever the room belongs to
	// everywhere says that the token or key is for all rooms.
	everywhere bool
	backEnd    bool // came with an API key
	token      tokenInfo
}

// trusted reports whether the limits of the staff count.
func (p *identity) trusted() bool { return p.backEnd || p.role.Runs() }

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
		can = append(can, protocol.CanSet, protocol.CanAct)
	}
	if p.aside {
		can = append(can, protocol.CanBeUncounted)
	}
	if p.anybody {
		can = append(can, protocol.CanPublishAs)
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
	c, no := s.credentials(t, room)
	if no != nil {
		return identity{}, no
	}
	if !auth.Matches(c.rooms, room) {
		return identity{}, s.refuseToken(room, auth.ErrRoom)
	}
	return c.identity, nil
}

// credentials is what somebody has shown: who it is, and for which rooms.
type credentials struct {
	identity
	rooms []string
}

// credentials reads a token or an API key, whatever rooms it is for. room is for the log.
func (s *Server) credentials(shown, room string) (credentials, *refusal) {
	if access.IsKey(shown) {
		k, err := s.cfg.Access.Find(shown)
		if err != nil {
			return credentials{}, s.refuseKey(err)
		}
		return credentials{ofKey(&k), k.Rooms}, nil
	}
	claims, err := s.cfg.Tokens.Read(shown)
	if err != nil {
		return credentials{}, s.refuseToken(room, err)
	}
	who := s.identityOf(claims)
	if s.revoked(&who) {
		return credentials{}, s.refuseRevoked()
	}
	return credentials{who, claims.Rooms}, nil
}

// ofKey is who a back end is that has shown an API key. It comments as a user of its own, whom no
// token can name.
func ofKey(k *access.Key) identity {
	p := identity{
		id: auth.KeyUsers + k.Name, name: k.Name, role: protocol.RoleViewer, backEnd: true,
		comment: k.Has(access.ScopePublish) || k.Has(access.ScopePublishAs), anybody: k.Has(access.ScopePublishAs),
		admin: k.Has(access.ScopeAdmin), everywhere: everywhere(k.Rooms),
	}
	switch {
	case k.Has(access.ScopeModerate):
		p.role = protocol.RoleModerator
	case k.Has(access.ScopeRead):
		p.role = protocol.RoleMonitor
	}
	return p
}

// identityOf is who a token says that somebody is.
func (s *Server) identityOf(c auth.Claims) identity {
	return identity{
		id: c.Subject, name: c.Name, avatar: s.avatar(c.Avatar), role: c.Role,
		comment: c.Role != protocol.RoleMonitor, token: infoOf(&c), member: c.Member, everywhere: everywhere(c.Rooms),
		aside:   c.Role.Staff() || slices.Contains(c.Can, protocol.CanBeUncounted),
		anybody: slices.Contains(c.Can, protocol.CanPublishAs),
	}
}

// you is an identity as its owner is told: under the id that the others in the room see, and that
// one's own comments bear.
func (s *Server) you(room string, p *identity) protocol.You {
	you := protocol.You{ID: p.id, Name: p.name, Role: p.role, Can: p.can(), Avatar: p.avatar, Ends: p.token.exp * 1000}
	if s.cfg.Pseudonyms != nil && !p.role.Staff() {
		you.ID, you.User = s.cfg.Pseudonyms.Of(room, p.id), p.id
	}
	return you
}

// real returns the id of a user whom somebody names who sees both: the staff, or a back end.
func (s *Server) real(id string) string {
	if s.cfg.Pseudonyms == nil {
		return id
	}
	return s.cfg.Pseudonyms.User(id)
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
