// Package moderation carries out the acts of moderators.
//
// An act is two records: a standing record, which a room that is opened reads, and an event of the
// room's log, which every node that has the room open hears in its place among the comments
// (hub/acts.go). [Desk.Do] writes the standing record first, by compare-and-set, and then the event;
// the act is done when both are stored. Behind that the standing record is told where its event is.
//
// If a node dies in between, the record stands without its event. Whoever opens the room has the act
// in force at once, and finishes it when nobody else has for 15 s ([Desk.Finish]); so does a node that
// had the room open and has heard of the record. To do an act again is safe: its id is that of the
// request, and the log knows it.
//
// Where the event is known not to be in the log, the record is taken back before the act is refused:
// nothing that was refused takes effect later. What cannot be known is [hub.ErrUnknownOutcome].
//
// Acts for all rooms (everywhere.go) have no place in any log. All nodes have them in memory, and they
// decide at the door; the first node that meets their user in a room does the room's own act.
package moderation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

const (
	// keepUndone is how long the record of an act that was undone stays: no try of the act may be
	// under way any more.
	keepUndone = time.Hour
	// spare is how much longer than what they hide records stay.
	spare = time.Hour
	// keepBroadcast is how long a record stays of an act that ends with the broadcast.
	keepBroadcast = 31 * 24 * time.Hour
	// behind bounds what is done behind an answer.
	behind = 15 * time.Second
	// finishers is how many acts are finished at once.
	finishers = 4
	// finishTries is how often that is tried: the first time again after finishAgain, then after twice as long each time.
	finishTries, finishAgain = 8, 15 * time.Second
	// tries is how often a record is read again that others have changed meanwhile.
	tries = 5
)

var errNotEntered = errors.New("it is not in the log of moderation")

// Config is what a [Desk] is made of.
type Config struct {
	Log hub.RoomLog
	// Entries keeps what was done, for Keep (0: for good).
	Entries hub.ModerationLog
	Keep    time.Duration
	// Put stores an entry that all nodes have in memory (see [Desk.Apply]) for a time; 0: for good.
	Put func(ctx context.Context, name string, body []byte, life time.Duration) error
	// Changed is told of acts for all rooms that have come or gone. It must not wait. nil: nobody is.
	Changed func(acts []hub.Act)
	Logger  *slog.Logger
}

