package redispresence

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
	// A late viewer of a quiet room is told what is known.
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
	if a := tick(); len(a.rooms) != 32 || !a.all {
		t.Errorf("a node that has seen nothing for long gets %d rooms, want all 31 and the index", len(a.rooms))
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
	// The first goes out twice: Redis does not know the script yet. Each user is in the room
	// and in the index. The last brings rooms for which there was no place.
	if !slices.Equal(ticks, []int{500, 500, 500, 500, 500, 468, 0}) {
		t.Errorf("users in each request: %v", ticks)
	}
	if err := v.is(1234, 1234); err != nil {
		t.Error(err)
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
			if err := w.flush(n); !errors.Is(err, errFault) {
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
	}); a > 4 { // the entries of the index, of those who come and who go
		t.Errorf("users who come and go between two ticks: %v allocations", a)
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
