package hub

import (
	"encoding/json"
	"sync"
	"sync/atomic"
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

	shared atomic.Pointer[shared] // read by viewers without a lock, replaced under mu

	mu     sync.Mutex
	epoch  string
	tag    string   // of the cursors of this epoch
	resets uint64   // how often Reset was called
	head   Position // up to which the log has reported
	trail  trail    // of what the log has reported
	views  [2]*view
	state  protocol.State
	counts Counts
	// uncounted is how many of the viewers are in no count.
	uncounted int
	held      Counts // reported, but not told while more viewers are here; At is 0: none
	asked     bool   // somebody who is not here wanted the counts
	stated    bool   // warm is closed
	closed    bool

	window    time.Duration
	lastRound time.Time
	rounding  bool // a round is under way or due
	dirty     bool // there is something for another one

	questions [askers]map[Position]*question // that the log was asked lately
	pages     map[Ask]*paging                // that are being read

	pace pace
	said said
	sent []int64 // when the items of the frames that are to be flushed entered the log

	flushing []Socket      // scratch of the round that is under way
	cost     time.Duration // of a processor, for a viewer, in the last rounds
}

// shared is what every viewer gets the latest of, and nothing else.
type shared struct {
	state  *Frame
	counts *Frame // nil until the presence has reported
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
		views: [2]*view{audienceView: {past: newPast(), polled: newPast()}, staffView: {past: newPast(), staff: true}},
		state: protocol.State{Status: protocol.StatusLive},
	}
	return r
}

func (r *Room) open() {
	f := r.hub.cfg.Frame(protocol.Encode(&r.state), true)
	r.shared.Store(&shared{state: &f})
	r.follow = r.hub.cfg.Log.Follow(r.name, r.hub.cfg.Recent, r)
}

// membership is the room's in the presence, which is not told of rooms that are only
// polled or posted to. The caller has acquired the room.
func (r *Room) membership() Membership {
	r.presence.Do(func() { r.members = r.hub.cfg.Presence.Open(r.name, r.setCounts) })
	return r.members
}

// shut ends what open and membership began. The hub does not have the room then.
func (r *Room) shut() {
	r.follow.Stop()
	if r.members != nil {
		r.members.Close()
	}
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.hub.cfg.Metrics.rooms.Dec()
}

// Name is the name of the room.
func (r *Room) Name() string { return r.name }

func (r *Room) encoder(v *view) encoder { return encoder{r.hub.cfg.Frame, r.tag, v.deflating} }

// Reset implements [Follower]. Viewers that are there already get the recent
// events as history; a gap before them says that it is not the log they knew.
func (r *Room) Reset(epoch string, recent []Event, head Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := r.epoch == ""
	r.epoch, r.tag, r.head = epoch, cursorTag(epoch, r.name), head
	r.resets++
	r.said = said{} // another log may not have what this one had
	r.trail, r.questions = trail{}, [askers]map[Position]*question{}
	floor := head
	if len(recent) > 0 {
		// Nobody knows which record is there: who has only the gap's cursor starts anew.
		floor = Position{Seq: recent[0].Seq - 1}
	}
	for _, v := range r.views {
		v.restart(floor)
	}
	now := time.Now()
	for i := range recent {
		r.add(&recent[i], now)
	}
	r.trail.add(head, now)
	for _, v := range r.views {
		v.framed, v.at, v.held = v.end(), head, nil
		if len(v.viewers) == 0 {
			continue
		}
		if !first {
			v.giveUp()
			r.cut(v, floor, now)
		}
		for _, f := range v.recent(r.encoder(v), r.hub.cfg.Recent) {
			v.ring.push(&frame{Frame: f, first: v.framed, before: makeCursor(r.tag, floor), made: now, cut: v.cut})
		}
		r.dirty = true
	}
	if r.dirty && r.kick() {
		go r.round()
	}
}

