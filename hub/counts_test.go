package hub

import (
	"testing"
	"testing/synctest"
	"time"
)

// A report of fewer connections than are here is told when those who are too many go: the
// presence, which never heard of them, has nothing to report then.
func TestHeldCountsAreTold(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		first, s := w.join("r", "")
		second, _ := w.join("r", "")
		settle := func() {
			time.Sleep(time.Second) // longer than a window
			synctest.Wait()
		}
		report := w.presence.report["r"]
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
		if held := w.hub.rooms["r"].early; held.At != 0 {
			t.Errorf("still held: %+v", held)
		}
		first.Leave()
	})
}
