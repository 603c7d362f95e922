package natslog

import (
	"context"
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
// deleted are not in the log, and not missed.
//
// It has the position if the record there has the position's time. Where the record was
// removed nobody knows its time, unless the log ends with it.
func (l *Log) Read(ctx context.Context, room, epoch string, after hub.Position, limit int) (events []hub.Event, more bool, err error) {
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
		// One event more than was asked for says that there are more.
		err = s.read(ctx, room, hub.Position{Seq: after.Seq}, last.seq, func(records []record, _ hub.Position) error {
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
	case first > after.Seq+1, end.Seq < after.Seq, !after.Known():
		return nil, false, fmt.Errorf("natslog: events of room %s: %w: after %d, it has %d to %d", room, hub.ErrForgotten, after.Seq, first, end.Seq)
	case after.Seq > 0 && after != end:
		switch rec, err := s.leaderGet(ctx, getRequest{Seq: after.Seq}); {
		case err != nil:
			return nil, false, unread("position", room, err)
		case rec == nil, rec.at != after.At:
			return nil, false, fmt.Errorf("natslog: events of room %s: %w: there is no record %d of %d", room, hub.ErrForgotten, after.Seq, after.At)
		}
	}
	if len(events) > limit {
		return events[:limit:limit], true, nil
	}
	return events, false, nil
}

// Has implements [hub.RoomLog]. A record that was removed cannot be looked at; but if the
// log ends there, its end says when it was stored. Its errors wrap [hub.ErrUnavailable].
func (l *Log) Has(ctx context.Context, room, epoch string, p hub.Position) (hub.Anchor, error) {
	s, err := l.partitionOf(room)
	if err != nil {
		return hub.AnchorNone, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	if s.identity().epoch != epoch || !p.Known() {
		return hub.AnchorNone, nil
	}
	if p.Seq == 0 {
		return hub.AnchorLog, nil
	}
	rec, err := s.leaderGet(ctx, getRequest{Seq: p.Seq})
	switch {
	case err != nil:
		return hub.AnchorNone, unread("position", room, err)
	case rec == nil:
		_, end, err := s.reach(ctx, epoch)
		if err != nil && !errors.Is(err, errMoved) {
			return hub.AnchorNone, unread("end", room, err)
		}
		if err == nil && end == p {
			return hub.AnchorLog, nil
		}
		return hub.AnchorNone, nil
	case rec.at != p.At:
		return hub.AnchorNone, nil
	case rec.subject == s.subjects+room:
		return hub.AnchorRoom, nil
	}
	return hub.AnchorLog, nil
}
