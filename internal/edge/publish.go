package edge

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/text"
	"github.com/kansei-live/kansei/protocol"
)

// comment is one that somebody wants to publish.
type comment struct {
	room    string
	session string // where the ref is unique
	person  *person
	author  *protocol.User // nil: the person
	req     *protocol.CommentRequest
}

// publish is the one way of a comment into the room log: it judges the comment,
// hands it to the log in the order of the calls, and answers when the log has taken
// it or could not. answer is called exactly once, perhaps before publish returns.
func (s *Server) publish(c comment, answer func(id string, err *protocol.Error)) {
	count := func(result string) { s.cfg.Metrics.comments.WithLabelValues(result).Inc() }
	draft, refusal := s.draft(c)
	if refusal != nil {
		count(string(refusal.Code))
		answer("", refusal)
		return
	}
	s.cfg.Log.Append(c.room, draft, func(got hub.Receipt, err error) {
		switch {
		case err == nil:
			count("ok")
			answer(hub.CommentID(got.Seq, draft.ID), nil)
		case errors.Is(err, hub.ErrUnavailable):
			count(string(protocol.CodeUnavailable))
			answer("", &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: 1000,
				Message: "the comment was not published: the room log cannot be reached; try again"})
		default:
			count(string(protocol.CodeUnknownOutcome))
			answer("", &protocol.Error{Code: protocol.CodeUnknownOutcome, RetryMS: 1000,
				Message: "the comment may have been published; try again with the same ref to be sure"})
		}
	})
}

// draft judges a comment and makes the event of it.
func (s *Server) draft(c comment) (hub.Draft, *protocol.Error) {
	if !c.person.comment {
		return hub.Draft{}, &protocol.Error{Code: protocol.CodeForbidden, Message: "you may watch, but not comment"}
	}
	clean, err := text.Clean(c.req.Text, s.textLimit(c.person.role))
	if err != nil {
		code := protocol.CodeBadMessage
		switch {
		case errors.Is(err, text.ErrEmpty):
			code = protocol.CodeEmpty
		case errors.Is(err, text.ErrTooLong):
			code = protocol.CodeTooLong
		}
		return hub.Draft{}, &protocol.Error{Code: code, Message: err.Error()}
	}
	author := protocol.User{ID: c.person.id, Name: c.person.name, Role: c.person.role}
	if c.author != nil {
		if err := auth.CheckUser(c.author.ID); err != nil {
			return hub.Draft{}, &protocol.Error{Code: protocol.CodeBadMessage, Message: "user.id: " + err.Error()}
		}
		author = protocol.User{ID: c.author.ID, Name: text.CleanName(c.author.Name, protocol.MaxUserName)}
	}
	body := protocol.EncodeBody(protocol.Comment{User: author, Text: clean, MediaMS: c.req.MediaMS, Style: c.req.Style})
	return hub.Draft{ID: draftID(c, body), Kind: hub.KindComment, Rate: s.rate(c.room), Body: body}, nil
}

// quiet is the rate of a room, in comments a second, below which nobody needs to
// know it.
const quiet = 10

// rate is how many comments a room has had in the last second, if they were many.
func (s *Server) rate(room string) uint32 {
	if n := s.cfg.Hub.Rate(room); n >= quiet {
		return n
	}
	return 0
}

// draftID is the same for the same content under the same ref in the same session,
// so that the log takes it once: 128 bits of a hash. Without a ref it is random.
func draftID(c comment, body []byte) string {
	var id [16]byte
	if c.req.Ref == "" {
		_, _ = rand.Read(id[:]) // never fails
	} else {
		h := sha256.New()
		for _, part := range [][]byte{[]byte(c.room), []byte(c.person.id), []byte(c.session), []byte(c.req.Ref), body} {
			var n [4]byte
			binary.BigEndian.PutUint32(n[:], uint32(len(part)))
			h.Write(n[:])
			h.Write(part)
		}
		copy(id[:], h.Sum(nil))
	}
	return base64.RawURLEncoding.EncodeToString(id[:])
}

func (s *Server) tooOften(wait time.Duration) *protocol.Error {
	s.cfg.Metrics.comments.WithLabelValues(string(protocol.CodeRateLimited)).Inc()
	ms := max(1, wait.Milliseconds())
	return &protocol.Error{Code: protocol.CodeRateLimited, RetryMS: ms,
		Message: fmt.Sprintf("too many comments; the next one in %.1f s", float64(ms)/1000)}
}
