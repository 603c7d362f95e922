package redispresence

import "strings"

// batch is the part of a tick that must not change until the tick is answered.
type batch struct {
	looks []any // ARGV of the rooms to look at
	rooms []any // ARGV of the rooms that have changed
	keys  []string
	parts []part
	more  bool // there was more than one tick may carry
	grows bool // it may need memory
}

// part is what a batch says of one room, so that it can be taken back.
type part struct {
	room *room
	change
	indexed bool // as the room was before
	whole   bool
	doubt   int64
	sent    int
	shape   shape
	groups  []group
	marks   []string
}

// change is the ids of users who come, who go, and of whom another record is to be written.
type change struct{ ins, outs, ups []string }

func (c *change) len() int { return len(c.ins) + len(c.outs) + len(c.ups) }

// collect takes what is to be sent, at most one chunk of it; of a bucket for which Redis
// has no memory only what needs none: who goes, and connections.
func (b *bucket) collect() *batch {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := &batch{looks: []any{0}, rooms: []any{0}}
	if b.next%lookEvery == 0 {
		b.lookAt(t)
	}
	left, lean := chunk, b.full != nil
	for i := 0; i < len(b.dirty) && left > 0 && len(t.parts) < chunkRooms; {
		rm := b.dirty[i]
		if lean && !rm.lean() {
			i++
			continue
		}
		p := part{room: rm, indexed: rm.indexed, whole: rm.whole, doubt: rm.doubt, sent: rm.sent, shape: rm.shape}
		p.change = rm.take(left, lean)
		left -= p.len()
		p.marks = rm.takeMarks(left, lean)
		left -= len(p.marks)
		rm.wrote += len(p.ins) - len(p.outs)
		var mode any = ""
		var cleared []shard
		if rm.whole {
			mode, rm.whole = rm.doubt, false
			if rm.indexed {
				cleared = rm.shape.all()
			}
			rm.shape = shapeFor(len(rm.users))
		}
		if !rm.indexed {
			rm.indexed = true
			b.have++
		}
		conns := rm.conns
		rm.sent = conns
		switch {
		case rm.empty():
			conns = -1
			rm.indexed = false
			b.have--
			b.drop(rm)
			cleared = p.shape.all()
		case len(rm.changed) == 0 && len(rm.marks) == 0:
			b.clean(rm)
		case lean:
			i++
		}
		t.grows = t.grows || len(p.ins)+len(p.ups) > 0 || mode != "" && conns >= 0
		b.write(t, &p, conns, mode, cleared)
		t.parts = append(t.parts, p)
	}
	t.rooms[0] = len(t.parts)
	t.more = len(b.dirty) > 0 && (!lean || left == 0 || len(t.parts) == chunkRooms)
	if len(t.parts) > 0 {
		b.lastChange = b.began
	}
	b.urgent = t.more
	return t
}

// write adds a room to a batch, as tickLua reads it. b.mu is held.
func (b *bucket) write(t *batch, p *part, conns int, mode any, cleared []shard) {
	rm := p.room
	first, cast := b.keys.first(rm.name), b.keys.broadcast(rm.name, rm.broadcast)
	t.keys = append(append(append(t.keys, b.keys.users(rm.name)), first[:]...), cast[:]...)
	for _, sh := range cleared {
		t.keys = append(t.keys, b.keys.shard(b.inc, rm.name, sh))
	}
	p.groups = rm.group(&p.change)
	at := rm.shape
	var splits []shard
	for conns >= 0 && mode == "" && at.crowded(rm.wrote) && len(splits) < maxSplits && b.full == nil {
		var from shard
		from, at = at.next()
		splits = append(splits, from)
	}
	t.rooms = append(t.rooms, rm.name, conns, rm.counts.PeakUsers, mode, flag(rm.index), at.String(), len(cleared), len(p.groups), len(splits))
	sketch := ""
	if mode != "" {
		sketch = rm.sketch
	}
	t.rooms = append(t.rooms, rm.broadcast, flag(rm.again), sketch, len(p.marks), len(p.ins), len(p.outs), len(p.ups))
	add := func(ids []string, text func(string) string) {
		for _, id := range ids {
			t.rooms = append(t.rooms, text(id))
		}
	}
	same := func(id string) string { return id }
	add(p.marks, same)
	// Those of a shard stand together, so that one command takes them.
	for _, g := range p.groups {
		add(g.ins, same)
	}
	for _, g := range p.groups {
		add(g.outs, same)
	}
	for _, g := range p.groups {
		add(g.ups, same)
	}
	for _, g := range p.groups {
		add(g.ins, rm.record)
	}
	for _, g := range p.groups {
		add(g.ups, rm.record)
	}
	for _, g := range p.groups {
		t.keys = append(t.keys, b.keys.shard(b.inc, rm.name, g.shard))
		t.rooms = append(t.rooms, len(g.ins), len(g.outs), len(g.ups))
	}
	for _, from := range splits {
		t.keys = append(t.keys, b.keys.shard(b.inc, rm.name, from))
		for _, sh := range from.children() {
			t.keys = append(t.keys, b.keys.shard(b.inc, rm.name, sh))
		}
		t.rooms = append(t.rooms, from.depth())
	}
	rm.shape = at
}

