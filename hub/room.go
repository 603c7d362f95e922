package hub

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Room is one room on one node. It follows the room's log as a [Follower] and is
// told the room's counts by the presence.
type Room struct {
	hub  *Hub
	name string

	// Under Hub.mu.
	users     int         // Acquires without Release
	lingering *time.Timer // set while users is 0
	read      bool        // no viewer has come

	follow   Follow
	presence sync.Once     // sets members: see membership
	members  Membership    // nil: nobody has come, or asked for the counts
	warm     chan struct{} // closed by the first SetState behind a Reset

	mu     sync.Mutex
	epoch  string
	tag    string   // of the cursors of this epoch
	resets uint64   // how often Reset was called
	head   Position // up to which the log has reported
	trail  trail    // of what the log has reported
	views  [2]*view
	doc    State          // as the log keeps it
	state  protocol.State // what is known of doc, and of the node's health
	counts Counts
	// uncounted is how many of the viewers are in no count.
	uncounted int
	early     Counts // reported, but not told while more viewers are here; At is 0: none
	asked     bool   // somebody who is not here wanted the counts
	stated    bool   // the state has come behind a Reset
	next      State  // as it was read before the Reset that follows
	pinHidden bool   // an act hides the comment that is pinned
	short     int    // views that have fewer comments than a new viewer is shown, and look for more
	warmed    bool   // warm is closed
	closed    bool

	window    time.Duration
	lastFlush time.Time
	flushing  bool // a flush is under way or due
	settling  *time.Timer

	questions [askers]map[Position]*question // that the log was asked lately
	pages     map[Ask]*paging                // that are being read

	standing   standing
	unknown    bool                     // some acts are not known: nobody may comment
	unfinished map[string]Standing      // records whose events have not come, by id
	lastKnown  map[string]*LastingEvent // by name: the latest that the records know of
	finishing  *time.Timer
	held       held
	slow       slow

	pace pace
	said said
	sent []int64 // when the items of the frames that are to be flushed entered the log

	sockets []Socket      // scratch of the flush that is under way
	cost    time.Duration // of a processor, for a viewer, in the last flushes
}

// The indices of a room's views.
const (
	audienceView = iota
	staffView
)

var _ Follower = (*Room)(nil)

func newRoom(h *Hub, name string) *Room {
	r := &Room{
		hub: h, name: name, warm: make(chan struct{}), window: h.cfg.Window,
		views: [2]*view{audienceView: newView(false), staffView: newView(true)},
		state: protocol.State{Status: protocol.StatusLive},
	}
	return r
}

func (r *Room) open() {
	for _, v := range r.views {
		v.latest.Store(v.latest.Load().with(slotState, newFrame([][]byte{r.stateMessage(v)}, nil)))
	}
	r.follow = r.hub.cfg.Log.Follow(r.name, r.hub.cfg.Recent, r)
}

// membership is the room's in the presence, which is not told of rooms that are only
// polled or posted to. The caller has acquired the room.
func (r *Room) membership() Membership {
	r.presence.Do(func() {
		members := r.hub.cfg.Presence.Open(r.name, r.setCounts)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.members = members
		r.tellBroadcast()
	})
	return r.members
}

// tellBroadcast says to the presence which broadcast runs. r.mu is held.
func (r *Room) tellBroadcast() {
	if r.members == nil {
		return
	}
	n := int64(0)
	if r.state.Status == protocol.StatusLive {
		n = r.state.Broadcast
	}
	r.members.Broadcast(n)
}

// shut ends what open and membership began. The hub does not have the room then.
func (r *Room) shut() {
	r.follow.Stop()
	if r.members != nil {
		r.members.Close()
	}
	r.mu.Lock()
	r.closed = true
	for _, t := range []*time.Timer{r.settling, r.finishing, r.held.timer} {
		if t != nil && t.Stop() {
			r.hub.wg.Done()
		}
	}
	r.mu.Unlock()
	r.hub.cfg.Metrics.rooms.Dec()
}

// Name is the name of the room.
func (r *Room) Name() string { return r.name }

func (r *Room) encoder(v *view) encoder { return encoder{r.tag, v.wanted} }

