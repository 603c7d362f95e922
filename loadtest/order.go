package loadtest

import "github.com/kansei-live/kansei/protocol"

// commentID is an id of the contract, padded with zeros, which no id has.
type commentID [protocol.MaxID]byte

// parseID reads an id; false for one that the contract does not allow.
func parseID(s string) (id commentID, ok bool) {
	if s == "" || len(s) > len(id) {
		return id, false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return id, false
		}
	}
	copy(id[:], s)
	return id, true
}

func (id commentID) String() string {
	n := 0
	for n < len(id) && id[n] != 0 {
		n++
	}
	return string(id[:n])
}

// entry is one comment. It holds no pointer, so that millions of them cost the
// garbage collector nothing.
type entry struct {
	id commentID
	// label grows along the order, with room between two neighbours; 0: no viewer
	// has received this one.
	label      uint64
	prev, next int32 // neighbours in the order
	publisher  int32 // who wrote it; -1: none of ours
	acked      bool
	// guess says that it may belong further back, see place.
	guess     bool
	at        int64 // the log's clock, Unix milliseconds
	due, sent int64 // once acknowledged: nanoseconds since the run began
}

// order is the one order of a room's comments: a list that grows at its end, and
// in the middle when somebody turns out to have missed something. It is held in a
// slice whose element 0 stands for both ends.
type order struct {
	entries []entry
	byID    map[commentID]int32
	authors map[string]int32 // our publishers by their user ids
	// went counts, for each guess, which comments viewers received right behind it.
	went map[int32]map[int32]int64
}

const labelStep = 1 << 32

func newOrder() order {
	return order{
		entries: make([]entry, 1), byID: make(map[commentID]int32), authors: make(map[string]int32),
		went: make(map[int32]map[int32]int64),
	}
}

// entryOf returns the entry of an id, made if there is none.
func (o *order) entryOf(id commentID) int32 {
	i, ok := o.byID[id]
	if !ok {
		i = int32(len(o.entries))
		o.entries = append(o.entries, entry{id: id, publisher: -1})
		o.byID[id] = i
	}
	return i
}

func (o *order) listed(i int32) bool { return o.entries[i].label != 0 }

// after reports whether i stands behind j in the list.
func (o *order) after(i, j int32) bool { return o.entries[i].label > o.entries[j].label }

// insert puts i into the list behind j.
func (o *order) insert(i, j int32) {
	next := o.entries[j].next
	low, high := o.entries[j].label, o.entries[next].label
	switch {
	case next == 0:
		high = low + 2*labelStep
	case high-low < 2:
		o.relabel()
		low, high = o.entries[j].label, o.entries[next].label
	}
	e := &o.entries[i]
	e.label, e.prev, e.next = low+(high-low)/2, j, next
	o.entries[j].next, o.entries[next].prev = i, i
}

// relabel makes room between all neighbours.
func (o *order) relabel() {
	label := uint64(0)
	for i := o.entries[0].next; i != 0; i = o.entries[i].next {
		label += labelStep
		o.entries[i].label = label
	}
}

// received is a comment as a frame brings it.
type received struct {
	id   commentID
	at   int64
	user string
}

// remove takes i out of the list.
func (o *order) remove(i int32) {
	e := &o.entries[i]
	o.entries[e.prev].next, o.entries[e.next].prev = e.next, e.prev
}

// place finds the entries of a stretch of comments, and puts those that are new
// into the list: behind the one received before them, or if nothing is known to
// be right before them (anchor -1) in front of the first that is known already,
// or else by the log's clock.
//
// What somebody has skipped makes such a place a guess, unless it is the end of
// the list: a viewer that has missed c2 and is the first to receive c3 puts it
// behind c1, in front of c2. A guess is never too far back, so that those who
// receive c3 behind c2 can put it right, see follow.
func (o *order) place(items []received, anchor int32) (all, fresh []int32) {
	all = make([]int32, len(items))
	for n, it := range items {
		i := o.entryOf(it.id)
		if !o.listed(i) {
			o.entries[i].at = it.at
			if author, ok := o.authors[it.user]; ok {
				o.entries[i].publisher = author
			}
			if anchor < 0 {
				anchor = o.anchor(items[n:])
			}
			o.insert(i, anchor)
			o.entries[i].guess = o.entries[i].next != 0
			fresh = append(fresh, i)
		}
		all[n], anchor = i, i
	}
	return all, fresh
}

// follow takes notice that i was received right behind j: if the place of i was a
// guess in front of j, it is put right. A guess that fits is no proof: all viewers
// of one node may have skipped the same. It returns how many times a viewer has
// received something behind i that turns out to stand in front of it.
func (o *order) follow(i, j int32) (wrong int64) {
	if o.entries[j].guess {
		if o.went[j] == nil {
			o.went[j] = make(map[int32]int64)
		}
		o.went[j][i]++
	}
	if o.entries[i].guess && o.after(j, i) {
		return o.move(i, j, make(map[int32]bool))
	}
	return 0
}

// move puts i behind j, and takes along the guesses that were received behind i;
// moved are the entries that have been moved already.
func (o *order) move(i, j int32, moved map[int32]bool) (wrong int64) {
	moved[i] = true
	o.remove(i)
	o.insert(i, j)
	for to, n := range o.went[i] {
		if o.after(to, i) {
			continue
		}
		if o.entries[to].guess && !moved[to] {
			wrong += o.move(to, i, moved)
			continue
		}
		wrong += n
		delete(o.went[i], to)
	}
	if o.entries[i].guess = o.entries[i].next != 0; !o.entries[i].guess {
		delete(o.went, i)
	}
	return wrong
}

func (o *order) anchor(items []received) int32 {
	for _, it := range items {
		if i, ok := o.byID[it.id]; ok && o.listed(i) {
			return o.entries[i].prev
		}
	}
	last := o.entries[0].prev
	for last != 0 && o.entries[last].at >= items[0].at {
		last = o.entries[last].prev
	}
	return last
}

// positions numbers the list from 1; 0 for what is not in it.
func (o *order) positions() []int32 {
	pos := make([]int32, len(o.entries))
	n := int32(0)
	for i := o.entries[0].next; i != 0; i = o.entries[i].next {
		n++
		pos[i] = n
	}
	return pos
}
