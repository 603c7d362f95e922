package hub

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// An event of the application that lasts is told to whoever comes later: the latest of each name. Those
// who are here, or resume, get it in its place in the log like any other event. So a view has a list of
// them apart from its items, for those who begin anew, and for those who have lost the stretch in which
// it was.
//
// The log forgets, and is not read when a room is opened. So the latest of each name is a standing record
// too, of the id [LastingID]. It is written before the event, as pending, and told of the event's
// place behind it. What is pending for longer than [finishAfter] is looked for in the log ([Config.Finish]).

// Lasting is what a [Record] knows of the lasting events of one name.
type Lasting struct {
	Name    string        `json:"name"`
	Last    *LastingEvent `json:"last,omitempty"` // the latest that is known to be in the log
	Pending []Pending     `json:"pending,omitempty"`
}

// LastingEvent is an [Event] as a record has it.
type LastingEvent struct {
	Seq      uint64          `json:"seq"`
	At       int64           `json:"at"`
	ID       string          `json:"id"` // of the draft
	Audience string          `json:"audience,omitempty"`
	Body     json.RawMessage `json:"body"`
}

// Pending is a lasting event that may be in the log.
type Pending struct {
	ID    string `json:"id"`              // of the draft
	At    int64  `json:"at"`              // when it was written down, the log's clock, Unix milliseconds
	After uint64 `json:"after,omitempty"` // where the log ended then, at least
}

// LastingID is the id of the standing record of a name. No act has such an id.
func LastingID(name string) string { return lastingPrefix + name }

const lastingPrefix = "event."

// IsLasting reports whether a standing record is one of lasting events.
func IsLasting(id string) bool { return strings.HasPrefix(id, lastingPrefix) }

// last is the latest lasting event of a name, in a view. It does not change once it is made.
type last struct {
	Event
	name   string
	index  uint64 // of the frame that has it; notFramed: none that a viewer may be behind
	hidden bool
	plain  []byte // its message without a cursor
	frame  *Frame // of that
}

const notFramed = math.MaxUint64

// lasts is the latest lasting event of each name in a view, in the order of the log. It does not change once
// it is made.
type lasts []last

func (l lasts) find(name string) int {
	return slices.IndexFunc(l, func(one last) bool { return one.name == name })
}

// between appends the frames of those that lie in the ring's frames from one up to, and without, another one.
func (l lasts) between(dst [][]byte, from, to uint64, form *Form) [][]byte {
	for i := range l {
		if one := &l[i]; one.index >= from && one.index < to && !one.hidden {
			dst = append(dst, one.frame.bytes(form))
		}
	}
	return dst
}

// last returns the list of lasting events of a view.
func (v *view) last() lasts {
	if l := v.lasting.Load(); l != nil {
		return *l
	}
	return nil
}

func (v *view) setLast(l lasts) { v.lasting.Store(&l) }

// keepLast takes in a lasting event of a name that a view shows, unless it has a later one, and returns it
// then. Room.mu is held.
func (r *Room) keepLast(v *view, name string, e *Event) (added *last) {
	had := v.last()
	i := had.find(name)
	if i >= 0 && had[i].Seq >= e.Seq {
		return nil
	}
	s, seen := r.classify(e)
	if sees := s.views[audienceView] && !v.staff || s.views[staffView] && v.staff; !seen || !sees {
		return nil
	}
	it := s.encode(r, e, r.tag, v, false)
	plain := protocol.PlainEvent(it.json)
	one := last{Event: *e, name: name, index: notFramed, hidden: s.see != shown, plain: plain, frame: newFrame([][]byte{plain}, v.wanted)}
	now := slices.Clone(had)
	if i >= 0 {
		now = slices.Delete(now, i, i+1)
	}
	at, _ := slices.BinarySearchFunc(now, e.Seq, func(other last, seq uint64) int { return cmp.Compare(other.Seq, seq) })
	v.setLast(slices.Insert(now, at, one))
	return &one
}

// framedLast is told that the event at a position is in a frame of the ring. Room.mu is held.
func (v *view) framedLast(seq, index uint64) {
	had := v.last()
	if i := slices.IndexFunc(had, func(one last) bool { return one.Seq == seq }); i >= 0 {
		now := slices.Clone(had)
		now[i].index = index
		v.setLast(now)
	}
}

// tellLasting tells a viewer that begins the lasting events of positions behind one, up to another one.
// Room.mu is held.
func (r *Room) tellLasting(viewer *Viewer, after, upTo uint64) {
	for _, one := range viewer.view.last() {
		if one.Seq > after && one.Seq <= upTo && !one.hidden && !r.forgets(one.At) {
			viewer.tell(one.frame)
		}
	}
}

