package redispresence

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

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
			if err := w.flush(n); !errors.Is(err, errFault) {
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
	_ = w.flush(a)
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
			if c.Name() == "hgetall" {
				first.line.cut = true // from the next request on
			}
			return false, false
		}
		w.pass(time.Second)
		_ = w.flush(first)
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
	late.pending = &batch{keys: []string{late.keys.users("room"), late.keys.shard(late.inc, "room", 1)},
		looks: []any{0}, rooms: []any{1, "room", 1, 0, 0, 0, "0 0", 0, 1, 0, 0, 0, "", 0, 1, 0, 0, "ghost", "000000 1 0 v ghost", 1, 0, 0}}
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
	w.pass(DefaultKeepSeen + time.Hour)
	for range 20 {
		if err := b.buckets[0].sweep(w.ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	if left := w.mini.Keys(); !slices.Equal(left, []string{keys.base + "changes", keys.base + "gen"}) {
		t.Errorf("left in redis: %q", left)
	}
}
