package redispresence

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// This file reads who is where. A page of members is read from the shards in which its places
// lie, of every incarnation that has the room; so it costs Redis the page, not the room. Places
// do not change, and one script reads all that a page is made of. So whoever stays in the room
// during a walk through its pages is listed exactly once, wherever nodes come and go.

const (
	listTries = 8  // shares may change while they are looked up
	listMore  = 16 // beyond what a page is expected to need, so that one read is mostly enough
)

var errChanging = errors.New("redis: the room changes faster than it can be read")

// listLua: KEYS 1 the counts, 2 the ticks, 3 the generation, 4 the changes, then the index of each incarnation, then the shards to
// be read. ARGV the room, the number of indexes, and for each shard "m", or "s" for the set of an
// older version. Answers Redis's time, the room's entry, all ticks, what the indexes say of the
// room, what is in the shards, the generation, and the version of the last change.
const listLua = `
local clock = redis.call('TIME')
local out = {tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000), redis.call('HGET', KEYS[1], ARGV[1]) or '', redis.call('HGETALL', KEYS[2])}
local said, shards, n = {}, {}, tonumber(ARGV[2])
for i = 1, n do said[i] = redis.call('HGET', KEYS[4 + i], ARGV[1]) or '' end
for i = 1, #KEYS - 4 - n do
  shards[i] = redis.call(ARGV[2 + i] == 's' and 'SMEMBERS' or 'HGETALL', KEYS[4 + n + i])
end
out[4], out[5], out[6] = said, shards, redis.call('HGET', KEYS[3], 'g') or ''
out[7] = tonumber(redis.call('ZREVRANGE', KEYS[4], 0, 0, 'WITHSCORES')[2] or '0')
return out
`

// share is what an incarnation has of a room.
type share struct {
	inc    string
	shape  shape
	legacy bool // of an older version: a set, without records
	moved  bool // its connections count elsewhere
}

// kept is how a room is kept, and when that was so.
type kept struct {
	now     int64
	version int64  // of the last change in the bucket
	gen     string // of the feed
	users   int
	incs    []string
	said    []string // by the index of each of incs
	shares  []share
}

// same reports whether shards that were chosen by one are those of the other.
func (l *kept) same(o *kept) bool {
	return slices.Equal(l.incs, o.incs) && slices.Equal(l.shares, o.shares)
}

// read reads shards of a room, and how its members are kept. Both are of one moment.
func (b *bucket) read(ctx context.Context, s source, room string, incs []string, pieces []piece) (l kept, found [][]string, err error) {
	keys := []string{b.keys.counts(), b.keys.base + "tick", b.keys.base + "gen", b.keys.base + "changes"}
	args := []any{room, len(incs)}
	for _, inc := range incs {
		keys = append(keys, b.keys.index(inc))
	}
	for _, p := range pieces {
		kind := "m"
		if p.set {
			kind = "s"
		}
		keys, args = append(keys, p.key), append(args, kind)
	}
	v, err := b.r.read(ctx, s, keys, args)
	if err != nil {
		return l, nil, err
	}
	if len(v) != 7 {
		return l, nil, fmt.Errorf("%w: list: %.100q", errAnswer, fmt.Sprint(v))
	}
	var ok [7]bool
	var entry string
	var ticks []string
	var shards []any
	l.now, ok[0] = v[0].(int64)
	entry, ok[1] = v[1].(string)
	ticks, ok[2] = texts(v[2])
	l.said, ok[3] = texts(v[3])
	shards, ok[4] = v[4].([]any)
	l.gen, ok[5] = v[5].(string)
	l.version, ok[6] = v[6].(int64)
	if ok != [7]bool{true, true, true, true, true, true, true} || len(ticks)%2 != 0 || len(l.said) != len(incs) || len(shards) != len(pieces) {
		return l, nil, fmt.Errorf("%w: list: %.100q", errAnswer, fmt.Sprint(v))
	}
	for ; len(ticks) > 0; ticks = ticks[2:] {
		if ticks[1] != "gone" {
			l.incs = append(l.incs, ticks[0])
		}
	}
	slices.Sort(l.incs)
	var users, conns, peak, gen int64
	if err := parseNumbers(entry, &users, &conns, &peak, &gen); err != nil {
		return l, nil, err
	}
	l.users = int(users)
	for i, text := range l.said {
		var c, g, n int64
		if err := parseNumbers(text, &c, &g, &n); err != nil {
			return l, nil, err
		}
		if text == "" || g != gen {
			continue // it counts for nothing
		}
		at, ok := parseShape(text)
		l.shares = append(l.shares, share{incs[i], at, !ok, c == 0})
	}
	for _, one := range shards {
		list, ok := texts(one)
		if !ok {
			return l, nil, fmt.Errorf("%w: list: %.100q", errAnswer, fmt.Sprint(one))
		}
		found = append(found, list)
	}
	return l, found, nil
}

