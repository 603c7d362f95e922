package edge

import (
	"net/http"
	"time"

	"github.com/kansei-live/kansei/internal/socket"
	"github.com/kansei-live/kansei/protocol"
)

const (
	// MaxRefused is how many connections that are refused may wait for their close
	// handshake at once, unless Config says fewer. They cost a descriptor and 2 KiB for 2 s
	// at the most, and those of honest viewers, all of whose tokens have expired perhaps, a
	// fraction of that.
	MaxRefused = 1000
	// refusedRetry is when to come back if there are more.
	refusedRetry = 2 * time.Second
)

// refuse accepts a connection and closes it with the verdict's code. When too many wait
// for that already it answers with 503: whoever is honest learns the verdict when it
// comes again, or from GET /v1/rooms/{room}.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, no *verdict) {
	if s.refused.Add(1) > int64(s.cfg.MaxRefused) {
		s.refused.Add(-1)
		s.cfg.Metrics.refused.WithLabelValues(refusalOf(no.close)).Inc()
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: refusedRetry.Milliseconds(),
			Message: "this node refuses as many as it can at a time"}, 0)
		return
	}
	conn, err := s.cfg.Sockets.Accept(w, r)
	if err != nil { // and it has been answered
		s.refused.Add(-1)
		s.cfg.Metrics.refused.WithLabelValues(refusedHandshake).Inc()
		return
	}
	s.turnAway(conn, no)
}

// sendElsewhere refuses a newcomer because the node is leaving, whoever it is: before
// the upgrade, so that a proxy can ask another node. A browser without one cannot read
// that; it learns it from GET /v1/rooms/{room}.
func (s *Server) sendElsewhere(w http.ResponseWriter, no *verdict) {
	s.cfg.Metrics.refused.WithLabelValues(refusalOf(no.close)).Inc()
	w.Header().Set("Connection", "close")
	writeVerdict(w, no)
}

// turnAway closes a connection that counts as refused.
func (s *Server) turnAway(conn *socket.Conn, no *verdict) {
	s.cfg.Metrics.refused.WithLabelValues(refusalOf(no.close)).Inc()
	conn.Start(refusal{s})
	conn.Refuse(int(no.close), protocol.CloseReason(no.message, no.retryMS))
}

// refusal is who is not let in. It says nothing and is not listened to.
type refusal struct{ server *Server }

var _ socket.Handler = refusal{}

func (refusal) Next(dst [][]byte) [][]byte { return dst }
func (refusal) Message([]byte)             {}
func (v refusal) Closed(socket.Cause)      { v.server.refused.Add(-1) }
