package edge

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/access"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// Causes of refusals beside those of package auth.
const (
	// causeRevoked: the token was revoked.
	causeRevoked auth.Cause = "revoked"
	// causeAPIKey: it is an API key, and none that counts.
	causeAPIKey auth.Cause = "api_key"
)

// sweepPause is the least time between two looks for connections whose token was revoked: a back
// end may revoke a thousand one by one.
const sweepPause = 200 * time.Millisecond

// revoked reports whether the token of an identity was revoked.
func (s *Server) revoked(p *identity) bool {
	return s.cfg.Access != nil && p.token.exp > 0 && s.cfg.Access.Revoked(p.id, p.token.id, p.token.issued)
}

// refuseRevoked refuses somebody whose token was revoked.
func (s *Server) refuseRevoked() *refusal {
	s.cfg.Metrics.tokens.WithLabelValues(string(causeRevoked), "").Inc()
	return unauthorized("the token was revoked")
}

// refuseKey refuses a back end whose API key does not count.
func (s *Server) refuseKey(err error) *refusal {
	s.cfg.Metrics.tokens.WithLabelValues(string(causeAPIKey), "").Inc()
	why := "there is no such API key, or it is revoked"
	if errors.Is(err, access.ErrMistyped) {
		why = "the API key is mistyped, or cut"
	}
	s.tokens.Log(slog.LevelWarn, "refused an API key: list those that there are with kansei key list", why, "error", why)
	return unauthorized(why)
}

// Revoked has the server look for connections whose token was revoked. It does not wait.
func (s *Server) Revoked() {
	select {
	case s.sweep <- struct{}{}:
	default: // one is to come
	}
}

// sweepRevoked closes connections whose token was revoked, whenever there may be some, until quit
// is closed.
func (s *Server) sweepRevoked() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	<-pause.C
	for {
		select {
		case <-s.quit:
			return
		case <-s.sweep:
		}
		for _, v := range s.withTokens() {
			if s.revoked(&v.who) {
				s.cfg.Metrics.revoked.Inc()
				v.conn.Close(int(protocol.CloseUnauthorized),
					protocol.CloseReason("the token was revoked", 1+rand.Int64N(renewSpread.Milliseconds())))
			}
		}
		pause.Reset(sweepPause)
		select {
		case <-s.quit:
			return
		case <-pause.C:
		}
	}
}

// holder is a session and who it was when it was looked at.
type holder struct {
	*session
	who identity
}

// withTokens are the sessions of those who bear a token.
func (s *Server) withTokens() []holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]holder, 0, len(s.sessions))
	for v := range s.sessions {
		if v.token.exp > 0 {
			all = append(all, holder{v, v.identity})
		}
	}
	return all
}

// admin is enter for what only an API key with the scope admin may do, and concerns no room.
func (s *Server) admin(w http.ResponseWriter, r *http.Request) bool {
	c, ok := s.enterAnywhere(w, r)
	if !ok {
		return false
	}
	if !c.admin {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeForbidden, Message: "this takes an API key with the scope admin"}, 0)
		return false
	}
	return true
}

// enterAnywhere identifies who makes a request that is about no single room. It has answered
// when it returns false.
func (s *Server) enterAnywhere(w http.ResponseWriter, r *http.Request) (credentials, bool) {
	t, given := token(r)
	if !given {
		s.cfg.Metrics.tokens.WithLabelValues(string(causeMissing), "").Inc()
		writeRefusal(w, unauthorized("a token is needed"))
		return credentials{}, false
	}
	c, no := s.credentials(t, "")
	if no != nil {
		writeRefusal(w, no)
		return credentials{}, false
	}
	if s.leaving() != nil {
		w.Header().Set("Connection", "close")
	}
	return c, true
}

// postRevocation is POST /v1/revocations.
func (s *Server) postRevocation(w http.ResponseWriter, r *http.Request) {
	if s.admin(w, r) {
		s.revoke(w, r)
	}
}

// getRevocations is GET /v1/revocations.
func (s *Server) getRevocations(w http.ResponseWriter, r *http.Request) {
	if s.admin(w, r) {
		s.listRevocations(w, r)
	}
}

// revoke writes the revocation in the body of a request.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request) {
	p, ok := s.body(w, r)
	if !ok {
		return
	}
	given, err := protocol.DecodeRevocation(p)
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		writeProblem(w, 0, e, 0)
		return
	}
	made, err := s.cfg.Access.Revoke(r.Context(), access.Revocation{User: s.real(given.User), JTI: given.JTI, Before: given.Before})
	if err != nil {
		writeProblem(w, 0, s.notWritten("revoked", err), 0)
		return
	}
	writeJSON(w, http.StatusCreated, protocol.Revocation(made))
}

func (s *Server) listRevocations(w http.ResponseWriter, _ *http.Request) {
	out := protocol.Revocations{Revocations: []protocol.Revocation{}}
	for _, r := range s.cfg.Access.Revocations() {
		out.Revocations = append(out.Revocations, protocol.Revocation(r))
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, out)
}

// notWritten is the answer when something about who may come was not written.
func (s *Server) notWritten(done string, err error) *protocol.Error {
	switch {
	case errors.Is(err, hub.ErrUnknownOutcome):
		return &protocol.Error{Code: protocol.CodeUnknownOutcome, Message: "perhaps it is " + done + "; the same request again is safe", RetryMS: 1000}
	case errors.Is(err, hub.ErrUnavailable):
		s.quiet.Log(slog.LevelWarn, "who may come cannot be written to NATS", "", "error", err)
		return &protocol.Error{Code: protocol.CodeUnavailable, Message: "nothing is " + done + ": NATS cannot be reached", RetryMS: 1000}
	}
	return &protocol.Error{Code: protocol.CodeBadMessage, Message: plainError(err)}
}

// plainError is an error of package access without the name of that.
func plainError(err error) string {
	text := err.Error()
	if len(text) > 8 && text[:8] == "access: " {
		text = text[8:]
	}
	return text
}
