package natslog

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
)

// inProcess opens a log on a server that it reaches without a network.
func inProcess(b *testing.B) *Log {
	b.Helper()
	s, err := server.NewServer(&server.Options{
		DontListen: true, JetStream: true, StoreDir: b.TempDir(), NoLog: true, NoSigs: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		b.Fatal("the server does not start")
	}
	b.Cleanup(func() { stopServer(s) })
	return openReady(b, Config{Options: []nats.Option{nats.InProcessServer(s)}})
}

var benchBody = []byte(`{"user":{"id":"u123456","name":"name"},"text":"` +
	`a comment of the usual length, which is not very long at all","media_ms":1234567}`)

// BenchmarkAppend measures durable appends with a thousand in flight.
func BenchmarkAppend(b *testing.B) {
	l := inProcess(b)
	var n atomic.Int64
	slots := make(chan struct{}, 1000)
	b.ReportAllocs()
	for b.Loop() {
		slots <- struct{}{}
		l.Append("r", hub.Draft{ID: fmt.Sprint(n.Add(1)), Kind: hub.KindComment, Body: benchBody}, func(_ hub.Receipt, err error) {
			if err != nil {
				b.Error(err)
			}
			<-slots
		})
	}
	for range cap(slots) {
		slots <- struct{}{}
	}
}

// BenchmarkAppendAlone measures one append after the other.
func BenchmarkAppendAlone(b *testing.B) {
	l := inProcess(b)
	done := make(chan error)
	i := 0
	for b.Loop() {
		i++
		l.Append("r", hub.Draft{ID: fmt.Sprint(i), Kind: hub.KindComment, Body: benchBody}, func(_ hub.Receipt, err error) { done <- err })
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// counting is a follower that counts events.
type counting struct {
	observerOff
	n    atomic.Int64
	warm sync.WaitGroup
	once sync.Once
}

type observerOff struct{}

func (observerOff) SetState(hub.State) {}
func (observerOff) Forgot(uint64)      {}
func (observerOff) Degraded(bool)      {}

func (c *counting) Reset(string, []hub.Event, uint64) { c.once.Do(c.warm.Done) }
func (c *counting) Deliver(events []hub.Event)        { c.n.Add(int64(len(events))) }

// BenchmarkFollow measures an event from its append to the followers of 100 rooms.
func BenchmarkFollow(b *testing.B) {
	l := inProcess(b)
	const rooms = 100
	c := new(counting)
	for i := range rooms {
		one := &counting{}
		one.warm.Add(1)
		f := l.Follow(fmt.Sprint("r", i), 0, &both{c, one})
		b.Cleanup(f.Stop)
		one.warm.Wait()
	}
	slots := make(chan struct{}, 1000)
	var i int64
	b.ReportAllocs()
	for b.Loop() {
		i++
		slots <- struct{}{}
		l.Append(fmt.Sprint("r", i%rooms), hub.Draft{ID: fmt.Sprint(i), Kind: hub.KindComment, Body: benchBody}, func(_ hub.Receipt, err error) {
			if err != nil {
				b.Error(err)
			}
			<-slots
		})
	}
	for c.n.Load() < i {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(counter(b, l.metrics.gaps.WithLabelValues(gapLive))+counter(b, l.metrics.gaps.WithLabelValues(gapTail)), "gaps")
}

// both counts the events in one place and the reset in another.
type both struct {
	*counting
	one *counting
}

func (c *both) Reset(string, []hub.Event, uint64) { c.one.once.Do(c.one.warm.Done) }

// BenchmarkWarmUp measures the first report of a room with 50 recent events.
func BenchmarkWarmUp(b *testing.B) {
	l := inProcess(b)
	const rooms = 50
	var wg sync.WaitGroup
	for i := range rooms * 200 {
		wg.Add(1)
		l.Append(fmt.Sprint("r", i%rooms), hub.Draft{ID: fmt.Sprint(i), Kind: hub.KindComment, Body: benchBody}, func(_ hub.Receipt, err error) {
			if err != nil {
				b.Error(err)
			}
			wg.Done()
		})
		if i%1000 == 0 {
			wg.Wait()
		}
	}
	wg.Wait()
	i := 0
	for b.Loop() {
		i++
		c := new(counting)
		c.warm.Add(1)
		f := l.Follow(fmt.Sprint("r", i%rooms), 50, c)
		c.warm.Wait()
		f.Stop()
	}
}

// BenchmarkTick measures what a second costs that a stream with 200 open rooms is
// tended, one of which has gone on.
func BenchmarkTick(b *testing.B) {
	l := inProcess(b)
	for i := range 200 {
		mustAppend(b, l, fmt.Sprint("r", i), fmt.Sprint("a", i))
		c := new(counting)
		c.warm.Add(1)
		f := l.Follow(fmt.Sprint("r", i), 0, c)
		b.Cleanup(f.Stop)
		c.warm.Wait()
	}
	s := l.logs[0]
	rooms := names("r", 200)
	ctx := testContext(b)
	b.Run("info", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.info(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("probe", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.directLasts(ctx, rooms, 200); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("leader", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.leaderLast(ctx, "r0"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
