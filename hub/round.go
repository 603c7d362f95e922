package hub

import (
	"runtime"
	"sort"
	"sync"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// flushShare is how many viewers one goroutine of a round flushes; with more, a
// round uses as many goroutines as there are processors.
const flushShare = 512

// kick sees to it that a round comes: at once if the last one is a window ago, else
// at the end of the window. Room.mu is held.
func (r *Room) kick() {
	if r.rounding || r.closed {
		return
	}
	r.rounding = true
	r.hub.wg.Add(1)
	// A round ends by itself: nothing in it waits for a viewer.
	if wait := r.window - time.Since(r.lastRound); wait > 0 {
		time.AfterFunc(wait, r.round)
	} else {
		go r.round()
	}
}

// round makes frames of the items that have come and has every viewer's socket
// write what is new for it.
func (r *Room) round() {
	defer r.hub.wg.Done()
	start := time.Now()
	m := r.hub.cfg.Metrics

	r.mu.Lock()
	r.lastRound, r.dirty = start, false
	all := r.flushing[:0]
	for _, v := range r.views {
		r.makeFrames(v, start)
		all = append(all, v.viewers...)
	}
	sent := r.sent
	r.sent = nil
	r.mu.Unlock()

	flush(all)

	took := time.Since(start)
	m.roundViewers.Observe(float64(len(all)))
	m.roundSeconds.Observe(took.Seconds())
	done := time.Now().UnixMilli()
	for _, at := range sent {
		m.delivery.Observe(float64(max(0, done-at)) / 1000)
	}
	clear(all)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flushing = shrink(all); r.sent == nil {
		r.sent = shrink(sent)
	}
	// Under overload, when flushing takes more of the time than half, the window
	// grows: fewer, larger frames.
	r.window = max(r.hub.cfg.Window, 2*took)
	r.rounding = false
	if r.dirty {
		r.kick()
	}
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
		v.at, v.held = v.held[n-1].seq, nil
	}
	if n := len(fresh); n > 0 {
		v.at = max(v.at, fresh[n-1].seq)
	}
	v.framed = v.end()
	v.snapshot, v.resumes = nil, nil
	v.trim(now, r.hub.cfg.Recent)
}

// makeFrame puts one frame into the ring: the items of part, and in their places
// what was sampled out up to the last of them; all of it when part is empty.
func (r *Room) makeFrame(v *view, enc encoder, part []item, now time.Time) {
	out := len(v.held)
	if n := len(part); n > 0 {
		out = sort.Search(out, func(i int) bool { return v.held[i].seq > part[n-1].seq })
	}
	f := &frame{first: v.framed, items: uint64(len(part)), before: makeCursor(enc.tag, v.at), made: now}
	if n := len(part); n > 0 {
		v.at = part[n-1].seq
	}
	if out > 0 {
		v.at = max(v.at, v.held[out-1].seq)
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

// flush has the sockets of all viewers write, on as many processors as that is
// worth.
func flush(all []*Viewer) {
	workers := min(runtime.GOMAXPROCS(0), (len(all)+flushShare-1)/flushShare)
	if workers <= 1 {
		for _, v := range all {
			v.sock.Flush()
		}
		return
	}
	share := (len(all) + workers - 1) / workers
	var wg sync.WaitGroup
	for len(all) > 0 {
		part := all[:min(share, len(all))]
		all = all[len(part):]
		// Ends with its share: Flush never blocks.
		wg.Go(func() {
			for _, v := range part {
				v.sock.Flush()
			}
		})
	}
	wg.Wait()
}

// publishState makes the shared frame of the room's state and has it sent. Room.mu is
// held.
func (r *Room) publishState() {
	r.stateFrame.Store(r.shared(protocol.Encode(&r.state)))
}

// publishCounts does the same for the counts.
func (r *Room) publishCounts(c Counts) {
	r.countsFrame.Store(r.shared(protocol.Encode(&protocol.Viewers{
		Connections: c.Connections, Users: c.Users, PeakUsers: c.PeakUsers, At: c.At,
	})))
}

// shared makes the frame of a message of which everybody gets the latest only, and
// has it sent. Room.mu is held.
func (r *Room) shared(message []byte) *Frame {
	deflating := 0
	for _, v := range r.views {
		deflating += v.deflating
	}
	f := r.hub.cfg.Frame(message, deflating > 0)
	r.dirty = true
	r.kick()
	return &f
}
