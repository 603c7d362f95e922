package hub

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// burst reports n comments of a room that has rate comments a second; of every ten
// one is a moderator's, and one is of the viewer "me".
func (w *world) burst(n int, rate uint32) {
	w.log.mu.Lock()
	seq := uint64(len(w.log.events["r"]))
	for i := range n {
		user := protocol.User{ID: fmt.Sprint("u", i)}
		switch i % 10 {
		case 3:
			user.Role = protocol.RoleModerator
		case 7:
			user.ID = "me"
		}
		seq++
		w.log.events["r"] = append(w.log.events["r"], Event{Seq: seq, At: time.Now().UnixMilli(), Kind: KindComment, Rate: rate,
			Body: protocol.EncodeBody(protocol.Comment{User: user, Text: fmt.Sprint(seq)})})
	}
	w.log.mu.Unlock()
	w.log.tell("r")
}

func (w *world) joinUser(user, since string) (*Viewer, *fakeSocket) {
	v := new(Viewer)
	s := &fakeSocket{viewer: v}
	w.hub.Join(w.t.Context(), v, Join{Room: "r", User: user, Socket: s, Since: since,
		Welcome: welcome})
	return v, s
}

// number is the number in a comment of burst.
func number(c protocol.Comment) uint64 {
	n, _ := strconv.ParseUint(c.Text, 10, 64)
	return n
}

// seen is what the comments messages among messages hold.
func seen(messages []protocol.Message) (items []protocol.Comment, shown, of int) {
	for _, m := range messages {
		c, ok := m.(*protocol.Comments)
		if !ok {
			continue
		}
		items = append(items, c.Items...)
		if c.Of > 0 {
			shown, of = shown+c.Shown, of+c.Of
		} else {
			shown, of = shown+len(c.Items), of+len(c.Items)
		}
	}
	return items, shown, of
}

func TestSample(t *testing.T) {
	inBubble(t, func(c *Config) { c.RoomRate = 100; c.Recent = -1 }, func(t *testing.T, w *world) {
		me, mine := w.joinUser("me", "")
		you, yours := w.joinUser("you", "")
		at := cursor(mine.take())
		yours.take()
		w.burst(50, 100) // what people can read is shown whole
		time.Sleep(time.Second)
		if _, shown, of := seen(yours.take()); shown != 50 || of != 50 {
			t.Errorf("shown %d of %d at the room's rate", shown, of)
		}
		mine.take()

		w.burst(1000, 1000)
		time.Sleep(time.Second)
		items, shown, of := seen(yours.take())
		if shown != len(items) || of != 1000 {
			t.Errorf("%d items, shown %d of %d", len(items), shown, of)
		}
		// 100 of the staff, and of the 900 others about one in ten.
		if shown < 150 || shown > 240 {
			t.Errorf("shown %d", shown)
		}
		staff, last := 0, uint64(0)
		all := map[string]bool{}
		for _, c := range items {
			all[c.ID] = true
			if c.User.Role.Staff() {
				staff++
			}
			if n := number(c); n <= last {
				t.Fatalf("%d after %d", n, last)
			} else {
				last = n
			}
		}
		if staff != 100 {
			t.Errorf("%d of 100 comments of the staff", staff)
		}
		// My own are all there, in their places, beside the same sample.
		items, shown, of = seen(mine.take())
		own := 0
		last = 0
		for _, c := range items {
			if c.User.ID == "me" {
				own++
			} else if !all[c.ID] {
				t.Errorf("%s is shown to one and not to the other", c.ID)
			}
			if n := number(c); n <= last {
				t.Fatalf("my %d after %d", n, last)
			} else {
				last = n
			}
		}
		if own != 100 || of != 1000 || shown != len(items) {
			t.Errorf("%d of my 100; %d items, shown %d of %d", own, len(items), shown, of)
		}
		me.Leave()
		you.Leave()

		// A returning viewer sees the same, here and on a node that reads the log.
		v, s := w.joinUser("other", at)
		back, _, _ := seen(s.take())
		if len(back) != 50+len(all) {
			t.Errorf("%d after coming back, want %d", len(back), 50+len(all))
		}
		v.Leave()
		cold := New(w.hub.cfg)
		defer cold.Close()
		v = new(Viewer)
		s = &fakeSocket{viewer: v}
		cold.Join(t.Context(), v, Join{Room: "r", User: "other", Socket: s, Since: at,
			Welcome: welcome})
		if read, _, _ := seen(s.take()); len(read) != len(back) {
			t.Errorf("%d on another node, want %d", len(read), len(back))
		}
		v.Leave()
	})
}

