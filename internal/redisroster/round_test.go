package redisroster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestReportsOnlyChangesOnceAnInterval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node(), w.node()
	here, there := a.open("room"), b.open("room")
	w.mustRound(a, b)
	if n := here.reports.Load(); n != 1 {
		t.Fatalf("%d reports of an empty room, want 1", n)
	}
	for range 5 {
		w.pass(time.Second)
		w.mustRound(a, b)
	}
	if n := here.reports.Load(); n != 1 {
		t.Errorf("%d reports while nothing changed, want 1", n)
	}
	there.Join("ann")
	w.pass(time.Second)
	w.mustRound(b, a)
	if err := here.is(1, 1); err != nil {
		t.Error(err)
	}
	// Rounds may come closer together than reports.
	for i := range 9 {
		w.pass(100 * time.Millisecond)
		there.Join(fmt.Sprint("u", i))
		w.mustRound(b, a)
	}
	if n := here.reports.Load(); n != 2 {
		t.Errorf("%d reports, want 2: it is not yet a second since the last", n)
	}
	w.pass(100 * time.Millisecond)
	w.mustRound(a)
	if err := here.is(10, 10); err != nil {
		t.Error(err)
	}
	if n := here.reports.Load(); n != 3 {
		t.Errorf("%d reports, want 3", n)
	}
	// Who comes later to a quiet room is told what is known.
	second := a.open("room")
	w.pass(time.Second)
	w.mustRound(a)
	if err := second.is(10, 10); err != nil {
		t.Error(err)
	}
	if n := here.reports.Load(); n != 3 {
		t.Errorf("%d reports, want 3: nothing has changed", n)
	}
	second.Close()
	there.Leave("ann")
	w.pass(time.Second)
	w.mustRound(b, a)
	if n := second.reports.Load(); n != 1 {
		t.Errorf("%d reports to one that was closed after the first", n)
	}
	if err := here.is(9, 9); err != nil {
		t.Error(err)
	}
}

func TestAnswerBringsWhatChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node()
	for i := range 30 {
		n.open(fmt.Sprint("room", i)).Join("ann")
	}
	w.mustRound(n)
	b := n.buckets[0]
	tick := func() answer {
		t.Helper()
		w.pass(time.Second)
		b.pending = b.collect()
		a, err := b.send(w.ctx)
		if err != nil || a.resync != "" {
			t.Fatal(a.resync, err)
		}
		b.confirmed()
		b.learn(a)
		return a
	}
	for range 2 * tidyEvery {
		if a := tick(); len(a.rooms) != 0 {
			t.Fatalf("a quiet second brings %d rooms", len(a.rooms))
		}
	}
	other := w.node()
	there := other.open("room7")
	there.Join("bob")
	other.open("elsewhere").Join("bob")
	w.mustRound(other)
	if a := tick(); len(a.rooms) != 1 || a.rooms[0].room != "room7" || a.rooms[0].counts.Users != 2 || a.all {
		t.Errorf("after a change of room7 comes %+v", a)
	}
	// What is long past is not listed, and who has missed it gets all.
	w.mustRound(n)
	v := n.open("room30")
	v.Join("ann")
	w.mustRound(n)
	before := b.seen
	for i := range 2 * tidyEvery {
		tick()
		v := other.open(fmt.Sprint("passing", i))
		w.mustRound(other)
		v.Close()
		w.mustRound(other)
	}
	if left := w.raw.ZCard(w.ctx, b.keys.base+"changes").Val(); left > 3*tidyEvery {
		t.Errorf("%d changes are kept", left)
	}
	b.seen = before
	if a := tick(); len(a.rooms) != 31 || !a.all {
		t.Errorf("a node that has seen nothing for long gets %d rooms, want all 31", len(a.rooms))
	}
}

