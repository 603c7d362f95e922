package edge

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/text"
	"github.com/kansei-live/kansei/protocol"
)

// setTries is how often a change without a rev is tried again when others have changed the state.
const setTries = 8

// putRoom is PUT /v1/rooms/{room}: the fields of the state that the first version had.
func (s *Server) putRoom(w http.ResponseWriter, r *http.Request) {
	s.changeRoom(w, r, func(p []byte) (*protocol.Patch, error) {
		st, err := protocol.DecodeState(p)
		if err != nil {
			return nil, err
		}
		patch, err := protocol.DecodePatch(protocol.PutPatch(st))
		if err != nil {
			return nil, err
		}
		patch.Rev = &st.Rev
		return patch, nil
	})
}

// patchRoom is PATCH /v1/rooms/{room}.
func (s *Server) patchRoom(w http.ResponseWriter, r *http.Request) {
	s.changeRoom(w, r, protocol.DecodePatch)
}

// changeRoom changes the state of a room as the body of a request says.
func (s *Server) changeRoom(w http.ResponseWriter, r *http.Request, decode func([]byte) (*protocol.Patch, error)) {
	name, who, ok := s.enter(w, r, "")
	if !ok {
		return
	}
	if !who.role.Runs() {
		writeProblem(w, 0, forbidden(onlyStaffSets), 0)
		return
	}
	if !s.mayAsk(w, userOf(name, who.id), who) {
		return
	}
	p, ok := s.longBody(w, r, max(protocol.MaxState, s.cfg.MaxMessage))
	if !ok {
		return
	}
	patch, err := decode(p)
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		writeProblem(w, 0, e, 0)
		return
	}
	set, e := s.setState(r.Context(), name, &who, patch)
	if e != nil {
		writeProblem(w, 0, e, 0)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, protocol.EncodeRoomState(set.Body, hub.DecodeState(set)))
}

const onlyStaffSets = "only a broadcaster or moderator may change the room"

// setState changes the state of a room: the one way of changes, of connections and of HTTP. The change
// is written into the room's log too, so that it has its place among the comments.
func (s *Server) setState(ctx context.Context, room string, who *identity, patch *protocol.Patch) (hub.State, *protocol.Error) {
	if !who.role.Runs() {
		return hub.State{}, forbidden(onlyStaffSets)
	}
	for name, most := range map[string]int{"title": protocol.MaxTitle, "notice": protocol.MaxNotice} {
		if err := cleanField(patch, name, most); err != nil {
			return hub.State{}, err
		}
	}
	if err := s.pin(ctx, room, patch); err != nil {
		return hub.State{}, err
	}
	set, err := s.writeState(ctx, room, patch)
	if err != nil {
		return hub.State{}, err
	}
	if set.Body == nil { // it was done some changes ago, and they were written into the log
		set, failed := s.cfg.Log.State(ctx, room)
		if failed != nil {
			return hub.State{}, unreached()
		}
		return set, nil
	}
	if err := s.logState(ctx, room, set); err != nil {
		return hub.State{}, &protocol.Error{Code: protocol.CodeUnknownOutcome, RetryMS: 1000,
			Message: "the state has changed, but the room log does not know of it yet; try the same again"}
	}
	s.heardState(ctx, room, set.Rev)
	return set, nil
}

// heardState waits until the room, if it is open here, has a state: it is in force on this node when
// whoever has set it is told so.
func (s *Server) heardState(ctx context.Context, room string, rev uint64) {
	until := time.Now().Add(actWait)
	for wait := time.Millisecond; ; wait = min(2*wait, 20*time.Millisecond) {
		r := s.cfg.Hub.Find(room)
		if r == nil || r.Doc().Rev >= rev || time.Now().After(until) || ctx.Err() != nil {
			return
		}
		time.Sleep(wait)
	}
}

// cleanField cleans a text of a patch.
func cleanField(patch *protocol.Patch, name string, most int) *protocol.Error {
	s, is := patch.Text(name)
	if !is {
		return nil
	}
	clean, err := text.Clean(s, most)
	switch {
	case errors.Is(err, text.ErrEmpty):
		patch.Fields[name] = json.RawMessage("null")
	case err != nil:
		return &protocol.Error{Code: protocol.CodeTooLong, Message: name + ": " + err.Error()}
	default:
		patch.Set(name, clean)
	}
	return nil
}

// pin puts the comment that is to be pinned into a patch, as the log has it.
func (s *Server) pin(ctx context.Context, room string, patch *protocol.Patch) *protocol.Error {
	id, words := patch.PinOf()
	switch {
	case words != "":
		clean, err := text.Clean(words, protocol.MaxNotice)
		if err != nil {
			return &protocol.Error{Code: protocol.CodeTooLong, Message: "pin.text: " + err.Error()}
		}
		patch.Set("pin", protocol.Pin{Text: clean})
	case id != "":
		e, err := s.cfg.Log.Event(ctx, room, hub.CommentSeq(id))
		if err != nil {
			return unreached()
		}
		if e == nil || e.Kind != hub.KindComment || e.CommentID() != id || e.Audience != hub.AudienceAll {
			return &protocol.Error{Code: protocol.CodeBadMessage, Message: "pin.id: there is no such comment"}
		}
		var c protocol.Comment
		if err := json.Unmarshal(e.Body, &c); err != nil {
			return &protocol.Error{Code: protocol.CodeBadMessage, Message: "pin.id: the comment cannot be read"}
		}
		c.ID, c.At = id, e.At
		patch.Set("pin", protocol.Pin{Comment: &c})
	}
	return nil
}

