package redisroster

import (
	"sync"
	"time"

	"github.com/kansei-live/kansei/hub"
)

// bucket is this node's share of one presence bucket.
type bucket struct {
	r    *Roster
	n    int
	keys keys

	// What viewers and the schedule touch.
	mu         sync.Mutex
	rooms      map[string]*room
	dirty      []*room // rooms with something to send, each once
	news       []*room // rooms with something to report, each once
	live       bool    // Redis knows of an incarnation of this node, or may
	closed     bool
	busy       bool // a round is queued or under way
	urgent     bool // the next round is as early as it may be
	fails      int  // rounds that failed since the last one that did not
	timer      *time.Timer
	began      time.Time // start of the last round
	lastChange time.Time // start of the last round that carried changes

	// What belongs to the round under way.
	inc       string    // the incarnation; empty: none
	olds      []string  // its predecessors, to be retired once it is written whole
	dead      []string  // incarnations of others that this node is to take out
	rewriting bool      // it is not yet written whole
	tick      int64     // the last tick that Redis has confirmed
	seen      int64     // the version of the counts of the last answer; -1: all are wanted
	pending   *batch    // what the next tick carries, until it is answered
	away      time.Time // when this node was last cut off from the bucket
	hold      time.Time // no reports before: other nodes are about to write themselves anew
}

// room is this node's share of one room. The bucket's mutex guards it.
type room struct {
	b       *bucket
	name    string
	members []*membership
	users   map[string]user
	conns   int
	changed []string // users whose coming or going is to be sent, each once
	place   int      // 1 + the place in bucket.dirty; 0: not in it
	indexed bool     // in the incarnation's index, or on its way there

	counts   hub.Counts // the last ones from Redis
	known    bool       // there are such
	queued   bool       // in bucket.news
	reported time.Time  // start of the round that reported last
}

// user is a user's standing in a room on this node. A user is in room.changed
// exactly when being here and being written differ.
type user struct {
	conns   int32
	place   int32 // 1 + the place in room.changed; 0: not in it
	written bool  // Redis has the user, once the batches so far have arrived
}

