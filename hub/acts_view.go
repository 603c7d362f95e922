package hub

import (
	"encoding/json"
	"slices"

	"github.com/kansei-live/kansei/protocol"
)

// This file has what is kept of comments follow the acts: items, frames in the ring, and what was told of
// acts before.

// changed has what is kept of comments follow an act that was added, and acts that were undone.
// Room.mu is held.
func (r *Room) changed(added *placed, undone []*placed) {
	pinned := r.pinHidden
	for _, v := range r.views {
		v.restored = v.restored[:0]
		var hid []uint64
		if added != nil {
			hid = v.hide(added, r)
		}
		if len(undone) > 0 || added != nil && len(added.Lifts) > 0 {
			v.unhide(r)
		}
		if len(hid) > 0 || len(v.restored) > 0 {
			v.cache.clear()
		}
		if len(hid) > 0 {
			hid = append(hid, v.withdraw()...)
			slices.Sort(hid)
			r.rewrite(v, hid)
		}
		r.recheckLasting(v)
	}
	if r.pinHidden = r.hidesPin(); r.pinHidden != pinned {
		r.publishState()
	}
}

// hide hides the items and asides that an act hides, and returns their positions.
func (v *view) hide(p *placed, r *Room) (hid []uint64) {
	check := func(it *item) {
		if it.said() && !it.hidden && r.visibleItem(it) == hidden {
			it.hidden = true
			hid = append(hid, it.seq)
		}
	}
	switch {
	case len(p.IDs) > 0:
		for _, id := range p.IDs {
			seq, _ := seqOf(id)
			if i := behind(v.items, seq-1); i < len(v.items) && v.items[i].seq == seq {
				check(&v.items[i])
			}
			if i := asidesBehind(v.asides, seq-1); i < len(v.asides) && v.asides[i].seq == seq {
				check(&v.asides[i].item)
			}
		}
		slices.Sort(hid)
	case p.Kind == protocol.TypeClear || p.Clear:
		for i := range v.items {
			if it := &v.items[i]; p.Hash == "" || p.User == "" || it.author == p.User {
				check(it)
			}
		}
		for i := range v.asides {
			if a := &v.asides[i]; p.Hash == "" || p.User == "" || a.author == p.User {
				check(&a.item)
			}
		}
		slices.Sort(hid)
	}
	return hid
}

// recheck judges everything anew.
func (v *view) recheck(r *Room) {
	var hid []uint64
	for i := range v.items {
		if it := &v.items[i]; it.said() {
			was := it.hidden
			if it.hidden = r.visibleItem(it) != shown; it.hidden && !was {
				hid = append(hid, it.seq)
			}
		}
	}
	v.unhide(r)
	v.restored = nil
	v.cache.clear()
	r.recheckLasting(v)
	if len(hid) > 0 {
		hid = append(hid, v.withdraw()...)
		slices.Sort(hid)
		r.rewrite(v, hid)
	}
}

// unhide shows what no act hides any more; restored has those comments then.
func (v *view) unhide(r *Room) {
	for i := range v.items {
		if it := &v.items[i]; it.hidden && it.said() && r.visibleItem(it) == shown {
			it.hidden = false
			v.restored = append(v.restored, *it)
		}
	}
	for i := range v.asides {
		switch a := &v.asides[i]; {
		case !a.said():
		case a.hidden:
			a.hidden = r.visibleItem(&a.item) == hidden
		case a.mine && r.visibleItem(&a.item) == shown:
			a.hidden = true // it is an item again
		}
	}
}

