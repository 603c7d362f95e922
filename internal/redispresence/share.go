package redispresence

import (
	"fmt"
	"hash/fnv"
	"math/bits"
	"strconv"
	"strings"

	"github.com/kansei-live/kansei/protocol"
)

// What an incarnation has of a room is its share: a record of each member, in small hashes
// ("shards") that together hold them in the order of their places. So a page of members costs
// the hashes that it lies in, and the order is the same on all nodes. Redis keeps a hash of up
// to 128 short fields in one piece of memory, which takes half of what a large hash does.
//
// A share begins with one shard. Each shard in turn, in their order, is divided into four by the
// next two bits of the places, as the share grows. See [shape].

const (
	placeBits   = 18
	placeDigits = placeBits / 3 // of a place in a record, which is octal
	levelBits   = 2             // by which a shard is divided
	fanout      = 1 << levelBits
	maxDepth    = placeBits / levelBits

	// fillShards is how many members a shard has, on average, when the next level begins. Until
	// all are divided those that are not have up to a third more: what fits, less what chance adds.
	fillShards = 80
	maxSplits  = 32 // in one tick
)

// place is where a user stands in the order of members: a hash of the id. It is part of what is
// stored and must never change.
func place(id string) uint32 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails
	x := h.Sum64()
	x ^= x >> 33 // the last steps of MurmurHash3: FNV alone leaves the high bits poor
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return uint32(x >> (64 - placeBits))
}

// shard is one of a share: a 1, followed by the bits with which the places in it begin.
type shard uint32

// suffix is the bits of a shard, a digit for two of them.
func (s shard) suffix() string { return strconv.FormatUint(uint64(s), fanout)[1:] }

// depth is by how many digits a shard is divided from the whole.
func (s shard) depth() int { return (bits.Len32(uint32(s)) - 1) / levelBits }

// bounds are the first place of a shard, and the first one behind it.
func (s shard) bounds() (from, to uint32) {
	n := levelBits * s.depth()
	x := uint32(s) - 1<<n
	return x << (placeBits - n), (x + 1) << (placeBits - n)
}

// children are the shards that a shard is divided into.
func (s shard) children() []shard {
	out := make([]shard, fanout)
	for i := range out {
		out[i] = s<<levelBits | shard(i)
	}
	return out
}

// shape is how a share is divided: by depth digits, and its first split shards by one
// more.
type shape struct{ depth, split uint32 }

// shapeFor is the shape that a share of n members grows to.
func shapeFor(n int) shape {
	var s shape
	for s.crowded(n) {
		_, s = s.next()
	}
	return s
}

// crowded reports whether a share of n members is to be divided further.
func (s shape) crowded(n int) bool {
	return s.depth < maxDepth && 3*n > fillShards*(3<<(levelBits*s.depth)+int(s.split))
}

// next returns the shard that is to be divided next, and the shape after that.
func (s shape) next() (shard, shape) {
	from := shard(1<<(levelBits*s.depth) | s.split)
	if s.split++; s.split == 1<<(levelBits*s.depth) {
		return from, shape{s.depth + 1, 0}
	}
	return from, s
}

// shard is the shard of a place.
func (s shape) shard(p uint32) shard {
	n := levelBits * s.depth
	if n < placeBits && p>>(placeBits-n) < s.split {
		n += levelBits
	}
	return shard(1<<n | p>>(placeBits-n))
}

// within are the shards with places from one on and before another, in their order.
func (s shape) within(from, to uint32) []shard {
	var out []shard
	for from < to {
		sh := s.shard(from)
		out = append(out, sh)
		_, from = sh.bounds()
	}
	return out
}

func (s shape) all() []shard { return s.within(0, 1<<placeBits) }

func (s shape) String() string {
	return strconv.FormatUint(uint64(s.depth), 10) + " " + strconv.FormatUint(uint64(s.split), 10)
}

// A member's record says "place devices since role name": the place in octal digits, the number
// of connections to this node, since when in Unix milliseconds in base 36, and a
// letter for the role. The name is the rest.

// indexRecord is what Redis keeps of a room of a user: "place since".
func indexRecord(at uint32, u *user) string {
	return fmt.Sprintf("%0*o %s", placeDigits, at, strconv.FormatInt(u.since, 36))
}

// memberRecord is what Redis keeps of a member.
func memberRecord(at uint32, u *user) string {
	b := make([]byte, 0, placeDigits+16+len(u.name))
	digits := strconv.FormatUint(uint64(at), 8)
	b = append(b, "000000"[len(digits):]...)
	b = append(b, digits...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(u.conns), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, u.since, 36)
	b = append(b, ' ', u.role, ' ')
	return string(append(b, u.name...))
}

// parseMember reads a record; false when it is none.
func parseMember(id, record string) (protocol.Member, bool) {
	f := strings.SplitN(record, " ", 5)
	if len(f) != 5 || len(f[0]) != placeDigits {
		return protocol.Member{}, false
	}
	devices, err := strconv.Atoi(f[1])
	since, bad := strconv.ParseInt(f[2], 36, 64)
	if err != nil || bad != nil || devices < 0 || since < 0 {
		return protocol.Member{}, false
	}
	return protocol.Member{ID: id, Name: f[4], Role: roleOf(f[3]), Since: since, Devices: devices}, true
}

// roleLetters are how records say roles.
var roleLetters = map[protocol.Role]byte{
	protocol.RoleBroadcaster: 'b', protocol.RoleModerator: 'm', protocol.RoleMonitor: 'n', protocol.RoleViewer: 'v',
}

// letterOf is how a record says a role.
func letterOf(r protocol.Role) byte {
	if c, ok := roleLetters[r]; ok {
		return c
	}
	return 'v'
}

// roleOf is the role that a record says; one that is not known is a viewer's.
func roleOf(letter string) protocol.Role {
	for r, c := range roleLetters {
		if letter == string(c) {
			return r
		}
	}
	return protocol.RoleViewer
}
