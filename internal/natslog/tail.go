package natslog

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// positions are where the follows of the open rooms are. One that is about to begin anew
// is in a past of the log, not in the log.
func (s *stream) positions() map[*follow]uint64 {
	had := make(map[*follow]uint64)
	for _, f := range s.follows() {
		if s.isState() || f.pasts.Load() == f.told.Load() {
			had[f] = f.position(s)
		}
	}
	return had
}

// compareEnds finds out whether the log has lost its end, as it does when servers
// lose power before they have synced, or are restored from a backup: what was said there
// is gone, and its positions are given again. had and high are what this node knew before
// it asked for info.
//
// It may have grown past its old end again. So each tick checks that the record with which
// the log ended at the last tick is still there, and those that were known when the
// connection was cut, or when there was a sign. When the log is shorter than it was, the
// leader of a single replica is believed at once, any other one later.
func (s *stream) compareEnds(ctx context.Context, info *jetstream.StreamInfo, had map[*follow]uint64, high hub.Position) error {
	end, recheck := endOf(info), s.recheck.Swap(false)
	if recheck {
		s.unsure.Store(true)
	}
	shorter := high.Seq > end.Seq
	for _, seq := range had {
		shorter = shorter || seq > end.Seq
	}
	s.mu.Lock()
	known := append(slices.Clone(s.doubted), s.tip)
	s.mu.Unlock()
	// Those beyond the end are looked for when the log has grown again.
	known = slices.DeleteFunc(known, func(p hub.Position) bool { return p.Seq > end.Seq })
	gone := false
	for _, p := range known {
		if p.At == 0 || p == end {
			continue
		}
		rec, err := s.leaderGet(ctx, getRequest{Seq: p.Seq})
		switch {
		case err != nil:
			s.recheck.Store(s.recheck.Load() || recheck)
			return err
		case rec == nil:
			gone = true
		case rec.at != p.At:
			s.cutOff(end)
			return nil
		}
	}
	s.mu.Lock()
	s.doubted = slices.DeleteFunc(s.doubted, func(p hub.Position) bool { return slices.Contains(known, p) })
	s.mu.Unlock()
	if gone && recheck && s.isState() {
		// It was replaced, and says nothing: the leader tells the state of each room.
		s.startAnew()
	}
	if !shorter {
		s.shorter = time.Time{}
		s.unsure.Store(false)
		s.mu.Lock()
		s.tip = end
		s.mu.Unlock()
		s.note(end)
		return nil
	}
	s.unsure.Store(true)
	if s.shorter.IsZero() {
		s.shorter = time.Now()
	}
	proven := high.Seq > end.Seq && end.At > high.At+clocksDiffer.Milliseconds()
	if since := time.Since(s.shorter); info.Config.Replicas > 1 && since < believeAfter && (!proven || since < proofAfter) {
		return nil
	}
	s.cutOff(end)
	return nil
}

// cutOff has every room begin anew: nobody knows where the log was cut off, nor
// how far it has grown again.
func (s *stream) cutOff(end hub.Position) {
	s.l.log.Error("the room log has lost its end, as after a restore or a loss of power: its rooms begin anew, their viewers get a gap; what was said behind the last record is gone (OPERATING.md, \"Restoring the log\")",
		"stream", s.name, "last", end.Seq)
	s.l.metrics.lostEnds.Inc()
	s.shorter = time.Time{}
	s.mu.Lock()
	s.gone = max(s.gone, s.high.At)
	s.pos, s.tip, s.high, s.doubted = min(s.pos, end.Seq), end, end, nil
	s.mu.Unlock()
	s.startAnew()
	s.unsure.Store(false) // from here on it is the follows that are not
}

// Sure implements [hub.RoomLog].
func (l *Log) Sure(room string) bool {
	s := l.logs[partition(room, len(l.logs))]
	if !l.conn.Connected() || s.recheck.Load() || s.unsure.Load() {
		return false
	}
	for _, f := range s.of(room) {
		if f.pasts.Load() != f.told.Load() {
			return false
		}
	}
	return true
}

// probe finds the rooms that have records after what it knows of. first and end are the
// ends of the log, as the leader has it.
func (s *stream) probe(ctx context.Context, first uint64, end hub.Position) error {
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
		s.l.log.Warn("comments were removed, by age, size or a purge, before this node had shown them: viewers of rooms concerned get a gap",
			"stream", s.name, "after", from, "first", first)
		upTo := hub.Position{Seq: first - 1}
		if end.Seq == upTo.Seq {
			upTo = end // nothing is left
		}
		for _, f := range lost {
			f.lose(upTo)
		}
	}
	if end.Seq <= from {
		return nil
	}
	reached, err := s.probeRooms(ctx, rooms, from, end.Seq)
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
		if errors.Is(err, errMirror) {
			return s.probeByLeader(ctx, rooms, from, end)
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
	next, err := s.leaderGet(ctx, getRequest{NextFor: s.needed(), Seq: from + 1})
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
		} else if f.contradicts(rec) {
			s.suspect(f.place())
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
