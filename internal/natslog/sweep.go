package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Rooms may keep their comments for a shorter time than the log does: their states say so
// (keep_ms). What is older is hidden at once, and removed by ForgetOld.

// ForgetOld removes the events of rooms that are older than the states of these rooms say, and
// returns of how many rooms. All nodes may do it: to do it twice changes nothing.
func (l *Log) ForgetOld(ctx context.Context) (rooms int, err error) {
	s := l.state
	if s.identity().epoch == "" {
		return 0, errUnusable
	}
	at := uint64(0)
	for {
		p, err := s.directGet(ctx, "*", at+1, nil, batchRecords)
		if err != nil || len(p.records) == 0 {
			return rooms, err
		}
		for i := range p.records {
			rec := &p.records[i]
			at = rec.seq
			var doc struct {
				Keep int64 `json:"keep_ms"`
			}
			if json.Unmarshal(rec.data, &doc) != nil || doc.Keep <= 0 {
				continue
			}
			did, err := l.forgetOlder(ctx, strings.TrimPrefix(rec.subject, s.subjects), l.Now().Add(-time.Duration(doc.Keep)*time.Millisecond))
			if err != nil {
				return rooms, err
			}
			if did {
				rooms++
			}
		}
	}
}

// forgetOlder removes the events of a room from before a time; it reports whether there were any.
func (l *Log) forgetOlder(ctx context.Context, room string, cutoff time.Time) (bool, error) {
	s, err := l.partitionOf(room)
	if err != nil {
		return false, err
	}
	first, err := s.leaderGet(ctx, getRequest{NextFor: s.subjects + room, Seq: 1})
	if err != nil || first == nil || first.at >= cutoff.UnixMilli() {
		return false, err
	}
	p, err := s.directGet(ctx, room, 0, &cutoff, 1)
	switch {
	case errors.Is(err, errMirror) || err == nil && len(p.records) == 0:
		// Nothing is younger, or no replica can tell: the leader says where the room ends.
		last, err := s.leaderLast(ctx, room)
		if err != nil || last == nil || last.at >= cutoff.UnixMilli() {
			return false, err
		}
		return true, l.Forget(ctx, room, last.seq)
	case err != nil:
		return false, err
	}
	return true, l.Forget(ctx, room, p.records[0].seq-1)
}
