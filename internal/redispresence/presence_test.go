package redispresence

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kansei-live/kansei/test/ports"
)

func TestCountsOverNodes(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		var views []*view
		for range 3 {
			views = append(views, s.node(t, nil).open("room"))
		}
		all := func(what string, users, conns int) {
			t.Helper()
			for i, v := range views {
				v.want(t, fmt.Sprintf("%s, node %d", what, i), users, conns)
			}
		}
		all("empty", 0, 0)
		views[0].Join("ann")
		views[0].Join("ann")
		views[1].Join("ann")
		views[1].Join("bob")
		all("two users, one of them thrice", 2, 4)
		views[0].Leave("ann")
		all("a second window closed", 2, 3)
		views[0].Leave("ann")
		all("gone on one node, there on another", 2, 2)
		views[1].Leave("ann")
		all("gone everywhere", 1, 1)
		for _, u := range users(1700) {
			views[2].Join(u)
		}
		all("more than a script takes", 1701, 1701)
		for _, u := range users(1700) {
			views[2].Leave(u)
		}
		all("and away", 1, 1)
		for i, v := range views {
			if p := v.last.Load().PeakUsers; p != 1701 {
				t.Errorf("node %d: peak is %d, want 1701", i, p)
			}
			if at := time.UnixMilli(v.last.Load().At); time.Since(at).Abs() > time.Minute {
				t.Errorf("node %d: counted at %v", i, at)
			}
		}
		other := s.node(t, nil).open("room")
		other.want(t, "a node that comes later", 1, 1)
		if p := other.last.Load().PeakUsers; p != 1701 {
			t.Errorf("its peak is %d, want 1701", p)
		}
	})
}

func TestRoomsAreApart(t *testing.T) {
	overCluster(t, func(t *testing.T, s *server) {
		a, b := s.node(t, nil), s.node(t, nil)
		var there []*view
		for i := range 40 {
			v := a.open("room-" + strconv.Itoa(i))
			for j := range i {
				v.Join("u" + strconv.Itoa(j))
			}
			there = append(there, b.open("room-"+strconv.Itoa(i)))
		}
		for i, v := range there {
			v.want(t, fmt.Sprintf("room %d", i), i, i)
		}
	})
}

func TestKilledNodeIsGone(t *testing.T) {
	overCluster(t, func(t *testing.T, s *server) {
		survivor, victim := s.node(t, nil), s.node(t, nil)
		here, there := survivor.open("room"), victim.open("room")
		here.Join("ann")
		there.Join("ann")
		for _, u := range users(1200) {
			there.Join(u)
		}
		alone := victim.open("nobody-else-is-here")
		alone.Join("bob")
		here.want(t, "before", 1201, 1202)
		alone.want(t, "before, alone", 1, 1)
		victim.kill()
		here.want(t, "after the lease", 1, 1)
		// A bucket in which no survivor has a room is swept.
		eventually(t, "nothing of it left", func() error {
			k := victim.keysOf("nobody-else-is-here")
			left, err := s.keys(k, "i:"+victim.id, "m:"+victim.id, "u:")
			if err != nil {
				return err
			}
			leases, err := s.raw.ZRange(context.Background(), k.base+"lease", 0, -1).Result()
			for _, inc := range leases {
				if strings.HasPrefix(inc, victim.id) {
					left = append(left, inc)
				}
			}
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("%q", left)
			}
			return err
		})
		later := survivor.open("nobody-else-is-here")
		later.want(t, "opened later", 0, 0)
		if survivor.reaped() == 0 {
			t.Error("the survivor has reaped nothing")
		}
	})
}

// keys lists the keys of one bucket that begin with any of kinds.
func (s *server) keys(k keys, kinds ...string) (left []string, err error) {
	for _, kind := range kinds {
		found, err := s.raw.Keys(context.Background(), k.base+kind+"*").Result()
		if err != nil {
			return nil, err
		}
		left = append(left, found...)
	}
	return left, nil
}

func (n *node) keysOf(room string) keys { return n.bucketOf(room).keys }

func TestFlushedRedisIsWrittenAnew(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		a, b := s.node(t, nil), s.node(t, nil)
		here, there := a.open("room"), b.open("room")
		for _, u := range users(700) {
			here.Join(u)
		}
		there.Join("ann")
		here.want(t, "before", 701, 701)
		for _, u := range users(700)[:600] {
			here.Leave(u)
		}
		there.want(t, "some gone", 101, 101)
		ctx := context.Background()
		if err := s.raw.FlushAll(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "both written anew", func() error {
			if a.resyncs(resyncLost) < 1 || b.resyncs(resyncLost) < 1 {
				return errors.New("not yet")
			}
			return nil
		})
		here.Join("carl")
		here.want(t, "here", 102, 102)
		there.want(t, "there", 102, 102)
		for _, v := range []*view{here, there} {
			if p := v.last.Load().PeakUsers; p != 701 {
				t.Errorf("peak is %d after the flush, want 701", p)
			}
		}
	})
}

func TestLostScripts(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		n := s.node(t, nil)
		v := n.open("room")
		v.Join("ann")
		v.want(t, "before", 1, 1)
		if err := s.raw.ScriptFlush(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
		v.Join("bob")
		v.want(t, "after", 2, 2)
		for _, reason := range []string{resyncLost, resyncReaped, resyncTick, resyncKeys} {
			if n.resyncs(reason) != 0 {
				t.Errorf("it wrote itself anew: %s", reason)
			}
		}
	})
}