// Desk carries out acts. Its methods may be called from any goroutine.
type Desk struct {
	cfg Config

	everywhere everywhere

	mu        sync.Mutex
	left      []unfinished
	finishers int // that run

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New makes a Desk.
func New(cfg Config) *Desk {
	d := &Desk{cfg: cfg}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Close ends what is done behind answers, and waits for it.
func (d *Desk) Close() {
	d.mu.Lock() // nothing is begun behind it
	d.cancel()
	d.mu.Unlock()
	d.wg.Wait()
}

// life is how long the record of an act stays; 0: for good.
func (d *Desk) life(a *hub.Act) time.Duration {
	shown := d.cfg.Log.KeepFor() // what it hides is gone then
	left := max(0, time.UnixMilli(a.Ends).Sub(d.cfg.Log.Now()))
	switch {
	case a.Kind == protocol.TypeRemove, a.Kind == protocol.TypeClear, a.Kind == protocol.TypeSweep && len(a.Users) == 0:
		if shown == 0 {
			return 0
		}
		return shown + spare
	case a.Ends > 0:
		if shown == 0 && (a.Mutes() || a.Kind == protocol.TypeBan) {
			return 0
		}
		return left + shown + spare
	case a.Broadcast > 0:
		return keepBroadcast + shown
	}
	return 0
}

// Do does an act in a room, and returns where its event is in the log. Its errors wrap
// [hub.ErrUnavailable] when it is not done, and [hub.ErrUnknownOutcome] when it may be. An act that
// was undone meanwhile is not done again: its position is 0 then.
func (d *Desk) Do(ctx context.Context, room string, a *hub.Act) (uint64, error) {
	body, err := json.Marshal(hub.Record{Act: *a})
	if err != nil {
		return 0, fmt.Errorf("moderation: %w: %w", hub.ErrUnavailable, err)
	}
	kept, err := d.cfg.Log.Keep(ctx, room, hub.Standing{ID: a.ID, Body: body}, d.life(a))
	again := false
	if errors.Is(err, hub.ErrConflict) {
		var rec hub.Record
		switch err := json.Unmarshal(kept.Body, &rec); {
		case err != nil:
			return 0, fmt.Errorf("moderation: %w: the record of act %s cannot be read: %w", hub.ErrUnavailable, a.ID, err)
		case rec.Gone: // an earlier try was refused; this one is not
			kept, err = d.cfg.Log.Keep(ctx, room, hub.Standing{ID: a.ID, Seq: kept.Seq, Body: body}, d.life(a))
			if err != nil {
				return 0, unsure(err)
			}
		case rec.Undo != nil:
			return 0, nil
		default:
			again, *a = true, rec.Act // an earlier try, whose event may be there
		}
		err = nil
	}
	if err != nil {
		return 0, unsure(err)
	}
	return d.event(ctx, room, a, again, func() bool {
		gone, _ := json.Marshal(hub.Record{Act: *a, Gone: true}) // it was encoded before
		_, err := d.cfg.Log.Keep(ctx, room, hub.Standing{ID: a.ID, Seq: kept.Seq, Body: gone}, keepUndone)
		return err == nil
	}, func(ctx context.Context, p hub.Position) {
		if d.enter(ctx, room, &hub.Record{Act: *a}) {
			d.confirm(ctx, room, kept, hub.Record{Act: *a, Pos: p.Seq, PosAt: p.At}, d.life(a))
		}
	})
}

// enter puts an act into the log of moderation, and reports whether that is done. Before, its record in the room is not
// told where its event is: so somebody tries again ([Desk.Finish]).
func (d *Desk) enter(ctx context.Context, room string, rec *hub.Record) bool {
	if !rec.Act.Logged() {
		return true
	}
	if err := d.write(ctx, room, rec); err != nil {
		d.cfg.Logger.Debug("an act is not in the log of moderation yet: it is entered by whoever finishes it", "room", room, "act", rec.Act.ID, "error", err)
		return false
	}
	return true
}

// write writes the entry of an act.
func (d *Desk) write(ctx context.Context, room string, rec *hub.Record) error {
	body, err := json.Marshal(hub.Record{Act: rec.Act, Undo: rec.Undo})
	if err != nil {
		return fmt.Errorf("%w: %w", hub.ErrUnavailable, err)
	}
	e := hub.LogEntry{ID: rec.Act.ID, Whom: rec.Act.Hash, Body: body}
	return d.cfg.Entries.Enter(ctx, room, e, rec.Undo != nil, d.cfg.Keep)
}

// Note puts a note about a user into the log of moderation, and tells those who are in the room of it. Its error is that
// of the log.
func (d *Desk) Note(ctx context.Context, room string, a *hub.Act) error {
	if err := d.write(ctx, room, &hub.Record{Act: *a}); err != nil {
		return err
	}
	_, _ = d.append(ctx, room, a) // who is there reads it later then
	return nil
}

// UndoNote takes a note back.
func (d *Desk) UndoNote(ctx context.Context, room string, u, note *hub.Act) error {
	if err := d.write(ctx, room, &hub.Record{Act: *note, Undo: u}); err != nil {
		return err
	}
	u.Note = note
	_, _ = d.append(ctx, room, u) // as above
	return nil
}

// unsure is the error of a record that was not written, or perhaps was.
func unsure(err error) error {
	if errors.Is(err, hub.ErrUnavailable) {
		return fmt.Errorf("moderation: %w", err)
	}
	return fmt.Errorf("moderation: %w: %w", hub.ErrUnknownOutcome, err)
}

// event appends the event of an act whose record is written. undone takes the record back, and
// reports whether it has; confirm tells the record where the event is.
func (d *Desk) event(ctx context.Context, room string, a *hub.Act, again bool, undone func() bool, confirm func(context.Context, hub.Position)) (uint64, error) {
	seq, err := d.append(ctx, room, a)
	switch {
	case errors.Is(err, hub.ErrUnavailable) && !again && undone():
		return 0, fmt.Errorf("moderation: %w", err)
	case err != nil:
		// The record stands, and somebody finishes the act.
		return 0, fmt.Errorf("moderation: %w: %w", hub.ErrUnknownOutcome, err)
	}
	d.later(func(ctx context.Context) {
		if e, err := d.cfg.Log.Event(ctx, room, seq); err == nil && e != nil {
			confirm(ctx, e.Position())
		}
	})
	return seq, nil
}

// append appends the event of an act to the room's log.
func (d *Desk) append(ctx context.Context, room string, a *hub.Act) (uint64, error) {
	body, err := json.Marshal(a)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", hub.ErrUnavailable, err)
	}
	type outcome struct {
		seq uint64
		err error
	}
	done := make(chan outcome, 1)
	d.cfg.Log.Append(room, hub.Draft{ID: a.ID, Kind: hub.KindAct, Body: body}, func(r hub.Receipt, err error) { done <- outcome{r.Seq, err} })
	select {
	case o := <-done:
		return o.seq, o.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", hub.ErrUnknownOutcome, ctx.Err())
	}
}

// later does something behind an answer.
func (d *Desk) later(f func(ctx context.Context)) {
	if d.ctx.Err() != nil {
		return
	}
	d.wg.Go(func() { // ends with its deadline, or with Close
		ctx, cancel := context.WithTimeout(d.ctx, behind)
		defer cancel()
		f(ctx)
	})
}

// confirm tells a record where its event is. If somebody else has changed the record it is left.
func (d *Desk) confirm(ctx context.Context, room string, kept hub.Standing, rec hub.Record, life time.Duration) {
	body, err := json.Marshal(rec)
	if err != nil {
		return
	}
	if _, err := d.cfg.Log.Keep(ctx, room, hub.Standing{ID: kept.ID, Seq: kept.Seq, Body: body}, life); err != nil && !errors.Is(err, hub.ErrConflict) {
		d.cfg.Logger.Debug("the record of an act was not told where its event is: whoever opens the room next finds out", "room", room, "error", err)
	}
}

// Undo does an act that undoes others, and returns where its event is in the log; 0 if none of them
// counts any more. Its errors are those of [Desk.Do].
func (d *Desk) Undo(ctx context.Context, room string, u *hub.Act) (uint64, error) {
	var marked []marked
	for _, id := range u.Undoes {
		m, err := d.mark(ctx, room, id, u)
		if err != nil {
			return 0, unsure(err)
		}
		if m.is.ID != "" {
			marked = append(marked, m)
		}
	}
	if len(marked) == 0 {
		return 0, nil
	}
	again := false
	for _, m := range marked {
		again = again || m.again
	}
	return d.event(ctx, room, u, again, func() bool {
		for _, m := range marked {
			if _, err := d.cfg.Log.Keep(ctx, room, hub.Standing{ID: m.is.ID, Seq: m.is.Seq, Body: m.was.Body}, d.life(&m.record.Act)); err != nil {
				return false
			}
		}
		return true
	}, func(ctx context.Context, p hub.Position) {
		for _, m := range marked {
			m.record.Undo, m.record.Pos, m.record.PosAt = u, p.Seq, p.At
			if !d.enter(ctx, room, &m.record) {
				continue
			}
			d.confirm(ctx, room, m.is, m.record, keepUndone)
		}
	})
}

// marked is a record of an act that is being undone.
type marked struct {
	was, is hub.Standing
	record  hub.Record // as it was
	again   bool       // it was marked by an earlier try
}

// mark writes into the record of an act that it was undone by u; nothing when there is no record,
// or another act has undone it.
func (d *Desk) mark(ctx context.Context, room, id string, u *hub.Act) (marked, error) {
	var conflict error
	for range tries {
		kept, err := d.cfg.Log.Kept(ctx, room, id)
		if err != nil || kept.Seq == 0 {
			return marked{}, err
		}
		var rec hub.Record
		if err := json.Unmarshal(kept.Body, &rec); err != nil {
			return marked{}, fmt.Errorf("%w: the record of act %s cannot be read: %w", hub.ErrUnavailable, id, err)
		}
		switch {
		case rec.Undo != nil && rec.Undo.ID == u.ID:
			return marked{kept, kept, hub.Record{Act: rec.Act}, true}, nil
		case rec.Undo != nil, rec.Gone:
			return marked{}, nil
		}
		body, err := json.Marshal(hub.Record{Act: rec.Act, Undo: u})
		if err != nil {
			return marked{}, fmt.Errorf("%w: %w", hub.ErrUnavailable, err)
		}
		is, err := d.cfg.Log.Keep(ctx, room, hub.Standing{ID: id, Seq: kept.Seq, Body: body}, keepUndone)
		if err == nil {
			return marked{kept, is, rec, false}, nil
		}
		if !errors.Is(err, hub.ErrConflict) {
			return marked{}, err
		}
		conflict = err
	}
	return marked{}, fmt.Errorf("%w: %w", hub.ErrUnavailable, conflict)
}

// unfinished is an act of which something may be left to do.
type unfinished struct {
	room   string
	record hub.Standing
	tries  int
}

// Finish does what is left of an act, if anything is. It returns at once: there may be thousands of them, which a few
// goroutines see to, now and, while that fails, again.
func (d *Desk) Finish(room string, s hub.Standing) { d.see(unfinished{room, s, 0}) }

func (d *Desk) see(u unfinished) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = append(d.left, u)
	if d.finishers < finishers && d.ctx.Err() == nil {
		d.finishers++
		d.wg.Go(d.finishAll) // ends when nothing is left, or with Close
	}
}

