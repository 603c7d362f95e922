package redispresence

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
	room      *room
	ins, outs []any // users
	indexed   bool  // as the room was before
	whole     bool
	doubt     int64
	sent      int
}

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
		p := part{room: rm, indexed: rm.indexed, whole: rm.whole, doubt: rm.doubt, sent: rm.sent}
		p.ins, p.outs = rm.take(left, lean)
		left -= len(p.ins) + len(p.outs)
		rm.wrote += len(p.ins) - len(p.outs)
		var mode any = ""
		if rm.whole {
			mode, rm.whole = rm.doubt, false
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
		case len(rm.changed) == 0:
			b.clean(rm)
		case lean:
			i++
		}
		t.grows = t.grows || len(p.ins) > 0 || mode != "" && conns >= 0
		t.keys = append(t.keys, b.keys.users(rm.name), b.keys.set(b.inc, rm.name))
		t.rooms = append(t.rooms, rm.name, conns, rm.counts.PeakUsers, mode, len(p.ins), len(p.outs))
		t.rooms = append(append(t.rooms, p.ins...), p.outs...)
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

// lean reports whether something of a room can be sent that needs no memory.
func (rm *room) lean() bool {
	if len(rm.members) == 0 {
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

// take takes at most n users out of changed: those who have come and those who have gone,
// or, when lean, the latter alone.
func (rm *room) take(n int, lean bool) (ins, outs []any) {
	for i := len(rm.changed) - 1; i >= 0 && len(ins)+len(outs) < n; i-- {
		name := rm.changed[i]
		u := rm.users[name]
		if lean && u.conns > 0 {
			continue
		}
		u.written = !u.written
		rm.put(name, u) // its place may go to the last, which has been looked at
		if u.conns > 0 {
			ins = append(ins, name)
		} else {
			outs = append(outs, name)
		}
	}
	return ins, outs
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
		t.keys = append(t.keys, b.keys.users(rm.name), b.keys.set(b.inc, rm.name))
		t.looks = append(t.looks, rm.name, rm.wrote)
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
		rm.sent = p.sent
		rm.whole = rm.whole || p.whole
		rm.doubt = max(rm.doubt, p.doubt)
		for _, name := range append(p.ins, p.outs...) {
			name := name.(string)
			u := rm.users[name]
			u.written = !u.written
			rm.put(name, u)
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
		rm.indexed = false
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
	clear(rm.changed)
	rm.changed = rm.changed[:0]
	for name, u := range rm.users {
		u.place, u.written = 0, false
		rm.put(name, u)
	}
	rm.mark()
}
