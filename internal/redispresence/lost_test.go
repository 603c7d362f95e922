package redispresence

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/test/ports"
)

// tally is what is true of some rooms on some nodes.
type tally struct {
	nodes []*node
	views []map[string]*view
	conns []map[string]map[string]int // room → user → connections
}

func (y *tally) join(i int, room, user string) {
	v := y.views[i][room]
	if v == nil {
		v = y.nodes[i].open(room)
		y.views[i][room], y.conns[i][room] = v, map[string]int{}
	}
	v.Join(user)
	y.conns[i][room][user]++
}

func (y *tally) leave(i int, room, user string) {
	y.views[i][room].Leave(user)
	if y.conns[i][room][user]--; y.conns[i][room][user] == 0 {
		delete(y.conns[i][room], user)
	}
}

// exact compares what Redis holds and what the nodes were told with what is true.
func (y *tally) exact(w *world) error {
	base := newKeys(DefaultPrefix, 0)
	rooms := map[string]bool{}
	for i := range y.nodes {
		for room := range y.views[i] {
			rooms[room] = true
		}
	}
	for room := range rooms {
		truth, conns := map[string]string{}, 0
		for i := range y.nodes {
			for u, n := range y.conns[i][room] {
				before, _ := strconv.Atoi(truth[u])
				truth[u] = strconv.Itoa(before + 1)
				conns += n
			}
		}
		got, err := w.raw.HGetAll(w.ctx, base.users(room)).Result()
		if err != nil {
			return err
		}
		if !maps.Equal(got, truth) {
			return fmt.Errorf("room %s: redis has %v, true is %v", room, got, truth)
		}
		for i := range y.nodes {
			if v := y.views[i][room]; v != nil {
				if err := v.is(len(truth), conns); err != nil {
					return fmt.Errorf("room %s, node %d: %w", room, i, err)
				}
			}
		}
	}
	return nil
}

// kindOf is a key without the names in it that differ from run to run.
func kindOf(key string) string {
	_, name, _ := strings.Cut(key, "}:")
	if kind, rest, ok := strings.Cut(name, ":"); ok {
		if kind == "m" {
			return "m:" + strings.Split(rest, ":")[1]
		}
		if kind == "u" {
			return name
		}
		return kind
	}
	return name
}

// crowded makes a world with people in it, and with what is left of some who have gone.
func crowded(t *testing.T) (*world, *tally) {
	t.Helper()
	w := newWorld(t)
	y := &tally{}
	for i := range 3 {
		y.nodes = append(y.nodes, w.node())
		y.views, y.conns = append(y.views, map[string]*view{}), append(y.conns, map[string]map[string]int{})
		for _, room := range []string{"a", "b"} {
			y.join(i, room, "both")
			for _, u := range users(5) {
				y.join(i, room, fmt.Sprint(u, i))
			}
		}
	}
	// Two nodes that have died, and a room of the past.
	dead, old, late := w.node(), w.node(), w.node()
	late.open("a").Join("later")
	dead.open("a").Join("ghost")
	dead.open("b").Join("both")
	past := old.open("past")
	past.Join("ann")
	past.Join("bob")
	w.mustRound(dead, old, late)
	past.Close()
	w.mustRound(old)
	for range linger {
		w.pass(500 * time.Millisecond)
		w.mustRound(append(y.nodes, old)...)
	}
	// Somebody has declared one of the dead dead, and has died itself.
	keys, claimed := dead.buckets[0].keys, dead.buckets[0].inc
	w.mini.HSet(keys.base+"tick", claimed, "dead 2 "+strconv.FormatInt(dead.buckets[0].seen, 10))
	w.raw.ZRem(w.ctx, keys.base+"lease", claimed)
	w.raw.ZAdd(w.ctx, keys.base+"grave", redis.Z{Score: float64(w.now.Add(2 * time.Second).UnixMilli()), Member: claimed})
	return w, y
}

