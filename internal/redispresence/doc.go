// Package redispresence counts who is in which room over all nodes, on Redis.
//
// # Keys
//
// A room belongs to one of N buckets by the hash of its name. The keys of bucket
// 17 begin with "kansei:2:{p17}:", so that they live in one slot of a Redis Cluster
// and a script may use them together. Nodes of several versions work on the same keys: they
// pass over keys that they do not know, and over what stands behind the fields of a value that
// they know.
//
//	lease              zset  incarnation → Unix milliseconds at which it lapses
//	tick               hash  incarnation → "tick rooms", "dead rooms version", or "gone"
//	grave              zset  dead or gone incarnation → when to look at it next
//	counts             hash  room → "users connections peak_users generation members"
//	changes            zset  room → version at which its entry in counts changed last
//	idle               zset  room that nobody has → since when
//	peaks              hash  the same room → its peak
//	i:<incarnation>    hash  room → "connections generation users depth split" of that incarnation
//	u:<room>           hash  user → number of incarnations that have the user
//	m:<incarnation>:<room>:<shard>   hash  user → "place devices since role name"
//	heat               zset  room → users
//	f:<room>, f:<room>:old           hash  user → when first seen (audience.go)
//	d:<room>:<n>, h:<room>:<n>       set, HyperLogLog  users of a broadcast
//	seen               zset  room, or "room n" → when somebody came last
//	gen                hash  the generation of the feed, and what belongs to it (feed.go)
//	feed               list  batches for back ends
//	left, leaving      hash, zset  "room LF user" → record; when back ends are told
//
// An incarnation's share of a room is divided into shards, so that members are read in pages
// (share.go, list.go). The rooms of the users of a bucket are the members of a room named "@",
// which has no counts.
//
// The length of u:<room> is the exact number of distinct users. An incarnation is
// one life of one node in one bucket; a node that has nothing in a bucket has none
// there. The version of a bucket is that of its latest change.
//
// "kansei:buckets" is the number of buckets, as the first node has pinned it (guard.go).
// A node with another number writes nothing, nor does one whose layout is lower than
// "kansei:reads", which a version sets that older ones would harm. "kansei:2:nodes" is a hash with a record of each
// node: what must agree, and what it tells the others (nodes.go). No key has a time to live.
//
// # Ticks
//
// Once in [Config.Interval], and at once on the first change after quiet, a node
// sends one script to each bucket in which it has rooms. The script names the tick
// that it follows, renews the lease, applies at most 500 users that came or went,
// and answers with the counts of those of the node's rooms that have changed since the
// last answer. Time is Redis's own.
//
// A node that gets no answer sends the same tick again: either Redis has applied
// it, then the same tick changes nothing, or it has not. A late copy of an older
// tick follows the wrong one and is refused. So an answer may be lost, and a
// command may come late or twice, without a wrong count. The client's own retries
// stay off, because they would only blur the deadlines.
//
// When Redis is at another tick than the node (it was restarted, flushed or rolled
// back to an older state) or has given the incarnation up, it answers "resync". The
// node then takes a new incarnation, writes itself whole in as many ticks as that
// takes, and only then retires the old one: a user held by both is still one user,
// so the count does not dip. The connections move from the old incarnation to the
// new one with the first tick that names their room.
//
// # Lost keys
//
// Redis may lose any one key. So everything is written down in two places, and scripts
// compare them: a room's entry with the length of u:<room> at each change, the number of
// rooms of an incarnation with its index, the users that an index names with the set. Every
// fourth tick looks at some of the node's rooms, in turn: at all of them in about a minute,
// where the node has no more than 1,600 in the bucket.
//
// What does not fit together is not repaired but dropped: the room's entry and
// u:<room> go. The nodes that have the room are told by the next answer, since what its index says is
// of a generation that the room does not have, and writes the room whole, which the first of
// them gives a new generation. What was written at another one counts for nothing. When a
// dead incarnation has lost its index nobody knows which rooms it was in, and all that
// may have been among them are dropped. When tick is lost nobody knows who is dead, and
// all rooms are dropped. If Redis loses all that names a dead incarnation its index and
// sets may stay; they count for nothing.
//
// # No memory
//
// At maxmemory Redis refuses a tick as a whole. The node then sends another one, which
// only takes out: its first command deletes, and behind that Redis lets everything pass. Its
// number was never used, so that a late copy of the one that was refused is void. Users
// who come wait in the node; once an interval a tick finds out whether there is memory.
//
// # Peaks
//
// The peak of a room that nobody has stays for a day, but of 1,000 rooms a bucket at
// most, the latest; and only a peak of more than one. So names that somebody makes up do
// not fill Redis.
//
// # Death
//
// A node whose tick finds a lapsed lease declares that incarnation dead, which makes
// all its ticks void from then on, and takes its users out in chunks. The claim to
// do so lapses too, so that any survivor may go on with it. A mark of the death
// stays for an hour, for commands that are still on their way. A lease that has
// lapsed unnoticed is simply renewed. A node that was itself cut off from a bucket
// declares nobody dead there for a few intervals: others were probably cut off too
// and are about to return.
//
// Where a node has no room it sends nothing, but for one bucket an interval, in
// turn, which shows that Redis answers and clears away what nodes left that died
// together.
//
// # Who owns what
//
// A [Presence] has a fixed number of goroutines. A bucket's mutex guards what viewers
// touch (rooms, users, what is to be sent); everything about incarnations and ticks
// belongs to the flush under way, of which a bucket has at most one. Buckets that
// fail are left to two goroutines of their own and cannot hold up the others.
//
// All nodes must use the same prefix and number of buckets.
package redispresence