// TestResyncDoesNotDip looks into Redis before every request while a node writes
// itself anew in several ticks: users and connections stay as they are throughout.
func TestResyncDoesNotDip(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n, other := w.node(), w.node()
	v, small := n.open("room"), n.open("small")
	for i, u := range users(1700) {
		v.Join(u)
		if i%2 == 0 {
			v.Join(u)
		}
	}
	small.Join("ann")
	there := other.open("room")
	there.Join("user-000001")
	w.mustRound(n, other)
	w.pass(time.Second)
	w.mustRound(n)
	base := n.buckets[0].keys
	before := v.reports.Load()
	b := n.buckets[0]
	requests := 0
	n.line.fault = func(redis.Cmder) (bool, bool) {
		requests++
		for room, want := range map[string]string{"room": "1700 2551 1700 ", "small": "1 1 1 "} {
			if got := w.mini.HGet(base.counts(), room); !strings.HasPrefix(got, want) {
				t.Errorf("request %d: counts of %s are %q, want %q", requests, room, got, want)
			}
		}
		if got := w.raw.HLen(w.ctx, base.users("room")).Val(); got != 1700 {
			t.Errorf("request %d: %d users", requests, got)
		}
		if requests > 2 && b.rewriting {
			// The new incarnation has named the old one: nobody else may reap it, however
			// long the rest takes.
			w.pass(3500 * time.Millisecond)
			w.mustRound(other)
			if err := other.buckets[0].sweep(w.ctx, true); err != nil {
				t.Error(err)
			}
		}
		return false, false
	}
	first := n.buckets[0].inc
	if err := w.raw.ZAdd(w.ctx, base.base+"lease", redis.Z{Score: 1, Member: first}).Err(); err != nil {
		t.Fatal(err)
	}
	w.mini.HSet(base.base+"tick", first, "999 2")
	w.pass(time.Second)
	for w.mustRound(n); b.rewriting || len(b.olds) > 0; w.mustRound(n) {
		if requests > 100 {
			t.Fatal("it does not come to an end")
		}
	}
	if n.resyncs(resyncTick) != 1 || b.inc == first {
		t.Fatal("it did not write itself anew")
	}
	if requests < 8 {
		t.Errorf("%d requests; 1,700 users take four ticks and four retirements", requests)
	}
	if r := v.reports.Load(); r != before {
		t.Errorf("%d reports of no change", r-before)
	}
	if left, err := w.keys(base, "i:"+first, "s:"+first); err != nil || len(left) > 0 {
		t.Errorf("left of the old incarnation: %q, %v", left, err)
	}
	if state := w.mini.HGet(base.base+"tick", first); state != "gone" {
		t.Errorf("the old incarnation is %q, want gone", state)
	}
	for _, room := range []string{"room", "small"} {
		if n := w.raw.SCard(w.ctx, base.set(b.inc, room)).Val(); n == 0 {
			t.Errorf("nothing was written of %s", room)
		}
	}
}

func TestOneTickIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node()
	v := n.open("room")
	for i := range 700 {
		n.open(fmt.Sprint("room", i))
	}
	for _, u := range users(1234) {
		v.Join(u)
	}
	var ticks []int // users in each
	n.line.fault = func(c redis.Cmder) (bool, bool) {
		inside := 0
		for _, a := range c.Args() {
			if s, ok := a.(string); ok && strings.HasPrefix(s, "user-") {
				inside++
			}
		}
		ticks = append(ticks, inside)
		return false, false
	}
	w.mustRound(n)
	// The first goes out twice: Redis does not know the script yet. The last brings
	// rooms for which there was no place.
	if !slices.Equal(ticks, []int{500, 500, 500, 234, 0}) {
		t.Errorf("users in each request: %v", ticks)
	}
	if err := v.is(1234, 1234); err != nil {
		t.Error(err)
	}
}

func TestLapsedLeaseIsRenewed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node(), w.node()
	here, there := a.open("room"), b.open("room")
	here.Join("ann")
	there.Join("bob")
	w.mustRound(a, b)
	// Redis was away for everybody: nobody is declared dead by the first to return.
	a.line.cut, b.line.cut = true, true
	for range 20 {
		w.pass(time.Second)
		for _, n := range []*node{a, b} {
			if err := w.round(n); !errors.Is(err, errFault) {
				t.Fatal(err)
			}
		}
	}
	a.line.heal()
	b.line.heal()
	for range 10 {
		w.pass(time.Second)
		w.mustRound(a, b)
		for _, v := range []*view{here, there} {
			if c := v.last.Load(); c != nil && c.Users == 1 && v.reports.Load() > 2 {
				t.Fatal("the count dipped")
			}
		}
	}
	for _, v := range []*view{here, there} {
		if err := v.is(2, 2); err != nil {
			t.Error(err)
		}
	}
	// Redis was away until one lease had lapsed and the other had not.
	w.mustRound(b)
	w.pass(900 * time.Millisecond)
	w.mustRound(a)
	a.line.cut = true
	w.pass(5 * time.Second)
	_ = w.round(a)
	a.line.heal()
	w.pass(500 * time.Millisecond)
	w.mustRound(a)
	w.pass(300 * time.Millisecond)
	w.mustRound(b)
	// All were asleep together, so that none noticed an error.
	w.pass(time.Minute)
	w.mustRound(a, b)
	for _, n := range []*node{a, b} {
		if n.resyncs(resyncLost)+n.resyncs(resyncReaped)+n.resyncs(resyncTick) != 0 || n.reaped() != 0 {
			t.Error("somebody was declared dead")
		}
	}
}