// cut tells a view's viewers that nobody knows what is missing before a position.
func (r *Room) cut(v *view, floor Position, now time.Time) {
	at := makeCursor(r.tag, floor)
	gap := r.encoder(v).seal(protocol.Encode(&protocol.Gap{Cursor: at}))
	v.cut = v.ring.head.Load() + 1
	v.ring.push(&frame{Frame: gap, first: v.framed, before: at, made: now, cut: v.cut})
}

// later is the later one of two positions in one log.
func later(a, b Position) Position {
	if b.Seq > a.Seq || b.Seq == a.Seq && !a.Known() {
		return b
	}
	return a
}

// Forgot implements [Follower]. What was reported is shown before the gap; who comes
// back with a cursor of before it cannot be recovered.
func (r *Room) Forgot(head Position) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.head = later(r.head, head)
	r.trail.add(r.head, now)
	for _, v := range r.views {
		r.makeFrames(v, now)
		v.restart(r.head)
		if len(v.viewers) == 0 {
			continue
		}
		r.cut(v, r.head, now)
		r.dirty = true
	}
	if r.dirty && r.kick() {
		go r.round()
	}
}

// Deliver implements [Follower].
func (r *Room) Deliver(events []Event) {
	now := time.Now()
	r.mu.Lock()
	r.pace.count(now, len(events))
	for i := range events {
		r.add(&events[i], now)
	}
	r.dirty = true
	due := r.kick()
	few := r.here() <= flushInPlace
	r.mu.Unlock()
	switch {
	case due && few:
		r.round()
	case due:
		go r.round()
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

// add puts an event into the views that show it.
func (r *Room) add(e *Event, now time.Time) {
	r.head = later(r.head, e.Position())
	r.trail.add(e.Position(), now)
	r.said.add(e.ID, e.Seq, now)
	if e.Kind != KindComment {
		return
	}
	it := makeItem(e)
	it.came = now.Sub(r.hub.began)
	if r.shows(e) {
		for _, v := range r.views {
			if v.sees(e) {
				v.add(it)
			}
		}
		return
	}
	h := held{it, author(e).ID}
	for _, v := range r.views {
		if v.sees(e) {
			v.held = append(v.held, h)
		}
	}
}

func makeItem(e *Event) item {
	const head = 48 // id, time and their names
	return item{seq: e.Seq, at: e.At, json: protocol.AppendItem(make([]byte, 0, head+len(e.Body)), commentID(e), e.At, e.Body)}
}

// SetState implements [Follower]. A state that cannot be read is taken for one
// that was never set.
func (r *Room) SetState(s State) {
	st := DecodeState(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	st.Degraded = r.state.Degraded
	if st != r.state {
		r.state = st
		r.publishState()
	}
	if !r.stated && r.epoch != "" {
		r.stated = true
		close(r.warm)
	}
}

// DecodeState reads a state as the log keeps it: the JSON of a protocol.State.
func DecodeState(s State) protocol.State {
	var st protocol.State
	if s.Body != nil {
		if err := json.Unmarshal(s.Body, &st); err != nil {
			st = protocol.State{}
		}
	}
	st.Rev, st.Degraded = s.Rev, false
	if !protocol.ValidStatus(st.Status) {
		st.Status = protocol.StatusLive
	}
	return st
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
// anew. It is held: either the presence counts them and reports again, or they go before it
// has, and then it has nothing new to report.
func (r *Room) setCounts(c Counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.held = c
	r.countsFit()
}

// countsFit tells of the counts that are held, if no more viewers are here than they
// say. r.mu is held.
func (r *Room) countsFit() {
	c := r.held
	if c.At == 0 || c.Connections < r.here()-r.uncounted {
		return
	}
	r.held = Counts{}
	r.counts = c
	r.publishCounts(c)
}

// Status returns the room's state and its counts; their At is 0 until the presence
// has reported them.
func (r *Room) Status() (protocol.State, Counts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.counts
}
