package edge

import (
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/protocol"
)

// This file has the lists of who is where, for those who may know. They come from Redis. The
// same page is read once a second at most, and what was read is shown, as stale, while Redis
// is away.

const (
	listFresh   = time.Second
	listsKept   = 256 // pages
	listsAtOnce = 16  // that are being read
	listWait    = 3 * time.Second
)

// lister reads pages of lists and keeps the latest.
type lister struct {
	reading chan struct{} // full while as many pages are being read as may be

	mu    sync.Mutex
	pages map[string]*list.Element // of *keptPage
	order *list.List               // those used last first
}

// keptPage is a page and when it was read.
type keptPage struct {
	key  string
	page any
	at   time.Time
}

func newLister() *lister {
	return &lister{reading: make(chan struct{}, listsAtOnce), pages: map[string]*list.Element{}, order: list.New()}
}

var errManyLists = errors.New("edge: too many lists are being read")

// get returns a page that is not older than fresh, or how old it is if it cannot be read now; an
// error if it cannot be read and is not kept either.
func (l *lister) get(ctx context.Context, key string, fresh time.Duration, read func(context.Context) (any, error)) (page any, age time.Duration, stale bool, err error) {
	kept := l.find(key)
	if kept != nil && time.Since(kept.at) < fresh {
		return kept.page, 0, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, listWait)
	defer cancel()
	select {
	case l.reading <- struct{}{}:
		page, err = read(ctx)
		<-l.reading
	case <-ctx.Done():
		err = errManyLists
	}
	switch {
	case err == nil:
		l.keep(&keptPage{key, page, time.Now()})
		return page, 0, false, nil
	case kept != nil && !errors.Is(err, hub.ErrCursor):
		return kept.page, time.Since(kept.at), true, nil
	}
	return nil, 0, false, err
}

func (l *lister) find(key string) *keptPage {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.pages[key]
	if e == nil {
		return nil
	}
	l.order.MoveToFront(e)
	return e.Value.(*keptPage)
}

func (l *lister) keep(p *keptPage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.pages[p.key]; e != nil {
		e.Value = p
		return
	}
	l.pages[p.key] = l.order.PushFront(p)
	if l.order.Len() > listsKept {
		last := l.order.Back()
		l.order.Remove(last)
		delete(l.pages, last.Value.(*keptPage).key)
	}
}

// answerList answers with a page of a list, made by read.
func (s *Server) answerList(w http.ResponseWriter, r *http.Request, key string, fresh time.Duration, read func(context.Context) (any, error)) {
	page, age, stale, err := s.lists.get(r.Context(), key, fresh, read)
	switch {
	case errors.Is(err, hub.ErrCursor):
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeBadMessage, Message: "cursor is not one of this list"}, 0)
		return
	case errors.Is(err, errManyLists):
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, Message: "this node reads as many lists as it may", RetryMS: 1000}, 0)
		return
	case err != nil:
		s.quiet.Log(slog.LevelWarn, "a list of who is where could not be read from redis, and was not read before: 503 was answered", "", "error", err)
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, Message: "the list cannot be read: redis does not answer", RetryMS: 1000}, 0)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	if !stale {
		writeJSON(w, http.StatusOK, page)
		return
	}
	// A copy: the page is shared.
	var out map[string]json.RawMessage
	if b, err := json.Marshal(page); err == nil {
		_ = json.Unmarshal(b, &out) // an object
	}
	out["stale"] = json.RawMessage("true")
	out["age_ms"], _ = json.Marshal(age.Milliseconds()) // a number
	writeJSON(w, http.StatusOK, out)
}

// listQuery reads the parameters of a list; it has answered when it returns false.
func listQuery(w http.ResponseWriter, r *http.Request) (*protocol.ListQuery, bool) {
	q, err := protocol.DecodeListQuery(r.URL.RawQuery)
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		writeProblem(w, 0, e, 0)
		return nil, false
	}
	return q, true
}

// getViewers is GET /v1/rooms/{room}/viewers: who is in a room. The staff may know; the
// audience may where a setting or the room's state says so.
func (s *Server) getViewers(w http.ResponseWriter, r *http.Request) {
	name, who, ok := s.enter(w, r, anyone)
	if !ok {
		return
	}
	q, ok := listQuery(w, r)
	if !ok || !s.mayAsk(w, userOf(name, who.id), who) {
		return
	}
	room, ok := s.readRoom(w, name)
	if !ok {
		return
	}
	defer room.Release()
	known := room.Ready(r.Context())
	if known {
		if no := s.refusesNow(room, &who); no != nil {
			writeRefusal(w, no)
			return
		}
	}
	state, _ := room.Status()
	if !who.role.Staff() && !s.cfg.Members && !state.Members {
		why := "only the staff of this room may list who is in it"
		if !known {
			why += ", as far as can be known: the room log cannot be reached"
		}
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeForbidden, Message: why}, 0)
		return
	}
	leaving := q.Leaving && who.role.Staff()
	alias := s.cfg.Pseudonyms != nil && !who.role.Staff()
	key, _ := json.Marshal([]any{"viewers", name, q.Cursor, q.Limit, leaving, state.Broadcast, alias}) // texts and numbers
	if alias {
		q.Cursor = s.real(q.Cursor)
	}
	fresh := listFresh
	if leaving {
		fresh = 0 // joins and leaves are added to it: it must not be older than they
	}
	s.answerList(w, r, string(key), fresh, func(ctx context.Context) (any, error) {
		page, err := s.cfg.Roster.Members(ctx, hub.MembersQuery{Room: name, Cursor: q.Cursor, Limit: q.Limit, Leaving: leaving})
		if err == nil && q.Cursor == "" && state.Broadcast > 0 {
			page.Distinct, err = s.cfg.Roster.Distinct(ctx, name, state.Broadcast)
		}
		if alias {
			s.hide(name, &page)
		}
		return page, err
	})
}

