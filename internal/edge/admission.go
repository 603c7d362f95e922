package edge

import (
	"net/http"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
)

// Admission decides who is let in: one function, in one order, from memory alone, and before
// anything is upgraded. It knows no transport. A newcomer gets a ticket or a refusal.

const (
	// fullRetry is when to come back to a node that is full.
	fullRetry = 5 * time.Second
	// crowdedRetry is when a user or an address with too many connections is to come back: one
	// of them must end first, and a dead one is found within 100 s.
	crowdedRetry = 10 * time.Second
)

// ticket is a place on this node: who has it, and what was counted for it. It is given back
// once, by release.
type ticket struct {
	identity
	server  *Server
	room    string
	session string       // its id
	user    *entry[user] // what belongs to its user
	address *address     // what belongs to its address; nil if that is nobody's
}

// refusal says why somebody is not let in.
type refusal struct {
	close   protocol.CloseCode // that says the same over WebSocket; 0: there is none
	code    protocol.ErrorCode
	message string
	retryMS int64
	reason  string // of the metric
	// hard refusals concern the node or the way, not the viewer. They are told before the
	// upgrade, so that a proxy can ask another node. A browser cannot read that, so all
	// others are told by a close code.
	hard    bool
	blocked *protocol.Blocked // what somebody is told who is banned; nil: it is no ban
}

// problem is the refusal as an HTTP answer tells it.
func (no *refusal) problem() *protocol.Error {
	e := &protocol.Error{Code: no.code, Message: no.message, RetryMS: no.retryMS}
	if no.blocked != nil {
		e.Sanction = no.blocked.Sanction
	}
	return e
}

// admit decides about a newcomer.
func (s *Server) admit(r *http.Request, room string) (*ticket, *refusal) {
	if no := s.closed(); no != nil {
		return nil, no
	}
	if !s.originAllowed(r) {
		return nil, s.foreign(r)
	}
	t := &ticket{server: s}
	var ok bool
	if t.address, ok = s.connectAddress(r); !ok {
		return nil, s.crowdedAddress()
	}
	// Nobody who is refused below takes the place of a viewer for longer than this.
	if n := s.viewers.Add(1); n > int64(s.cfg.MaxViewers) || s.egress.full() {
		t.release()
		return nil, full()
	}
	var no *refusal
	t.session = s.sessionOf(r)
	if t.identity, no = s.identify(r, room, t.session); no == nil && t.backEnd {
		no = unauthorized("an API key is for HTTP: a viewer comes with a token")
	}
	if no == nil {
		if t.user = s.users.connect(userOf(room, t.id), s.cfg.MaxPerUser, time.Now()); t.user == nil {
			no = crowded()
		}
	}
	if no != nil {
		t.release()
		return nil, no
	}
	if t.user.crowd(s.cfg.MaxPerUser, time.Now()) {
		s.shares.want(t.user)
	}
	t.room = t.user.key.room.Value() // the other one keeps the request alive, of which it is a piece
	return t, nil
}

// wouldAdmit is admit for somebody who only asks whether it would let them in, and has an
// identity already: nothing is counted.
func (s *Server) wouldAdmit(r *http.Request, room string, who identity) *refusal {
	switch {
	case s.leaving() != nil:
		return s.closed()
	// All who read without a token are one guest, for whom another may connect.
	case !who.guest && s.users.full(userOf(room, who.id), s.cfg.MaxPerUser):
		return crowded()
	case s.viewers.Load() >= int64(s.cfg.MaxViewers) || s.egress.full():
		return full()
	}
	group, somebody := s.cfg.Addresses.Of(r)
	if somebody && s.cfg.MaxPerAddress > 0 && s.addrs.connections(group) >= s.cfg.MaxPerAddress {
		return errCrowdedAddress()
	}
	return nil
}

// connectAddress counts one more connection for the address of a request. It returns what
// belongs to that address, nil if it is nobody's; false if the address has as many as it may
// have.
func (s *Server) connectAddress(r *http.Request) (*address, bool) {
	group, somebody := s.cfg.Addresses.Of(r)
	if !somebody {
		return nil, true
	}
	a := s.addrs.connect(group, s.cfg.MaxPerAddress, time.Now())
	return a, a != nil
}

