package edge

import (
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// crowdedRetry is when somebody is to come back who has too many connections: one of them
// must end first, and a dead one is found within 100 s.
const crowdedRetry = 10 * time.Second

// admit takes one more connection of somebody in a room. It returns what belongs to that
// user; whoever has it parts with it.
func (s *Server) admit(room string, who person) (*entry[user], *verdict) {
	if u := s.users.connect(user{room, who.id}, s.cfg.MaxPerUser, time.Now()); u != nil {
		return u, nil
	}
	return nil, crowded()
}

// crowded is the verdict on who has as many connections as a user may have.
func crowded() *verdict {
	return &verdict{protocol.CloseTooMany, protocol.CodeRateLimited, "too many connections of one user", crowdedRetry.Milliseconds()}
}

// part undoes admit.
func (s *Server) part(u *entry[user], role protocol.Role) {
	u.disconnect(s.rateOf(role), s.messageRate(role), time.Now())
}

func (s *Server) rateOf(role protocol.Role) Rate {
	if role == protocol.RoleBroadcaster || role == protocol.RoleModerator {
		return s.cfg.StaffRate
	}
	return s.cfg.ViewerRate
}

// messageRate limits messages of every kind, generously: a beat and its like are cheap.
// All the connections that a user may have can beat.
func (s *Server) messageRate(role protocol.Role) Rate {
	r := s.rateOf(role)
	beats := float64(s.cfg.MaxPerUser) / s.cfg.Beat.Seconds()
	return Rate{PerS: 2*r.PerS + 10 + beats, Burst: 2*r.Burst + 40}
}
