package edge

import (
	"container/heap"
	"hash/maphash"
	"sync"
	"time"
	"unique"

	"github.com/kansei-live/kansei/internal/clientaddr"
)

const (
	// registryShards spread the locks of a registry: joining, leaving and every message
	// take one.
	registryShards = 16
	// maxIdle bounds the entries that nobody holds: some 15 MiB. At the default rates an
	// entry is idle for 5 s at most, so that it takes 13,000 users a second, who leave
	// just behind a comment, to get there.
	maxIdle = 1 << 16
)

// registry holds what belongs to users of rooms, or to addresses, on this node: their rates
// and their connections. Each has an entry while it has a connection or a request under
// way, and afterwards until its buckets are full again: to forget it then changes nothing.
//
// An entry that nobody holds and that is not full is idle. Idle entries are bounded.
// Beyond the bound the registry forgets those that would be full first. From then on the
// buckets of a new entry are not full, but as if they had been empty when an entry was
// forgotten last. So nobody has more after coming back than if it had been remembered.
//
// Nothing runs by itself: full entries are removed when others are taken or released.
type registry[K comparable] struct {
	seed   maphash.Seed
	shards [registryShards]shard[K]
}

type shard[K comparable] struct {
	began time.Time // of the registry
	most  int       // idle entries

	mu     sync.Mutex
	of     map[K]*entry[K]
	idle   idleHeap[K]
	pushed bool          // an idle entry was forgotten at some time
	last   time.Duration // when, the last time
}

// entry is what belongs to one of a registry, under the lock of its shard.
type entry[K comparable] struct {
	shard *shard[K]
	key   K

	comments, messages bucket
	nodes              int32         // on how many its user is, as far as is known; 0 or 1: on this one alone
	askedAt            time.Duration // when that was asked for last; 0: never
	holders            int32         // connections, and requests under way
	connections        int32
	sessions           *session      // those that are let in: a list, by session.sibling
	place              int32         // in the heap; -1: it is not idle
	full               time.Duration // while it is idle: when its buckets are full
}

// newRegistry makes a registry for at most so many idle entries.
func newRegistry[K comparable](most int) *registry[K] {
	r := &registry[K]{seed: maphash.MakeSeed()}
	now := time.Now()
	for i := range r.shards {
		s := &r.shards[i]
		s.began, s.most, s.of = now, max(1, most/registryShards), map[K]*entry[K]{}
	}
	return r
}

func (r *registry[K]) shard(key K) *shard[K] {
	return &r.shards[maphash.Comparable(r.seed, key)%registryShards]
}

// hold returns the entry of key for a request; the caller releases it.
func (r *registry[K]) hold(key K, now time.Time) *entry[K] {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.get(key, s.since(now))
}

// connect returns the entry of key for another connection; nil if it has as many as it
// may have (0: any number). The caller disconnects it.
func (r *registry[K]) connect(key K, most int, now time.Time) *entry[K] {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.of[key]; e != nil && most > 0 && int(e.connections) >= e.share(most) {
		return nil
	}
	e := s.get(key, s.since(now))
	e.connections++
	return e
}

// full reports whether connect would return nil.
func (r *registry[K]) full(key K, most int) bool {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.of[key]
	return e != nil && most > 0 && int(e.connections) >= e.share(most)
}

// connections is how many connections key has.
func (r *registry[K]) connections(key K) int {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.of[key]; e != nil {
		return int(e.connections)
	}
	return 0
}

// sessions returns the sessions of key that are let in. With them come what their tokens
// say and when these end, which may differ from one to another.
func (r *registry[K]) sessions(key K) []*session {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*session
	if e := s.of[key]; e != nil {
		for v := e.sessions; v != nil; v = v.sibling {
			all = append(all, v)
		}
	}
	return all
}

// attach and detach say that a session is let in, and that it has ended. A user has few.

func (e *entry[K]) attach(v *session) {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	v.sibling, e.sessions = e.sessions, v
}

func (e *entry[K]) detach(v *session) {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	for at := &e.sessions; *at != nil; at = &(*at).sibling {
		if *at == v {
			*at, v.sibling = v.sibling, nil
			return
		}
	}
}

// takeComment takes a comment from the entry's bucket; see [bucket.take].
func (e *entry[K]) takeComment(r Rate, now time.Time) time.Duration {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	return e.comments.take(r, e.shard.since(now))
}

// takeShare is takeComment from the share of a rate that this node has of the user's. It reports
// too whether the share is to be asked for.
func (e *entry[K]) takeShare(r Rate, now time.Time) (wait time.Duration, ask bool) {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	since := e.shard.since(now)
	if ask = e.connections > 0 && (e.askedAt == 0 || since-e.askedAt >= portionFresh); ask {
		e.askedAt = max(since, 1)
	}
	return e.comments.take(r.over(e.nodes), since), ask
}

