package edge

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// The gates say who may comment in a room now, and why somebody may not, in words that pages can
// show: what the room's state says, and what moderators have done. They decide from memory. What a
// node has taken that did not know of an act yet is hidden by the act itself (hub/acts.go).

// defaultKnown is how long somebody must be known in the mode known, when the state does not say.
const defaultKnown = 24 * time.Hour

// knownRetry is when to try again while it is not known for how long somebody has been known.
const knownRetry = 2 * time.Second

// onlyCreated is a pattern that no name matches.
const onlyCreated = "created"

// exists reports whether a room is there: whoever may watch may make up any name, unless the
// operator says which rooms there are. The room is ready.
func (s *Server) exists(room *hub.Room) bool {
	if len(s.cfg.Rooms) == 0 {
		return true
	}
	for _, pattern := range s.cfg.Rooms {
		if ok, _ := path.Match(pattern, room.Name()); ok && pattern != onlyCreated {
			return true
		}
	}
	doc := room.Doc()
	return doc.Rev > 0 && !protocol.IsDeleted(doc.Body)
}

// noRoom refuses whoever asks for a room that is not there.
func noRoom() *refusal {
	return &refusal{close: protocol.CloseNoRoom, code: protocol.CodeNoRoom, message: "there is no such room", reason: refusedRoom}
}

// sanctions are the acts in force about somebody in a room, those for all rooms too.
type sanctions struct {
	ban, mute, warn *hub.Act
	quiet, trusted  bool
	known           bool // the room knows its acts
	everywhere      []hub.Act
	stale           []string // acts that carry out one for all rooms that does not count any more
}

// sanctionsOf returns what moderators have done about somebody. Those who were acted on by who has
// not more standing are not concerned.
func (s *Server) sanctionsOf(room *hub.Room, p *identity) sanctions {
	var out sanctions
	acts, known := room.UserActs(p.id)
	out.known = known
	if s.cfg.Desk != nil {
		out.everywhere = s.cfg.Desk.Everywhere(p.id)
	}
	take := func(a *hub.Act) {
		if p.rank() >= a.By.Role.Rank() {
			return
		}
		longest := func(had *hub.Act) *hub.Act {
			if had == nil || had.Ends > 0 && (a.Ends == 0 || a.Ends > had.Ends) {
				return a
			}
			return had
		}
		switch a.Kind {
		case protocol.TypeBan:
			out.ban = longest(out.ban)
		case protocol.TypeMute, protocol.TypeSweep:
			if a.Quiet {
				out.quiet = true
			} else {
				out.mute = longest(out.mute)
			}
		case protocol.TypeWarn:
			out.warn = longest(out.warn)
		case protocol.TypeTrust:
			out.trusted = true
		}
	}
	for i := range out.everywhere {
		take(&out.everywhere[i])
	}
	for i := range acts {
		if a := &acts[i]; a.From != "" && s.cfg.Desk != nil {
			if _, counts := s.cfg.Desk.ActEverywhere(a.From); !counts {
				out.stale = append(out.stale, a.ID)
				continue
			}
		}
		take(&acts[i])
	}
	return out
}

// told is what somebody is told of an act about them.
func (s *Server) told(code protocol.ErrorCode, words string, a *hub.Act) *protocol.Blocked {
	b := &protocol.Blocked{Code: code, Message: words, Sanction: protocol.Sanction{Act: a.Whole(), Reason: a.Reason, Ends: a.Ends, AppealURL: s.cfg.AppealURL}}
	if a.Reason != "" {
		b.Message += ": " + a.Reason
	}
	if a.Ends > 0 {
		b.RetryMS = max(1, a.Ends-s.cfg.Log.Now().UnixMilli())
	}
	return b
}

// blocked says why somebody may not comment in a room now; nil when they may, as far as the room is
// concerned. The caller holds no lock of the room.
func (s *Server) blocked(room *hub.Room, p *identity) *protocol.Blocked {
	acts := s.sanctionsOf(room, p)
	s.meet(room, p, &acts)
	return s.silenced(room, p, &acts)
}

