package natslog

import (
	"context"
	"errors"
	"fmt"

	"github.com/kansei-live/kansei/hub"
)

// Before implements [hub.RoomLog]. Its errors wrap [hub.ErrUnavailable] or
// [hub.ErrForgotten].
//
// JetStream reads forwards only, and tells of a stored record which one follows it in its
// room, not which one it follows. So a page that ends at a position is found by counting:
// an answer of a direct get says how many records of the room there are from its first one
// on. A few such answers lead to a start that is not far before the page (stream.narrow),
// and the page is read from there. What that costs depends on how many records the page has,
// and hardly on how many others lie between them, before and behind it.
func (l *Log) Before(ctx context.Context, room, epoch string, at hub.Position, with bool, limit int) (hub.Page, error) {
	s, err := l.partitionOf(room)
	if err != nil {
		return hub.Page{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	last := at.Seq
	if !with && last > 0 {
		last--
	}
	records, more, err := s.before(ctx, room, last, max(limit, 1))
	if err != nil {
		return hub.Page{}, unread("events", room, err)
	}
	// When all is read, so that it was the same log all the time.
	switch kept, err := s.keeps(ctx, epoch, at); {
	case errors.Is(err, hub.ErrForgotten):
		return hub.Page{}, fmt.Errorf("natslog: events of room %s: %w", room, err)
	case err != nil:
		return hub.Page{}, unread("position", room, err)
	case !kept, len(records) == 0:
		return hub.Page{}, nil
	}
	return hub.Page{Events: l.events(records), From: records[0].position(), More: more}, nil
}

// keeps reports whether the log of an epoch keeps a position; false without an error
// when it has removed everything up to there. [hub.ErrForgotten] says that it is another
// log, or has another past. An empty epoch is that of the log as it is.
func (s *stream) keeps(ctx context.Context, epoch string, p hub.Position) (bool, error) {
	if epoch == "" {
		epoch = s.identity().epoch
	}
	first, end, err := s.reach(ctx, epoch)
	switch {
	case errors.Is(err, errMoved):
		return false, fmt.Errorf("%w: %w", hub.ErrForgotten, err)
	case err != nil:
		return false, err
	case p.Seq == hub.EndSeq, p == end:
		return true, nil
	case !p.Known(), p.Seq > end.Seq:
		return false, fmt.Errorf("%w: up to %d, the log ends at %d", hub.ErrForgotten, p.Seq, end.Seq)
	case p.Seq < first:
		return false, nil
	}
	switch rec, err := s.leaderGet(ctx, getRequest{Seq: p.Seq}); {
	case err != nil:
		return false, err
	case rec == nil, rec.at != p.At:
		return false, fmt.Errorf("%w: there is no record %d of %d", hub.ErrForgotten, p.Seq, p.At)
	}
	return true, nil
}

// before reads the last n records of a room up to a sequence, and reports whether there are
// earlier ones. If there is any there is one in the answer; where replicas fall short there
// may be fewer than n.
func (s *stream) before(ctx context.Context, room string, last uint64, n int) (records []record, more bool, err error) {
	end, err := s.leaderLast(ctx, room)
	if err != nil || end == nil {
		return nil, false, err
	}
	begin, err := s.leaderGet(ctx, getRequest{NextFor: s.subjects + room, Seq: 1})
	if err != nil || begin == nil || begin.seq > last {
		return nil, false, err
	}
	w := window{start: begin.seq, end: min(last, end.seq)}
	if w.count, err = s.countFrom(ctx, room, w.start); err != nil {
		return nil, false, err
	}
	if w.end < end.seq {
		if w.behind, err = s.countFrom(ctx, room, w.end+1); err != nil {
			return nil, false, err
		}
	}
	from, err := s.narrow(ctx, room, w, uint64(n), uint64(n)/2+64)
	if err != nil {
		return nil, false, err
	}
	err = s.read(ctx, room, hub.Position{Seq: from - 1}, w.end, func(got []record, _ hub.Position) error {
		for len(got) > 0 && got[len(got)-1].seq > last {
			got = got[:len(got)-1]
		}
		records = append(records, got...)
		if drop := len(records) - n; drop > 0 {
			records = append(records[:0], records[drop:]...)
		}
		return nil
	})
	if err != nil || len(records) == 0 {
		return nil, false, err
	}
	return records, records[0].seq > begin.seq, nil
}

// countFrom is how many records a room has from a sequence on.
func (s *stream) countFrom(ctx context.Context, room string, from uint64) (uint64, error) {
	_, n, err := s.count(ctx, room, from, nil)
	return n, err
}