// Reset implements [Follower]. Viewers that are there already get the recent
// events as history; a gap before them says that it is not the log they knew.
func (r *Room) Reset(epoch string, recent []Event, head Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.epoch == ""
	r.epoch, r.tag, r.head = epoch, cursorTag(epoch, r.name), head
	r.resets++
	r.said = said{} // another log may not have what this one had
	r.setState(r.next)
	r.held.events = nil
	r.trail, r.questions = trail{}, [askers]map[Position]*question{}
	floor := head
	if len(recent) > 0 {
		// Nobody knows which record is there: who has only the gap's cursor starts anew.
		floor = Position{Seq: recent[0].Seq - 1}
	}
	for _, v := range r.views {
		v.restart(floor)
		v.setLast(nil)
	}
	now := time.Now()
	for i := range recent {
		r.add(&recent[i], now, false)
	}
	r.trail.add(head, now)
	r.applyLasting(false)
	for _, v := range r.views {
		v.everybody = false
		if v.staff || len(r.held.events) == 0 {
			v.head = head
		}
		v.framed, v.counted, v.at, v.fresh = v.end(), v.counted+uint64(comments(v.items)), v.head, 0
		r.fail(v)
		if first && len(recent) >= r.hub.cfg.Recent {
			r.lookBack(v)
		}
		if len(v.viewers) == 0 {
			continue
		}
		if !first {
			v.beginAllLate()
			r.cut(v, floor, now)
		}
		for _, c := range v.newest(r.encoder(v), r.hub.cfg.Recent) {
			v.ring.push(&frame{chunk: c, first: v.counted, before: makeCursor(r.tag, floor), made: now, cut: v.cut})
		}
		r.pushLasting(v, r.plainLasting(v, v.head.Seq)...)
		v.everybody = true
	}
	if r.dirty() && r.schedule() {
		go r.flush()
	}
	r.settleLater()
}

// cut tells a view's viewers that nobody knows what is missing before a position.
func (r *Room) cut(v *view, floor Position, now time.Time) {
	at := makeCursor(r.tag, floor)
	v.cut = v.ring.head.Load() + 1
	v.ring.push(&frame{chunk: chunk{frame: r.seal(v, &protocol.Gap{Cursor: at})}, first: v.counted, before: at, made: now, cut: v.cut, notice: true})
}

// later is the later one of two positions in one log.
func later(a, b Position) Position {
	if b.Seq > a.Seq || b.Seq == a.Seq && !a.Known() {
		return b
	}
	return a
}

// Forgot implements [Follower]. What was reported is shown before the gap; a viewer
// that returns with a cursor of before it cannot be recovered.
func (r *Room) Forgot(head Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.head = later(r.head, head)
	r.trail.add(r.head, now)
	r.held.events = nil // they were to come before what is gone
	for _, v := range r.views {
		r.makeFrames(v, now)
		v.restart(r.head)
		if len(v.viewers) == 0 {
			continue
		}
		r.cut(v, r.head, now)
		v.everybody = true
	}
	if r.dirty() && r.schedule() {
		go r.flush()
	}
}

// Deliver implements [Follower].
func (r *Room) Deliver(events []Event) {
	now := time.Now()
	r.mu.Lock()
	for i := range events {
		r.add(&events[i], now, true)
	}
	for _, v := range r.views {
		v.everybody = v.everybody || len(v.late) > 0
	}
	due := r.dirty() && r.schedule()
	few := r.here() <= flushInPlace
	r.mu.Unlock()
	switch {
	case due && few:
		r.flush()
	case due:
		go r.flush()
	}
}

// here is how many viewers there are on this node. r.mu is held.
func (r *Room) here() int {
	n := 0
	for _, v := range r.views {
		n += len(v.viewers)
	}
	return n
}

// add puts an event into the views that show it. live says that it has come since the room was
// opened: what acts before that have done the room was told by their records.
func (r *Room) add(e *Event, now time.Time, live bool) {
	r.head = later(r.head, e.Position())
	r.trail.add(e.Position(), now)
	r.said.add(e.ID, e.Seq, now)
	if e.Kind == KindAct {
		r.heardAct(e, live)
	}
	s, seen := r.classify(e)
	if seen && e.Kind == KindComment {
		r.heardComment(e, &s, now)
	}
	for _, v := range r.views {
		switch {
		case !v.staff && r.holds(e):
			r.hold(v, e, &s, live)
		case seen:
			r.show(v, e, &s, now, live)
		default:
			v.head = later(v.head, e.Position())
		}
	}
}

// heardComment is told of a comment that somebody sees.
func (r *Room) heardComment(e *Event, s *sight, now time.Time) {
	if s.views[audienceView] && s.see == shown {
		r.pace.count(now, 1)
		if s.rank > 0 {
			r.hearStaff(e)
		}
	}
	if r.state.SlowMS > 0 && s.rank == 0 {
		r.slow.spoke(s.author, e.At)
	}
}

// show puts an event into a view.
func (r *Room) show(v *view, e *Event, s *sight, now time.Time, live bool) {
	it := s.encode(r, e, r.tag, v, live)
	it.came = now.Sub(r.hub.began)
	v.add(s, it)
	if it.event {
		if name, lasting := protocol.EventOf(e.Body); lasting {
			r.keepLast(v, name, e)
		}
	}
	v.head = later(v.head, e.Position())
}

// SetState implements [Follower]. A state that cannot be read is taken for one
// that was never set.
func (r *Room) SetState(s State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.setState(s)
	r.stated = r.stated || r.epoch != ""
	r.warmUp()
}

