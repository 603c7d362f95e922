package redispresence

import (
	"sync"
	"sync/atomic"
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
	feeding    bool // the bucket is in Presence.feeds, or its feed is being published
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
	inc       string       // the incarnation; empty: none
	olds      []previous   // its predecessors, to be retired once it is written whole
	dead      []string     // incarnations of others that this node is to take out
	rewriting bool         // it is not yet written whole
	mark      string       // of the last tick that Redis has confirmed
	next      int64        // the number of the one that follows
	have      int          // rooms in the incarnation's index, once the batches so far have arrived
	seen      int64        // the version of the last answer; -1: all counts are wanted
	pending   *batch       // what the next tick carries, until it is answered
	full      error        // what Redis said when it had no memory for new users; nil: it has
	look      int          // the place in list from which rooms are looked at next
	away      time.Time    // when this node was last cut off from the bucket
	newest    atomic.Int64 // the latest version that this node has seen: what is read must not be older
	gen       string       // the generation of the feed, as of the last answer
	regen     string       // the one that must not go on
	hold      time.Time    // no reports before: other nodes are about to write themselves anew
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
	index   bool // it is no room, but what users of the bucket are in: see [Presence.enter]
	members []*membership
	users   map[string]user
	conns   int
	changed []string // users whose coming, going or record is to be sent, each once
	place   int      // 1 + the place in bucket.dirty; 0: not in it
	at      int      // the place in bucket.list

	// Who is counted for the broadcast that the room has; see audience.go.
	broadcast int64
	again     bool                // it was begun before Redis has lost it
	past      map[string]struct{} // who was there and has left, while they are counted one by one
	marks     []string            // of those, who is to be counted again
	sketch    string              // what Redis had of more than that

	// What the incarnation has written of it, once the batches so far have arrived.
	indexed bool  // it is in the index
	sent    int   // connections
	wrote   int   // users
	shape   shape // of the share
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
// exactly when being here and being written differ, or what is written is not true any more.
type user struct {
	conns   int32
	place   int32 // 1 + the place in room.changed; 0: not in it
	written bool  // Redis has the user, once the batches so far have arrived
	stale   bool  // with another record than this one
	role    byte
	since   int64 // Redis's time, Unix milliseconds
	first   int64 // when first seen in the room, Unix seconds; negative: perhaps earlier; 0: not told
	name    string
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
func (m *membership) Join(u hub.Member) {
	rm := m.room
	rm.b.mu.Lock()
	if m.closed {
		rm.b.mu.Unlock()
		return
	}
	came := rm.join(u.ID, u.Name, letterOf(u.Role))
	rm.b.mu.Unlock()
	if came {
		rm.b.r.enter(u.ID, rm.name)
	}
}

// Leave implements [hub.Membership]. To leave without having joined does nothing.
func (m *membership) Leave(id string) {
	rm := m.room
	rm.b.mu.Lock()
	gone := !m.closed && rm.leave(id)
	rm.b.mu.Unlock()
	if gone {
		rm.b.r.exit(id, rm.name)
	}
}

// enter and exit keep, in the bucket of a user, which rooms the user is in on this node: as
// members of something like a room, with the user's place. It has no counts.
func (r *Presence) enter(user, room string) {
	b := r.bucketOf(user)
	b.mu.Lock()
	defer b.mu.Unlock()
	rm := b.rooms[indexRoom]
	if rm == nil {
		rm = b.add(indexRoom)
	}
	rm.join(indexEntry(user, room), "", 'v')
}

func (r *Presence) exit(user, room string) {
	b := r.bucketOf(user)
	b.mu.Lock()
	defer b.mu.Unlock()
	if rm := b.rooms[indexRoom]; rm != nil {
		rm.leave(indexEntry(user, room))
	}
}

// indexRoom is what the rooms of users are kept as. No room has such a name.
const indexRoom = "@"

// indexEntry is a member of it. No id of a user has a line break.
func indexEntry(user, room string) string { return user + "\n" + room }

// join counts a connection of a user, and reports whether it is the only one. What the
// latest connection says of name and role holds.
func (rm *room) join(id, name string, role byte) (came bool) {
	u := rm.users[id]
	if u.conns == 0 && !u.written {
		u.since = rm.b.r.clock()
	}
	u.conns++
	u.name, u.role = name, role
	u.stale = u.written
	rm.conns++
	rm.put(id, u)
	rm.touch()
	return u.conns == 1
}

// leave undoes one join, and reports whether no connection is left by it.
func (rm *room) leave(id string) (gone bool) {
	u := rm.users[id]
	if u.conns == 0 {
		return false
	}
	u.conns--
	u.stale = u.written
	rm.conns--
	if u.conns == 0 {
		rm.remember(id)
	}
	rm.put(id, u)
	rm.touch()
	return u.conns == 0
}

// Close implements [hub.Membership]. When the last membership of a room closes,
// whoever did not leave is taken out.
func (m *membership) Close() {
	rm := m.room
	for _, id := range m.close() {
		rm.b.r.exit(id, rm.name)
	}
}

// close returns who was taken out.
func (m *membership) close() (gone []string) {
	rm := m.room
	rm.b.mu.Lock()
	defer rm.b.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	for i, o := range rm.members {
		if o == m {
			rm.members = append(rm.members[:i:i], rm.members[i+1:]...)
			break
		}
	}
	if len(rm.members) > 0 {
		return nil
	}
	for id, u := range rm.users {
		if u.conns > 0 {
			gone = append(gone, id)
			rm.remember(id)
		}
		u.conns = 0
		rm.put(id, u)
	}
	rm.conns = 0
	if !rm.indexed {
		rm.b.drop(rm) // Redis never heard of it
		return gone
	}
	rm.touch()
	return gone
}

// put stores a user's standing and enters or strikes the user in changed.
func (rm *room) put(id string, u user) {
	differs := (u.conns > 0) != u.written || u.stale
	switch {
	case differs && u.place == 0:
		rm.changed = append(rm.changed, id)
		u.place = int32(len(rm.changed))
	case !differs && u.place > 0:
		last := len(rm.changed) - 1
		moved := rm.changed[last]
		rm.changed[u.place-1] = moved
		rm.changed[last] = ""
		rm.changed = rm.changed[:last]
		if moved != id {
			o := rm.users[moved]
			o.place = u.place
			rm.users[moved] = o
		}
		u.place = 0
	}
	if u.conns == 0 && !u.written {
		delete(rm.users, id)
		return
	}
	rm.users[id] = u
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
	rm := &room{b: b, name: name, index: name == indexRoom, users: make(map[string]user), at: len(b.list), whole: true}
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
