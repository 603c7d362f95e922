package natslog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// A mirror of a stream may take part in the direct gets of its origin (mirror_direct), and
// answers in the place of a replica. But it keeps what was erased from the origin, and its
// own limits, or a filter, may have left out what the origin has. So what another stream
// answers is not used. Its answers bear its own name.
//
// As long as there is one, nobody can choose who answers: rooms are read from the leader,
// record by record, which is slower, and right.

// headerStream is the stream that a direct get was answered by.
const headerStream = "Nats-Stream"

// mirrorLasts is how long direct gets are not asked for after a mirror has answered one.
const mirrorLasts = time.Minute

// errMirror says that a direct get was not answered by a replica of the stream.
var errMirror = errors.New("a mirror answers in the stream's place")

// mirrored says whether a mirror answers for a stream. Under stream.mu.
type mirrored struct {
	until time.Time // when a direct get may be asked for again
	by    string    // the mirror that was logged
	told  time.Time // when
}

// byMirror reports whether a mirror has answered a short while ago.
func (s *stream) byMirror() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.mirrored.until.IsZero() && time.Now().Before(s.mirrored.until)
}

// foreign reports whether an answer to a direct get, which has a message, is another
// stream's. It is told of the first such answer.
func (s *stream) foreign(m *nats.Msg) bool {
	name := natsconn.Last(m.Header, headerStream)
	if name == s.name || name == "" {
		return false
	}
	now := time.Now()
	s.mu.Lock()
	s.mirrored.until = now.Add(mirrorLasts)
	complain := s.mirrored.by != name || now.Sub(s.mirrored.told) >= warnAgain
	if complain {
		s.mirrored.by, s.mirrored.told = name, now
	}
	s.mu.Unlock()
	s.l.metrics.nats.Failed(opMirror)
	if complain {
		s.l.log.Warn("a mirror answers in a stream's place, and may have what was erased; the log is read from the leader alone, which is slower",
			"stream", s.name, "mirror", name, "remedy", fmt.Sprintf("nats stream edit %s --no-allow-mirror-direct", name))
	}
	return true
}

const (
	stepRecords  = 64 // that are read from the leader before they are shown
	probeWorkers = 16 // rooms that the leader is asked about at once
)

// steps reads the records of a room after a position from the leader, at most n of them,
// up to a target, and tells up to where that is everything.
func (s *stream) steps(ctx context.Context, room string, had hub.Position, target uint64, n int) ([]record, hub.Position, error) {
	var records []record
	for had.Seq < target && len(records) < n {
		rec, err := s.leaderGet(ctx, getRequest{NextFor: s.subjects + room, Seq: had.Seq + 1})
		switch {
		case err != nil:
			return nil, had, err
		case rec == nil:
			return records, hub.Position{Seq: target}, nil // it was deleted
		}
		records, had = append(records, *rec), rec.position()
	}
	return records, had, nil
}

// recentStartByLeader finds the position from which on a room has n records, or all that
// are not older than since. It goes back from the last one in steps that grow.
func (s *stream) recentStartByLeader(ctx context.Context, room string, n int, since time.Time, last *record) (uint64, error) {
	start, missing := last.seq, n-1
	for span := uint64(4 * n); missing > 0 && start > 1; span *= 4 {
		begin := start - min(span, start-1)
		var found []uint64
		old := false
		for at := begin; at < start; {
			rec, err := s.leaderGet(ctx, getRequest{NextFor: s.subjects + room, Seq: at})
			if err != nil {
				return 0, err
			}
			if rec == nil || rec.seq >= start {
				break
			}
			at = rec.seq + 1
			if rec.at < since.UnixMilli() {
				old = true
				continue
			}
			if found = append(found, rec.seq); len(found) > 2*missing {
				found = append(found[:0], found[len(found)-missing:]...)
			}
		}
		if drop := len(found) - missing; drop > 0 {
			found = found[drop:]
		}
		switch missing -= len(found); {
		case missing > 0 && !old:
			start = begin
		case len(found) > 0:
			return found[0], nil
		default:
			return start, nil
		}
	}
	return start, nil
}

// probeByLeader asks the leader for the last record of each room, once in so many probes,
// and returns up to where it knows them all.
func (s *stream) probeByLeader(ctx context.Context, rooms []string, from, end uint64) (uint64, error) {
	if s.doubts > 0 {
		s.doubts--
		return from, nil
	}
	lasts, errs := make([]*record, len(rooms)), make([]error, len(rooms))
	var (
		next atomic.Int64
		wg   sync.WaitGroup
	)
	for range min(probeWorkers, len(rooms)) {
		wg.Go(func() { // ends when all rooms were asked for, each within the time for a request
			for i := next.Add(1) - 1; int(i) < len(rooms); i = next.Add(1) - 1 {
				if lasts[i], errs[i] = s.leaderLast(ctx, rooms[i]); errs[i] != nil {
					next.Store(int64(len(rooms)))
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return from, err
	}
	for _, rec := range lasts {
		if rec != nil && rec.seq > from {
			s.found(*rec)
		}
	}
	s.doubts = doubtProbes - 1
	return end, nil
}