// lookUp finds out how the members of a room are kept.
func (b *bucket) lookUp(ctx context.Context, s source, room string) (kept, error) {
	var incs []string
	for range listTries {
		l, _, err := b.read(ctx, s, room, incs, nil)
		if err != nil || slices.Equal(l.incs, incs) {
			return l, err
		}
		incs = l.incs
	}
	return kept{}, errChanging
}

// listed is a member of a room, or of the index, as it was found.
type listed struct {
	place uint32
	id    string
	protocol.Member
}

func byPlace(a, b listed) int {
	return cmp.Or(cmp.Compare(a.place, b.place), strings.Compare(a.id, b.id))
}

// span reads the members of a room whose places are in a range, in order. It returns false when
// the room is kept in another way than l says.
func (b *bucket) span(ctx context.Context, src source, room string, l *kept, from, to uint32) (members []listed, ok bool, err error) {
	var pieces []piece
	var of []share
	for _, s := range l.shares {
		if s.legacy {
			pieces, of = append(pieces, piece{key: b.keys.set(s.inc, room), set: true}), append(of, s)
			continue
		}
		for _, sh := range s.shape.within(from, to) {
			pieces, of = append(pieces, piece{key: b.keys.shard(s.inc, room, sh)}), append(of, s)
		}
	}
	now, found, err := b.read(ctx, src, room, l.incs, pieces)
	if err != nil || !now.same(l) {
		return nil, false, err
	}
	merged := make(map[string]listed)
	add := func(id, record string, s share) {
		e := listed{place: placeIn(room, id), id: id}
		if e.place < from || e.place >= to {
			return
		}
		var good bool
		if e.Member, good = parseMember(id, record); !good {
			e.Member = protocol.Member{ID: id, Role: protocol.RoleViewer, Devices: 1}
		}
		if room == indexRoom {
			_, since, _ := strings.Cut(record, " ")
			e.Since, _ = strconv.ParseInt(since, 36, 64) // 0: not known
		}
		if s.moved {
			e.Devices = 0
		}
		merged[id] = merge(merged[id], e)
	}
	for i, list := range found {
		for of[i].legacy && len(list) > 0 {
			add(list[0], "", of[i])
			list = list[1:]
		}
		for ; len(list) > 1; list = list[2:] {
			add(list[0], list[1], of[i])
		}
	}
	return slices.SortedFunc(maps.Values(merged), byPlace), true, nil
}

// merge is what two records say of one user: all devices, the earliest beginning, and the name
// and role of the latest.
func merge(a, b listed) listed {
	if a.id == "" {
		return b
	}
	if b.Since < a.Since || b.Name == "" && b.Since == 0 {
		a, b = b, a
	}
	b.Devices += a.Devices
	if a.Since > 0 {
		b.Since = a.Since
	}
	return b
}

// source is where a page is read: from replicas, if there are any that are not older than a
// version, or from the primary.
type source struct {
	least   int64
	primary bool
}

// read runs listLua where a source says.
func (r *Presence) read(ctx context.Context, s source, keys []string, args []any) ([]any, error) {
	if r.cfg.Reads != nil && !s.primary {
		var v []any
		err := r.call(ctx, opList, func(ctx context.Context) (err error) {
			v, err = r.scripts.list.RunRO(ctx, r.cfg.Reads, keys, args...).Slice()
			return err
		})
		if err == nil && len(v) == 7 {
			if version, ok := v[6].(int64); ok && version >= s.least {
				return v, nil
			}
		}
	}
	return r.run(ctx, opList, r.scripts.list, keys, args)
}

