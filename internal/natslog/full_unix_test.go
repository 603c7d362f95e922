//go:build unix

package natslog

import (
	"errors"
	"fmt"
	ossignal "os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/embedded"
)

// The disk of an embedded log is full, here because no file may become larger. A store
// that has met an error answers nothing: outcomes are unknown. What was acknowledged is
// still read, and all goes on when there is room again.
func TestDiskOfTheEmbeddedLogIsFull(t *testing.T) {
	// Not parallel: the limit is the process's.
	ossignal.Ignore(syscall.SIGXFSZ)
	defer ossignal.Reset(syscall.SIGXFSZ)
	s, err := embedded.StartNATS(embedded.NATSConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	l := openReady(t, Config{URLs: []string{"nats://inside"}, Options: []nats.Option{s.Option()}, AppendTimeout: 2 * time.Second})
	o, _ := followRoom(t, l, "r", 0)

	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	limit := was
	limit.Cur = 300_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	raise := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Error(err)
		}
	}
	defer raise()
	taken := make(map[string]bool)
	for i := 0; ; i++ {
		id := fmt.Sprint("full", i)
		a := appendAll(t, l, "r", large(id, 50_000))[0]
		if a.err == nil {
			if taken[id] = true; i > 100 {
				t.Fatal("the limit does nothing")
			}
			continue
		}
		if !errors.Is(a.err, hub.ErrUnknownOutcome) {
			t.Errorf("told %v", a.err)
		}
		break
	}
	if len(taken) == 0 {
		t.Fatal("nothing was taken")
	}
	holds(t, l, o, taken, nil)
	raise()
	eventually(t, 60*time.Second, "there is room again", func() error {
		id := fmt.Sprint("again", time.Now().UnixNano())
		a := appendAll(t, l, "r", draft1(id))[0]
		if a.err == nil {
			taken[id] = true
		}
		return a.err
	})
	holds(t, l, o, taken, nil)
	eventually(t, 20*time.Second, "all is well", l.Ready)
}
