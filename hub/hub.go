// Package hub holds one node's rooms and brings what happens in them to the
// viewers on this node. It knows nothing of NATS, Redis or HTTP: ports.go says
// what it needs from them.
//
// # Life of a comment
//
// The room log reports events to a [Room] (room.go). One function says who sees an event,
// and as what (kind.go). It is encoded once, as an item (item.go), and put at the end of the
// [view]s that show it (view.go). A flush (flush.go) joins the items that have come since the
// last one into a [Frame] (frame.go), which holds any number of messages in the forms in
// which sockets write them, puts it into the view's ring (ring.go), and flushes every viewer's
// [Socket]. The socket then asks its [Viewer] for what is next (viewer.go) and gets the frame,
// the same bytes for everybody. There is no queue per viewer: a viewer is an index into its
// view's ring, and one that falls off the ring is told what it missed. The first event after
// silence leaves at once; while events keep coming there is one flush per window. Of a room
// with more comments than people can read a sample is shown (sample.go), the same on every
// node. What is for one user only is an aside: it goes out in the place that it has among the
// others, in a frame that only this user's viewers get.
//
// Of some things viewers get the latest and nothing else: they are slots (latest.go).
//
// # Life of a join
//
// [Hub.Join] (join.go) opens the room if this node has not got it (open.go), decides
// where the viewer goes on (cursor.go, anchor.go), and hands it the welcome, the latest of
// everything and the recent comments, which are encoded once for all (cache.go), in one write.
// What it has missed and the room's items do not reach back to is read from the log into
// them, once for all who wait for it (backfill.go). A viewer that is recovered misses nothing
// and gets nothing twice. What cannot be promised, because the log may have removed it or has
// become another one, is not: the viewer starts anew, or, if it is there, is told of a
// gap.
//
// HTTP readers ask [Room.Comments] (poll.go). They are answered from the same items, and
// otherwise in pages that are read from the log and not kept (page.go).
//
// # Who owns what
//
// Room.mu guards everything in a room and its views but the rings and the latest, which
// viewers read without it. What a viewer has been sent belongs to the writer of its socket,
// of which there is one at a time. A room in which nothing happens costs no
// goroutine and, once it has forgotten what is too old, no timer.
package hub

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Config is what a [Hub] is made of. Log and Presence are needed; the rest has
// defaults.
type Config struct {
	Log      RoomLog
	Presence Presence

	// Kinds are the kinds of events, beside comments, acts and events of the application, that viewers
	// get. Others are passed over.
	Kinds map[string]*Kind

	// Finish is told of a standing record whose event has not come: whoever has written it may have
	// died in between. It is called without a lock, and may wait. nil: nobody is.
	Finish func(room string, s Standing)
	// Acted is told of each act about a user that begins or ceases to count, and Stated of each
	// change of a room's state. They must not wait, nor call the hub. nil: nobody is.
	Acted  func(room string, a *Act)
	Stated func(room string, before, now protocol.State)
	// Opened is told of a room that has heard its acts while viewers were in it, and Deleted of one that
	// was deleted. They must not wait, nor call the hub. nil: nobody is.
	Opened, Deleted func(room string)

	// Window is the least time between two flushes of a room; 90 ms by default.
	Window time.Duration
	// Alias returns the id under which the audience of a room sees a user; nil: the user's own. The
	// staff sees that.
	Alias func(room, user string) string
	// StaffSpoke is told of each comment of the staff, also of those that are read when a room
	// opens. It must not wait, nor call the hub. nil: nobody is.
	StaffSpoke func(room string, who protocol.User)
	// RoomRate is how many comments a second viewers are shown when a room has
	// more: all of the staff's, one's own, and a fair sample of the rest; 0: all.
	RoomRate int
	// Ring is how many frames a viewer may lag behind before it gets a gap; 256
	// by default.
	Ring int
	// Recent is how many comments a viewer is shown on coming; 50 by default,
	// none when negative.
	Recent int
	// RecoverMax is how many comments a viewer may have missed and still get them
	// all; 10,000 by default, none when negative.
	RecoverMax int
	// JoinWait is how long a join waits for the room log; 3 s by default. A viewer
	// whose room is not there by then comes in without its past.
	JoinWait time.Duration
	// Linger is how long a room that everybody has left stays open; 30 s by default.
	Linger time.Duration
	// ReadRooms is how many rooms may be open only because somebody reads them, beside
	// those with viewers; 1,000 by default.
	ReadRooms int

	Metrics *Metrics
	Logger  *slog.Logger

	finishAfter time.Duration
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&c.Window, 90*time.Millisecond)
	def(&c.JoinWait, 3*time.Second)
	def(&c.Linger, 30*time.Second)
	def(&c.finishAfter, finishAfter)
	if c.Ring <= 0 {
		c.Ring = 256
	}
	switch {
	case c.Recent == 0:
		c.Recent = 50
	case c.Recent < 0:
		c.Recent = 0
	}
	switch {
	case c.RecoverMax == 0:
		c.RecoverMax = 10_000
	case c.RecoverMax < 0:
		c.RecoverMax = 0
	}
	if c.ReadRooms <= 0 {
		c.ReadRooms = 1000
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Hub is one node's rooms.
type Hub struct {
	cfg   Config
	began time.Time

	mu        sync.Mutex
	rooms     map[string]*Room
	read      int            // how many of rooms no viewer has come to: see AcquireToRead
	lingering int            // how many of rooms nobody holds open
	wg        sync.WaitGroup // flushes and questions under way and rooms that are being shut

	asking [askers]chan struct{} // full while as many questions are being asked as may be
	paging chan struct{}         // the same of pages: see page.go
	pagers atomic.Int64          // pages that are being read or wait for a place
}

// New makes a Hub without rooms.
func New(cfg Config) *Hub {
	cfg.setDefaults()
	h := &Hub{cfg: cfg, began: time.Now(), rooms: map[string]*Room{}}
	h.paging = make(chan struct{}, maxPaging)
	h.asking = [askers]chan struct{}{joiner: make(chan struct{}, maxAsking), poller: make(chan struct{}, maxAsking)}
	return h
}

// Close shuts all rooms and waits until nothing of them runs any more. The
// viewers must have left.
func (h *Hub) Close() {
	h.mu.Lock()
	rooms := h.rooms
	h.rooms, h.read, h.lingering = map[string]*Room{}, 0, 0
	h.mu.Unlock()
	for _, r := range rooms {
		r.shut()
	}
	h.wg.Wait()
}

// Rate is how many comments a room has had in the last second, as far as this node
// knows; 0 when the room is not open here.
func (h *Hub) Rate(room string) uint32 {
	r := h.opened(room)
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pace.rate(time.Now())
}

// DraftRate is the [Draft.Rate] of a comment of an author who weighs so much in the sample of an
// overfull room, at least 1: that of the room, less for who weighs more.
func (h *Hub) DraftRate(room string, weight int) uint32 {
	r := h.opened(room)
	if r == nil {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pace.weighed(r.pace.rate(time.Now()), weight, h.cfg.RoomRate)
}

// opened returns a room that this node has open, or opens; nil if it does not.
func (h *Hub) opened(room string) *Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rooms[room]
}

// Find returns a room that is open on this node and has heard from its log; nil if there is none.
func (h *Hub) Find(room string) *Room {
	r := h.opened(room)
	if r == nil || !r.isReady() {
		return nil
	}
	return r
}

// Await waits until a room that is being opened is ready, as [Room.Ready] does.
func (h *Hub) Await(ctx context.Context, room string) {
	r := h.opened(room)
	if r != nil {
		r.Ready(ctx)
	}
}

// Ready waits until the room has heard from its log what was said and what its state is, or
// for the context, or for as long as a join waits; it tells which.
func (r *Room) Ready(ctx context.Context) bool { return wait(ctx, r.warm, r.hub.cfg.JoinWait) }

// Count has the presence report the room's counts from now on, if it does not yet: see
// [Room.Status]. It does not wait for them.
func (r *Room) Count() {
	r.membership()
	r.mu.Lock()
	r.asked = true
	r.mu.Unlock()
}

func (r *Room) isReady() bool {
	select {
	case <-r.warm:
		return true
	default:
		return false
	}
}

func wait(ctx context.Context, done <-chan struct{}, limit time.Duration) bool {
	select {
	case <-done: // the usual case, without a timer
		return true
	default:
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	case <-t.C:
	}
	return false
}
