package hub

import (
	"context"
	"sort"
	"time"
)

const (
	// keepPast is how long what was read from the log for one viewer serves others.
	// Whoever lost the same node comes back within this time.
	keepPast = 10 * time.Second
	// keepCursors is of how many cursors the frames are kept.
	keepCursors = 64
	// readPast is how many events are read from the log at once.
	readPast = 1000
)

// past is what a view's viewers have missed and its items do not reach back to: read
// from the log once for all who come back at the same time.
type past struct {
	turn chan struct{} // of capacity 1: full while somebody has the turn
	stretch
}

// stretch is a part of the log. It belongs to whoever has the turn.
type stretch struct {
	tag    string    // of the epoch that it was read in; empty: there is nothing
	read   time.Time // the first time
	from   uint64    // items has every event of the view after from, up to to
	to     uint64
	items  []item
	frames map[pastKey][]Frame
}

// pastKey says which items frames are of: those after, and up to, a position.
type pastKey struct{ after, upTo uint64 }

func newPast() past { return past{turn: make(chan struct{}, 1)} }

// fill reads what is missing for a viewer that has everything up to since, and for all
// who have more. It fails when that is too much to be recovered.
func (p *past) fill(ctx context.Context, r *Room, v *view, tag string, since, floor uint64) bool {
	if p.tag != tag || time.Since(p.read) > keepPast {
		p.stretch = stretch{tag: tag, read: time.Now(), from: since, to: since}
		// It frees the memory; who has the turn then looks at the time by itself.
		time.AfterFunc(keepPast, p.free)
	}
	if since < p.from {
		items, ok := p.readAll(ctx, r, v, since, p.from)
		if !ok {
			return false
		}
		p.from, p.items = since, append(items, p.items...)
	}
	if p.to < floor {
		items, ok := p.readAll(ctx, r, v, p.to, 0)
		if !ok {
			return false
		}
		p.items = append(p.items, items...)
		if p.to = max(p.to, floor); len(items) > 0 {
			p.to = max(p.to, items[len(items)-1].seq)
		}
	}
	return true
}

// readAll reads the view's events after a position, up to another or all.
func (p *past) readAll(ctx context.Context, r *Room, v *view, after, upTo uint64) ([]item, bool) {
	var items []item
	for {
		events, more, err := r.hub.cfg.Log.Read(ctx, r.name, after, readPast)
		if err != nil {
			return nil, false
		}
		for i := range events {
			e := &events[i]
			if after = e.Seq; upTo > 0 && after > upTo {
				return items, true
			}
			if v.sees(e) && e.Kind == KindComment && r.shows(e) {
				items = append(items, makeItem(e))
			}
		}
		switch {
		case len(items) > r.hub.cfg.RecoverMax:
			return nil, false
		case !more:
			return items, true
		}
	}
}

// between returns the items after a position, up to another.
func (p *past) between(after, upTo uint64) []item {
	at := func(seq uint64) int {
		return sort.Search(len(p.items), func(i int) bool { return p.items[i].seq > seq })
	}
	return p.items[at(after):at(upTo)]
}

// of returns the frames of some items, the same to all who ask for the same.
func (p *past) of(key pastKey, items []item, e encoder) []Frame {
	frames, ok := p.frames[key]
	if !ok {
		frames = e.history(items)
		if len(p.frames) >= keepCursors || p.frames == nil {
			p.frames = map[pastKey][]Frame{}
		}
		p.frames[key] = frames
	}
	return frames
}

func (p *past) free() {
	select {
	case p.turn <- struct{}{}:
		p.stretch = stretch{}
		<-p.turn
	default:
	}
}

// readBack returns the frames of what a viewer has missed since a position that lies
// before the view's items, and the position up to which they go; false when it cannot
// be recovered.
func (r *Room) readBack(ctx context.Context, v *view, tag string, since uint64) ([]Frame, uint64, bool) {
	p := &v.past
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, 0, false
	}
	r.mu.Lock()
	floor := v.floor
	r.mu.Unlock()
	if !p.fill(ctx, r, v, tag, since, floor) {
		return nil, 0, false
	}
	r.mu.Lock()
	same := r.tag == tag
	upTo := min(p.to, r.head) // what this node has not heard of comes live
	ahead := int(v.end() - v.after(upTo))
	e := encoder{r.hub.cfg.Frame, tag, max(1, v.deflating)}
	r.mu.Unlock()
	items := p.between(since, upTo)
	if !same || len(items)+ahead > r.hub.cfg.RecoverMax {
		return nil, 0, false
	}
	return p.of(pastKey{since, upTo}, items, e), upTo, true
}
