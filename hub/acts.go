package hub

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Acts are events of the room's log, so that nothing that hides a comment travels on another chain
// than the comment. What anybody sees of a comment is one function of the acts: it is hidden while
// an act hides it that was not undone. Undoing an act is an act too, and its order does not matter:
// an act that was undone once does not count.
//
// Acts are in force for longer than the log keeps events. So each is also a standing record
// ([Standing]), which is written before its event: a room that is opened reads these, and only
// applies the events that follow. A record whose event is not in the log, because a node has died
// between the two, is finished by whoever sees it ([Config.Finish]).

// Kinds of events beside comments.
const (
	KindAct   = "act"   // the body is an [Act]
	KindState = "state" // the room's state has changed: {"rev":…,"state":{…}}
)

// Act is what somebody has done about comments or users, as it is stored.
type Act struct {
	ID     string        `json:"id"`
	Kind   string        `json:"kind"` // protocol.TypeRemove, TypeClear, TypeMute, TypeUnmute, TypeBan, TypeWarn, TypeTrust, TypeSweep, TypeNote or TypeUndo
	By     protocol.User `json:"by"`
	At     int64         `json:"at"` // when it was asked for, the log's clock, Unix milliseconds
	IDs    []string      `json:"ids,omitempty"`
	Hash   string        `json:"hash,omitempty"` // of the user whom it concerns: [RoomLog.UserHash]
	User   string        `json:"user,omitempty"` // their id, until it is erased
	Name   string        `json:"name,omitempty"`
	Reason string        `json:"reason,omitempty"`
	// Ends is when it ends, Unix milliseconds; Broadcast that it ends with that broadcast. Both 0:
	// for good.
	Ends      int64 `json:"ends,omitempty"`
	Broadcast int64 `json:"broadcast,omitempty"`
	Quiet     bool  `json:"quiet,omitempty"`
	Clear     bool  `json:"clear,omitempty"` // the user's comments before it are hidden too
	// After is where the log ended, as far as was known, when it was asked for.
	After  uint64   `json:"after,omitempty"`
	Undoes []string `json:"undoes,omitempty"` // ids of acts
	From   string   `json:"from,omitempty"`   // the act for all rooms that this one carries out here
	Text   string   `json:"text,omitempty"`   // of a note
	// Users are those whom a sweep mutes. Part is the sweep that it is a further part of: one act names so
	// many comments and users at the most. Swept is what the whole of it was to find, and has found.
	Users []Whom `json:"users,omitempty"`
	Part  string `json:"part,omitempty"`
	Swept *Swept `json:"swept,omitempty"`
	// Lifts are the sweeps, or parts, that do not mute the user any more.
	Lifts []string `json:"lifts,omitempty"`
	Note  *Act     `json:"note,omitempty"` // that is undone: there is no record of it in the room
}

// Whom is a user whom an act concerns.
type Whom struct {
	Hash string `json:"hash"`
	User string `json:"user,omitempty"` // until it is erased
	Name string `json:"name,omitempty"`
}

// Swept is what a sweep was to find, and how much that was.
type Swept struct {
	Query    protocol.SweepQuery `json:"query"`
	Comments int                 `json:"comments"`
	Users    int                 `json:"users"`
}

// Whole is the act that an act is a part of: itself, mostly.
func (a *Act) Whole() string { return cmp.Or(a.Part, a.ID) }

// Mutes reports whether it keeps users from commenting.
func (a *Act) Mutes() bool { return a.Kind == protocol.TypeMute || a.Kind == protocol.TypeSweep }

// untilBroadcast is how long an act lasts at least that ends with the broadcast, and how long behind
// it it hides comments: those that nodes have taken that had not heard of it. Later ones are not taken.
const untilBroadcast = int64(time.Minute / time.Millisecond)

// InForce reports whether an act that lasts does so at a time, while the state is that.
func (a *Act) InForce(now int64, state *protocol.State) bool {
	switch {
	case a.Ends > 0:
		return now < a.Ends
	case a.Broadcast > 0:
		return state.Broadcast < a.Broadcast || state.Broadcast == a.Broadcast && state.Status != protocol.StatusEnded ||
			now < a.At+untilBroadcast
	}
	return true
}

// over reports whether the author of a comment may be acted on by who has done a.
func (a *Act) over(author string, rank int) bool {
	return rank < a.By.Role.Rank() || author == a.By.ID && author != ""
}

// placed is an act and where its event is in the log. Where that is not known yet it is where the
// log ended, at least, when it was asked for.
type placed struct {
	Act
	pos   uint64
	posAt int64 // a log that was restored gives positions again, later
	sure  bool  // its event was seen, or its record says where it is
}

// clocks is by how much the clocks of the log's leaders may differ, in milliseconds.
const clocks = int64(time.Minute / time.Millisecond)

// follows reports whether an act comes behind a comment.
func (p *placed) follows(c comment) bool {
	return c.seq < p.pos && (!p.sure || c.at <= p.posAt+clocks)
}

// standing is the acts of a room that count.
type standing struct {
	acts    map[string]*placed
	undone  map[string]bool // acts that do not count any more, and may still be heard of
	removed map[uint64][]*placed
	clears  []*placed
	users   map[string][]*placed // by the hash of whom they concern
}

