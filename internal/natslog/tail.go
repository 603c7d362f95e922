package natslog

import (
	"context"
	"errors"
	"slices"
	"strings"
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

// probe finds the rooms that have records after what it knows of. first and end are the
// ends of the log, as the leader has it.
func (s *stream) probe(ctx context.Context, first, end uint64) error {
	s.mu.Lock()
	from := s.pos
	rooms := make([]string, 0, len(s.rooms))
	var fresh, lost []*follow
	for room, fs := range s.rooms {
		rooms = append(rooms, room)
		for _, f := range fs {
			if f.fresh(s) {
				fresh = append(fresh, f)
			} else if f.missed(from, first) {
				lost = append(lost, f)
			}
		}
	}
	s.mu.Unlock()
	for _, f := range fresh {
		f.wake(s.check())
	}
	if len(lost) > 0 && !s.isState() {
		// It was removed before it was known of: the node was away for longer than it was
		// kept, or somebody has purged the stream.
		s.l.log.Warn("the log has removed what may not have been shown", "stream", s.name, "after", from, "first", first)
		for _, f := range lost {
			f.lose(first - 1)
		}
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

const (
	// Tries to find a replica that is not behind, within one probe. Those of a healthy
	// cluster are behind by milliseconds.
	probeTries = 4
	probePause = 30 * time.Millisecond // after the first; then twice as long each time
	// Rooms are all checked with the leader, when no such replica is found, once in so
	// many probes.
	doubtProbes = 6
)

// probeRooms asks for the last records of rooms after a position, and returns up
// to where it knows them all.
func (s *stream) probeRooms(ctx context.Context, rooms []string, from, end uint64) (uint64, error) {
	reached, stale := end, false
	pause := probePause
	for size := batchRecords; len(rooms) > 0; {
		part := rooms[:min(size, len(rooms))]
		answer, err := s.probePart(ctx, part, from, end)
		if errors.Is(err, errTooMany) && size > 1 {
			size /= 2
			continue
		}
		for err == nil && answer.upTo < end && pause < probePause<<(probeTries-1) {
			if !sleep(ctx, pause) {
				return from, ctx.Err()
			}
			pause *= 2
			answer, err = s.probePart(ctx, part, from, end)
		}
		if err != nil {
			return from, err
		}
		for _, rec := range answer.records {
			s.found(rec)
		}
		behind := answer.upTo < end
		if answer.unread || behind && s.doubts == 0 {
			s.checkAll(part)
		}
		stale = stale || behind
		reached = min(reached, max(answer.upTo, from))
		rooms = rooms[len(part):]
	}
	switch {
	case s.doubts > 0:
		s.doubts--
	case stale:
		s.doubts = doubtProbes - 1
	}
	return reached, nil
}

// probePart does it for some rooms, once. A replica that finds nothing does not say how
// far it has come, and there is nothing to find when other nodes' rooms alone go on. So
// it is also asked for a room of which the leader has something.
func (s *stream) probePart(ctx context.Context, part []string, from, end uint64) (lasts, error) {
	ask := part
	if s.anchor != "" && !slices.Contains(part, s.anchor) {
		ask = append(slices.Clone(part), s.anchor)
	}
	answer, err := s.directLasts(ctx, ask, from+1)
	if err != nil || answer.upTo > 0 || answer.unread {
		return answer, err
	}
	next, err := s.leaderGet(ctx, getRequest{NextFor: s.subjects + "*", Seq: from + 1})
	switch {
	case err != nil:
		return lasts{}, err
	case next == nil: // it was deleted
		return lasts{upTo: end}, nil
	}
	s.anchor = strings.TrimPrefix(next.subject, s.subjects)
	if !slices.Contains(part, s.anchor) {
		ask = append(slices.Clone(part), s.anchor)
	} else {
		ask = part
	}
	return s.directLasts(ctx, ask, from+1)
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
