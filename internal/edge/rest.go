package edge

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// open has h answer who reads without a token, where guests may watch, in the same way
// whatever page it is, so that a cache in front can give its answer to all: what anybody may
// read any page may. Other requests pass cors.
func (s *Server) open(h http.HandlerFunc) http.HandlerFunc {
	checked := s.cors(h)
	return func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		// No cache has what it was told for one token answer for another, or for none.
		head.Add("Vary", "Authorization")
		if s.cfg.Guests == protocol.GuestsNone || !tokenless(r) {
			checked(w, r)
			return
		}
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Access-Control-Allow-Origin", "*")
		head.Set("Access-Control-Expose-Headers", exposed)
		h(w, r)
	}
}

// tokenless reports whether a request carries no token, and does not try to.
func tokenless(r *http.Request) bool {
	_, given := token(r)
	return !given && len(r.Header["Authorization"]) == 0
}

// exposed is the headers of answers that pages may read.
const exposed = "ETag, Retry-After, Kansei-Recovered"

// cors lets the pages of allowed origins read what h answers.
func (s *Server) cors(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("X-Content-Type-Options", "nosniff")
		head.Add("Vary", "Origin")
		if origin := r.Header.Get("Origin"); origin != "" {
			if !s.originAllowed(r) {
				no := s.foreign(r)
				s.cfg.Metrics.refused.WithLabelValues(no.reason).Inc()
				writeRefusal(w, no)
				return
			}
			head.Set("Access-Control-Allow-Origin", origin)
			head.Set("Access-Control-Expose-Headers", exposed)
			if r.Method == http.MethodOptions {
				head.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
				head.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
				head.Set("Access-Control-Max-Age", "600")
			}
		}
		h(w, r)
	}
}

// writeJSON answers with v.
func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // the client is gone: nobody to tell
}

// Refuse answers with a problem in the name of what is no part of this package.
func Refuse(w http.ResponseWriter, e *protocol.Error) { writeProblem(w, 0, e, 0) }

// writeProblem answers with a refusal. close is the code that the same request
// would end with over WebSocket, or 0.
func writeProblem(w http.ResponseWriter, status int, e *protocol.Error, closed protocol.CloseCode) {
	if status == 0 {
		status = e.Code.HTTPStatus()
	}
	head := w.Header()
	head.Set("Content-Type", "application/problem+json")
	head.Set("Cache-Control", "no-store")
	if e.RetryMS > 0 {
		head.Set("Retry-After", strconv.FormatInt((e.RetryMS+999)/1000, 10))
	}
	if status == http.StatusUnauthorized {
		head.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(protocol.Problem{ // as above
		Title: http.StatusText(status), Status: status, Detail: e.Message,
		Code: e.Code, RetryMS: e.RetryMS, Close: closed, Sanction: e.Sanction, State: e.State,
	})
}

// enter identifies who makes a request about a room, as admission would. A node that drains
// answers too: what is done when it is answered is done until the end, and the
// next request goes to another node. It has answered when it returns false.
func (s *Server) enter(w http.ResponseWriter, r *http.Request, session string) (string, identity, bool) {
	room := r.PathValue("room")
	if strings.Count(r.URL.RawQuery, "token=") > 1 && len(r.URL.Query()["token"]) > 1 {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeBadMessage, Message: "token appears twice"}, 0)
		return "", identity{}, false
	}
	who, no := s.identify(r, room, session)
	if no != nil {
		writeRefusal(w, no)
		return "", identity{}, false
	}
	if s.leaving() != nil {
		w.Header().Set("Connection", "close")
	}
	return room, who, true
}

// body reads the JSON body of a request; it has answered when it returns false.
func (s *Server) body(w http.ResponseWriter, r *http.Request) ([]byte, bool) {
	return s.longBody(w, r, s.cfg.MaxMessage)
}

// longBody is body for one that may have so many bytes.
func (s *Server) longBody(w http.ResponseWriter, r *http.Request, most int) ([]byte, bool) {
	bodyWithin(w, bodyTime)
	p, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(most)))
	if err == nil {
		return p, true
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		writeProblem(w, http.StatusRequestEntityTooLarge, &protocol.Error{Code: protocol.CodeTooLong,
			Message: "the body has more than " + strconv.Itoa(most) + " bytes"}, 0)
	} else {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeBadMessage, Message: "the body could not be read"}, 0)
	}
	return nil, false
}

// anyone stands for the session of somebody who only reads over HTTP.
const anyone = "somebody-who-reads"

// busyRetry is when to come back to a node that has too many rooms open for readers:
// most of them are shut again as soon as they are read.
const busyRetry = time.Second

// readRoom acquires a room for somebody who only reads; it has answered when it returns
// false.
func (s *Server) readRoom(w http.ResponseWriter, name string) (*hub.Room, bool) {
	room, ok := s.cfg.Hub.AcquireToRead(name)
	return room, ok || busy(w)
}

