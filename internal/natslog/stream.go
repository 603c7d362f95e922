package natslog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

const (
	tendEvery   = time.Second      // a stream with open rooms
	tendIdle    = 10 * time.Second // one without
	tendPause   = 100 * time.Millisecond
	grace       = 200 * time.Millisecond // for a live message that the probe overtook
	unwellAfter = 4 * time.Second        // without an answer from the leader
	// A leader of several replicas that says that the log is shorter than it was may not
	// have caught up yet. It is believed after a time, and earlier if what it ends with is
	// younger than what this node knows behind it, by more than clocks differ.
	believeAfter = 30 * time.Second
	proofAfter   = 2 * time.Second
	clocksDiffer = time.Second
	readers      = 32 // rooms of a stream that are read back at once
	maxDoubts    = 4  // records that are looked for again at once
	moveInPlace  = 16 // rooms that are shown without waking another goroutine
)

// stream is one JetStream stream: a partition of the log, or the states.
type stream struct {
	l         *Log
	name      string
	partition int    // -1: the states
	subjects  string // what precedes the room in the subjects of records
	section   string // of the live subjects

	live  chan *nats.Msg // of every room; never closed
	kick  chan struct{}  // tend at once
	reads *pool

	// Of the goroutine that tends the stream.
	tended    time.Time        // the last time
	overtaken map[*follow]bool // rooms that the probe found ahead of the live messages
	anchor    string           // a room that had a record when last one was needed
	doubts    int              // ticks until rooms may be checked with the leader again
	denials   int              // answers in a row of an older stream
	shorter   time.Time        // since when the leader says that the log is

	told        map[difference]time.Time // how the stream differs from what it should be, and when that was logged
	differences [effects]int             // as the metric has them
	short       shortage                 // of replicas

	tried   time.Time // when prove was done last, and on which connection
	triedOn uint64
	widened time.Time // when widen was tried last

	recheck    atomic.Bool                              // whether the log still has the end that it had, after a cut or a sign
	unsure     atomic.Bool                              // the same, until the answer; or the leader was not reached, or says that it is shorter
	replicated atomic.Bool                              // it has more than one replica
	ahead      atomic.Int64                             // nanoseconds by which the leader's clock is ahead of this node's
	domain     atomic.Value                             // a string: the JetStream domain that the stream is in
	unproven   atomic.Bool                              // what the node's user may do with it is to be found out (prove)
	unwritable atomic.Pointer[natsconn.PermissionError] // why nobody can append to it: the user may not

	mu       sync.Mutex
	id       identity
	usable   bool           // it may be written to and followed
	err      error          // why the stream is not as it should be; nil when it is
	heard    time.Time      // when all was found well last
	ill      time.Time      // since when it is not; zero when it is
	why      error          // what was wrong last
	well     bool           // not ill, or not for long
	pos      uint64         // the probe knows of every record up to here
	tip      hub.Position   // the end of the log, as the leader told it last
	high     hub.Position   // the highest record that this node knows of
	doubted  []hub.Position // records that this node had seen, and that may be gone
	gone     int64          // what is not younger than this was known when the log was cut off
	rooms    map[string][]*follow
	subs     map[*nats.Subscription]*follow
	idle     map[*follow]bool // follows that wait for the stream to be well
	mirrored mirrored         // whether a mirror answers for it
	denied   []denial         // the permissions that are missing
}

func newStream(l *Log, name string, partition int, subjects, section string) *stream {
	s := &stream{
		l: l, name: name, partition: partition, subjects: subjects, section: section,
		live: make(chan *nats.Msg, l.cfg.LiveBuffer), kick: make(chan struct{}, 1),
		overtaken: make(map[*follow]bool),
		err:       fmt.Errorf("stream %s was not looked for yet", name),
		well:      true,
		rooms:     make(map[string][]*follow), subs: make(map[*nats.Subscription]*follow), idle: make(map[*follow]bool),
	}
	s.reads = newPool(readers, (*follow).read)
	s.domain.Store("")
	s.unproven.Store(true)
	return s
}

