package edge

import (
	"slices"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// A viewer who stays longer than a token holds sends a fresh one over the open connection.
const (
	// authEvery is how often a connection may send one: its signature may take longer to check
	// than everything else that a viewer asks for.
	authEvery = time.Second
	// movedWait is how long somebody whose role has changed is waited for, in seconds.
	movedWait = 2
)

// ask asks a viewer for a fresh token, as soon as it has its welcome.
func (v *session) ask() {
	v.asked.Store(true)
	if v.settled.Load() {
		v.askNow()
	}
}

// askNow asks what ask left to be asked, once.
func (v *session) askNow() {
	if v.asked.Swap(false) {
		v.server.cfg.Metrics.renewals.WithLabelValues(renewalAsked).Inc()
		v.send(&protocol.Renew{Ends: v.server.ends(v)})
	}
}

// ends is when the token of a session ends, in Unix milliseconds.
func (s *Server) ends(v *session) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return v.token.exp * 1000
}

// auth takes a fresh token of the same user.
//
// What follows from the role is decided when somebody comes in: the view of the room that they
// see, and whether they count. So one whose role has changed is told to come back, and until then
// may do no more than before and now.
func (v *session) auth(req *protocol.AuthRequest) {
	count := func(result string) { v.server.cfg.Metrics.renewals.WithLabelValues(result).Inc() }
	fresh, e := v.judge(req)
	if e != nil {
		count(renewalRefused)
		e.Ref = req.Ref
		v.send(e)
		return
	}
	count(renewalTaken)
	s, room := v.server, v.server.cfg.Hub.Find(v.room)
	before, limits := s.you(v.room, &v.identity), s.limitsIn(room, &v.identity)
	anew := fresh.role != v.role || v.apart && !fresh.aside
	v.renew(fresh, anew)
	if req.Ref != "" {
		v.send(&protocol.OK{Ref: req.Ref})
	}
	you, b := s.you(v.room, &v.identity), v.told.Load()
	if room != nil {
		b = s.blocked(room, &v.identity)
	}
	if !same(before, you) || s.limitsIn(room, &v.identity) != limits || !sameBlocked(v.told.Load(), b) {
		v.sayYou(&v.identity, b)
	}
	if anew {
		v.send(&protocol.Reconnect{AfterMS: 0})
	}
}

// judge returns who a token says that its bearer is, if it may take the place of the one that
// counts.
func (v *session) judge(req *protocol.AuthRequest) (identity, *protocol.Error) {
	s, now := v.server, time.Now()
	wait := authEvery - now.Sub(time.UnixMilli(v.authAt))
	switch {
	case wait > 0:
		return identity{}, tooMany("tokens", wait)
	case v.guest:
		return identity{}, &protocol.Error{Code: protocol.CodeForbidden, Message: "you came without a token: come in anew with it"}
	}
	v.authAt = now.UnixMilli()
	claims, err := s.cfg.Tokens.Verify(req.Token, v.room)
	if err != nil {
		return identity{}, s.refuseToken(v.room, err).problem()
	}
	fresh := s.identityOf(claims)
	switch {
	case s.revoked(&fresh):
		return identity{}, s.refuseRevoked().problem()
	case fresh.id != v.id:
		return identity{}, &protocol.Error{Code: protocol.CodeForbidden, Message: "the token is another user's"}
	case fresh.token.older(&v.token):
		return identity{}, &protocol.Error{Code: protocol.CodeForbidden, Message: "the token is older than the one that counts"}
	}
	return fresh, nil
}

// renew puts a fresh identity in the place of v's. Whoever is to come in anew is closed soon.
func (v *session) renew(fresh identity, anew bool) {
	s := v.server
	s.mu.Lock()
	defer s.mu.Unlock()
	v.identity = fresh
	if _, in := s.sessions[v]; !in {
		return // it is ending
	}
	s.expiry.remove(v)
	v.due = scheduleOf(&fresh.token, time.Now())
	if anew {
		at := time.Now().Unix() + movedWait
		v.due = schedule{at: at, until: at, moved: true}
	}
	s.expiry.add(v)
}

// same reports whether two say the same of somebody.
func same(a, b protocol.You) bool {
	return a.ID == b.ID && a.Name == b.Name && a.Role == b.Role && a.Avatar == b.Avatar && a.Ends == b.Ends && slices.Equal(a.Can, b.Can)
}
