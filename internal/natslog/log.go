package natslog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/internal/redact"
	"github.com/kansei-live/kansei/protocol"
)

const (
	// connectTimeout bounds each attempt to connect to one server.
	connectTimeout = 2 * time.Second
	// A server that is there, but cut off from the one that leads a stream, is left for
	// another after so long, and so often at the most.
	moveAfter = 10 * time.Second
	moveEvery = 30 * time.Second
)

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

	nc        atomic.Pointer[nats.Conn] // nil until the first attempt to connect has ended
	connected atomic.Bool
	lastErr   atomic.Pointer[error]   // why it is not connected
	noEntry   atomic.Pointer[refused] // the last server that did not let the node in
	server    atomic.Pointer[string]  // the one that it is or was connected to
	secrets   redact.Secrets          // of the servers' addresses
	outage    outage
	began     time.Time
	moved     atomic.Int64 // when a server was left last, since began, in nanoseconds; 0: never

	connections atomic.Uint64                   // how many there have been
	deaf        atomic.Pointer[permissionError] // why no answers come: the user may not receive them
	listened    time.Time                       // when that was tried again; of the goroutine that tends the first stream

	caller   *caller
	appender *appender
	reports  *pool
	logs     []*stream // by partition
	state    *stream

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
	secrets := redact.Of(cfg.URLs...)
	options := nats.GetDefaultOptions()
	for _, o := range cfg.Options {
		if err := o(&options); err != nil {
			return nil, fmt.Errorf("natslog: %w", secrets.Error(err))
		}
	}
	l := &Log{cfg: cfg, began: time.Now(), secrets: secrets, metrics: cfg.Metrics, log: cfg.Logger, quiet: quiet.New(cfg.Logger), newer: quiet.Every(newerAgain, cfg.Logger), closed: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.caller = newCaller(l)
	l.appender = newAppender(l)
	l.reports = newPool(reportsWorkers, (*follow).report)
	names := naming{cfg.Prefix}
	for p := range cfg.Partitions {
		l.logs = append(l.logs, newStream(l, names.logStream(p), p, names.logSubjects(p), fmt.Sprint(p)))
	}
	l.state = newStream(l, names.stateStream(), -1, names.stateSubjects(), "state")

	// All of these end when l.ctx does, and Close waits for them.
	l.wg.Go(l.connect)
	l.wg.Go(l.appender.send)
	l.wg.Go(l.appender.keepTime)
	for _, s := range l.streams() {
		l.wg.Go(func() { s.move(l.ctx) })
		l.wg.Go(func() { s.tend(l.ctx) })
	}
	return l, nil
}

func (l *Log) streams() []*stream { return append(append([]*stream(nil), l.logs...), l.state) }

// connect makes the connection, which then keeps itself.
func (l *Log) connect() {
	for {
		nc, err := nats.Connect(strings.Join(l.cfg.URLs, ","), l.options()...)
		if err == nil {
			err = l.listen(nc)
			if err == nil {
				l.nc.Store(nc)
				if nc.IsConnected() {
					l.up()
				}
				if !nc.IsConnected() {
					l.down(nil) // whose own report may have come before up's
				}
				return
			}
			nc.Close()
		}
		l.connectFailed(err)
		if !sleep(l.ctx, jitter(time.Second)) {
			return
		}
	}
}

