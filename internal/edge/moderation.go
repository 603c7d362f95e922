package edge

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/moderation"
	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/internal/text"
	"github.com/kansei-live/kansei/protocol"
)

// This file has what the staff read of moderation: the log of it, and what is known of a user.

const (
	// personLook is how many records of the room are looked through for what somebody has said, and
	// personComments and personActs are what is told of them.
	personLook                 = 5000
	personComments, personActs = 50, 100
)

// entryOf is what the log of moderation says of an act.
func entryOf(e *hub.LogEntry) (protocol.Entry, bool) {
	var rec hub.Record
	if json.Unmarshal(e.Body, &rec) != nil || rec.Act.ID == "" {
		return protocol.Entry{}, false
	}
	return rec.Entry(), true
}

// entries reads a page of the log of moderation.
func (s *Server) entries(ctx context.Context, room, whom string, before uint64, limit int) (page []protocol.Entry, next uint64, err error) {
	all, more, err := s.cfg.Moderation.Entries(ctx, room, whom, before, limit)
	if err != nil {
		return nil, 0, err
	}
	page = make([]protocol.Entry, 0, len(all))
	for i := range all {
		if e, ok := entryOf(&all[i]); ok {
			e.AllRooms = room == moderation.AllRooms
			page = append(page, e)
		}
	}
	// Acts are entered behind their answers: those of one moment may have overtaken each other.
	slices.SortStableFunc(page, func(a, b protocol.Entry) int { return cmp.Compare(b.Changed(), a.Changed()) })
	if more {
		next = all[len(all)-1].Seq
	}
	return page, next, nil
}

// getModeration is GET /v1/rooms/{room}/moderation.
func (s *Server) getModeration(w http.ResponseWriter, r *http.Request) {
	name, who, ok := s.enterStaff(w, r)
	if !ok {
		return
	}
	q, err := protocol.DecodeModerationQuery(r.URL.RawQuery)
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		writeProblem(w, 0, e, 0)
		return
	}
	before := uint64(0)
	if q.Cursor != "" {
		if before, err = strconv.ParseUint(q.Cursor, 36, 64); err != nil || before == 0 {
			writeProblem(w, 0, &protocol.Error{Code: protocol.CodeBadMessage, Message: "cursor is not one of this log"}, 0)
			return
		}
	}
	if q.AllRooms {
		if !who.everywhere {
			writeProblem(w, 0, forbidden("all_rooms takes a token or key for all rooms"), 0)
			return
		}
		name = moderation.AllRooms
	}
	page, next, err := s.entries(r.Context(), name, "", before, q.Limit)
	if err != nil {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: 1000, Message: "the log of moderation cannot be read"}, 0)
		return
	}
	out := protocol.ModerationLog{Entries: page}
	if next > 0 {
		out.Cursor = strconv.FormatUint(next, 36)
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, out)
}

// enterStaff is enter for those of the staff of a room; it has answered when it returns false.
func (s *Server) enterStaff(w http.ResponseWriter, r *http.Request) (string, identity, bool) {
	name, who, ok := s.enter(w, r, anyone)
	if !ok {
		return "", identity{}, false
	}
	if !who.role.Staff() {
		writeProblem(w, 0, forbidden("only the staff of this room may read that"), 0)
		return "", identity{}, false
	}
	return name, who, s.mayAsk(w, userOf(name, who.id), who)
}

// getPerson is GET /v1/rooms/{room}/users/{user}.
func (s *Server) getPerson(w http.ResponseWriter, r *http.Request) {
	name, _, ok := s.enterStaff(w, r)
	if !ok {
		return
	}
	id := s.real(r.PathValue("user"))
	if id == "" || len(id) > maxUserPath {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeBadMessage, Message: "the path has no id of a user: " + quiet.Cut(id, maxShown)}, 0)
		return
	}
	room, ok := s.readRoom(w, name)
	if !ok {
		return
	}
	defer room.Release()
	p, err := s.person(r.Context(), room, id)
	if err != nil {
		writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: 1000, Message: "not all of it can be read now: the room log or redis does not answer"}, 0)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, p)
}

