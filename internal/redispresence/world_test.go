package redispresence

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// world is a Redis and some nodes on one made-up clock, whose flushes the test does.
type world struct {
	*server
	t     *testing.T
	mini  *miniredis.Miniredis
	now   time.Time
	ctx   context.Context
	rooms []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	m := miniredis.RunT(t)
	w := &world{server: dial(t, "redis://"+m.Addr()), t: t, mini: m, ctx: context.Background()}
	w.now = time.Unix(1_700_000_000, 0)
	m.SetTime(w.now)
	return w
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.mini.SetTime(w.now)
}

// node makes a node with one bucket and the times of production.
func (w *world) node() *node {
	n := w.prepare(w.t, func(c *Config) {
		c.Buckets, c.Interval, c.Lease = 1, DefaultInterval, DefaultLease
	})
	n.now = func() time.Time { return w.now }
	return n
}

// flush does one flush of the node's bucket.
func (w *world) flush(n *node) error {
	b := n.buckets[0]
	err := b.flush(w.ctx)
	b.finish(err)
	return err
}

func (w *world) mustRound(nodes ...*node) {
	w.t.Helper()
	for _, n := range nodes {
		if err := w.flush(n); err != nil {
			w.t.Fatal(err)
		}
	}
}

type listValue []string

// snapshot returns all that Redis holds, restore makes it hold that again.
func (w *world) snapshot() map[string]any {
	w.t.Helper()
	out := make(map[string]any)
	for _, k := range w.mini.Keys() {
		var err error
		switch w.mini.Type(k) {
		case "hash":
			out[k], err = w.raw.HGetAll(w.ctx, k).Result()
		case "set":
			out[k], err = w.raw.SMembers(w.ctx, k).Result()
		case "zset":
			out[k], err = w.raw.ZRangeWithScores(w.ctx, k, 0, -1).Result()
		case "list":
			var list listValue
			list, err = w.raw.LRange(w.ctx, k, 0, -1).Result()
			out[k] = list
		case "string":
			out[k], err = w.raw.Get(w.ctx, k).Result()
		default:
			w.t.Fatalf("key %q is a %s", k, w.mini.Type(k))
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
	return out
}

func (w *world) restore(keys map[string]any) {
	w.t.Helper()
	w.mini.FlushAll()
	for k, v := range keys {
		var err error
		switch v := v.(type) {
		case map[string]string:
			err = w.raw.HSet(w.ctx, k, v).Err()
		case listValue:
			err = w.raw.RPush(w.ctx, k, []string(v)).Err()
		case []string:
			err = w.raw.SAdd(w.ctx, k, v).Err()
		case []redis.Z:
			err = w.raw.ZAdd(w.ctx, k, v...).Err()
		case string:
			err = w.raw.Set(w.ctx, k, v, 0).Err()
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// actor is a node in the random test, with what is true of it.
type actor struct {
	*node
	err    error     // of the last flush
	frozen time.Time // it does nothing until then
	views  map[string]*view
	conns  map[string]map[string]int    // room → user → connections
	names  map[string]map[string]string // room → user → what the latest of them said
}

type lateCommand struct {
	at   time.Time
	args []any
}

// TestRandomFaults lets everything go wrong that can, in a random order: lost and
// late requests, lost answers, nodes that pause and die, a Redis that forgets all,
// loses single keys, goes back to an older state or has no memory. Then it lets all come
// to rest, and the counts must be exact. More seeds run with KANSEI_ROSTER_SEEDS=1000.
func TestRandomFaults(t *testing.T) {
	t.Parallel()
	seeds := 4
	if s := os.Getenv("KANSEI_ROSTER_SEEDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("KANSEI_ROSTER_SEEDS=%q: %v", s, err)
		}
		seeds = n
	}
	for seed := range seeds {
		t.Run("seed "+strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			randomFaults(t, uint64(seed))
		})
	}
}

func randomFaults(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	w := newWorld(t)
	w.rooms = []string{"a", "b", "c", "d"}
	most := 40
	if seed%2 == 1 {
		most = 150 // shares are divided
	}
	var actors []*actor
	var late []lateCommand
	happened := make(map[string]int)
	lossy, full := true, false
	backEnd := &consumer{t: t, gens: map[string]string{}, rooms: map[string]map[string]bool{}, ids: map[string]bool{}}
	backEnd.reader = w.node()
	add := func() {
		a := &actor{node: w.node(), views: map[string]*view{}, conns: map[string]map[string]int{}, names: map[string]map[string]string{}}
		a.cfg.Publish = func(_ context.Context, _, id string, body []byte) error {
			if lossy && rng.IntN(10) == 0 {
				return errFault
			}
			return backEnd.hear(id, body)
		}
		a.line.fault = func(cmd redis.Cmder) (before, after bool) {
			if !lossy {
				return false, false
			}
			switch rng.IntN(30) {
			case 0:
				happened["lost"]++
				return true, false
			case 1, 2:
				happened["late"]++
				late = append(late, lateCommand{w.now.Add(time.Duration(rng.IntN(6000)) * time.Millisecond), slices.Clone(cmd.Args())})
				return true, false
			case 3, 4:
				happened["answer lost"]++
				return false, true
			}
			return false, false
		}
		a.line.full = func() bool {
			if full {
				happened["at maxmemory"]++
			}
			return full
		}
		actors = append(actors, a)
	}
	deliver := func() {
		late = slices.DeleteFunc(late, func(c lateCommand) bool {
			if c.at.After(w.now) {
				return false
			}
			_ = w.raw.Do(w.ctx, c.args...).Err() // refused or not: nobody waits for it
			return true
		})
	}
	step := func(a *actor) {
		if w.now.Before(a.frozen) {
			return
		}
		if a.err = w.flush(a.node); a.err != nil {
			happened["flushes failed"]++
		}
		if !a.buckets[0].live {
			_ = a.buckets[0].sweep(w.ctx, true)
		}
		w.publish(a.node)
	}
	for range 3 {
		add()
	}
	var saved map[string]any
	for range 15 * most {
		w.pass(time.Duration(rng.IntN(200)) * time.Millisecond)
		deliver()
		a := actors[rng.IntN(len(actors))]
		room := w.rooms[rng.IntN(len(w.rooms))]
		switch x := rng.IntN(1000); {
		case w.now.Before(a.frozen):
		case x < 520:
			if a.views[room] == nil {
				a.views[room] = a.open(room)
				a.conns[room], a.names[room] = map[string]int{}, map[string]string{}
			}
			u := "u" + strconv.Itoa(rng.IntN(most))
			name := fmt.Sprint("name ", rng.IntN(3))
			a.views[room].Membership.Join(hub.Member{ID: u, Name: name, Role: protocol.RoleModerator})
			a.names[room][u] = name
			a.conns[room][u]++
		case x < 900:
			all := slices.Sorted(maps.Keys(a.conns[room]))
			if len(all) == 0 {
				break
			}
			u := all[rng.IntN(len(all))]
			a.views[room].Leave(u)
			if a.conns[room][u]--; a.conns[room][u] == 0 {
				delete(a.conns[room], u)
			}
		case x < 930:
			if v := a.views[room]; v != nil {
				v.Close()
				delete(a.views, room)
				delete(a.conns, room)
				happened["closed"]++
			}
		case x < 950:
			a.frozen = w.now.Add(time.Duration(rng.IntN(9000)) * time.Millisecond)
			happened["paused"]++
		case x < 958 && len(actors) > 2:
			actors = slices.DeleteFunc(actors, func(o *actor) bool { return o == a })
			happened["killed"]++
		case x < 966:
			add()
		case x < 972:
			w.mini.FlushAll()
			happened["flushed"]++
		case x < 982:
			saved = w.snapshot()
		case x < 990 && saved != nil:
			w.restore(saved)
			happened["rolled back"]++
		}
		if rng.IntN(30) == 0 {
			if all := w.mini.Keys(); len(all) > 0 {
				key := all[rng.IntN(len(all))]
				w.mini.Del(key)
				happened["lost "+kindOf(key)]++
			}
		}
		if rng.IntN(40) == 0 {
			full = !full && rng.IntN(2) == 0
		}
		for _, a := range actors {
			if rng.IntN(3) == 0 {
				step(a)
			}
		}
	}
	lossy, full = false, false
	for range 160 {
		w.pass(200 * time.Millisecond)
		deliver()
		for _, a := range actors {
			a.frozen = time.Time{}
			step(a)
		}
	}
	t.Log(happened)
	for i, a := range actors {
		if a.err != nil {
			t.Errorf("node %d of %d fails to the end: %v", i, len(actors), a.err)
		}
	}
	base := newKeys(DefaultPrefix, 0)
	w.listsAreTrue(actors)
	for _, room := range w.rooms {
		truth := map[string]bool{}
		for _, a := range actors {
			for u := range a.conns[room] {
				truth[u] = true
			}
		}
		if got := backEnd.rooms[room]; !maps.Equal(got, truth) && len(got)+len(truth) > 0 {
			t.Errorf("room %s: a back end that was told of joins and leaves takes %v to be there, true are %v", room, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(truth)))
		}
	}
	for _, room := range w.rooms {
		truth, conns := make(map[string]string), 0
		for _, a := range actors {
			for u, n := range a.conns[room] {
				before, _ := strconv.Atoi(truth[u])
				truth[u] = strconv.Itoa(before + 1)
				conns += n
			}
		}
		got, err := w.raw.HGetAll(w.ctx, base.users(room)).Result()
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, truth) {
			t.Errorf("room %s: redis has %v, true is %v", room, got, truth)
		}
		for i, a := range actors {
			if v := a.views[room]; v != nil {
				if err := v.is(len(truth), conns); err != nil {
					t.Errorf("room %s, node %d of %d: %v", room, i, len(actors), err)
				}
			}
		}
	}
	// Nothing is left of the dead but their marks, unless Redis has lost all that named them.
	if happened["lost tick"] > 0 && happened["lost lease"]+happened["lost grave"] > 0 {
		return
	}
	incs := 0
	for _, a := range actors {
		if b := a.buckets[0]; b.live {
			incs++
		}
	}
	if left, err := w.keys(base, "i:"); err != nil || len(left) > incs {
		t.Errorf("%d nodes, but in redis are %q, %v", incs, left, err)
	}
}

// TestRandomLive does the same, with fewer faults, to presences that run by
// themselves against a real Redis.
func TestRandomLive(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 3))
		type live struct {
			*node
			views [3]*view
			conns [3]map[string]int
		}
		var nodes []*live
		for range 4 {
			l := &live{node: s.node(t, func(c *Config) { c.Interval /= 2 })}
			faults := rand.New(rand.NewPCG(seed, uint64(len(nodes))+4))
			l.line.mu.Lock()
			l.line.fault = func(redis.Cmder) (before, after bool) {
				x := faults.IntN(20)
				return x == 0, x == 1
			}
			l.line.mu.Unlock()
			for i := range l.views {
				l.views[i] = l.open("room-" + strconv.Itoa(i))
				l.conns[i] = make(map[string]int)
			}
			nodes = append(nodes, l)
		}
		for range 1500 {
			if rng.IntN(4) == 0 {
				time.Sleep(time.Millisecond)
			}
			l := nodes[rng.IntN(len(nodes))]
			i := rng.IntN(3)
			switch x := rng.IntN(1000); {
			case x < 550:
				u := "u" + strconv.Itoa(rng.IntN(60))
				l.views[i].Join(u)
				l.conns[i][u]++
			case x < 970:
				for u := range l.conns[i] {
					l.views[i].Leave(u)
					if l.conns[i][u]--; l.conns[i][u] == 0 {
						delete(l.conns[i], u)
					}
					break
				}
			case x < 976 && len(nodes) > 2:
				l.kill()
				nodes = slices.DeleteFunc(nodes, func(o *live) bool { return o == l })
			case x < 980:
				if err := s.raw.FlushAll(context.Background()).Err(); err != nil {
					t.Fatal(err)
				}
			case x < 990:
				if key, err := s.raw.RandomKey(context.Background()).Result(); err == nil {
					if err := s.raw.Del(context.Background(), key).Err(); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for _, l := range nodes {
			l.line.heal()
		}
		for i := range 3 {
			truth, conns := make(map[string]bool), 0
			for _, l := range nodes {
				for u, n := range l.conns[i] {
					truth[u] = true
					conns += n
				}
			}
			for j, l := range nodes {
				l.views[i].want(t, fmt.Sprintf("room %d, node %d of %d", i, j, len(nodes)), len(truth), conns)
			}
		}
	})
}
