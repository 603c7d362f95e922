package edge

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

var (
	testRate     = Rate{PerS: 1, Burst: 5}
	testMessages = Rate{PerS: 12, Burst: 50}
)

// comments is how many comments somebody can make at once.
func comments(r *registry[user], who user, now time.Time) (n int) {
	e := r.hold(who, now)
	defer e.release(testRate, testMessages, now)
	for e.takeComment(testRate, now) == 0 {
		n++
	}
	return n
}

// entries is how many entries a registry has, and how many of them are idle.
func entries[K comparable](r *registry[K]) (all, idle int) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		all += len(s.of)
		idle += len(s.idle)
		s.mu.Unlock()
	}
	return all, idle
}

// Whoever goes away and comes back has what was left, whatever others do meanwhile, and is
// forgotten when that is everything.
func TestForgettingDoesNotRefill(t *testing.T) {
	t.Parallel()
	r := newUsers()
	now := time.Now()
	owner := userOf("r", "owner")
	if n := comments(r, owner, now); n != 5 {
		t.Fatalf("a new user has %d comments", n)
	}
	for i := range 10_000 {
		comments(r, userOf("r", fmt.Sprint(i)), now)
	}
	if n := comments(r, owner, now); n != 0 {
		t.Errorf("after 10,000 others %d comments are there", n)
	}
	if n := comments(r, userOf("other", "owner"), now); n != 5 {
		t.Errorf("in another room %d comments are there", n)
	}
	now = now.Add(2 * time.Second)
	if n := comments(r, owner, now); n != 2 {
		t.Errorf("two seconds later %d comments are there", n)
	}
	now = now.Add(5 * time.Second)
	for i := range 10_000 { // they clear away what is full, and take nothing themselves
		r.hold(userOf("r", fmt.Sprint(i)), now).release(testRate, testMessages, now)
	}
	if all, idle := entries(r); all != 0 || idle != 0 {
		t.Errorf("%d entries are left, %d of them idle", all, idle)
	}
}

// Beyond the bound entries are pushed out, and still nobody has more than if all were
// remembered.
func TestPushedOutDoesNotRefill(t *testing.T) {
	t.Parallel()
	const most = 4 * registryShards
	r := newRegistry[user](most)
	reference := newUsers()
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	refused := 0
	for range 50_000 {
		now = now.Add(time.Duration(random.IntN(4)) * time.Millisecond)
		who := userOf("r", fmt.Sprint(random.IntN(1000)))
		was := reference.hold(who, now)
		is := r.hold(who, now)
		for range random.IntN(7) {
			may, does := was.takeComment(testRate, now) == 0, is.takeComment(testRate, now) == 0
			switch {
			case does && !may:
				t.Fatalf("%s has more than if it had been remembered", who.id)
			case may && !does:
				refused++
				was.giveBackComment() // the other one did not take it
			}
		}
		was.release(testRate, testMessages, now)
		is.release(testRate, testMessages, now)
		if _, idle := entries(r); idle > most {
			t.Fatalf("%d idle entries", idle)
		}
	}
	if refused == 0 {
		t.Error("nobody was pushed out")
	}
	now = now.Add(time.Minute)
	if n := comments(r, userOf("r", "newcomer"), now); n != 5 {
		t.Errorf("a minute later a newcomer has %d comments", n)
	}
}

func TestConnectionsOfOne(t *testing.T) {
	t.Parallel()
	r := newUsers()
	now := time.Now()
	who := userOf("r", "u")
	var all []*entry[user]
	for range 3 {
		all = append(all, r.connect(who, 3, now))
	}
	if e := r.connect(who, 3, now); e != nil {
		t.Error("a fourth connection of three")
	}
	if n := r.connections(who); n != 3 {
		t.Errorf("%d connections", n)
	}
	h := r.hold(who, now) // a request is no connection
	all[0].disconnect(testRate, testMessages, now)
	if e := r.connect(who, 3, now); e != all[0] {
		t.Error("no place for a third connection, or with an entry of its own")
	}
	for _, e := range all {
		e.disconnect(testRate, testMessages, now)
	}
	h.release(testRate, testMessages, now)
	if n, _ := entries(r); n != 0 || r.connections(who) != 0 {
		t.Errorf("%d entries are left", n)
	}
	for range 1000 {
		r.connect(who, 0, now)
	}
	if n := r.connections(who); n != 1000 {
		t.Errorf("%d connections without a limit", n)
	}
}

// Everybody comes and goes at once; at the end nobody is held.
func TestRegistryAtOnce(t *testing.T) {
	t.Parallel()
	r := newRegistry[user](registryShards)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(uint64(g), 1))
			for range 2000 {
				who := userOf("r", fmt.Sprint(random.IntN(100)))
				e := r.connect(who, 0, time.Now())
				e.takeMessage(testMessages, time.Now())
				for random.IntN(2) == 0 {
					e.takeComment(testRate, time.Now())
				}
				e.disconnect(testRate, testMessages, time.Now())
			}
		})
	}
	wg.Wait()
	if all, idle := entries(r); all != idle || idle > registryShards {
		t.Errorf("%d entries, %d of them idle", all, idle)
	}
}

// To comment allocates nothing, and to join as somebody who is here either.
func TestRegistryAllocates(t *testing.T) {
	r := newUsers()
	now := time.Now()
	who := userOf("room", "user")
	e := r.connect(who, 32, now)
	if n := testing.AllocsPerRun(1000, func() {
		e.takeMessage(testMessages, now)
		e.takeComment(testRate, now)
		r.connect(who, 0, now).disconnect(testRate, testMessages, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRegistry(b *testing.B) {
	now := time.Now()
	b.Run("comment", func(b *testing.B) {
		e := newUsers().connect(userOf("room", "user"), 32, now)
		b.ReportAllocs()
		for b.Loop() {
			e.takeMessage(testMessages, now)
			e.takeComment(testRate, now)
		}
	})
	b.Run("join", func(b *testing.B) { // among 50,000, of whom each commented
		r := newUsers()
		names := make([]string, 50_000)
		for i := range names {
			names[i] = fmt.Sprint("user", i)
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			e := r.connect(userOf("room", names[i%len(names)]), 32, now)
			e.takeComment(testRate, now)
			e.disconnect(testRate, testMessages, now)
			now = now.Add(20 * time.Microsecond)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		r := newUsers()
		b.RunParallel(func(pb *testing.PB) {
			e := r.connect(userOf("room", fmt.Sprint(rand.Uint64())), 32, now)
			for pb.Next() {
				e.takeMessage(testMessages, now)
			}
		})
	})
}