// person is what is known of a user of a room.
func (s *Server) person(ctx context.Context, room *hub.Room, id string) (*protocol.Person, error) {
	if !room.Ready(ctx) {
		return nil, hub.ErrUnavailable
	}
	p := &protocol.Person{User: protocol.User{ID: id}, Comments: []protocol.PastComment{}}
	m, err := s.cfg.Roster.Member(ctx, room.Name(), id)
	if err != nil {
		return nil, err
	}
	p.Since, p.Devices, p.User.Name = m.Since, m.Devices, m.Name
	if m.Role.Staff() {
		p.User.Role = m.Role
	}
	seen, err := s.cfg.Roster.FirstSeen(ctx, room.Name(), []string{id})
	if err != nil {
		return nil, err
	}
	p.FirstSeen = seen[0]
	p.Partial, err = s.look(ctx, room, personLook, func(one *saying) bool {
		if one.User.ID == id {
			if len(p.Comments) == 0 { // as they are called now
				p.User = one.User
			}
			p.Comments = append(p.Comments, protocol.PastComment{
				Comment: one.Comment, Event: one.Name, Removed: room.Hides(one.event, id, one.User.Role.Rank()),
			})
		}
		return len(p.Comments) < personComments
	})
	if err != nil {
		return nil, err
	}
	if p.Acts, _, err = s.entries(ctx, room.Name(), s.cfg.Log.UserHash(room.Name(), id), 0, personActs); err != nil {
		return nil, err
	}
	acts, _ := room.UserActs(id) // a sweep is in the log as one about many
	for i := range acts {
		if acts[i].Kind == protocol.TypeSweep {
			e := (&hub.Record{Act: acts[i]}).Entry()
			e.IDs, e.Act = nil, acts[i].Whole()
			p.Acts = append([]protocol.Entry{e}, p.Acts...)
		}
	}
	return p, nil
}

// note does the act that puts a note about a user into the log of moderation.
func (s *Server) note(ctx context.Context, room *hub.Room, a *hub.Act, req *protocol.ActRequest) (protocol.ActDone, *protocol.Error) {
	clean, err := text.Clean(req.Text, protocol.MaxNote)
	if err != nil {
		return protocol.ActDone{}, &protocol.Error{Code: protocol.CodeTooLong, Message: "text: " + err.Error()}
	}
	a.Text = clean
	if err := s.cfg.Desk.Note(ctx, room.Name(), a); err != nil {
		return protocol.ActDone{}, s.notDone(err)
	}
	return protocol.ActDone{Act: a.ID}, nil
}

// undoNote takes a note back; false: there is no such note.
func (s *Server) undoNote(ctx context.Context, room string, u *hub.Act, id string) (done bool, err error) {
	e, err := s.cfg.Moderation.Entered(ctx, room, id)
	var rec hub.Record
	if err != nil || e.Seq == 0 || json.Unmarshal(e.Body, &rec) != nil || rec.Act.Kind != protocol.TypeNote {
		return false, err
	}
	if rec.Undo != nil { // by an earlier try, or somebody else
		u.ID = rec.Undo.ID
		return true, nil
	}
	return true, s.cfg.Desk.UndoNote(ctx, room, u, &rec.Act)
}

// unsweep lets a user comment whom sweeps have muted, and leaves all else of these sweeps as it is.
func (s *Server) unsweep(ctx context.Context, room *hub.Room, a hub.Act, sweeps []hub.Act) (protocol.ActDone, *protocol.Error) {
	a.Kind = protocol.TypeUnmute
	ends := true
	for i := range sweeps {
		a.Lifts = append(a.Lifts, sweeps[i].ID)
		ends, a.Ends = ends && sweeps[i].Ends > 0, max(a.Ends, sweeps[i].Ends)
	}
	if !ends {
		a.Ends = 0
	}
	seq, err := s.cfg.Desk.Do(ctx, room.Name(), &a)
	return s.answer(ctx, room, a.ID, seq, err)
}