// Open implements [hub.Roster]. A report that has begun when the membership is
// closed may still be ending then.
func (r *Roster) Open(name string, counts func(hub.Counts)) hub.Membership {
	b := r.bucketOf(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	rm := b.rooms[name]
	if rm == nil {
		rm = &room{b: b, name: name, users: make(map[string]user)}
		b.rooms[name] = rm
	}
	m := &membership{room: rm, counts: counts}
	rm.members = append(rm.members, m)
	if !rm.indexed {
		rm.touch()
	} else if rm.known {
		rm.report()
		b.wake()
	}
	return m
}

// membership is what Open returns.
type membership struct {
	room   *room
	counts func(hub.Counts)

	// Under the bucket's mutex.
	closed bool
	told   bool // last has been reported
	last   hub.Counts
}

// Join implements [hub.Membership].
func (m *membership) Join(name string) {
	rm := m.room
	rm.b.mu.Lock()
	defer rm.b.mu.Unlock()
	if m.closed {
		return
	}
	u := rm.users[name]
	u.conns++
	rm.conns++
	rm.put(name, u)
	rm.touch()
}

// Leave implements [hub.Membership]. To leave without having joined does nothing.
func (m *membership) Leave(name string) {
	rm := m.room
	rm.b.mu.Lock()
	defer rm.b.mu.Unlock()
	u := rm.users[name]
	if m.closed || u.conns == 0 {
		return
	}
	u.conns--
	rm.conns--
	rm.put(name, u)
	rm.touch()
}

// Close implements [hub.Membership]. When the last membership of a room closes,
// whoever did not leave is taken out.
func (m *membership) Close() {
	rm := m.room
	rm.b.mu.Lock()
	defer rm.b.mu.Unlock()
	if m.closed {
		return
	}
	m.closed = true
	for i, o := range rm.members {
		if o == m {
			rm.members = append(rm.members[:i:i], rm.members[i+1:]...)
			break
		}
	}
	if len(rm.members) > 0 {
		return
	}
	for name, u := range rm.users {
		u.conns = 0
		rm.put(name, u)
	}
	rm.conns = 0
	if !rm.indexed {
		rm.b.drop(rm) // Redis never heard of it
		return
	}
	rm.touch()
}

// put stores a user's standing and enters or strikes the user in changed.
func (rm *room) put(name string, u user) {
	differs := (u.conns > 0) != u.written
	switch {
	case differs && u.place == 0:
		rm.changed = append(rm.changed, name)
		u.place = int32(len(rm.changed))
	case !differs && u.place > 0:
		last := len(rm.changed) - 1
		moved := rm.changed[last]
		rm.changed[u.place-1] = moved
		rm.changed[last] = ""
		rm.changed = rm.changed[:last]
		if moved != name {
			o := rm.users[moved]
			o.place = u.place
			rm.users[moved] = o
		}
		u.place = 0
	}
	if u.conns == 0 && !u.written {
		delete(rm.users, name)
		return
	}
	rm.users[name] = u
}

// touch has the room sent with the next round.
func (rm *room) touch() {
	rm.mark()
	rm.b.wake()
}

// mark enters the room in dirty.
func (rm *room) mark() {
	if rm.place == 0 {
		rm.b.dirty = append(rm.b.dirty, rm)
		rm.place = len(rm.b.dirty)
	}
}

// report has the room's counts reported at the end of the next round.
func (rm *room) report() {
	if !rm.queued {
		rm.queued = true
		rm.b.news = append(rm.b.news, rm)
	}
}

// empty tells that nobody watches the room on this node, nor is in it, nor has yet
// to be taken out.
func (rm *room) empty() bool { return len(rm.members) == 0 && len(rm.users) == 0 }

// batch is the part of a tick that must not change until the tick is answered.
type batch struct {
	keys []string
	args []any
	more bool // there was more than one tick may carry
}

// collect takes what is to be sent, at most one chunk of it.
func (b *bucket) collect() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := &batch{args: []any{0}}
	var ins, outs []any
	left, rooms := chunk, 0
	for len(b.dirty) > 0 && left > 0 && rooms < chunkRooms {
		rm := b.dirty[0]
		ins, outs = ins[:0], outs[:0]
		for len(rm.changed) > 0 && left > 0 {
			last := len(rm.changed) - 1
			name := rm.changed[last]
			rm.changed[last] = ""
			rm.changed = rm.changed[:last]
			left--
			u := rm.users[name]
			u.place = 0
			if u.conns > 0 {
				u.written = true
				rm.users[name] = u
				ins = append(ins, name)
			} else {
				delete(rm.users, name)
				outs = append(outs, name)
			}
		}
		conns := rm.conns
		if !rm.indexed {
			rm.indexed = true
			b.seen = -1 // the counts may be unchanged, but this node does not know them
		}
		if rm.empty() {
			conns = -1
			rm.indexed = false
			b.drop(rm)
		} else if len(rm.changed) == 0 {
			b.clean(rm)
		}
		rooms++
		t.keys = append(t.keys, b.keys.users(rm.name), b.keys.set(b.inc, rm.name))
		t.args = append(t.args, rm.name, conns, rm.counts.PeakUsers, len(ins), len(outs))
		t.args = append(append(t.args, ins...), outs...)
	}
	t.args[0] = rooms
	t.more = len(b.dirty) > 0
	if rooms > 0 {
		b.lastChange = b.began
	}
	b.urgent = t.more
	return t
}

// clean takes a room out of dirty.
func (b *bucket) clean(rm *room) {
	if rm.place == 0 {
		return
	}
	last := len(b.dirty) - 1
	moved := b.dirty[last]
	b.dirty[rm.place-1] = moved
	moved.place = rm.place
	b.dirty[last] = nil
	b.dirty = b.dirty[:last]
	rm.place = 0
}

// drop forgets a room.
func (b *bucket) drop(rm *room) {
	b.clean(rm)
	delete(b.rooms, rm.name)
}

// rewrite has everything sent anew to an incarnation that knows nothing.
func (b *bucket) rewrite() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, rm := range b.rooms {
		rm.indexed = false
		clear(rm.changed)
		rm.changed = rm.changed[:0]
		for name, u := range rm.users {
			u.place, u.written = 0, false
			rm.put(name, u)
		}
		if rm.empty() {
			b.drop(rm)
			continue
		}
		rm.mark()
	}
}
