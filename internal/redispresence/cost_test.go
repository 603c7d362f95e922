package redispresence

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/test/ports"
)

// What members cost a real Redis: see docs/PERFORMANCE.md, "Members". One iteration is enough:
//
//	go test -run XXX -bench Crowd -benchtime 1x ./internal/redispresence
const (
	crowdNodes = 20
	crowdUsers = 100_000
)

// crowd has users come to nodes, spread over rooms: ids of 12 bytes, names of 16. Events are
// taken and thrown away.
func crowd(b *testing.B, s *server, rooms int, broadcast bool) []*node {
	b.Helper()
	var nodes []*node
	for range crowdNodes {
		nodes = append(nodes, s.prepare(b, func(c *Config) {
			c.Buckets, c.Lease, c.Interval = 64, time.Minute, DefaultInterval
			c.Publish = func(context.Context, string, string, []byte) error { return nil }
			c.LogBegan = time.Now
		}))
	}
	views := make([]map[int]*view, crowdNodes)
	for i := range crowdUsers {
		n, room := i%crowdNodes, i/crowdNodes%rooms
		if views[n] == nil {
			views[n] = map[int]*view{}
		}
		v := views[n][room]
		if v == nil {
			v = nodes[n].open(fmt.Sprint("room-", room))
			if broadcast {
				v.Broadcast(1)
			}
			views[n][room] = v
		}
		v.Membership.Join(hub.Member{ID: fmt.Sprintf("user-%07d", i), Name: fmt.Sprintf("さくら-%06d", i)})
	}
	return nodes
}

// bring flushes the buckets that have something to send, and publishes what is told.
func bring(b *testing.B, nodes []*node) {
	b.Helper()
	for _, n := range nodes {
		for _, bucket := range n.buckets {
			for len(bucket.dirty) > 0 {
				if err := bucket.flush(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		}
		for len(n.feeds) > 0 {
			bucket := <-n.feeds
			bucket.feeding = false
			if err := bucket.publish(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// info reads a number from a section of INFO.
func info(b *testing.B, s *server, section, field string) (v float64) {
	b.Helper()
	all, err := s.raw.InfoMap(b.Context(), section).Result()
	if err != nil {
		b.Fatal(err)
	}
	for _, fields := range all {
		if text, ok := fields[field]; ok {
			if _, err := fmt.Sscan(text, &v); err != nil {
				b.Fatal(err)
			}
		}
	}
	return v
}

// floorLua is the least that counts need: each user in the set of an incarnation, and in the hash
// of a room. ARGV a user and the first of the two keys, for each.
const floorLua = `for i = 1, #ARGV, 2 do
  local k = tonumber(ARGV[i + 1])
  redis.call('SADD', KEYS[k], ARGV[i])
  redis.call('HINCRBY', KEYS[k + 1], ARGV[i], 1)
end
return #ARGV`

// floor is what it costs to bring the crowd to its rooms in that way, in seconds of Redis.
func floor(b *testing.B, s *server, rooms int) float64 {
	b.Helper()
	script := redis.NewScript(floorLua)
	before := cpu(b, s)
	for n := range crowdNodes {
		for i := 0; i < crowdUsers/crowdNodes; i += chunk {
			var keys []string
			var args []any
			at := map[int]int{}
			for j := i; j < i+chunk; j++ {
				room := (j / (crowdUsers / crowdNodes / rooms)) % rooms
				if at[room] == 0 {
					at[room] = len(keys) + 1
					keys = append(keys, fmt.Sprint("{x}s:", n, ":", room), fmt.Sprint("{x}u:", room))
				}
				args = append(args, fmt.Sprintf("user-%07d", j*crowdNodes+n), at[room])
			}
			if err := script.Run(b.Context(), s.raw, keys, args...).Err(); err != nil {
				b.Fatal(err)
			}
		}
	}
	spent := cpu(b, s) - before
	if err := s.raw.FlushAll(b.Context()).Err(); err != nil {
		b.Fatal(err)
	}
	return spent
}

func BenchmarkCrowd(b *testing.B) {
	for _, c := range []struct {
		name      string
		rooms     int
		broadcast bool
	}{{"one room", 1, false}, {"1000 rooms", 1000, false}, {"1000 rooms in broadcast", 1000, true}} {
		b.Run(c.name, func(b *testing.B) {
			s := &server{url: startProcess(b, ports.ForTest(b).Number)}
			s.raw = s.client(b)
			var least, joins, bytes, quiet, commands, pages float64
			for b.Loop() {
				if err := s.raw.FlushAll(b.Context()).Err(); err != nil {
					b.Fatal(err)
				}
				least += floor(b, s, c.rooms)
				empty, began := info(b, s, "memory", "used_memory"), cpu(b, s)
				nodes := crowd(b, s, c.rooms, c.broadcast)
				bring(b, nodes)
				joins += cpu(b, s) - began
				bytes += info(b, s, "memory", "used_memory") - empty
				// The first ticks after a crowd tell what has changed.
				for range 2 {
					for _, n := range nodes {
						mustRound(b, n)
					}
					bring(b, nodes)
				}
				before, reads := cpu(b, s), info(b, s, "stats", "total_reads_processed")
				const seconds = 2 * lookEvery
				for range seconds {
					for _, n := range nodes {
						mustRound(b, n)
					}
				}
				quiet += (cpu(b, s) - before) / seconds
				commands += (info(b, s, "stats", "total_reads_processed") - reads) / seconds
				before = cpu(b, s)
				const walks = 200
				cursor := ""
				for range walks {
					page, err := nodes[0].Members(b.Context(), hub.MembersQuery{Room: "room-0", Cursor: cursor, Limit: 100})
					if err != nil {
						b.Fatal(err)
					}
					cursor = page.Cursor
				}
				pages += (cpu(b, s) - before) / walks
			}
			n := float64(b.N)
			b.ReportMetric(least/n, "floor-s")
			b.ReportMetric(joins/n, "joins-s")
			b.ReportMetric(joins/least, "joins/floor")
			b.ReportMetric(bytes/n/crowdUsers, "B/member")
			b.ReportMetric(quiet/n*100, "%core/quiet-s")
			b.ReportMetric(commands/n, "requests/quiet-s")
			b.ReportMetric(pages/n*1e6, "redis-µs/page")
			b.ReportMetric(0, "ns/op")
		})
	}
}
