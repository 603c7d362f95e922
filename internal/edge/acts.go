package edge

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/text"
	"github.com/kansei-live/kansei/protocol"
)

const (
	// maxActing is how many acts and changes of state of one connection may be under way.
	maxActing = 16
	// maxActs bounds the acts of a room that count: a node has them all in memory, some 600 bytes each.
	maxActs = 100_000
	// actWait is how long an act, or a state, is waited for to come back from NATS.
	actWait = 2 * time.Second
)

// act does what somebody asks for: the one way of acts, of connections and of HTTP. room is held
// open. session is where the ref is unique.
func (s *Server) act(ctx context.Context, room *hub.Room, who *identity, session string, req *protocol.ActRequest) (protocol.ActDone, *protocol.Error) {
	done, err := s.doAct(ctx, room, who, session, req)
	result := "ok"
	if err != nil {
		result = string(err.Code)
	}
	s.cfg.Metrics.acts.WithLabelValues(req.Type, result).Inc()
	return done, err
}

func (s *Server) doAct(ctx context.Context, room *hub.Room, who *identity, session string, req *protocol.ActRequest) (protocol.ActDone, *protocol.Error) {
	if !room.Ready(ctx) {
		return protocol.ActDone{}, unreached()
	}
	if !s.exists(room) {
		return protocol.ActDone{}, noRoom().problem()
	}
	a, err := s.draw(room, who, session, req)
	if err != nil {
		return protocol.ActDone{}, err
	}
	switch req.Type {
	case protocol.TypeRemove:
		if err := s.mayRemove(ctx, room, who, req.IDs); err != nil {
			return protocol.ActDone{}, err
		}
	case protocol.TypeAck:
		return s.ack(ctx, room, who, a, req)
	case protocol.TypeUndo:
		return s.undo(ctx, room, who, a, req)
	case protocol.TypeUnmute, protocol.TypeUnban:
		return s.lift(ctx, room, a, req)
	case protocol.TypeNote:
		return s.note(ctx, room, a, req)
	}
	if req.AllRooms {
		a.Hash = s.cfg.Desk.HashEverywhere(a.User)
		if err := s.cfg.Desk.DoEverywhere(ctx, a); err != nil {
			return protocol.ActDone{}, s.notDone(err)
		}
		return protocol.ActDone{Act: a.ID}, nil
	}
	if room.Acts() >= maxActs {
		return protocol.ActDone{}, &protocol.Error{Code: protocol.CodeUnavailable, Message: "the room has as many acts in force as it may: undo some, or clear it"}
	}
	if req.Type == protocol.TypeSweep {
		return s.sweepUp(ctx, room, a, req)
	}
	seq, failed := s.cfg.Desk.Do(ctx, room.Name(), a)
	return s.answer(ctx, room, a.ID, seq, failed)
}

// draw makes the act that somebody asks for, if they may.
func (s *Server) draw(room *hub.Room, who *identity, session string, req *protocol.ActRequest) (*hub.Act, *protocol.Error) {
	own := req.Type == protocol.TypeRemove || req.Type == protocol.TypeAck
	switch {
	case !own && !who.role.Runs():
		return nil, forbidden("only a broadcaster or moderator may do that")
	case req.AllRooms && !who.everywhere:
		return nil, forbidden("all_rooms takes a token or key for all rooms")
	}
	now := s.cfg.Log.Now().UnixMilli()
	a := &hub.Act{
		ID: actID(room.Name(), who.id, session, req), Kind: req.Type, At: now, IDs: req.IDs, Quiet: req.Quiet, Clear: req.Clear,
		By: protocol.User{ID: who.id, Name: who.name, Role: who.role}, After: room.Head().Seq,
	}
	if req.ForMS > 0 {
		a.Ends = now + req.ForMS
	}
	if req.Until == protocol.UntilBroadcast {
		state, _ := room.Status()
		a.Broadcast = state.Broadcast
		if state.Status != protocol.StatusLive || a.Broadcast == 0 {
			a.Broadcast++
		}
	}
	if req.Reason != "" {
		clean, err := text.Clean(req.Reason, protocol.MaxReason)
		if err != nil && !errors.Is(err, text.ErrEmpty) {
			return nil, &protocol.Error{Code: protocol.CodeTooLong, Message: "reason: " + err.Error()}
		}
		a.Reason = clean
	}
	if req.User == "" {
		return a, nil
	}
	a.User = s.real(req.User)
	if err := auth.CheckAuthor(a.User); err != nil {
		return nil, &protocol.Error{Code: protocol.CodeBadMessage, Message: "user: " + err.Error()}
	}
	for _, v := range s.users.sessions(userOf(room.Name(), a.User)) {
		if v.rank() >= who.rank() {
			return nil, forbidden("nobody acts on who has their own standing or more")
		}
		a.Name = v.name
	}
	a.Hash = s.cfg.Log.UserHash(room.Name(), a.User)
	return a, nil
}

