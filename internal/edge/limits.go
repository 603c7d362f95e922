package edge

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// crowdedRetry is when a user or an address with too many connections is to come back: one
// of them must end first, and a dead one is found within 100 s.
const crowdedRetry = 10 * time.Second

// admitAddress counts one more connection for the address of a request. It returns what
// belongs to that address, nil if it is nobody's; false if the address has as many as it may
// have. The caller undoes it with part.
func (s *Server) admitAddress(r *http.Request) (*address, bool) {
	group, somebody := s.cfg.Addresses.Of(r)
	if !somebody {
		return nil, true
	}
	a := s.addrs.connect(group, s.cfg.MaxPerAddress, time.Now())
	return a, a != nil
}

// addressFull reports whether the address of a request has as many connections as it may
// have.
func (s *Server) addressFull(r *http.Request) bool {
	group, somebody := s.cfg.Addresses.Of(r)
	return somebody && s.cfg.MaxPerAddress > 0 && s.addrs.connections(group) >= s.cfg.MaxPerAddress
}

// refuseCrowd answers who comes from an address that has too many connections, and tells
// the operator, for whom it may be a proxy that nothing was said of. The log holds no
// addresses.
func (s *Server) refuseCrowd(w http.ResponseWriter) {
	s.cfg.Metrics.refused.WithLabelValues(refusedAddress).Inc()
	s.quiet.Log(slog.LevelWarn, "refused a connection, for its address has as many as --max-per-address permits; if that is a proxy start with --trusted-proxy, if a large network with --exempt-network",
		"", "flag", "--max-per-address")
	writeProblem(w, 0, errCrowdedAddress(), 0)
}

// errCrowdedAddress refuses a viewer whose address has too many connections.
func errCrowdedAddress() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeRateLimited, Message: "too many connections from this address", RetryMS: crowdedRetry.Milliseconds()}
}

// admit counts one more connection of somebody in a room. It returns what belongs to that
// user, or why there may be no more. The caller undoes it with part.
func (s *Server) admit(room string, who person) (*entry[user], *verdict) {
	if u := s.users.connect(userOf(room, who.id), s.cfg.MaxPerUser, time.Now()); u != nil {
		return u, nil
	}
	return nil, crowded()
}

// crowded is the verdict on a user who has as many connections as a user may have.
func crowded() *verdict {
	return &verdict{protocol.CloseTooMany, protocol.CodeRateLimited, "too many connections of one user", crowdedRetry.Milliseconds()}
}

// part undoes admitAddress and admit, as far as there is anything to undo.
func (s *Server) part(a *address, u *entry[user], role protocol.Role) {
	now := time.Now()
	if a != nil {
		a.disconnect(s.cfg.GuestRate, Rate{}, now)
	}
	if u != nil {
		u.disconnect(s.rateOf(role), s.messageRate(role), now)
	}
}

// take takes a comment from the rates that it counts against, or says when there will be
// room for it.
func (s *Server) take(c comment) *protocol.Error {
	now := time.Now()
	if wait := c.user.takeComment(s.rateOf(c.person.role), now); wait > 0 {
		return tooMany("comments", wait)
	}
	if c.address == nil || !c.person.guest || s.cfg.GuestRate.PerS <= 0 {
		return nil
	}
	if wait := c.address.takeComment(s.cfg.GuestRate, now); wait > 0 {
		c.user.giveBackComment()
		s.quiet.Log(slog.LevelWarn, "refused a comment of a guest, for its address has had as many as --rate-guests permits; if that is a proxy start with --trusted-proxy, if a large network with --exempt-network",
			"", "flag", "--rate-guests")
		return tooMany("comments of guests from this address", wait)
	}
	return nil
}

// tooMany refuses what would be beyond a rate until some time has passed.
func tooMany(what string, wait time.Duration) *protocol.Error {
	ms := max(1, wait.Milliseconds())
	return &protocol.Error{Code: protocol.CodeRateLimited, RetryMS: ms,
		Message: fmt.Sprintf("too many %s; the next one in %.1f s", what, float64(ms)/1000)}
}

// ProxyRefused counts a connection of a trusted proxy that did not begin with the PROXY
// protocol, and logs it: the settings of proxy and node differ.
func (s *Server) ProxyRefused(proxy net.Addr, err error) {
	s.cfg.Metrics.refused.WithLabelValues(refusedProxy).Inc()
	address, _, _ := net.SplitHostPort(proxy.String())
	s.quiet.Log(slog.LevelWarn, "refused a connection of a trusted proxy; have it send the PROXY protocol, or start without --proxy-protocol",
		address, "proxy", address, "error", err)
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
