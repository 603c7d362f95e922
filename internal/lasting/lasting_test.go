package lasting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLog is the standing records and the log of one room, which fail when they are told to.
type fakeLog struct {
	hub.RoomLog
	mu      sync.Mutex
	seq     uint64
	records map[string]hub.Standing
	events  []hub.Event
	// What the next calls do: they fail, after they were done if after is set.
	keep, append []failure
}

type failure struct {
	err   error
	after bool // it was done all the same
}

func pop(f *[]failure) (one failure) {
	if len(*f) > 0 {
		one, *f = (*f)[0], (*f)[1:]
	}
	return one
}

func (l *fakeLog) Keep(_ context.Context, _ string, s hub.Standing, _ time.Duration) (hub.Standing, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fail := pop(&l.keep)
	if fail.err != nil && !fail.after {
		return hub.Standing{}, fail.err
	}
	if had := l.records[s.ID]; had.Seq != s.Seq {
		return had, hub.ErrConflict
	}
	l.seq++
	s.Seq = l.seq
	l.records[s.ID] = s
	return s, fail.err
}

func (l *fakeLog) Kept(_ context.Context, _, id string) (hub.Standing, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records[id], nil
}

func (l *fakeLog) Append(_ string, d hub.Draft, done func(hub.Receipt, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fail := pop(&l.append)
	if fail.err != nil && !fail.after {
		go done(hub.Receipt{}, fail.err)
		return
	}
	for _, e := range l.events {
		if e.ID == d.ID {
			go done(hub.Receipt{Seq: e.Seq, Duplicate: true}, fail.err)
			return
		}
	}
	e := hub.Event{Seq: uint64(len(l.events) + 1), At: time.Now().UnixMilli(), ID: d.ID, Kind: d.Kind, Body: d.Body}
	l.events = append(l.events, e)
	go done(hub.Receipt{Seq: e.Seq}, fail.err)
}

func (l *fakeLog) Event(_ context.Context, _ string, seq uint64) (*hub.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &l.events[seq-1], nil
}

func (l *fakeLog) Before(_ context.Context, _, _ string, at hub.Position, _ bool, _ int) (hub.Page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if at.Seq != hub.EndSeq {
		return hub.Page{}, fmt.Errorf("not asked for: %d", at.Seq)
	}
	return hub.Page{Events: l.events}, nil
}

func (l *fakeLog) Now() time.Time         { return time.Now() }
func (l *fakeLog) KeepFor() time.Duration { return time.Hour }

func (l *fakeLog) fails(keep, append []failure) {
	l.mu.Lock()
	l.keep, l.append = keep, append
	l.mu.Unlock()
}

// has is the latest that a record knows of, and how much is pending.
func (l *fakeLog) has(t *testing.T, name string) (last string, pending int) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var rec hub.Record
	if s := l.records[hub.LastingID(name)]; s.Seq == 0 {
		return "", 0
	} else if err := json.Unmarshal(s.Body, &rec); err != nil || rec.Lasting == nil || rec.Lasting.Name != name {
		t.Fatalf("the record is %s: %v", s.Body, err)
	}
	if rec.Lasting.Last != nil {
		last = rec.Lasting.Last.ID
	}
	return last, len(rec.Lasting.Pending)
}

func inBubble(t *testing.T, f func(t *testing.T, l *fakeLog, k *Keeper)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLog{records: map[string]hub.Standing{}}
		k := New(l, slog.New(slog.DiscardHandler))
		defer k.Close()
		f(t, l, k)
	})
}

func (k *Keeper) publish(id string) error {
	_, err := k.Publish(context.Background(), "r", "slide", hub.Draft{ID: id, Kind: hub.KindEvent, Body: []byte("{}")}, hub.Position{})
	return err
}

// However it fails, what was refused is not the latest, and what may be there is once it was found.
func TestPublish(t *testing.T) {
	gone, unsure := failure{hub.ErrUnavailable, false}, failure{hub.ErrUnknownOutcome, true}
	lost := failure{hub.ErrUnknownOutcome, false}
	for name, c := range map[string]struct {
		keep, append []failure
		err          error
		last         string // at once
		settled      string // once it was looked for
	}{
		"well":                         {nil, nil, nil, "b", "b"},
		"no record":                    {[]failure{gone}, nil, hub.ErrUnavailable, "a", "a"},
		"perhaps a record":             {[]failure{unsure}, nil, hub.ErrUnavailable, "a", "a"},
		"no event":                     {nil, []failure{gone}, hub.ErrUnavailable, "a", "a"},
		"no event, and it stays there": {[]failure{{}, gone}, []failure{gone}, hub.ErrUnknownOutcome, "a", "a"},
		"perhaps an event":             {nil, []failure{unsure}, hub.ErrUnknownOutcome, "a", "b"},
		"perhaps none":                 {nil, []failure{lost}, hub.ErrUnknownOutcome, "a", "a"},
		"not settled":                  {[]failure{{}, gone}, nil, nil, "a", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, l *fakeLog, k *Keeper) {
				if err := k.publish("a"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				l.fails(c.keep, c.append)
				if err := k.publish("b"); !errors.Is(err, c.err) {
					t.Fatalf("published: %v", err)
				}
				synctest.Wait()
				if last, _ := l.has(t, "slide"); last != c.last {
					t.Errorf("the latest is %s", last)
				}
				k.Finish("r", hub.Standing{ID: hub.LastingID("slide")})
				time.Sleep(2 * settled)
				if last, pending := l.has(t, "slide"); last != c.settled || pending != 0 {
					t.Errorf("settled it is %s, %d pending", last, pending)
				}
				// To try again is safe.
				if err := k.publish("b"); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				if last, pending := l.has(t, "slide"); last != "b" || pending != 0 || len(l.events) != 2 {
					t.Errorf("again it is %s, %d pending, %d events", last, pending, len(l.events))
				}
			})
		})
	}
}

// Many at once are all there, and the latest of the log is the latest.
func TestPublishAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, l *fakeLog, k *Keeper) {
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
		if last, pending := l.has(t, "slide"); last != l.events[maxPending-1].ID || pending != 0 {
			t.Errorf("the latest is %s, %d pending", last, pending)
		}
	})
}
