package watchlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/protocol"
)

// stream is a stream of batches in memory.
type stream struct {
	mu      sync.Mutex
	batches map[string][][]byte // by room
	ids     map[string]bool
	down    bool
}

func newStream() *stream { return &stream{batches: map[string][][]byte{}, ids: map[string]bool{}} }

func (s *stream) store(_ context.Context, room, id string, body []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return errors.New("down")
	}
	if !s.ids[id] {
		s.ids[id] = true
		s.batches[room] = append(s.batches[room], slices.Clone(body))
	}
	return nil
}

func (s *stream) set(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func (s *stream) fold(t testing.TB, room string) *Fold {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	f := NewFold()
	for _, body := range s.batches[room] {
		b, err := Decode(body)
		if err != nil {
			t.Fatal(err)
		}
		f.Add(b)
		f.Add(b) // the second time it is nothing new
	}
	return f
}

// rows counts the rows and batches of a room, and their bytes.
func (s *stream) rows(t testing.TB, room string) (rows, batches, bytes int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, body := range s.batches[room] {
		b, err := Decode(body)
		if err != nil {
			t.Fatal(err)
		}
		rows, batches, bytes = rows+len(b.Rows), batches+1, bytes+len(body)
	}
	return rows, batches, bytes
}

// node is a tracker on a stream.
func newNode(t testing.TB, s *stream, change func(*Config)) *Tracker {
	t.Helper()
	cfg := Config{
		Now: time.Now, Store: s.store, Alias: func(room, user string) string { return "day-" + room + "-" + user }, Mode: protocol.WatchUsers,
		Beat: 30 * time.Second, Metrics: NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

// viewer is somebody on a node.
type viewer struct {
	View
	who     Who
	silence atomic.Int64 // nanoseconds
	stop    chan struct{}
}

func (v *viewer) Who() Who               { return v.who }
func (v *viewer) Silence() time.Duration { return time.Duration(v.silence.Load()) }

func yes(b bool) *bool { return &b }

// come joins; a viewer with a beat sends one every 30 s, visible and at the position that position tells.
func come(n *Tracker, room, user, session string, visible *bool) *viewer {
	v := &viewer{who: Who{User: user, Name: "name of " + user, Session: session, Device: DevicePhone, Guest: strings.HasPrefix(user, "guest-")}}
	n.Join(&v.View, v, room, "", visible, nil)
	return v
}

// beats has a viewer tell its state every 30 s until it goes.
func (v *viewer) beats(every time.Duration, tell func() (visible *bool, mediaMS *int64)) {
	stop := make(chan struct{})
	v.stop = stop
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(every):
				v.Beat(tell())
			}
		}
	}()
}

func (v *viewer) go_(end End) {
	if v.stop != nil {
		close(v.stop)
	}
	v.Leave(end, v.Silence())
}

// evening is a broadcast that began with the bubble and ended at some time.
func evening(room string, began time.Time, took time.Duration) Broadcast {
	return Broadcast{Room: room, ID: "1", Waiting: began.Add(-time.Hour).UnixMilli(), Began: began.UnixMilli(), Ended: began.Add(took).UnixMilli()}
}

func userOf(t testing.TB, s Shaped, id string) User {
	t.Helper()
	for _, u := range s.Users {
		if u.ID == id {
			return u
		}
	}
	t.Fatalf("%s is not in %+v", id, s.Users)
	return User{}
}

func seconds(t testing.TB, what string, ms int64, want float64) {
	t.Helper()
	if got := float64(ms) / 1000; got < want-0.002 || got > want+0.002 {
		t.Errorf("%s: %.3f s, want %.3f", what, got, want)
	}
}

