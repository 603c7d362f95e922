package redispresence

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/kansei-live/kansei/test/ports"
)

// benchServers runs a benchmark over the servers that a node meets.
func benchServers(b *testing.B, bench func(*testing.B, *server)) {
	b.Run("redis", func(b *testing.B) {
		s := &server{url: startProcess(b, ports.ForTest(b).Number)}
		s.raw = s.client(b)
		bench(b, s)
	})
	b.Run("miniredis", func(b *testing.B) {
		m := miniredis.RunT(b)
		bench(b, &server{url: "redis://" + m.Addr()})
	})
}

func mustRound(b *testing.B, n *node) {
	for _, bucket := range n.buckets {
		if err := bucket.flush(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkQuietSecond is what one node with 1,000 rooms sends to 64 buckets in a
// second in which nothing changes.
func BenchmarkQuietSecond(b *testing.B) {
	benchServers(b, func(b *testing.B, s *server) {
		n := s.prepare(b, func(c *Config) { c.Buckets = 64 })
		for i := range 1000 {
			n.open("room-" + strconv.Itoa(i)).Join("ann")
		}
		mustRound(b, n)
		before := cpu(b, s)
		for b.Loop() {
			mustRound(b, n)
		}
		b.ReportMetric((cpu(b, s)-before)/float64(b.N)*1e6, "redis-µs/op")
	})
}

// BenchmarkBusySecond is the same while somebody comes or goes in every bucket, so
// that every answer brings counts.
func BenchmarkBusySecond(b *testing.B) {
	benchServers(b, func(b *testing.B, s *server) {
		n := s.prepare(b, func(c *Config) { c.Buckets = 64 })
		var views []*view
		for i := range 1000 {
			views = append(views, n.open("room-"+strconv.Itoa(i)))
		}
		mustRound(b, n)
		before := cpu(b, s)
		here := false
		for b.Loop() {
			for _, v := range views {
				if here {
					v.Leave("ann")
				} else {
					v.Join("ann")
				}
			}
			here = !here
			mustRound(b, n)
		}
		b.ReportMetric((cpu(b, s)-before)/float64(b.N)*1e6, "redis-µs/op")
	})
}

// BenchmarkQuietCluster is a second of 20 nodes with 1,000 rooms each, of their own, in
// which nothing changes.
func BenchmarkQuietCluster(b *testing.B) {
	benchServers(b, func(b *testing.B, s *server) {
		var nodes []*node
		for i := range 20 {
			n := s.prepare(b, func(c *Config) { c.Buckets, c.Lease = 64, time.Minute })
			for j := range 1000 {
				n.open(fmt.Sprint("room-", i, "-", j)).Join("ann")
			}
			nodes = append(nodes, n)
		}
		for range 2 {
			for _, n := range nodes {
				mustRound(b, n)
			}
		}
		before := cpu(b, s)
		for b.Loop() {
			for _, n := range nodes {
				mustRound(b, n)
			}
		}
		b.ReportMetric((cpu(b, s)-before)/float64(b.N)*1e6, "redis-µs/op")
	})
}

// BenchmarkOneJoin is a tick that brings one user to one of 5,000 rooms in a bucket.
func BenchmarkOneJoin(b *testing.B) {
	benchServers(b, func(b *testing.B, s *server) {
		n := s.prepare(b, func(c *Config) { c.Buckets = 1 })
		var v *view
		for i := range 5000 {
			v = n.open("room-" + strconv.Itoa(i))
			v.Join("ann")
		}
		for range 20 {
			mustRound(b, n)
		}
		before, i := cpu(b, s), 0
		for b.Loop() {
			v.Join("user-" + strconv.Itoa(i))
			i++
			mustRound(b, n)
		}
		b.ReportMetric((cpu(b, s)-before)/float64(b.N)*1e6, "redis-µs/op")
	})
}

// BenchmarkJoin500 is one script that brings 500 users to one room, and every
// second time takes them away.
func BenchmarkJoin500(b *testing.B) {
	benchServers(b, func(b *testing.B, s *server) {
		n := s.prepare(b, func(c *Config) { c.Buckets = 1 })
		v := n.open("room")
		all := users(500)
		here := false
		before := cpu(b, s)
		for b.Loop() {
			for _, u := range all {
				if here {
					v.Leave(u)
				} else {
					v.Join(u)
				}
			}
			here = !here
			mustRound(b, n)
		}
		b.ReportMetric((cpu(b, s)-before)/float64(b.N)*1e6, "redis-µs/op")
	})
}

// BenchmarkJoinLeave is what a viewer's way costs: no Redis in it.
func BenchmarkJoinLeave(b *testing.B) {
	n := (&server{url: "redis://127.0.0.1:1"}).prepare(b, nil)
	v := n.open("room")
	for _, u := range users(10_000) {
		v.Join(u)
	}
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.Join("user-000042")
			v.Leave("user-000042")
		}
	})
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v.Join("newcomer")
			v.Leave("newcomer")
		}
	})
}

// cpu returns the processor seconds that redis-server has used; 0 for a server
// that does not tell.
func cpu(b *testing.B, s *server) float64 {
	if s.raw == nil {
		return 0
	}
	info, err := s.raw.InfoMap(context.Background(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	var sum float64
	for _, k := range []string{"used_cpu_user", "used_cpu_sys"} {
		var v float64
		if _, err := fmt.Sscan(info["CPU"][k], &v); err != nil {
			b.Fatalf("%s: %v", k, err)
		}
		sum += v
	}
	return sum
}