// TestEveryLostKeyHeals has Redis lose each of its keys, and then lets the nodes be quiet,
// has somebody come and go everywhere, or has a node die that nobody heard of since. The
// counts must be exact in time, and stay so.
func TestEveryLostKeyHeals(t *testing.T) {
	t.Parallel()
	const inTime = 30 // seconds; a look at all rooms takes 8, a lease 6
	for what, then := range map[string]func(*tally){
		"quiet": func(*tally) {},
		"busy": func(y *tally) {
			for i := range y.nodes {
				for _, room := range []string{"a", "b"} {
					y.join(i, room, fmt.Sprint("new", i))
					y.leave(i, room, "both")
				}
			}
		},
		"death": func(y *tally) {
			y.nodes, y.views, y.conns = y.nodes[1:], y.views[1:], y.conns[1:]
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			kinds := map[string]bool{}
			for n := 0; ; n++ {
				w, y := crowded(t)
				all := slices.Sorted(maps.Keys(w.snapshot()))
				if n >= len(all) {
					break
				}
				kind := kindOf(all[n])
				kinds[kind] = true
				w.mini.Del(all[n])
				then(y)
				exactSince := -1
				var wrong error
				for s := range 2 * inTime {
					w.pass(time.Second)
					w.mustRound(y.nodes...)
					if wrong = y.exact(w); wrong != nil {
						exactSince = -1
					} else if exactSince < 0 {
						exactSince = s
					}
				}
				if wrong != nil || exactSince > inTime {
					t.Errorf("%s lost: exact after %d s; %v", kind, exactSince, wrong)
				}
				// Nobody is left in it but the living.
				if left, err := w.keys(y.nodes[0].buckets[0].keys, "i:"); err != nil || len(left) != len(y.nodes) {
					t.Errorf("%s lost: left in redis: %q, %v", kind, left, err)
				}
			}
			for _, want := range []string{"lease", "tick", "grave", "counts", "changes", "idle", "peaks", "i", "u:a", "m:a", "m:@", "heat"} {
				if !kinds[want] {
					t.Errorf("key %s was never lost; %v were", want, slices.Sorted(maps.Keys(kinds)))
				}
			}
		})
	}
}

// TestTwoLostKeysHeal has Redis lose two of the keys that all nodes share, one after the
// other, while somebody dies. The counts must be exact in time, though something may be
// left of the dead that counts for nothing.
func TestTwoLostKeysHeal(t *testing.T) {
	t.Parallel()
	shared := []string{"lease", "tick", "grave", "counts", "changes", "idle", "peaks"}
	for i, one := range shared {
		for _, two := range shared[i+1:] {
			for between := range 2 {
				w, y := crowded(t)
				base := y.nodes[0].buckets[0].keys.base
				y.nodes, y.views, y.conns = y.nodes[1:], y.views[1:], y.conns[1:]
				w.mini.Del(base + one)
				for range between {
					w.pass(time.Second)
					w.mustRound(y.nodes...)
				}
				w.mini.Del(base + two)
				for range 40 {
					w.pass(time.Second)
					w.mustRound(y.nodes...)
				}
				if err := y.exact(w); err != nil {
					t.Errorf("%s and %s lost %d s apart: %v", one, two, between, err)
				}
			}
		}
	}
}

// TestEvictionHeals has a real Redis evict what it likes for a while.
func TestEvictionHeals(t *testing.T) {
	t.Parallel()
	s := dial(t, startProcess(t, ports.ForTest(t).Number, "--maxmemory-policy", "allkeys-lru"))
	ctx := context.Background()
	a, b := s.node(t, func(c *Config) { c.Buckets = 2 }), s.node(t, func(c *Config) { c.Buckets = 2 })
	var here, there []*view
	for i := range 40 {
		here, there = append(here, a.open(fmt.Sprint("room", i))), append(there, b.open(fmt.Sprint("room", i)))
		for _, u := range users(200) {
			here[i].Join(u)
			there[i].Join(u + "b")
		}
	}
	for i := range here {
		here[i].want(t, "all in", 400, 400)
		there[i].want(t, "all in", 400, 400)
	}
	evicted := func() int {
		info, err := s.raw.InfoMap(ctx, "stats").Result()
		if err != nil {
			t.Fatal(err)
		}
		n, _ := strconv.Atoi(info["Stats"]["evicted_keys"])
		return n
	}
	squeeze(t, s)
	for i := range here {
		here[i].Join("late")
		there[i].Leave("user-000000b")
	}
	eventually(t, "some keys are evicted", func() error {
		if n := evicted(); n < 20 {
			return fmt.Errorf("%d are", n)
		}
		return nil
	})
	limit(t, s, 0)
	for i := range here {
		here[i].want(t, "here", 400, 400)
		there[i].want(t, "there", 400, 400)
	}
	eventually(t, "it says what is wrong", func() error { return says(a, "allkeys-lru") })
}

