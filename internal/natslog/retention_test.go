package natslog

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// first is where the log begins, as JetStream tells it.
func firstSeq(t testing.TB, js jetstream.JetStream) uint64 {
	t.Helper()
	s, err := js.Stream(testContext(t), "KANSEI_LOG_0")
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.FirstSeq
}

// purge removes what comes before a position.
func purge(t testing.TB, js jetstream.JetStream, before uint64) {
	t.Helper()
	s, err := js.Stream(testContext(t), "KANSEI_LOG_0")
	if err == nil {
		err = s.Purge(testContext(t), jetstream.WithPurgeSequence(before))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What the log has removed, for whatever reason, is not passed over in silence: a read
// from before it fails, one from behind it does not.
func TestReadAcrossWhatWasRemoved(t *testing.T) {
	t.Parallel()
	for name, remove := range map[string]func(t *testing.T, js jetstream.JetStream){
		"by age": func(t *testing.T, js jetstream.JetStream) { time.Sleep(2500 * time.Millisecond) },
		"by size": func(t *testing.T, js jetstream.JetStream) {
			s, err := js.Stream(testContext(t), "KANSEI_LOG_0")
			if err != nil {
				t.Fatal(err)
			}
			cfg := s.CachedInfo().Config
			cfg.MaxBytes = int64(s.CachedInfo().State.Bytes) / 2
			if _, err := js.UpdateStream(testContext(t), cfg); err != nil {
				t.Fatal(err)
			}
		},
		"by purge": func(t *testing.T, js jetstream.JetStream) { purge(t, js, 20) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, t.TempDir(), 0)
			cfg := Config{URLs: urls(s)}
			if name == "by age" {
				cfg.MaxAge, cfg.AppendTimeout = 2*time.Second, time.Second
			}
			l := openReady(t, cfg)
			js := jetStream(t, s.ClientURL())
			ctx := testContext(t)
			for i := range 40 {
				mustAppend(t, l, "r", fmt.Sprint(i))
			}
			at := map[uint64]hub.Position{}
			for _, seq := range []uint64{0, 10, 40} {
				at[seq] = placed(t, l, "r", seq)
			}
			if got, _, err := l.Read(ctx, "r", l.epochOf("r"), at[10], 100); err != nil || len(got) != 30 {
				t.Fatalf("before: %d events, %v", len(got), err)
			}
			remove(t, js)
			var first uint64
			eventually(t, 20*time.Second, "something is removed", func() error {
				if first = firstSeq(t, js); first < 12 {
					return fmt.Errorf("it begins at %d", first)
				}
				return nil
			})
			mustAppend(t, l, "r", "last")
			for _, after := range []uint64{0, 10} {
				if got, _, err := l.Read(ctx, "r", l.epochOf("r"), at[after], 100); !errors.Is(err, hub.ErrForgotten) {
					t.Errorf("from %d: %d events, %v", after, len(got), err)
				}
			}
			got, _, err := l.Read(ctx, "r", l.epochOf("r"), at[40], 100)
			if name == "by age" && errors.Is(err, hub.ErrForgotten) && firstSeq(t, js) > 40 {
				return // the record there is gone too: nobody knows whether it was there
			}
			if err != nil || len(got) != 1 {
				t.Errorf("from the end: %d events, %v", len(got), err)
			}
		})
	}
}

// The log removes what a room has lost on its way before it is read back: the room's
// followers are told, and go on with what is left.
func TestRepairOfWhatWasRemoved(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	js := jetStream(t, s.ClientURL())
	o, f := followRoom(t, l, "r", 10)
	mustAppend(t, l, "r", "a")
	waitEvents(t, o, 5*time.Second, "a")
	waitFresh(t, f)
	hear := deafen(t, l, f)
	say := func(what string, n int) {
		for i := range n { // and waits until it is stored: a purge up to where nothing is yet moves the end
			if _, err := js.PublishMsg(testContext(t), encodeDraft("kansei.log.0.r", draft1(fmt.Sprint(what, i)))); err != nil {
				t.Fatal(err)
			}
		}
	}
	letGo := hold(t, f)
	say("b", 9) // at 2 to 10
	purge(t, js, 7)
	letGo()
	waitEvents(t, o, 10*time.Second, "a", "b5", "b6", "b7", "b8")
	forgotten := func(upTo uint64) {
		t.Helper()
		o.look(t, func() {
			if len(o.forgot) == 0 || slices.Max(o.forgot) != upTo || o.resets != 1 {
				t.Errorf("forgotten up to %d, %d resets", o.forgot, o.resets)
			}
		})
	}
	forgotten(6)

	// The same, betrayed by what comes behind it and not by the probe.
	letGo = hold(t, f)
	say("c", 9) // at 11 to 19
	purge(t, js, 17)
	letGo()
	hear()
	say("d", 1)
	waitEvents(t, o, 10*time.Second, "a", "b5", "b6", "b7", "b8", "c6", "c7", "c8", "d0")
	forgotten(16)
	if counter(t, l.metrics.gaps.WithLabelValues(gapForgotten)) == 0 {
		t.Error("it was not counted")
	}
}

