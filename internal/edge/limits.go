package edge

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"
	"unique"

	"github.com/kansei-live/kansei/protocol"
)

// crowdedAddress refuses a newcomer whose address has too many connections, and tells the
// operator: it may be a proxy that nothing was said of. The log holds no addresses.
func (s *Server) crowdedAddress() *refusal {
	s.quiet.Log(slog.LevelWarn, "refused a connection, for its address has as many as --max-per-address permits; if that is a proxy start with --trusted-proxy, if a large network with --exempt-network",
		"", "flag", "--max-per-address")
	return errCrowdedAddress()
}

func errCrowdedAddress() *refusal {
	return &refusal{code: protocol.CodeRateLimited, message: "too many connections from this address",
		retryMS: crowdedRetry.Milliseconds(), reason: refusedAddress, hard: true}
}

// take takes a comment from the rates that it counts against, or says when there will be
// room for it.
func (s *Server) take(c comment) *protocol.Error {
	now := time.Now()
	if c.identity.trusted() {
		if wait := c.user.takeComment(s.rateOf(c.identity), now); wait > 0 {
			return tooMany("comments", wait)
		}
		return nil
	}
	wait, ask := c.user.takeShare(s.rateOf(c.identity), now)
	if ask {
		s.shares.want(c.user)
	}
	if wait > 0 {
		return tooMany("comments", wait)
	}
	if s.roomFull(c.user.key.room, now) {
		c.user.giveBackComment()
		return &protocol.Error{Code: protocol.CodeRateLimited, RetryMS: 500 + rand.Int64N(1000), // or all come back at once
			Message: fmt.Sprintf("the room takes %d comments a second at most, of all its viewers", s.cfg.RoomLimit)}
	}
	rate, what, flag := s.cfg.AddressRate, "comments from this address", "--rate-address"
	if c.identity.guest {
		rate, what, flag = s.cfg.GuestRate, "comments of guests from this address", "--rate-guests"
	}
	if c.address == nil || rate.PerS <= 0 {
		return nil
	}
	take := c.address.takeMessage // of those with a token
	if c.identity.guest {
		take = c.address.takeComment
	}
	if wait := take(rate, now); wait > 0 {
		c.user.giveBackComment()
		s.quiet.Log(slog.LevelWarn, "refused a comment, for its address has had as many as "+flag+" permits; if that is a proxy start with --trusted-proxy, if a large network with --exempt-network",
			flag, "flag", flag)
		return tooMany(what, wait)
	}
	return nil
}

// roomFull takes a comment of a viewer from the rate of a room, or reports that there is no room for
// it. How many come through other nodes is known from the log, a little later; how many come through
// this one, at once.
func (s *Server) roomFull(room unique.Handle[string], now time.Time) bool {
	limit := s.cfg.RoomLimit
	if limit <= 0 {
		return false
	}
	if s.cfg.Hub.Rate(room.Value()) >= uint32(limit) {
		return true
	}
	rate := Rate{PerS: float64(limit), Burst: 1 + limit/4}
	e := s.rooms.hold(room, now)
	defer e.release(rate, Rate{}, now)
	return e.takeComment(rate, now) > 0
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

// limitsOf are the limits of somebody, who is told them.
func (s *Server) limitsOf(p *identity) protocol.Limits {
	rate := s.rateOf(p)
	return protocol.Limits{Text: s.textLimit(p), PerS: rate.PerS, Burst: rate.Burst}
}

func (s *Server) rateOf(p *identity) Rate {
	if p.trusted() {
		return s.cfg.StaffRate
	}
	return s.cfg.ViewerRate
}

// messageRate limits messages of every kind, generously: a beat and its like are cheap.
// All the connections that a user may have can beat.
func (s *Server) messageRate(p *identity) Rate {
	r := s.rateOf(p)
	beats := float64(s.cfg.MaxPerUser) / s.cfg.Beat.Seconds()
	return Rate{PerS: 2*r.PerS + 10 + beats, Burst: 2*r.Burst + 40}
}

func (s *Server) textLimit(p *identity) int {
	if p.trusted() {
		return s.cfg.StaffText
	}
	return s.cfg.ViewerText
}