func TestCutOffNodeReturns(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		a, b := s.node(t, nil), s.node(t, nil)
		here, there := a.open("room"), b.open("room")
		here.Join("ann")
		for _, u := range users(600) {
			there.Join(u)
		}
		here.want(t, "before", 601, 601)
		there.want(t, "before, there", 601, 601)
		b.line.set(true)
		here.want(t, "without the node that is cut off", 1, 1)
		there.Leave("user-000000")
		there.Join("bob")
		there.Join("carl")
		eventually(t, "it says so", b.unready)
		if c := there.last.Load(); c.Users != 601 {
			t.Errorf("cut off, it shows %d users; it knew of 601 last", c.Users)
		}
		b.line.heal()
		here.want(t, "together again", 602, 602)
		there.want(t, "together again, there", 602, 602)
		eventually(t, "ready again", b.Ready)
		if b.resyncs(resyncReaped) == 0 {
			t.Error("it did not notice that it was declared dead")
		}
	})
}

func (n *node) unready() error {
	if n.Ready() == nil {
		return errors.New("ready")
	}
	return nil
}

func TestCloseHandsBack(t *testing.T) {
	overCluster(t, func(t *testing.T, s *server) {
		long := func(c *Config) { c.Lease = time.Hour }
		a, b := s.node(t, long), s.node(t, long)
		here, there := a.open("room"), b.open("room")
		here.Join("ann")
		for _, u := range users(1100) {
			there.Join(u)
		}
		here.want(t, "before", 1101, 1101)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := b.Close(ctx); err != nil {
			t.Fatal(err)
		}
		here.want(t, "after", 1, 1)
		if err := b.Close(ctx); err != nil {
			t.Errorf("again: %v", err)
		}
		there.Join("late") // without effect
		there.Leave("late")
		there.Close()

		here.Leave("ann")
		here.want(t, "nobody", 0, 0)
		here.Close()
		if err := a.Close(ctx); err != nil {
			t.Fatal(err)
		}
		for _, bucket := range a.buckets {
			left, err := s.keys(bucket.keys, "i:", "u:", "s:", "lease")
			if err != nil || len(left) > 0 {
				t.Errorf("left in redis: %q, %v", left, err)
			}
		}
	})
}

func TestEmptyBucketIsLeft(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		n := s.node(t, nil)
		v := n.open("room")
		v.Join("ann")
		v.want(t, "before", 1, 1)
		v.Leave("ann")
		v.Close()
		eventually(t, "nothing left", func() error {
			left, err := s.keys(n.keysOf("room"), "i:", "u:", "s:", "lease")
			if err == nil && len(left) > 0 {
				err = fmt.Errorf("%q", left)
			}
			return err
		})
		v = n.open("room")
		v.Join("bob")
		v.want(t, "opened again", 1, 1)
	})
}

func TestRedisComesLate(t *testing.T) {
	t.Parallel()
	port := ports.ForTest(t).Number
	s := &server{url: "redis://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	n := s.node(t, nil)
	if err := n.Ready(); err == nil {
		t.Error("ready before any answer")
	}
	v := n.open("room")
	v.Join("ann")
	eventually(t, "it says what is wrong", func() error {
		if err := n.Ready(); err == nil || !strings.HasPrefix(err.Error(), "redis: ") || !strings.Contains(err.Error(), "refused") {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	})
	if up := testutil.ToFloat64(n.metrics.up); up != 0 {
		t.Errorf("kansei_redis_up is %v", up)
	}
	eventually(t, "it counts errors", func() error {
		if e := testutil.ToFloat64(n.metrics.errors.WithLabelValues(opPin)); e == 0 {
			return errors.New("none yet")
		}
		return nil
	})
	startProcess(t, port)
	v.want(t, "redis is there", 1, 1)
	eventually(t, "ready", n.Ready)
	if up := testutil.ToFloat64(n.metrics.up); up != 1 {
		t.Errorf("kansei_redis_up is %v", up)
	}
	n.shut(t) // while the server is there
}

func TestRedisGoes(t *testing.T) {
	t.Parallel()
	port := ports.ForTest(t).Number
	s := &server{url: "redis://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	n := s.node(t, nil)
	v := n.open("room")
	for _, u := range users(50) {
		v.Join(u)
	}
	t.Run("there", func(t *testing.T) { // the server ends with it
		startProcess(t, port)
		v.want(t, "counted", 50, 50)
	})
	for _, u := range users(50)[:20] {
		v.Leave(u)
	}
	eventually(t, "it says so", n.unready)
	if err := v.is(50, 50); err != nil {
		t.Errorf("the last known counts are gone: %v", err)
	}
	startProcess(t, port)
	v.want(t, "restarted empty", 30, 30)
	if c := v.last.Load(); c.PeakUsers != 50 {
		t.Errorf("peak is %d, want 50", c.PeakUsers)
	}
	n.shut(t)
}

func TestSilentRedisDelaysNobody(t *testing.T) {
	t.Parallel()
	// It accepts and never answers.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	s := &server{url: "redis://" + l.Addr().String()}
	n := s.prepare(t, func(c *Config) { c.Timeout = 50 * time.Millisecond })
	n.Presence = New(n.cfg)
	n.guard.mu.Lock()
	n.guard.asked = true // as if it had answered once
	n.guard.mu.Unlock()
	v := n.open("room")
	start := time.Now()
	for _, u := range users(1000) {
		v.Join(u)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("1,000 joins took %v", d)
	}
	eventually(t, "it says so", func() error {
		if err := n.Ready(); err == nil || errors.Is(err, errNoAnswer) {
			return fmt.Errorf("it says %w", err)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	start = time.Now()
	if err := n.Close(ctx); err == nil {
		t.Error("close: handed back to nobody")
	}
	if d := time.Since(start); d > patience/2 {
		t.Errorf("close took %v", d)
	}
}