// cases are what docs/WATCHLOG.md defines: what comes of each of them.
func TestDefinedResults(t *testing.T) {
	t.Parallel()
	visibly := func() (*bool, *int64) { return yes(true), nil }
	for name, c := range map[string]func(t *testing.T, s *stream, n *Tracker, began time.Time){
		"two rooms at once": func(t *testing.T, s *stream, n *Tracker, began time.Time) {
			a, b := come(n, "a", "u", "s1", yes(true)), come(n, "b", "u", "s2", yes(false))
			a.beats(30*time.Second, visibly)
			time.Sleep(100 * time.Second)
			a.go_(EndLeft)
			b.go_(EndLeft)
			time.Sleep(2 * time.Second)
			for room, visible := range map[string]float64{"a": 100, "b": 0} {
				u := userOf(t, Shape(s.fold(t, room), evening(room, began, time.Hour), 0, nil), "u")
				seconds(t, room+" connected", u.ConnectedMS, 100)
				seconds(t, room+" visible", u.VisibleMS, visible)
			}
		},
		"two users on one device": func(t *testing.T, s *stream, n *Tracker, began time.Time) {
			a := come(n, "a", "mother", "s1", yes(true))
			time.Sleep(10 * time.Second)
			a.go_(EndLeft)
			b := come(n, "a", "child", "s1", yes(true))
			time.Sleep(20 * time.Second)
			b.go_(EndLeft)
			time.Sleep(2 * time.Second)
			out := Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil)
			seconds(t, "mother", userOf(t, out, "mother").ConnectedMS, 10)
			seconds(t, "child", userOf(t, out, "child").ConnectedMS, 20)
			if out.Summary.Users != 2 || out.Summary.Peak != 1 {
				t.Errorf("%+v", out.Summary)
			}
		},
		"one user on three devices": func(t *testing.T, s *stream, n *Tracker, began time.Time) {
			at := func() (*bool, *int64) { ms := time.Since(began).Milliseconds(); return yes(true), &ms }
			var all []*viewer
			for _, session := range []string{"s1", "s2", "s3"} {
				v := come(n, "a", "u", session, yes(true))
				v.beats(30*time.Second, at)
				all = append(all, v)
				time.Sleep(30 * time.Second)
			}
			for _, v := range all {
				time.Sleep(19 * time.Second)
				v.go_(EndLeft)
			}
			time.Sleep(2 * time.Second)
			out := Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil)
			u := userOf(t, out, "u")
			seconds(t, "connected", u.ConnectedMS, 147)
			seconds(t, "visible", u.VisibleMS, 147)
			seconds(t, "played", u.PlayedMS, 90) // from the first beat to the last one
			if u.Connections != 3 || out.Summary.Users != 1 || out.Summary.Intervals != 3 || out.Summary.Peak != 1 {
				t.Errorf("%+v, %+v", u, out.Summary)
			}
		},
		"a guest who signs in": func(t *testing.T, s *stream, n *Tracker, began time.Time) {
			g := come(n, "a", "guest-1", "s1", yes(true))
			time.Sleep(15 * time.Second)
			g.go_(EndLeft)
			u := come(n, "a", "u", "s1", yes(true))
			time.Sleep(25 * time.Second)
			u.go_(EndLeft)
			time.Sleep(2 * time.Second)
			out := Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil)
			seconds(t, "guest", userOf(t, out, "guest-1").ConnectedMS, 15)
			seconds(t, "user", userOf(t, out, "u").ConnectedMS, 25)
			if out.Summary.Guests != 1 || out.Intervals[0].Session != out.Intervals[1].Session {
				t.Errorf("%+v: the session tells who it was before", out.Intervals)
			}
		},
		"a sleeping laptop": func(t *testing.T, s *stream, n *Tracker, began time.Time) {
			v := come(n, "a", "u", "s1", yes(true))
			v.beats(30*time.Second, visibly)
			time.Sleep(65 * time.Second) // beats at 30 and 60
			close(v.stop)
			v.stop = nil
			v.silence.Store(int64(100 * time.Second)) // a ping was not answered, either
			time.Sleep(95 * time.Second)
			v.go_(EndSilent)
			time.Sleep(2 * time.Second)
			out := Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil)
			u := userOf(t, out, "u")
			seconds(t, "connected", u.ConnectedMS, 60)
			seconds(t, "visible", u.VisibleMS, 60)
			if out.Intervals[0].End != string(EndSilent) {
				t.Errorf("%+v", out.Intervals)
			}
		},
		"a laptop that slept for a while": func(t *testing.T, s *stream, n *Tracker, began time.Time) {
			v := come(n, "a", "u", "s1", yes(true))
			v.Beat(yes(true), nil)
			time.Sleep(90 * time.Second) // the connection has survived
			v.Beat(yes(true), nil)
			time.Sleep(10 * time.Second)
			v.go_(EndLeft)
			time.Sleep(2 * time.Second)
			u := userOf(t, Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil), "u")
			seconds(t, "connected", u.ConnectedMS, 100)
			seconds(t, "visible", u.VisibleMS, 10) // nobody knows of the time before
		},
		"picture in picture": func(t *testing.T, s *stream, n *Tracker, began time.Time) {
			v := come(n, "a", "u", "s1", yes(true))
			v.beats(60*time.Second, visibly) // the page is hidden, so its timers are slow; the programme can be seen
			time.Sleep(300 * time.Second)
			v.go_(EndLeft)
			time.Sleep(2 * time.Second)
			seconds(t, "visible", userOf(t, Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil), "u").VisibleMS, 300)
		},
		"a background tab whose timers fire once a minute": func(t *testing.T, s *stream, n *Tracker, began time.Time) {
			v := come(n, "a", "u", "s1", yes(false))
			at := func() (*bool, *int64) { ms := time.Since(began).Milliseconds(); return yes(false), &ms }
			v.beats(60*time.Second, at)
			time.Sleep(310 * time.Second)
			v.go_(EndLeft)
			time.Sleep(2 * time.Second)
			u := userOf(t, Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil), "u")
			seconds(t, "connected", u.ConnectedMS, 310)
			seconds(t, "visible", u.VisibleMS, 0)
			seconds(t, "played", u.PlayedMS, 240)
		},
		"a client that never sends a beat": func(t *testing.T, s *stream, n *Tracker, began time.Time) {
			v, w := come(n, "a", "u", "s1", nil), come(n, "a", "w", "s2", yes(true))
			time.Sleep(400 * time.Second)
			v.go_(EndLost)
			w.go_(EndLost)
			time.Sleep(2 * time.Second)
			out := Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil)
			for _, id := range []string{"u", "w"} {
				seconds(t, "connected", userOf(t, out, id).ConnectedMS, 400)
				seconds(t, "visible", userOf(t, out, id).VisibleMS, 0)
			}
		},
		"somebody who waits": func(t *testing.T, s *stream, n *Tracker, began time.Time) {
			v := come(n, "a", "u", "s1", yes(true))
			v.beats(30*time.Second, visibly)
			early := come(n, "a", "early", "s2", yes(true))
			time.Sleep(60 * time.Second)
			early.go_(EndLeft)
			time.Sleep(240 * time.Second)
			v.go_(EndLeft)
			time.Sleep(2 * time.Second)
			out := Shape(s.fold(t, "a"), evening("a", began.Add(100*time.Second), 100*time.Second), 0, nil)
			u := userOf(t, out, "u")
			seconds(t, "waited", u.WaitedMS, 100)
			seconds(t, "connected", u.ConnectedMS, 100)
			seconds(t, "visible", u.VisibleMS, 100)
			if u.Share != 1 || out.Intervals[1].End != string(EndEnded) || out.Summary.Users != 1 || out.Summary.Waited != 2 || !out.Settled {
				t.Errorf("%+v, %+v", u, out.Summary)
			}
			seconds(t, "waited", userOf(t, out, "early").WaitedMS, 60)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, began := newStream(), time.Now()
				n := newNode(t, s, nil)
				c(t, s, n, began)
				if err := n.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A node that was paused closes its viewers where they were last known to be there, not when it noticed; meanwhile their ends are
// estimated.
func TestPausedNode(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, began := newStream(), time.Now()
		var held atomic.Pointer[chan struct{}]
		n := newNode(t, s, func(c *Config) {
			c.Now = func() time.Time {
				if h := held.Load(); h != nil {
					<-*h
				}
				return time.Now()
			}
		})
		v := come(n, "a", "u", "s1", yes(true))
		w := come(n, "a", "w", "s2", yes(true)) // whose connection survives
		v.beats(30*time.Second, func() (*bool, *int64) { return yes(true), nil })
		time.Sleep(100500 * time.Millisecond)
		close(v.stop)
		v.stop = nil
		pause := make(chan struct{})
		held.Store(&pause)
		time.Sleep(240 * time.Second)
		guess := Shape(s.fold(t, "a"), evening("a", began, time.Hour), time.Now().UnixMilli(), nil)
		if u := userOf(t, guess, "u"); !u.Estimated || u.ConnectedMS < 40_000 || guess.Settled || guess.Intervals[0].End != string(EndDied) || guess.Summary.Estimated != 2 {
			t.Errorf("while it is paused: %+v", guess)
		}
		held.Store(nil)
		close(pause)
		v.go_(EndLost)
		w.Beat(yes(true), nil) // it may have been sent before
		time.Sleep(20 * time.Second)
		w.Beat(yes(true), nil)
		time.Sleep(10 * time.Second)
		w.go_(EndLost)
		time.Sleep(2 * time.Second)
		out := Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil)
		u := userOf(t, out, "u")
		seconds(t, "connected", u.ConnectedMS, 100)
		seconds(t, "the other one", userOf(t, out, "w").ConnectedMS, 370.5)
		if u.Estimated || !out.Settled {
			t.Errorf("%+v", out)
		}
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What a room keeps can change while viewers are there; of totals nobody learns who it was.
func TestModes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, began := newStream(), time.Now()
		n := newNode(t, s, nil)
		v := &viewer{who: Who{User: "secret-user", Name: "Secret Name", Session: "secret-session"}}
		n.Join(&v.View, v, "a", protocol.WatchOff, yes(true), nil)
		time.Sleep(100500 * time.Millisecond)
		if rows, _, _ := s.rows(t, "a"); rows != 0 {
			t.Errorf("%d rows where nothing is kept", rows)
		}
		n.Set("a", protocol.WatchTotals)
		time.Sleep(50500 * time.Millisecond)
		v.Beat(yes(true), nil)
		time.Sleep(10 * time.Second)
		v.go_(EndLeft)
		time.Sleep(2 * time.Second)
		out := Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil)
		if len(out.Users) != 0 || len(out.Intervals) != 0 || out.Summary.Users != 1 || out.Summary.TotalsOnly != 1 {
			t.Errorf("%+v", out)
		}
		seconds(t, "connected", out.Summary.ConnectedMS, 60)
		for _, b := range s.batches["a"] {
			if strings.Contains(string(b), "ecret") && !strings.Contains(string(b), "day-a-secret-user") {
				t.Errorf("a batch tells who it was: %s", b)
			}
		}
		w := come(n, "a", "u", "s", yes(true))
		time.Sleep(5 * time.Second)
		n.Set("a", protocol.WatchOff) // nobody is told by mistake of what comes later
		time.Sleep(60 * time.Second)
		w.go_(EndLeft)
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A room that nobody was in for a while is forgotten; who comes then is kept like all others.
func TestRoomThatComesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, began := newStream(), time.Now()
		n := newNode(t, s, nil)
		for i := range 5 {
			v := come(n, "a", fmt.Sprint("u", i), "s", yes(true))
			time.Sleep(10 * time.Second)
			v.go_(EndLeft)
			time.Sleep(3 * time.Minute)
			n.mu.Lock()
			if len(n.rooms) > 0 {
				t.Error("the room is not forgotten")
			}
			n.mu.Unlock()
		}
		out := Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil)
		for i := range 5 {
			seconds(t, "connected", userOf(t, out, fmt.Sprint("u", i)).ConnectedMS, 10)
		}
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Who stays for long is told anew: whoever reads what was told since 6 hours before knows who it is.
func TestLongStay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStream()
		n := newNode(t, s, nil)
		v := come(n, "a", "u", "s", yes(true))
		v.beats(30*time.Second, func() (*bool, *int64) { return yes(true), nil })
		time.Sleep(20*time.Hour + 7*time.Second)
		began := time.Now()
		time.Sleep(time.Hour)
		v.go_(EndLeft)
		time.Sleep(3 * time.Second)
		if rows, _, _ := s.rows(t, "a"); rows > 10 {
			t.Errorf("%d rows in 21 hours", rows)
		}
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
		f := NewFold()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, body := range s.batches["a"] {
			b, err := Decode(body)
			if err != nil {
				t.Fatal(err)
			}
			if b.At >= began.Add(-ToldAnew-time.Minute).UnixMilli() {
				f.Add(b)
			}
		}
		u := userOf(t, Shape(f, evening("a", began, time.Hour), 0, nil), "u")
		seconds(t, "connected", u.ConnectedMS, 3600)
		seconds(t, "visible", u.VisibleMS, 3600)
		if len(f.lives) != 1 {
			t.Errorf("%d lives", len(f.lives))
		}
	})
}