// postRoom acquires a room for somebody who does something there; it has answered when it returns false.
func (s *Server) postRoom(w http.ResponseWriter, name string) (*hub.Room, bool) {
	room, ok := s.cfg.Hub.AcquireToPost(name)
	return room, ok || busy(w)
}

// busy answers that too many rooms are open; it returns false.
func busy(w http.ResponseWriter) bool {
	writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: busyRetry.Milliseconds(),
		Message: "this node reads as many rooms without viewers as it may"}, 0)
	return false
}

// getRoom is GET /v1/rooms/{room}: state and counts, or why a viewer with the same
// token would not be let in.
func (s *Server) getRoom(w http.ResponseWriter, r *http.Request) {
	name, who, ok := s.enter(w, r, anyone)
	if !ok {
		return
	}
	if no := s.wouldAdmit(r, name, who); no != nil {
		writeRefusal(w, no)
		return
	}
	room, ok := s.readRoom(w, name)
	if !ok {
		return
	}
	defer room.Release()
	room.Count()
	if room.Ready(r.Context()) {
		if no := s.refusesNow(room, &who); no != nil {
			writeRefusal(w, no)
			return
		}
	}
	state, counts := room.Status()
	out := roomAnswer{Room: name, State: room.StateFor(who.role.Staff())}
	shown := who.role.Staff() || state.Count == nil || *state.Count
	if counts.At > 0 && shown { // nobody waits for them
		out.Viewers = &protocol.Viewers{Connections: counts.Connections, Users: counts.Users, PeakUsers: counts.PeakUsers, At: counts.At}
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, out)
}

// roomAnswer is a [protocol.Room] with all that the state has.
type roomAnswer struct {
	Room    string            `json:"room"`
	State   json.RawMessage   `json:"state"`
	Viewers *protocol.Viewers `json:"viewers,omitempty"`
}

// postComment is POST /v1/rooms/{room}/comments: publishing from a back end.
func (s *Server) postComment(w http.ResponseWriter, r *http.Request) {
	s.post(w, r, s.cfg.Metrics.comments, func(p []byte) (comment, error) {
		post, err := protocol.DecodePost(p)
		if err != nil {
			return comment{}, err
		}
		return comment{author: post.User, req: &post.CommentRequest}, nil
	})
}

// postEvent is POST /v1/rooms/{room}/events.
func (s *Server) postEvent(w http.ResponseWriter, r *http.Request) {
	s.post(w, r, s.cfg.Metrics.events, func(p []byte) (comment, error) {
		post, err := protocol.DecodeEvent(p)
		if err != nil {
			return comment{}, err
		}
		return comment{author: post.User, event: &post.EventRequest}, nil
	})
}

// post publishes what decode makes of the body.
func (s *Server) post(w http.ResponseWriter, r *http.Request, results *prometheus.CounterVec, decode func([]byte) (comment, error)) {
	name, who, ok := s.enter(w, r, "")
	if !ok {
		return
	}
	u := s.users.hold(userOf(name, who.id), time.Now())
	defer func() { u.release(s.rateOf(&who), s.messageRate(&who), time.Now()) }()
	if wait := u.takeMessage(s.messageRate(&who), time.Now()); wait > 0 {
		results.WithLabelValues(string(protocol.CodeRateLimited)).Inc()
		writeProblem(w, 0, tooMany("messages", wait), 0)
		return
	}
	p, ok := s.body(w, r)
	if !ok {
		return
	}
	c, err := decode(p)
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		results.WithLabelValues(string(e.Code)).Inc()
		writeProblem(w, 0, e, 0)
		return
	}
	if c.author != nil && !who.anybody {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeForbidden, Message: "to publish as another user takes the permission publish_as: the claim can of a token, or the scope of an API key"}, 0)
		return
	}
	type answer struct {
		id  string
		err *protocol.Error
	}
	// The room judges the comment: what its state and its acts say. It is kept open for the next ones.
	room, ok := s.postRoom(w, name)
	if !ok {
		return
	}
	defer room.Release()
	if !room.Ready(r.Context()) {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: 1000,
			Message: "the comment was not published: the room log cannot be reached; try again"}, 0)
		return
	}
	if !s.exists(room) {
		writeRefusal(w, noRoom())
		return
	}
	done := make(chan answer, 1)
	c.room, c.identity, c.user = name, &who, u
	s.publish(c, func(id string, e *protocol.Error) { done <- answer{id, e} })
	// The log answers within its own deadline.
	if a := <-done; a.err != nil {
		writeProblem(w, 0, a.err, 0)
	} else {
		w.Header().Set("Cache-Control", "no-store")
		writeJSON(w, http.StatusCreated, protocol.Posted{ID: a.id})
	}
}
