package edge

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/protocol"
)

// tokenLines is how often a kind of refused token is logged: one back end that makes
// wrong tokens makes as many as it has viewers.
const tokenLines = time.Minute

// causeMissing is the cause where there is no token, and guests are not let in;
// [auth.Causes] are the others.
const causeMissing auth.Cause = "missing"

// token finds the token of a request: in Authorization, as an offered subprotocol,
// or as ?token=. It reports whether there is one, even if it is empty. Nothing that it
// returns may reach a log.
func token(r *http.Request) (string, bool) {
	for _, h := range r.Header["Authorization"] {
		if scheme, t, _ := strings.Cut(strings.TrimSpace(h), " "); strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(t), true
		}
	}
	for _, h := range r.Header["Sec-Websocket-Protocol"] {
		for p := range strings.SplitSeq(h, ",") {
			if t, ok := strings.CutPrefix(strings.TrimSpace(p), protocol.BearerPrefix); ok {
				return t, true
			}
		}
	}
	if strings.Contains(r.URL.RawQuery, "token") || strings.Contains(r.URL.RawQuery, "%") {
		if q := r.URL.Query(); q.Has("token") {
			return q.Get("token"), true
		}
	}
	return "", false
}

// refuseToken counts and logs why a token is refused for a room, and returns what its
// bearer is told.
func (s *Server) refuseToken(room string, err error) *refusal {
	cause, claim := auth.CauseOf(err), ""
	why := "the token is not valid"
	// The texts of the library may be long, and are nobody's business.
	said := strings.TrimPrefix(err.Error(), auth.ErrInvalid.Error()+": ")
	switch cause {
	case auth.CauseClaim:
		wrong, _ := errors.AsType[*auth.ClaimsError](err)
		claim = wrong.Claim
		why += ": " + wrong.Error()
		s.tokens.Log(slog.LevelWarn, "refused a token for a wrong claim: mend it where tokens are made, try with kansei token --check", claim,
			"claim", claim, "error", quiet.Cut(wrong.Error(), maxShown), "room", room)
	case auth.CauseSignature:
		why += ": its signature does not match"
		s.tokens.Log(slog.LevelWarn, "refused a token whose signature does not match: have all nodes and all who make tokens the same --auth-secret, or keys that belong together?", "", "room", room)
	case auth.CauseIssuer, auth.CauseKey:
		why += ": " + quiet.Cut(said, maxShown)
		s.tokens.Log(slog.LevelWarn, "refused a token of an issuer or with a key that is not known: compare its iss and kid with --issuer, --issuers and --jwks", string(cause), "error", quiet.Cut(said, maxShown), "room", room)
	case auth.CauseAlgorithm, auth.CauseMalformed:
		why += ": " + quiet.Cut(said, maxShown)
		s.tokens.Log(slog.LevelWarn, "refused what is no token of ours: try it with kansei token --check", string(cause), "error", quiet.Cut(said, maxShown), "room", room)
	case auth.CauseExpired:
		why = "the token has expired"
		s.tokens.Log(slog.LevelInfo, "refused a token that has expired: its client should have fetched another", "", "room", room)
	case auth.CauseEarly:
		why = "the token is not valid yet"
		s.tokens.Log(slog.LevelWarn, "refused a token that is not valid yet (nbf): are the clocks right, here and where tokens are made?", "", "room", room)
	case auth.CauseRoom:
		why = "the token is not for this room"
		s.tokens.Log(slog.LevelInfo, "refused a token that is for other rooms (claim rooms)", room, "room", room)
	}
	s.cfg.Metrics.tokens.WithLabelValues(string(cause), claim).Inc()
	return unauthorized(why)
}

// unauthorized refuses somebody who is not known.
func unauthorized(why string) *refusal {
	return &refusal{close: protocol.CloseUnauthorized, code: protocol.CodeUnauthorized, message: why, reason: refusedToken}
}
