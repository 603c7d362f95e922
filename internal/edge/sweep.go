package edge

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/text"
	"github.com/kansei-live/kansei/protocol"
)

// A sweep is for raids. A dry run looks through the last minutes of the room's log and keeps what it has found beside the
// log of moderation, where every node can read it: so the act, which cites it, does what was shown to the moderator,
// wherever it is asked for, and nothing else.

const (
	// maxLook is how many records of a room's log are looked through, and lookPage how many are read at once.
	maxLook  = 20_000
	lookPage = 1000
	// lookTime bounds a look through the log, and looksAtOnce how many are under way on this node.
	lookTime    = 10 * time.Second
	looksAtOnce = 4
	// sweepHolds is how long a dry run may be cited.
	sweepHolds = 10 * time.Minute
	// partComments and partUsers are what one act of a sweep names: it has further parts where that is more.
	partComments, partUsers = protocol.MaxActIDs, 250
)

// found is what a dry run has found, as it is kept.
type found struct {
	Query protocol.SweepQuery `json:"query"`
	IDs   []string            `json:"ids"`
	Users []hub.Whom          `json:"users"`
	Of    int                 `json:"of"`
}

// sure reports whether an act that cites it must be.
func (f *found) sure() bool { return float64(len(f.Users)) > protocol.SureShare*float64(f.Of) }

// saying is what somebody has said, as far as those who look through the log want to know.
type saying struct {
	protocol.Comment
	Name   string `json:"name"` // of an event
	event  *hub.Event
	hidden bool
}

// look calls each with what was said in a room, the latest first, until that returns false. partial says that there is
// more than it looks through.
func (s *Server) look(ctx context.Context, room *hub.Room, most int, each func(*saying) bool) (partial bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	select {
	case s.looking <- struct{}{}:
		defer func() { <-s.looking }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	at, with := hub.Position{Seq: hub.EndSeq}, true
	for looked := 0; looked < most; {
		page, err := s.cfg.Log.Before(ctx, room.Name(), "", at, with, lookPage)
		if err != nil {
			return false, err
		}
		looked += max(1, len(page.Events))
		for i := len(page.Events) - 1; i >= 0; i-- {
			e := &page.Events[i]
			if e.Kind != hub.KindComment && e.Kind != hub.KindEvent {
				continue
			}
			one := saying{event: e}
			if json.Unmarshal(e.Body, &one) != nil {
				continue
			}
			one.ID, one.At = e.CommentID(), e.At
			if e.Kind == hub.KindComment {
				one.Name = ""
			}
			if !each(&one) {
				return false, nil
			}
		}
		if !page.More {
			return false, nil
		}
		at, with = page.From, false
	}
	return true, nil
}

// postSweep is POST /v1/rooms/{room}/sweeps: the dry run.
func (s *Server) postSweep(w http.ResponseWriter, r *http.Request) {
	name, who, ok := s.enter(w, r, "")
	if !ok {
		return
	}
	if !who.role.Runs() {
		writeProblem(w, 0, forbidden("only a broadcaster or moderator may do that"), 0)
		return
	}
	if !s.mayAsk(w, userOf(name, who.id), who) {
		return
	}
	p, ok := s.body(w, r)
	if !ok {
		return
	}
	q, err := protocol.DecodeSweep(p)
	if e, bad := errors.AsType[*protocol.Error](err); bad {
		writeProblem(w, 0, e, 0)
		return
	}
	room, ok := s.postRoom(w, name)
	if !ok {
		return
	}
	defer room.Release()
	out, e := s.dryRun(r.Context(), room, &who, q)
	if e != nil {
		writeProblem(w, 0, e, 0)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, out)
}

// dryRun finds what a sweep asks for, and keeps it.
func (s *Server) dryRun(ctx context.Context, room *hub.Room, who *identity, q *protocol.SweepQuery) (*protocol.Sweep, *protocol.Error) {
	if !room.Ready(ctx) {
		return nil, unreached()
	}
	if !s.exists(room) {
		return nil, noRoom().problem()
	}
	if q.Text != "" && text.Skeleton(q.Text) == "" {
		return nil, &protocol.Error{Code: protocol.CodeBadMessage, Message: "text must have something to look for"}
	}
	q.SameAddress = s.real(q.SameAddress)
	all, authors, partial, err := s.recent(ctx, room, who, q)
	if err != nil {
		return nil, unreached()
	}
	out := &protocol.Sweep{Sweep: rand.Text(), Of: len(authors), Partial: partial, Samples: []protocol.Comment{}}
	by, e := s.suspects(ctx, room, q, all, authors, out)
	if e != nil {
		return nil, e
	}
	f := found{Query: *q, Of: out.Of}
	users := map[string]bool{}
	for _, one := range all {
		id := one.User.ID
		if one.hidden || by != nil && !by[id] || !asked(q, &one.Comment) {
			continue
		}
		if len(f.IDs) == s.cfg.MaxSweep {
			out.Partial = true
			break
		}
		f.IDs = append(f.IDs, one.ID)
		if !users[id] {
			users[id] = true
			f.Users = append(f.Users, hub.Whom{Hash: s.cfg.Log.UserHash(room.Name(), id), User: id, Name: one.User.Name})
		}
		if len(out.Samples) < protocol.SweepSamples {
			out.Samples = append(out.Samples, one.Comment)
		}
	}
	out.Comments, out.Users, out.Sure = len(f.IDs), len(f.Users), f.sure()
	out.Ends = s.cfg.Log.Now().Add(sweepHolds).UnixMilli()
	body, err := json.Marshal(&f)
	if err == nil {
		err = s.cfg.Moderation.KeepFound(ctx, room.Name(), out.Sweep, body, sweepHolds)
	}
	if err != nil {
		return nil, unreached()
	}
	return out, nil
}

// recent is what was said in the time that a sweep looks at, the latest first, by others than the staff, and who has.
func (s *Server) recent(ctx context.Context, room *hub.Room, who *identity, q *protocol.SweepQuery) (all []saying, authors map[string]bool, partial bool, err error) {
	since := s.cfg.Log.Now().UnixMilli() - q.LastMS
	authors = map[string]bool{}
	partial, err = s.look(ctx, room, maxLook, func(one *saying) bool {
		if one.At < since {
			return false
		}
		if rank := one.User.Role.Rank(); one.User.ID != "" && rank < who.rank() && !one.User.Role.Staff() {
			authors[one.User.ID] = true
			one.hidden = room.Hides(one.event, one.User.ID, rank)
			if one.Data != nil && one.event.Kind == hub.KindEvent {
				one.Text = string(one.Data)
			}
			all = append(all, *one)
		}
		return true
	})
	return all, authors, partial, err
}

// suspects are the authors that a sweep names; nil: it names nobody.
func (s *Server) suspects(ctx context.Context, room *hub.Room, q *protocol.SweepQuery, all []saying, authors map[string]bool, out *protocol.Sweep) (map[string]bool, *protocol.Error) {
	if !q.Guests && q.NewcomersMS == 0 && q.SameAddress == "" {
		return nil, nil
	}
	by := map[string]bool{}
	var others []string
	for id := range authors {
		if by[id] = q.Guests && strings.HasPrefix(id, auth.GuestPrefix); !by[id] {
			others = append(others, id)
		}
	}
	if q.SameAddress != "" {
		origins := map[string]bool{}
		for i := range all {
			if origin := all[i].event.Origin; all[i].User.ID == q.SameAddress && origin != "" {
				origins[origin] = true
			}
		}
		if len(origins) == 0 {
			return nil, &protocol.Error{Code: protocol.CodeBadMessage, Message: "same_address_as: nothing that they have said in that time tells their address"}
		}
		for i := range all {
			if origins[all[i].event.Origin] {
				by[all[i].User.ID] = true
			}
		}
	}
	if q.NewcomersMS == 0 {
		return by, nil
	}
	after := s.cfg.Log.Now().UnixMilli() - q.NewcomersMS
	for ids := range slices.Chunk(others, lookPage) {
		seen, err := s.cfg.Roster.FirstSeen(ctx, room.Name(), ids)
		if err != nil {
			return nil, &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: 1000, Message: "who is new cannot be told: redis does not answer"}
		}
		for i, at := range seen {
			switch {
			case at == 0 && !by[ids[i]]:
				out.Unknown++
			case at > after:
				by[ids[i]] = true
			}
		}
	}
	return by, nil
}

