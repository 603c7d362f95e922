// Package natsconn is a node's connection to NATS, and the requests that it makes over it.
//
// A [Conn] connects, keeps the connection, and says what becomes of it: in the log, in
// metrics, and by the functions of its [Config]. Requests have one inbox for all their
// answers: [Conn.Ask], and [API] for those to JetStream. It knows nothing of streams, rooms and
// records, which are natslog's.
//
// A NATS server refuses what a user may not do without an answer: the connection reports a
// violation some time later. A Conn takes apart what is reported ([Violation]), has the
// requests fail that were refused, and looks after its own inboxes (permission.go).
//
//	conn.go        the connection: options, what it reports, how it is left for another one
//	outage.go      the lines and the reasons while there is none
//	dial.go        the network connection; reads are paced when there are very many
//	request.go     requests and their answers, and the errors of JetStream
//	permission.go  what the node's user may not do
//	metrics.go     kansei_nats_…
package natsconn

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/internal/redact"
)

const (
	// connectTimeout bounds each attempt to connect to one server.
	connectTimeout = 2 * time.Second
	// A server that is there, but cut off from the one that leads a stream, is left for
	// another, at most once in so long.
	moveEvery = 30 * time.Second
)

// Config configures a [Conn]. All but Options, NKey and Domain is needed.
type Config struct {
	URLs    []string
	Options []nats.Option // applied after the connection's own
	Name    string        // as NATS reports it
	// NKey returns the public key of the node's user, which is asked for before every
	// attempt to connect; nil for what Options say.
	NKey           func() string
	Domain         string        // of JetStream, for errors
	Inboxes        string        // what the subjects of answers begin with, without a dot at the end
	RequestTimeout time.Duration // of one request

	Metrics *Metrics
	Logger  *slog.Logger
	Quiet   *quiet.Logger // for what may happen often

	// The connection's own goroutines call these. They must not block.
	Up       func()                                 // there is a connection, after a time without one
	Down     func()                                 // there is none any more
	Dropped  func(*nats.Subscription)               // messages of a subscription were dropped: it is too slow
	Violated func(v Violation, err error) (ok bool) // NATS has refused something; ok: it is known what it was
}

// Conn is a connection to NATS. Make one with [New], and begin with [Conn.Run].
type Conn struct {
	cfg     Config
	metrics *Metrics
	log     *slog.Logger
	quiet   *quiet.Logger

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
	deaf        atomic.Pointer[PermissionError] // why no answers come: the user may not receive them
	listened    time.Time                       // when that was tried again; of the caller of TryInbox

	inbox     string                     // of requests, with a dot at the end
	receivers map[string]nats.MsgHandler // of the inboxes; not changed after Run
	leaving   atomic.Bool

	mu     sync.Mutex
	calls  map[string]call
	count  uint64
	denied map[string]refusal // by subject, of which a stream has a handful
}

// New makes a connection that is not begun. It fails for options that cannot be applied.
func New(cfg Config) (*Conn, error) {
	c := &Conn{
		cfg: cfg, metrics: cfg.Metrics, log: cfg.Logger, quiet: cfg.Quiet, began: time.Now(), secrets: redact.Of(cfg.URLs...),
		receivers: make(map[string]nats.MsgHandler), calls: make(map[string]call), denied: make(map[string]refusal),
	}
	options := nats.GetDefaultOptions()
	for _, o := range cfg.Options {
		if err := o(&options); err != nil {
			return nil, c.secrets.Error(err)
		}
	}
	c.inbox = c.NewInbox()
	c.Receive(c.inbox, c.deliver)
	return c, nil
}

// NATS returns the connection itself; nil until the first attempt to connect has ended.
func (c *Conn) NATS() *nats.Conn { return c.nc.Load() }

// Connected reports whether there is a connection now.
func (c *Conn) Connected() bool { return c.connected.Load() }

// Connections returns how many connections there have been.
func (c *Conn) Connections() uint64 { return c.connections.Load() }

// Ready returns nil, or why requests cannot be made.
func (c *Conn) Ready() error {
	if !c.connected.Load() {
		if err := c.whyNot(); err != nil {
			return fmt.Errorf("not connected to %s: %w", c.servers(), err)
		}
		return fmt.Errorf("not connected to %s", c.servers())
	}
	return c.Deaf()
}

// Leave says that the connection will be closed: its end is not logged.
func (c *Conn) Leave() { c.leaving.Store(true) }

// Close ends the connection. Run must have returned.
func (c *Conn) Close() {
	c.Leave()
	if nc := c.nc.Load(); nc != nil {
		nc.Close()
	}
	c.metrics.Connected.Set(0)
}

// Run makes the connection, which then keeps itself. It returns when that is done or the context
// has ended.
func (c *Conn) Run(ctx context.Context) {
	for {
		nc, err := nats.Connect(strings.Join(c.cfg.URLs, ","), c.options()...)
		if err == nil {
			err = c.listen(nc)
			if err == nil {
				c.nc.Store(nc)
				if nc.IsConnected() {
					c.up()
				}
				if !nc.IsConnected() {
					c.down(nil) // whose own report may have come before up's
				}
				return
			}
			nc.Close()
		}
		c.connectFailed(err)
		select {
		case <-time.After(time.Duration(mathrand.Int64N(int64(time.Second))) + time.Second/2):
		case <-ctx.Done():
			return
		}
	}
}