// share is this node's part of a number that a user may have on all nodes together.
func (e *entry[K]) share(most int) int { return max(1, most/int(max(1, e.nodes))) }

// crowd reports whether a user has so many connections here that it matters on how many nodes
// there are more, and that is to be asked for.
func (e *entry[K]) crowd(most int, now time.Time) (ask bool) {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	since := e.shard.since(now)
	if int(e.connections) <= max(1, most/crowdPart) || most <= 0 || e.askedAt != 0 && since-e.askedAt < portionFresh {
		return false
	}
	e.askedAt = max(since, 1)
	return true
}

// setNodes says on how many nodes the user is.
func (e *entry[K]) setNodes(n int32) {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	e.nodes = n
}

// giveBackComment undoes takeComment.
func (e *entry[K]) giveBackComment() {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	e.comments.giveBack()
}

// takeMessage takes a message of any kind.
func (e *entry[K]) takeMessage(r Rate, now time.Time) time.Duration {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	return e.messages.take(r, e.shard.since(now))
}

// disconnect ends what connect began. The rates are those that the entry fills with.
func (e *entry[K]) disconnect(comments, messages Rate, now time.Time) {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	e.connections--
	e.shard.release(e, comments, messages, e.shard.since(now))
}

// release ends what hold began.
func (e *entry[K]) release(comments, messages Rate, now time.Time) {
	e.shard.mu.Lock()
	defer e.shard.mu.Unlock()
	e.shard.release(e, comments, messages, e.shard.since(now))
}

// since is the time by a clock that is never set.
func (s *shard[K]) since(now time.Time) time.Duration { return now.Sub(s.began) }

// get returns the entry of key, a new one if there is none, for one more holder. The
// caller holds mu.
func (s *shard[K]) get(key K, now time.Duration) *entry[K] {
	s.clear(now)
	e := s.of[key]
	switch {
	case e == nil:
		e = &entry[K]{shard: s, key: key, comments: fullBucket(), messages: fullBucket(), place: -1}
		if s.pushed {
			e.comments, e.messages = bucket{at: s.last}, bucket{at: s.last}
		}
		s.of[e.key] = e
	case e.place >= 0:
		heap.Remove(&s.idle, int(e.place))
	}
	e.holders++
	return e
}

// release is for one holder less. The caller holds mu.
func (s *shard[K]) release(e *entry[K], comments, messages Rate, now time.Duration) {
	s.clear(now)
	if e.holders--; e.holders > 0 {
		return
	}
	if e.full = max(e.comments.fullAt(comments), e.messages.fullAt(messages)); e.full <= now {
		delete(s.of, e.key)
		return
	}
	heap.Push(&s.idle, e)
	if len(s.idle) > s.most {
		s.forget()
		s.pushed, s.last = true, now
	}
}

// clear forgets the idle entries that are full.
func (s *shard[K]) clear(now time.Duration) {
	for len(s.idle) > 0 && s.idle[0].full <= now {
		s.forget()
	}
}

// forget forgets the idle entry that will be full first.
func (s *shard[K]) forget() { delete(s.of, heap.Pop(&s.idle).(*entry[K]).key) }

// idleHeap is idle entries, the first to be full first.
type idleHeap[K comparable] []*entry[K]

var _ heap.Interface = (*idleHeap[user])(nil)

func (h idleHeap[K]) Len() int           { return len(h) }
func (h idleHeap[K]) Less(i, j int) bool { return h[i].full < h[j].full }

func (h idleHeap[K]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i), int32(j)
}

// Push implements [heap.Interface].
func (h *idleHeap[K]) Push(x any) {
	e := x.(*entry[K])
	e.place = int32(len(*h))
	*h = append(*h, e)
}

// Pop implements [heap.Interface].
func (h *idleHeap[K]) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	e.place = -1
	return e
}

// user is somebody in a room. The name of the room is one for all who are in it, and not the
// piece of a request that it came as, which it would keep alive.
type user struct {
	room unique.Handle[string]
	id   string
}

func userOf(room, id string) user { return user{unique.Make(room), id} }

// address is what belongs to an address on this node: how many connections it has, and
// the comments of its guests.
type address = entry[clientaddr.Group]

// newAddresses makes the registry of where they come from.
func newAddresses() *registry[clientaddr.Group] { return newRegistry[clientaddr.Group](maxIdle) }

// newUsers makes the registry of who is on this node.
func newUsers() *registry[user] { return newRegistry[user](maxIdle) }
