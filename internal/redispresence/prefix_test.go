package redispresence

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// TestPrefix: presences with different prefixes share a Redis and nothing else, not even the
// number of buckets or the secrets of nodes.
func TestPrefix(t *testing.T) {
	overCluster(t, func(t *testing.T, s *server) {
		one := s.node(t, func(c *Config) { c.Pins = []Pin{authPin("one")} })
		two := s.node(t, func(c *Config) { c.Prefix, c.Buckets, c.Pins = "live-2", 2, []Pin{authPin("two")} })
		a, b := one.open("room"), two.open("room")
		a.Join("ann")
		b.Join("bob")
		b.Join("eve")
		a.want(t, "one of them", 1, 1)
		b.want(t, "two of them", 2, 2)
		eventually(t, "both are ready", func() error { return errors.Join(one.Ready(), two.Ready()) })
		count := map[string]int{}
		for _, key := range s.raw.Keys(context.Background(), "*").Val() {
			prefix, _, _ := strings.Cut(key, ":")
			count[prefix]++
		}
		if len(count) != 2 || count["kansei"] < 5 || count["live-2"] < 5 {
			t.Errorf("keys by what they begin with: %v", count)
		}
	})
}