// TestHealthyRoomsAreNotWrittenAnew lets nodes come and go by the rules: nothing is taken
// for lost.
func TestHealthyRoomsAreNotWrittenAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node(), w.node()
	here, there := a.open("room"), b.open("room")
	for i, u := range users(1300) {
		here.Join(u)
		if i%3 == 0 {
			there.Join(u)
		}
	}
	for i := range 100 {
		w.pass(time.Second)
		v := a.open(fmt.Sprint("passing", i%7))
		v.Join("ann")
		w.mustRound(a, b)
		here.Leave(users(1300)[i])
		w.mustRound(a)
		v.Close()
		if i == 50 {
			w.pass(time.Minute) // both are away for longer than their leases
		}
	}
	victim := w.node()
	victim.open("room").Join("ghost")
	w.mustRound(victim)
	for range 20 {
		w.pass(time.Second)
		w.mustRound(a, b)
	}
	if err := there.is(1300-100+34, 1300-100+434); err != nil {
		t.Error(err)
	}
	for _, n := range []*node{a, b} {
		for _, reason := range []string{resyncLost, resyncReaped, resyncTick, resyncKeys} {
			if n.resyncs(reason) != 0 {
				t.Errorf("written anew: %s", reason)
			}
		}
	}
}

// TestPeaksAreBounded: names that somebody makes up cost Redis nothing for long.
func TestPeaksAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node()
	most, _ := strconv.Atoi(maxPeaks)
	for i := range most + 100 {
		if i%100 == 0 {
			w.pass(time.Second)
			w.mustRound(n)
		}
		v := n.open(fmt.Sprint("room", i))
		v.Join("ann")
		v.Join("bob")
		if i%100 == 99 {
			w.mustRound(n)
			for j := i - 99; j <= i; j++ {
				n.buckets[0].rooms[fmt.Sprint("room", j)].members[0].Close()
			}
		}
	}
	w.pass(time.Second)
	w.mustRound(n)
	keys := n.buckets[0].keys
	for _, key := range []string{"idle", "peaks"} {
		if got := w.snapshot()[keys.base+key]; got == nil {
			t.Fatalf("no %s", key)
		}
	}
	if got := w.raw.HLen(w.ctx, keys.base+"peaks").Val(); int(got) != most {
		t.Errorf("%d peaks are kept, want %d", got, most)
	}
	if got := w.raw.ZCard(w.ctx, keys.base+"idle").Val(); int(got) != most {
		t.Errorf("%d idle rooms are kept, want %d", got, most)
	}
	v := n.open("room" + strconv.Itoa(most))
	w.mustRound(n)
	if c := v.last.Load(); c.PeakUsers != 2 {
		t.Errorf("the peak of a late one is %d, want 2", c.PeakUsers)
	}
}

// TestNoKeyHasATimeToLive: a policy that evicts only keys with one cannot evict ours.
func TestNoKeyHasATimeToLive(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		a, b := s.node(t, nil), s.node(t, nil)
		here, there := a.open("room"), b.open("room")
		here.Join("ann")
		there.Join("bob")
		past := a.open("past")
		past.Join("ann")
		past.Join("bob")
		past.want(t, "both", 2, 2)
		past.Close()
		here.want(t, "both", 2, 2)
		b.kill()
		here.want(t, "one is dead", 1, 1)
		ctx := context.Background()
		kinds := map[string]bool{}
		eventually(t, "all kinds of keys", func() error {
			all, err := s.raw.Keys(ctx, "*").Result()
			if err != nil {
				return err
			}
			for _, k := range all {
				kinds[kindOf(k)] = true
				if d, err := s.raw.TTL(ctx, k).Result(); err != nil || d != -1 && d != -2 { // -2: it is gone
					t.Fatalf("%s lives for %v, %v", k, d, err)
				}
			}
			if len(kinds) < 10 {
				return fmt.Errorf("%v", slices.Sorted(maps.Keys(kinds)))
			}
			return nil
		})
	})
}
