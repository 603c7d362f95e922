package redispresence

import (
	"sync"
	"time"

	"github.com/kansei-live/kansei/hub"
)

// bucket is this node's share of one presence bucket.
type bucket struct {
	r    *Presence
	n    int
	keys keys

	// What viewers and the schedule touch.
	mu         sync.Mutex
	rooms      map[string]*room
	list       []*room // the same
	dirty      []*room // rooms with something to send, each once
	news       []*room // rooms with something to report, each once
	live       bool    // Redis knows of an incarnation of this node, or may
	closed     bool
	busy       bool // a flush is queued or under way
	urgent     bool // the next flush is as early as it may be
	fails      int  // flushes that failed since the last one that did not
	silent     bool // the last of them because Redis did not answer
	timer      *time.Timer
	began      time.Time // start of the last flush
	lastChange time.Time // start of the last flush that carried changes

	// What belongs to the flush under way.
	inc       string     // the incarnation; empty: none
	olds      []previous // its predecessors, to be retired once it is written whole
	dead      []string   // incarnations of others that this node is to take out
	rewriting bool       // it is not yet written whole
	mark      string     // of the last tick that Redis has confirmed
	next      int64      // the number of the one that follows
	have      int        // rooms in the incarnation's index, once the batches so far have arrived
	seen      int64      // the version of the last answer; -1: all counts are wanted
	pending   *batch     // what the next tick carries, until it is answered
	full      error      // what Redis said when it had no memory for new users; nil: it has
	look      int        // the place in list from which rooms are looked at next
	away      time.Time  // when this node was last cut off from the bucket
	hold      time.Time  // no reports before: other nodes are about to write themselves anew
}

// previous is an incarnation that this node has given up.
type previous struct {
	inc   string
	rooms int   // that it had
	upto  int64 // the version up to which it may have written
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
	at      int      // the place in bucket.list

	// What the incarnation has written of it, once the batches so far have arrived.
	indexed bool  // it is in the index
	sent    int   // connections
	wrote   int   // users
	gen     int64 // the room's generation as of the last answer
	whole   bool  // it is to be written whole
	doubt   int64 // whole: what is there, of generations up to this, is not to be believed

	counts   hub.Counts // the last ones from Redis
	known    bool       // there are such
	queued   bool       // in bucket.news
	reported time.Time  // start of the flush that reported last
	hold     time.Time  // no reports before: other nodes are about to write the room anew
}

// user is a user's standing in a room on this node. A user is in room.changed
// exactly when being here and being written differ.
type user struct {
	conns   int32
	place   int32 // 1 + the place in room.changed; 0: not in it
	written bool  // Redis has the user, once the batches so far have arrived
}

// Open implements [hub.Presence]. A report that has begun when the membership is
// closed may still be ending then.
func (r *Presence) Open(name string, counts func(hub.Counts)) hub.Membership {
	b := r.bucketOf(name)
	b.mu.Lock()
	defer b.mu.Unlock()
	rm := b.rooms[name]
	if rm == nil {
		rm = b.add(name)
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

// touch has the room sent with the next flush.
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

// report has the room's counts reported at the end of the next flush.
func (rm *room) report() {
	if !rm.queued {
		rm.queued = true
		rm.b.news = append(rm.b.news, rm)
	}
}

// empty tells that nobody watches the room on this node, nor is in it, nor has yet
// to be taken out.
func (rm *room) empty() bool { return len(rm.members) == 0 && len(rm.users) == 0 }

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

// add begins to know a room.
func (b *bucket) add(name string) *room {
	rm := &room{b: b, name: name, users: make(map[string]user), at: len(b.list), whole: true}
	b.rooms[name] = rm
	b.list = append(b.list, rm)
	return rm
}

// drop forgets a room.
func (b *bucket) drop(rm *room) {
	b.clean(rm)
	delete(b.rooms, rm.name)
	last := len(b.list) - 1
	moved := b.list[last]
	b.list[rm.at] = moved
	moved.at = rm.at
	b.list[last] = nil
	b.list = b.list[:last]
}
