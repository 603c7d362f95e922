package hub

import (
	"context"
	"errors"
	"slices"
	"time"
)

// When a node dies, its viewers reconnect to other nodes, with cursors that lie before what
// these keep in memory. Then a view's items are continued backwards: the log is read from
// where they begin, page by page, until every waiting viewer has its place among them. So the
// log is read once for all of them, a viewer that was gone for a moment does not wait for one
// that was gone for long, and what was read serves the next viewers for keepBackfill.

const (
	// The first page that is read back has firstPage records, each further one twice as
	// many as the one before, up to maxPage.
	firstPage = 128
	maxPage   = 1024
	// readAgain is how long after a failure the log is read again.
	readAgain = 100 * time.Millisecond
	// lookPages is how many pages are read at most to find the comments that a new viewer is
	// shown, when the latest events are of other kinds or for others.
	lookPages = 4
)

// backfill is the reading back of one view. Room.mu guards it.
type backfill struct {
	waiting []*waiter
	reading bool
	until   time.Time // what was read is kept so long
	// While the view's floor is that floor, the next page ends before from, if that is set.
	from, floor Position
}

// waiter waits until a view has everything after a position, or so many comments.
type waiter struct {
	since    Position
	comments int           // 0: it is since that counts
	pages    int           // that were read meanwhile
	end      func(ok bool) // called once, with Room.mu held
}

// await has the log read back for a waiter. Room.mu is held.
func (r *Room) await(v *view, w *waiter) {
	v.backfill.waiting = append(v.backfill.waiting, w)
	if !v.backfill.reading {
		v.backfill.reading = true
		r.hub.wg.Add(1)
		// Ends when nobody waits: those who do give up within Config.JoinWait.
		go r.readBack(v)
	}
}

// giveUp ends the wait of a waiter, if it waits still. Room.mu is held.
func (v *view) giveUp(w *waiter) {
	if i := slices.Index(v.backfill.waiting, w); i >= 0 {
		v.backfill.waiting = slices.Delete(v.backfill.waiting, i, i+1)
	}
}

// fail ends the wait of everybody: they cannot be served. Room.mu is held.
func (r *Room) fail(v *view) { r.serve(v, func(*waiter) (done, ok bool) { return true, false }) }

// serve ends the wait of those waiters of whom done says so. Room.mu is held.
func (r *Room) serve(v *view, done func(*waiter) (done, ok bool)) {
	v.backfill.waiting = slices.DeleteFunc(v.backfill.waiting, func(w *waiter) bool {
		over, ok := done(w)
		if over {
			w.end(ok)
		}
		return over
	})
}

// served reports whether a waiter's wait is over, and whether it has what it waited for.
// Room.mu is held.
func (r *Room) served(v *view, w *waiter) (done, ok bool) {
	switch {
	case w.comments > 0:
		return comments(v.items) >= w.comments || w.pages >= lookPages, true
	case w.since.Seq >= v.floor.Seq:
		return true, true
	}
	return len(v.items) > r.hub.cfg.RecoverMax, false
}

