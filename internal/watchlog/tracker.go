package watchlog

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Config is what a [Tracker] is made of.
type Config struct {
	// Now is the time by the log's clock.
	Now func() time.Time
	// Store stores a batch of a room under an id: the same id twice is one batch. The body is used again when it has returned.
	Store func(ctx context.Context, room, id string, body []byte) error
	// Alias stands for a user for a day, where no more than totals are kept; empty while it cannot be made.
	Alias func(room, user string) string
	Mode  string        // of rooms that do not say: one of protocol's Watch values
	Beat  time.Duration // how often viewers tell that they are there

	Every      time.Duration // between two checkpoints of a viewer; 0 for a minute
	MaxPending int           // bytes of batches that wait for the stream; 0 for 64 MiB
	Metrics    *Metrics
	Logger     *slog.Logger
}

const (
	defaultEvery = time.Minute
	mostPending  = 64 << 20
	tick         = time.Second
	mostRows     = 1000 // of a batch, which has then 300 KB or so
	// ToldAnew is how often a node says again who somebody is who stays, so that nobody need read what is older.
	ToldAnew = 6 * time.Hour
	// pauseLimit is how late a tick may come before the node counts as having been paused.
	pauseLimit = 3 * time.Second
)

// Tracker keeps who watches through this node.
type Tracker struct {
	cfg  Config
	life string
	gap  int64 // milliseconds after which what was said last of visible and played holds no longer
	send *sender

	mu     sync.Mutex
	rooms  map[string]*room
	modes  map[string]string // of rooms, from the next tick on
	turn   int               // of the checkpoints
	opened int               // rooms so far
	wheel  [][]*room         // rooms by the turn at which they have their checkpoint

	pauses pauses
	quit   chan struct{}
	done   chan struct{}
}

// room is one room's viewers. Its lock is taken while others are held (the hub's, a session's), so nothing is called under it
// but [Viewer]'s methods.
type room struct {
	t    *Tracker
	name string
	life string // its own: a room that is forgotten, and comes again, counts anew

	mu     sync.Mutex
	mode   string
	slots  []slot
	free   []int32
	conns  uint32 // numbers given so far
	n      uint64 // batches made so far
	rows   []byte // those that have ended since the last batch, encoded
	told   int    // how many these are
	dirty  []*View
	spare  Row  // whose ranges are used again
	queued bool // the sender knows that it has something to say
	again  bool // all rows are to be told anew: a batch was dropped
	turn   int
	gone   bool // it is in no list of the tracker any more
}

type slot struct {
	view *View
	who  Viewer
}

// New makes a Tracker.
func New(cfg Config) *Tracker {
	if cfg.Every == 0 {
		cfg.Every = defaultEvery
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = mostPending
	}
	t := &Tracker{
		cfg: cfg, life: rand.Text()[:16], gap: (2*cfg.Beat + 10*time.Second).Milliseconds(), rooms: map[string]*room{}, modes: map[string]string{},
		wheel: make([][]*room, max(1, int(cfg.Every/tick))), quit: make(chan struct{}), done: make(chan struct{}),
	}
	t.send = newSender(&t.cfg, t.dropped)
	go t.run() // ends with Close
	return t
}

func (t *Tracker) now() int64 { return t.cfg.Now().UnixMilli() }

// Join begins to keep a viewer of a room: v is its view from then on. watch is what the room's state says that is kept; visible
// and mediaMS are what the viewer has told of itself, nil: nothing.
func (t *Tracker) Join(v *View, who Viewer, name, watch string, visible *bool, mediaMS *int64) {
	r := t.hold(name)
	defer r.mu.Unlock()
	if len(r.slots) == len(r.free) { // nobody was here: what the state said then does not count
		r.mode = t.Mode(watch)
	}
	v.room.Store(r)
	if n := len(r.free); n > 0 {
		v.slot, r.free = r.free[n-1], r.free[:n-1]
		r.slots[v.slot] = slot{v, who}
	} else {
		v.slot = int32(len(r.slots))
		r.slots = append(r.slots, slot{v, who})
	}
	v.flags = absent
	if r.mode != protocol.WatchOff {
		r.begin(v, visible, mediaMS)
	}
}

// hold returns a room with its lock held.
func (t *Tracker) hold(name string) *room {
	for {
		t.mu.Lock()
		r := t.rooms[name]
		if r == nil {
			t.opened++
			r = &room{t: t, name: name, life: fmt.Sprintf("%s-%d", t.life, t.opened), turn: t.turnOf(name)}
			t.rooms[name] = r
			t.wheel[r.turn] = append(t.wheel[r.turn], r)
		}
		t.mu.Unlock()
		r.mu.Lock()
		if !r.gone {
			return r
		}
		r.mu.Unlock()
	}
}

