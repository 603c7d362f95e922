// Package lasting publishes events of the application of which whoever comes later is told the latest.
//
// Such an event is two things: an event of the room's log, like any other, and the standing record of its name,
// which a room that is opened reads (hub/lasting.go). [Keeper.Publish] first writes into the record that the event
// is pending, by compare-and-set, then the event, and then into the record where it is.
//
// If a node dies in between, the record has something pending. Whoever reads or hears of it looks for that in the log
// when nobody else has settled it for a while ([Keeper.Finish]): either the event is there, or it was never
// published. It is not published then: its sender was not told that it was.
package lasting

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/kansei-live/kansei/hub"
)

const (
	// tries is how often a record is written again that others have changed meanwhile.
	tries = 16
	// maxPending bounds what is pending of one name.
	maxPending = 8
	// settled is after how long what is pending is in the log, or never will be: longer than an append takes.
	settled = 90 * time.Second
	// behind bounds what is done behind an answer.
	behind = 15 * time.Second
	// page is how many events are read at once to find one.
	page = 1000
)

var errBusy = errors.New("too many of the name are under way")

// Keeper publishes lasting events. Its methods may be called from any goroutine.
type Keeper struct {
	log    hub.RoomLog
	logger *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New makes a Keeper.
func New(log hub.RoomLog, logger *slog.Logger) *Keeper {
	k := &Keeper{log: log, logger: logger}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// Close ends what is done behind answers, and waits for it.
func (k *Keeper) Close() {
	k.cancel()
	k.wg.Wait()
}

// Publish publishes an event of a name, and returns where it is in the log. head is the position with which the log ends, as
// far as is known. Its errors wrap [hub.ErrUnavailable] when it is not published, and [hub.ErrUnknownOutcome] when it may be.
func (k *Keeper) Publish(ctx context.Context, room, name string, d hub.Draft, head uint64) (seq uint64, err error) {
	again := false
	err = k.change(ctx, room, name, func(l *hub.Lasting) error {
		if again = slices.ContainsFunc(l.Pending, func(p hub.Pending) bool { return p.ID == d.ID }); again {
			return errSame
		}
		if len(l.Pending) >= maxPending {
			return fmt.Errorf("lasting: %w: %w", hub.ErrUnavailable, errBusy)
		}
		l.Pending = append(l.Pending, hub.Pending{ID: d.ID, At: k.log.Now().UnixMilli(), After: head})
		return nil
	})
	if err != nil {
		return 0, err
	}
	seq, err = k.append(ctx, room, d)
	switch {
	case errors.Is(err, hub.ErrUnavailable) && !again && k.settle(ctx, room, name, d.ID, nil) == nil:
		return 0, err
	case err != nil:
		return 0, fmt.Errorf("lasting: %w: %w", hub.ErrUnknownOutcome, err)
	}
	k.later(room, func(ctx context.Context) error {
		e, err := k.log.Event(ctx, room, seq)
		if err != nil || e == nil {
			return err
		}
		return k.settle(ctx, room, name, d.ID, e)
	})
	return seq, nil
}

// append appends a draft to a room's log.
func (k *Keeper) append(ctx context.Context, room string, d hub.Draft) (uint64, error) {
	type outcome struct {
		seq uint64
		err error
	}
	done := make(chan outcome, 1)
	k.log.Append(room, d, func(r hub.Receipt, err error) { done <- outcome{r.Seq, err} })
	select {
	case o := <-done:
		return o.seq, o.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", hub.ErrUnknownOutcome, ctx.Err())
	}
}

// later does something behind an answer.
func (k *Keeper) later(room string, f func(ctx context.Context) error) {
	if k.ctx.Err() != nil {
		return
	}
	k.wg.Go(func() { // ends with its deadline, or with Close
		ctx, cancel := context.WithTimeout(k.ctx, behind)
		defer cancel()
		if err := f(ctx); err != nil && ctx.Err() == nil {
			k.logger.Debug("the record of a lasting event was not told where it is: whoever opens the room next finds out", "room", room, "error", err)
		}
	})
}

// errSame leaves a record as it is.
var errSame = errors.New("nothing has changed")

// change changes the record of a name.
func (k *Keeper) change(ctx context.Context, room, name string, do func(*hub.Lasting) error) error {
	id := hub.LastingID(name)
	kept, err := k.log.Kept(ctx, room, id)
	if err != nil {
		return fmt.Errorf("lasting: %w", err)
	}
	for range tries {
		l, err := read(&kept, name)
		if err != nil {
			return err
		}
		switch err := do(l); {
		case errors.Is(err, errSame):
			return nil
		case err != nil:
			return err
		}
		body, err := json.Marshal(hub.Record{Lasting: l})
		if err != nil {
			return fmt.Errorf("lasting: %w: %w", hub.ErrUnavailable, err)
		}
		there, err := k.log.Keep(ctx, room, hub.Standing{ID: id, Seq: kept.Seq, Body: body}, k.log.KeepFor())
		switch {
		case err == nil:
			return nil
		case errors.Is(err, hub.ErrConflict):
			kept = there
		case errors.Is(err, hub.ErrUnavailable):
			return fmt.Errorf("lasting: %w", err)
		default: // it may be written; what is pending and not in the log is dropped in the end
			return fmt.Errorf("lasting: %w: the record: %w", hub.ErrUnavailable, err)
		}
	}
	return fmt.Errorf("lasting: %w: %w", hub.ErrUnavailable, errBusy)
}

func read(kept *hub.Standing, name string) (*hub.Lasting, error) {
	if kept.Seq == 0 {
		return &hub.Lasting{Name: name}, nil
	}
	var rec hub.Record
	if err := json.Unmarshal(kept.Body, &rec); err != nil || rec.Lasting == nil {
		return nil, fmt.Errorf("lasting: %w: the record of %s cannot be read", hub.ErrUnavailable, name)
	}
	return rec.Lasting, nil
}

// settle takes what was pending out of a record: it is that event, or, if that is nil, was not published.
func (k *Keeper) settle(ctx context.Context, room, name, id string, e *hub.Event) error {
	return k.change(ctx, room, name, func(l *hub.Lasting) error {
		n := len(l.Pending)
		l.Pending = slices.DeleteFunc(l.Pending, func(p hub.Pending) bool { return p.ID == id })
		newer := e != nil && (l.Last == nil || l.Last.Seq < e.Seq)
		if newer {
			l.Last = &hub.LastingEvent{Seq: e.Seq, At: e.At, ID: e.ID, Audience: e.Audience, Body: e.Body}
		}
		if !newer && len(l.Pending) == n {
			return errSame
		}
		return nil
	})
}

// Finish settles what is pending in a record that was read, and was not settled by whoever has written it.
func (k *Keeper) Finish(room string, s hub.Standing) {
	k.later(room, func(ctx context.Context) error {
		kept, err := k.log.Kept(ctx, room, s.ID)
		if err != nil || kept.Seq == 0 {
			return err
		}
		var rec hub.Record
		if err := json.Unmarshal(kept.Body, &rec); err != nil || rec.Lasting == nil {
			return err
		}
		for _, p := range rec.Lasting.Pending {
			e, err := k.find(ctx, room, p)
			if err != nil {
				return err
			}
			if age := k.log.Now().Sub(time.UnixMilli(p.At)); e == nil && age < settled { // it may be on its way
				k.again(room, s, settled-age)
				continue
			}
			if err := k.settle(ctx, room, rec.Lasting.Name, p.ID, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// again does Finish after a time.
func (k *Keeper) again(room string, s hub.Standing, after time.Duration) {
	k.wg.Go(func() { // ends with its time, or with Close
		select {
		case <-time.After(after):
			k.Finish(room, s)
		case <-k.ctx.Done():
		}
	})
}

// find looks for what is pending in the log; nil when it is not there.
func (k *Keeper) find(ctx context.Context, room string, p hub.Pending) (*hub.Event, error) {
	at, with := hub.Position{Seq: hub.EndSeq}, true
	for {
		got, err := k.log.Before(ctx, room, "", at, with, page)
		if errors.Is(err, hub.ErrForgotten) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range got.Events {
			if got.Events[i].ID == p.ID {
				return &got.Events[i], nil
			}
		}
		if !got.More || got.From.Seq <= p.After {
			return nil, nil
		}
		at, with = got.From, false
	}
}
