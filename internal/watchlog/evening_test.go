package watchlog

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var sessions = flag.Int("sessions", 20_000, "sessions of the broadcast that is played")

// The broadcast that is played, since the room was opened.
const (
	eveningBegan, eveningEnded = 10 * time.Minute, 50 * time.Minute
	eveningBeat                = time.Minute

	killedNode, pausedNode, eveningNodes = 2, 3, 4

	killedAt            = 31*time.Minute + 12345*time.Millisecond
	pausedAt, resumedAt = 22*time.Minute + 500*time.Millisecond, 26 * time.Minute
	lastTick            = pausedAt / time.Second * time.Second // before the pause
)

// truth is what somebody did on one connection.
type truth struct {
	user     string
	node     int
	from, to time.Duration // since the room was opened
	end      End
	flips    []time.Duration // when the page was hidden or shown; it is shown at first
	plays    bool
	told     time.Duration // when it told something last
	killed   bool
	viewer   *viewer
}

// cut ends a connection earlier than it would have.
func (p *truth) cut(at time.Duration, end End) {
	p.to, p.end = at, end
	p.flips = slices.DeleteFunc(p.flips, func(x time.Duration) bool { return x >= at })
}

// beats are when it tells that it is there.
func (p *truth) beats() (all []time.Duration) {
	for at := p.from + eveningBeat; at <= p.to; at += eveningBeat {
		all = append(all, at)
	}
	return all
}

// visible are when the page could be seen.
func (p *truth) visible() (all []Range) {
	edges := append(append([]time.Duration{p.from}, p.flips...), p.to)
	for i := 0; i+1 < len(edges); i += 2 {
		all = append(all, Range{edges[i].Milliseconds(), edges[i+1].Milliseconds()})
	}
	return all
}

// A broadcast of which all is known: people come early and late, reconnect, watch on three devices, hide and show the page; one node is
// killed, another one is paused. What is shaped is what they did, to the millisecond, but for the killed node's viewers, who are at most
// one checkpoint short. Nobody is missing, and nobody is invented.
func TestBroadcastOfWhichAllIsKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var (
			start = time.Now()
			s     = newStream()
			mu    sync.Mutex
			held  chan struct{} // while a node is paused
			nodes []*Tracker
		)
		for n := range eveningNodes {
			nodes = append(nodes, newNode(t, s, func(c *Config) {
				c.Beat = eveningBeat
				c.Now = func() time.Time {
					mu.Lock()
					h := held
					mu.Unlock()
					if h != nil && n == pausedNode {
						<-h
					}
					return time.Now()
				}
			}))
		}
		people := withFaults(play(rand.New(rand.NewPCG(1, 2)), *sessions))
		steps := schedule(people, nodes)
		steps = append(steps,
			step{pausedAt, func() { mu.Lock(); held = make(chan struct{}); mu.Unlock() }},
			step{resumedAt, func() { mu.Lock(); close(held); held = nil; mu.Unlock() }},
			step{killedAt, nodes[killedNode].kill},
		)
		slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
		for _, x := range steps {
			time.Sleep(time.Until(start.Add(x.at)))
			x.do()
		}
		time.Sleep(10 * time.Minute)
		for n, node := range nodes {
			if n != killedNode {
				if err := node.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		b := Broadcast{Room: "a", ID: "1", Waiting: start.UnixMilli(), Began: start.Add(eveningBegan).UnixMilli(), Ended: start.Add(eveningEnded).UnixMilli()}
		out := Shape(s.fold(t, "a"), b, time.Now().UnixMilli(), nil)
		compare(t, &out, people)
		for _, i := range out.Intervals {
			if i.End == "" {
				t.Fatalf("%+v has no end", i)
			}
		}
		if again := Shape(s.fold(t, "a"), b, time.Now().UnixMilli(), nil); fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", out) {
			t.Error("the same rows make something else")
		}
		t.Logf("%d sessions, %d intervals of %d users in the broadcast, %d estimated, peak %d", len(people), out.Summary.Intervals, out.Summary.Users, out.Summary.Estimated, out.Summary.Peak)
	})
}

// play makes up what people do.
func play(random *rand.Rand, n int) (all []*truth) {
	between := func(from, to time.Duration) time.Duration {
		return from + time.Duration(random.Int64N(int64((to-from)/time.Millisecond)))*time.Millisecond
	}
	for user := 0; len(all) < n; user++ {
		add := func(from, to time.Duration) {
			p := &truth{user: fmt.Sprintf("user-%d", user), node: random.IntN(eveningNodes), from: from, to: to, end: []End{EndLeft, EndLost, EndDrained}[random.IntN(3)], plays: random.IntN(2) == 0}
			for at := from; random.IntN(3) > 0; {
				if at = between(at+2*time.Second, at+8*time.Minute); at < to {
					p.flips = append(p.flips, at)
				}
			}
			all = append(all, p)
		}
		switch from := between(0, eveningEnded+2*time.Minute); random.IntN(4) {
		case 0, 1: // once
			add(from, between(from, from+30*time.Minute))
		case 2: // reconnects
			for range 1 + random.IntN(4) {
				to := between(from, from+9*time.Minute)
				add(from, to)
				from = between(to, to+3*time.Minute)
			}
		case 3: // three devices, for a time of which each has a part
			for range 3 {
				begin := between(from, from+10*time.Minute)
				add(begin, between(begin, begin+20*time.Minute))
			}
		}
	}
	return all
}

