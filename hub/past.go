package hub

import (
	"context"
	"errors"
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
	to     uint64    // 0: there is nothing
	items  []item
	frames map[pastKey][]Frame
	lost   uint64 // a viewer that has only what comes before it cannot be recovered
}

// pastKey says which items frames are of: those after, and up to, a position.
type pastKey struct{ after, upTo uint64 }

func newPast() past { return past{turn: make(chan struct{}, 1)} }

// fill reads what is missing for a viewer that has everything up to since, and for all
// who have more. It fails when that is too much to be recovered, and remembers it: who
// comes with too old a cursor costs the others nothing.
func (p *past) fill(ctx context.Context, r *Room, v *view, tag string, since, floor uint64) error {
	if p.tag != tag || time.Since(p.read) > keepPast {
		p.stretch = stretch{tag: tag, read: time.Now()}
		// It frees the memory; who has the turn then looks at the time by itself.
		time.AfterFunc(keepPast, p.free)
	}
	if since < p.lost {
		return errTooMuch
	}
	if since >= p.to { // nothing of what is there is for it
		items, err := p.readAll(ctx, r, v, since, 0)
		if err != nil {
			return err
		}
		p.from, p.to, p.items, p.frames = since, max(since, floor, last(items)), items, nil
		return nil
	}
	if p.to < floor {
		items, err := p.readAll(ctx, r, v, p.to, 0)
		if err != nil {
			return err
		}
		p.to, p.items = max(floor, last(items)), append(p.items, items...)
	}
	if since < p.from {
		items, err := p.readAll(ctx, r, v, since, p.from)
		if err != nil {
			return err
		}
		p.from, p.items = since, append(items, p.items...)
	}
	return nil
}

// errTooMuch says that a viewer has missed more than Config.RecoverMax.
var errTooMuch = errors.New("hub: more was missed than can be recovered")

// last is the position of the last one; 0 when there is none.
func last(items []item) uint64 {
	if len(items) == 0 {
		return 0
	}
	return items[len(items)-1].seq
}

// readAll reads the view's events after a position, up to another or all.
func (p *past) readAll(ctx context.Context, r *Room, v *view, after, upTo uint64) ([]item, error) {
	var items []item
	for at := after; ; {
		events, more, err := r.hub.cfg.Log.Read(ctx, r.name, at, readPast)
		if err != nil {
			return nil, err
		}
		for i := range events {
			e := &events[i]
			if at = e.Seq; upTo > 0 && at > upTo {
				return items, nil
			}
			if v.sees(e) && e.Kind == KindComment && r.shows(e) {
				items = append(items, makeItem(e))
			}
		}
		switch {
		case len(items) > r.hub.cfg.RecoverMax:
			p.lost = after + 1
			return nil, errTooMuch
		case !more:
			return items, nil
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
	if p.fill(ctx, r, v, tag, since, floor) != nil {
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