func forbidden(why string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeForbidden, Message: why}
}

func unreached() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: 1000, Message: "nothing was done: the room log cannot be reached; try again"}
}

// mayRemove says why somebody may not remove comments: viewers only their own, the staff not those of
// who has their own standing or more, as far as the node knows them. (What anybody sees does not depend
// on it: such an act hides nothing.)
func (s *Server) mayRemove(ctx context.Context, room *hub.Room, who *identity, ids []string) *protocol.Error {
	for _, id := range ids {
		author, rank, known := room.Author(id)
		if !known && !who.role.Runs() {
			e, err := s.cfg.Log.Event(ctx, room.Name(), hub.CommentSeq(id))
			if err != nil {
				return unreached()
			}
			if e == nil || e.Kind != hub.KindComment && e.Kind != hub.KindEvent || e.CommentID() != id {
				return forbidden("the comment is not there any more, or was never yours")
			}
			var role protocol.Role
			author, role = protocol.AuthorOf(e.Body)
			rank = role.Rank()
		}
		switch {
		case author == who.id && author != "":
		case !who.role.Runs():
			return forbidden("you may take back your own comments alone")
		case known && rank >= who.rank():
			return forbidden("nobody acts on who has their own standing or more")
		}
	}
	return nil
}

// undo undoes an act, whoever of the staff has done it.
func (s *Server) undo(ctx context.Context, room *hub.Room, who *identity, u *hub.Act, req *protocol.ActRequest) (protocol.ActDone, *protocol.Error) {
	u.Undoes = []string{req.Act}
	if _, is := s.cfg.Desk.ActEverywhere(req.Act); is {
		if !who.everywhere {
			return protocol.ActDone{}, forbidden("the act is for all rooms: undoing it takes a token or key for all rooms")
		}
		return s.undoEverywhere(ctx, u)
	}
	switch there, is := room.Act(req.Act); {
	case is && there.From != "":
		return protocol.ActDone{}, forbidden("the act carries out one for all rooms: undo " + there.From)
	case is && there.Part != "":
		return protocol.ActDone{}, forbidden("the act is a part of a sweep: undo " + there.Part)
	case is && there.Kind == protocol.TypeUnmute: // what they have said since would be hidden
		return protocol.ActDone{}, forbidden("that lets a user comment: mute the user anew")
	case is && there.Kind == protocol.TypeSweep:
		u.Undoes = append(u.Undoes, room.Parts(req.Act)...)
	}
	seq, err := s.cfg.Desk.Undo(ctx, room.Name(), u)
	if err == nil && seq == 0 {
		kept, err := s.cfg.Log.Kept(ctx, room.Name(), req.Act)
		var rec hub.Record
		if err != nil {
			return protocol.ActDone{}, unreached()
		}
		if kept.Seq == 0 {
			switch done, err := s.undoNote(ctx, room.Name(), u, req.Act); {
			case err != nil:
				return protocol.ActDone{}, s.notDone(err)
			case done:
				return protocol.ActDone{Act: u.ID}, nil
			}
		}
		if kept.Seq == 0 || json.Unmarshal(kept.Body, &rec) != nil || rec.Undo == nil {
			return protocol.ActDone{}, &protocol.Error{Code: protocol.CodeNoAct, Message: "there is no such act in this room, or it has ended long ago"}
		}
		return protocol.ActDone{Act: rec.Undo.ID}, nil // somebody else has undone it
	}
	return s.answer(ctx, room, u.ID, seq, err)
}