// When all of a stretch is sampled out, its number is told, and the cursor moves on.
func TestSampleOfNothing(t *testing.T) {
	inBubble(t, func(c *Config) { c.RoomRate = 1 }, func(t *testing.T, w *world) {
		v, s := w.joinUser("you", "")
		before := cursor(s.take())
		w.log.mu.Lock()
		for seq := uint64(1); len(w.log.events["r"]) < 5; seq++ {
			if scatter(seq)%1000 >= 1 {
				w.log.events["r"] = append(w.log.events["r"], Event{Seq: seq, At: 1, Kind: KindComment, Rate: 1000, Body: body("x")})
			}
		}
		w.log.mu.Unlock()
		w.log.tell("r")
		synctest.Wait()
		got := s.take()
		if items, shown, of := seen(got); len(items) != 0 || shown != 0 || of != 5 {
			t.Errorf("%d items, shown %d of %d", len(items), shown, of)
		}
		after := cursor(got)
		if after == before {
			t.Error("the cursor has not moved")
		}
		v.Leave()
		v, s = w.joinUser("you", after)
		w.expect(s, "welcome(false) state") // the test's welcome says nothing; nothing follows
		v.Leave()
	})
}

func TestPace(t *testing.T) {
	t.Parallel()
	var p pace
	now := time.UnixMilli(1_700_000_000_000)
	for i := range 30 {
		p.count(now.Add(time.Duration(i)*100*time.Millisecond), 5)
	}
	now = now.Add(2900 * time.Millisecond)
	if got := p.rate(now); got != 50 {
		t.Errorf("%d, want 50", got)
	}
	if got := p.rate(now.Add(500 * time.Millisecond)); got != 25 {
		t.Errorf("half a second later: %d, want 25", got)
	}
	if got := p.rate(now.Add(time.Minute)); got != 0 {
		t.Errorf("a minute later: %d", got)
	}
}

// Who weighs more is shown more of, and about as many are shown as without weights.
func TestWeights(t *testing.T) {
	t.Parallel()
	const rate, limit = 5000, 500
	for name, c := range map[string]struct {
		weights []int   // of those who comment, in turn
		shown   float64 // of the heaviest, how much more often than of the lightest
	}{
		"all the same":    {[]int{1}, 1},
		"members alone":   {[]int{10}, 1},
		"one in ten":      {[]int{10, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 10},
		"guests and more": {[]int{1, 2, 4}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := new(pace)
			shown, of := map[int]float64{}, map[int]float64{}
			total := 0
			const n = 100_000
			for i := range n {
				w := c.weights[i%len(c.weights)]
				of[w]++
				if inSample(&Event{Seq: uint64(i), Rate: p.weighed(rate, w, limit)}, limit) {
					shown[w]++
					total++
				}
			}
			if got := float64(total) / n * rate; got < 0.93*limit || got > 1.07*limit {
				t.Errorf("%.0f a second are shown", got)
			}
			high, low := slices.Max(c.weights), slices.Min(c.weights)
			if got := shown[high] / of[high] / (shown[low] / of[low]); got < 0.9*c.shown || got > 1.1*c.shown {
				t.Errorf("the heaviest are shown %.2f times as often as the lightest", got)
			}
			if got := p.weighed(limit, low, limit); got != limit {
				t.Errorf("in a room that is not overfull the rate is %d", got)
			}
		})
	}
}
