package hub

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kansei-live/kansei/protocol"
)

// open is how many rooms are open, by the hub's own books and by its metric, how many
// of them are only read, and how many nobody holds open.
func (w *world) open() (rooms, read, lingering int) {
	w.t.Helper()
	synctest.Wait()
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	if n := testutil.ToFloat64(w.hub.cfg.Metrics.rooms); int(n) != len(w.hub.rooms) {
		w.t.Errorf("the metric says %v rooms of %d", n, len(w.hub.rooms))
	}
	return len(w.hub.rooms), w.hub.read, w.hub.lingering
}

// Whoever reads rooms of which nothing is known leaves nothing behind, and does not
// touch the presence unless it is the counts that are asked for.
func TestReadingLeavesNothing(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		for i := range 100 {
			r := w.read(fmt.Sprint("r", i))
			if !r.Ready(t.Context()) {
				t.Fatal("not ready")
			}
			r.polls(t.Context(), "")
			r.Release()
		}
		time.Sleep(time.Millisecond)
		if n, read, _ := w.open(); n+read > 0 || w.log.stopped != 100 || len(w.presence.report) > 0 {
			t.Errorf("%d rooms, %d read, %d stopped, %d in the presence", n, read, w.log.stopped, len(w.presence.report))
		}
		// The counts are not waited for, and are there for who asks again.
		for i := range 3 {
			r := w.read("r")
			r.Count()
			if _, c := r.Status(); (c.At > 0) != (i > 0) {
				t.Errorf("asked %d times before, counts %+v", i, c)
			}
			w.presence.told("r")
			r.Release()
			time.Sleep(countLinger - time.Millisecond)
		}
		time.Sleep(2 * time.Millisecond)
		if n, _, _ := w.open(); n > 0 || w.presence.closed != 1 {
			t.Errorf("%d rooms, %d closed in the presence", n, w.presence.closed)
		}
	})
}

// told reports the counts of a room as soon as somebody has asked for them.
func (r *fakePresence) told(room string) {
	for {
		r.mu.Lock()
		_, asked := r.report[room]
		r.mu.Unlock()
		if asked {
			r.tell(room)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// What something is known of stays open for as long as it takes to ask again.
func TestReadRoomsLinger(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.log.put("said", "x", AudienceAll)
		w.log.put("r", "x", AudienceAll)
		states := w.read("state")
		states.Ready(t.Context())
		states.SetState(State{Rev: 1, Body: []byte(`{"status":"ended"}`)})
		busy := w.read("busy")
		w.presence.conns["busy"] = 1
		busy.Count()
		w.presence.told("busy")
		said := w.read("said")
		said.Ready(t.Context())
		for _, r := range []*Room{states, busy, said} {
			r.Release()
		}
		time.Sleep(readLinger - time.Millisecond)
		if n, read, _ := w.open(); n != 3 || read != 3 {
			t.Errorf("%d rooms, %d read; want 3", n, read)
		}
		time.Sleep(2 * time.Millisecond)
		if n, read, _ := w.open(); n+read > 0 {
			t.Errorf("%d rooms, %d read are kept", n, read)
		}
	})
}

// Rooms that are only read are bounded, and viewers come in all the same.
func TestReadRoomsAreBounded(t *testing.T) {
	inBubble(t, func(c *Config) { c.ReadRooms = 3 }, func(t *testing.T, w *world) {
		v, _ := w.join("watched", "")
		held := []*Room{w.read("watched")}
		for i := range 3 {
			held = append(held, w.read(fmt.Sprint(i)))
		}
		if _, ok := w.hub.AcquireToRead("more"); ok {
			t.Error("one room more than may be read")
		}
		held = append(held, w.read("1"), w.read("watched"))
		// A viewer makes one of them a room with viewers.
		v2, _ := w.join("2", "")
		held = append(held, w.read("3"))
		if _, ok := w.hub.AcquireToRead("more"); ok {
			t.Error("one room more than may be read, after a viewer came to another")
		}
		v3, _ := w.join("more", "")
		if n, read, _ := w.open(); n != 6 || read != 3 {
			t.Errorf("%d rooms, %d read; want 6 and 3", n, read)
		}
		for _, r := range held {
			r.Release()
		}
		v2.Leave()
		time.Sleep(time.Second)
		if n, read, _ := w.open(); n != 3 || read != 0 { // 2 lingers
			t.Errorf("%d rooms, %d read; want 3 and 0", n, read)
		}
		v.Leave()
		v3.Leave()
		time.Sleep(time.Minute)
		if n, _, lingering := w.open(); n != 0 || lingering != 0 {
			t.Errorf("%d rooms, %d linger", n, lingering)
		}
	})
}

// One who goes from room to room leaves so many of them behind, and no more.
func TestLingeringRoomsAreBounded(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		for i := range maxLingering + 100 {
			v, _ := w.join(fmt.Sprint("r", i), "")
			v.Leave()
		}
		time.Sleep(time.Millisecond)
		if n, _, lingering := w.open(); n != maxLingering || lingering != n {
			t.Errorf("%d rooms, %d linger", n, lingering)
		}
		time.Sleep(time.Minute)
		if n, _, lingering := w.open(); n != 0 || lingering != 0 {
			t.Errorf("%d rooms, %d linger after a minute", n, lingering)
		}
	})
}