// release gives back what was counted for a ticket.
func (t *ticket) release() {
	s, now := t.server, time.Now()
	s.viewers.Add(-1)
	if t.address != nil {
		t.address.disconnect(s.cfg.GuestRate, s.cfg.AddressRate, now)
	}
	if t.user != nil {
		t.user.disconnect(s.rateOf(&t.identity), s.messageRate(&t.identity), now)
	}
}

// sessionOf returns the session that a request goes on with, or a new one.
func (s *Server) sessionOf(r *http.Request) string {
	if id := r.URL.Query().Get("session"); protocol.ValidSession(id) {
		return id
	}
	return s.cfg.GuestIDs.Session()
}

// closed refuses every newcomer while this node drains; nil while it does not.
func (s *Server) closed() *refusal {
	if s.leaving() == nil {
		return nil
	}
	return &refusal{close: protocol.CloseRestart, code: protocol.CodeUnavailable, message: "this node is leaving",
		retryMS: comeBack.Milliseconds(), reason: refusedLeaving, hard: true}
}

// full refuses a viewer because the node is full, by viewers or by what it sends: viewers
// inside come first.
func full() *refusal {
	return &refusal{code: protocol.CodeUnavailable, message: "this node is full", retryMS: fullRetry.Milliseconds(), reason: refusedFull, hard: true}
}

// crowded refuses a user who has as many connections as a user may have.
func crowded() *refusal {
	return &refusal{close: protocol.CloseTooMany, code: protocol.CodeRateLimited, message: "too many connections of one user",
		retryMS: crowdedRetry.Milliseconds(), reason: refusedUser}
}

// serveWS is GET /v1/rooms/{room}/ws.
func (s *Server) serveWS(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	t, no := s.admit(r, r.PathValue("room"))
	if no != nil {
		s.refuse(w, r, no)
		return
	}
	conn, err := s.cfg.Sockets.Accept(w, r)
	if err != nil { // and it has been answered
		t.release()
		s.cfg.Metrics.refused.WithLabelValues(refusedHandshake).Inc()
		return
	}
	v := &session{ticket: *t, conn: conn}
	if v.role.Runs() {
		conn.Lengthen() // for acts on many comments
	}
	if !s.enroll(v) { // the node has begun to drain meanwhile
		t.release()
		s.refused.Add(1)
		s.turnAway(conn, s.closed())
		return
	}
	v.user.attach(v)
	if v.role.Runs() && s.cfg.Staff != nil {
		s.cfg.Staff.Spoke(v.room, protocol.User{ID: v.id, Name: v.name})
	}
	s.join(r, v, start)
}

// join takes a session that is enrolled into its room.
func (s *Server) join(r *http.Request, v *session, start time.Time) {
	query := r.URL.Query()
	since, started := query.Get("since"), false
	begin := func() {
		if !started {
			started = true
			v.conn.Start(v)
		}
	}
	came := v.identity // which a fresh token may change while it is joining
	v.apart = v.aside && query.Get("count") == "0"
	var (
		blocked *protocol.Blocked
		refused *refusal
	)
	limits, watch := s.limitsOf(&came), ""
	// The room knows its state and its acts by then, or nobody can be refused by them yet.
	admit := func(room *hub.Room) bool {
		refused, blocked = s.judge(room, &came)
		limits, watch = s.limitsIn(room, &came), s.watchOf(room)
		return refused == nil
	}
	recovered := s.cfg.Hub.Join(r.Context(), &v.Viewer, hub.Join{
		Room: v.room, User: v.id, Name: v.name, Role: v.role, Staff: v.role.Staff(), Uncounted: v.apart,
		Socket: v.conn, Since: since, Wait: begin, Admit: admit,
		Welcome: func(recovered bool) []byte { return v.welcome(&came, blocked, limits, watch, recovered) },
	})
	if refused != nil {
		s.cfg.Metrics.refused.WithLabelValues(refused.reason).Inc()
		begin()
		v.conn.Close(int(refused.close), protocol.CloseReason(refused.message, refused.retryMS))
		return
	}
	begin() // the answer to the handshake and all that Join has to say leave together
	s.keepWatch(r, query, v, watch)
	v.settle()
	if v.gone.Load() { // while it was joining
		v.Leave()
		v.watch.Leave(watchlog.EndLeft, 0)
	}
	s.cfg.Metrics.join(since != "", recovered, time.Since(start))
}