// rewrite takes comments out of the frames of a view's ring, at these positions, in order. What a
// viewer that is behind would get of a frame that cannot be made anew, it is told of as a gap.
func (r *Room) rewrite(v *view, hid []uint64) {
	ring := &v.ring
	if ring.slots == nil {
		return
	}
	for i := ring.tail; i < ring.head.Load(); i++ {
		f := ring.get(i)
		n, _ := slices.BinarySearch(hid, f.after+1)
		if f.after < f.upTo.Seq && (n == len(hid) || hid[n] > f.upTo.Seq) {
			continue
		}
		if f.after >= f.upTo.Seq || f.after < v.floor.Seq { // it has more than its stretch, or that is forgotten
			if f.notice {
				if f.brings {
					ring.replace(f, chunk{})
				}
				continue
			}
			for ring.tail <= i && ring.tail+1 < ring.head.Load() {
				ring.drop()
			}
			if i+1 == ring.head.Load() { // the newest one stays, empty
				ring.replace(f, chunk{})
			}
			continue
		}
		items := v.items[behind(v.items, f.after):behind(v.items, f.upTo.Seq)]
		asides := v.asides[asidesBehind(v.asides, f.after):asidesBehind(v.asides, f.upTo.Seq)]
		ring.replace(f, r.encoder(v).chunk(items, asides, f.upTo, false))
	}
}

// actMessage is what a view is told of an act, beside the comments, and whether that brings comments
// back; nil: nothing.
func (r *Room) actMessage(e *Event, v *view, live bool) (message []byte, brings bool) {
	var a Act
	if json.Unmarshal(e.Body, &a) != nil {
		return nil, false
	}
	var m protocol.Removed
	switch {
	case a.Kind == protocol.TypeUndo, a.Kind == protocol.TypeUnmute:
		if !live || len(v.restored) == 0 {
			return nil, false
		}
		n, size := len(v.restored)-1, len(v.restored[len(v.restored)-1].json)
		for n > 0 && size+len(v.restored[n-1].json) <= maxFrame { // the latest of them
			n--
			size += len(v.restored[n].json)
		}
		return restoredMessage(v.restored[n:]), true
	case a.Kind == protocol.TypeRemove, a.Kind == protocol.TypeSweep:
		if m.IDs = a.IDs; len(m.IDs) == 0 {
			return nil, false
		}
	case a.Hash == "" && a.Kind == protocol.TypeClear:
		m.All = true
	case a.Kind == protocol.TypeClear || a.Clear:
		m.User = a.User
		if alias := r.hub.cfg.Alias; alias != nil && !v.staff && m.User != "" {
			m.User = alias(r.name, m.User)
		}
		if m.User == "" { // it was erased
			return nil, false
		}
	default:
		return nil, false
	}
	return protocol.Encode(&m), false
}

// withdraw takes what is hidden again out of the messages that have brought it back, and returns where
// these are.
func (v *view) withdraw() (changed []uint64) {
	for i := range v.items {
		it := &v.items[i]
		if !it.brings || it.hidden {
			continue
		}
		m, same := v.stillShown(it.json)
		if same {
			continue
		}
		changed = append(changed, it.seq)
		if it.hidden = m == nil; m != nil {
			v.bytes += len(m) - len(it.json)
			it.json = m
		}
	}
	v.notices.Store(v.notices.Load().refit(v.stillShown))
	return changed
}

// stillShown is a restored message with those of its comments that are not hidden; nil: none.
func (v *view) stillShown(message []byte) (now []byte, same bool) {
	var m struct {
		Items  []json.RawMessage `json:"items"`
		Events []json.RawMessage `json:"events"`
	}
	if json.Unmarshal(message, &m) != nil {
		return nil, false
	}
	var left []item
	for _, said := range slices.Concat(m.Items, m.Events) {
		seq, _ := seqOf(string(idOf(said)))
		if i := behind(v.items, seq-1); i < len(v.items) && v.items[i].seq == seq && !v.items[i].hidden {
			left = append(left, v.items[i])
		}
	}
	switch len(left) {
	case len(m.Items) + len(m.Events):
		return message, true
	case 0:
		return nil, false
	}
	return restoredMessage(left), false
}

// restoredMessage is what a view is told of what is back.
func restoredMessage(items []item) []byte {
	var comments, events [][]byte
	for i := range items {
		if items[i].event {
			events = append(events, protocol.EventItem(items[i].json))
		} else {
			comments = append(comments, items[i].json)
		}
	}
	return protocol.AppendRestored(nil, comments, events)
}
