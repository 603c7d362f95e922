package redispresence

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// Nodes of another version may keep presence in another layout on the same Redis: neither
// reads what the other has written, nor changes it.
func TestNodesOfAnotherLayoutCountApart(t *testing.T) {
	overBackends(t, func(t *testing.T, s *server) {
		ctx := context.Background()
		mine := newKeys(DefaultPrefix, 0)
		for _, k := range append([]string{mine.index("i"), mine.users("r"), mine.set("i", "r")}, mine.common...) {
			if !strings.HasPrefix(k, fmt.Sprintf("%s:%d:{p0}:", DefaultPrefix, layout)) {
				t.Errorf("the key %s does not bear the layout", k)
			}
		}
		// As it was before layouts had numbers, and as another one may be.
		others := []string{DefaultPrefix + ":{p0}:", fmt.Sprintf("%s:%d:{p0}:", DefaultPrefix, layout+1)}
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
		here.want(t, "only this layout's are counted", 1, 1)
		if c := here.last.Load(); c.PeakUsers != 1 {
			t.Errorf("the peak is %d", c.PeakUsers)
		}
		n.shut(t)
		for _, base := range others {
			if got, err := s.raw.HGet(ctx, base+"counts", "room").Result(); got != "3 4 5" || err != nil {
				t.Errorf("the other layout's counts are %q, %v", got, err)
			}
			if got, err := s.raw.HLen(ctx, base+"u:room").Result(); got != 3 || err != nil {
				t.Errorf("the other layout has %d users, %v", got, err)
			}
			if got, err := s.raw.ZCard(ctx, base+"lease").Result(); got != 1 || err != nil {
				t.Errorf("the other layout has %d leases, %v", got, err)
			}
		}
	})
}
