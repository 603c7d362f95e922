package edge

import (
	"container/list"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/internal/clientaddr"
	"github.com/kansei-live/kansei/internal/descriptors"
	"github.com/kansei-live/kansei/internal/quiet"
)

// The listeners of a node, as labels.
const (
	ListenerPublic = "public"
	ListenerOps    = "ops"
)

func listeners() []string { return []string{ListenerPublic, ListenerOps} }

// doorPatience is how long a connection may hold a place that others wait for without
// asking for anything: longer than a client far away takes for its handshake, and so
// short that an attacker must fill all places anew every second.
const doorPatience = time.Second

// A share of the places is the most that one address may hold for long while others wait:
// beyond places / addressShare, its connections that have had requests for heavyPatience
// make room. That is longer than any request takes while the log is well, so that it
// concerns who holds requests open on purpose.
const (
	addressShare  = 4
	heavyPatience = 5 * time.Second
)

// bodyTime is how long a client may take to send a body that somebody waits for.
const bodyTime = 15 * time.Second

// Door bounds the connections of one listener that belong to HTTP: those whose request
// is still to come, those whose request is under way, and idle ones. A viewer's leaves
// it with its upgrade and is counted as a viewer from then on.
//
// While all places are taken nothing is accepted: newcomers wait in the kernel. Those
// that ask for nothing make room after [doorPatience], the longest-waiting first, so
// that nobody is kept out by sockets that are merely open. Requests under way are left
// to their own deadlines. One of those is the door's: a body that nobody has asked for is
// waited for no longer, because package http reads it before the request is over. And over
// HTTP/2 a connection has one request after the other under way: when all have some, the
// one that has had some for longer than a single request may take makes room. An address
// with more than its share of the places has less time.
//
// It leaves connections as they are, because a viewer's is taken from package net by
// its type, and follows them by what the server reports. That costs a join three turns
// of a lock and three small allocations, nothing beside its handshake. What it does when
// the machine takes no more connections is in accept.go.
type Door struct {
	cfg     DoorConfig
	open    prometheus.Gauge
	evicted prometheus.Counter
	errors  prometheus.Counter
	shed    prometheus.Counter

	longest time.Duration // that a request may take; 0: not known
	secure  bool          // TLS comes first
	freed   chan struct{} // has something since a place became free

	mu      sync.Mutex
	places  map[net.Conn]*list.Element // its place in waiting, or in busy while it has a request
	waiting list.List                  // of waiter, the longest-waiting first
	busy    list.List                  // of waiter, who has had requests for longest first
	from    map[clientaddr.Group]*tally
	heavy   int // addresses with more than their share
}

type waiter struct {
	nc    net.Conn
	since time.Time
	from  *tally // of its address; nil if that is nobody's
}

// tally is how many places one address has.
type tally struct {
	group  clientaddr.Group
	places int
}

// DoorConfig says what a [Door] is to be.
type DoorConfig struct {
	Places   int    // connections at once
	Listener string // ListenerPublic or ListenerOps
	// Reserve has descriptors for when there are no others; nil: there are none. Those of
	// [ListenerOps] use them, others only to turn newcomers away.
	Reserve *descriptors.Reserve
	// Addresses says whose share a connection counts in; nil: nobody has a share.
	Addresses *clientaddr.Resolver
	Metrics   *Metrics
	Log       *quiet.Logger
}

// NewDoor makes a Door.
func NewDoor(cfg DoorConfig) *Door {
	m := cfg.Metrics
	return &Door{
		cfg: cfg, open: m.open.WithLabelValues(cfg.Listener), evicted: m.evicted.WithLabelValues(cfg.Listener),
		errors: m.acceptErrors.WithLabelValues(cfg.Listener), shed: m.refused.WithLabelValues(refusedFull),
		freed: make(chan struct{}, 1), places: map[net.Conn]*list.Element{}, from: map[clientaddr.Group]*tally{},
	}
}

// Guard has the connections that l accepts for srv pass the door.
func (d *Door) Guard(l net.Listener, srv *http.Server) net.Listener {
	srv.ConnState = d.state
	d.secure = srv.TLSConfig != nil
	if srv.WriteTimeout > 0 {
		d.longest = srv.ReadTimeout + srv.WriteTimeout
	}
	srv.Handler = impatient(srv.Handler)
	return &doorListener{Listener: l, door: d, closed: make(chan struct{})}
}

// impatient gives a body doorPatience to come, so that a client that announces one and holds it
// back has no place for longer than a socket that is merely open. Handlers that want the
// body give it [bodyTime], once they know from whom it is.
func impatient(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 { // -1 too, for one of any length
			bodyWithin(w, doorPatience)
		}
		next.ServeHTTP(w, r)
	})
}

// bodyWithin sets how long the body of a request may still take.
func bodyWithin(w http.ResponseWriter, d time.Duration) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d)) // without it the server's own counts
}