func TestDeathTakesLeaseAndClaim(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	victim, first, second := w.node(), w.node(), w.node()
	for _, u := range users(1300) {
		victim.open("room").Join(u)
	}
	here, there := first.open("room"), second.open("room")
	w.mustRound(victim, first, second)
	start := w.now
	// The first to notice dies itself after one chunk.
	for first.reaped() == 0 && !first.line.cut {
		first.line.fault = func(c redis.Cmder) (bool, bool) {
			if c.Name() == "hkeys" {
				first.line.cut = true // from the next request on
			}
			return false, false
		}
		w.pass(time.Second)
		_ = w.round(first)
		if w.now.Sub(start) > 10*time.Second {
			t.Fatal("nobody noticed")
		}
	}
	if d := w.now.Sub(start); d < 6*time.Second {
		t.Errorf("declared dead after %v, before the lease was over", d)
	}
	// Nobody else begins while the claim holds.
	w.mustRound(second)
	if got := w.raw.HLen(w.ctx, second.buckets[0].keys.users("room")).Val(); got != 1300 {
		t.Errorf("%d users left, want 1,300: it is claimed", got)
	}
	for second.reaped() == 0 {
		w.pass(time.Second)
		w.mustRound(second)
		if w.now.Sub(start) > 15*time.Second {
			t.Fatal("nobody went on with it")
		}
	}
	w.pass(time.Second)
	w.mustRound(second)
	if err := there.is(0, 0); err != nil {
		t.Error(err)
	}
	if here.last.Load() == nil {
		t.Error("the first had no report at all")
	}
	// A late first tick of the dead one is refused for an hour.
	late := victim.buckets[0]
	late.mark, late.next, late.have = firstMark, 1, 1
	late.pending = &batch{keys: []string{late.keys.users("room"), late.keys.set(late.inc, "room")},
		looks: []any{0}, rooms: []any{1, "room", 1, 0, 0, 1, 0, "ghost"}}
	w.pass(59 * time.Minute)
	w.mustRound(second)
	if a, err := late.send(w.ctx); err != nil || a.resync != resyncReaped {
		t.Errorf("a late first tick: %+v, %v", a, err)
	}
}

func TestNothingStaysForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node(), w.node()
	for i := range 50 {
		v := a.open(fmt.Sprint("room", i))
		v.Join("ann")
		v.Join("bob")
		w.mustRound(a)
		v.Leave("ann")
		v.Leave("bob")
		v.Close()
		// Rooms where somebody was alone leave nothing either.
		v = a.open(fmt.Sprint("alone", i))
		v.Join("ann")
		w.mustRound(a)
		v.Close()
		// Rooms that were only looked at leave nothing at all.
		o := b.open(fmt.Sprint("peeked", i))
		w.pass(time.Second)
		w.mustRound(a, b)
		o.Close()
		w.mustRound(b)
	}
	keys := a.buckets[0].keys
	if n := w.raw.HLen(w.ctx, keys.base+"peaks").Val(); n != 50 {
		t.Errorf("peaks of %d rooms, want 50", n)
	}
	if n := w.raw.HLen(w.ctx, keys.counts()).Val(); n != 0 {
		t.Errorf("counts of %d rooms that nobody has", n)
	}
	for range linger + 1 {
		w.pass(time.Second)
		w.mustRound(a, b)
	}
	for _, n := range []*node{a, b} {
		if n.buckets[0].live {
			t.Error("it is still in a bucket in which it has nothing")
		}
	}
	w.pass(keepPeak - time.Minute)
	if err := a.buckets[0].sweep(w.ctx, true); err != nil {
		t.Fatal(err)
	}
	back := a.open("room3")
	w.mustRound(a)
	if c := back.last.Load(); c.PeakUsers != 2 {
		t.Errorf("within a day the peak is %d, want 2", c.PeakUsers)
	}
	back.Close()
	for range linger + 2 {
		w.pass(time.Second)
		w.mustRound(a)
	}
	w.pass(keepPeak + time.Hour)
	for range 20 {
		if err := b.buckets[0].sweep(w.ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	if left := w.mini.Keys(); !slices.Equal(left, []string{keys.base + "changes"}) {
		t.Errorf("left in redis: %q", left)
	}
}

func TestMemoryIsBoundedWhileCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node()
	v := n.open("room")
	v.Join("ann")
	w.mustRound(n)
	n.line.cut = true
	for i := range 10_000 {
		u := fmt.Sprint("passer-by-", i)
		v.Join(u)
		if i == 5000 {
			if err := w.round(n); !errors.Is(err, errFault) {
				t.Fatal(err)
			}
		}
		v.Leave(u)
		r := n.open(fmt.Sprint("room", i))
		r.Join("ann")
		r.Close()
	}
	b := n.buckets[0]
	rm := b.rooms["room"]
	if len(rm.users) > 2 || len(rm.changed) > 1 || len(b.rooms) > 2 {
		t.Errorf("kept: %d users, %d changes, %d rooms", len(rm.users), len(rm.changed), len(b.rooms))
	}
	if len(b.dirty) > 2 {
		t.Errorf("kept: %d rooms that came and went", len(b.dirty))
	}
}

