package hub

import (
	"context"
	"errors"
	"slices"
	"sort"
	"sync"
	"time"
)

const (
	// keepPast is how long what was read from the log for one viewer serves others.
	// Whoever lost the same node comes back within this time.
	keepPast = 10 * time.Second
	// readPast is how many events are read from the log at once.
	readPast = 1000
)

// past is what a view's viewers have missed and its items do not reach back to: read
// from the log once for all who come back at the same time.
type past struct {
	turn chan struct{} // of capacity 1: full while somebody has the turn
	stretch

	mu      sync.Mutex
	waiting []Position // of those who have the turn or wait for it
}

// stretch is a part of the log. It belongs to whoever has the turn.
type stretch struct {
	read   time.Time // the first time; zero: there is nothing
	resets uint64    // of the room, when it was read
	from   Position  // items has every event of the view after from, up to to
	to     Position  // its sequence is 0: there is nothing
	items  []item
	frames kept[pastKey]
	lost   uint64 // a viewer that has only what comes before it cannot be recovered
}

// pastKey says which items frames are of: those after, and up to, a position.
type pastKey struct{ after, upTo uint64 }

func newPast() past { return past{turn: make(chan struct{}, 1)} }

// reader reads one view's events from the log that the room was told of.
type reader struct {
	room   *Room
	view   *view
	epoch  string
	resets uint64
}

// fill reads what is missing for a viewer that has everything up to since, and for all
// who have more. It fails when that cannot be had or is too much, and remembers it: a
// viewer with too old a cursor costs the others nothing.
func (p *past) fill(ctx context.Context, r reader, since, floor Position) error {
	if p.read.IsZero() || p.resets != r.resets || time.Since(p.read) > keepPast {
		p.stretch = stretch{read: time.Now(), resets: r.resets}
		// It frees the memory; who has the turn then looks at the time by itself.
		time.AfterFunc(keepPast, p.free)
	}
	if since.Seq < p.lost {
		return errTooMuch
	}
	from := since
	if since.Seq < p.from.Seq || since.Seq >= p.to.Seq {
		from = p.oldest(since)
	}
	err := p.extend(ctx, r, from, floor)
	if from.Seq < since.Seq && isLost(err) {
		p.lost = from.Seq + 1
		err = p.extend(ctx, r, since, floor)
	}
	if isLost(err) {
		p.lost = since.Seq + 1
	}
	return err
}

// isLost reports whether err says that a viewer cannot be recovered.
func isLost(err error) bool { return errors.Is(err, errTooMuch) || errors.Is(err, ErrForgotten) }

// wait and done frame the time in which somebody waits for what comes after a position.

func (p *past) wait(since Position) {
	p.mu.Lock()
	p.waiting = append(p.waiting, since)
	p.mu.Unlock()
}

func (p *past) done(since Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, end := slices.Index(p.waiting, since), len(p.waiting)-1
	p.waiting[i] = p.waiting[end]
	if p.waiting = p.waiting[:end]; end == 0 {
		p.waiting = nil
	}
}

// oldest returns the oldest position of somebody who waits, or since if none is older. The
// log is read for all of them at once: viewers with ever older cursors must not have it
// read again and again while the others wait.
func (p *past) oldest(since Position) Position {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.waiting {
		if s.Seq >= p.lost && s.Seq < since.Seq {
			since = s
		}
	}
	return since
}

func (p *past) extend(ctx context.Context, r reader, since, floor Position) error {
	if since.Seq >= p.to.Seq { // nothing of what is there is for it
		items, end, err := r.all(ctx, since, 0)
		if err != nil {
			return err
		}
		p.from, p.to, p.items, p.frames = since, reached(end, floor), items, kept[pastKey]{}
		return nil
	}
	if p.to.Seq < floor.Seq {
		items, end, err := r.all(ctx, p.to, 0)
		if err != nil {
			return err
		}
		p.to, p.items = reached(end, floor), append(p.items, items...)
	}
	if since.Seq < p.from.Seq {
		items, _, err := r.all(ctx, since, p.from.Seq)
		if err != nil {
			return err
		}
		p.from, p.items = since, append(items, p.items...)
	}
	return nil
}

// errTooMuch says that a viewer has missed more than Config.RecoverMax.
var errTooMuch = errors.New("hub: more was missed than can be recovered")

// reached is up to where a view's events are known when the log was read to its end:
// up to the last event, or up to the view's floor, whichever is later. It must be a
// position that one can read on from.
func reached(end, floor Position) Position {
	if floor.Known() {
		return later(end, floor)
	}
	return end
}

// all reads the view's events after a position, up to another or all. It also returns
// the position of the last event that it has read, whoever may see it.
func (r reader) all(ctx context.Context, after Position, upTo uint64) (items []item, at Position, err error) {
	cfg := &r.room.hub.cfg
	for at = after; ; {
		events, more, err := cfg.Log.Read(ctx, r.room.name, r.epoch, at, readPast)
		if err != nil {
			return nil, at, err
		}
		for i := range events {
			e := &events[i]
			if at = e.Position(); upTo > 0 && at.Seq > upTo {
				return items, at, nil
			}
			if r.view.sees(e) && e.Kind == KindComment && r.room.shows(e) {
				items = append(items, makeItem(e))
			}
		}
		switch {
		case len(items) > cfg.RecoverMax:
			return nil, at, errTooMuch
		case !more:
			return items, at, nil
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
	frames, ok := p.frames.of[key]
	if !ok {
		frames = e.history(items)
		p.frames.keep(key, frames, sizeOf(frames))
	}
	return frames
}

// free forgets what is too old. It waits for its turn, which everybody else gives back
// within Config.JoinWait.
func (p *past) free() {
	p.turn <- struct{}{}
	if time.Since(p.read) >= keepPast {
		p.stretch = stretch{}
	}
	<-p.turn
}

// readBack has the log read for a viewer that goes on from a place before the view's
// items. It calls use, if the viewer can be recovered, with what it has missed up to a
// position from which on the items know more.
func (r *Room) readBack(ctx context.Context, v *view, p *past, s spot, use func(p *past, missed []item, upTo Position, e encoder)) bool {
	p.wait(s.Position)
	defer p.done(s.Position)
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return false
	}
	r.mu.Lock()
	floor, from := v.floor, reader{r, v, r.epoch, r.resets}
	r.mu.Unlock()
	if s.resets != from.resets || p.fill(ctx, from, s.Position, floor) != nil {
		return false
	}
	r.mu.Lock()
	same := r.resets == s.resets
	upTo := p.to
	if upTo.Seq > r.head.Seq {
		upTo = r.head // what this node has not heard of comes live
	}
	behind := int(v.end() - v.after(upTo.Seq))
	e := encoder{r.hub.cfg.Frame, r.tag, max(1, v.deflating)}
	r.mu.Unlock()
	missed := p.between(s.Seq, upTo.Seq)
	if !same || len(missed)+behind > r.hub.cfg.RecoverMax {
		return false
	}
	use(p, missed, upTo, e)
	return true
}