func (d *Desk) finishAll() {
	for {
		d.mu.Lock()
		if len(d.left) == 0 || d.ctx.Err() != nil {
			d.finishers--
			d.mu.Unlock()
			return
		}
		next := d.left[0]
		if d.left = d.left[1:]; len(d.left) == 0 {
			d.left = nil
		}
		d.mu.Unlock()
		ctx, cancel := context.WithTimeout(d.ctx, behind)
		err := d.finish(ctx, next.room, next.record)
		cancel()
		switch next.tries++; {
		case err == nil || d.ctx.Err() != nil:
		case next.tries < finishTries:
			time.AfterFunc(finishAgain<<(next.tries-1), func() { d.see(next) })
		default:
			d.cfg.Logger.Warn("an act of a moderator cannot be finished: whoever opens the room next tries again", "room", next.room, "error", err)
		}
	}
}

func (d *Desk) finish(ctx context.Context, room string, s hub.Standing) error {
	kept, err := d.cfg.Log.Kept(ctx, room, s.ID)
	if err != nil {
		return err
	}
	lost := kept.Seq == 0
	if lost {
		if kept.Body = s.Body; s.Body == nil {
			return nil // its time is over, or it never had one
		}
	}
	var rec hub.Record
	if err := json.Unmarshal(kept.Body, &rec); err != nil {
		return err
	}
	life := d.life(&rec.Act)
	switch over := rec.Act.Ends > 0 && d.cfg.Log.Now().UnixMilli() > rec.Act.Ends; {
	case rec.Gone:
		return nil
	case lost && (s.Seq > 0 || over): // it was there, and its time is over
		return nil
	case lost: // with the end of its stream
		_, err := d.cfg.Log.Keep(ctx, room, hub.Standing{ID: s.ID, Body: s.Body}, life)
		return err
	case rec.Pos > 0:
		return nil
	}
	a := &rec.Act
	if rec.Undo != nil {
		a, life = rec.Undo, keepUndone
	}
	seq, err := d.append(ctx, room, a)
	if err != nil {
		return err
	}
	e, err := d.cfg.Log.Event(ctx, room, seq)
	if err != nil || e == nil {
		return err
	}
	if rec.Pos, rec.PosAt = seq, e.At; !d.enter(ctx, room, &rec) {
		return errNotEntered
	}
	d.confirm(ctx, room, kept, rec, life)
	return nil
}
