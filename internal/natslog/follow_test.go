package natslog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
)

// deafen ends a follow's subscription without the follow's knowing, as if the
// network lost what comes; the function that it returns makes it hear again.
func deafen(t *testing.T, l *Log, f *follow) (hear func()) {
	t.Helper()
	eventually(t, 5*time.Second, "the follow rests", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.busy || f.tasks != 0 || f.freshLog {
			return errors.New("it is busy")
		}
		return nil
	})
	if err := f.sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	return func() {
		sub, err := l.conn.NATS().ChanSubscribe(f.liveSubject, f.log.live)
		if err != nil {
			t.Fatal(err)
		}
		f.log.mu.Lock()
		f.log.subs[sub] = f
		f.log.mu.Unlock()
		flush(t, l)
	}
}

// hold has nobody look for what a follow has missed, neither the probe nor a worker, until
// the function that it returns is called.
func hold(t *testing.T, f *follow) (letGo func()) {
	t.Helper()
	eventually(t, 5*time.Second, "the follow rests", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.tasks != 0 || !f.claim() {
			return errors.New("it is busy")
		}
		return nil
	})
	f.log.mu.Lock()
	return func() {
		f.log.mu.Unlock()
		f.handOver()
	}
}

func flush(t *testing.T, l *Log) {
	t.Helper()
	if err := l.conn.NATS().Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestGapIsRepairedBeforeWhatIsNewer(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	o, f := followRoom(t, l, "r", 10)
	mustAppend(t, l, "r", "a")
	waitEvents(t, o, 5*time.Second, "a")
	waitFresh(t, f)
	ids := []string{"a"}
	for round := range 5 {
		hear := deafen(t, l, f)
		for i := range 3 {
			id := fmt.Sprintf("lost%d-%d", round, i)
			mustAppend(t, l, "r", id)
			ids = append(ids, id)
		}
		hear()
		for i := range 20 {
			id := fmt.Sprintf("heard%d-%d", round, i)
			mustAppend(t, l, "r", id)
			ids = append(ids, id)
		}
		waitEvents(t, o, 5*time.Second, ids...)
		// hear made another subscription, which the next round must end.
		f.log.mu.Lock()
		for sub, g := range f.log.subs {
			if g == f && sub.IsValid() {
				f.sub = sub
			}
		}
		f.log.mu.Unlock()
	}
	if counter(t, l.metrics.gaps.WithLabelValues(gapLive)) == 0 {
		t.Error("no gap was counted")
	}
	o.look(t, func() {
		if o.resets != 1 {
			t.Errorf("%d resets", o.resets)
		}
	})
}

// waitFresh waits until the check after a warm-up is over, so that only what is
// tested can find what is missing.
func waitFresh(t *testing.T, f *follow) {
	t.Helper()
	eventually(t, 5*time.Second, "the room was checked", func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.freshLog || f.freshState || f.tasks != 0 || f.busy {
			return errors.New("it was not")
		}
		return nil
	})
}

func TestLostTailIsFound(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	o, f := followRoom(t, l, "r", 10)
	mustAppend(t, l, "r", "a")
	waitEvents(t, o, 5*time.Second, "a")
	waitFresh(t, f)
	deafen(t, l, f)
	ids := []string{"a"}
	var worst time.Duration
	for i := range 3 {
		id := fmt.Sprint("tail", i)
		mustAppend(t, l, "r", id)
		start := time.Now()
		ids = append(ids, id)
		waitEvents(t, o, 10*time.Second, ids...)
		worst = max(worst, time.Since(start))
	}
	t.Logf("found after %v at the latest", worst)
	if worst > 5*time.Second { // 2 s are promised; the machine may be busy
		t.Errorf("found after %v", worst)
	}
	if counter(t, l.metrics.gaps.WithLabelValues(gapTail)) != 3 {
		t.Error("the gaps were not counted")
	}
}

func TestLostStateIsFound(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	o, f := followRoom(t, l, "r", 10)
	waitFresh(t, f)
	if err := f.stateSub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	rev, err := setState(testContext(t), l, "r", 0, []byte(`{"title":"t"}`))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the state", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if n := len(o.states); o.states[n-1].Rev != rev || n != 2 {
			return fmt.Errorf("states %v", o.states)
		}
		return nil
	})
}

