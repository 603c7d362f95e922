package natslog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/protocol"
)

// moveAfter is how long a server is kept that is there, but cut off from the one that leads
// a stream.
const moveAfter = 10 * time.Second

var errClosed = errors.New("the log is closed")

// Log is the log and the state of every room, in NATS. Make one with [Open].
type Log struct {
	cfg     Config
	metrics *Metrics
	log     *slog.Logger
	quiet   *quiet.Logger // of what viewers cause
	newer   *quiet.Logger // of records of a newer schema

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	conn     *natsconn.Conn
	appender *appender
	reports  *pool
	logs     []*stream // by partition
	state    *stream
	table    *Table
	days     *dayKeys
	modlog   *apart
	watch    *apart
	archive  *apart
	keeping  [buckets]sync.Mutex // one bucket of standing records of all rooms each

	closing atomic.Bool
	closed  chan struct{} // when everything has ended
}

var _ hub.RoomLog = (*Log)(nil)

// Open starts a log. It fails only for a configuration that can never work; it
// does not wait for NATS, but keeps trying: see [Log.Ready].
func Open(cfg Config) (*Log, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, metrics: cfg.Metrics, log: cfg.Logger, quiet: quiet.New(cfg.Logger), newer: quiet.Every(newerAgain, cfg.Logger), closed: make(chan struct{})}
	names := naming{cfg.Prefix}
	l.conn, err = natsconn.New(natsconn.Config{
		URLs: cfg.URLs, Options: cfg.Options, Name: cfg.Name, NKey: cfg.NKey, Domain: cfg.Domain,
		Inboxes: names.inboxes(), RequestTimeout: cfg.RequestTimeout,
		Metrics: cfg.Metrics.nats, Logger: l.log, Quiet: l.quiet,
		Up: l.up, Down: l.down, Dropped: l.dropped, Violated: l.violated,
	})
	if err != nil {
		return nil, fmt.Errorf("natslog: %w", err)
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.appender = newAppender(l)
	l.conn.Receive(l.appender.inbox, l.appender.deliver)
	l.reports = newPool(reportsWorkers, (*follow).report)
	for p := range cfg.Partitions {
		l.logs = append(l.logs, newStream(l, names.logStream(p), p, names.logSubjects(p), fmt.Sprint(p)))
	}
	l.state = newStream(l, names.stateStream(), -1, names.stateSubjects(), "state")
	l.table = newTable(l)
	l.days, l.modlog, l.watch, l.archive = newDayKeys(l), newModlog(l), newWatch(l), newArchive(l)

	// All of these end when l.ctx does, and Close waits for them.
	l.wg.Go(func() { l.conn.Run(l.ctx) })
	l.wg.Go(l.appender.send)
	l.wg.Go(l.appender.keepTime)
	if cfg.DayKeys {
		l.wg.Go(l.days.run)
	}
	for _, s := range l.streams() {
		l.wg.Go(func() { s.move(l.ctx) })
		l.wg.Go(func() { s.tend(l.ctx) })
	}
	return l, nil
}

func (l *Log) streams() []*stream { return append(append([]*stream(nil), l.logs...), l.state) }

// up is told of every connection that was made.
func (l *Log) up() {
	for _, s := range l.streams() {
		s.unproven.Store(true)
		s.recheck.Store(true)
		s.hurry()
	}
	l.appender.resend()
}

// down is told when there is no connection any more.
func (l *Log) down() {
	l.appender.disconnected()
	// Whether the log still has these records is asked when there is another connection.
	for _, s := range l.streams() {
		s.suspect(s.highest())
	}
}

// dropped is told when live messages of a subscription were dropped.
func (l *Log) dropped(sub *nats.Subscription) {
	for _, s := range l.streams() {
		s.mu.Lock()
		_, is := s.subs[sub]
		s.mu.Unlock()
		if is {
			s.hurry() // the probe finds the rooms whose messages were dropped
		}
	}
}

// Ready is nil, or says what the log is waiting for.
func (l *Log) Ready() error {
	if l.closing.Load() {
		return fmt.Errorf("nats: %w", errClosed)
	}
	if err := l.conn.Ready(); err != nil {
		return fmt.Errorf("nats: %w", err)
	}
	for _, s := range l.streams() {
		if err := s.ready(); err != nil {
			return err
		}
	}
	return nil
}

// Well reports of each stream whether it can be relied on: that of the states first, then the
// partitions of the log.
func (l *Log) Well() []bool {
	well := make([]bool, 1+len(l.logs))
	if l.closing.Load() || !l.conn.Connected() {
		return well
	}
	well[0] = l.state.ready() == nil
	for i, s := range l.logs {
		well[1+i] = s.ready() == nil
	}
	return well
}

// Follow implements [hub.RoomLog].
func (l *Log) Follow(room string, recent int, follower hub.Follower) hub.Follow {
	f := newFollow(l, room, recent, follower)
	if !protocol.ValidRoom(room) {
		// There is no such subject, and so nothing to report, ever.
		l.quiet.Log(slog.LevelError, "a fault of this program: it follows what is no room; nothing is shown there", room, "room", quiet.Cut(room, protocol.MaxRoomName))
		f.stopped.Store(true)
		return f
	}
	f.log.join(f)
	l.state.join(f)
	f.wake(0)
	return f
}

// Close ends the log: no more appends, those in flight finished, no more reports.
// It waits for that until the context ends; then appends in flight fail, and the
// rest is ended without waiting.
func (l *Log) Close(ctx context.Context) error {
	if l.closing.Swap(true) {
		select {
		case <-l.closed:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.conn.Leave()
	err := l.appender.finish(ctx)
	l.cancel()
	// Ends when all goroutines have ended; each ends soon after l.ctx. It is not
	// waited for beyond the context.
	go func() {
		defer close(l.closed)
		l.reports.close()
		for _, s := range l.streams() {
			s.reads.close()
		}
		l.wg.Wait()
		l.conn.Close()
		l.metrics.degraded.Set(0)
	}()
	select {
	case <-l.closed:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("natslog: close: %w", ctx.Err()))
	}
	return err
}
