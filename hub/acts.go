package hub

import (
	"bytes"
	"encoding/json"
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
	Kind   string        `json:"kind"` // protocol.TypeRemove, TypeClear, TypeMute, TypeBan, TypeWarn, TypeTrust or TypeUndo
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
}

// untilBroadcast is how long behind an act that ends with the broadcast it hides comments: those
// that nodes have taken that had not heard of it. Later ones are not taken.
const untilBroadcast = int64(time.Minute / time.Millisecond)

// Record is the body of a [Standing] of an act.
type Record struct {
	Act  Act  `json:"act"`
	Undo *Act `json:"undo,omitempty"` // it was undone by this act
	Gone bool `json:"gone,omitempty"` // it was never done
	// Pos and PosAt are where its event is in the log, or that of Undo, and when it was stored there;
	// 0: not known.
	Pos   uint64 `json:"pos,omitempty"`
	PosAt int64  `json:"pos_at,omitempty"`
}

// InForce reports whether an act that lasts does so at a time, while the state is that.
func (a *Act) InForce(now int64, state *protocol.State) bool {
	switch {
	case a.Ends > 0:
		return now < a.Ends
	case a.Broadcast > 0:
		return state.Broadcast < a.Broadcast || state.Broadcast == a.Broadcast && state.Status != protocol.StatusEnded
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
	pos    uint64
	posAt  int64  // a log that was restored gives positions again, later
	record uint64 // the sequence of its record, as far as is known
	sure   bool   // its event was seen, or its record says where it is
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
	if s.acts[p.ID] != nil || s.undone[p.ID] || p.Kind == protocol.TypeUndo {
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
	switch {
	case p.Hash != "":
		s.users[p.Hash] = append(s.users[p.Hash], p)
	case p.Kind == protocol.TypeClear:
		s.clears = append(s.clears, p)
	}
	return true
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
	if p.Hash != "" {
		if s.users[p.Hash] = slices.DeleteFunc(s.users[p.Hash], same); len(s.users[p.Hash]) == 0 {
			delete(s.users, p.Hash)
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
	for _, p := range s.users[r.hub.cfg.Log.UserHash(r.name, c.author)] {
		see = max(see, p.of(c))
	}
	return see
}

// of is what an act about the author of a comment leaves to be seen of it.
func (p *placed) of(c comment) sightOf {
	switch {
	case p.Kind != protocol.TypeMute && p.Kind != protocol.TypeBan && p.Kind != protocol.TypeClear,
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

// idOf is the id in the JSON of a comment, as protocol.AppendItem makes it.
func idOf(json []byte) []byte {
	rest, _ := bytes.CutPrefix(json, []byte(`{"id":"`))
	id, _, _ := bytes.Cut(rest, []byte(`"`))
	return id
}

// Standing implements [Follower]. An act that was known and has no record any more counts on: its
// record has ended, or is lost with the end of its stream, and is written again then.
func (r *Room) Standing(all []Standing, state State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	had := r.standing
	r.standing, r.unfinished, r.unknown = standing{undone: had.undone}, nil, false
	for i := range all {
		r.stands(&all[i], true)
	}
	r.next = state
	if !protocol.IsDeleted(state.Body) {
		for _, p := range had.acts {
			if r.standing.add(p) {
				r.lost(p)
			}
		}
	}
	for _, v := range r.views {
		v.recheck(r)
	}
	r.pinHidden = r.hidesPin()
}

// lost has the record of an act be written again. Room.mu is held.
func (r *Room) lost(p *placed) {
	body, err := json.Marshal(Record{Act: p.Act, Pos: p.pos, PosAt: p.posAt})
	if err != nil || !p.sure {
		return
	}
	if r.unfinished == nil {
		r.unfinished = map[string]Standing{}
	}
	r.unfinished[p.ID] = Standing{ID: p.ID, Body: body}
	r.finishLater()
}

// Stands implements [Follower].
func (r *Room) Stands(s Standing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch != "" {
		r.stands(&s, false)
	}
}

// stands takes in a record. Those that are read when the room is opened are in force; of those that
// are heard of later the event is waited for. Room.mu is held.
func (r *Room) stands(s *Standing, opening bool) {
	var rec Record
	if json.Unmarshal(s.Body, &rec) != nil || rec.Act.ID == "" {
		r.unknown = r.unknown || opening // of a later version, perhaps
		return
	}
	known := r.standing.acts[rec.Act.ID]
	switch {
	case rec.Gone:
		if known != nil && !known.sure {
			r.changed(nil, r.standing.undo([]string{rec.Act.ID}))
		}
		delete(r.unfinished, s.ID)
		return
	case rec.Undo != nil:
		if opening {
			r.standing.undo([]string{rec.Act.ID})
		}
	case known != nil:
		known.record = s.Seq
		if known.sure || rec.Pos == 0 {
			return
		}
		known.pos, known.posAt, known.sure = rec.Pos, rec.PosAt, true
	case opening:
		p := &placed{Act: rec.Act, pos: rec.Pos, posAt: rec.PosAt, record: s.Seq, sure: rec.Pos > 0}
		if !p.sure {
			p.pos = rec.Act.After
		}
		r.standing.add(p)
	}
	if rec.Pos > 0 || !opening && r.standing.undone[rec.Act.ID] {
		delete(r.unfinished, s.ID)
		return
	}
	if r.unfinished == nil {
		r.unfinished = map[string]Standing{}
	}
	r.unfinished[s.ID] = *s
	r.finishLater()
}

// finishAfter is how long a record waits for its event, more or less: whoever has written it is
// about to write the event.
const finishAfter = 15 * time.Second

// finishLater has the room look after unfinished records. Room.mu is held.
func (r *Room) finishLater() {
	if r.finishing != nil || r.closed || r.hub.cfg.Finish == nil {
		return
	}
	r.hub.wg.Add(1)
	wait := r.hub.cfg.finishAfter
	r.finishing = time.AfterFunc(wait+time.Duration(hash(r.name+r.epoch)%uint64(wait/4)), r.finish)
}

// finish hands over the records whose events have not come.
func (r *Room) finish() {
	defer r.hub.wg.Done()
	r.mu.Lock()
	left := r.unfinished
	r.unfinished, r.finishing = nil, nil
	r.mu.Unlock()
	for _, s := range left {
		r.hub.cfg.Finish(r.name, s)
	}
}

// heardAct applies the event of an act. Room.mu is held.
func (r *Room) heardAct(e *Event, live bool) {
	var a Act
	if json.Unmarshal(e.Body, &a) != nil || a.ID == "" {
		return
	}
	delete(r.unfinished, a.ID)
	for _, id := range a.Undoes {
		delete(r.unfinished, id)
	}
	if known := r.standing.acts[a.ID]; known != nil {
		if !known.sure { // its record was read before it
			known.pos, known.posAt, known.sure = e.Seq, e.At, true
		}
		return
	}
	if !live { // it ended long ago, or was undone
		return
	}
	var added *placed
	if p := (&placed{Act: a, pos: e.Seq, posAt: e.At, sure: true}); r.standing.add(p) {
		added = p
	}
	were := r.standing.undo(a.Undoes)
	r.changed(added, were)
	if r.hub.cfg.Acted != nil {
		if added != nil {
			r.hub.cfg.Acted(r.name, &added.Act)
		}
		for _, p := range were {
			r.hub.cfg.Acted(r.name, &p.Act)
		}
	}
}

// changed has what is kept of comments follow an act that was added, and acts that were undone.
// Room.mu is held.
func (r *Room) changed(added *placed, undone []*placed) {
	pinned := r.pinHidden
	for _, v := range r.views {
		v.restored = v.restored[:0]
		var hid []uint64
		if added != nil {
			hid = v.hide(added, r)
		}
		if len(undone) > 0 {
			v.unhide(r)
		}
		if len(hid) > 0 || len(v.restored) > 0 {
			v.cache.clear()
		}
		if len(hid) > 0 {
			hid = append(hid, v.withdraw()...)
			slices.Sort(hid)
			r.rewrite(v, hid)
		}
	}
	if r.pinHidden = r.hidesPin(); r.pinHidden != pinned {
		r.publishState()
	}
}

// hide hides the items and asides that an act hides, and returns their positions.
func (v *view) hide(p *placed, r *Room) (hid []uint64) {
	check := func(it *item) {
		if it.comment && !it.hidden && r.visibleItem(it) == hidden {
			it.hidden = true
			hid = append(hid, it.seq)
		}
	}
	switch {
	case len(p.IDs) > 0:
		for _, id := range p.IDs {
			seq, _ := seqOf(id)
			if i := behind(v.items, seq-1); i < len(v.items) && v.items[i].seq == seq {
				check(&v.items[i])
			}
			if i := asidesBehind(v.asides, seq-1); i < len(v.asides) && v.asides[i].seq == seq {
				check(&v.asides[i].item)
			}
		}
		slices.Sort(hid)
	case p.Kind == protocol.TypeClear || p.Clear:
		for i := range v.items {
			if it := &v.items[i]; p.Hash == "" || p.User == "" || it.author == p.User {
				check(it)
			}
		}
		for i := range v.asides {
			if a := &v.asides[i]; p.Hash == "" || p.User == "" || a.author == p.User {
				check(&a.item)
			}
		}
		slices.Sort(hid)
	}
	return hid
}

// recheck judges everything anew.
func (v *view) recheck(r *Room) {
	var hid []uint64
	for i := range v.items {
		if it := &v.items[i]; it.comment {
			was := it.hidden
			if it.hidden = r.visibleItem(it) != shown; it.hidden && !was {
				hid = append(hid, it.seq)
			}
		}
	}
	v.unhide(r)
	v.restored = nil
	v.cache.clear()
	if len(hid) > 0 {
		hid = append(hid, v.withdraw()...)
		slices.Sort(hid)
		r.rewrite(v, hid)
	}
}

// unhide shows what no act hides any more; restored has those comments then.
func (v *view) unhide(r *Room) {
	for i := range v.items {
		if it := &v.items[i]; it.hidden && it.comment && r.visibleItem(it) == shown {
			it.hidden = false
			v.restored = append(v.restored, it.json)
		}
	}
	for i := range v.asides {
		switch a := &v.asides[i]; {
		case !a.comment:
		case a.hidden:
			a.hidden = r.visibleItem(&a.item) == hidden
		case a.mine && r.visibleItem(&a.item) == shown:
			a.hidden = true // it is an item again
		}
	}
}

// rewrite takes comments out of the frames of a view's ring, at these positions, in order. What a
// viewer that is behind would get of a frame that cannot be made anew, it is told of as a gap.
func (r *Room) rewrite(v *view, hid []uint64) {
	ring := &v.ring
	if ring.slots == nil {
		return
	}
	for i := ring.tail; i < ring.head.Load(); i++ {
		f := ring.get(i)
		n, _ := slices.BinarySearch(hid, f.after+1)
		if f.after < f.upTo.Seq && (n == len(hid) || hid[n] > f.upTo.Seq) {
			continue
		}
		if f.after >= f.upTo.Seq || f.after < v.floor.Seq { // it has more than its stretch, or that is forgotten
			if f.notice {
				if f.brings {
					ring.replace(f, chunk{})
				}
				continue
			}
			for ring.tail <= i && ring.tail+1 < ring.head.Load() {
				ring.drop()
			}
			if i+1 == ring.head.Load() { // the newest one stays, empty
				ring.replace(f, chunk{})
			}
			continue
		}
		items := v.items[behind(v.items, f.after):behind(v.items, f.upTo.Seq)]
		asides := v.asides[asidesBehind(v.asides, f.after):asidesBehind(v.asides, f.upTo.Seq)]
		ring.replace(f, r.encoder(v).chunk(items, asides, f.upTo, false))
	}
}

// actMessage is what a view is told of an act, beside the comments, and whether that brings comments
// back; nil: nothing.
func (r *Room) actMessage(e *Event, v *view, live bool) (message []byte, brings bool) {
	var a Act
	if json.Unmarshal(e.Body, &a) != nil {
		return nil, false
	}
	var m protocol.Removed
	switch {
	case a.Kind == protocol.TypeUndo:
		if !live || len(v.restored) == 0 {
			return nil, false
		}
		n, size := len(v.restored)-1, len(v.restored[len(v.restored)-1])
		for n > 0 && size+len(v.restored[n-1]) <= maxFrame { // the latest of them
			n--
			size += len(v.restored[n])
		}
		return protocol.AppendRestored(nil, v.restored[n:]), true
	case a.Kind == protocol.TypeRemove:
		m.IDs = a.IDs
	case a.Hash == "" && a.Kind == protocol.TypeClear:
		m.All = true
	case a.Kind == protocol.TypeClear || a.Clear:
		m.User = a.User
		if alias := r.hub.cfg.Alias; alias != nil && !v.staff && m.User != "" {
			m.User = alias(r.name, m.User)
		}
		if m.User == "" { // it was erased
			return nil, false
		}
	default:
		return nil, false
	}
	return protocol.Encode(&m), false
}

// withdraw takes what is hidden again out of the messages that have brought it back, and returns where
// these are.
func (v *view) withdraw() (changed []uint64) {
	for i := range v.items {
		it := &v.items[i]
		if !it.brings || it.hidden {
			continue
		}
		m, same := v.stillShown(it.json)
		if same {
			continue
		}
		changed = append(changed, it.seq)
		if it.hidden = m == nil; m != nil {
			v.bytes += len(m) - len(it.json)
			it.json = m
		}
	}
	v.notices.Store(v.notices.Load().refit(v.stillShown))
	return changed
}

// stillShown is a restored message with those of its comments that are not hidden; nil: none.
func (v *view) stillShown(message []byte) (now []byte, same bool) {
	var m struct {
		Items []json.RawMessage `json:"items"`
	}
	if json.Unmarshal(message, &m) != nil {
		return nil, false
	}
	var left [][]byte
	for _, item := range m.Items {
		seq, _ := seqOf(string(idOf(item)))
		if i := behind(v.items, seq-1); i < len(v.items) && v.items[i].seq == seq && !v.items[i].hidden {
			left = append(left, item)
		}
	}
	switch len(left) {
	case len(m.Items):
		return message, true
	case 0:
		return nil, false
	}
	return protocol.AppendRestored(nil, left), false
}

// UserActs returns the acts in force that concern a user: what they are told, and judged by. ready
// is false while the room does not know its acts.
func (r *Room) UserActs(id string) (acts []Act, ready bool) {
	now := r.hub.cfg.Log.Now().UnixMilli()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.stated || r.unknown {
		return nil, false
	}
	if len(r.standing.users) == 0 {
		return nil, true
	}
	for _, p := range r.standing.users[r.hub.cfg.Log.UserHash(r.name, id)] {
		if p.InForce(now, &r.state) {
			acts = append(acts, p.Act)
		}
	}
	return acts, true
}

// Act returns an act of the room that counts.
func (r *Room) Act(id string) (Act, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.standing.acts[id]; p != nil {
		return p.Act, true
	}
	return Act{}, false
}

// Acts is how many acts of the room count.
func (r *Room) Acts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.standing.acts)
}

// Author returns who has said the comment with an id, as far as the room has it in memory.
func (r *Room) Author(id string) (author string, rank int, known bool) {
	seq, ok := seqOf(id)
	if !ok {
		return "", 0, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.views[staffView]
	if i := behind(v.items, seq-1); i < len(v.items) && v.items[i].seq == seq && string(idOf(v.items[i].json)) == id {
		return v.items[i].author, int(v.items[i].rank), true
	}
	return "", 0, false
}

// First tells when a user who is here was first seen in the room; false while that is not known.
func (r *Room) First(user string) (time.Time, bool) {
	r.mu.Lock()
	m := r.members
	r.mu.Unlock()
	if m == nil {
		return time.Time{}, false
	}
	return m.First(user)
}

// Head is where the log ends, as far as the room has heard.
func (r *Room) Head() Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.head
}

// Cursor returns the cursor of the event at a sequence, when the room has heard of it.
func (r *Room) Cursor(seq uint64) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.trail.find(seq); ok && r.head.Seq >= seq {
		return makeCursor(r.tag, p), true
	}
	return "", false
}

// CursorAt returns the cursor of a position.
func (r *Room) CursorAt(p Position) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return makeCursor(r.tag, p)
}