func (s *stream) isState() bool { return s.partition < 0 }

func (s *stream) liveSubjects(epoch string) string {
	return naming{s.l.cfg.Prefix}.liveSubjects(epoch, s.section)
}

// identity is which stream this is; its epoch is empty while the stream cannot be
// used.
func (s *stream) identity() identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.usable {
		return identity{}
	}
	return s.id
}

// ready is nil, or why the stream is not.
func (s *stream) ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.usable:
		return fmt.Errorf("nats: %w", s.err)
	case len(s.denied) > 0:
		return fmt.Errorf("nats: %w", s.missing())
	case s.err != nil:
		return fmt.Errorf("nats: %w", s.err)
	case !s.well:
		return fmt.Errorf("nats: %w, for %v", s.why, time.Since(s.ill).Round(time.Second))
	}
	return nil
}

func (s *stream) isWell() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.well
}

// hurry has the stream tended at once.
func (s *stream) hurry() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// known is up to where the log was when it was last probed: a position that it has
// surely reached.
func (s *stream) known() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pos
}

// end is where the log ended when the leader was asked last.
func (s *stream) end() hub.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tip
}

// note remembers a record that was seen.
func (s *stream) note(p hub.Position) {
	if p.At <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.Seq > s.high.Seq {
		s.high = p
	}
}

// highest is the highest record that this node knows of.
func (s *stream) highest() hub.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.high
}

// suspect is told of a sign that the log gives positions again: that what this node had
// seen at p is gone. It is compared at once.
func (s *stream) suspect(p hub.Position) {
	s.doubt(p)
	s.recheck.Store(true)
	s.hurry()
}

// doubt has the next tick that reaches the leader look for a record.
func (s *stream) doubt(p hub.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Who has not heard yet that the log was cut off goes on finding signs of it.
	if p.Seq == 0 || p.At <= s.gone || slices.Contains(s.doubted, p) {
		return
	}
	if n := len(s.doubted); n >= maxDoubts {
		s.doubted[n-1] = p // the first ones are of the oldest past
	} else {
		s.doubted = append(s.doubted, p)
	}
}

// join and leave say which rooms are open.
func (s *stream) join(f *follow) {
	s.mu.Lock()
	s.rooms[f.room] = append(s.rooms[f.room], f)
	s.mu.Unlock()
}

func (s *stream) leave(f *follow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.idle, f)
	var rest []*follow
	for _, g := range s.rooms[f.room] {
		if g != f {
			rest = append(rest, g)
		}
	}
	if s.rooms[f.room] = rest; len(rest) == 0 {
		delete(s.rooms, f.room)
	}
}

// await has a follow wait until the stream was found well again.
func (s *stream) await(f *follow) {
	s.mu.Lock()
	s.idle[f] = true
	s.mu.Unlock()
}

// follows are those of every open room.
func (s *stream) follows() []*follow {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*follow, 0, len(s.rooms))
	for _, fs := range s.rooms {
		all = append(all, fs...)
	}
	return all
}

// move hands live messages to the follows that they are for, until the context
// ends. Those that have come together are handed on together. A few follows are shown
// from here, because to wake somebody for it costs more than to do it; many go to the
// pool, because what waits here too long is dropped.
func (s *stream) move(ctx context.Context) {
	var claimed []*follow
	for {
		select {
		case m := <-s.live:
			claimed = s.push(claimed[:0], m)
		case <-ctx.Done():
			return
		}
		for range len(s.live) {
			claimed = s.push(claimed, <-s.live)
		}
		for _, f := range claimed {
			if len(claimed) <= moveInPlace {
				f.report()
			} else {
				f.handOver()
			}
		}
		clear(claimed)
	}
}

// push hands on one live message and appends the follow if it is to be worked for now.
func (s *stream) push(claimed []*follow, m *nats.Msg) []*follow {
	s.mu.Lock()
	f := s.subs[m.Sub]
	s.mu.Unlock()
	if f != nil && f.push(s, m) {
		claimed = append(claimed, f)
	}
	return claimed
}

