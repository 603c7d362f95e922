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

// refuse tells a refusal. One that concerns the viewer is told by a close code: the connection
// is accepted and closed. When too many wait for that already the answer is 503: an honest
// client learns the reason when it comes again, or from GET /v1/rooms/{room}.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, no *refusal) {
	if no.hard {
		s.cfg.Metrics.refused.WithLabelValues(no.reason).Inc()
		switch no.reason {
		case refusedOrigin:
			// A page whose connection fails asks here why, and may read it: it holds nothing that
			// the page does not know.
			w.Header().Set("Access-Control-Allow-Origin", "*")
		case refusedLeaving:
			w.Header().Set("Connection", "close")
		}
		writeRefusal(w, no)
		return
	}
	if s.refused.Add(1) > int64(s.cfg.MaxRefused) {
		s.refused.Add(-1)
		s.cfg.Metrics.refused.WithLabelValues(no.reason).Inc()
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

// turnAway closes a connection that counts as refused.
func (s *Server) turnAway(conn *socket.Conn, no *refusal) {
	s.cfg.Metrics.refused.WithLabelValues(no.reason).Inc()
	conn.Start(refusedPeer{s})
	conn.CloseSoon(int(no.close), protocol.CloseReason(no.message, no.retryMS))
}

// writeRefusal answers an HTTP request with a refusal.
func writeRefusal(w http.ResponseWriter, no *refusal) {
	writeProblem(w, 0, no.problem(), no.close)
}

// refusedPeer is the handler of a connection that is not let in. It says nothing and is not
// listened to.
type refusedPeer struct{ server *Server }

var _ socket.Handler = refusedPeer{}

// Next implements [socket.Handler].
func (refusedPeer) Next(dst [][]byte) [][]byte { return dst }

// Message implements [socket.Handler].
func (refusedPeer) Message([]byte) {}

// Closed implements [socket.Handler].
func (v refusedPeer) Closed(socket.Cause) { v.server.refused.Add(-1) }
