package edge

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/text"
	"github.com/kansei-live/kansei/protocol"
)

// comment is what somebody wants to publish: a comment, or an event of the application.
type comment struct {
	room     string
	session  string // where the ref is unique
	identity *identity
	author   *protocol.User           // nil: the identity
	user     *entry[user]             // of the identity, whose rate it is, also for another author
	address  *address                 // nil: nobody's
	req      *protocol.CommentRequest // nil: event
	event    *protocol.EventRequest
}

// ref is the sender's own, empty without one.
func (c *comment) ref() string {
	if c.event != nil {
		return c.event.Ref
	}
	return c.req.Ref
}

// publish is the one way of a comment into the room log: it judges the comment,
// hands it to the log in the order of the calls, and answers when the log has taken
// it or could not. answer is called exactly once, perhaps before publish returns.
//
// What the log has taken is not judged again when it is said again: the rules may have
// changed since, or the first try may have used up what they allow. When it is not sure
// that the log has it still, it goes there again, and the log knows.
func (s *Server) publish(c comment, answer func(id string, err *protocol.Error)) {
	counter := s.cfg.Metrics.comments
	if c.event != nil {
		counter = s.cfg.Metrics.events
	}
	count := func(result string) { counter.WithLabelValues(result).Inc() }
	id := draftID(c)
	known := false
	if c.ref() != "" { // without one its id is new
		var (
			seq  uint64
			sure bool
		)
		if seq, known, sure = s.cfg.Hub.Said(c.room, id); sure {
			count("ok")
			answer(hub.CommentID(seq, id), nil)
			return
		}
	}
	var refusal *protocol.Error
	if !known {
		refusal = s.take(c)
	}
	var draft hub.Draft
	if refusal == nil {
		draft, refusal = s.draft(c, id)
	}
	if refusal != nil && known { // it was taken, and may be lost
		refusal = unknownOutcome()
	}
	if refusal != nil {
		count(string(refusal.Code))
		answer("", refusal)
		return
	}
	draft.Origin = s.origin(c)
	undo := func() {}
	if room := s.cfg.Hub.Find(c.room); room != nil && c.event == nil && !c.identity.trusted() {
		undo = room.Speak(c.identity.id)
	}
	s.append(c, draft, func(got hub.Receipt, err error) {
		if errors.Is(err, hub.ErrUnavailable) {
			undo()
		}
		switch {
		case err == nil:
			count("ok")
			answer(hub.CommentID(got.Seq, draft.ID), nil)
		case errors.Is(err, hub.ErrUnavailable) && !known: // or an earlier try is there
			count(string(protocol.CodeUnavailable))
			answer("", &protocol.Error{Code: protocol.CodeUnavailable, RetryMS: 1000,
				Message: "the comment was not published: the room log cannot be reached; try again"})
		default:
			count(string(protocol.CodeUnknownOutcome))
			answer("", unknownOutcome())
		}
	})
}

// append hands a draft to the log. One that lasts takes several steps, and is done beside.
func (s *Server) append(c comment, draft hub.Draft, done func(hub.Receipt, error)) {
	room := s.cfg.Hub.Find(c.room)
	if c.event == nil || !c.event.Lasting || room == nil {
		s.cfg.Log.Append(c.room, draft, done)
		return
	}
	head := room.Head().Seq
	s.running.Go(func() { // ends within the log's deadlines
		ctx, cancel := context.WithTimeout(context.Background(), actTime)
		defer cancel()
		seq, err := s.cfg.Lasting.Publish(ctx, c.room, c.event.Name, draft, head)
		done(hub.Receipt{Seq: seq}, err)
	})
}

func unknownOutcome() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeUnknownOutcome, RetryMS: 1000,
		Message: "the comment may have been published; try again with the same ref to be sure"}
}

// draft judges a comment and makes the event of it.
func (s *Server) draft(c comment, id string) (hub.Draft, *protocol.Error) {
	if !c.identity.comment {
		return hub.Draft{}, &protocol.Error{Code: protocol.CodeForbidden, Message: "you may watch, but not comment"}
	}
	room := s.cfg.Hub.Find(c.room)
	if b := s.barred(room, c); b != nil && (c.event == nil || b.Code != protocol.CodeSlowMode) {
		return hub.Draft{}, refusing(b)
	}
	author, refused := s.authorOf(c)
	if refused != nil {
		return hub.Draft{}, refused
	}
	if c.event != nil {
		return s.draftEvent(room, c, author, id)
	}
	clean, err := text.Clean(c.req.Text, s.textLimitIn(room, c.identity))
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
	if state, _ := room.Status(); state.Links == protocol.LinksNone && !c.identity.trusted() && hasLink(clean) {
		return hub.Draft{}, &protocol.Error{Code: protocol.CodeNoLinks, Message: "comments here may have no links"}
	}
	body := protocol.EncodeBody(protocol.Comment{User: author, Text: clean, MediaMS: c.req.MediaMS, Style: c.req.Style, Data: c.req.Data})
	return hub.Draft{ID: id, Kind: hub.KindComment, Rate: s.rate(c), Body: body}, nil
}

