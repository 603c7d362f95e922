package hub

import "time"

// The audience of a room may be behind what happens by a time, so that the staff can look at
// comments first. Its view gets events when they are that old by the log's clock, in their order:
// what it has got once it keeps. Acts do not wait, and what they hide is never shown.

// held is the events that the audience does not have yet.
type held struct {
	events []Event
	timer  *time.Timer
}

// lag is how far the audience is behind. Room.mu is held.
func (r *Room) lag() time.Duration { return time.Duration(r.state.DelayMS) * time.Millisecond }

// holds reports whether an event is to wait. Room.mu is held.
func (r *Room) holds(e *Event) bool {
	return len(r.held.events) > 0 || r.state.DelayMS > 0 && r.due(e).After(r.hub.cfg.Log.Now())
}

// due is when the audience gets an event, by the log's clock.
func (r *Room) due(e *Event) time.Time { return time.UnixMilli(e.At).Add(r.lag()) }

// hold has an event wait. The message of an act goes out now, and again in its place for those who
// resume. Room.mu is held.
func (r *Room) hold(v *view, e *Event, s *sight, live bool) {
	r.held.events = append(r.held.events, *e)
	r.releaseLater()
	if !s.act || !live || len(v.viewers) == 0 {
		return
	}
	if m, brings := r.actMessage(e, v, true); m != nil {
		f := &frame{
			chunk: chunk{frame: newFrame([][]byte{m}, v.wanted)}, first: v.counted, before: makeCursor(r.tag, v.at),
			made: time.Now(), cut: v.cut, notice: true, brings: brings,
		}
		v.ring.push(f)
		v.note(f.index, m, brings)
		v.everybody = true
	}
}

// releaseLater has the first event that waits be shown when it is due. Room.mu is held.
func (r *Room) releaseLater() {
	if r.held.timer != nil || len(r.held.events) == 0 || r.closed {
		return
	}
	r.hub.wg.Add(1)
	wait := r.due(&r.held.events[0]).Sub(r.hub.cfg.Log.Now())
	r.held.timer = time.AfterFunc(max(wait, time.Millisecond), func() {
		defer r.hub.wg.Done()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.held.timer = nil
		r.release(r.hub.cfg.Log.Now())
	})
}

// release shows the audience what is due by now. Room.mu is held.
func (r *Room) release(now time.Time) {
	n, v := 0, r.views[audienceView]
	for ; n < len(r.held.events); n++ {
		e := &r.held.events[n]
		if r.state.DelayMS > 0 && r.due(e).After(now) {
			break
		}
		if s, seen := r.classify(e); seen {
			r.show(v, e, &s, time.Now(), false)
		} else {
			v.head = later(v.head, e.Position())
		}
	}
	r.held.events = r.held.events[n:]
	if len(r.held.events) == 0 {
		r.held.events = nil
		v.head = r.head
	}
	v.everybody = v.everybody || len(v.late) > 0
	if n > 0 && r.dirty() && r.schedule() {
		go r.flush()
	}
	r.releaseLater()
}