func (s *Server) undoEverywhere(ctx context.Context, u *hub.Act) (protocol.ActDone, *protocol.Error) {
	if err := s.cfg.Desk.UndoEverywhere(ctx, u); err != nil {
		return protocol.ActDone{}, s.notDone(err)
	}
	return protocol.ActDone{Act: u.ID}, nil
}

// ack takes the acknowledgement of a warning, which undoes it.
func (s *Server) ack(ctx context.Context, room *hub.Room, who *identity, u *hub.Act, req *protocol.ActRequest) (protocol.ActDone, *protocol.Error) {
	u.Kind, u.Undoes = protocol.TypeUndo, []string{req.Act}
	there, is := room.Act(req.Act)
	switch {
	case is && (there.Kind != protocol.TypeWarn || there.Hash != s.cfg.Log.UserHash(room.Name(), who.id)):
		return protocol.ActDone{}, forbidden("that is no warning of yours")
	case !is:
		return protocol.ActDone{}, nil // it was acknowledged, or has ended
	}
	seq, err := s.cfg.Desk.Undo(ctx, room.Name(), u)
	return s.answer(ctx, room, u.ID, seq, err)
}

// lift undoes all mutes or bans of a user.
func (s *Server) lift(ctx context.Context, room *hub.Room, u *hub.Act, req *protocol.ActRequest) (protocol.ActDone, *protocol.Error) {
	kind := protocol.TypeMute
	if req.Type == protocol.TypeUnban {
		kind = protocol.TypeBan
	}
	user, whole := u.User, *u
	u.Kind, u.User, u.Hash, u.Name = protocol.TypeUndo, "", "", ""
	everywhere := false
	for _, a := range s.cfg.Desk.Everywhere(user) {
		if a.Kind == kind {
			everywhere = true
			if req.AllRooms {
				u.Undoes = append(u.Undoes, a.ID)
			}
		}
	}
	if req.AllRooms {
		if len(u.Undoes) == 0 {
			return protocol.ActDone{}, nil
		}
		return s.undoEverywhere(ctx, u)
	}
	acts, _ := room.UserActs(user)
	var sweeps []hub.Act
	for i := range acts {
		switch a := &acts[i]; {
		case a.Kind == kind && a.From == "":
			u.Undoes = append(u.Undoes, a.ID)
		case a.Kind == protocol.TypeSweep && kind == protocol.TypeMute:
			sweeps = append(sweeps, *a)
		}
	}
	if len(sweeps) > 0 {
		done, err := s.unsweep(ctx, room, whole, sweeps)
		if err != nil || len(u.Undoes) == 0 {
			return done, err
		}
		u.ID += "-2"
	}
	switch {
	case len(u.Undoes) > 0:
		seq, err := s.cfg.Desk.Undo(ctx, room.Name(), u)
		return s.answer(ctx, room, u.ID, seq, err)
	case everywhere:
		return protocol.ActDone{}, forbidden("that holds for all rooms: lift it with all_rooms")
	}
	return protocol.ActDone{}, nil // there is nothing to lift
}

// notDone is the answer to an act that was not done, or perhaps was.
func (s *Server) notDone(err error) *protocol.Error {
	if errors.Is(err, hub.ErrUnavailable) {
		return unreached()
	}
	return &protocol.Error{Code: protocol.CodeUnknownOutcome, RetryMS: 1000,
		Message: "the act may have been done, or may yet be; try again with the same ref to be sure"}
}

// answer waits until this node has heard of an act that is done, and tells its cursor.
func (s *Server) answer(ctx context.Context, room *hub.Room, id string, seq uint64, err error) (protocol.ActDone, *protocol.Error) {
	switch {
	case err != nil:
		return protocol.ActDone{}, s.notDone(err)
	case seq == 0:
		return protocol.ActDone{Act: id}, nil
	}
	until := time.Now().Add(actWait)
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		if cursor, heard := room.Cursor(seq); heard {
			return protocol.ActDone{Act: id, Cursor: cursor}, nil
		}
		if time.Now().After(until) || ctx.Err() != nil {
			break
		}
		time.Sleep(wait)
	}
	e, failed := s.cfg.Log.Event(ctx, room.Name(), seq)
	if failed != nil || e == nil {
		return protocol.ActDone{Act: id}, nil
	}
	return protocol.ActDone{Act: id, Cursor: room.CursorAt(e.Position())}, nil
}