// hide puts pseudonyms in the place of the ids in a page of members. The cursor has one in it, too.
func (s *Server) hide(room string, page *protocol.Members) {
	for i := range page.Users {
		page.Users[i].ID = s.cfg.Pseudonyms.Of(room, page.Users[i].ID)
	}
	if page.Cursor != "" {
		page.Cursor = s.cfg.Pseudonyms.Of(room, page.Cursor)
	}
}

// mayAsk counts a request against the rate of its user's messages; it has answered
// when it returns false. Guests who only read are one user: they have no rate, but pages are
// read once a second only.
func (s *Server) mayAsk(w http.ResponseWriter, of user, who identity) bool {
	if who.guest {
		return true
	}
	u := s.users.hold(of, time.Now())
	defer func() { u.release(s.rateOf(&who), s.messageRate(&who), time.Now()) }()
	if wait := u.takeMessage(s.messageRate(&who), time.Now()); wait > 0 {
		writeProblem(w, 0, tooMany("messages", wait), 0)
		return false
	}
	return true
}

// staff is who makes a request that is about no single room: somebody of the staff, with a token,
// or a back end with a key. It has answered when it returns false.
func (s *Server) staff(w http.ResponseWriter, r *http.Request) (*credentials, bool) {
	c, ok := s.enterAnywhere(w, r)
	if !ok {
		return nil, false
	}
	if !c.role.Staff() {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeForbidden, Message: "only the staff may list this"}, 0)
		return nil, false
	}
	return &c, s.mayAsk(w, userOf("", c.id), c.identity)
}

// getRoomsOf is GET /v1/users/{user}/rooms: where a user is, of the rooms that the token is
// for.
func (s *Server) getRoomsOf(w http.ResponseWriter, r *http.Request) {
	who, ok := s.staff(w, r)
	if !ok {
		return
	}
	q, ok := listQuery(w, r)
	if !ok {
		return
	}
	id := s.real(r.PathValue("user"))
	if id == "" || len(id) > maxUserPath {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeBadMessage, Message: "the path has no id of a user: " + quiet.Cut(id, maxShown)}, 0)
		return
	}
	key, _ := json.Marshal([]any{"rooms of", id, q.Cursor, q.Limit, who.rooms}) // texts and numbers
	s.answerList(w, r, string(key), listFresh, func(ctx context.Context) (any, error) {
		page, err := s.cfg.Roster.RoomsOf(ctx, id, q.Cursor, q.Limit)
		covered := page.Rooms[:0]
		for _, room := range page.Rooms {
			if auth.Matches(who.rooms, room.Room) {
				covered = append(covered, room)
			}
		}
		page.Rooms = covered
		return page, err
	})
}

// maxUserPath is longer than any id of a user.
const maxUserPath = protocol.MaxAnyUser

// getRooms is GET /v1/rooms?sort=users: the rooms with the most users, of those that the token is
// for.
func (s *Server) getRooms(w http.ResponseWriter, r *http.Request) {
	who, ok := s.staff(w, r)
	if !ok {
		return
	}
	q, ok := listQuery(w, r)
	if !ok {
		return
	}
	if q.Sort == "" {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeBadMessage, Message: "sort is missing: it must be users"}, 0)
		return
	}
	var among []string
	many := slices.ContainsFunc(who.rooms, func(r string) bool { return strings.HasSuffix(r, auth.AllRooms) })
	if !many {
		among = who.rooms
	}
	key, _ := json.Marshal([]any{"rooms", q.Cursor, q.Limit, who.rooms}) // texts and numbers
	s.answerList(w, r, string(key), listFresh, func(ctx context.Context) (any, error) {
		page, err := s.cfg.Roster.Rooms(ctx, hub.RoomsQuery{Cursor: q.Cursor, Limit: q.Limit, Among: among})
		if many { // a page may be short, and the next one is not the last
			page.Rooms = slices.DeleteFunc(page.Rooms, func(room protocol.RoomUsers) bool { return !auth.Matches(who.rooms, room.Room) })
		}
		return page, err
	})
}
