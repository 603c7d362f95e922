package hub

import "time"

// What was said once is known when it is said again: a room remembers the ids of the
// drafts that its log has reported, for as long as the log itself knows a second try.

const (
	// saidFor is how long an id is remembered at least: as long as JetStream knows it.
	saidFor = 2 * time.Minute
	// saidMost bounds the ids of one generation: some 6 MiB, and 500 comments a second. In
	// a room with more, an id is remembered for a shorter time.
	saidMost = 60_000
)

// said is the ids of drafts and where the log has put them, in two generations: the
// older one is forgotten whole. Room.mu guards it.
type said struct {
	fresh, old map[string]uint64
	since      time.Time // when fresh was begun
}

func (s *said) add(id string, seq uint64, now time.Time) {
	if id == "" {
		return
	}
	if s.fresh == nil || len(s.fresh) >= saidMost || now.Sub(s.since) >= saidFor {
		s.fresh, s.old, s.since = map[string]uint64{}, s.fresh, now
	}
	s.fresh[id] = seq
}

func (s *said) find(id string) (seq uint64, ok bool) {
	if seq, ok = s.fresh[id]; !ok {
		seq, ok = s.old[id]
	}
	return seq, ok
}

// Said returns where a room's log has put the draft with an id; known is false when this
// node has not heard of it within the last two minutes, or has not got the room open. A
// draft that is known needs no judgment: it was judged when it was taken. While it is not
// sure that the log has it still, only the log can answer, when the draft is appended again.
func (h *Hub) Said(room, id string) (seq uint64, known, sure bool) {
	r := h.opened(room)
	if r == nil {
		return 0, false, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// With r.mu held: when the log has lost something it is sure again behind Reset, which
	// forgets what was said.
	seq, known = r.said.find(id)
	return seq, known, known && h.cfg.Log.Sure(r.name)
}
