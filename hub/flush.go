package hub

import (
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// flushInPlace is up to how many viewers are flushed on the goroutine that delivers an event.
	// Waking another goroutine costs as much as a few writes, which is most of what a
	// small room costs.
	flushInPlace = 32
	// flushShare is how many viewers at least one goroutine flushes.
	flushShare = 512
	// maxWindow is as far as a window grows: a room that is shown less often is no
	// conversation, and a flush that took longer than half of it was as likely held up by
	// a machine that stood still as by what it had to do.
	maxWindow = 2 * time.Second
	// settleAfter is how long after a flush a room forgets what is too old.
	settleAfter = keepFrames
)

// schedule has a flush come at the end of the window. If that is over, the caller must
// call flush when it has let go of Room.mu, which is held now: the first event after
// silence is shown at once.
func (r *Room) schedule() (due bool) {
	if r.flushing || r.closed {
		return false
	}
	r.flushing = true
	r.hub.wg.Add(1)
	if wait := r.window - time.Since(r.lastFlush); wait > 0 {
		// A flush ends by itself: nothing in it waits for a viewer.
		time.AfterFunc(wait, r.flush)
		return false
	}
	return true
}

// tellAll has everybody's socket flushed. Room.mu is held.
func (r *Room) tellAll() {
	for _, v := range r.views {
		v.everybody = true
	}
	if r.schedule() {
		go r.flush()
	}
}

// dirty reports whether there is something for a flush. Room.mu is held.
func (r *Room) dirty() bool {
	for _, v := range r.views {
		if v.everybody || v.fresh > 0 {
			return true
		}
	}
	return false
}