// catchUp waits until a view has everything after a position; false if it cannot.
func (r *Room) catchUp(ctx context.Context, v *view, s resumePoint) bool {
	done := make(chan bool, 1)
	w := &waiter{since: s.Position, end: func(ok bool) { done <- ok }}
	r.mu.Lock()
	switch {
	case r.resets != s.resets || r.closed:
		r.mu.Unlock()
		return false
	case r.missed(v, s) > r.hub.cfg.RecoverMax:
		r.mu.Unlock()
		return false
	case s.Seq >= v.floor.Seq:
		r.mu.Unlock()
		return true
	}
	r.await(v, w)
	r.mu.Unlock()
	var ok bool
	select {
	case ok = <-done:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	v.giveUp(w)
	return ok && r.resets == s.resets && r.missed(v, s) <= r.hub.cfg.RecoverMax
}

// missed is how many of a view's items come after a place. Room.mu is held.
func (r *Room) missed(v *view, s resumePoint) int { return int(v.end() - v.after(s.Seq)) }

// lookBack has the log read back for the comments that new viewers are shown. The room is not
// warm until then. Room.mu is held.
func (r *Room) lookBack(v *view) {
	w := &waiter{comments: r.hub.cfg.Recent, end: func(bool) { r.short--; r.warmUp() }}
	if done, _ := r.served(v, w); w.comments > 0 && !done {
		r.short++
		r.await(v, w)
	}
}

// readBack reads the log backwards as long as somebody waits.
func (r *Room) readBack(v *view) {
	defer r.hub.wg.Done()
	size := firstPage
	for {
		r.mu.Lock()
		if r.closed {
			r.fail(v)
		}
		r.serve(v, func(w *waiter) (bool, bool) { return r.served(v, w) })
		if len(v.backfill.waiting) == 0 {
			v.backfill.reading = false
			r.mu.Unlock()
			return
		}
		epoch, tag, resets, floor := r.epoch, r.tag, r.resets, v.floor
		at, with := v.nextPage()
		r.mu.Unlock()

		ctx, cancel := context.WithTimeout(context.Background(), r.hub.cfg.JoinWait)
		page, err := r.hub.cfg.Log.Before(ctx, r.name, epoch, at, with, size)
		if err == nil {
			items, asides := r.encodePage(v, page, tag, floor)
			if fits := r.takeIn(v, resets, floor, page.From, items, asides); fits && !page.More {
				err = r.reachedStart(ctx, v, epoch, resets)
			}
		}
		cancel()
		size = min(2*size, maxPage)
		if err != nil {
			r.unread(v, resets, err)
			time.Sleep(readAgain)
		}
	}
}

// unread is told why nothing could be read. Viewers and readers wait on, within their time,
// unless the log has forgotten what they need: its leader may be another one in a moment.
func (r *Room) unread(v *view, resets uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resets == resets && errors.Is(err, ErrForgotten) {
		r.fail(v)
	}
	// New viewers are let in with what there is.
	r.serve(v, func(w *waiter) (done, ok bool) { return w.comments > 0, true })
}

// nextPage is where the next page ends, with what is there or without it. Room.mu is held.
func (v *view) nextPage() (at Position, with bool) {
	b := &v.backfill
	switch {
	case b.from.Seq > 0 && b.floor == v.floor:
		return b.from, false
	case v.floor.Known() && v.floor.Seq > 0:
		return v.floor, true
	case len(v.items) > 0 && v.items[0].seq > v.floor.Seq:
		return v.items[0].position(), false
	}
	return Position{Seq: EndSeq}, true
}

// encodePage makes the items and asides of those events of a page that a view lacks: those up
// to its floor. What acts hide is looked at again when they are taken in.
func (r *Room) encodePage(v *view, page Page, tag string, floor Position) ([]item, []aside) {
	fresh := newView(v.staff)
	came := time.Since(r.hub.began) - keepItems // they are kept until view.backfill.until
	for i := range page.Events {
		e := &page.Events[i]
		if e.Seq > floor.Seq {
			break
		}
		r.mu.Lock()
		s, seen := r.classify(e)
		r.mu.Unlock()
		if seen {
			it := s.encode(r, e, tag, fresh, false)
			it.came = came
			fresh.add(&s, it)
		}
	}
	return fresh.items, fresh.asides
}

// takeIn puts items and asides, which begin with the record at from, before those of a view.
// It reports whether they fit: items may have been forgotten since they were asked for.
func (r *Room) takeIn(v *view, resets uint64, floor, from Position, items []item, asides []aside) (fits bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.resets != resets || v.floor != floor {
		return false
	}
	for i := range items {
		if it := &items[i]; it.said() {
			it.hidden = r.visibleItem(it) != shown
		}
	}
	for i := range asides {
		if a := &asides[i]; a.said() {
			see := r.visibleItem(&a.item)
			a.hidden = see == hidden || a.mine && see == shown
		}
	}
	if from.Seq > 0 && from.Seq <= floor.Seq {
		floor = Position{Seq: from.Seq - 1}
		v.prepend(items, asides, floor)
	}
	v.backfill.from, v.backfill.floor = from, floor
	v.backfill.until = time.Now().Add(keepBackfill)
	for _, w := range v.backfill.waiting {
		w.pages++
	}
	r.settleLater()
	return true
}

// reachedStart judges those who still wait when the log has no earlier records of the room:
// either there never were any behind their cursors, or the log has removed them.
func (r *Room) reachedStart(ctx context.Context, v *view, epoch string, resets uint64) error {
	for {
		r.mu.Lock()
		if r.resets != resets || v.floor != v.backfill.floor {
			r.mu.Unlock()
			return nil
		}
		r.serve(v, func(w *waiter) (bool, bool) {
			done, ok := r.served(v, w)
			return done || w.comments > 0, ok
		})
		if len(v.backfill.waiting) == 0 {
			r.mu.Unlock()
			return nil
		}
		since := slices.MinFunc(v.backfill.waiting, func(a, b *waiter) int { return a.since.compare(b.since) }).since
		r.mu.Unlock()
		_, _, err := r.hub.cfg.Log.Read(ctx, r.name, epoch, since, 1)
		r.mu.Lock()
		switch {
		case r.resets != resets || v.floor != v.backfill.floor:
		case err == nil:
			v.prepend(nil, nil, since) // nothing lies between
			v.backfill.from, v.backfill.floor = Position{}, since
		case errors.Is(err, ErrForgotten):
			r.serve(v, func(w *waiter) (bool, bool) { return w.since == since, false })
		default:
			r.mu.Unlock()
			return err
		}
		r.mu.Unlock()
	}
}
