package redispresence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/internal/health"
	"github.com/kansei-live/kansei/test/ports"
)

// says returns nil when a node is not ready and says all of that.
func says(n *node, parts ...string) error {
	err := n.Ready()
	if err == nil {
		return errors.New("ready")
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			return fmt.Errorf("it says %w; want %q in it", err, p)
		}
	}
	return nil
}

func TestNumberOfBucketsIsPinned(t *testing.T) {
	overCluster(t, func(t *testing.T, s *server) {
		ctx := context.Background()
		with := func(n int) func(*Config) { return func(c *Config) { c.Buckets = n } }
		first := s.node(t, with(4))
		here := first.open("room")
		here.Join("ann")
		here.want(t, "the first", 1, 1)
		other := s.node(t, with(8))
		there := other.open("room")
		there.Join("bob")
		eventually(t, "another number is refused", func() error {
			return says(other, "--presence-buckets", "4 by the key kansei:buckets", "8 by")
		})
		if left, err := s.raw.Keys(ctx, "*"+other.id+"*").Result(); err != nil || len(left) > 0 {
			t.Errorf("it has written %q, %v", left, err)
		}
		if got := health.StateOf(other.Ready()); got != health.StateUnready {
			t.Errorf("another number at the start: %v", got)
		}
		first.settle(t)
		if there.reports.Load() > 0 || first.Ready() != nil {
			t.Errorf("%d reports there; the first says %v", there.reports.Load(), first.Ready())
		}
		// A Redis that comes back empty belongs to whoever is first again; whoever has
		// another number stops then.
		if err := s.raw.Del(ctx, first.pinKey()).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "pinned again", func() error { return s.raw.Get(ctx, first.pinKey()).Err() })
		if err := s.raw.Set(ctx, first.pinKey(), "8", 0).Err(); err != nil {
			t.Fatal(err)
		}
		there.want(t, "the other has it", 1, 1)
		eventually(t, "the first is refused", func() error { return says(first, "--presence-buckets", "8 by the key", "4 by") })
		if got := health.StateOf(first.Ready()); got != health.StateDegraded {
			t.Errorf("another number while it runs: %v", got)
		}
		if err := s.raw.Set(ctx, first.pinKey(), "4", 0).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "and is ready again", first.Ready)
		here.want(t, "with its own", 1, 1)
	})
}

// TestFlushedRedisMayBeAnothers: a node writes nothing to an empty Redis before it knows
// whose number of buckets it has.
func TestFlushedRedisMayBeAnothers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node()
	v := n.open("room")
	v.Join("ann")
	w.mustRound(n)
	w.mini.FlushAll()
	if err := w.mini.Set(n.pinKey(), "2"); err != nil {
		t.Fatal(err)
	}
	if err := w.flush(n); !errors.Is(err, errPinned) {
		t.Errorf("a flush says %v", err)
	}
	if left := w.mini.Keys(); len(left) != 1 {
		t.Errorf("in redis are %q", left)
	}
}

func TestPoliciesThatEvictAreRefused(t *testing.T) {
	t.Parallel()
	s := dial(t, startProcess(t, ports.ForTest(t).Number))
	ctx := context.Background()
	n := s.node(t, nil)
	eventually(t, "ready", n.Ready)
	// Some services have no CONFIG.
	for _, rule := range []string{"+@all", "-config"} {
		if err := s.raw.Do(ctx, "ACL", "SETUSER", "default", rule).Err(); err != nil {
			t.Fatal(err)
		}
		for policy, fine := range map[string]bool{
			"noeviction": true, "volatile-lru": true, "volatile-ttl": true, "allkeys-lru": false, "allkeys-random": false, "allkeys-lfu": false,
		} {
			if err := s.raw.Do(ctx, "ACL", "SETUSER", "admin", "on", "nopass", "~*", "+@all").Err(); err != nil {
				t.Fatal(err)
			}
			admin := redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(s.url, "redis://"), Username: "admin", Password: "any"})
			if err := admin.ConfigSet(ctx, "maxmemory-policy", policy).Err(); err != nil {
				t.Fatal(err)
			}
			if err := admin.Close(); err != nil {
				t.Fatal(err)
			}
			err := n.policyOf(ctx)
			if (err == nil) != fine || err != nil && !strings.Contains(err.Error(), policy) {
				t.Errorf("%s, %s: %v", rule, policy, err)
			}
		}
	}
	if err := s.raw.Do(ctx, "ACL", "SETUSER", "default", "-info").Err(); err != nil {
		t.Fatal(err)
	}
	if err := n.policyOf(ctx); err != nil {
		t.Errorf("redis does not tell its policy, the node says %v", err)
	}
}

// TestPolicyMakesUnready: the policy is asked for at the start, and again.
func TestPolicyMakesUnready(t *testing.T) {
	t.Parallel()
	test := func(t *testing.T, s *server) {
		t.Parallel()
		ctx := context.Background()
		if err := s.raw.ConfigSet(ctx, "maxmemory-policy", "allkeys-lru").Err(); err != nil {
			t.Fatal(err)
		}
		n := s.node(t, nil)
		v := n.open("room")
		v.Join("ann")
		eventually(t, "it says so", func() error { return says(n, "allkeys-lru", "noeviction") })
		if got := health.StateOf(n.Ready()); got != health.StateUnready {
			t.Errorf("a policy that was wrong at the start: %v", got)
		}
		v.want(t, "it counts all the same", 1, 1)
		if err := s.raw.ConfigSet(ctx, "maxmemory-policy", "noeviction").Err(); err != nil {
			t.Fatal(err)
		}
		n.guard.mu.Lock()
		n.guard.looked = n.guard.looked.Add(-policyEvery)
		n.guard.mu.Unlock()
		eventually(t, "ready", n.Ready)
		n.settle(t)
		if err := s.raw.ConfigSet(ctx, "maxmemory-policy", "allkeys-lfu").Err(); err != nil {
			t.Fatal(err)
		}
		n.guard.mu.Lock()
		n.guard.looked = n.guard.looked.Add(-policyEvery)
		n.guard.mu.Unlock()
		eventually(t, "it says so", func() error { return says(n, "allkeys-lfu", "noeviction") })
		if got := health.StateOf(n.Ready()); got != health.StateDegraded {
			t.Errorf("a policy that was changed: %v", got)
		}
	}
	t.Run("redis", func(t *testing.T) { test(t, dial(t, startProcess(t, ports.ForTest(t).Number))) })
	t.Run("cluster", func(t *testing.T) { test(t, startCluster(t)) })
}