// forgets reports whether the log keeps nothing any more that is so old.
func (r *Room) forgets(at int64) bool {
	keep := r.hub.cfg.Log.KeepFor()
	return keep > 0 && at < r.hub.cfg.Log.Now().Add(-keep).UnixMilli()
}

// plainLasting returns the messages of the lasting events of a view up to a position. Room.mu is held.
func (r *Room) plainLasting(v *view, upTo uint64) (messages [][]byte) {
	for _, one := range v.last() {
		if one.Seq <= upTo && !one.hidden && !r.forgets(one.At) {
			messages = append(messages, one.plain)
		}
	}
	return messages
}

// pushLasting tells those who are in a view of lasting events that are in no item. An act may hide them while somebody is
// behind. Room.mu is held.
func (r *Room) pushLasting(v *view, messages ...[]byte) { r.push(v, true, messages...) }

// push tells those who are in a view something that is in no item; brings says that it brings what somebody has said.
// Room.mu is held.
func (r *Room) push(v *view, brings bool, messages ...[]byte) {
	if len(messages) == 0 || len(v.viewers) == 0 {
		return
	}
	v.ring.push(&frame{
		chunk: chunk{frame: newFrame(messages, v.wanted)}, first: v.counted, before: makeCursor(r.tag, v.at),
		made: time.Now(), cut: v.cut, notice: true, brings: brings,
	})
	v.everybody = true
}

// recalled takes in what a standing record knows of lasting events. Room.mu is held.
func (r *Room) recalled(l *Lasting, s *Standing, opening bool) {
	if r.lastKnown == nil {
		r.lastKnown = map[string]*LastingEvent{}
	}
	if known := r.lastKnown[l.Name]; l.Last != nil && (known == nil || known.Seq < l.Last.Seq) {
		r.lastKnown[l.Name] = l.Last
		if !opening {
			r.applyLast(l.Name, l.Last, true)
		}
	}
	if len(l.Pending) == 0 {
		delete(r.unfinished, s.ID)
		return
	}
	if r.unfinished == nil {
		r.unfinished = map[string]Standing{}
	}
	r.unfinished[s.ID] = *s
	r.finishLater()
	if finish := r.hub.cfg.Finish; opening && !r.closed && finish != nil {
		one := *s
		r.hub.wg.Go(func() { finish(r.name, one) }) // whoever comes waits for it
	}
}

// applyLasting puts the lasting events of the records into the views. push says that viewers may have missed
// them. Room.mu is held.
func (r *Room) applyLasting(push bool) {
	for name, known := range r.lastKnown {
		r.applyLast(name, known, push)
	}
}

// applyLast puts a lasting event of a record into the views, as far as the log has been reported.
func (r *Room) applyLast(name string, known *LastingEvent, push bool) {
	if known.Seq > r.head.Seq {
		return // it comes
	}
	e := Event{Seq: known.Seq, At: known.At, ID: known.ID, Kind: KindEvent, Audience: known.Audience, Body: known.Body}
	for _, v := range r.views {
		if !v.staff && r.state.DelayMS > 0 && r.due(&e).After(r.hub.cfg.Log.Now()) {
			continue // it waits with what was read
		}
		if one := r.keepLast(v, name, &e); one != nil && push && !one.hidden {
			r.pushLasting(v, one.plain)
		}
	}
	if push && r.dirty() && r.schedule() {
		go r.flush()
	}
}

// recheckLasting judges the lasting events of a view anew. Those that are back, and in no item that says
// so, are told. Room.mu is held.
func (r *Room) recheckLasting(v *view) {
	had := v.last()
	var now lasts
	for i := range had {
		s, _ := r.classify(&had[i].Event)
		is := s.see != shown
		if is == had[i].hidden {
			continue
		}
		if now == nil {
			now = slices.Clone(had)
		}
		now[i].hidden = is
		k := behind(v.items, had[i].Seq-1)
		if !is && (k == len(v.items) || v.items[k].seq != had[i].Seq) {
			r.pushLasting(v, had[i].plain)
		}
	}
	if now != nil {
		v.setLast(now)
	}
}

// LastingNames is how many names of lasting events the room has, and whether one is among them.
func (r *Room) LastingNames(name string) (n int, has bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := r.views[staffView].last()
	_, known := r.lastKnown[name]
	return max(len(names), len(r.lastKnown)), known || names.find(name) >= 0
}