// A live message that is late or doubled is dropped; one that claims what the log
// does not have does not stop the room.
func TestLiveMessagesThatAreNoLog(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	o, f := followRoom(t, l, "r", 10)
	for _, id := range []string{"a", "b", "c"} {
		mustAppend(t, l, "r", id)
	}
	waitEvents(t, o, 5*time.Second, "a", "b", "c")
	nc := dial(t, s.ClientURL())
	fake := func(seq, previous, body string) {
		m := &nats.Msg{Subject: f.liveSubject, Data: []byte(body), Header: nats.Header{
			headerSubject: {"kansei.log.0.r"}, headerSequence: {seq}, headerPrevious: {previous},
			headerTime: {time.Now().UTC().Format(time.RFC3339Nano)},
		}}
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	fake("2", "1", `{"text":"again"}`)
	fake("3", "0", `{"text":"again"}`)
	fake("x", "0", `{"text":"no number"}`)
	if err := nc.Publish(f.liveSubject, []byte(`{"text":"no header"}`)); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, "r", "d")
	waitEvents(t, o, 5*time.Second, "a", "b", "c", "d")

	// Beyond the log's end: the leader's word counts, and the room begins anew.
	fake("900", "899", `{"text":"from nowhere"}`)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "a reset", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.resets != 2 {
			return fmt.Errorf("%d resets", o.resets)
		}
		return nil
	})
	mustAppend(t, l, "r", "e")
	waitEvents(t, o, 5*time.Second, "a", "b", "c", "d", "e")
}

// Rooms are opened, followed and closed on two nodes while everything is being
// written: whatever a follow has shown is the log from its first event on.
func TestExactlyOnceWhileEverythingMoves(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	a := openReady(t, Config{URLs: urls(s), Partitions: 3})
	b := openReady(t, Config{URLs: urls(s), Partitions: 3})
	const rooms = 60
	var (
		stop  atomic.Bool
		wg    sync.WaitGroup
		acked atomic.Int64
	)
	for w, l := range []*Log{a, b} {
		wg.Go(func() {
			slots := make(chan struct{}, 300)
			for i := 0; !stop.Load(); i++ {
				slots <- struct{}{}
				l.Append(fmt.Sprint("r", rand.IntN(rooms)), draft1(fmt.Sprint(w, "-", i)), func(_ hub.Receipt, err error) {
					if err != nil {
						t.Error(err)
					}
					acked.Add(1)
					<-slots
				})
			}
			for range cap(slots) {
				slots <- struct{}{}
			}
		})
	}
	type seen struct {
		room string
		o    *observer
	}
	var watched []seen
	for i := range 3 * rooms {
		o := new(observer)
		room := fmt.Sprint("r", i%rooms)
		f := []*Log{a, b}[i%2].Follow(room, []int{0, 5, 50}[i%3], o)
		if i%5 == 0 {
			time.AfterFunc(time.Duration(rand.IntN(500))*time.Millisecond, f.Stop)
		} else {
			t.Cleanup(f.Stop)
			watched = append(watched, seen{room, o})
		}
		time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
	}
	time.Sleep(time.Second)
	stop.Store(true)
	wg.Wait()
	t.Logf("%d events were written", acked.Load())

	ctx := testContext(t)
	logs := make(map[string][]hub.Event)
	for i := range rooms {
		room := fmt.Sprint("r", i)
		events, more, err := a.Read(ctx, room, a.epochOf(room), hub.Position{}, 1_000_000)
		if err != nil || more {
			t.Fatal(err)
		}
		logs[room] = events
	}
	for _, w := range watched {
		eventually(t, 20*time.Second, "room "+w.room+" is complete", func() error { return w.o.isLog(logs[w.room]) })
		w.o.look(t, func() {
			if w.o.resets != 1 {
				t.Errorf("%d resets", w.o.resets)
			}
		})
	}
}

