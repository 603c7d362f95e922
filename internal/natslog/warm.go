package natslog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
	"github.com/kansei-live/kansei/protocol"
)

var (
	errUnusable = errors.New("the stream cannot be used")
	errMoved    = errors.New("the stream became another one")
)

// warmUp brings a follow to the end of its room's log, without a hole and without
// reporting anything twice:
//
//  1. Subscribe and flush. From here on live messages wait in the inbox: the
//     worker that warms the follow up is the one who would show them.
//  2. Ask the leader for the room's last record, the target. Whatever is stored
//     later comes live, or is found missing.
//  3. Read the standing records, which are written before their events: those of all acts up to
//     the target are there. Read the latest records up to the target, from any replica, which may lack
//     some of them: see read.
//  4. Report them. What has waited and is not beyond the target is dropped by its
//     position; what is goes on from there, or shows a gap (follow.show).
//  5. Once the next tail probe has begun, which is within about a second, ask the
//     leader for the last record again. That finds what was lost between 1 and the
//     moment when the subscription had reached every server.
//
// A repair is the same without 1 and 4: live messages wait, the target is the
// previous position of the live message that showed the gap, or what the probe has
// found, or the leader's answer. After a cut the connection subscribes again by
// itself, and the first probe finds the rooms that have gone on.
//
// A room without a record has everything up to where the log ended before the leader
// was asked: a cursor of there still says something when the log has removed its
// beginning.
func (f *follow) warmUp(ctx context.Context) error {
	pasts := f.pasts.Load()
	id, stateID := f.log.identity(), f.l.state.identity()
	if id.epoch == "" || stateID.epoch == "" {
		return errUnusable
	}
	if err := f.subscribe(id.epoch, stateID.epoch); err != nil {
		return err
	}
	end := f.log.end()
	last, err := f.log.leaderLast(ctx, f.room)
	if err != nil {
		return err
	}
	state, err := f.l.state.leaderLast(ctx, f.room)
	if err != nil {
		return err
	}
	// Every act up to the target has its record by now.
	acts, err := f.standing(ctx)
	if err != nil {
		return err
	}
	events, had, err := f.log.recent(ctx, f.room, f.recent, delayOf(state), last)
	if err != nil {
		return err
	}
	if f.log.identity() != id || f.l.state.identity() != stateID {
		return errMoved
	}
	if last == nil {
		had = end
	}
	f.come(had)
	f.epoch = id.epoch
	f.mu.Lock()
	f.warm, f.freshLog, f.freshState = true, true, true
	f.expected, f.forgotten = 0, hub.Position{}
	f.mu.Unlock()
	f.tell(func() {
		f.follower.Standing(acts, state.state())
		f.follower.Reset(id.epoch, events, had)
	})
	f.told.Store(pasts)
	f.setState(state)
	return nil
}

// readBack reads and reports what the follow is missing.
func (f *follow) readBack(ctx context.Context, w *work) error {
	if w.tasks&taskCheck != 0 {
		last, err := f.log.leaderLast(ctx, f.room)
		if err != nil {
			return err
		}
		if last != nil {
			w.target = max(w.target, last.seq)
		}
	}
	if w.target <= f.had.Load() {
		return nil
	}
	if w.tasks&taskTail != 0 {
		f.l.metrics.gaps.WithLabelValues(gapTail).Inc()
	}
	start := time.Now()
	err := f.log.read(ctx, f.room, f.place(), w.target, func(records []record, had hub.Position) error {
		// What the log has removed by now was perhaps not read: it is not known to be
		// complete up to here.
		first, _, err := f.log.reach(ctx, f.epoch)
		if err != nil {
			return err
		}
		if first > f.had.Load()+1 {
			f.forget(hub.Position{Seq: min(first-1, w.target)})
			records = slices.DeleteFunc(records, func(r record) bool { return r.seq <= f.had.Load() })
		}
		f.deliver(f.l.events(records), had)
		if f.had.Load() >= w.target {
			return errEnough
		}
		return nil
	})
	if err == nil {
		f.l.metrics.repairSeconds.Observe(time.Since(start).Seconds())
	}
	return err
}