// add takes in an act; false if it is known already, or was undone.
func (s *standing) add(p *placed) bool {
	if s.acts[p.ID] != nil || s.undone[p.ID] || p.Kind == protocol.TypeUndo || p.Kind == protocol.TypeNote {
		return false
	}
	if s.acts == nil {
		*s = standing{acts: map[string]*placed{}, undone: s.undone, removed: map[uint64][]*placed{}, users: map[string][]*placed{}}
	}
	s.acts[p.ID] = p
	for _, id := range p.IDs {
		if seq, ok := seqOf(id); ok {
			s.removed[seq] = append(s.removed[seq], p)
		}
	}
	for _, hash := range p.hashes() {
		s.users[hash] = append(s.users[hash], p)
	}
	if p.Hash == "" && p.Kind == protocol.TypeClear {
		s.clears = append(s.clears, p)
	}
	return true
}

// hashes are those of the users whom an act concerns.
func (a *Act) hashes() []string {
	if a.Hash != "" {
		return []string{a.Hash}
	}
	all := make([]string, len(a.Users))
	for i := range a.Users {
		all[i] = a.Users[i].Hash
	}
	return all
}

// about returns the acts that concern a user, without sweeps that do not any more.
func (s *standing) about(hash string) []*placed {
	all := s.users[hash]
	lifted := func(id string) bool {
		return slices.ContainsFunc(all, func(p *placed) bool { return slices.Contains(p.Lifts, id) })
	}
	if !slices.ContainsFunc(all, func(p *placed) bool { return len(p.Lifts) > 0 }) { // as almost always
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(p *placed) bool { return p.Kind == protocol.TypeSweep && lifted(p.ID) })
}

// undo has acts not count any more; it returns those that did.
func (s *standing) undo(ids []string) (were []*placed) {
	if s.undone == nil {
		s.undone = map[string]bool{}
	}
	for _, id := range ids {
		s.undone[id] = true
		if p := s.acts[id]; p != nil {
			were = append(were, p)
			s.drop(p)
		}
	}
	return were
}

func (s *standing) drop(p *placed) {
	same := func(q *placed) bool { return q == p }
	delete(s.acts, p.ID)
	for _, id := range p.IDs {
		if seq, ok := seqOf(id); ok {
			if s.removed[seq] = slices.DeleteFunc(s.removed[seq], same); len(s.removed[seq]) == 0 {
				delete(s.removed, seq)
			}
		}
	}
	for _, hash := range p.hashes() {
		if s.users[hash] = slices.DeleteFunc(s.users[hash], same); len(s.users[hash]) == 0 {
			delete(s.users, hash)
		}
	}
	s.clears = slices.DeleteFunc(s.clears, same)
}

// seqOf is the position in the id of a comment: see [CommentID].
func seqOf(id string) (uint64, bool) {
	if len(id) <= idHash {
		return 0, false
	}
	seq, err := strconv.ParseUint(id[:len(id)-idHash], 36, 64)
	return seq, err == nil
}

// comment is what the visibility of one depends on.
type comment struct {
	seq    uint64
	at     int64
	author string
	rank   int
	id     func() string // its id; asked only where acts name its position
}

// sightOf is how much of a comment is seen.
type sightOf uint8

const (
	shown  sightOf = iota
	mine           // by its author alone: they are muted quietly, and are not to notice
	hidden         // by nobody
)

// visible is the one function that says what is seen of a comment: that of live delivery, resumes,
// polls, pages and the archive.
func (r *Room) visible(c comment) sightOf {
	s := &r.standing
	if keep := r.state.KeepMS; keep > 0 && c.at < r.hub.cfg.Log.Now().UnixMilli()-keep {
		return hidden // it is to be forgotten, and the log has not done so yet
	}
	if len(s.acts) == 0 {
		return shown
	}
	if acts := s.removed[c.seq]; len(acts) > 0 {
		id := c.id()
		for _, p := range acts {
			if slices.Contains(p.IDs, id) && p.over(c.author, c.rank) {
				return hidden
			}
		}
	}
	for _, p := range s.clears {
		if p.follows(c) && p.over(c.author, c.rank) {
			return hidden
		}
	}
	if len(s.users) == 0 || c.author == "" {
		return shown
	}
	see := shown
	for _, p := range s.about(r.hub.cfg.Log.UserHash(r.name, c.author)) {
		see = max(see, p.of(c))
	}
	return see
}

// of is what an act about the author of a comment leaves to be seen of it.
func (p *placed) of(c comment) sightOf {
	switch {
	case !p.Mutes() && p.Kind != protocol.TypeBan && p.Kind != protocol.TypeClear,
		c.rank >= p.By.Role.Rank():
		return shown
	case p.follows(c):
		if p.Clear || p.Kind == protocol.TypeClear {
			return hidden
		}
		return shown
	case p.Kind == protocol.TypeClear, p.Ends > 0 && c.at >= p.Ends, p.Broadcast > 0 && c.at >= p.At+untilBroadcast:
		return shown
	case p.Quiet:
		return mine
	}
	return hidden
}

// visibleEvent is visible for an event that is a comment.
func (r *Room) visibleEvent(e *Event, author string, rank int) sightOf {
	return r.visible(comment{e.Seq, e.At, author, rank, func() string { return commentID(e) }})
}

// visibleItem is visible for an item.
func (r *Room) visibleItem(it *item) sightOf {
	return r.visible(comment{it.seq, it.at, it.author, int(it.rank), func() string { return string(idOf(it.json)) }})
}

// idOf is the id in the JSON of a comment, as protocol.AppendItem makes it, or of an event, as
// protocol.AppendEvent does.
func idOf(json []byte) []byte {
	rest, is := bytes.CutPrefix(json, []byte(`{"id":"`))
	if !is {
		rest, _ = bytes.CutPrefix(json, []byte(`{"type":"event","id":"`))
	}
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	return id
}