// isLog reports whether what was observed is the end of the log, from the first
// report on.
func (o *observer) isLog(log []hub.Event) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wrong != nil {
		return o.wrong
	}
	if len(o.events) == 0 {
		if len(log) == 0 || o.resets > 0 && o.head == log[len(log)-1].Seq {
			return nil
		}
		return fmt.Errorf("nothing of %d events, head %d", len(log), o.head)
	}
	for i, e := range log {
		if e.Seq != o.events[0].Seq {
			continue
		}
		if len(log)-i != len(o.events) {
			return fmt.Errorf("%d events from %d on, the log has %d", len(o.events), e.Seq, len(log)-i)
		}
		for j, e := range log[i:] {
			if g := o.events[j]; g.Seq != e.Seq || string(g.Body) != string(e.Body) || g.At != e.At {
				return fmt.Errorf("event %d is %d, the log has %d", j, g.Seq, e.Seq)
			}
		}
		return nil
	}
	return fmt.Errorf("the log has no event at %d", o.events[0].Seq)
}

// A room whose follower is slow loses live messages, which are read back; it does
// not hold up the others.
func TestSlowFollower(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	slow := &slowObserver{gate: make(chan struct{})}
	f := l.Follow("slow", 0, slow)
	t.Cleanup(f.Stop)
	eventually(t, 10*time.Second, "the first report", func() error {
		if !slow.isReset() {
			return errors.New("no reset")
		}
		return nil
	})
	fast, _ := followRoom(t, l, "fast", 0)
	ids := names("s", maxInbox+2000)
	var drafts []hub.Draft
	for _, id := range ids {
		drafts = append(drafts, draft1(id))
	}
	appendAll(t, l, "slow", drafts...)
	mustAppend(t, l, "fast", "f")
	waitEvents(t, fast, 5*time.Second, "f")
	close(slow.gate)
	waitEvents(t, &slow.observer, 20*time.Second, ids...)
}

type slowObserver struct {
	observer
	gate chan struct{}
}

func (o *slowObserver) Deliver(events []hub.Event) {
	<-o.gate
	o.observer.Deliver(events)
}

func TestStopEndsTheReports(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	var wg sync.WaitGroup
	var stop atomic.Bool
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			appendAll(t, l, "r", draft1(fmt.Sprint(i)))
		}
	})
	for range 50 {
		o := new(observer)
		f := l.Follow("r", 5, o)
		time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
		f.Stop()
		f.Stop() // and again, which does nothing
		before := o.count()
		time.Sleep(5 * time.Millisecond)
		if after := o.count(); after != before {
			t.Errorf("%d events came after Stop", after-before)
		}
		o.look(t, func() {})
	}
	stop.Store(true)
	wg.Wait()
	eventually(t, 5*time.Second, "no subscription is left", func() error {
		if n := l.conn.NATS().NumSubscriptions(); n != 2 {
			return fmt.Errorf("%d subscriptions", n)
		}
		return nil
	})
	bad := new(observer)
	l.Follow("no.room", 1, bad).Stop()
	if bad.isReset() {
		t.Error("a room that is none was reported")
	}
}

func TestThousandRoomsWithoutGoroutines(t *testing.T) {
	// Not parallel: it counts goroutines.
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), Partitions: 4})
	for i := range 200 {
		mustAppend(t, l, fmt.Sprint("r", i), fmt.Sprint("a", i))
	}
	before := runtime.NumGoroutine()
	const rooms = 1000
	os := make([]*observer, rooms)
	start := time.Now()
	for i := range os {
		os[i] = new(observer)
		f := l.Follow(fmt.Sprint("r", i), 50, os[i])
		t.Cleanup(f.Stop)
	}
	for i, o := range os {
		eventually(t, 30*time.Second, "the first report", func() error {
			if !o.isReset() {
				return fmt.Errorf("room %d has none", i)
			}
			return nil
		})
	}
	t.Logf("%d cold rooms were warm after %v", rooms, time.Since(start))
	time.Sleep(1500 * time.Millisecond) // a probe, and the checks that follow
	eventually(t, 10*time.Second, "no goroutine per room", func() error {
		if n := runtime.NumGoroutine(); n > before+20 {
			return fmt.Errorf("%d goroutines, %d before", n, before)
		}
		return nil
	})
	for i := range rooms {
		mustAppend(t, l, fmt.Sprint("r", i), fmt.Sprint("b", i))
	}
	for i, o := range os {
		want := []string{fmt.Sprint("b", i)}
		if i < 200 {
			want = []string{fmt.Sprint("a", i), want[0]}
		}
		waitEvents(t, o, 10*time.Second, want...)
	}
}
