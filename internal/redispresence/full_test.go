package redispresence

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/internal/health"
	"github.com/kansei-live/kansei/test/ports"
)

// squeeze sets maxmemory below what Redis uses.
func squeeze(t *testing.T, s *server) {
	t.Helper()
	info, err := s.raw.InfoMap(context.Background(), "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	used, err := strconv.Atoi(info["Memory"]["used_memory"])
	if err != nil {
		t.Fatal(err)
	}
	limit(t, s, used/2)
}

func limit(t *testing.T, s *server, bytes int) {
	t.Helper()
	if err := s.raw.ConfigSet(context.Background(), "maxmemory", strconv.Itoa(bytes)).Err(); err != nil {
		t.Fatal(err)
	}
}

// TestRedisWithoutMemory: users who leave are taken out, new ones wait, and the dead
// are taken out as well.
func TestRedisWithoutMemory(t *testing.T) {
	t.Parallel()
	s := dial(t, startProcess(t, ports.ForTest(t).Number, "--maxmemory-policy", "noeviction"))
	a := s.node(t, func(c *Config) { c.Buckets = 1 })
	b, victim := s.node(t, func(c *Config) { c.Buckets = 1 }), s.node(t, func(c *Config) { c.Buckets = 1 })
	here, there := a.open("room"), b.open("room")
	for _, u := range users(3000) {
		here.Join(u)
		there.Join(u + "b")
	}
	for _, u := range users(700) {
		victim.open("room").Join(u + "v")
	}
	here.want(t, "all in", 6700, 6700)
	squeeze(t, s)
	for _, u := range users(3000)[:2900] {
		here.Leave(u)
	}
	for i := range 20 {
		here.Join(fmt.Sprint("late", i))
	}
	closed := b.open("other")
	closed.Join("ann")
	closed.Close()
	fresh := b.open("fresh")
	fresh.Join("ann")
	victim.kill()
	there.want(t, "who leaves and who is dead is taken out", 3100, 3120)
	eventually(t, "it says so", func() error { return says(a, "redis answers: OOM ", "is at maxmemory", "give it more") })
	if err := a.Ready(); health.StateOf(err) != health.StateDegraded || strings.Contains(err.Error(), "does not answer") {
		t.Errorf("%v: %v", health.StateOf(err), err)
	}
	here.Leave("late0") // it was never written
	there.want(t, "without the one who waited and left", 3100, 3119)
	if c := fresh.last.Load(); c != nil {
		t.Errorf("a room that is not written is reported: %+v", *c)
	}
	limit(t, s, 0)
	there.want(t, "who waited is in", 3119, 3119)
	fresh.want(t, "and in a new room", 1, 1)
	eventually(t, "ready", a.Ready)
	for _, n := range []*node{a, b} {
		for _, reason := range []string{resyncLost, resyncReaped, resyncTick, resyncKeys} {
			if n.resyncs(reason) != 0 {
				t.Errorf("written anew: %s", reason)
			}
		}
	}
}

// TestHandBackWithoutMemory: a node that ends takes its viewers out of a full Redis.
func TestHandBackWithoutMemory(t *testing.T) {
	t.Parallel()
	s := dial(t, startProcess(t, ports.ForTest(t).Number))
	n := s.node(t, func(c *Config) { c.Buckets = 1 })
	v := n.open("room")
	for _, u := range users(1200) {
		v.Join(u)
	}
	v.want(t, "in", 1200, 1200)
	squeeze(t, s)
	v.Join("late")
	eventually(t, "it says so", func() error { return says(n, "OOM") })
	n.shut(t)
	if left, err := s.keys(n.buckets[0].keys, "i:", "u:", "s:", "lease", "counts"); err != nil || len(left) > 0 {
		t.Errorf("left in redis: %q, %v", left, err)
	}
}

// TestRefusedTickMayComeLate: the copy of a tick that Redis had no memory for arrives when
// it has, before or behind the tick that went out in its place.
func TestRefusedTickMayComeLate(t *testing.T) {
	t.Parallel()
	for _, before := range []bool{false, true} {
		w := newWorld(t)
		n := w.node()
		v := n.open("room")
		v.Join("ann")
		v.Join("bob")
		w.mustRound(n)
		v.Join("carl")
		v.Leave("bob")
		full := true
		var late []any
		n.line.fault = func(cmd redis.Cmder) (bool, bool) {
			if late == nil {
				late = cmd.Args()
				return true, false
			}
			return false, false
		}
		n.line.full = func() bool { return full }
		w.pass(time.Second)
		if err := w.flush(n); !errors.Is(err, errFault) {
			t.Fatal(err)
		}
		if before {
			if err := w.raw.Do(w.ctx, late...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		w.pass(time.Second)
		if err := w.flush(n); !isFull(err) {
			t.Fatalf("at maxmemory a flush says %v", err)
		}
		if !before {
			if v, err := w.raw.Do(w.ctx, late...).Slice(); err != nil || v[0] != "resync" {
				t.Errorf("the late copy was taken: %v, %v", v, err)
			}
			if err := v.is(1, 2); err != nil {
				t.Error(err)
			}
		}
		full = false
		for range 4 {
			w.pass(time.Second)
			w.mustRound(n)
		}
		if err := v.is(2, 2); err != nil {
			t.Errorf("copy first: %t: %v", before, err)
		}
		if got := w.raw.HGetAll(w.ctx, n.buckets[0].keys.users("room")).Val(); len(got) != 2 || got["carl"] != "1" || got["ann"] != "1" {
			t.Errorf("copy first: %t: redis has %v", before, got)
		}
	}
}

// said is an error that a Redis has answered.
type said string

func (s said) Error() string { return string(s) }
func (said) RedisError()     {}

func TestWhatNoMemoryLooksLike(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		full bool
	}{
		{said("OOM command not allowed when used memory > 'maxmemory'. script: 1bf4, on @user_script:29."), true},
		{fmt.Errorf("redis answers: %w", said("OOM command not allowed when used memory > 'maxmemory'.")), true},
		{said("ERR Error running script (call to f_1bf4): @user_script:29: @user_script: 29: -OOM command not allowed when used memory > 'maxmemory'."), true}, // 6.2
		{said("ERR Error running script: ROOM "), false},
		{said("READONLY You can't write against a read only replica."), false},
		{errors.New("OOM command not allowed when used memory > 'maxmemory'."), false}, // nobody answered
		{nil, false},
	} {
		if got := isFull(c.err); got != c.full {
			t.Errorf("%v: %t", c.err, got)
		}
	}
}
