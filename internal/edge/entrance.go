package edge

import (
	"net/http"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// fullRetry is when to come back to a node that is full.
const fullRetry = 5 * time.Second

// serveWS is GET /v1/rooms/{room}/ws.
func (s *Server) serveWS(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	room := r.PathValue("room")
	if no := s.closed(); no != nil {
		s.sendElsewhere(w, no)
		return
	}
	if !s.originAllowed(r) {
		// A page whose connection fails asks here why, and may read it: it holds nothing that
		// the page does not know.
		w.Header().Set("Access-Control-Allow-Origin", "*")
		s.refuseOrigin(w, r)
		return
	}
	a, ok := s.admitAddress(r)
	if !ok {
		s.refuseCrowd(w)
		return
	}
	if n := s.viewers.Add(1); n > int64(s.cfg.MaxViewers) || s.egress.full() {
		s.viewers.Add(-1)
		s.part(a, nil, "")
		s.cfg.Metrics.refused.WithLabelValues(refusedFull).Inc()
		writeProblem(w, 0, errFull(), 0)
		return
	}
	query := r.URL.Query()
	id := s.sessionOf(query)
	who, no := s.identify(r, room, id)
	var u *entry[user]
	if no == nil {
		if u, no = s.admit(room, who); u != nil {
			room = u.key.room.Value() // the other one keeps the request alive, of which it is a piece
		}
	}
	if no != nil {
		s.viewers.Add(-1) // nobody who is refused takes the place of a viewer
		s.part(a, nil, "")
		s.refuse(w, r, no)
		return
	}
	conn, err := s.cfg.Sockets.Accept(w, r)
	if err != nil { // and it has been answered
		s.viewers.Add(-1)
		s.part(a, u, who.role)
		s.cfg.Metrics.refused.WithLabelValues(refusedHandshake).Inc()
		return
	}
	v := &session{server: s, conn: conn, room: room, id: id, person: who, user: u, address: a}
	if !s.enroll(v) { // the node has begun to leave meanwhile
		s.viewers.Add(-1)
		s.part(a, u, who.role)
		s.refused.Add(1)
		s.turnAway(conn, s.closed())
		return
	}
	since := query.Get("since")
	started := false
	begin := func() {
		if !started {
			started = true
			conn.Start(v)
		}
	}
	recovered := s.cfg.Hub.Join(r.Context(), &v.Viewer, hub.Join{
		Room: room, User: who.id, Staff: who.role.Staff(), Uncounted: who.aside && query.Get("count") == "0", Socket: conn, Since: since, Wait: begin,
		Welcome: v.welcome,
	})
	begin() // the answer to the handshake and all that Join has to say leave together
	v.settle()
	if v.gone.Load() { // while it was joining
		v.Leave()
	}
	s.cfg.Metrics.join(since != "", recovered, time.Since(start))
}

// errFull refuses a viewer because the node is full, by viewers or by what it sends:
// those who are in come first.
func errFull() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeUnavailable, Message: "this node is full", RetryMS: fullRetry.Milliseconds()}
}

// closed is the verdict on every newcomer while this node is leaving; nil while it is not.
func (s *Server) closed() *verdict {
	if s.leaving() == nil {
		return nil
	}
	return &verdict{protocol.CloseRestart, protocol.CodeUnavailable, "this node is leaving", comeBack.Milliseconds()}
}

func (s *Server) textLimit(role protocol.Role) int {
	if role == protocol.RoleBroadcaster || role == protocol.RoleModerator {
		return s.cfg.StaffText
	}
	return s.cfg.ViewerText
}