// tend looks after the stream until the context ends.
func (s *stream) tend(ctx context.Context) {
	defer s.countDifferences([effects]int{})
	defer s.setMissing(nil)
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		// Spread, so that nodes do not ask in step.
		period := time.Duration(float64(tendEvery) * (0.9 + 0.2*rand.Float64()))
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
			// A storm of kicks is answered once in a while.
			if !sleep(ctx, time.Until(s.tended.Add(tendPause))) {
				return
			}
		case <-next.C:
		}
		began := time.Now()
		s.tick(ctx)
		s.tended = time.Now()
		if len(s.overtaken) > 0 {
			if !sleep(ctx, grace) {
				return
			}
			s.repairOvertaken()
		}
		// From beginning to beginning, so that a slow tick does not put off the next.
		next.Reset(max(period-time.Since(began), tendPause))
	}
}

// sleep waits; false when the context has ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tick asks the leader which stream this is and where it ends, and finds the rooms
// that are behind. What it learns holds because of the order: the follows'
// positions are read before the leader is asked, and a room that was opened is
// checked by itself once a probe that includes it has begun, so that no record
// falls between the probe's position and the room's.
func (s *stream) tick(ctx context.Context) {
	s.mu.Lock()
	resting := s.usable && s.well && len(s.rooms) == 0 && time.Since(s.heard) < tendIdle && !s.recheck.Load() && !s.unproven.Load()
	s.mu.Unlock()
	if resting {
		return
	}
	err := s.examine(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		// Its server may have lost power. This node's connection is to another one perhaps,
		// and the log may have grown past its old end when it is reached again.
		s.unsure.Store(true)
		s.doubt(s.highest())
	}
	s.diagnose(err)
	if err != nil {
		return
	}
	s.mu.Lock()
	waiting := s.idle
	s.idle = make(map[*follow]bool)
	s.mu.Unlock()
	for f := range waiting {
		f.unpark()
	}
}

func (s *stream) examine(ctx context.Context) error {
	if !s.l.conn.Connected() {
		return natsconn.ErrNotConnected
	}
	if s == s.l.logs[0] {
		again, err := s.l.conn.TryInbox(proveEvery)
		if err != nil {
			return err
		}
		if again {
			s.l.resubscribe()
		}
	}
	had, high := s.positions(), s.highest()
	if err := s.checkServer(); err != nil {
		return s.refuse(err)
	}
	info, err := s.bind(ctx)
	if err != nil {
		return err
	}
	s.prove(ctx, info.Config.Metadata[metaEpoch])
	if at := info.TimeStamp; !at.IsZero() {
		s.ahead.Store(int64(time.Until(at)))
	}
	other, err := s.accept(info)
	if err != nil {
		return err
	}
	s.widen(ctx, info)
	if other { // what is known is of the one before
		had, high = nil, hub.Position{}
	}
	if err := s.compareEnds(ctx, info, had, high); err != nil {
		return err
	}
	return s.probe(ctx, info.State.FirstSeq, endOf(info))
}

// diagnose remembers how the stream was found, and tells the follows when it has
// become well or unwell.
func (s *stream) diagnose(err error) {
	s.mu.Lock()
	now := time.Now()
	if err == nil {
		s.heard, s.ill, s.why = now, time.Time{}, nil
	} else {
		s.why = err
		if s.ill.IsZero() {
			s.ill = now
		}
		if !s.usable {
			s.err = err
		}
	}
	well := err == nil || now.Sub(s.ill) < unwellAfter
	changed, long := well != s.well, err != nil && now.Sub(s.ill) >= moveAfter
	s.well = well
	s.mu.Unlock()
	if long && unreached(err) && s.l.conn.Connected() {
		s.l.conn.Move(err)
	}
	if changed {
		for _, f := range s.follows() {
			f.wake(0)
		}
	}
}

// unreached reports whether an error says that the stream's leader was not reached.
func unreached(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, natsconn.ErrNoResponders) || errors.Is(err, errNoLeader) ||
		natsconn.IsCode(err, natsconn.CodeClusterNotAvailable)
}