// asked reports whether a comment has all that a sweep asks of it.
func asked(q *protocol.SweepQuery, c *protocol.Comment) bool {
	return (q.Text == "" || text.Contains(c.Text, q.Text)) && (!q.Links || hasLink(c.Text))
}

// sweepUp does the act that cites a dry run.
func (s *Server) sweepUp(ctx context.Context, room *hub.Room, a *hub.Act, req *protocol.ActRequest) (protocol.ActDone, *protocol.Error) {
	body, err := s.cfg.Moderation.Found(ctx, room.Name(), req.Sweep)
	if err != nil {
		return protocol.ActDone{}, unreached()
	}
	var f found
	if body == nil || json.Unmarshal(body, &f) != nil {
		return protocol.ActDone{}, &protocol.Error{Code: protocol.CodeNoAct, Message: "there is no such dry run in this room, or it is too old: do another one"}
	}
	switch {
	case len(f.IDs) == 0:
		return protocol.ActDone{}, nil // there is nothing to do
	case f.sure() && !req.Sure:
		return protocol.ActDone{}, &protocol.Error{Code: protocol.CodeForbidden,
			Message: fmt.Sprintf("%d of the %d who have said something are concerned, more than a fifth: look again, and send sure", len(f.Users), f.Of)}
	}
	if req.Spare {
		f.Users = nil
	}
	a.Swept = &hub.Swept{Query: f.Query, Comments: len(f.IDs), Users: len(f.Users)}
	var seq uint64
	for n := 0; len(f.IDs)+len(f.Users) > 0; n++ {
		part := *a
		if n > 0 {
			part.ID, part.Part, part.Swept = fmt.Sprintf("%s-%d", a.ID, n), a.ID, nil
		}
		part.IDs, f.IDs = divide(f.IDs, partComments)
		part.Users, f.Users = divide(f.Users, partUsers)
		at, err := s.cfg.Desk.Do(ctx, room.Name(), &part)
		if err != nil && n > 0 { // the same again goes on
			err = fmt.Errorf("%w: part %d: %s", hub.ErrUnknownOutcome, n, err.Error()) // not that nothing was done
		}
		if err != nil {
			return protocol.ActDone{}, s.notDone(err)
		}
		seq = max(seq, at)
	}
	return s.answer(ctx, room, a.ID, seq, nil)
}

// divide takes up to n off a list.
func divide[T any](all []T, n int) (some, rest []T) {
	n = min(n, len(all))
	return all[:n:n], all[n:]
}