// note takes in a version that the bucket has had.
func (b *bucket) note(version int64) {
	for {
		had := b.newest.Load()
		if version <= had || b.newest.CompareAndSwap(had, version) {
			return
		}
	}
}

// page is part of a list, in order.
type page struct {
	listed []listed
	more   bool
	kept
}

// page reads up to limit members of a room behind a cursor, with a place of at most last. What a
// node or the reader has seen already is never taken back.
func (b *bucket) page(ctx context.Context, src source, room, behind string, limit int, last uint32) (page, error) {
	src.least = max(src.least, b.newest.Load())
	from := uint32(0)
	after := listed{id: behind}
	if behind != "" {
		after.place = placeIn(room, behind)
		from = after.place
	}
	for try := range listTries {
		src.primary = src.primary || try > listTries/2 // replicas may be of several minds
		l, err := b.lookUp(ctx, src, room)
		if err != nil {
			return page{}, err
		}
		at, out := from, []listed(nil)
		for at <= last && len(out) <= limit {
			to := last + 1
			if room != indexRoom {
				width := uint64(limit+listMore) << placeBits / uint64(max(l.users, 1))
				to = uint32(min(uint64(at)+width+1, uint64(to)))
			}
			some, ok, err := b.span(ctx, src, room, &l, at, to)
			if err != nil {
				return page{}, err
			}
			if !ok {
				out = nil
				break
			}
			for _, e := range some {
				if behind == "" || byPlace(e, after) > 0 {
					out = append(out, e)
				}
			}
			at = to
		}
		if at > last || len(out) > limit {
			b.note(l.version)
			return page{out[:min(len(out), limit)], len(out) > limit, l}, nil
		}
	}
	return page{}, errChanging
}

// Cursors are what a page ended with, so that they stay good whatever changes.
func cursorOf(id string) string { return base64.RawURLEncoding.EncodeToString([]byte(id)) }

func readCursor(s string) (string, error) {
	p, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(p) > maxCursor {
		return "", hub.ErrCursor
	}
	return string(p), nil
}

// maxCursor is longer than what any page ends with.
const maxCursor = 512

// Members implements [hub.Roster]. Those who are leaving come last, behind a cursor that begins
// with a line break, as no id does.
func (r *Presence) Members(ctx context.Context, q hub.MembersQuery) (out protocol.Members, err error) {
	behind, err := readCursor(q.Cursor)
	if err != nil {
		return out, err
	}
	b := r.bucketOf(q.Room)
	if q.Leaving {
		if err := b.listing(ctx); err != nil {
			return out, err
		}
	}
	if scan, leaving := strings.CutPrefix(behind, "\n"); leaving {
		return b.leavers(ctx, q.Room, scan, q.Limit)
	}
	// A cursor says which version its page was of, and where it ended.
	version, id, _ := strings.Cut(behind, " ")
	src := source{primary: q.Leaving}
	if behind != "" {
		if src.least, err = strconv.ParseInt(version, 36, 64); err != nil {
			return out, hub.ErrCursor
		}
	}
	p, err := b.page(ctx, src, q.Room, id, q.Limit, 1<<placeBits-1)
	if err != nil {
		return out, err
	}
	out.Users, out.Generation = make([]protocol.Member, 0, len(p.listed)), p.gen
	for _, e := range p.listed {
		out.Users = append(out.Users, e.Member)
	}
	switch {
	case p.more:
		out.Cursor = cursorOf(strconv.FormatInt(p.version, 36) + " " + p.listed[len(p.listed)-1].id)
	case q.Leaving:
		out.Cursor = cursorOf("\n0")
	}
	return out, b.firstSeen(ctx, q.Room, out.Users)
}

// listTime is how long a walk through the pages of a room with those who are leaving may take
// between two of them.
const listTime = time.Minute

