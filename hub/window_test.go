package hub

import (
	"testing"
	"time"
)

// A flush in which the process stood still holds up nobody, and one of many that take
// long makes the window as long as it has to be.
func TestWindow(t *testing.T) {
	t.Parallel()
	const base = 90 * time.Millisecond
	r := &Room{hub: New(Config{Window: base}), window: base}
	for _, c := range []struct{ took, want time.Duration }{
		{time.Millisecond, base},
		{10 * time.Minute, 2 * base}, // it was stopped
		{time.Millisecond, base},
		{100 * time.Millisecond, 2 * base},
		{100 * time.Millisecond, 200 * time.Millisecond},
		{time.Second, 400 * time.Millisecond},
		{time.Second, 800 * time.Millisecond},
		{time.Second, 1600 * time.Millisecond},
		{time.Second, maxWindow},
		{24 * time.Hour, maxWindow},
		{time.Millisecond, base},
	} {
		if r.measure(c.took, 1000, 1); r.window != c.want {
			t.Errorf("a flush took %v: the window is %v, want %v", c.took, r.window, c.want)
		}
	}
	// Nor does such a flush tell what a viewer costs for long.
	r.cost = 5 * time.Microsecond
	r.measure(24*time.Hour, 1000, 2)
	for range 40 {
		r.measure(5*time.Millisecond, 1000, 1)
	}
	if r.cost > 10*time.Microsecond {
		t.Errorf("a viewer costs %v", r.cost)
	}
	// A window that is longer than that by choice stays.
	r = &Room{hub: New(Config{Window: 5 * time.Second}), window: 5 * time.Second}
	if r.measure(10*time.Minute, 1000, 1); r.window != 5*time.Second {
		t.Errorf("the window is %v", r.window)
	}
}

// stalling is a socket whose flush takes a time, once.
type stalling struct {
	fakeSocket
	stall time.Duration
}

func (s *stalling) Flush() {
	s.fakeSocket.Flush()
	d := s.stall
	s.stall = 0
	time.Sleep(d)
}

// What is said after the process has stood still within a flush comes as soon as ever.
func TestRoundThatStoodStill(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		v := new(Viewer)
		s := &stalling{fakeSocket: fakeSocket{viewer: v}}
		w.hub.Join(t.Context(), v, Join{Room: "r", User: "u", Socket: s, Welcome: welcome})
		time.Sleep(time.Second)
		s.stall = 3 * time.Minute
		w.log.say("1")
		for i, text := range []string{"2", "3", "4"} {
			w.log.say(text)
			time.Sleep(200 * time.Millisecond)
			if items, _, _ := seen(s.take()); len(items) == 0 {
				t.Errorf("comment %d has not come", i+2)
			}
		}
		v.Leave()
	})
}
