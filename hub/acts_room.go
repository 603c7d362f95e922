package hub

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// This file takes acts in: the standing records when a room is opened, and events from then on.

// Standing implements [Follower]. An act that was known and has no record any more counts on: its
// record has ended, or is lost with the end of its stream, and is written again then.
func (r *Room) Standing(all []Standing, state State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	had := r.standing
	r.standing, r.unfinished, r.unknown, r.lastKnown = standing{undone: had.undone}, nil, false, nil
	var d records
	for i := range all {
		r.stands(&all[i], &d, true)
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
	if r.epoch != "" { // some may be among what was forgotten
		r.applyLasting(true)
	}
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
		r.stands(&s, new(records), false)
	}
}

// stands takes in a record. Those that are read when the room is opened are in force; of those that
// are heard of later the event is waited for. Room.mu is held.
func (r *Room) stands(s *Standing, d *records, opening bool) {
	rec, ok := d.decode(s.Body)
	if !ok {
		r.unknown = r.unknown || opening // of a later version, perhaps
		return
	}
	if rec.Lasting != nil {
		r.recalled(rec.Lasting, s, opening)
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
		if !known.sure && rec.Pos > 0 {
			known.pos, known.posAt, known.sure = rec.Pos, rec.PosAt, true
		}
	case opening:
		p := &placed{Act: rec.Act, pos: rec.Pos, posAt: rec.PosAt, sure: rec.Pos > 0}
		if !p.sure {
			p.pos = rec.Act.After
		}
		r.standing.add(p)
	}
	if rec.Pos > 0 { // and the log of moderation has it
		delete(r.unfinished, s.ID)
		return
	}
	if r.unfinished == nil {
		r.unfinished = map[string]Standing{}
	}
	r.unfinished[s.ID] = *s
	r.finishLater()
}

// leftBy has somebody look, after a while, whether all is done that belongs to an act whose event was heard. Room.mu is held.
func (r *Room) leftBy(id string) {
	if r.unfinished == nil {
		r.unfinished = map[string]Standing{}
	}
	if _, noted := r.unfinished[id]; !noted {
		r.unfinished[id] = Standing{ID: id, Seq: 1} // of some version
	}
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
	if live {
		// Until the records say that it is entered into the log of moderation: they are not always heard.
		if a.Kind != protocol.TypeUndo && a.Kind != protocol.TypeNote { // these have no record
			r.leftBy(a.ID)
		}
		for _, id := range a.Undoes {
			r.leftBy(id)
		}
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
	r.tellStaff(&a, were)
	if r.hub.cfg.Acted != nil {
		if added != nil {
			r.hub.cfg.Acted(r.name, &added.Act)
		}
		for _, p := range were {
			r.hub.cfg.Acted(r.name, &p.Act)
		}
	}
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
	for _, p := range r.standing.about(r.hub.cfg.Log.UserHash(r.name, id)) {
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

// Parts are the ids of the further parts of a sweep.
func (r *Room) Parts(sweep string) (ids []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, p := range r.standing.acts {
		if p.Part == sweep {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Hides reports whether acts hide what somebody has said.
func (r *Room) Hides(e *Event, author string, rank int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.visibleEvent(e, author, rank) != shown
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