// withFaults is what becomes of people when a node is killed and another one is paused.
func withFaults(people []*truth) []*truth {
	var back []*truth
	for _, p := range people {
		switch {
		case p.node == killedNode && p.from >= killedAt, p.node == pausedNode && p.from >= pausedAt && p.from < resumedAt+5*time.Second:
			p.node = 0 // that one is not there
		case p.node == killedNode && p.to > killedAt:
			p.killed = true
			p.cut(killedAt, EndDied)
		case p.node == pausedNode && p.from < pausedAt && p.to > pausedAt:
			if again := pausedAt + 12*time.Second; p.to > again { // no answer to a beat
				back = append(back, &truth{user: p.user, node: 1, from: again, to: p.to, end: p.end, plays: p.plays})
			}
			p.cut(pausedAt, EndLost)
			// It was there for sure at the last tick, and when it said something.
			to := max(lastTick, p.from)
			for _, at := range append(p.beats(), p.flips...) {
				to = max(to, at)
			}
			p.cut(to+time.Nanosecond, EndLost)
			p.to = to
		}
	}
	return append(people, back...)
}

type step struct {
	at time.Duration
	do func()
}

// schedule is what nodes see of people.
func schedule(people []*truth, nodes []*Tracker) (all []step) {
	for i, p := range people {
		position := func(at time.Duration) *int64 {
			if !p.plays {
				return nil
			}
			ms := (at - p.from).Milliseconds()
			return &ms
		}
		p.told = p.from
		all = append(all, step{p.from, func() {
			p.viewer = &viewer{who: Who{User: p.user, Session: fmt.Sprint("s", i), Device: DeviceTV}}
			nodes[p.node].Join(&p.viewer.View, p.viewer, "a", "", yes(true), position(p.from))
		}})
		for _, at := range p.beats() {
			p.told = max(p.told, at)
			all = append(all, step{at, func() { p.viewer.Beat(nil, position(at)) }})
		}
		for n, at := range p.flips {
			p.told = max(p.told, at)
			all = append(all, step{at, func() { p.viewer.Beat(yes(n%2 == 1), position(at)) }})
		}
		switch {
		case p.killed:
		case p.node == pausedNode && p.end == EndLost && p.to >= lastTick && p.to < resumedAt && p.to <= pausedAt:
			all = append(all, step{resumedAt + time.Duration(i%5000)*time.Millisecond, func() { p.viewer.Leave(EndLost, 0) }})
		default:
			all = append(all, step{p.to, func() { p.viewer.Leave(p.end, 0) }})
		}
	}
	return all
}

// compare compares what was shaped with what people did.
func compare(t *testing.T, out *Shaped, people []*truth) {
	t.Helper()
	type sums struct {
		connected, waited, visible, played []Range
		killed                             int
		brief                              int64 // milliseconds that need not be known
		there                              bool
	}
	all := map[string]*sums{}
	before, during := Range{0, eveningBegan.Milliseconds()}, Range{eveningBegan.Milliseconds(), eveningEnded.Milliseconds()}
	for _, p := range people {
		u := all[p.user]
		if u == nil {
			u = &sums{}
			all[p.user] = u
		}
		self := []Range{{p.from.Milliseconds(), p.to.Milliseconds()}}
		overlaps := p.to > p.from && p.from < eveningEnded || p.from >= eveningBegan && p.from < eveningEnded
		if p.killed && p.to-p.from < 3*time.Second {
			u.killed, u.brief = u.killed+1, u.brief+(p.to-p.from).Milliseconds()
			continue // it came as the node was killed
		}
		if p.killed {
			u.killed++
		}
		u.there = u.there || overlaps
		u.connected = append(u.connected, clip(self, during)...)
		u.waited = append(u.waited, clip(self, before)...)
		u.visible = append(u.visible, clip(p.visible(), during)...)
		if p.plays {
			told := p.told
			if p.killed {
				told = p.to
			}
			u.played = append(u.played, clip([]Range{{p.from.Milliseconds(), told.Milliseconds()}}, during)...)
		}
	}
	found := map[string]User{}
	for _, u := range out.Users {
		found[u.ID] = u
	}
	wrong := 0
	for id, u := range all {
		got, is := found[id]
		if is != u.there {
			if u.killed == 0 {
				t.Errorf("%s is there: %t, shaped: %t", id, u.there, is)
			}
			continue
		}
		for _, c := range []struct {
			what string
			got  int64
			want []Range
		}{{"connected", got.ConnectedMS, u.connected}, {"waited", got.WaitedMS, u.waited}, {"visible", got.VisibleMS, u.visible}, {"played", got.PlayedMS, u.played}} {
			want := total(union(c.want, 0))
			short := int64(u.killed) * (defaultEvery + 2*time.Second).Milliseconds()
			if c.what == "played" { // that it plays is known with the first beat
				short += int64(u.killed) * eveningBeat.Milliseconds()
			}
			if c.got > want+u.brief || c.got < want-short {
				if wrong++; wrong < 20 {
					t.Errorf("%s: %s %d ms, in truth %d (on the killed node %d times)", id, c.what, c.got, want, u.killed)
				}
			}
		}
		if u.killed == 0 && got.Estimated {
			t.Errorf("%s is estimated", id)
		}
	}
	if wrong > 0 {
		t.Errorf("%d times are wrong", wrong)
	}
	if len(found) > len(all) {
		t.Errorf("%d users, in truth %d", len(found), len(all))
	}
}
