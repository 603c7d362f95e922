package redispresence

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// What a program keeps under other names on the same Redis is neither read nor changed.
func TestOtherKeysAreLeftAlone(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		ctx := context.Background()
		mine := newKeys(DefaultPrefix, 0)
		for _, k := range append([]string{mine.index("i"), mine.users("r"), mine.set("i", "r")}, mine.common...) {
			if !strings.HasPrefix(k, fmt.Sprintf("%s:%d:{p0}:", DefaultPrefix, keySpace)) {
				t.Errorf("the key %s does not bear the number of the key space", k)
			}
		}
		others := []string{DefaultPrefix + ":{p0}:", fmt.Sprintf("%s:%d:{p0}:", DefaultPrefix, keySpace+1)}
		for _, base := range others {
			for key, err := range map[string]error{
				"tick":     s.raw.HSet(ctx, base+"tick", "theirs.1", "7").Err(),
				"counts":   s.raw.HSet(ctx, base+"counts", "room", "3 4 5").Err(),
				"i:":       s.raw.HSet(ctx, base+"i:theirs.1", "room", "4").Err(),
				"u:":       s.raw.HSet(ctx, base+"u:room", "x", "1", "y", "1", "z", "1").Err(),
				"version":  s.raw.Set(ctx, base+"version", "1", 0).Err(),
				"the rest": s.raw.ZAdd(ctx, base+"lease", redis.Z{Member: "theirs.1"}).Err(),
			} {
				if err != nil {
					t.Fatal(key, err)
				}
			}
		}
		n := s.node(t, func(c *Config) { c.Buckets = 1 })
		here := n.open("room")
		here.Join("ann")
		here.want(t, "only its own are counted", 1, 1)
		if c := here.last.Load(); c.PeakUsers != 1 {
			t.Errorf("the peak is %d", c.PeakUsers)
		}
		n.shut(t)
		for _, base := range others {
			if got, err := s.raw.HGet(ctx, base+"counts", "room").Result(); got != "3 4 5" || err != nil {
				t.Errorf("the other counts are %q, %v", got, err)
			}
			if got, err := s.raw.HLen(ctx, base+"u:room").Result(); got != 3 || err != nil {
				t.Errorf("there, it has %d users, %v", got, err)
			}
			if got, err := s.raw.ZCard(ctx, base+"lease").Result(); got != 1 || err != nil {
				t.Errorf("there, it has %d leases, %v", got, err)
			}
		}
	})
}

// What a newer version has written behind what this one knows is passed over, and stays where
// others need it.
func TestFieldsOfANewerVersion(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		ctx := context.Background()
		n := s.node(t, func(c *Config) { c.Buckets = 1 })
		here := n.open("room")
		here.Join("ann")
		here.want(t, "one is there", 1, 1)
		k := newKeys(DefaultPrefix, 0)
		add := func(key, field, more string) {
			t.Helper()
			v, err := s.raw.HGet(ctx, key, field).Result()
			if err == nil {
				err = s.raw.HSet(ctx, key, field, v+more).Err()
			}
			if err != nil {
				t.Fatal(key, err)
			}
		}
		add(k.counts(), "room", " 7 x")
		ids, err := s.raw.HKeys(ctx, n.nodesKey()).Result()
		if err != nil || len(ids) != 1 {
			t.Fatalf("%d records, %v", len(ids), err)
		}
		add(n.nodesKey(), ids[0], ` {"tomorrow":1}`)
		if err := s.raw.Set(ctx, k.base+"tomorrow", "1", 0).Err(); err != nil {
			t.Fatal(err)
		}
		second := s.node(t, func(c *Config) { c.Buckets = 1 })
		there := second.open("room")
		there.Join("bob")
		here.want(t, "both are counted", 2, 2)
		there.want(t, "by both", 2, 2)
		if got, err := s.raw.HGet(ctx, k.counts(), "room").Result(); err != nil || !strings.HasSuffix(got, " 7 x") {
			t.Errorf("the entry is %q, %v", got, err)
		}
		there.Leave("bob")
		here.want(t, "one is left", 1, 1)
		second.shut(t)
		n.shut(t)
	})
}

// A node whose layout is too old for what others have written says so, writes nothing, and
// goes on when that is taken back.
func TestPresenceForNewerVersions(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		ctx := context.Background()
		if err := s.raw.Set(ctx, DefaultPrefix+":reads", fmt.Sprint(layout+1), 0).Err(); err != nil {
			t.Fatal(err)
		}
		n := s.node(t, func(c *Config) { c.Buckets = 1 })
		here := n.open("room")
		here.Join("ann")
		eventually(t, "it says why it is not ready", func() error {
			if err := n.Ready(); !errors.Is(err, errNewer) || !strings.Contains(err.Error(), "upgrade") {
				return fmt.Errorf("ready: %w", err)
			}
			return nil
		})
		if got, err := s.raw.Exists(ctx, newKeys(DefaultPrefix, 0).counts()).Result(); err != nil || got != 0 {
			t.Errorf("it has written: %d, %v", got, err)
		}
		if err := s.raw.Set(ctx, DefaultPrefix+":reads", fmt.Sprint(layout), 0).Err(); err != nil {
			t.Fatal(err)
		}
		here.want(t, "then it counts", 1, 1)
		n.shut(t)
	})
}