// writeState writes a change. One without a rev is tried again while others change the state.
func (s *Server) writeState(ctx context.Context, room string, patch *protocol.Patch) (hub.State, *protocol.Error) {
	body := patch.Encode()
	for try := 1; ; try++ {
		now, err := s.cfg.Log.State(ctx, room)
		if err != nil {
			return hub.State{}, unchanged()
		}
		rev := now.Rev
		if patch.Rev != nil {
			rev = *patch.Rev
		}
		if n := len(protocol.MergeState(now.Body, body, s.cfg.Log.Now().UnixMilli())); n > protocol.MaxState {
			return hub.State{}, &protocol.Error{Code: protocol.CodeTooLong,
				Message: fmt.Sprintf("the state would have %d bytes, at most %d are taken", n, protocol.MaxState)}
		}
		set, err := s.cfg.Log.SetState(ctx, room, rev, body)
		switch {
		case err == nil:
			return set, nil
		case errors.Is(err, hub.ErrConflict) && patch.Rev == nil && try < setTries:
			time.Sleep(time.Duration(try) * 5 * time.Millisecond)
		case errors.Is(err, hub.ErrConflict):
			if fresh, err := s.cfg.Log.State(ctx, room); err == nil {
				now = fresh
			}
			return hub.State{}, &protocol.Error{Code: protocol.CodeConflict,
				Message: "the state is not at rev " + strconv.FormatUint(rev, 10) + " any more",
				State:   protocol.EncodeRoomState(now.Body, hub.DecodeState(now))}
		case errors.Is(err, hub.ErrUnknownOutcome):
			return hub.State{}, &protocol.Error{Code: protocol.CodeUnknownOutcome, Message: "the state may have changed; the same request again tells", RetryMS: 1000}
		default:
			return hub.State{}, unchanged()
		}
	}
}

func unchanged() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeUnavailable, Message: "the state was not changed: the room log cannot be reached", RetryMS: 1000}
}

// logState writes a state into the room's log. The same state is the same event.
func (s *Server) logState(ctx context.Context, room string, set hub.State) error {
	draft, err := hub.StateDraft(room, set)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	s.cfg.Log.Append(room, draft, func(_ hub.Receipt, err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deleteRoom is DELETE /v1/rooms/{room}.
func (s *Server) deleteRoom(w http.ResponseWriter, r *http.Request) {
	name, who, ok := s.enter(w, r, "")
	if !ok {
		return
	}
	if who.role != protocol.RoleBroadcaster && !who.admin {
		writeProblem(w, 0, forbidden("only a broadcaster of this room may delete it, or an API key with the scope admin"), 0)
		return
	}
	if !s.mayAsk(w, userOf(name, who.id), who) {
		return
	}
	patch := &protocol.Patch{Fields: map[string]json.RawMessage{}}
	patch.Set("deleted", true)
	patch.Set("status", protocol.StatusEnded)
	if _, e := s.writeState(r.Context(), name, patch); e != nil {
		writeProblem(w, 0, e, 0)
		return
	}
	// Its viewers are being closed. What they have said up to now goes too.
	for _, forget := range []func() error{
		func() error { return s.cfg.Log.Forget(r.Context(), name, hub.EndSeq) },
		func() error { return s.cfg.Log.ForgetStanding(r.Context(), name) },
	} {
		if err := forget(); err != nil {
			s.cfg.Logger.Warn("a room was deleted in part: its comments or acts are left", "room", name, "error", err)
			writeProblem(w, 0, &protocol.Error{Code: protocol.CodeUnknownOutcome, RetryMS: 1000,
				Message: "the room is closed, but its comments or acts could not all be deleted; the same request again goes on"}, 0)
			return
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, protocol.Deleted{
		Room:    name,
		Deleted: []string{"its comments and acts in the log", "the sanctions in force", "its state"},
		Remains: []string{
			"a mark that it was deleted, with the number of its broadcasts",
			"who was here when: in Redis, as long as --presence-keep says",
			"joins and leaves in the stream KANSEI_FEED, for a day",
			"sanctions for all rooms",
			"the log of moderation, as long as --moderation-keep says",
			"who watched it: the watch log as long as --watch-keep says, and archived broadcasts",
			"backups of NATS, and what back ends and viewers have kept",
		},
	})
}

// newRef stands for the ref of a request that has none.
func newRef() string { return rand.Text() }
