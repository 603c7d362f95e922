package redispresence

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

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
	if left, err := w.keys(base, "i:"+first, "m:"+first); err != nil || len(left) > 0 {
		t.Errorf("left of the old incarnation: %q, %v", left, err)
	}
	if state := w.mini.HGet(base.base+"tick", first); state != "gone" {
		t.Errorf("the old incarnation is %q, want gone", state)
	}
	for _, room := range []string{"room", "small"} {
		if left, err := w.keys(base, "m:"+b.inc+":"+room); err != nil || len(left) == 0 {
			t.Errorf("nothing was written of %s", room)
		}
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
