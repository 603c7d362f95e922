package edge

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/kansei-live/kansei/internal/access"
	"github.com/kansei-live/kansei/protocol"
)

// Keys is how operators make, list and revoke API keys on their own listener.
type Keys struct {
	Keys []access.Key `json:"keys"`
}

// NewKey asks for an API key. The answer has it, once.
type NewKey struct {
	Name   string         `json:"name"`
	Scopes []access.Scope `json:"scopes"`
	Rooms  []string       `json:"rooms"`
}

// MadeKey is the answer.
type MadeKey struct {
	access.Key
	Secret string `json:"key"`
}

// maxKeyRequest bounds a request for a key, in bytes.
const maxKeyRequest = 16 << 10

// registerAccess adds what operators may do about keys and revocations to their listener.
func (s *Server) registerAccess(mux *http.ServeMux) {
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /v1/keys":         s.listKeys,
		"POST /v1/keys":        s.makeKey,
		"DELETE /v1/keys/{id}": s.revokeKey,
		"GET /v1/revocations":  s.listRevocations,
		"POST /v1/revocations": s.revoke,
	} {
		mux.Handle(pattern, ownPages(h))
	}
}

func (s *Server) listKeys(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, Keys{s.cfg.Access.Keys()})
}

func (s *Server) makeKey(w http.ResponseWriter, r *http.Request) {
	bodyWithin(w, bodyTime)
	p, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxKeyRequest))
	var asked NewKey
	if err != nil || json.Unmarshal(p, &asked) != nil {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeBadMessage, Message: "the body must be a JSON object with name, scopes and rooms"}, 0)
		return
	}
	k, secret, err := s.cfg.Access.NewKey(r.Context(), asked.Name, asked.Scopes, asked.Rooms)
	if err != nil {
		writeProblem(w, 0, s.notWritten("made", err), 0)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusCreated, MadeKey{k, secret})
}

func (s *Server) revokeKey(w http.ResponseWriter, r *http.Request) {
	k, err := s.cfg.Access.RevokeKey(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, access.ErrNoKey):
		writeProblem(w, http.StatusNotFound, &protocol.Error{Code: protocol.CodeBadMessage, Message: plainError(err)}, 0)
	case err != nil:
		writeProblem(w, 0, s.notWritten("revoked", err), 0)
	default:
		writeJSON(w, http.StatusOK, k)
	}
}
