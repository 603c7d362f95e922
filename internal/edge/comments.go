package edge

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strconv"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// getComments is GET /v1/rooms/{room}/comments: polling, and pages of the past, made so
// that a cache in front answers most of it.
func (s *Server) getComments(w http.ResponseWriter, r *http.Request) {
	name, who, ok := s.enter(w, r, anyone)
	if !ok {
		return
	}
	q, err := protocol.DecodeCommentsQuery(r.URL.RawQuery)
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		writeProblem(w, 0, e, 0)
		return
	}
	room, ok := s.readRoom(w, name)
	if !ok {
		return
	}
	defer room.Release()
	if !room.Ready(r.Context()) {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, Message: "the room log cannot be reached", RetryMS: 1000}, 0)
		return
	}
	if no := s.refusesNow(room, &who); no != nil {
		writeRefusal(w, no)
		return
	}
	message, recovered, err := room.Comments(r.Context(), hub.Ask{Since: q.Since, Before: q.Before, After: q.After, Limit: q.Limit})
	if err != nil {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: 1000,
			Message: "the page could not be read: the room log cannot be reached, or too many are reading it"}, 0)
		return
	}
	if s.cfg.Pseudonyms != nil && who.role.Staff() {
		message = s.named(message)
	}
	sum := sha256.Sum256(message)
	etag := `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	head := w.Header()
	head.Set("ETag", etag)
	head.Set("Cache-Control", "private, max-age=1")
	if tokenless(r) {
		head.Set("Cache-Control", "public, max-age=1")
	}
	head.Set("Kansei-Recovered", strconv.FormatBool(recovered))
	if r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	head.Set("Content-Type", "application/json")
	_, _ = w.Write(message) // the client is gone: nobody to tell
}

// author is where a message of comments has the pseudonym of an author, and nothing else: text has
// no such quotation marks.
var author = regexp.MustCompile(`"user":\{"id":"(` + auth.PseudonymPrefix + `[A-Za-z0-9_-]+)"`)

// named is a message of comments, as the audience gets it, with the users' own ids: for the staff.
func (s *Server) named(message []byte) []byte {
	return author.ReplaceAllFunc(message, func(found []byte) []byte {
		own, err := json.Marshal(s.real(string(author.FindSubmatch(found)[1])))
		if err != nil {
			return found
		}
		return append([]byte(`"user":{"id":`), own...)
	})
}