// NewInbox returns what the subjects of a new inbox begin with. A token follows.
func (c *Conn) NewInbox() string { return c.cfg.Inboxes + "." + rand.Text() + "." }

// Receive has deliver called with what comes to an inbox. Call it before Run.
func (c *Conn) Receive(inbox string, deliver nats.MsgHandler) { c.receivers[inbox] = deliver }

// listen subscribes to the inboxes.
func (c *Conn) listen(nc *nats.Conn) error {
	for inbox, deliver := range c.receivers {
		sub, err := nc.Subscribe(inbox+"*", deliver)
		if err != nil {
			return err
		}
		// Answers are bounded by what is asked for: so many at once, of so many bytes.
		if err := sub.SetPendingLimits(1<<17, 64<<20); err != nil {
			return err
		}
	}
	return nil
}

func (c *Conn) options() []nats.Option {
	o := []nats.Option{
		nats.Name(c.cfg.Name),
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
		nats.SetCustomDialer(&dialer{net.Dialer{Timeout: connectTimeout}, c.connectFailed, c.identify}),
		// What could not be written is dropped by the connection, subscriptions
		// too; connecting again makes them anew.
		nats.FlusherTimeout(c.cfg.RequestTimeout),
		nats.ReconnectOnFlusherError(),
		nats.PermissionErrOnSubscribe(true), // which tryHear asks for
		// Credentials may be mended while the node runs.
		nats.IgnoreAuthErrorAbort(),
		nats.ConnectHandler(func(*nats.Conn) { c.up() }),
		nats.ReconnectHandler(func(*nats.Conn) {
			c.metrics.Reconnects.Inc()
			c.up()
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { c.down(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { c.connectFailed(err) }),
		nats.ErrorHandler(c.asyncError),
	}
	return append(o, c.cfg.Options...)
}

// identify gives the connection the public key that the node's user has now. The client asks
// for all else that it shows to a server by itself. It has the lock of its options while it
// dials.
func (c *Conn) identify() {
	if nc := c.nc.Load(); nc != nil && c.cfg.NKey != nil {
		nc.Opts.Nkey = c.cfg.NKey()
	}
}

// up is told of every connection that was made, once or twice.
func (c *Conn) up() {
	nc := c.nc.Load()
	if nc == nil || c.connected.Swap(true) {
		return
	}
	c.metrics.Connected.Set(1)
	server := redact.URL(nc.ConnectedUrl())
	c.server.Store(&server)
	c.logBack(server)
	c.connections.Add(1)
	c.Forgive()
	c.cfg.Up()
}

func (c *Conn) down(err error) {
	if !c.connected.Swap(false) {
		return
	}
	c.metrics.Connected.Set(0)
	if err = c.secrets.Error(err); err != nil {
		c.lastErr.Store(&err)
	}
	c.cfg.Down()
	if !c.leaving.Load() {
		c.logLost(err)
	}
}

func (c *Conn) connectFailed(err error) {
	c.metrics.Failed(OpConnect)
	err = c.secrets.Error(err)
	if c.lastErr.Store(&err); refusedUser(err) {
		c.noEntry.Store(&refused{err, time.Now()})
	}
	if !c.leaving.Load() {
		c.logFailed(err)
	}
}

func (c *Conn) asyncError(_ *nats.Conn, sub *nats.Subscription, err error) {
	err = c.secrets.Error(err)
	switch {
	case errors.Is(err, nats.ErrSlowConsumer):
	case errors.Is(err, nats.ErrPermissionViolation):
		c.violated(err)
		return
	case refusedUser(err):
		c.connectFailed(err)
		return
	default:
		c.metrics.Failed(OpAsync)
		c.quiet.Log(slog.LevelWarn, "the connection to NATS reports an error", err.Error(), "error", err)
		return
	}
	c.metrics.Failed(OpSlowConsumer)
	c.cfg.Dropped(sub)
}

// Broken is told how a write to the connection has failed. After a failure of the
// connection itself, what it had in its buffer is gone, subscriptions perhaps among
// it: only connecting again makes sure of them.
func (c *Conn) Broken(nc *nats.Conn, err error) {
	if NotSent(err) || errors.Is(err, nats.ErrTimeout) || c.leaving.Load() {
		return
	}
	if err := nc.ForceReconnect(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		c.metrics.Failed(OpConnect)
	}
}

// Move leaves the server for another one, if there is one, because of why.
func (c *Conn) Move(why error) {
	nc := c.nc.Load()
	now, last := int64(time.Since(c.began)), c.moved.Load()
	if nc == nil || len(nc.Servers()) < 2 || last > 0 && now-last < int64(moveEvery) || !c.moved.CompareAndSwap(last, now) {
		return
	}
	c.log.Warn("this NATS server does not reach the room log: the node connects to another one of --nats",
		"server", redact.URL(nc.ConnectedUrl()), "error", why)
	c.Reconnect()
}

// Reconnect has the connection made anew, and with it every subscription.
func (c *Conn) Reconnect() {
	nc := c.nc.Load()
	if nc == nil {
		return
	}
	if err := nc.ForceReconnect(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		c.metrics.Failed(OpConnect)
	}
}

// NotSent reports whether an error of a publish says that nothing was written.
func NotSent(err error) bool {
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

func (c *Conn) servers() string {
	urls := make([]string, len(c.cfg.URLs))
	for i, u := range c.cfg.URLs {
		urls[i] = redact.URL(u)
	}
	return strings.Join(urls, ",")
}
