package archive

import (
	"context"
	"errors"

	"github.com/kansei-live/kansei/protocol"
)

// Current is a broadcast of a room as it is known by now, the last one if id is empty: what was archived where no more can come, and
// otherwise what its rows say. rec is nil where it is not archived. Its error may wrap [ErrNoBroadcast].
func (r *Reader) Current(ctx context.Context, room, id string) (s *Shaped, rec *Record, err error) {
	if id == "" {
		k := r.hold(room)
		b, err := r.find(ctx, room, "", k)
		k.mu.Unlock()
		if err != nil {
			return nil, nil, err
		}
		id = b.ID
	}
	if rec, err = record(ctx, r.log, keyOf(room, id)); err != nil {
		return nil, nil, err
	}
	if rec != nil && rec.Final && r.files != nil {
		s, err = r.files.read(ctx, rec)
		return s, rec, err
	}
	s, err = r.Shape(ctx, room, id)
	return s, rec, err
}

// Broadcasts lists the broadcasts of a room that its state, its archived records and, where it is never set, its rows tell of, the
// latest first.
func (r *Reader) Broadcasts(ctx context.Context, room string) ([]protocol.BroadcastEntry, error) {
	k := r.hold(room)
	all, err := r.broadcasts(ctx, room, k, false)
	k.mu.Unlock()
	if err != nil {
		return nil, err
	}
	var list []protocol.BroadcastEntry
	for _, b := range all {
		e := protocol.BroadcastEntry{Broadcast: b.ID, BeganAt: b.Began, EndedAt: b.Ended}
		rec, err := record(ctx, r.log, keyOf(room, b.ID))
		if err != nil && !errors.Is(err, ErrNoBroadcast) {
			return nil, err
		}
		if rec != nil {
			e.Revision, e.Final = rec.Revision, rec.Final
		}
		list = append(list, e)
	}
	return list, nil
}