// Rooms that are opened, read, left and opened again by many at once end in order.
func TestOpenStorm(t *testing.T) {
	inBubble(t, func(c *Config) { c.ReadRooms = 2; c.Linger = time.Millisecond }, func(t *testing.T, w *world) {
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				name := fmt.Sprint(i % 7)
				if i%2 == 0 {
					v, _ := w.join(name, "")
					time.Sleep(time.Duration(i%5) * time.Millisecond)
					v.Leave()
					return
				}
				if r, ok := w.hub.AcquireToRead(name); ok {
					r.Ready(t.Context())
					time.Sleep(time.Duration(i%3) * time.Millisecond)
					r.Release()
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		if n, read, lingering := w.open(); n+read+lingering != 0 {
			t.Errorf("%d rooms, %d read, %d linger", n, read, lingering)
		}
	})
}

// orderly is a presence that takes a leave without its join for nothing, as one that
// counts by what is in a map does.
type orderly struct {
	mu    sync.Mutex
	conns int
	early int
}

func (r *orderly) Open(string, func(Counts)) Membership { return r }
func (r *orderly) Close()                               {}

func (r *orderly) Join(Member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns++
}

func (r *orderly) Leave(string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns == 0 {
		r.early++
		return
	}
	r.conns--
}

// leaver is a socket whose viewer leaves as soon as it is inside, on another goroutine.
type leaver struct {
	fakeSocket
	left chan struct{}
}

// A viewer that leaves at once, while it is joining still, is counted before.
func TestLeaveComesAfterJoin(t *testing.T) {
	t.Parallel()
	presence := &orderly{}
	h := New(Config{Log: newFakeLog(), Presence: presence})
	defer h.Close()
	keep := new(Viewer)
	h.Join(t.Context(), keep, Join{Room: "r", User: "keep", Socket: &fakeSocket{viewer: keep}, Welcome: welcome})
	presence.mu.Lock()
	presence.conns-- // keep's own, so that an early leave shows
	presence.mu.Unlock()
	for range 5000 {
		v := new(Viewer)
		s := &leaver{fakeSocket: fakeSocket{viewer: v}, left: make(chan struct{})}
		go func() {
			defer close(s.left)
			for !v.inside.Load() {
			}
			v.Leave()
		}()
		h.Join(t.Context(), v, Join{Room: "r", User: "u", Socket: s, Welcome: welcome})
		<-s.left
	}
	presence.mu.Lock()
	conns, early := presence.conns, presence.early
	presence.conns++
	presence.mu.Unlock()
	if conns != 0 || early != 0 {
		t.Errorf("%d left before they had joined; %d are counted still", early, conns)
	}
	keep.Leave()
}

func welcome(bool) []byte { return protocol.Encode(&protocol.Welcome{}) }

// A room is ready when its state is known too: who reads it then is not told that it is
// live when it has ended.
func TestReadyKnowsTheState(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.log.silent = true
		r := w.read("r")
		defer r.Release()
		r.Reset("e1", nil, Position{})
		if w.hub.Find("r") != nil || r.Ready(t.Context()) {
			t.Error("ready without the state")
		}
		r.SetState(State{Rev: 1, Body: []byte(`{"status":"ended"}`)})
		if st, _ := r.Status(); w.hub.Find("r") != r || st.Status != protocol.StatusEnded || !r.Ready(t.Context()) {
			t.Errorf("%+v", st)
		}
		if w.hub.Find("other") != nil {
			t.Error("the state of a room is known that is not open")
		}
	})
}

func (r *orderly) Broadcast(int64) {}

func (r *orderly) First(string) (time.Time, bool) { return time.Time{}, false }
