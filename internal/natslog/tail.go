package natslog

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// positions are where the follows of the open rooms are.
func (s *stream) positions() map[*follow]uint64 {
	had := make(map[*follow]uint64)
	for _, f := range s.follows() {
		had[f] = f.position(s)
	}
	return had
}

// compareEnds finds out whether the log has lost its end, as it does when servers
// lose power before they have synced: what was said there is gone, and its
// positions are given again.
func (s *stream) compareEnds(ctx context.Context, info *jetstream.StreamInfo, had map[*follow]uint64) error {
	if s.recheck.Swap(false) {
		s.mu.Lock()
		high := s.high
		s.mu.Unlock()
		if high.seq > 0 && high.seq <= info.State.LastSeq {
			rec, err := s.leaderGet(ctx, getRequest{Seq: high.seq})
			if err != nil {
				s.recheck.Store(true)
				return err
			}
			if rec != nil && rec.at != high.at {
				s.shorten(info.State.LastSeq)
				return nil
			}
		}
	}
	shorter := false
	for _, seq := range had {
		shorter = shorter || seq > info.State.LastSeq
	}
	if !shorter {
		s.shorter = time.Time{}
		return nil
	}
	if s.shorter.IsZero() {
		s.shorter = time.Now()
	}
	// A leader that has lost its followers does not know that for a while.
	if info.Config.Replicas > 1 && time.Since(s.shorter) < believeAfter {
		return nil
	}
	s.shorten(info.State.LastSeq)
	return nil
}

// shorten has every room begin anew: nobody knows where the log was cut off, nor
// how far it has grown again.
func (s *stream) shorten(end uint64) {
	s.l.log.Error("the log has lost its end", "stream", s.name, "last", end)
	s.shorter = time.Time{}
	s.mu.Lock()
	s.pos, s.high = min(s.pos, end), witness{}
	s.mu.Unlock()
	for _, f := range s.follows() {
		f.wake(s.anew())
	}
}

// probe finds the rooms that have records after what it knows of.
func (s *stream) probe(ctx context.Context, end uint64) error {
	s.mu.Lock()
	from := s.pos
	rooms := make([]string, 0, len(s.rooms))
	var fresh []*follow
	for room, fs := range s.rooms {
		rooms = append(rooms, room)
		for _, f := range fs {
			if f.fresh(s) {
				fresh = append(fresh, f)
			}
		}
	}
	s.mu.Unlock()
	for _, f := range fresh {
		f.wake(s.check())
	}
	if end <= from {
		return nil
	}
	reached, err := s.probeRooms(ctx, rooms, from, end)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.pos = max(s.pos, reached)
	s.mu.Unlock()
	return nil
}

// check is what a follow has to do to be sure that it is not behind.
func (s *stream) check() task {
	if s.isState() {
		return taskState
	}
	return taskCheck
}

// probeRooms asks for the last records of rooms after a position, and returns up
// to where it knows them all.
func (s *stream) probeRooms(ctx context.Context, rooms []string, from, end uint64) (uint64, error) {
	if len(rooms) == 0 {
		return end, nil
	}
	reached, stale := end, false
	for size := batchRecords; len(rooms) > 0; {
		part := rooms[:min(size, len(rooms))]
		answer, err := s.directLasts(ctx, part, from+1)
		if errors.Is(err, errTooMany) && size > 1 {
			size /= 2
			continue
		}
		if err == nil && answer.upTo < end {
			// The replica was behind, or has nothing of these rooms at all; once
			// more, after the time that replication takes.
			if !sleep(ctx, 30*time.Millisecond) {
				return from, ctx.Err()
			}
			answer, err = s.directLasts(ctx, part, from+1)
		}
		if err != nil {
			return from, err
		}
		for _, rec := range answer.records {
			s.found(rec)
		}
		if answer.unread {
			s.checkAll(part)
		}
		stale = stale || answer.upTo < end
		reached = min(reached, max(answer.upTo, from))
		rooms = rooms[len(part):]
		if stale && s.doubts >= 2 {
			s.checkAll(part)
		}
	}
	switch {
	case !stale:
		s.doubts = 0
	case s.doubts >= 2:
		// Each room is checked with the leader now; then not for a while.
		s.doubts = -5
	default:
		s.doubts++
	}
	return reached, nil
}

// checkAll has rooms ask the leader whether they are behind.
func (s *stream) checkAll(rooms []string) {
	for _, room := range rooms {
		for _, f := range s.of(room) {
			f.wake(s.check())
		}
	}
}

func (s *stream) of(room string) []*follow {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*follow(nil), s.rooms[room]...)
}

// found is told of the last record of a room.
func (s *stream) found(rec record) {
	if len(rec.subject) <= len(s.subjects) {
		return
	}
	for _, f := range s.of(rec.subject[len(s.subjects):]) {
		if s.isState() {
			if f.pushState(liveState{record: rec}) {
				f.handOver()
			}
		} else if f.expect(rec.seq) {
			s.overtaken[f] = true
		}
	}
}

// repairOvertaken has the rooms read back whose live messages have not come.
func (s *stream) repairOvertaken() {
	for f := range s.overtaken {
		delete(s.overtaken, f)
		if f.behind() {
			f.wake(taskTail)
		}
	}
}