// forget reports that events up to a position, or some of them, are gone before they
// were reported.
func (f *follow) forget(upTo hub.Position) {
	f.l.metrics.gaps.WithLabelValues(gapForgotten).Inc()
	if upTo.Seq > f.had.Load() {
		f.come(upTo)
	}
	f.tell(func() { f.follower.Forgot(f.place()) })
	f.wake(taskStateAnew) // there may have been acts
}

// subscribe has the follow hear what streams of these epochs republish of its
// room, and returns when the server knows.
func (f *follow) subscribe(epoch, stateEpoch string) error {
	nc := f.l.conn.NATS()
	if nc == nil || !f.l.conn.Connected() {
		return natsconn.ErrNotConnected
	}
	err := f.hear(nc, f.log, epoch, "", &f.liveSubject, &f.sub)
	if err == nil {
		err = f.hear(nc, f.l.state, stateEpoch, "", &f.stateSubject, &f.stateSub)
	}
	if err == nil {
		err = f.hear(nc, f.l.state, stateEpoch, ".act.*", &f.actSubjects, &f.actSub)
	}
	if err == nil {
		err = nc.FlushTimeout(f.l.cfg.RequestTimeout)
	}
	if err != nil {
		f.l.metrics.nats.Failed(natsconn.OpSubscribe)
		f.l.conn.Broken(nc, err)
		return fmt.Errorf("subscribe: %w", err)
	}
	return nil
}

// hear subscribes to a subject of the room in one stream, if it has not: that of the room, and what
// follows it.
func (f *follow) hear(nc *nats.Conn, s *stream, epoch, behind string, subject *string, sub **nats.Subscription) error {
	want := s.liveSubjects(epoch) + f.room + behind
	if *subject == want {
		return nil
	}
	f.unsubscribe(s, sub)
	*subject = want
	n, err := nc.ChanSubscribe(want, s.live)
	if err != nil {
		*subject = ""
		return err
	}
	*sub = n
	s.mu.Lock()
	s.subs[n] = f
	s.mu.Unlock()
	return nil
}

func (f *follow) unsubscribe(s *stream, sub **nats.Subscription) {
	if *sub == nil {
		return
	}
	s.mu.Lock()
	delete(s.subs, *sub)
	s.mu.Unlock()
	if err := (*sub).Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		f.l.metrics.nats.Failed(natsconn.OpSubscribe)
	}
	*sub = nil
}

// events returns the events that records hold. The other records are counted.
func (l *Log) events(records []record) []hub.Event {
	events := make([]hub.Event, 0, len(records))
	for _, rec := range records {
		if e, reason := rec.event(); reason != "" {
			l.skip(&rec, reason)
		} else {
			events = append(events, e)
		}
	}
	return events
}

// upTo is a position up to which records are everything. Its time is known if it is that
// of the last of them.
func upTo(records []record, seq uint64) hub.Position {
	if n := len(records); n > 0 && records[n-1].seq == seq {
		return records[n-1].position()
	}
	return hub.Position{Seq: seq}
}

// errEnough ends a read.
var errEnough = errors.New("enough was read")

