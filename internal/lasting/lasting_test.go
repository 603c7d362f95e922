package lasting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/test/fakelog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// latest is the latest that the record of slides knows of, and how much is pending.
func latest(t *testing.T, l *fakelog.Log) (last string, pending int) {
	t.Helper()
	known := l.Record(t, hub.LastingID("slide")).Lasting
	switch {
	case known == nil:
		return "", 0
	case known.Name != "slide":
		t.Errorf("the record is %+v", known)
	}
	if known.Last != nil {
		last = known.Last.ID
	}
	return last, len(known.Pending)
}

func inBubble(t *testing.T, f func(t *testing.T, l *fakelog.Log, k *Keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := fakelog.New()
		k := New(l, slog.New(slog.DiscardHandler))
		defer k.Close()
		f(t, l, k)
	})
}

func (k *Keeper) publish(id string) error {
	_, err := k.Publish(context.Background(), "r", "slide", hub.Draft{ID: id, Kind: hub.KindEvent, Body: []byte("{}")}, 0)
	return err
}

// However it fails, what was refused is not the latest, and what may be there is once it was found.
func TestPublish(t *testing.T) {
	gone, unsure := fakelog.Failure{Err: hub.ErrUnavailable}, fakelog.Failure{Err: hub.ErrUnknownOutcome, After: true}
	lost := fakelog.Failure{Err: hub.ErrUnknownOutcome}
	for name, c := range map[string]struct {
		keep, append []fakelog.Failure
		err          error
		last         string // at once
		settled      string // once it was looked for
	}{
		"well":                         {nil, nil, nil, "b", "b"},
		"no record":                    {[]fakelog.Failure{gone}, nil, hub.ErrUnavailable, "a", "a"},
		"perhaps a record":             {[]fakelog.Failure{unsure}, nil, hub.ErrUnavailable, "a", "a"},
		"no event":                     {nil, []fakelog.Failure{gone}, hub.ErrUnavailable, "a", "a"},
		"no event, and it stays there": {[]fakelog.Failure{{}, gone}, []fakelog.Failure{gone}, hub.ErrUnknownOutcome, "a", "a"},
		"perhaps an event":             {nil, []fakelog.Failure{unsure}, hub.ErrUnknownOutcome, "a", "b"},
		"perhaps none":                 {nil, []fakelog.Failure{lost}, hub.ErrUnknownOutcome, "a", "a"},
		"not settled":                  {[]fakelog.Failure{{}, gone}, nil, nil, "a", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, l *fakelog.Log, k *Keeper) {
				if err := k.publish("a"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				l.Fail(c.keep, c.append)
				if err := k.publish("b"); !errors.Is(err, c.err) {
					t.Fatalf("published: %v", err)
				}
				synctest.Wait()
				if last, _ := latest(t, l); last != c.last {
					t.Errorf("the latest is %s", last)
				}
				k.Finish("r", hub.Standing{ID: hub.LastingID("slide")})
				time.Sleep(2 * settled)
				if last, pending := latest(t, l); last != c.settled || pending != 0 {
					t.Errorf("settled it is %s, %d pending", last, pending)
				}
				// To try again is safe.
				if err := k.publish("b"); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if last, pending := latest(t, l); last != "b" || pending != 0 || len(l.Events) != 2 {
					t.Errorf("again it is %s, %d pending, %d events", last, pending, len(l.Events))
				}
			})
		})
	}
}

// Many at once are all there, and the latest of the log is the latest.
func TestPublishAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, l *fakelog.Log, k *Keeper) {
		var all sync.WaitGroup
		for i := range maxPending {
			all.Go(func() {
				if err := k.publish(fmt.Sprint("e", i)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		synctest.Wait()
		if last, pending := latest(t, l); last != l.Events[maxPending-1].ID || pending != 0 {
			t.Errorf("the latest is %s, %d pending", last, pending)
		}
	})
}