// group is what of a change lies in one shard.
type group struct {
	shard
	change
}

// group divides a change by the shards that it concerns, in their order.
func (rm *room) group(c *change) []group {
	var groups []group
	at := make(map[shard]int)
	put := func(id string) *change {
		sh := rm.shape.shard(placeIn(rm.name, id))
		i, ok := at[sh]
		if !ok {
			i = len(groups)
			at[sh] = i
			groups = append(groups, group{shard: sh})
		}
		return &groups[i].change
	}
	for _, id := range c.ins {
		g := put(id)
		g.ins = append(g.ins, id)
	}
	for _, id := range c.outs {
		g := put(id)
		g.outs = append(g.outs, id)
	}
	for _, id := range c.ups {
		g := put(id)
		g.ups = append(g.ups, id)
	}
	return groups
}

// placeIn is where a member of a room stands: in the index, where the user does.
func placeIn(room, id string) uint32 {
	if room == indexRoom {
		id, _, _ = strings.Cut(id, "\n")
	}
	return place(id)
}

// record is what Redis is to keep of a member.
func (rm *room) record(id string) string {
	u := rm.users[id]
	if rm.index {
		return indexRecord(placeIn(rm.name, id), &u)
	}
	return memberRecord(placeIn(rm.name, id), &u)
}

// lean reports whether something of a room can be sent that needs no memory.
func (rm *room) lean() bool {
	if len(rm.members) == 0 && !rm.index {
		return true
	}
	if rm.whole {
		return false
	}
	if rm.conns != rm.sent || len(rm.changed) == 0 {
		return true
	}
	for _, name := range rm.changed {
		if rm.users[name].conns == 0 {
			return true
		}
	}
	return false
}

// take takes at most n users out of changed: all kinds, or, when lean, those who go
// alone.
func (rm *room) take(n int, lean bool) (c change) {
	for i := len(rm.changed) - 1; i >= 0 && c.len() < n; i-- {
		id := rm.changed[i]
		u := rm.users[id]
		if lean && u.conns > 0 {
			continue
		}
		switch {
		case u.conns == 0:
			c.outs = append(c.outs, id)
		case u.written:
			c.ups = append(c.ups, id)
		default:
			c.ins = append(c.ins, id)
		}
		u.written, u.stale = u.conns > 0, false
		rm.put(id, u) // its place may go to the last, which has been looked at
	}
	return c
}

// lookAt adds the rooms whose turn it is to be compared with what Redis holds. b.mu is
// held.
func (b *bucket) lookAt(t *batch) {
	n := min((len(b.list)+lookShare-1)/lookShare, maxLook)
	rooms := 0
	for range n {
		if b.look >= len(b.list) {
			b.look = 0
		}
		rm := b.list[b.look]
		b.look++
		if !rm.indexed || rm.place > 0 {
			continue // it is not there yet, or is about to change
		}
		rooms++
		shards := rm.shape.all()
		t.keys = append(t.keys, b.keys.users(rm.name))
		for _, sh := range shards {
			t.keys = append(t.keys, b.keys.shard(b.inc, rm.name, sh))
		}
		t.looks = append(t.looks, rm.name, rm.wrote, flag(rm.index), len(shards))
	}
	t.looks[0] = rooms
}

// takeBack undoes collect: the batch was refused, and must never be sent again.
func (b *bucket) takeBack(t *batch) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range t.parts {
		rm := p.room
		now := b.rooms[rm.name]
		if now == nil { // it was left
			rm.at, rm.place = len(b.list), 0
			b.rooms[rm.name] = rm
			b.list = append(b.list, rm)
		} else if now != rm { // and opened again: it is written whole, which settles the rest
			continue
		}
		if rm.indexed != p.indexed {
			if rm.indexed = p.indexed; p.indexed {
				b.have++
			} else {
				b.have--
			}
		}
		rm.wrote -= len(p.ins) - len(p.outs)
		rm.sent, rm.shape = p.sent, p.shape
		rm.marks = append(rm.marks, p.marks...)
		rm.whole = rm.whole || p.whole
		rm.doubt = max(rm.doubt, p.doubt)
		for _, id := range append(p.ins, p.outs...) {
			u := rm.users[id]
			u.written = !u.written
			u.stale = u.written
			rm.put(id, u)
		}
		for _, id := range p.ups {
			u := rm.users[id]
			u.stale = u.written
			rm.put(id, u)
		}
		rm.mark()
	}
}

// rewrite has everything sent anew to an incarnation that knows nothing.
func (b *bucket) rewrite() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.have = 0
	for _, rm := range append([]*room(nil), b.list...) {
		rm.indexed, rm.shape = false, shape{}
		rm.anew(0)
		if rm.empty() {
			b.drop(rm)
		}
	}
}

// anew has a room written whole. What Redis has of it at generations up to doubt is not
// believed.
func (rm *room) anew(doubt int64) {
	rm.whole, rm.doubt, rm.wrote = true, doubt, 0
	rm.recount()
	clear(rm.changed)
	rm.changed = rm.changed[:0]
	for name, u := range rm.users {
		u.place, u.written, u.stale = 0, false, false
		rm.put(name, u)
	}
	rm.mark()
}