func TestMembership(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node()
	one, two := n.open("room"), n.open("room")
	one.Leave("nobody")
	one.Join("ann")
	two.Join("ann")
	two.Join("bob")
	w.mustRound(n)
	for _, v := range []*view{one, two} {
		if err := v.is(2, 3); err != nil {
			t.Error(err)
		}
	}
	two.Leave("bob")
	two.Leave("bob")
	two.Close()
	two.Close()
	two.Join("late")
	w.pass(time.Second)
	w.mustRound(n)
	if err := one.is(1, 2); err != nil {
		t.Error(err)
	}
	// Coming and going between two ticks, in any order, ends as it ends.
	one.Leave("ann")
	one.Leave("ann")
	one.Join("carl")
	one.Join("ann")
	one.Leave("carl")
	one.Join("dora")
	w.pass(time.Second)
	w.mustRound(n)
	if err := one.is(2, 2); err != nil {
		t.Error(err)
	}
	// Who did not leave is taken out with the last membership.
	one.Close()
	three := n.open("room")
	three.Join("dora")
	w.pass(time.Second)
	w.mustRound(n)
	if err := three.is(1, 1); err != nil {
		t.Error(err)
	}
	three.Close()
	w.pass(time.Second)
	w.mustRound(n)
	keys := n.buckets[0].keys
	if left, err := w.keys(keys, "u:", "s:", "i:"); err != nil || len(left) > 0 {
		t.Errorf("left in redis: %q, %v", left, err)
	}
	if len(n.buckets[0].rooms) != 0 {
		t.Errorf("rooms kept: %v", n.buckets[0].rooms)
	}
}

func TestJoinAllocatesNothing(t *testing.T) {
	w := newWorld(t)
	n := w.node()
	v := n.open("room")
	all := users(200)
	for _, u := range all {
		v.Join(u)
	}
	w.mustRound(n)
	if a := testing.AllocsPerRun(1000, func() {
		v.Join("user-000007")
		v.Leave("user-000007")
	}); a != 0 {
		t.Errorf("another connection of a user who is here: %v allocations", a)
	}
	if a := testing.AllocsPerRun(1000, func() {
		v.Leave("user-000008")
		v.Join("user-000008")
		v.Join("newcomer")
		v.Leave("newcomer")
	}); a != 0 {
		t.Errorf("users who come and go between two ticks: %v allocations", a)
	}
}

func TestFlushIsNotReportedAsAnExodus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node(), w.node()
	here, there := a.open("room"), b.open("room")
	for _, u := range users(10) {
		here.Join(u)
		there.Join("other-" + u)
	}
	for range 3 {
		w.mustRound(a, b)
		w.pass(time.Second)
	}
	w.mini.FlushAll()
	w.mustRound(a)
	w.pass(900 * time.Millisecond)
	w.mustRound(b)
	for range 4 {
		w.pass(time.Second)
		w.mustRound(a, b)
	}
	for _, v := range []*view{here, there} {
		if err := v.is(20, 20); err != nil {
			t.Error(err)
		}
		full := false
		for _, c := range v.all {
			if full && c.Users != 20 {
				t.Errorf("reports: %+v", v.all)
			}
			full = full || c.Users == 20
		}
	}
}

func TestOpenedRoomIsReportedWithoutAChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.node(), w.node()
	a.open("room").Join("ann")
	b.open("other").Join("bob")
	for range 3 {
		w.mustRound(a, b)
		w.pass(time.Second)
	}
	v := b.open("room")
	w.mustRound(b)
	if err := v.is(1, 1); err != nil {
		t.Error(err)
	}
}
