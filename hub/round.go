package hub

import (
	"runtime"
	"sort"
	"sync"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// flushInPlace is up to how many viewers whoever delivers an event flushes itself.
	// Waking another goroutine costs as much as a few writes, which is most of what a
	// small room costs.
	flushInPlace = 32
	// flushShare is how many viewers at least one goroutine of a round flushes.
	flushShare = 512
	// maxWindow is as far as a window grows: a room that is shown less often is no
	// conversation, and a round that took longer than half of it was as likely held up by
	// a machine that stood still as by what it had to do.
	maxWindow = 2 * time.Second
)

// kick has a round come at the end of the window. If that is over, the
// caller must call round when it has let go of Room.mu, which is held now: the first
// event after silence is shown at once.
func (r *Room) kick() (due bool) {
	if r.rounding || r.closed {
		return false
	}
	r.rounding = true
	r.hub.wg.Add(1)
	if wait := r.window - time.Since(r.lastRound); wait > 0 {
		// A round ends by itself: nothing in it waits for a viewer.
		time.AfterFunc(wait, r.round)
		return false
	}
	return true
}

// round makes frames of the items that have come and has every viewer's socket
// write what is new for it. It ends by itself: nothing in it waits for a viewer.
func (r *Room) round() {
	defer r.hub.wg.Done()
	start := time.Now()
	m := r.hub.cfg.Metrics

	r.mu.Lock()
	r.lastRound, r.dirty = start, false
	all := r.flushing[:0]
	for _, v := range r.views {
		r.makeFrames(v, start)
		if len(v.late) > 0 {
			r.catchUp(v)
		}
		all = append(all, v.sockets...)
	}
	sent := r.sent
	r.sent = nil
	workers := r.workers(len(all))
	r.mu.Unlock()

	flush(all, workers)

	took := time.Since(start)
	m.roundViewers.Observe(float64(len(all)))
	m.roundSeconds.Observe(took.Seconds())
	done := time.Now().UnixMilli()
	for _, at := range sent {
		m.delivery.Observe(float64(max(0, done-at)) / 1000)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.measure(took, len(all), workers)
	clear(all)
	if r.flushing = shrink(all); r.sent == nil {
		r.sent = shrink(sent)
	}
	r.rounding = false
	if r.dirty && r.kick() {
		go r.round()
	}
}

// measure sets the window and the cost of a viewer by what the last round took. Under
// overload, when flushing takes more of the time than half, the window grows: fewer,
// larger frames. It at most doubles from one round to the next, and shrinks at once, so
// that a round in which the process stood still holds up nobody. Room.mu is held.
func (r *Room) measure(took time.Duration, viewers, workers int) {
	took = min(took, maxWindow/2)
	if viewers > 0 {
		r.cost += (took*time.Duration(workers)/time.Duration(viewers) - r.cost) / 8
	}
	r.window = max(r.hub.cfg.Window, min(2*took, 2*r.window))
}

// workers is how many goroutines flush: as few as are done within half a window by
// the measure of the last rounds, because a write costs a sixth more while another
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

// makeFrames puts the items of a view that are in no frame yet into its ring.
// Room.mu is held, and a round comes.
func (r *Room) makeFrames(v *view, now time.Time) {
	fresh := v.items[v.framed-v.base:]
	if len(fresh)+len(v.held) == 0 {
		return
	}
	if len(v.viewers) > 0 {
		enc := r.encoder(v)
		split(fresh, func(part []item) { r.makeFrame(v, enc, part, now) })
		if len(v.held) > 0 { // behind the last item, or all there is
			r.makeFrame(v, enc, nil, now)
		}
	}
	if n := len(v.held); n > 0 {
		v.at, v.held = v.held[n-1].position(), nil
	}
	if n := len(fresh); n > 0 {
		v.at = later(v.at, fresh[n-1].position())
	}
	v.framed = v.end()
	v.snapshot, v.resumes = nil, kept[uint64]{}
	v.trim(now.Sub(r.hub.began), r.hub.cfg.Recent)
}

// makeFrame puts one frame into the ring: the items of part, and in their places
// what was sampled out up to the last of them; all of it when part is empty.
func (r *Room) makeFrame(v *view, enc encoder, part []item, now time.Time) {
	out := len(v.held)
	if n := len(part); n > 0 {
		out = sort.Search(out, func(i int) bool { return v.held[i].seq > part[n-1].seq })
	}
	f := &frame{first: v.framed, items: uint64(len(part)), before: makeCursor(enc.tag, v.at), made: now, cut: v.cut}
	if n := len(part); n > 0 {
		v.at = part[n-1].position()
	}
	if out > 0 {
		v.at = later(v.at, v.held[out-1].position())
		f.own = newPersonal(enc, v.at, part, v.held[:out])
		v.held = v.held[out:]
		r.hub.cfg.Metrics.dropped.WithLabelValues(dropSampled).Add(float64(out * len(v.viewers)))
	}
	f.Frame = enc.live(part, v.at, len(part)+out)
	v.ring.push(f)
	v.framed += uint64(len(part))
	r.hub.cfg.Metrics.frameItems.Observe(float64(len(part)))
	for i := range part {
		r.sent = append(r.sent, part[i].at)
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

// publishState makes the shared frame of the room's state and has it sent. Room.mu is
// held.
func (r *Room) publishState() {
	f := r.seal(&r.state)
	for _, v := range r.views {
		for _, l := range v.late {
			l.viewer.tell(*f)
		}
	}
	r.publish(&shared{state: f, counts: r.shared.Load().counts})
}

// publishCounts does the same for the counts.
func (r *Room) publishCounts(c Counts) {
	r.publish(&shared{state: r.shared.Load().state, counts: r.seal(&protocol.Viewers{
		Connections: c.Connections, Users: c.Users, PeakUsers: c.PeakUsers, At: c.At,
	})})
}

func (r *Room) publish(s *shared) {
	r.shared.Store(s)
	r.dirty = true
	if r.kick() {
		go r.round()
	}
}

// seal makes the frame of a message to both views.
func (r *Room) seal(m protocol.Message) *Frame {
	e := r.encoder(r.views[audienceView])
	e.deflating += r.views[staffView].deflating
	f := e.seal(protocol.Encode(m))
	return &f
}
