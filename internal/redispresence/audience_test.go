package redispresence

import (
	"fmt"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/test/ports"
)

// firstOf returns when a user of a room was first seen, by the node and by the list.
func firstOf(t *testing.T, n *node, v *view, id string) (at time.Time, known bool) {
	t.Helper()
	at, known = v.First(id)
	for _, m := range walk(t, n, "room", 10) {
		if m.ID == id && (m.FirstSeen > 0) != known || known && m.ID == id && m.FirstSeen != min(at.UnixMilli(), m.Since) {
			t.Errorf("%s was first seen at %v, %v; the list says %d", id, at, known, m.FirstSeen)
		}
		one, err := n.Member(t.Context(), "room", m.ID)
		if err != nil || one.ID != m.ID || one.Since != m.Since || one.Devices != m.Devices {
			t.Errorf("alone %s is %+v, %v; the list says %+v", m.ID, one, err, m)
		}
	}
	seen, err := n.FirstSeen(t.Context(), "room", []string{"nobody", id})
	if err != nil || seen[0] != 0 || known && seen[1] != at.UnixMilli() || !known && seen[1] != 0 {
		t.Errorf("%s was first seen at %v, %v; asked for it alone, %v, %v", id, at, known, seen, err)
	}
	return at, known
}

func TestFirstSeen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	began := w.now
	n := w.node()
	n.cfg.LogBegan = func() time.Time { return began }
	v := n.open("room")
	step := func() {
		w.pass(time.Second)
		w.mustRound(n)
	}
	v.Join("bob")
	if _, known := v.First("bob"); known {
		t.Error("it is known before Redis was asked")
	}
	step()
	v.Join("ann")
	step()
	first, known := firstOf(t, n, v, "ann")
	if !known || first.Sub(w.now).Abs() > 2*time.Second {
		t.Errorf("first seen %v, %v; now is %v", first, known, w.now)
	}
	// It is kept beyond the stay.
	v.Leave("ann")
	step()
	if seen, err := n.FirstSeen(t.Context(), "room", []string{"ann"}); err != nil || seen[0] != first.UnixMilli() {
		t.Errorf("of somebody who has left: %v, %v", seen, err)
	}
	if m, err := n.Member(t.Context(), "room", "nobody"); err != nil || m.ID != "" {
		t.Errorf("nobody is %+v, %v", m, err)
	}
	w.pass(20 * 24 * time.Hour)
	for range 10 {
		step()
	}
	v.Join("ann")
	step()
	if again, known := firstOf(t, n, v, "ann"); !known || !again.Equal(first) {
		t.Errorf("back after 20 days: first seen %v, %v; want %v", again, known, first)
	}
	// Redis loses the key: nobody is taken for new.
	w.mini.Del(n.buckets[0].keys.first("room")[0])
	v.Join("cid")
	step()
	if at, known := firstOf(t, n, v, "cid"); known {
		t.Errorf("who came when the key was lost was first seen %v", at)
	}
	// Redis loses all, long after the log has begun.
	w.mini.FlushAll()
	for range 5 {
		step()
	}
	v.Join("dan")
	step()
	for _, id := range []string{"cid", "dan"} {
		if at, known := firstOf(t, n, v, id); known {
			t.Errorf("%s was first seen %v, after all was lost", id, at)
		}
	}
	// After the time for which it is kept, nothing that counts can have been lost.
	w.pass(DefaultKeepSeen)
	for range linger {
		step()
	}
	late := n.open("another")
	late.Join("eve")
	step()
	if _, known := late.First("eve"); !known {
		t.Error("a month later it is still unknown who is new")
	}
}

// How many are remembered is bounded.
func TestFirstSeenIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node()
	n.cfg.LogBegan, n.cfg.FirstSeen = func() time.Time { return w.now }, 100
	v := n.open("room")
	for i := range 1000 {
		v.Join(fmt.Sprint("user", i))
		v.Join("stays")
		if i%20 == 19 {
			w.pass(time.Second)
			w.mustRound(n)
		}
		v.Leave(fmt.Sprint("user", i))
	}
	for _, key := range n.buckets[0].keys.first("room") {
		if got := w.raw.HLen(w.ctx, key).Val(); got > 52 {
			t.Errorf("%s has %d users", key, got)
		}
	}
}