// turnOf spreads the checkpoints of rooms.
func (t *Tracker) turnOf(name string) int { return int(hashOf(name) % uint32(len(t.wheel))) }

func hashOf(s string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s)) // never fails
	return h.Sum32()
}

// Mode is what is kept of a room whose state says watch.
func (t *Tracker) Mode(watch string) string {
	if watch == "" {
		return t.cfg.Mode
	}
	return watch
}

// begin begins the first row of a viewer.
func (r *room) begin(v *View, visible *bool, mediaMS *int64) {
	now := r.t.now()
	r.conns++
	v.conn, v.n, v.flags, v.from, v.beat = r.conns, 0, fresh, now, now
	v.visible, v.playing, v.ahead, v.past = 0, Played{}, 0, nil
	if visible != nil && *visible {
		v.visible = now
	}
	v.play(mediaMS, now)
	r.touch(v)
}

// touch has the row of a viewer told with the next batch.
func (r *room) touch(v *View) {
	if v.flags&dirty == 0 {
		v.flags |= dirty
		r.dirty = append(r.dirty, v)
		r.queue()
	}
}

// queue has a batch made of the room at the next tick.
func (r *room) queue() {
	if !r.queued {
		r.queued = true
		r.t.send.wake(r)
	}
}

// tell puts a row that has ended into the next batch.
func (r *room) tell(v *View, row Row) {
	if v.flags&fresh != 0 {
		r.introduce(&row, r.slots[v.slot].who)
	}
	r.add(&row)
	r.queue()
}

// add adds a row to the next batch, which is made when it has as many as it may have.
func (r *room) add(row *Row) {
	if r.told == mostRows {
		r.ship(nil, r.t.now())
	}
	if r.told > 0 {
		r.rows = append(r.rows, ',')
	}
	r.rows = appendRow(r.rows, row)
	r.told++
}

// ship makes a batch of the rows that there are, and of connections whose rows go on.
func (r *room) ship(same [][2]uint32, now int64) {
	r.n++
	r.t.send.add(r.name, fmt.Sprintf("%s/%s/%d", r.life, r.name, r.n), appendBatch(r.t.send.buffer(len(r.rows)+24*len(same)+100), r.life, r.n, now, r.rows, same), r.told)
	r.rows, r.told = r.rows[:0], 0
}

// introduce says in a row who it is about.
func (r *room) introduce(row *Row, viewer Viewer) {
	who := viewer.Who()
	if r.mode == protocol.WatchTotals {
		row.Totals, row.User = true, r.t.cfg.Alias(r.name, who.User)
		if row.User == "" {
			row.User = sessionHash(who.Session)
		}
		return
	}
	row.User, row.Name, row.Device, row.Guest, row.Session = who.User, who.Name, who.Device, who.Guest, sessionHash(who.Session)
}

// sessionHash stands for a session, which is a secret of its owner.
func sessionHash(s string) string {
	sum := sha256.Sum256([]byte("kansei/watch/" + s))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}

// Leave ends the row of a viewer. silence is for how long nothing was heard of it, where that is why it ends.
func (v *View) Leave(end End, silence time.Duration) {
	r := v.room.Load()
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.flags&left != 0 {
		return
	}
	if v.flags&absent == 0 {
		now := r.t.now()
		at := r.t.pauses.last(v, now, silence)
		r.close(v, end, max(at, v.from))
	}
	r.slots[v.slot] = slot{}
	r.free = append(r.free, v.slot)
	v.flags |= absent | left
}

// close ends the row of a viewer at a moment.
func (r *room) close(v *View, end End, at int64) {
	v.fade(at, r.t.gap)
	if v.visible != 0 {
		v.show(false, max(at, v.visible))
	}
	v.stopPlaying()
	row := v.row(at)
	for i := range row.Visible { // what was seen of it later is not proven
		row.Visible[i][1] = min(row.Visible[i][1], max(at, row.Visible[i][0]))
	}
	row.End = end
	r.tell(v, row)
	v.flags |= absent
}

// Set is told what the state of a room says that is kept of who watches. It holds with the next tick: the caller may hold what
// [Viewer] needs.
func (t *Tracker) Set(name, watch string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rooms[name] != nil {
		t.modes[name] = t.Mode(watch)
	}
}