// actID is the same for the same request, as [draftID]; without a ref each is another one.
func actID(room, user, session string, req *protocol.ActRequest) string {
	h := sha256.New()
	ref := req.Ref
	if ref == "" {
		ref = newRef()
	}
	plain := *req
	plain.Ref = ""
	for _, part := range [][]byte{[]byte("act"), []byte(room), []byte(user), []byte(session), []byte(ref), protocol.EncodeRequest(&plain)} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(part)))
		_, _ = h.Write(append(n[:], part...)) // never fails
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// act and set are what a connection asks for that takes several steps: they are done beside it.

func (v *session) act(req *protocol.ActRequest) {
	v.beside(req.Ref, func(ctx context.Context, room *hub.Room, who *identity) (*protocol.OK, *protocol.Error) {
		done, err := v.server.act(ctx, room, who, v.session, req)
		return &protocol.OK{Ref: req.Ref, Act: done.Act, Cursor: done.Cursor}, err
	})
}

func (v *session) set(req *protocol.SetRequest) {
	patch, err := protocol.DecodePatch(req.State) // here: its bytes are gone when the message is
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		e.Ref = req.Ref
		v.send(e)
		return
	}
	patch.Rev = req.Rev
	v.beside(req.Ref, func(ctx context.Context, room *hub.Room, who *identity) (*protocol.OK, *protocol.Error) {
		set, e := v.server.setState(ctx, room.Name(), who, patch)
		return &protocol.OK{Ref: req.Ref, Rev: set.Rev}, e
	})
}

// beside does something beside the connection, and answers when it is done.
func (v *session) beside(ref string, do func(context.Context, *hub.Room, *identity) (*protocol.OK, *protocol.Error)) {
	s := v.server
	refuse := func(e *protocol.Error) {
		e.Ref = ref
		v.send(e)
	}
	switch room, ok := s.cfg.Hub.AcquireToPost(v.room); {
	case !ok:
		refuse(unreached())
	case v.parting.Load():
		room.Release()
		refuse(&protocol.Error{Code: protocol.CodeUnavailable, RetryMS: comeBack.Milliseconds(), Message: "nothing was done: this node is leaving; try again on another"})
	case v.underWay.Add(1) > maxActing:
		v.underWay.Add(-1)
		room.Release()
		refuse(&protocol.Error{Code: protocol.CodeRateLimited, RetryMS: 1000, Message: "wait for the answers to what you have asked for"})
	default:
		who := v.identity     // which a fresh token may change
		s.running.Go(func() { // ends within the log's deadlines
			defer room.Release()
			defer v.underWay.Add(-1)
			ctx, cancel := context.WithTimeout(context.Background(), actTime)
			defer cancel()
			switch done, err := do(ctx, room, &who); {
			case err != nil:
				refuse(err)
			case ref != "":
				v.send(done)
			}
		})
	}
}

// actTime bounds what an act takes: two appends, with their tries.
const actTime = 30 * time.Second

// postAct is POST /v1/rooms/{room}/acts.
func (s *Server) postAct(w http.ResponseWriter, r *http.Request) {
	name, who, ok := s.enter(w, r, "")
	if !ok || !s.mayAsk(w, userOf(name, who.id), who) {
		return
	}
	p, ok := s.longBody(w, r, max(protocol.MaxActBody, s.cfg.MaxMessage))
	if !ok {
		return
	}
	req, err := protocol.DecodeAct(p)
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		writeProblem(w, 0, e, 0)
		return
	}
	room, ok := s.postRoom(w, name)
	if !ok {
		return
	}
	defer room.Release()
	done, e := s.act(r.Context(), room, &who, "", req)
	if e != nil {
		writeProblem(w, 0, e, 0)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, done)
}