// listing has joins told that otherwise would not be: a user who comes back may have been in
// neither list when it was read.
func (b *bucket) listing(ctx context.Context) error {
	till := b.r.clock() + listTime.Milliseconds()
	return b.r.call(ctx, opList, func(ctx context.Context) error {
		return b.r.cfg.Client.HSet(ctx, b.keys.base+"gen", "listing", till).Err()
	})
}

// leavers reads those of a room who have left, but not for long enough to be told of.
func (b *bucket) leavers(ctx context.Context, room, scan string, limit int) (out protocol.Members, err error) {
	at, err := strconv.ParseUint(scan, 10, 64)
	if err != nil {
		return out, hub.ErrCursor
	}
	var next *redis.ScanCmd
	var gen *redis.StringCmd
	err = b.r.call(ctx, opList, func(ctx context.Context) error {
		p := b.r.cfg.Client.Pipeline()
		// The names of rooms have nothing that a pattern takes for more than it is.
		next, gen = p.HScan(ctx, b.keys.base+"left", at, room+"\n*", int64(limit)), p.HGet(ctx, b.keys.base+"gen", "g")
		if _, err := p.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		return nil
	})
	if err != nil {
		return out, err
	}
	fields, at := next.Val()
	out.Users, out.Generation = []protocol.Member{}, gen.Val()
	for ; len(fields) > 1; fields = fields[2:] {
		_, id, _ := strings.Cut(fields[0], "\n")
		if m, ok := parseMember(id, fields[1][min(1, len(fields[1])):]); ok {
			m.Devices = 0
			out.Users = append(out.Users, m)
		}
	}
	if at != 0 {
		out.Cursor = cursorOf("\n" + strconv.FormatUint(at, 10))
	}
	return out, nil
}

// firstSeen adds when users of a room were first seen there, where that is known.
func (b *bucket) firstSeen(ctx context.Context, room string, users []protocol.Member) error {
	ids := make([]string, len(users))
	for i := range users {
		ids[i] = users[i].ID
	}
	seen, err := b.first(ctx, room, ids)
	for i := range seen {
		users[i].FirstSeen = min(seen[i], users[i].Since)
	}
	return err
}

// Distinct implements [hub.Roster].
func (r *Presence) Distinct(ctx context.Context, room string, broadcast int64) (*protocol.Distinct, error) {
	return r.bucketOf(room).distinct(ctx, room, broadcast)
}

// Nodes implements [hub.Roster]. It reads one number for each user: the counts of the room's users
// by node.
func (r *Presence) Nodes(ctx context.Context, room string, users []string) ([]int, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	found, err := r.cfg.Client.HMGet(ctx, r.bucketOf(room).keys.users(room), users...).Result()
	if err != nil {
		return nil, fmt.Errorf("redispresence: where users are: %w", err)
	}
	nodes := make([]int, len(users))
	for i, n := range found {
		if text, is := n.(string); is {
			nodes[i], _ = strconv.Atoi(text) // what is no number is nobody
		}
	}
	return nodes, nil
}

// RoomsOf implements [hub.Roster]. Those of a user have the user's place.
func (r *Presence) RoomsOf(ctx context.Context, user, cursor string, limit int) (protocol.UserRooms, error) {
	behind, err := readCursor(cursor)
	if err != nil {
		return protocol.UserRooms{}, err
	}
	if behind == "" {
		behind = user + "\n" // before all rooms
	}
	if !strings.HasPrefix(behind, user+"\n") {
		return protocol.UserRooms{}, hub.ErrCursor
	}
	p, err := r.bucketOf(user).page(ctx, source{primary: true}, indexRoom, behind, 1<<30, place(user))
	if err != nil {
		return protocol.UserRooms{}, err
	}
	out := protocol.UserRooms{Rooms: []protocol.UserRoom{}}
	for _, e := range p.listed {
		id, room, _ := strings.Cut(e.id, "\n")
		switch {
		case id != user:
		case len(out.Rooms) == limit:
			out.Cursor = cursorOf(indexEntry(user, out.Rooms[limit-1].Room))
			return out, nil
		default:
			out.Rooms = append(out.Rooms, protocol.UserRoom{Room: room, Since: e.Since})
		}
	}
	return out, nil
}