// listen subscribes to the two inboxes.
func (l *Log) listen(nc *nats.Conn) error {
	for inbox, deliver := range map[string]nats.MsgHandler{
		l.caller.inbox: l.caller.deliver, l.appender.inbox: l.appender.deliver,
	} {
		sub, err := nc.Subscribe(inbox+"*", deliver)
		if err != nil {
			return err
		}
		// Their number is bounded by what is asked for; their size by batchBytes.
		if err := sub.SetPendingLimits(1<<17, 64<<20); err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) options() []nats.Option {
	o := []nats.Option{
		nats.Name(l.cfg.Name),
		nats.RetryOnFailedConnect(true),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(200*time.Millisecond, 400*time.Millisecond),
		// A publish that was kept for later would appear after it was refused.
		nats.ReconnectBufSize(-1),
		// A frozen server goes unnoticed for minutes otherwise.
		nats.PingInterval(2 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(connectTimeout),
		nats.SetCustomDialer(&dialer{net.Dialer{Timeout: connectTimeout}, l.connectFailed, l.identify}),
		// What could not be written is dropped by the connection, subscriptions
		// too; connecting again makes them anew.
		nats.FlusherTimeout(l.cfg.RequestTimeout),
		nats.ReconnectOnFlusherError(),
		nats.PermissionErrOnSubscribe(true), // which tryHear asks for
		// Credentials may be mended while the node runs.
		nats.IgnoreAuthErrorAbort(),
		nats.ConnectHandler(func(*nats.Conn) { l.up() }),
		nats.ReconnectHandler(func(*nats.Conn) {
			l.metrics.reconnects.Inc()
			l.up()
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { l.down(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { l.connectFailed(err) }),
		nats.ErrorHandler(l.asyncError),
	}
	return append(o, l.cfg.Options...)
}

// identify gives the connection the public key that the node's user has now. The client asks
// for all else that it shows to a server by itself. It has the lock of its options while it
// dials.
func (l *Log) identify() {
	if nc := l.nc.Load(); nc != nil && l.cfg.NKey != nil {
		nc.Opts.Nkey = l.cfg.NKey()
	}
}

// up is told of every connection that was made, once or twice.
func (l *Log) up() {
	nc := l.nc.Load()
	if nc == nil || l.connected.Swap(true) {
		return
	}
	l.metrics.connected.Set(1)
	server := redact.URL(nc.ConnectedUrl())
	l.server.Store(&server)
	l.logBack(server)
	l.connections.Add(1)
	l.caller.forgive()
	for _, s := range l.streams() {
		s.unproven.Store(true)
		s.recheck.Store(true)
		s.hurry()
	}
	l.appender.resend()
}

func (l *Log) down(err error) {
	if !l.connected.Swap(false) {
		return
	}
	l.metrics.connected.Set(0)
	l.appender.disconnected()
	if err = l.secrets.Error(err); err != nil {
		l.lastErr.Store(&err)
	}
	// Whether the log still has them is asked when there is another connection.
	for _, s := range l.streams() {
		s.suspect(s.highest())
	}
	if !l.closing.Load() {
		l.logLost(err)
	}
}

func (l *Log) connectFailed(err error) {
	l.metrics.failed(opConnect)
	err = l.secrets.Error(err)
	if l.lastErr.Store(&err); refusedUser(err) {
		l.noEntry.Store(&refused{err, time.Now()})
	}
	if !l.closing.Load() {
		l.logFailed(err)
	}
}

func (l *Log) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	err = l.secrets.Error(err)
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
	case errors.Is(err, nats.ErrPermissionViolation):
		l.violated(err)
		return
	case refusedUser(err):
		l.connectFailed(err)
		return
	default:
		l.metrics.failed(opAsync)
		l.quiet.Log(slog.LevelWarn, "the connection to NATS reports an error", err.Error(), "error", err)
		return
	}
	l.metrics.failed(opSlowConsumer)
	for _, s := range l.streams() {
		s.mu.Lock()
		_, is := s.subs[sub]
		s.mu.Unlock()
		if is {
			s.hurry() // the probe finds the rooms whose messages were dropped
		}
	}
}

// broken is told how a write to the connection has failed. After a failure of the
// connection itself, what it had in its buffer is gone, subscriptions perhaps among
// it: only connecting again makes sure of them.
func (l *Log) broken(nc *nats.Conn, err error) {
	if notSent(err) || errors.Is(err, nats.ErrTimeout) || l.closing.Load() {
		return
	}
	if err := nc.ForceReconnect(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		l.metrics.failed(opConnect)
	}
}

// move leaves the server for another one, if there is one.
func (l *Log) move(why error) {
	nc := l.nc.Load()
	now, last := int64(time.Since(l.began)), l.moved.Load()
	if nc == nil || len(nc.Servers()) < 2 || last > 0 && now-last < int64(moveEvery) || !l.moved.CompareAndSwap(last, now) {
		return
	}
	l.log.Warn("this NATS server does not reach the room log: the node connects to another one of --nats",
		"server", redact.URL(nc.ConnectedUrl()), "error", why)
	if err := nc.ForceReconnect(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		l.metrics.failed(opConnect)
	}
}

// notSent reports whether an error of a publish says that nothing was written.
func notSent(err error) bool {
	for _, known := range []error{
		nats.ErrReconnectBufExceeded, nats.ErrConnectionClosed, nats.ErrConnectionDraining, nats.ErrMaxPayload,
		nats.ErrBadSubject, nats.ErrInvalidConnection, nats.ErrHeadersNotSupported,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}

func (l *Log) servers() string {
	urls := make([]string, len(l.cfg.URLs))
	for i, u := range l.cfg.URLs {
		urls[i] = redact.URL(u)
	}
	return strings.Join(urls, ",")
}

// Ready is nil, or says what the log is waiting for.
func (l *Log) Ready() error {
	if l.closing.Load() {
		return fmt.Errorf("nats: %w", errClosed)
	}
	if !l.connected.Load() {
		if err := l.whyNot(); err != nil {
			return fmt.Errorf("nats: not connected to %s: %w", l.servers(), err)
		}
		return fmt.Errorf("nats: not connected to %s", l.servers())
	}
	if e := l.deaf.Load(); e != nil {
		return fmt.Errorf("nats: %w", e)
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
	if l.closing.Load() || !l.connected.Load() {
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
		if nc := l.nc.Load(); nc != nil {
			nc.Close()
		}
		l.metrics.connected.Set(0)
		l.metrics.degraded.Set(0)
	}()
	select {
	case <-l.closed:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("natslog: close: %w", ctx.Err()))
	}
	return err
}