// silenced is blocked where what moderators have done is known.
func (s *Server) silenced(room *hub.Room, p *identity, acts *sanctions) *protocol.Blocked {
	switch {
	case !acts.known:
		return &protocol.Blocked{Code: protocol.CodeUnavailable, RetryMS: 1000, Message: "the room log cannot be reached"}
	case acts.ban != nil:
		return s.told(protocol.CodeBanned, "you are banned", acts.ban)
	case p.trusted():
		return nil
	case acts.mute != nil:
		return s.told(protocol.CodeMuted, "you are muted", acts.mute)
	case acts.warn != nil:
		return s.told(protocol.CodeWarned, "acknowledge the warning first", acts.warn)
	case len(acts.stale) > 0:
		return &protocol.Blocked{Code: protocol.CodeUnavailable, RetryMS: 1000, Message: "what was done about you is being undone"}
	}
	state, _ := room.Status()
	if b := s.closedTo(room, &state, p, acts.trusted); b != nil {
		return b
	}
	if wait := room.SlowWait(p.id); wait > 0 {
		return &protocol.Blocked{Code: protocol.CodeSlowMode, RetryMS: max(1, wait.Milliseconds()),
			Message: fmt.Sprintf("slow mode: one comment in %s; the next one in %s", words(time.Duration(state.SlowMS)*time.Millisecond), words(wait))}
	}
	return nil
}

// closedTo says why a room takes no comments of somebody, whoever they are; nil when it does.
func (s *Server) closedTo(room *hub.Room, state *protocol.State, p *identity, trusted bool) *protocol.Blocked {
	locked := func(words string) *protocol.Blocked {
		return &protocol.Blocked{Code: protocol.CodeLocked, Message: words}
	}
	switch {
	case state.Status == protocol.StatusEnded:
		return locked("the broadcast has ended: nobody but the staff may comment")
	case state.Status == protocol.StatusScheduled && state.EarlyChat != nil && !*state.EarlyChat:
		b := locked("comments open when the broadcast begins")
		if wait := state.StartsAt - s.cfg.Log.Now().UnixMilli(); wait > 0 {
			b.RetryMS = wait
		}
		return b
	}
	switch state.Mode {
	case protocol.ModeLocked:
		return locked("the room is locked: nobody but the staff may comment")
	case protocol.ModeUsers:
		if p.guest {
			return locked("guests may not comment now: log in")
		}
	case protocol.ModeMembers:
		if !p.member {
			return locked("only members may comment now")
		}
	case protocol.ModeKnown:
		if trusted {
			return nil
		}
		wait := defaultKnown
		if state.KnownMS > 0 {
			wait = time.Duration(state.KnownMS) * time.Millisecond
		}
		first, known := room.First(p.id)
		if !known {
			b := locked("only those who have been here before may comment now")
			b.RetryMS = knownRetry.Milliseconds()
			return b
		}
		if left := time.Until(first.Add(wait)); left > 0 {
			b := locked(fmt.Sprintf("only those who came here at least %s ago may comment now", words(wait)))
			b.RetryMS = max(1, left.Milliseconds())
			return b
		}
	}
	return nil
}

// refusing is what a comment is answered that comes while its author is blocked.
func refusing(b *protocol.Blocked) *protocol.Error {
	return &protocol.Error{Code: b.Code, Message: b.Message, RetryMS: b.RetryMS, Sanction: b.Sanction}
}

// words is a duration as people say it.
func words(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "day"}, {time.Hour, "hour"}, {time.Minute, "minute"}} {
		if d >= u.unit && d%u.unit == 0 || d >= 10*u.unit {
			n := int64(d / u.unit)
			if n == 1 {
				return "1 " + u.name
			}
			return fmt.Sprintf("%d %ss", n, u.name)
		}
	}
	return fmt.Sprintf("%d s", int64(d.Round(time.Second)/time.Second))
}

// link is what counts as a link in a comment.
var link = regexp.MustCompile(`(?i)(https?://|\bwww\.)[^\s\pZ]`)

// hasLink reports whether a text has a link: http:// or https:// or www., and something behind it.
func hasLink(text string) bool { return link.MatchString(text) }

// textLimitIn is how many characters a comment of somebody may have in a room.
func (s *Server) textLimitIn(room *hub.Room, p *identity) int {
	limit := s.textLimit(p)
	if p.trusted() || room == nil { // it is not known yet
		return limit
	}
	if state, _ := room.Status(); state.Text > 0 {
		return min(limit, state.Text)
	}
	return limit
}

// limitsIn are the limits of somebody in a room.
func (s *Server) limitsIn(room *hub.Room, p *identity) protocol.Limits {
	l := s.limitsOf(p)
	l.Text = s.textLimitIn(room, p)
	return l
}

// sameBlocked reports whether two say the same, but for how long is left.
func sameBlocked(a, b *protocol.Blocked) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Code == b.Code && a.Act == b.Act && (a.Message == b.Message || a.Code == protocol.CodeSlowMode)
}

// rank is somebody's place in the order of standing.
func (p *identity) rank() int { return p.role.Rank() }

// everywhere reports whether a token or key is for all rooms.
func everywhere(rooms []string) bool { return slices.Contains(rooms, "*") }
