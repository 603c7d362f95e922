package natslog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// readTime bounds a read whose context has no earlier end.
const readTime = 10 * time.Second

var errNoRoom = errors.New("not a room name")

// partitionOf is the stream of a room's events.
func (l *Log) partitionOf(room string) (*stream, error) {
	return l.usable(l.logs[partition(room, len(l.logs))], room)
}

// usable is the stream, if it can be used and the room exists as a subject.
func (l *Log) usable(s *stream, room string) (*stream, error) {
	if !protocol.ValidRoom(room) {
		return nil, fmt.Errorf("natslog: %w: %w: %.80q", hub.ErrUnavailable, errNoRoom, room)
	}
	if l.closing.Load() {
		return nil, fmt.Errorf("natslog: %w: %w", hub.ErrUnavailable, errClosed)
	}
	if s.identity().epoch == "" {
		return nil, fmt.Errorf("natslog: %w: stream %s: %w", hub.ErrUnavailable, s.name, errUnusable)
	}
	return s, nil
}

// unread is the error of a read that has failed.
func unread(what, room string, err error) error {
	return fmt.Errorf("natslog: %s of room %s: %w: %w", what, room, hub.ErrUnavailable, err)
}

// Read implements [hub.RoomLog]: the log's end is asked of the leader, so nothing
// that was acknowledged before the call is missing. The other end is asked of it when
// all is read, so that what was removed meanwhile is noticed. Its errors wrap
// [hub.ErrUnavailable] or [hub.ErrForgotten]. limit is at least 1.
//
// The log reaches back to a position if it has removed nothing behind it, of any room:
// it keeps no account of what it has removed of one. Single events that an operator has
// deleted are no part of the log any more, and not missed.
func (l *Log) Read(ctx context.Context, room, epoch string, after uint64, limit int) (events []hub.Event, more bool, err error) {
	s, err := l.partitionOf(room)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	last, err := s.leaderLast(ctx, room)
	if err != nil {
		return nil, false, unread("end", room, err)
	}
	limit = max(limit, 1)
	if last != nil {
		// One event more than asked for tells whether there are more.
		err = s.read(ctx, room, after, last.seq, func(records []record, _ uint64) error {
			events = append(events, l.events(records)...)
			if len(events) > limit {
				return errEnough
			}
			return nil
		})
		if err != nil {
			return nil, false, unread("events", room, err)
		}
	}
	first, end, err := s.reach(ctx, epoch)
	switch {
	case errors.Is(err, errMoved):
		return nil, false, fmt.Errorf("natslog: events of room %s: %w: %w", room, hub.ErrForgotten, err)
	case err != nil:
		return nil, false, unread("beginning", room, err)
	case first > after+1, end < after:
		return nil, false, fmt.Errorf("natslog: events of room %s: %w: after %d, it has %d to %d", room, hub.ErrForgotten, after, first, end)
	}
	if len(events) > limit {
		return events[:limit:limit], true, nil
	}
	return events, false, nil
}

// Last implements [hub.RoomLog].
func (l *Log) Last(ctx context.Context, room string) (uint64, error) {
	s, err := l.partitionOf(room)
	if err != nil {
		return 0, err
	}
	last, err := s.leaderLast(ctx, room)
	if err != nil {
		return 0, unread("end", room, err)
	}
	if last == nil {
		return 0, nil
	}
	return last.seq, nil
}

// State implements [hub.RoomLog]. The revision is the position of the state in the
// stream of states: it grows with every change, not by one.
func (l *Log) State(ctx context.Context, room string) (hub.State, error) {
	s, err := l.usable(l.state, room)
	if err != nil {
		return hub.State{}, err
	}
	rec, err := s.leaderLast(ctx, room)
	if err != nil {
		return hub.State{}, unread("state", room, err)
	}
	if rec == nil {
		return hub.State{}, nil
	}
	return hub.State{Rev: rec.seq, Body: rec.data}, nil
}

// SetState implements [hub.RoomLog]. Besides [hub.ErrConflict] its errors are
// those of an append.
func (l *Log) SetState(ctx context.Context, room string, rev uint64, body []byte) (uint64, error) {
	s, err := l.usable(l.state, room)
	if err != nil {
		return 0, err
	}
	type outcome struct {
		receipt hub.Receipt
		err     error
	}
	done := make(chan outcome, 1)
	id := rand.Text()
	l.appender.set(s, room, id, rev, body, func(r hub.Receipt, err error) { done <- outcome{r, err} })
	var o outcome
	select {
	case o = <-done:
	case <-ctx.Done():
		return 0, fmt.Errorf("natslog: state of room %s: %w: %w", room, hub.ErrUnknownOutcome, ctx.Err())
	}
	refused, is := errors.AsType[*sequenceError](o.err)
	if !is {
		return o.receipt.Seq, o.err
	}
	if refused.tries > 1 {
		// The revision may be another one because an earlier try was done.
		rec, err := s.leaderLast(ctx, room)
		if err != nil {
			return 0, fmt.Errorf("natslog: state of room %s: %w: %w", room, hub.ErrUnknownOutcome, err)
		}
		if rec != nil && last(rec.header, headerID) == id {
			return rec.seq, nil
		}
	}
	return 0, fmt.Errorf("natslog: state of room %s is not at revision %d: %w", room, rev, hub.ErrConflict)
}