// set has a mode hold in a room.
func (t *Tracker) set(name, mode string) {
	t.mu.Lock()
	r := t.rooms[name]
	t.mu.Unlock()
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mode == mode {
		return
	}
	now := t.now()
	seen := make([]bool, len(r.slots))
	for i, s := range r.slots {
		if s.view != nil && s.view.flags&absent == 0 {
			seen[i] = s.view.visible != 0
			r.close(s.view, EndOff, now)
		}
	}
	r.mode = mode
	for i, s := range r.slots {
		if s.view != nil && mode != protocol.WatchOff {
			r.begin(s.view, &seen[i], nil)
		}
	}
}

// dropped is told that a batch of a room was dropped.
func (t *Tracker) dropped(name string) {
	t.mu.Lock()
	r := t.rooms[name]
	t.mu.Unlock()
	if r != nil {
		r.mu.Lock()
		r.again = true
		r.mu.Unlock()
	}
}

// run makes batches until Close.
func (t *Tracker) run() {
	defer close(t.done)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-t.quit:
			return
		case <-ticker.C:
		}
		t.pauses.ticked(t.now())
		t.tick()
	}
}

// tick makes the batches of a second.
func (t *Tracker) tick() {
	t.mu.Lock()
	t.turn = (t.turn + 1) % len(t.wheel)
	due, modes := slices.Clone(t.wheel[t.turn]), t.modes
	t.modes = map[string]string{}
	t.mu.Unlock()
	for name, mode := range modes {
		t.set(name, mode)
	}
	for _, r := range due {
		r.checkpoint()
	}
	for _, r := range t.send.woken() {
		r.batch()
	}
}

// checkpoint tells of all viewers of a room that they are there, and forgets a room without any.
func (r *room) checkpoint() {
	t := r.t
	t.mu.Lock()
	r.mu.Lock()
	if len(r.slots) == len(r.free) && r.told == 0 && !r.queued {
		r.gone = true
		delete(t.rooms, r.name)
		t.wheel[r.turn] = slices.DeleteFunc(t.wheel[r.turn], func(x *room) bool { return x == r })
		r.mu.Unlock()
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	defer r.mu.Unlock()
	now := t.now()
	var same []uint32
	for _, s := range r.slots {
		v := s.view
		if v == nil || v.flags&absent != 0 {
			continue
		}
		faded := v.fade(now, t.gap)
		there, anew := now-v.from, ToldAnew.Milliseconds()
		switch {
		case r.again || there/anew != (there-t.cfg.Every.Milliseconds())/anew && there > anew/2:
			v.flags |= fresh
			r.touch(v)
		case faded || v.flags&stale != 0:
			r.touch(v)
		case v.flags&dirty == 0 && s.who.Silence() < t.cfg.Every:
			same = append(same, v.conn)
		}
	}
	r.again = false
	r.made(same, now)
}

// batch makes a batch of what has changed.
func (r *room) batch() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.made(nil, r.t.now())
}

// made makes batches of what has changed and of what has not. The room is held.
func (r *room) made(same []uint32, now int64) {
	for _, v := range r.dirty {
		if v.flags&dirty == 0 || v.flags&absent != 0 {
			continue // it has left since
		}
		row := v.rowInto(&r.spare, now)
		if v.flags&fresh != 0 {
			r.introduce(row, r.slots[v.slot].who)
		}
		v.flags &^= dirty | fresh | stale | plays
		if row.Plays {
			v.flags |= plays
		}
		v.ahead = 0
		r.add(row)
	}
	clear(r.dirty)
	r.dirty, r.queued = r.dirty[:0], false
	if r.told > 0 || len(same) > 0 {
		r.ship(ranges(same), now)
	}
	if len(r.slots) == len(r.free) { // nobody is here
		r.slots, r.free, r.dirty, r.rows, r.spare = nil, nil, nil, nil, Row{}
	}
}

// ranges are numbers as stretches of those that follow one another.
func ranges(numbers []uint32) (all [][2]uint32) {
	slices.Sort(numbers)
	for _, n := range numbers {
		if k := len(all); k > 0 && all[k-1][1]+1 == n {
			all[k-1][1] = n
		} else {
			all = append(all, [2]uint32{n, n})
		}
	}
	return all
}

// Close sends what there is to send, within ctx as far as that goes. All viewers have left.
func (t *Tracker) Close(ctx context.Context) error {
	close(t.quit)
	<-t.done
	for _, r := range t.send.woken() {
		r.batch()
	}
	return t.send.close(ctx)
}