// state is told what a connection does, in the order in which it does it; that it is
// new before the next one is accepted.
func (d *Door) state(nc net.Conn, state http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at, in := d.places[nc]
	if !in && state != http.StateNew {
		return // it was evicted
	}
	w := waiter{nc: nc, since: time.Now()}
	if !in {
		w.from = d.count(nc)
	} else { // in one of them
		w.from = at.Value.(waiter).from
		d.waiting.Remove(at)
		d.busy.Remove(at)
	}
	switch state {
	case http.StateNew, http.StateIdle:
		d.places[nc] = d.waiting.PushBack(w)
	case http.StateActive:
		d.places[nc] = d.busy.PushBack(w)
	case http.StateHijacked, http.StateClosed:
		d.forget(w)
	}
	if state == http.StateClosed {
		d.cfg.Reserve.Refill() // with its descriptor, if they are short
	}
	d.open.Set(float64(len(d.places)))
}

// share is how many places one address may have for long.
func (d *Door) share() int { return max(1, d.cfg.Places/addressShare) }

// count counts a connection for its address. It does not wait for what a proxy has to say:
// the addresses of proxies are nobody's. The caller holds mu.
func (d *Door) count(nc net.Conn) *tally {
	if d.cfg.Addresses == nil {
		return nil
	}
	group, somebody := d.cfg.Addresses.OfConn(nc)
	if !somebody {
		return nil
	}
	t := d.from[group]
	if t == nil {
		t = &tally{group: group}
		d.from[group] = t
	}
	if t.places++; t.places == d.share()+1 {
		d.heavy++
	}
	return t
}

// forget frees the place of a connection. The caller holds mu.
func (d *Door) forget(w waiter) {
	delete(d.places, w.nc)
	if t := w.from; t != nil {
		if t.places--; t.places == d.share() {
			d.heavy--
		}
		if t.places == 0 {
			delete(d.from, t.group)
		}
	}
	select {
	case d.freed <- struct{}{}:
	default:
	}
}

// enter waits until there is a place, or until closed is.
func (d *Door) enter(closed <-chan struct{}) error {
	for {
		evict, wait := d.full()
		if evict != nil {
			end(evict)
			continue
		}
		if wait == 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-d.freed:
		case <-timer.C:
		case <-closed:
		}
		timer.Stop()
		select {
		case <-closed:
			return net.ErrClosed
		default:
		}
	}
}

// full says what to do before another connection is accepted: nothing, end one, whose
// place is free already, or wait. Whether somebody is at the door cannot be seen before
// a place is free, so that the last one is kept free where that is possible.
func (d *Door) full() (evict net.Conn, wait time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.places) < d.cfg.Places {
		return nil, 0
	}
	from, patience := &d.waiting, doorPatience
	if from.Len() == 0 { // all have requests; one that ends says so
		from, patience = &d.busy, d.longest
	}
	first, wait := from.Front(), doorPatience
	if first != nil && patience > 0 {
		if wait = patience - time.Since(first.Value.(waiter).since); wait <= 0 {
			return d.evict(from, first), 0
		}
	}
	if heaviest := d.longestOfHeavy(); heaviest != nil {
		return d.evict(&d.busy, heaviest), 0
	}
	return nil, min(wait, doorPatience)
}

// longestOfHeavy returns who has had requests for longest of those whose address has more
// than its share, and for longer than heavyPatience; nil if there is none. The caller holds mu.
func (d *Door) longestOfHeavy() *list.Element {
	if d.heavy == 0 {
		return nil
	}
	for at := d.busy.Front(); at != nil; at = at.Next() {
		w := at.Value.(waiter)
		if time.Since(w.since) < heavyPatience {
			return nil // nor have the others
		}
		if w.from != nil && w.from.places > d.share() {
			return at
		}
	}
	return nil
}

// idle returns the connection that has asked for nothing for longest, and frees its place;
// nil if none has waited for doorPatience.
func (d *Door) idle() net.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	first := d.waiting.Front()
	if first == nil || time.Since(first.Value.(waiter).since) < doorPatience {
		return nil
	}
	return d.evict(&d.waiting, first)
}

// evict frees the place of a connection that stands in from, and returns it for the caller
// to end. The caller holds mu.
func (d *Door) evict(from *list.List, at *list.Element) net.Conn {
	w := from.Remove(at).(waiter)
	d.forget(w)
	d.open.Set(float64(len(d.places)))
	d.evicted.Inc()
	return w.nc
}

// end closes a connection without the farewell of TLS, which may wait for its peer.
func end(nc net.Conn) {
	if c, ok := nc.(interface{ NetConn() net.Conn }); ok {
		nc = c.NetConn()
	}
	_ = nc.Close() // somebody who has said nothing
}
