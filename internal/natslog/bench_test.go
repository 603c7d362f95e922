package natslog

import (
	"fmt"
	"slices"
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
	return inProcessWith(b, server.Options{})
}

func inProcessWith(b *testing.B, o server.Options) *Log {
	b.Helper()
	o.DontListen, o.JetStream, o.StoreDir, o.NoLog, o.NoSigs = true, true, b.TempDir(), true, true
	s, err := server.NewServer(&o)
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

// BenchmarkSync measures what it costs to have each append on the disk before it is
// acknowledged, and not within a second: how many appends a second, and how long each
// takes, with so many in flight. The disk is that of the temporary directory.
func BenchmarkSync(b *testing.B) {
	for _, mode := range []struct {
		name string
		o    server.Options
	}{{"1s", server.Options{SyncInterval: time.Second}}, {"always", server.Options{SyncAlways: true}}} {
		for _, inFlight := range []int{1, 100, 1000} {
			b.Run(fmt.Sprintf("%s/%d", mode.name, inFlight), func(b *testing.B) {
				l := inProcessWith(b, mode.o)
				var (
					n     atomic.Int64
					mu    sync.Mutex
					times []time.Duration
				)
				slots := make(chan struct{}, inFlight)
				began := time.Now()
				for b.Loop() {
					slots <- struct{}{}
					start := time.Now()
					l.Append("r", hub.Draft{ID: fmt.Sprint(n.Add(1)), Kind: hub.KindComment, Body: benchBody}, func(_ hub.Receipt, err error) {
						if err != nil {
							b.Error(err)
						}
						mu.Lock()
						times = append(times, time.Since(start))
						mu.Unlock()
						<-slots
					})
				}
				for range cap(slots) {
					slots <- struct{}{}
				}
				b.ReportMetric(float64(n.Load())/time.Since(began).Seconds(), "appends/s")
				slices.Sort(times)
				b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "p50-ms")
				b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
			})
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

func (observerOff) SetState(hub.State)                 {}
func (observerOff) Standing([]hub.Standing, hub.State) {}
func (observerOff) Stands(hub.Standing)                {}
func (observerOff) Forgot(hub.Position)                {}
func (observerOff) Degraded(bool)                      {}

func (c *counting) Reset(string, []hub.Event, hub.Position) { c.once.Do(c.warm.Done) }
func (c *counting) Deliver(events []hub.Event)              { c.n.Add(int64(len(events))) }

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

func (c *both) Reset(string, []hub.Event, hub.Position) { c.one.once.Do(c.one.warm.Done) }

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

// BenchmarkBefore measures a page of 1,000 comments of a room, in a stream with a million
// records of other rooms: found and read backwards (page), and in turns with it the same
// records read forwards from a place that is known (plain). In even they lie all over the
// stream, in burst all of them are in its middle, and in busy the room has 100,000 evenly
// spread, of which those before the middle are read. Requests are those of both.
func BenchmarkBefore(b *testing.B) {
	const n, size = 1_000_000, 1000
	for _, c := range []struct {
		name string
		mine func(i int) bool
		ends int // the index of the first record behind the page
	}{
		{"even", func(i int) bool { return i%(n/size) == 0 }, n},
		{"burst", func(i int) bool { return i >= n/2 && i < n/2+size }, n},
		{"busy", func(i int) bool { return i%10 == 0 }, n / 2},
	} {
		b.Run(c.name, func(b *testing.B) {
			l := inProcess(b)
			ctx, epoch := testContext(b), l.epochOf("r")
			s := l.logs[0]
			other := names("other", 100)
			places := storeRooms(b, l, n, func(i int) string {
				if c.mine(i) {
					return "r"
				}
				return other[i%len(other)]
			})["r"]
			last := len(places)
			for last > 0 && places[last-1].Seq > uint64(c.ends) {
				last--
			}
			at, first := placed(b, l, "r", places[last-1].Seq), places[last-size].Seq
			var page, plain time.Duration
			before := asked(b, l)
			for b.Loop() {
				start := time.Now()
				got, err := l.Before(ctx, "r", epoch, at, true, size)
				if err != nil || len(got.Events) != size {
					b.Fatal(len(got.Events), err)
				}
				page += time.Since(start)
				start = time.Now()
				n := 0
				err = s.read(ctx, "r", hub.Position{Seq: first - 1}, at.Seq, func(records []record, _ hub.Position) error {
					n += len(records)
					return nil
				})
				if err != nil || n < size {
					b.Fatal(n, err)
				}
				plain += time.Since(start)
			}
			b.ReportMetric(float64(page.Microseconds())/1000/float64(b.N), "page-ms")
			b.ReportMetric(float64(plain.Microseconds())/1000/float64(b.N), "plain-ms")
			b.ReportMetric(float64(page)/float64(plain), "page/plain")
			b.ReportMetric(float64(asked(b, l)-before)/float64(b.N), "requests/op")
		})
	}
}

// BenchmarkOpenStanding measures the first report of a room with 11,000 standing records, each as that
// of a ban is.
func BenchmarkOpenStanding(b *testing.B) {
	l := inProcess(b)
	var writing sync.WaitGroup
	for w := range 32 {
		writing.Go(func() {
			for i := w; i < 11_000; i += 32 {
				body := fmt.Sprintf(`{"act":{"id":"act%d","kind":"ban","by":{"id":"moderator","name":"moderator","role":"moderator"},"at":1764200000000,`+
					`"hash":"%026d","user":"u%d","reason":"spam","ends":1764300000000,"after":9},"pos":%d,"pos_at":1764200000001}`, i, i, i, i+10)
				if _, err := l.Keep(b.Context(), "r", hub.Standing{ID: fmt.Sprint("act", i), Body: []byte(body)}, 0); err != nil {
					b.Error(err)
				}
			}
		})
	}
	writing.Wait()
	b.ReportAllocs()
	for b.Loop() {
		c := new(counting)
		c.warm.Add(1)
		f := l.Follow("r", 50, c)
		c.warm.Wait()
		f.Stop()
	}
}
