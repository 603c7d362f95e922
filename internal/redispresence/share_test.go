package redispresence

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// A share's shards hold all places, each once and in order, however far it is divided.
func TestShardsHoldAllPlaces(t *testing.T) {
	t.Parallel()
	at := shape{}
	for n := range 700 {
		next := uint32(0)
		for _, sh := range at.all() {
			from, to := sh.bounds()
			if from != next || to <= from {
				t.Fatalf("shape %v: shard %s has %d to %d, want from %d", at, sh.suffix(), from, to, next)
			}
			for _, p := range []uint32{from, (from + to) / 2, to - 1} {
				if got := at.shard(p); got != sh {
					t.Fatalf("shape %v: place %d is in %s, want %s", at, p, got.suffix(), sh.suffix())
				}
			}
			next = to
		}
		if next != 1<<placeBits {
			t.Fatalf("shape %v ends at %d", at, next)
		}
		if some := at.within(100_000, 100_001); len(some) != 1 || some[0] != at.shard(100_000) {
			t.Fatalf("shape %v: one place lies in %v", at, some)
		}
		from, after := at.next()
		for _, child := range from.children() {
			if a, _ := child.bounds(); after.shard(a) != child {
				t.Fatalf("shape %v: %s is no shard of it, after %d divisions", after, child.suffix(), n)
			}
		}
		at = after
	}
	if got := shapeFor(100_000_000); got.depth != maxDepth {
		t.Errorf("the largest share has depth %d", got.depth)
	}
}

// Places are what is stored: they must never change. And they spread.
func TestPlaces(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]uint32{"": 0o731350, "ann": 0o552266, "さくら": 0o436441} {
		if got := place(id); got != want {
			t.Errorf("the place of %q is %#o, was %#o", id, got, want)
		}
	}
	fill := make([]int, 512)
	for _, u := range users(512 * 40) {
		fill[place(u)>>(placeBits-9)]++
	}
	if most := slices.Max(fill); most > 80 {
		t.Errorf("%d of 40 expected users share their first three digits", most)
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	for _, want := range []protocol.Member{
		{ID: "u1", Name: "Aya Ueda  (2)", Role: protocol.RoleBroadcaster, Since: 1_732_637_266_123, Devices: 3},
		{ID: "u2", Role: protocol.RoleMonitor, Since: 1, Devices: 0},
		{ID: "u3", Name: " 1 2 3 ", Role: protocol.RoleViewer, Since: 2, Devices: 1},
		{ID: "u4", Name: "歓声", Role: protocol.RoleModerator, Since: 2, Devices: 1},
	} {
		text := memberRecord(place(want.ID), &user{conns: int32(want.Devices), since: want.Since, role: letterOf(want.Role), name: want.Name})
		if got, ok := parseMember(want.ID, text); !ok || got != want {
			t.Errorf("%q is %+v, %v; want %+v", text, got, ok, want)
		}
	}
	for _, bad := range []string{"", "000000", "000000 1 zz v", "00000 1 1 v x", "000000 x 1 v n", "000000 1 - v n", "000000 -1 1 v n"} {
		if got, ok := parseMember("u", bad); ok {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}

// Who stays in a room is listed once by a walk through it, whoever comes and goes meanwhile, and
// whatever becomes of the nodes.
func TestWalkListsEachOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.node(), w.node(), w.node()
	here, there, third := a.open("room"), b.open("room"), c.open("room")
	var stay []string
	for i, u := range users(3000) {
		if i%3 == 0 {
			stay = append(stay, u)
		}
		[]*view{here, there, third}[i%5%3].Join(u)
	}
	w.mustRound(a, b, c)
	seen := map[string]int{}
	cursor, step := "", 0
	for {
		page, err := a.Members(w.ctx, hub.MembersQuery{Room: "room", Cursor: cursor, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Users {
			seen[m.ID]++
		}
		if cursor = page.Cursor; cursor == "" {
			break
		}
		switch step++; step {
		case 3: // many come, so that shares are divided
			for _, u := range users(9000)[3000:] {
				here.Join(u)
			}
		case 6: // who stays moves from one node to another
			for i, u := range users(3000) {
				if i%3 == 0 && i%5%3 == 1 {
					here.Join(u)
					there.Leave(u)
				}
			}
			w.mustRound(a)
		case 9: // a node is taken for dead and writes itself anew
			w.pass(3 * time.Second)
			w.mustRound(a, c)
			w.pass(4 * time.Second)
			w.mustRound(a, c)
			w.mustRound(b)
		case 12: // many go
			for i, u := range users(3000) {
				if i%3 != 0 {
					[]*view{here, there, third}[i%5%3].Leave(u)
				}
			}
		}
		w.pass(200 * time.Millisecond)
		w.mustRound(a, b, c)
	}
	for _, u := range stay {
		if seen[u] != 1 {
			t.Errorf("%s stays and is listed %d times", u, seen[u])
		}
	}
	if step < 12 {
		t.Errorf("the walk had %d pages", step)
	}
}

// The members of a node of an older version, which writes no records, are listed without them.
func TestMembersOfAnOlderVersion(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		n := s.node(t, func(c *Config) { c.Buckets = 1 })
		here := n.open("room")
		here.Join("ann")
		here.want(t, "one is there", 1, 1)
		k := newKeys(DefaultPrefix, 0)
		entry := s.raw.HGet(t.Context(), k.counts(), "room").Val()
		gen := strings.Fields(entry)[3]
		for _, err := range []error{
			s.raw.HSet(t.Context(), k.base+"tick", "older.1", "7 1").Err(),
			s.raw.HSet(t.Context(), k.index("older.1"), "room", "2 "+gen+" 2").Err(),
			s.raw.SAdd(t.Context(), k.set("older.1", "room"), "ann", "bob").Err(),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, m := range walk(t, n, "room", 1) {
			got = append(got, fmt.Sprint(m.ID, m.Name, m.Devices))
		}
		slices.Sort(got)
		if want := []string{"annann2", "bob1"}; !slices.Equal(got, want) {
			t.Errorf("listed are %q, want %q", got, want)
		}
	})
}

// A user keeps the time of coming while presence is written anew.
func TestSinceSurvivesAResync(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node()
	v := n.open("room")
	v.Membership.Join(hub.Member{ID: "ann", Name: "Ann", Role: protocol.RoleBroadcaster})
	w.mustRound(n)
	before := walk(t, n, "room", 10)
	w.pass(time.Minute)
	w.mini.FlushAll()
	v.Membership.Join(hub.Member{ID: "ann", Name: "Ann B.", Role: protocol.RoleBroadcaster})
	for range 5 {
		w.mustRound(n)
		w.pass(time.Second)
	}
	after := walk(t, n, "room", 10)
	want := protocol.Member{ID: "ann", Name: "Ann B.", Role: protocol.RoleBroadcaster, Since: before[0].Since, Devices: 2}
	if len(after) != 1 || after[0] != want || n.resyncs(resyncLost) == 0 {
		t.Errorf("before %+v, after %+v", before, after)
	}
}
