package hub

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// A report of fewer connections than are here is told when those who are too many go: the
// roster, which never heard of them, has nothing to report then.
func TestHeldCountsAreTold(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		first, s := w.join("r", "")
		second, _ := w.join("r", "")
		settle := func() {
			time.Sleep(time.Second) // longer than a window
			synctest.Wait()
		}
		report := w.roster.report["r"]
		report(Counts{Connections: 1, Users: 1, PeakUsers: 1, At: 1})
		settle()
		w.expect(s, "welcome(false) state history[]")
		second.Leave()
		settle()
		w.expect(s, "viewers(1)")

		// The latest of them counts.
		third, _ := w.join("r", "")
		fourth, _ := w.join("r", "")
		report(Counts{Connections: 1, Users: 1, PeakUsers: 3, At: 2})
		report(Counts{Connections: 2, Users: 2, PeakUsers: 3, At: 3})
		third.Leave()
		settle()
		w.expect(s, "viewers(2)")
		fourth.Leave()
		settle()
		w.expect(s, "") // it is told once
		if held := w.hub.rooms["r"].held; held.At != 0 {
			t.Errorf("still held: %+v", held)
		}
		first.Leave()
	})
}

// strictRoster counts as the rosters do: to leave without having joined does nothing.
type strictRoster struct {
	mu    sync.Mutex
	conns map[string]int
	early int // leaves before the join
}

func (r *strictRoster) Open(string, func(Counts)) Membership { return r }

func (r *strictRoster) Join(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[user]++
}

func (r *strictRoster) Leave(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conns[user] == 0 {
		r.early++
		return
	}
	if r.conns[user]--; r.conns[user] == 0 {
		delete(r.conns, user)
	}
}

func (r *strictRoster) Close() {}

// Whoever leaves as soon as that is possible has joined before, as the roster sees it.
func TestLeaveNeverOvertakesJoin(t *testing.T) {
	t.Parallel()
	roster := &strictRoster{conns: map[string]int{}}
	h := New(Config{Log: newFakeLog(), Roster: roster, Frame: frameAsIs})
	defer h.Close()
	room := h.Acquire("r")
	defer room.Release()
	room.Ready(t.Context())
	for i := range 5000 {
		v := new(Viewer)
		s := &fakeSocket{viewer: v}
		gone := make(chan struct{})
		go func() { // ends when the viewer has left
			defer close(gone)
			for !v.inside.Load() {
			}
			v.Leave()
		}()
		h.Join(t.Context(), v, Join{Room: "r", User: fmt.Sprint(i), Socket: s, Welcome: func(bool) Frame {
			return frameAsIs(protocol.Encode(&protocol.Welcome{Room: "r"}), false)
		}})
		<-gone
	}
	if len(roster.conns) > 0 || roster.early > 0 {
		t.Errorf("%d leaves came before the join; %d ghosts are left", roster.early, len(roster.conns))
	}
}