// While the stream is away rows wait, within bounds. What was dropped of those who are there is told anew.
func TestStreamAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, began := newStream(), time.Now()
		n := newNode(t, s, func(c *Config) { c.MaxPending = 2000 })
		s.set(true)
		var all []*viewer
		for i := range 40 {
			v := come(n, "a", "user-with-a-long-name-"+string(rune('a'+i)), "s", yes(true))
			v.beats(30*time.Second, func() (*bool, *int64) { return yes(true), nil })
			all = append(all, v)
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute)
		s.set(false)
		time.Sleep(3 * time.Minute)
		for _, v := range all {
			v.go_(EndLeft)
		}
		time.Sleep(10 * time.Second)
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
		out := Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil)
		for i := range all {
			u := userOf(t, out, "user-with-a-long-name-"+string(rune('a'+i)))
			seconds(t, u.ID, u.ConnectedMS, float64(40-i+240))
			seconds(t, u.ID, u.VisibleMS, float64(40-i+240))
		}
	})
}

// Somebody who hides and shows the page all the time, and moves about in the programme, costs no memory without bounds, and nothing is
// lost of it.
func TestRestlessViewer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, began := newStream(), time.Now()
		n := newNode(t, s, nil)
		v := come(n, "a", "u", "s1", yes(false))
		at := int64(0)
		for range 100 { // 7 s hidden, 3 s shown and playing
			v.Beat(yes(false), &at)
			time.Sleep(7 * time.Second)
			at += 1000_000
			v.Beat(yes(true), &at)
			time.Sleep(3 * time.Second)
			at += 3000
			v.Beat(nil, &at)
		}
		v.go_(EndLeft)
		time.Sleep(2 * time.Second)
		f := s.fold(t, "a")
		out := Shape(f, evening("a", began, time.Hour), 0, nil)
		u := userOf(t, out, "u")
		seconds(t, "connected", u.ConnectedMS, 1000)
		seconds(t, "visible", u.VisibleMS, 300)
		seconds(t, "played", u.PlayedMS, 300)
		if i := out.Intervals[0]; len(out.Intervals) != 1 || len(i.Visible) != 100 || len(i.Media) != 100 || i.End != string(EndLeft) {
			t.Errorf("%d intervals, %d times visible, %d stretches", len(out.Intervals), len(i.Visible), len(i.Media))
		}
		for _, l := range f.lives {
			for _, c := range l.conns {
				for _, r := range c.rows {
					if len(r.Visible)+len(r.Played) > mostRanges+2 {
						t.Errorf("a row has %d and %d ranges", len(r.Visible), len(r.Played))
					}
				}
			}
		}
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What comes from the stream may be anything.
func FuzzFold(f *testing.F) {
	f.Add([]byte(`{"life":"x","n":1,"at":100,"rows":[{"c":1,"user":"u","from":1,"to":50,"visible":[[1,50]],"played":[[1,50,0,49]],"seen":true,"plays":true}]}`),
		[]byte(`{"life":"x","n":2,"at":200,"same":[[1,4294967295]],"rows":[{"c":2,"user":"v","from":9,"to":1}]}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		fold := NewFold()
		for _, p := range [][]byte{a, b} {
			if batch, err := Decode(p); err == nil {
				fold.Add(batch)
			}
		}
		out := Shape(fold, Broadcast{Room: "r", ID: "1", Waiting: 10, Began: 50, Ended: 5000}, 1000, nil)
		if _, err := json.Marshal(out); err != nil {
			t.Fatal(err)
		}
		for _, u := range out.Users {
			if u.ConnectedMS < 0 || u.VisibleMS < 0 || u.PlayedMS < 0 || u.ConnectedMS > 4950 {
				t.Fatalf("%+v", u)
			}
		}
		fold.Spans(time.Second)
	})
}

// Five thousand viewers of whom each comes, goes, and hides and shows the page once, cost a row for each of that, and less than a
// row a minute besides; and an idle one costs at most 128 bytes.
func TestCost(t *testing.T) {
	t.Parallel()
	if got := unsafe.Sizeof(View{}) + unsafe.Sizeof(slot{}); got > 128 {
		t.Errorf("an idle viewer costs %d bytes", got)
	}
	synctest.Test(t, func(t *testing.T) {
		s, began := newStream(), time.Now()
		n := newNode(t, s, nil)
		const viewers, minutes = 5000, 10
		all := make([]*viewer, viewers)
		for i := range all {
			all[i] = come(n, "a", fmt.Sprint("u", i), fmt.Sprint("s", i), yes(true))
			if i%500 == 499 {
				time.Sleep(time.Second)
			}
		}
		for range 2 * minutes { // a beat each in 30 s
			for i, v := range all {
				at := time.Since(began).Milliseconds()
				v.Beat(nil, &at)
				if i%100 == 99 {
					time.Sleep(time.Minute / 2 / (viewers / 100))
				}
			}
		}
		for _, seen := range []bool{false, true} {
			for i, v := range all {
				v.Beat(&seen, nil)
				if i%500 == 499 {
					time.Sleep(time.Second)
				}
			}
		}
		for i, v := range all {
			v.go_(EndLeft)
			if i%500 == 499 {
				time.Sleep(time.Second)
			}
		}
		took := time.Since(began)
		time.Sleep(3 * time.Second)
		rows, batches, bytes := s.rows(t, "a")
		most := viewers * (1 + 1 + 2 + int(took/time.Minute))
		t.Logf("%d rows (at most %d), %d batches, %d bytes: %.0f a viewer", rows, most, batches, bytes, float64(bytes)/viewers)
		if rows > most || batches > int(took/time.Second) {
			t.Errorf("%d rows, at most %d; %d batches in %v", rows, most, batches, took)
		}
		out := Shape(s.fold(t, "a"), evening("a", began, time.Hour), 0, nil)
		if len(out.Users) != viewers || out.Summary.Peak != viewers || !out.Settled {
			t.Errorf("%d users, peak %d", len(out.Users), out.Summary.Peak)
		}
		if err := n.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// kill ends a tracker as a killed process does: what it has not stored is lost.
func (t *Tracker) kill() {
	t.send.stop()
	close(t.quit)
	<-t.done
	t.send.all.Wait()
}