// flush makes frames of the items that have come and has the sockets of those viewers write
// who get something. It ends by itself: nothing in it waits for a viewer.
func (r *Room) flush() {
	defer r.hub.wg.Done()
	start := time.Now()
	m := r.hub.cfg.Metrics

	r.mu.Lock()
	r.lastFlush = start
	all := r.sockets[:0]
	for _, v := range r.views {
		if v.everybody {
			all = append(all, v.sockets...)
		} else {
			all = v.socketsOf(all, v.asides[len(v.asides)-v.fresh:])
		}
		r.makeFrames(v, start)
		if len(v.late) > 0 {
			r.beginLate(v)
		}
		v.everybody = false
	}
	sent := r.sent
	r.sent = nil
	workers := r.workers(len(all))
	r.mu.Unlock()

	flush(all, workers)

	took := time.Since(start)
	m.flushViewers.Observe(float64(len(all)))
	m.flushSeconds.Observe(took.Seconds())
	done := time.Now().UnixMilli()
	for _, at := range sent {
		m.delivery.Observe(float64(max(0, done-at)) / 1000)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measure(took, len(all), workers)
	clear(all)
	if r.sockets = shrink(all); r.sent == nil {
		r.sent = shrink(sent)
	}
	r.flushing = false
	if r.dirty() && r.schedule() {
		go r.flush()
	}
	r.settleLater()
}

// socketsOf appends to dst the sockets of the users of asides.
func (v *view) socketsOf(dst []Socket, asides []aside) []Socket {
	if len(asides) == 0 {
		return dst
	}
	users := make(map[string]bool, len(asides))
	for i := range asides {
		users[asides[i].user] = true
	}
	for i, viewer := range v.viewers {
		if users[viewer.user] {
			dst = append(dst, v.sockets[i])
		}
	}
	return dst
}

// settleLater has the room forget what it keeps for viewers that were gone for a short
// time, once that is too old. A room in which nothing happens has no timer after that.
// Room.mu is held.
func (r *Room) settleLater() {
	if r.settling == nil && !r.closed {
		r.hub.wg.Add(1)
		r.settling = time.AfterFunc(settleAfter, r.settle)
	}
}

func (r *Room) settle() {
	defer r.hub.wg.Done()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settling = nil
	now, more := time.Now(), false
	for _, v := range r.views {
		if v.ring.slots != nil {
			v.ring.trim(now)
		}
		more = v.trim(now, r.hub.began, r.hub.cfg.Recent, r.hub.cfg.RecoverMax) || more
		more = more || v.ring.tail+1 < v.ring.head.Load() || v.cache.used
		if !v.cache.used {
			v.cache.clear()
		}
		v.cache.used = false
		if r.state.KeepMS > 0 && len(v.items) > 0 {
			v.recheck(r)
			more = true
		}
	}
	if more {
		r.settleLater()
	}
}

// measure sets the window and the cost of a viewer by what the last flush took. Under
// overload, when flushing takes more of the time than half, the window grows: fewer,
// larger frames. It at most doubles from one flush to the next, and shrinks at once, so
// that a flush in which the process stood still holds up nobody. Room.mu is held.
func (r *Room) measure(took time.Duration, viewers, workers int) {
	took = min(took, maxWindow/2)
	if viewers > 0 {
		r.cost += (took*time.Duration(workers)/time.Duration(viewers) - r.cost) / 8
	}
	r.window = max(r.hub.cfg.Window, min(2*took, 2*r.window))
}

// workers is how many goroutines flush: as few as are done within half a window by
// the measure of the last flushes, because a write costs a sixth more while another
// processor writes too, and because others have work for the processors as well.
// Room.mu is held.
func (r *Room) workers(viewers int) int {
	most := min(runtime.GOMAXPROCS(0), viewers/flushShare)
	need := int(2 * r.cost * time.Duration(viewers) / r.hub.cfg.Window)
	return max(1, min(need+1, most))
}

// shrink gives up scratch space that is much larger than what was needed, so that
// the memory of one storm is not kept.
func shrink[T any](s []T) []T {
	if cap(s) > 64 && cap(s) > 4*len(s) {
		return nil
	}
	return s[:0]
}

// makeFrames puts the events of a view that are in no frame yet into its ring. Room.mu is
// held, and a flush comes.
func (r *Room) makeFrames(v *view, now time.Time) {
	fresh, asides := v.items[v.framed-v.base:], v.asides[len(v.asides)-v.fresh:]
	if len(fresh)+len(asides) == 0 {
		return
	}
	all := fresh
	upTo := v.at
	if n := len(all); n > 0 {
		upTo = later(upTo, all[n-1].position())
	}
	fresh = showing(fresh, false)
	if n := len(asides); n > 0 {
		upTo = later(upTo, asides[n-1].position())
	}
	v.cache.invalidate(v.framed)
	if len(v.viewers) > 0 {
		divide(fresh, asides, upTo, func(items []item, asides []aside, at Position) { r.makeFrame(v, items, asides, at, now) })
	} else {
		v.counted += uint64(comments(fresh))
	}
	v.at = upTo
	v.framed, v.fresh = v.end(), 0
	v.trim(now, r.hub.began, r.hub.cfg.Recent, r.hub.cfg.RecoverMax)
}

// makeFrame puts one frame into the ring: items, and in their places the asides, up to a
// position.
func (r *Room) makeFrame(v *view, items []item, asides []aside, at Position, now time.Time) {
	f := &frame{first: v.counted, comments: uint64(comments(items)), before: makeCursor(r.tag, v.at), made: now, cut: v.cut, after: v.at.Seq, upTo: at}
	v.at = at
	sampled := 0
	for i := range asides {
		if asides[i].sampled {
			sampled++
		}
	}
	f.chunk = r.encoder(v).chunk(items, asides, at, false)
	v.ring.push(f)
	v.counted += f.comments
	for i := range items {
		switch {
		case items[i].notice:
			v.note(f.index, items[i].json, items[i].brings)
		case items[i].event:
			v.framedLast(items[i].seq, f.index)
		}
	}
	r.hub.cfg.Metrics.dropped.WithLabelValues(dropSampled).Add(float64(sampled * len(v.viewers)))
	if len(items) > 0 || sampled > 0 {
		r.hub.cfg.Metrics.frameItems.Observe(float64(f.comments))
	}
	for i := range items {
		r.sent = append(r.sent, items[i].at)
	}
}

// flush has all sockets write, shared out to so many goroutines.
func flush(all []Socket, workers int) {
	share := max(1, (len(all)+workers-1)/workers)
	var wg sync.WaitGroup
	for len(all) > share {
		part := all[:share]
		all = all[share:]
		// Ends with its share: Flush never blocks.
		wg.Go(func() { flushPart(part) })
	}
	flushPart(all)
	wg.Wait()
}

func flushPart(part []Socket) {
	for _, s := range part {
		s.Flush()
	}
}

// publishState makes the frames of the room's state and has them sent. Room.mu is held.
func (r *Room) publishState() {
	r.publish(slotState, func(v *view) *Frame {
		f := newFrame([][]byte{r.stateMessage(v)}, v.wanted)
		for _, l := range v.late {
			l.viewer.tell(f)
		}
		return f
	})
}

// publishCounts does the same for the counts, which the audience may not be told.
func (r *Room) publishCounts(c Counts) {
	f := newFrame([][]byte{protocol.Encode(&protocol.Viewers{
		Connections: c.Connections, Users: c.Users, PeakUsers: c.PeakUsers, At: c.At,
	})}, r.wanted())
	r.publish(slotCounts, func(v *view) *Frame {
		if !v.staff && !counted(&r.state) {
			return nil
		}
		return f
	})
}

// publish has everybody sent the latest of a slot, which is another one for each view; nil where
// it has none. Room.mu is held.
func (r *Room) publish(slot string, of func(*view) *Frame) {
	for _, v := range r.views {
		v.latest.Store(v.latest.Load().with(slot, of(v)))
	}
	r.tellAll()
}

// wanted is the forms of all viewers. Room.mu is held.
func (r *Room) wanted() demand {
	all := slices.Clone(r.views[audienceView].wanted)
	for _, w := range r.views[staffView].wanted {
		all.add(w.form, w.viewers)
	}
	return all
}

// seal makes the frame of a message to a view's viewers.
func (r *Room) seal(v *view, m protocol.Message) *Frame {
	return newFrame([][]byte{protocol.Encode(m)}, v.wanted)
}
