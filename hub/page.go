package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// This file reads pages of the past, for readers who want more of it than a new viewer
// gets. They are read from the log, unless the room's items have them, and are not kept:
// a reader that pages goes through days.

const (
	// readPast is how many events are read from the log at once.
	readPast = 1000
	// maxPaging is how many pages, of all rooms together, are read from the log at once.
	// Each asks the log's leader some four times, and replicas as often as there are records
	// to be read and to be passed over; it takes milliseconds, and up to pageBytes twice over.
	maxPaging = 8
	// maxPagers is how many pages are being read or wait for a place: as many as can be read
	// within Config.JoinWait, and more.
	maxPagers = 256
	// A page is ended, with whatever is in it, when so much was read for it or so much time
	// has gone by. In a flood one comment in ten is shown, and may be of 4 KiB.
	pageRecords = 5000
	pageBytes   = 4 << 20
	pageTime    = time.Second
)

var errPagers = errors.New("too many pages are being read")

// reader reads events from the log that a room was told of.
type reader struct {
	room  *Room
	epoch string
}

// paging is one page that is being read, for all who ask for the same.
type paging struct {
	done      chan struct{} // closed when the fields below are set
	message   []byte
	recovered bool
	err       error
}

// readPage answers with a page that ends or begins at a place, or with the latest if there is
// no such place.
func (r *Room) readPage(ctx context.Context, v *view, a Ask) ([]byte, bool, error) {
	if message, ok := r.fromItems(v, a); ok {
		return message, true, nil
	}
	r.mu.Lock()
	p := r.pages[a]
	if p == nil {
		if r.closed {
			r.mu.Unlock()
			return nil, false, errClosed
		}
		if r.hub.pagers.Add(1) > maxPagers {
			r.hub.pagers.Add(-1)
			r.mu.Unlock()
			return nil, false, fmt.Errorf("hub: %w: %w", ErrUnavailable, errPagers)
		}
		p = &paging{done: make(chan struct{})}
		if r.pages == nil {
			r.pages = map[Ask]*paging{}
		}
		r.pages[a] = p
		from := reader{r, r.epoch}
		tag := r.tag
		r.hub.wg.Add(1)
		// Ends with its deadline.
		go r.fetch(p, a, from, tag)
	}
	r.mu.Unlock()
	select {
	case <-p.done:
		return p.message, p.recovered, p.err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// fetch reads a page once few enough others are being read.
func (r *Room) fetch(p *paging, a Ask, from reader, tag string) {
	defer r.hub.wg.Done()
	defer r.hub.pagers.Add(-1)
	ctx, cancel := context.WithTimeout(context.Background(), r.hub.cfg.JoinWait)
	defer cancel()
	select {
	case r.hub.paging <- struct{}{}:
		p.message, p.recovered, p.err = from.page(ctx, tag, a)
		<-r.hub.paging
	case <-ctx.Done():
		p.err = fmt.Errorf("hub: %w: %w", ErrUnavailable, errPagers)
	}
	r.mu.Lock()
	delete(r.pages, a)
	r.mu.Unlock()
	close(p.done)
}

// page reads a page from the log. If there is no such place it is the latest one.
func (r reader) page(ctx context.Context, tag string, a Ask) ([]byte, bool, error) {
	place := a.Before
	if place == "" {
		place = a.After
	}
	p, edge, ok := parsePlace(tag, place)
	if ok {
		var (
			message []byte
			err     error
		)
		if a.After != "" {
			message, err = r.forwards(ctx, tag, a, p, edge)
		} else {
			message, err = r.backwards(ctx, tag, a, p, !edge)
		}
		if !errors.Is(err, ErrForgotten) {
			return message, true, err
		}
	}
	message, err := r.backwards(ctx, tag, a, Position{Seq: EndSeq}, true)
	if errors.Is(err, ErrForgotten) { // it is another log now, and the room has not heard of it
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return message, false, err
}

// effort is what was spent on a page.
type effort struct {
	began   time.Time
	records int
	bytes   int
}

// add counts events that were read.
func (e *effort) add(events []Event) {
	e.records += len(events)
	for i := range events {
		e.bytes += len(events[i].Body)
	}
}

func (e *effort) enough() bool {
	return e.records >= pageRecords || e.bytes >= pageBytes || time.Since(e.began) >= pageTime
}

// visible returns the items of events that everybody sees, and how many of the events the audience
// may have heard of: the first ones.
func (r reader) visible(events []Event, tag string) (items []item, heard int) {
	items = make([]item, 0, len(events))
	v := r.room.views[audienceView]
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	for i := range events {
		e := &events[i]
		if len(r.room.held.events) > 0 && e.Seq > v.head.Seq {
			return items, i
		}
		if s, seen := r.room.classify(e); seen && s.views[audienceView] && !s.sampled && !s.act && s.see == shown {
			items = append(items, s.encode(r.room, e, tag, v, false))
		}
	}
	return items, len(events)
}

// clamp is the place itself, or where the audience's part of the log ends if that comes before it.
func (r reader) clamp(at Position, with bool) (Position, bool) {
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	v := r.room.views[audienceView]
	if len(r.room.held.events) > 0 && at.Seq > v.head.Seq && v.head.Known() {
		return v.head, true
	}
	return at, with
}

// backwards reads a page that ends at a position, with what is there or without it.
func (r reader) backwards(ctx context.Context, tag string, a Ask, at Position, with bool) ([]byte, error) {
	latest := at.Seq == EndSeq
	at, with = r.clamp(at, with)
	var (
		items  []item
		begins = at // the page has everything from here on
		more   = true
		spent  = effort{began: time.Now()}
	)
	for n := a.limit(); more && len(items) < a.limit() && !spent.enough(); n = readPast {
		got, err := r.room.hub.cfg.Log.Before(ctx, r.room.name, r.epoch, begins, with, n)
		if err != nil {
			if begins == at {
				return nil, err
			}
			break // the next page is told why
		}
		spent.add(got.Events)
		fresh, _ := r.visible(got.Events, tag)
		if more = got.More; got.From.Seq > 0 {
			begins, with = got.From, false
		}
		if over := len(items) + len(fresh) - a.limit(); over > 0 {
			fresh, more = fresh[over:], true
			begins = fresh[0].position()
		}
		items = append(fresh, items...)
	}
	cursor, before := a.Before, ""
	switch {
	case len(items) > 0:
		cursor = makeCursor(tag, items[len(items)-1].position())
	case at.Seq == EndSeq:
		cursor = r.room.end(tag)
	}
	if more {
		before = makeEdge(tag, begins)
	}
	if latest {
		return page(items, cursor, before, r.lastingBefore(begins)...), nil
	}
	return page(items, cursor, before), nil
}

// lastingBefore returns the messages of the lasting events that a page of the latest, which begins there, does not have.
func (r reader) lastingBefore(begins Position) [][]byte {
	r.room.mu.Lock()
	defer r.room.mu.Unlock()
	v := r.room.views[audienceView]
	return r.room.plainLasting(v, min(begins.Seq-1, v.head.Seq))
}

// forwards reads a page that begins behind a position, or with what is there if that is an
// edge.
func (r reader) forwards(ctx context.Context, tag string, a Ask, at Position, edge bool) ([]byte, error) {
	var (
		items []item
		ends  = at // the page has everything up to here
		more  = true
		spent = effort{began: time.Now()}
	)
	if edge {
		got, err := r.room.hub.cfg.Log.Before(ctx, r.room.name, r.epoch, at, true, 1)
		if err != nil {
			return nil, err
		}
		if n := len(got.Events); n > 0 && got.Events[n-1].Position() == at {
			spent.add(got.Events)
			items, _ = r.visible(got.Events, tag)
		}
	}
	for n := a.limit(); more && len(items) < a.limit() && !spent.enough(); n = readPast {
		events, rest, err := r.room.hub.cfg.Log.Read(ctx, r.room.name, r.epoch, ends, n)
		if err != nil {
			if ends == at {
				return nil, err
			}
			break // the next page is told why
		}
		spent.add(events)
		fresh, heard := r.visible(events, tag)
		if more = rest && heard == len(events); heard > 0 {
			ends = events[heard-1].Position()
		}
		items = append(items, fresh...)
	}
	if len(items) > a.limit() {
		items = items[:a.limit()]
		ends = items[len(items)-1].position()
	}
	cursor, before := a.After, a.After
	if ends != at || len(items) > 0 {
		cursor = makeCursor(tag, ends)
	}
	if len(items) > 0 {
		before = makeEdge(tag, items[0].position())
	}
	return page(items, cursor, before), nil
}

// end is the cursor of the end of what the room has heard of.
func (r *Room) end(tag string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return makeCursor(tag, r.views[audienceView].head)
}

// fromItems answers from the items of a view; false when they do not hold the page.
func (r *Room) fromItems(v *view, a Ask) ([]byte, bool) {
	place := a.Before
	if place == "" {
		place = a.After
	}
	r.mu.Lock()
	items, at, ok := r.between(v, a, place)
	tag := r.tag
	r.mu.Unlock()
	if !ok {
		return nil, false
	}
	cursor, before := place, place
	if n := len(items); n > 0 {
		cursor, before = makeCursor(tag, items[n-1].position()), makeEdge(tag, items[0].position())
	} else if at.Known() {
		cursor = makeCursor(tag, at)
	}
	return page(items, cursor, before), true
}

// between returns the items of a page that a view's items hold whole. Room.mu is held.
func (r *Room) between(v *view, a Ask, place string) (items []item, at Position, ok bool) {
	p, edge, ok := parsePlace(r.tag, place)
	if right, sure := r.remembers(v, p); !ok || !right || !sure || p.Seq < v.floor.Seq {
		return nil, p, false
	}
	// The ordinal of the first item behind the place.
	i := v.after(p.Seq)
	if edge {
		if p.Seq == 0 || p.Seq == v.floor.Seq {
			return nil, p, false
		}
		i = v.after(p.Seq - 1)
	}
	n := int(i - v.base)
	said := func(it *item) bool { return !it.hidden && !it.notice }
	if a.After != "" {
		for i := n; i < len(v.items) && len(items) < a.limit(); i++ {
			if p = v.items[i].position(); said(&v.items[i]) {
				items = append(items, v.items[i])
			}
		}
		return items, p, true
	}
	for i := n - 1; i >= 0 && len(items) < a.limit(); i-- {
		if said(&v.items[i]) {
			items = append(items, v.items[i])
		}
	}
	slices.Reverse(items)
	return items, p, len(items) == a.limit()
}