// setState takes another state in. Room.mu is held.
func (r *Room) setState(s State) {
	r.next = s
	if s.Rev == r.doc.Rev {
		return
	}
	before := r.state
	r.doc, r.state = s, DecodeState(s)
	r.state.Degraded = before.Degraded
	r.pinHidden = r.hidesPin()
	r.publishState()
	if counted(&before) != counted(&r.state) && r.counts.At > 0 {
		r.publishCounts(r.counts)
	}
	r.tellBroadcast()
	if before.SlowMS == 0 && r.state.SlowMS > 0 {
		r.recall()
	}
	if protocol.IsDeleted(s.Body) {
		r.wipe()
	}
	r.release(r.hub.cfg.Log.Now()) // the delay may be shorter
	if r.hub.cfg.Stated != nil {
		r.hub.cfg.Stated(r.name, before, r.state)
	}
}

// wipe forgets everything: the room was deleted. Room.mu is held.
func (r *Room) wipe() {
	r.standing, r.unfinished, r.lastKnown, r.said, r.held.events = standing{}, nil, nil, said{}, nil
	now := time.Now()
	for _, v := range r.views {
		r.makeFrames(v, now)
		v.restart(r.head)
		v.setLast(nil)
		if v.ring.slots != nil {
			r.cut(v, r.head, now)
			for v.ring.tail+1 < v.ring.head.Load() {
				v.ring.drop()
			}
		}
	}
	if r.hub.cfg.Deleted != nil {
		r.hub.cfg.Deleted(r.name)
	}
}

// counted reports whether a room's audience is told how many are here.
func counted(s *protocol.State) bool { return s.Count == nil || *s.Count }

// warmUp tells waiting callers that the room has heard all from its log that new
// viewers are sent. r.mu is held.
func (r *Room) warmUp() {
	if r.stated && r.short == 0 && !r.warmed {
		r.warmed = true
		close(r.warm)
		if r.here() > 0 && r.hub.cfg.Opened != nil {
			r.hub.cfg.Opened(r.name)
		}
	}
}

// stateMessage makes the message of the room's state for a view: the document as the log keeps it,
// with what this node does not know of it.
func (r *Room) stateMessage(v *view) []byte {
	return protocol.EncodeState(r.doc.Body, r.stateFor(v.staff))
}

// stateFor is the state as the staff or the audience gets it.
func (r *Room) stateFor(staff bool) protocol.State {
	st := r.state
	if !staff {
		st.ShieldPreset, st.Under = nil, nil
	}
	switch {
	case r.pinHidden:
		st.Pin = nil
	case st.Pin != nil && st.Pin.Comment != nil && r.hub.cfg.Alias != nil && !staff:
		c := *st.Pin.Comment
		c.User.ID = r.hub.cfg.Alias(r.name, c.User.ID)
		st.Pin = &protocol.Pin{Comment: &c}
	}
	return st
}

// hidesPin reports whether an act hides the comment that is pinned.
func (r *Room) hidesPin() bool {
	if r.state.Pin == nil || r.state.Pin.Comment == nil {
		return false
	}
	c := r.state.Pin.Comment
	seq, ok := seqOf(c.ID)
	return ok && r.visible(comment{seq, c.At, c.User.ID, c.User.Role.Rank(), func() string { return c.ID }}) != shown
}

// DecodeState reads a state as the log keeps it, the JSON of a protocol.State, with its shield if that is on.
func DecodeState(s State) protocol.State {
	var st protocol.State
	if s.Body != nil && !protocol.IsDeleted(s.Body) {
		if err := json.Unmarshal(s.Body, &st); err != nil {
			st = protocol.State{}
		}
	}
	st.Rev, st.Degraded, st.Under = s.Rev, false, nil
	if !protocol.ValidStatus(st.Status) {
		st.Status = protocol.StatusLive
	}
	return st.Shielded()
}

// Degraded implements [Follower].
func (r *Room) Degraded(is bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state.Degraded == is {
		return
	}
	r.state.Degraded = is
	r.publishState()
}

// setCounts is told by the presence. A report of fewer connections than this node alone
// has was counted before the last of them came, or while the presence was being written
// anew. It waits: either the presence counts them and reports again, or they go before it
// has, and then it has nothing new to report.
func (r *Room) setCounts(c Counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.early = c
	r.countsFit()
}

// countsFit tells of the counts that wait, if no more viewers are here than they
// say. r.mu is held.
func (r *Room) countsFit() {
	c := r.early
	if c.At == 0 || c.Connections < r.here()-r.uncounted {
		return
	}
	r.early = Counts{}
	r.counts = c
	r.publishCounts(c)
}

// Status returns the room's state, as the log keeps it, and its counts; their At is 0 until the
// presence has reported them.
func (r *Room) Status() (protocol.State, Counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.counts
}

// Doc is the document of the room's state, with its revision.
func (r *Room) Doc() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.doc
}

// StateFor is the state as the staff of the room or its audience gets it: JSON without a type.
func (r *Room) StateFor(staff bool) json.RawMessage {
	r.mu.Lock()
	defer r.mu.Unlock()
	return protocol.EncodeRoomState(r.doc.Body, r.stateFor(staff))
}
