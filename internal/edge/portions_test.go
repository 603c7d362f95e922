package edge

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
)

// where is a roster that knows on how many nodes users are.
type where struct {
	hub.Roster
	nodes map[string]int
	asked int
	fails bool
}

func (w *where) Nodes(_ context.Context, _ string, users []string) ([]int, error) {
	w.asked++
	if w.fails {
		return nil, errors.New("away")
	}
	out := make([]int, len(users))
	for i, u := range users {
		out[i] = w.nodes[u]
	}
	return out, nil
}

// A node gives a user the share of the rate that belongs to it, asks now and then, and keeps what it
// knows while it cannot ask.
func TestShares(t *testing.T) {
	t.Parallel()
	users := newUsers()
	roster := &where{nodes: map[string]int{"on three": 3, "alone": 1, "gone": 0}}
	s := &portions{roster: roster}
	rate := Rate{PerS: 3, Burst: 6}
	now := time.Now()
	all := map[string]*entry[user]{}
	for id := range roster.nodes {
		all[id] = users.connect(userOf("r", id), 0, now)
	}
	// may counts how many comments an entry takes, and whether its share is to be asked for.
	may := func(e *entry[user], now time.Time) (n int, ask bool) {
		for {
			wait, want := e.takeShare(rate, now)
			ask = ask || want
			if wait > 0 {
				return n, ask
			}
			n++
		}
	}
	for id, e := range all {
		if n, ask := may(e, now); n != 6 || !ask {
			t.Errorf("%s: %d at once, asked %v", id, n, ask)
		}
		s.want(e)
	}
	s.ask(t.Context())
	later := now.Add(4 * time.Second)
	for id, want := range map[string]int{"on three": 2, "alone": 6, "gone": 6} {
		if n, ask := may(all[id], later); n != want || ask {
			t.Errorf("%s: %d, want %d; asked again %v", id, n, want, ask)
		}
	}
	// A third of three a second is one.
	if n, _ := may(all["on three"], later.Add(1100*time.Millisecond)); n != 1 {
		t.Errorf("%d a second later", n)
	}
	roster.fails = true
	s.want(all["on three"])
	s.ask(t.Context())
	if n, ask := may(all["on three"], later.Add(time.Minute)); n != 2 || !ask {
		t.Errorf("%d while nobody can be asked; asked again %v", n, ask)
	}
	roster.fails, roster.nodes["on three"] = false, 1
	s.want(all["on three"])
	s.ask(t.Context())
	if n, _ := may(all["on three"], later.Add(2*time.Minute)); n != 6 {
		t.Errorf("%d when the user is here alone", n)
	}
	if s.ask(t.Context()); roster.asked != 3 {
		t.Errorf("asked %d times", roster.asked)
	}
}

// A user who is on several nodes may have as many connections on each as make the limit together.
func TestShareOfConnections(t *testing.T) {
	t.Parallel()
	users := newUsers()
	roster := &where{nodes: map[string]int{"u": 4}}
	s := &portions{roster: roster}
	now := time.Now()
	const most = 32
	come := func() *entry[user] {
		e := users.connect(userOf("r", "u"), most, now)
		if e != nil && e.crowd(most, now) {
			s.want(e)
		}
		return e
	}
	n := 0
	for range most / crowdPart { // few are not asked for
		if come() == nil {
			t.Fatal("refused")
		}
		n++
	}
	if s.ask(t.Context()); roster.asked != 0 {
		t.Error("asked for a user with few connections")
	}
	come()
	s.ask(t.Context())
	for n++; come() != nil; n++ {
	}
	if n != most/4 || roster.asked != 1 {
		t.Errorf("%d connections on one of four nodes, asked %d times", n, roster.asked)
	}
}
