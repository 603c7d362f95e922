package natslog

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// gated is a follower whose resets, but for the first one, wait to be let through.
type gated struct {
	observer
	first         bool
	waiting, pass chan struct{}
}

func (g *gated) Reset(epoch string, recent []hub.Event, head hub.Position) {
	if g.first {
		close(g.waiting)
		<-g.pass
	}
	g.first = true
	g.observer.Reset(epoch, recent, head)
}

// A node is not sure of what it was told while the log cannot be reached, nor from when it
// has found that the log has lost its end until it has told of that.
func TestSure(t *testing.T) {
	t.Parallel()
	r := startRestorable(t)
	l := openReady(t, Config{URLs: urls(r.Server)})
	g := &gated{waiting: make(chan struct{}), pass: make(chan struct{})}
	defer l.Follow("r", 10, g).Stop()
	sure := func() error {
		if !l.Sure("r") {
			return errors.New("it is not sure")
		}
		return nil
	}
	eventually(t, 10*time.Second, "it is sure", sure)
	for i := range 5 {
		say(t, l, "r", fmt.Sprint(i))
	}
	backup := r.backUp(t)
	reconnected(t, l, 1)
	eventually(t, 10*time.Second, "it is sure again", sure)
	for i := range 5 {
		say(t, l, "r", fmt.Sprint("lost", i))
	}
	eventually(t, 10*time.Second, "what will be lost is told", func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if n := len(g.events); n != 10 {
			return fmt.Errorf("%d events", n)
		}
		return nil
	})
	stopServer(r.Server)
	eventually(t, 10*time.Second, "the cut is noticed", func() error {
		if l.conn.Connected() {
			return errors.New("it is connected")
		}
		return nil
	})
	if l.Sure("r") {
		t.Error("it is sure of a log that it cannot reach")
	}
	r.dir = backup
	r.Server = startServer(t, r.dir, r.port)
	eventually(t, 30*time.Second, "the room is to be told", func() error {
		if l.Sure("r") {
			t.Error("it is sure of what is gone")
		}
		select {
		case <-g.waiting:
			return nil
		default:
			return errors.New("no reset")
		}
	})
	// The stream is well, and has been looked at; the room has not been told yet.
	eventually(t, 10*time.Second, "the stream is sure", func() error {
		if s := l.logs[0]; s.unsure.Load() || s.recheck.Load() {
			return errors.New("it is not")
		}
		return nil
	})
	if l.Sure("r") {
		t.Error("it is sure of what is gone, and the room does not know")
	}
	close(g.pass)
	eventually(t, 10*time.Second, "it is sure of what is left", sure)
}

// What was known when the leader is not reached is looked for when it is: its server may
// have lost power, and this node be connected to another one.
func TestUnreachedLeaderIsDoubted(t *testing.T) {
	t.Parallel()
	l := openReady(t, Config{URLs: urls(startServer(t, t.TempDir(), 0))})
	real := l.logs[0]
	st := newStream(l, "KANSEI_LOG_9", 0, real.subjects, real.section) // nobody has it
	st.id, st.usable = real.identity(), true
	unconnected, err := natsconn.New(natsconn.Config{Metrics: l.metrics.nats})
	if err != nil {
		t.Fatal(err)
	}
	st.l = &Log{cfg: l.cfg, log: l.log, metrics: l.metrics, quiet: l.quiet, logs: l.logs, conn: unconnected, ctx: l.ctx}
	high := hub.Position{Seq: 7, At: 70}
	st.note(high)
	st.tick(testContext(t)) // not connected
	if !slices.Equal(st.doubted, []hub.Position{high}) || !st.unsure.Load() || st.recheck.Load() {
		t.Errorf("%v are doubted, unsure %v, recheck %v", st.doubted, st.unsure.Load(), st.recheck.Load())
	}
	st.tick(testContext(t))
	if len(st.doubted) != 1 {
		t.Errorf("%v are doubted", st.doubted)
	}
}
