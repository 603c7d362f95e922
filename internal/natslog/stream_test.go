package natslog

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
)

func TestStreamDeletedAndMadeAnew(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	ctx := testContext(t)
	o, _ := followRoom(t, l, "r", 10)
	mustAppend(t, l, "r", "a")
	if _, err := setState(ctx, l, "r", 0, []byte(`{"title":"t"}`)); err != nil {
		t.Fatal(err)
	}
	waitEvents(t, o, 5*time.Second, "a")
	var epoch string
	o.look(t, func() { epoch = o.epoch })

	js := jetStream(t, s.ClientURL())
	if err := js.DeleteStream(ctx, "KANSEI_LOG_0"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "another epoch", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.epoch == epoch || o.resets < 2 {
			return fmt.Errorf("%d resets", o.resets)
		}
		return nil
	})
	o.look(t, func() {
		if len(o.recent) != 0 || o.head != 0 || o.states[len(o.states)-1].Rev>>revisionHash != 1 {
			t.Errorf("reset with %v at %d, states %v", o.recent, o.head, o.states)
		}
	})
	mustAppend(t, l, "r", "b")
	waitEvents(t, o, 5*time.Second, "b")

	// The states can be lost alone: the room's is not set any more then.
	if err := js.DeleteStream(ctx, "KANSEI_STATE"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the state is gone", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if st := o.states[len(o.states)-1]; st.Rev != 0 {
			return fmt.Errorf("state %v", st)
		}
		return nil
	})
	if _, err := setState(ctx, l, "r", 0, []byte(`{"title":"new"}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the state is back", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if st := o.states[len(o.states)-1]; string(st.Body) != `{"title":"new"}` {
			return fmt.Errorf("state %v", st)
		}
		return nil
	})
	o.look(t, func() {
		if o.resets != 2 {
			t.Errorf("%d resets, wanted 2", o.resets)
		}
	})
	// A new stream is shorter than the old one; it has not lost its end.
	if n := counter(t, l.metrics.lostEnds); n != 0 {
		t.Errorf("%v ends were lost, wanted none", n)
	}
}

func TestServerStartsLaterAndRestarts(t *testing.T) {
	t.Parallel()
	dir, p := t.TempDir(), freePorts(t, 1)[0]
	l := open(t, Config{URLs: []string{fmt.Sprintf("nats://127.0.0.1:%d", p)}, RequestTimeout: 500 * time.Millisecond})
	if err := l.Ready(); err == nil || !strings.Contains(err.Error(), "not connected to nats://127.0.0.1") {
		t.Errorf("without a server: %v", err)
	}
	o := new(observer)
	defer l.Follow("r", 10, o).Stop()
	if a := appendAll(t, l, "r", draft1("early"))[0]; !errors.Is(a.err, hub.ErrUnavailable) {
		t.Errorf("append without a server: %v", a.err)
	}
	if _, _, err := l.Read(testContext(t), "r", l.epochOf("r"), hub.Position{}, 1); !errors.Is(err, hub.ErrUnavailable) {
		t.Errorf("read without a server: %v", err)
	}
	eventually(t, 15*time.Second, "the room is degraded", func() error { return degradedIs(o, true) })

	s := startServer(t, dir, p)
	waitReady(t, l)
	mustAppend(t, l, "r", "a")
	waitEvents(t, o, 10*time.Second, "a")
	eventually(t, 15*time.Second, "the room is followed", func() error { return degradedIs(o, false) })
	var epoch string
	o.look(t, func() { epoch = o.epoch })

	stopServer(s)
	eventually(t, 10*time.Second, "the loss is noticed", func() error {
		if l.Ready() == nil {
			return errors.New("it is ready")
		}
		return nil
	})
	start := time.Now()
	a := appendAll(t, l, "r", draft1("refused"))[0]
	if !errors.Is(a.err, hub.ErrUnavailable) || time.Since(start) > 5*time.Second {
		t.Errorf("append while it is gone: %v after %v", a.err, time.Since(start))
	}

	startServer(t, dir, p)
	waitReady(t, l)
	mustAppend(t, l, "r", "b")
	waitEvents(t, o, 10*time.Second, "a", "b")
	o.look(t, func() {
		if o.epoch != epoch || o.resets != 1 {
			t.Errorf("epoch %s after %s, %d resets", o.epoch, epoch, o.resets)
		}
	})
	events, _, err := l.Read(testContext(t), "r", l.epochOf("r"), hub.Position{}, 10)
	if err != nil || len(events) != 2 {
		t.Errorf("the log holds %d events, %v", len(events), err)
	}
	if counter(t, l.metrics.nats.Reconnects) == 0 {
		t.Error("no reconnect was counted")
	}
}

func degradedIs(o *observer, want bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.degraded); n == 0 && want || n > 0 && o.degraded[n-1] != want {
		return fmt.Errorf("told %v", o.degraded)
	}
	return nil
}

// A server that lost power comes back without what it had not synced, and gives
// the positions again.
func TestLogThatLostItsEnd(t *testing.T) {
	t.Parallel()
	dir, p := t.TempDir(), freePorts(t, 1)[0]
	s := startServer(t, dir, p)
	l := openReady(t, Config{URLs: urls(s)})
	o, _ := followRoom(t, l, "r", 10)
	quiet, _ := followRoom(t, l, "quiet", 10)
	mustAppend(t, l, "r", "a")
	mustAppend(t, l, "quiet", "q")
	waitEvents(t, o, 5*time.Second, "a")
	var epoch string
	o.look(t, func() { epoch = o.epoch })

	// What is on disk now is what will be left.
	stopServer(s)
	kept := t.TempDir()
	if err := os.CopyFS(kept, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	s = startServer(t, dir, p)
	eventually(t, 20*time.Second, "it is connected again", func() error {
		if counter(t, l.metrics.nats.Reconnects) == 0 {
			return errors.New("it is not")
		}
		return nil
	})
	waitReady(t, l)
	for _, id := range []string{"lost1", "lost2", "lost3"} {
		mustAppend(t, l, "r", id)
	}
	waitEvents(t, o, 5*time.Second, "a", "lost1", "lost2", "lost3")
	stopServer(s)

	// Another node writes before this one is back.
	s = startServer(t, kept, p)
	stranger := dial(t, s.ClientURL())
	for _, id := range []string{"b", "c", "d", "e"} {
		d := draft1(id)
		if err := stranger.PublishMsg(encodeDraft("kansei.log.0.r", d)); err != nil {
			t.Fatal(err)
		}
	}
	if err := stranger.Flush(); err != nil {
		t.Fatal(err)
	}
	waitEvents(t, o, 15*time.Second, "a", "b", "c", "d", "e")
	mustAppend(t, l, "r", "f")
	waitEvents(t, o, 5*time.Second, "a", "b", "c", "d", "e", "f")
	waitEvents(t, quiet, 5*time.Second, "q")
	o.look(t, func() {
		if o.epoch != epoch || o.resets != 2 {
			t.Errorf("epoch %s after %s, %d resets", o.epoch, epoch, o.resets)
		}
	})
}