// All that was said while a node heard nothing is removed before the node asks: there is
// nothing left to be found missing, and the followers are told all the same.
func TestAllThatWasMissedIsRemoved(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), Partitions: 2})
	js := jetStream(t, s.ClientURL())
	room, other := roomIn(0, 2), roomIn(1, 2)
	o, f := followRoom(t, l, room, 10)
	elsewhere, _ := followRoom(t, l, other, 10)
	mustAppend(t, l, room, "a")
	waitEvents(t, o, 5*time.Second, "a")
	waitFresh(t, f)
	hear := deafen(t, l, f)
	letGo := hold(t, f)
	lose := func(what string, from uint64) { // nine that begin there
		t.Helper()
		for i := range 9 { // each is stored, as above
			if _, err := js.PublishMsg(testContext(t), encodeDraft("kansei.log.0."+room, draft1(fmt.Sprint(what, i)))); err != nil {
				t.Fatal(err)
			}
		}
		purge(t, js, from+9)
	}
	told := func(times int) {
		t.Helper()
		eventually(t, 10*time.Second, "the gap is told", func() error {
			o.mu.Lock()
			defer o.mu.Unlock()
			if len(o.forgot) != times {
				return fmt.Errorf("forgotten %d", o.forgot)
			}
			return nil
		})
	}
	lose("b", 2)
	letGo()
	told(1)
	o.look(t, func() {
		if o.head != 10 {
			t.Errorf("the head is %d", o.head)
		}
	})
	hear()
	mustAppend(t, l, room, "c")
	waitEvents(t, o, 5*time.Second, "a", "c")

	// What comes behind it comes before the probe, and knows of no predecessor.
	waitFresh(t, f)
	f.sub = heard(f)
	again := deafen(t, l, f)
	letGo = hold(t, f)
	lose("d", 12)
	letGo()
	again()
	mustAppend(t, l, room, "e")
	waitEvents(t, o, 5*time.Second, "a", "c", "e")
	told(2)
	mustAppend(t, l, room, "f")
	time.Sleep(1500 * time.Millisecond) // a probe
	waitEvents(t, o, 5*time.Second, "a", "c", "e", "f")
	told(2)
	elsewhere.look(t, func() {
		if len(elsewhere.forgot) > 0 {
			t.Error("a room of another partition is told too")
		}
	})
}

// heard is the subscription that a follow was given by hear.
func heard(f *follow) *nats.Subscription {
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	for sub, g := range f.log.subs {
		if g == f && sub.IsValid() {
			return sub
		}
	}
	return nil
}

// A room without events has a position, so that its cursor does not outlive what is
// said and removed.
func TestPositionOfAnEmptyRoom(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	js := jetStream(t, s.ClientURL())
	for i := range 20 {
		mustAppend(t, l, "busy", fmt.Sprint(i))
	}
	busy, _ := followRoom(t, l, "busy", 1)
	waitEvents(t, busy, 5*time.Second, "19")
	eventually(t, 15*time.Second, "the end is known", func() error {
		if end := l.logs[0].known(); end != 20 {
			return fmt.Errorf("known up to %d", end)
		}
		return nil
	})
	o, _ := followRoom(t, l, "empty", 10)
	o.look(t, func() {
		if o.head != 20 {
			t.Errorf("the room's position is %d", o.head)
		}
	})
	purge(t, js, 21)
	if _, _, err := l.Read(testContext(t), "empty", l.epochOf("empty"), hub.Position{Seq: 20, At: o.headAt}, 1); err != nil {
		t.Errorf("from there: %v", err)
	}
	mustAppend(t, l, "empty", "a")
	waitEvents(t, o, 5*time.Second, "a")
}