func TestDistinctUsersOfABroadcast(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		configure := func(c *Config) { c.Buckets, c.DistinctExact = 1, 1000 }
		a, b := s.node(t, configure), s.node(t, configure)
		here, there := a.open("room"), b.open("room")
		distinct := func(broadcast, least, most int64, exact bool) func() error {
			return func() error {
				d, err := a.Distinct(t.Context(), "room", broadcast)
				if err != nil {
					return err
				}
				if d.Users < least || d.Users > most || d.Exact != exact || exact != (d.Error == 0) {
					return fmt.Errorf("%+v, want %d to %d, exact %v", d, least, most, exact)
				}
				return nil
			}
		}
		here.Join("before")
		here.want(t, "one is there", 1, 1)
		here.Broadcast(7)
		there.Broadcast(7)
		eventually(t, "who was there is counted", distinct(7, 1, 1, true))
		for _, u := range users(600) {
			here.Join(u)
			there.Join(u)
		}
		eventually(t, "each once", distinct(7, 601, 601, true))
		for _, u := range users(600) {
			here.Leave(u)
			there.Leave(u)
		}
		here.want(t, "they have left", 1, 1)
		eventually(t, "and still count", distinct(7, 601, 601, true))
		for _, u := range users(3000) {
			there.Join(u)
		}
		eventually(t, "more are estimated", distinct(7, 2850, 3150, false))
		here.Broadcast(8)
		there.Broadcast(8)
		eventually(t, "the next one begins anew", distinct(8, 2850, 3150, false))
		eventually(t, "the last one stays", distinct(7, 2850, 3150, false))
	})
}

// What nodes know of a broadcast is merged again when Redis has lost it.
func TestDistinctUsersAreMergedAgain(t *testing.T) {
	t.Parallel()
	s := dial(t, startProcess(t, ports.ForTest(t).Number))
	for name, c := range map[string]struct{ exact, few int }{"one by one": {1000, 400}, "sketch": {100, 2400}} {
		t.Run(name, func(t *testing.T) {
			n := s.node(t, func(cfg *Config) { cfg.Buckets, cfg.DistinctExact, cfg.Prefix = 1, c.exact, "p"+fmt.Sprint(c.exact) })
			v := n.open("room")
			v.Broadcast(3)
			for _, u := range users(c.few) {
				v.Join(u)
			}
			v.want(t, "all are there", c.few, c.few)
			for _, u := range users(c.few)[:c.few/2] {
				v.Leave(u)
			}
			v.want(t, "half have left", c.few-c.few/2, c.few-c.few/2)
			if c.few > c.exact {
				eventually(t, "the node keeps the sketch", func() error {
					b := n.buckets[0]
					b.mu.Lock()
					defer b.mu.Unlock()
					if b.rooms["room"].sketch == "" {
						return fmt.Errorf("it does not")
					}
					return nil
				})
			}
			if err := s.raw.FlushAll(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			eventually(t, "all are counted again, as an estimate", func() error {
				d, err := n.Distinct(t.Context(), "room", 3)
				if err != nil {
					return err
				}
				if low, high := int64(c.few*95/100), int64(c.few*105/100); d.Users < low || d.Users > high || d.Exact {
					return fmt.Errorf("%+v, want %d to %d", d, low, high)
				}
				return nil
			})
		})
	}
}

// The members of the crew who are in no count are in no list and no broadcast: the hub does not
// tell of them. What it tells of goes everywhere.
var _ hub.Roster = (*Presence)(nil)

// What is told of the users of one room is not taken for that of another, which Redis has lost.
func TestFirstSeenOfTheRightUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	began := w.now
	n := w.node()
	n.cfg.LogBegan = func() time.Time { return began }
	lost, kept := n.open("lost"), n.open("kept")
	lost.Join("ann")
	kept.Join("ann")
	kept.Join("bob")
	w.mustRound(n)
	kept.Leave("bob")
	w.pass(time.Second)
	w.mustRound(n)
	w.pass(time.Hour)
	for range 3 {
		w.mustRound(n)
		w.pass(time.Second)
	}
	b := n.buckets[0]
	w.mini.HDel(b.keys.index(b.inc), "lost")
	lost.Join("new")
	kept.Join("bob")
	b.pending = b.collect()
	a, err := b.send(w.ctx)
	if err != nil {
		t.Fatal(err)
	}
	b.hear(&a)
	b.confirmed()
	if at, known := kept.First("bob"); !known || at.Sub(began) > time.Minute {
		t.Errorf("bob was first seen %v, %v; want an hour before %v", at, known, w.now)
	}
	if at, known := lost.First("new"); known {
		t.Errorf("a user whose room Redis has lost was first seen %v", at)
	}
}