// authorOf is whose name stands on what is published.
func (s *Server) authorOf(c comment) (protocol.User, *protocol.Error) {
	if c.author == nil {
		return s.author(c.room, c.identity), nil
	}
	id := s.real(c.author.ID)
	if err := auth.CheckAuthor(id); err != nil {
		return protocol.User{}, &protocol.Error{Code: protocol.CodeBadMessage, Message: "user.id: " + err.Error()}
	}
	return protocol.User{ID: id, Name: text.CleanName(c.author.Name, protocol.MaxUserName)}, nil
}

// draftEvent judges an event of the application and makes the event of the log of it.
func (s *Server) draftEvent(room *hub.Room, c comment, author protocol.User, id string) (hub.Draft, *protocol.Error) {
	e := c.event
	user, one := strings.CutPrefix(e.Audience, protocol.AudienceUser)
	if !c.identity.trusted() {
		switch {
		case !slices.Contains(s.cfg.ViewerEvents, e.Name):
			return hub.Draft{}, forbidden("events of that name come from the staff and back ends alone (--viewer-events)")
		case one, e.Lasting:
			return hub.Draft{}, forbidden("events that last, or are for one user, come from the staff and back ends alone")
		}
	}
	audience := e.Audience
	if one {
		user = s.real(user)
		if err := auth.CheckAuthor(user); err != nil {
			return hub.Draft{}, &protocol.Error{Code: protocol.CodeBadMessage, Message: "audience: " + err.Error()}
		}
		audience = hub.AudienceUser + user
	}
	if e.Lasting {
		if n, has := room.LastingNames(e.Name); !has && n >= s.cfg.MaxLasting {
			return hub.Draft{}, forbidden("the room has as many names of lasting events as it may (--max-lasting)")
		}
	}
	body := protocol.EncodeEventBody(protocol.Event{User: author, Name: e.Name, Data: e.Data, Lasting: e.Lasting})
	return hub.Draft{ID: id, Kind: hub.KindEvent, Audience: audience, Body: body}, nil
}

// barred says why somebody may not comment; nil when they may. A back end that publishes as
// another user is bound by what was done about that user, but not by the modes of the room.
func (s *Server) barred(room *hub.Room, c comment) *protocol.Blocked {
	if room == nil { // what moderators have done is not known
		return &protocol.Blocked{Code: protocol.CodeUnavailable, RetryMS: 1000,
			Message: "the comment was not published: the room log cannot be reached; try again"}
	}
	if b := s.blocked(room, c.identity); b != nil {
		return b
	}
	if c.author == nil {
		return nil
	}
	acts := s.sanctionsOf(room, &identity{id: s.real(c.author.ID)})
	switch {
	case acts.ban != nil:
		return s.told(protocol.CodeBanned, "the user is banned", acts.ban)
	case acts.mute != nil:
		return s.told(protocol.CodeMuted, "the user is muted", acts.mute)
	}
	return nil
}

// origin stands for the address that something comes from; empty when that is nobody's. What a back end publishes comes
// from nowhere.
func (s *Server) origin(c comment) string {
	if c.address == nil {
		return ""
	}
	return s.cfg.Log.Origin(c.room, string(c.address.key[:]))
}

// quietRate is the rate of a room, in comments a second, below which nobody needs to
// know it.
const quietRate = 10

// rate is how many comments a room has had in the last second, if they were many: less of an overfull room for
// who weighs more in its sample.
func (s *Server) rate(c comment) uint32 {
	if n := s.cfg.Hub.DraftRate(c.room, s.cfg.Weights.of(c.identity)); n >= quietRate {
		return n
	}
	return 0
}

// Weights is how much authors weigh in the sample of an overfull room, at least 1; 0 is 1.
type Weights struct{ Guest, User, Member int }

func (w *Weights) of(p *identity) int {
	switch {
	case p.guest:
		return w.Guest
	case p.member:
		return w.Member
	}
	return w.User
}

// draftID is the same for the same request: the same content under the same ref in the
// same session of the same user, so that the log takes it once. It is 128 bits of a hash
// of what was sent, and not of what becomes of it: a name that a new token has changed, or
// a setting, must not make another comment of the second try. Without a ref it is random.
func draftID(c comment) string {
	var id [16]byte
	if c.ref() == "" {
		_, _ = rand.Read(id[:]) // never fails
		return base64.RawURLEncoding.EncodeToString(id[:])
	}
	h := sha256.New()
	add := func(parts ...string) {
		for _, part := range parts {
			var n [4]byte
			binary.BigEndian.PutUint32(n[:], uint32(len(part)))
			h.Write(n[:])
			_, _ = io.WriteString(h, part) // never fails
		}
	}
	author := ""
	if c.author != nil {
		author = c.author.ID
	}
	add(c.room, c.identity.id, c.session, c.ref(), author)
	if e := c.event; e != nil {
		add("event", e.Name, string(e.Data), e.Audience, strconv.FormatBool(e.Lasting))
	} else {
		media, style := "", protocol.Style{}
		if c.req.MediaMS != nil {
			media = strconv.FormatInt(*c.req.MediaMS, 10)
		}
		if c.req.Style != nil {
			style = *c.req.Style
		}
		add(c.req.Text, media, style.Position, style.Size, style.Color)
		if c.req.Data != nil { // a comment without has the id that nodes of before give it
			add(string(c.req.Data))
		}
	}
	copy(id[:], h.Sum(nil))
	return base64.RawURLEncoding.EncodeToString(id[:])
}