// read reads a room's records after a position up to a target that is known to
// have been stored. It calls each with those that it finds, in order, and the
// position up to which that is everything, until it fails; [errEnough] is no failure.
//
// It reads in batches from any replica. What a replica has is a piece of the
// log without holes, but the last records may be missing, and the first ones, if its
// clock has removed them earlier than the leader's. So each batch begins with what is
// had already; where that is no record of the room, the leader tells what comes next.
// Where a replica falls short it asks again a little later, and if that does not help,
// steps from record to record with the leader's answers, which also tell what was
// deleted: the leader's next record, or none.
func (s *stream) read(ctx context.Context, room string, had hub.Position, target uint64, each func(records []record, had hub.Position) error) error {
	err := s.readUpTo(ctx, room, had, target, each)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (s *stream) readUpTo(ctx context.Context, room string, had hub.Position, target uint64, each func([]record, hub.Position) error) error {
	for short := 0; had.Seq < target; {
		p, err := s.batch(ctx, room, had)
		switch {
		case err != nil:
			if !s.worthAnotherTry(ctx, err) {
				return err
			}
			short++
		case p.end > had.Seq:
			had, short = upTo(p.records, p.end), 0
			if err := each(p.records, had); err != nil {
				return err
			}
			continue
		default:
			short++
		}
		n := 1
		switch {
		case errors.Is(err, errMirror):
			n = stepRecords
		case short <= 2:
			if !sleep(ctx, jitter(20*time.Millisecond<<short)) {
				return ctx.Err()
			}
			continue
		}
		var records []record
		if records, had, err = s.steps(ctx, room, had, target, n); err != nil {
			return err
		}
		if err := each(records, had); err != nil {
			return err
		}
	}
	return nil
}

var errPast = errors.New("another record than was known is there")

// batch reads the records after a position from some replica; none when that replica
// has already removed the first of them.
func (s *stream) batch(ctx context.Context, room string, had hub.Position) (page, error) {
	p, err := s.directGet(ctx, room, max(had.Seq, 1), nil, batchRecords)
	if err != nil || len(p.records) == 0 {
		return p, err
	}
	switch first := p.records[0]; first.seq {
	case had.Seq:
		if had.At > 0 && first.at != had.At {
			s.suspect(had)
			return page{}, errPast
		}
		p.records = p.records[1:]
		return p, nil
	case had.Seq + 1: // nothing fits between
		return p, nil
	}
	next, err := s.leaderGet(ctx, getRequest{NextFor: s.subjects + room, Seq: had.Seq + 1})
	if err != nil {
		return page{}, err
	}
	if next != nil && next.seq < p.records[0].seq {
		return page{}, nil
	}
	return p, nil
}

// worthAnotherTry reports whether a read that has failed may succeed soon.
func (s *stream) worthAnotherTry(ctx context.Context, err error) bool {
	return ctx.Err() == nil && s.l.conn.Connected() && !errors.Is(err, natsconn.ErrNotConnected)
}

// jitter is a duration around d, from half of it to one and a half.
func jitter(d time.Duration) time.Duration {
	return d/2 + time.Duration(rand.Int64N(int64(d)+1))
}

// recent reads the latest events of a room, at most n of them, and tells up to
// where they are everything. last is the room's last record, as the leader has it.
//
// Those that are younger than a delay come besides: the audience is not to have them yet.
//
// What is older than the history window is left out. How many records there are
// since then is told by the first answer; where the last n of them begin must be
// searched for, since positions of a room are far apart.
func (s *stream) recent(ctx context.Context, room string, n int, delay time.Duration, last *record) ([]hub.Event, hub.Position, error) {
	if last == nil {
		return nil, hub.Position{}, nil
	}
	// By the log's clock, so that every node shows the same.
	now := time.Now().Add(time.Duration(s.ahead.Load()))
	since, young := now.Add(-s.l.cfg.HistoryWindow), now.Add(-delay-time.Second) // clocks differ
	if delay > 0 && last.at >= young.UnixMilli() {
		more, err := s.since(ctx, room, young, last)
		if err != nil {
			return nil, hub.Position{}, err
		}
		n += more
	}
	if n <= 0 || last.at < since.UnixMilli() {
		return nil, last.position(), nil
	}
	from, err := s.recentStart(ctx, room, uint64(n), since, last.seq)
	if errors.Is(err, errMirror) || errors.Is(err, errNoneFound) {
		from, err = s.recentStartByLeader(ctx, room, n, since, last)
	}
	if err != nil {
		return nil, hub.Position{}, err
	}
	var (
		events []hub.Event
		had    = hub.Position{Seq: from - 1}
	)
	err = s.read(ctx, room, had, last.seq, func(records []record, upTo hub.Position) error {
		events = append(events, s.l.events(records)...)
		if drop := len(events) - n; drop > 0 {
			events = append(events[:0], events[drop:]...)
		}
		had = upTo
		return nil
	})
	if had.Seq == last.seq {
		had = last.position()
	}
	return events, had, err
}

// maxDelayed bounds the records that a room is opened with because the audience is not to have them yet:
// those of a minute in which 300 are said a second.
const maxDelayed = 20_000

// since is about how many records a room has since a time, at least; the last one is one of them.
func (s *stream) since(ctx context.Context, room string, t time.Time, last *record) (int, error) {
	_, n, err := s.count(ctx, room, 0, &t)
	switch {
	case errors.Is(err, errMirror) || err == nil && n == 0:
		from, err := s.recentStartByLeader(ctx, room, maxDelayed, t, last)
		return int(min(last.seq-from+1, maxDelayed)), err // #nosec G115 -- small
	case err != nil:
		return 0, err
	}
	return int(min(n, maxDelayed)), nil // #nosec G115 -- small
}

// delayOf is by how much the audience of a room is behind, by its state.
func delayOf(state *record) time.Duration {
	return time.Duration(min(hub.DecodeState(state.state()).DelayMS, protocol.MaxDelayMS)) * time.Millisecond
}

// errNoneFound says that no replica that was asked has what the leader has: it is behind, or
// a mirror answers that has other rooms.
var errNoneFound = errors.New("no replica has it")

// recentStart finds a position from which on a room has at least n records, and
// not many more; or all since a time if these are fewer.
func (s *stream) recentStart(ctx context.Context, room string, n uint64, since time.Time, last uint64) (uint64, error) {
	start, count, err := s.count(ctx, room, 0, &since)
	switch {
	case err != nil:
		return 0, err
	case count == 0:
		return 0, errNoneFound
	}
	return s.narrow(ctx, room, window{start, last, count, 0}, n, 3*n+64)
}

// window is a piece of the log that begins with a record of a room.
type window struct {
	start, end uint64
	count      uint64 // records of the room from start on
	behind     uint64 // of them, those behind end
}

// narrow moves the start of a window up until a room has n records in it, or more, but
// not more than spare beyond that; it stays where it is when there are fewer. It returns
// the start. Each step asks for one record: the first ones look where it would be if the
// records were spread evenly, and then every other one takes the middle, so that bursts and
// pauses do not hold it up.
func (s *stream) narrow(ctx context.Context, room string, w window, n, spare uint64) (uint64, error) {
	const even = 6 // steps before the middle is tried: more than evenly spread records need
	// From end on there are too few, so many behind it and perhaps one at it.
	end, after := w.end, w.behind
	for try := range 2 * 64 { // sequences have 64 bits
		if w.count <= w.behind+n+spare || end <= w.start+1 {
			break
		}
		span := end - w.start
		back := span / 2
		if try < even || try%2 == 0 {
			// Kept off the ends, so that the window shrinks whatever the rate is.
			part := float64(n+spare/2-(after-w.behind)) / float64(w.count-after)
			back = min(max(uint64(float64(span)*part), span/16+1), span-1)
		}
		found, c, err := s.count(ctx, room, end-back, nil)
		if err != nil {
			return 0, err
		}
		if c >= w.behind+n && found <= w.end {
			w.start, w.count = found, c
		} else {
			end -= back
			after = min(max(c, w.behind), w.behind+n)
		}
	}
	return w.start, nil
}

// count tells the first record of a room at or after a position or a time, and
// how many there are from there on; 0 when there is none.
func (s *stream) count(ctx context.Context, room string, from uint64, since *time.Time) (first, count uint64, err error) {
	for try := range 3 {
		p, err := s.directGet(ctx, room, from, since, 1)
		if err != nil && (!s.worthAnotherTry(ctx, err) || errors.Is(err, errMirror)) {
			return 0, 0, err
		}
		if err == nil && len(p.records) > 0 {
			return p.records[0].seq, p.pending + 1, nil
		}
		if !sleep(ctx, jitter(20*time.Millisecond<<try)) {
			return 0, 0, ctx.Err()
		}
	}
	return 0, 0, nil
}
