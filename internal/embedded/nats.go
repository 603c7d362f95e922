package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/internal/private"
	"github.com/kansei-live/kansei/internal/quiet"
)

// NATSConfig configures an embedded NATS server.
type NATSConfig struct {
	// StoreDir is where JetStream keeps what it is given; made if it is not there, for
	// this user alone. It belongs to one process at a time. Empty: a temporary directory, removed
	// by Close.
	StoreDir string
	// SyncInterval is how often the disk is told to keep what was written, which is
	// what a loss of power may cost; default 1 second.
	SyncInterval time.Duration
	// SyncAlways has each message reach the disk before it is acknowledged.
	SyncAlways bool
	Logger     *slog.Logger // default: discards
}

// ErrInUse is the error of a StoreDir that another process uses.
var ErrInUse = errors.New("another process uses it")

const (
	natsStartTime  = 30 * time.Second // a large store is read through first
	natsMaxMemory  = 64 << 20         // of streams in memory; the log has none
	natsMaxPayload = 1 << 20
	natsLockFile   = "kansei.lock"
)

// NATS is a NATS server with JetStream in this process, which nobody else can
// connect to.
type NATS struct {
	cfg       NATSConfig
	quiet     *quiet.Logger
	dir       string // of the store
	lock      *os.File
	temporary string // the directory to remove; empty if there is none
	close     func() error

	failed  chan struct{} // has something since the server has reported an error
	quit    chan struct{}
	mending sync.WaitGroup

	mu     sync.Mutex
	server *server.Server // nil while there is none
}

// StartNATS starts a server and waits until it serves.
func StartNATS(cfg NATSConfig) (*NATS, error) {
	if cfg.SyncInterval < 0 {
		return nil, fmt.Errorf("embedded nats: a sync interval of %v: it must not be negative", cfg.SyncInterval)
	}
	if cfg.SyncInterval == 0 {
		cfg.SyncInterval = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	n := &NATS{cfg: cfg, quiet: quiet.New(cfg.Logger), failed: make(chan struct{}, 1), quit: make(chan struct{})}
	n.close = sync.OnceValue(n.stop)
	if err := n.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("embedded nats: %w", err), n.close())
	}
	return n, nil
}

func (n *NATS) start() error {
	n.dir = n.cfg.StoreDir
	if n.dir == "" {
		tmp, err := os.MkdirTemp("", "kansei-nats-")
		if err != nil {
			return err
		}
		n.dir, n.temporary = tmp, tmp
	}
	if err := private.Dir(n.dir); err != nil {
		return fmt.Errorf("store directory: %w", err)
	}
	var err error
	if n.lock, err = lockFile(filepath.Join(n.dir, natsLockFile)); err != nil {
		return fmt.Errorf("store directory %s: %w", n.dir, err)
	}
	if err := n.startServer(); err != nil {
		return fmt.Errorf("store directory %s: %w", n.dir, err)
	}
	// Ends when stop says so, and stop waits for it.
	n.mending.Go(n.mend)
	return nil
}

// startServer starts a server on the store.
func (n *NATS) startServer() error {
	log := &natsLogger{log: n.quiet, failed: n.failed}
	s, err := server.NewServer(&server.Options{
		ServerName:         "kansei-embedded",
		DontListen:         true,
		NoSigs:             true,
		JetStream:          true,
		StoreDir:           n.dir,
		SyncInterval:       n.cfg.SyncInterval,
		SyncAlways:         n.cfg.SyncAlways,
		JetStreamMaxMemory: natsMaxMemory,
		MaxPayload:         natsMaxPayload,

		DisableJetStreamBanner: true,
	})
	if err != nil {
		return err
	}
	s.SetLogger(log, false, false)
	s.Start()
	err = log.fatal()
	if err == nil && !s.ReadyForConnections(natsStartTime) {
		err = fmt.Errorf("not ready after %v", natsStartTime)
	}
	if err != nil {
		s.Shutdown()
		s.WaitForShutdown()
		return err
	}
	n.mu.Lock()
	n.server = s
	n.mu.Unlock()
	return nil
}

// stopServer stops the server, if there is one, and waits until everything is written.
func (n *NATS) stopServer() {
	n.mu.Lock()
	s := n.server
	n.server = nil
	n.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// Option has a NATS client connect to this server, without a network.
func (n *NATS) Option() nats.Option { return nats.InProcessServer(n) }

// InProcessConn implements nats.InProcessConnProvider: the server may be another one
// each time.
func (n *NATS) InProcessConn() (net.Conn, error) {
	n.mu.Lock()
	s := n.server
	n.mu.Unlock()
	if s == nil {
		return nil, errStopped
	}
	return s.InProcessConn()
}

var errStopped = errors.New("embedded nats: the server is not running")

// Close stops the server and waits until everything is written. It may be called
// more than once.
func (n *NATS) Close() error { return n.close() }

func (n *NATS) stop() error {
	close(n.quit)
	n.mending.Wait()
	n.stopServer()
	var err error
	if n.lock != nil {
		err = n.lock.Close() // which unlocks it
	}
	if n.temporary != "" {
		err = errors.Join(err, os.RemoveAll(n.temporary))
	}
	if err != nil {
		return fmt.Errorf("embedded nats: %w", err)
	}
	return nil
}

// natsLogger hands on what the server has to say, its notices as details. A server may say
// the same all the time, as on a full disk: few lines are written in a while.
type natsLogger struct {
	log    *quiet.Logger
	failed chan struct{} // is told of errors

	mu   sync.Mutex
	died error
}

func (l *natsLogger) Noticef(format string, v ...any) { l.write(slog.LevelDebug, format, v) }
func (l *natsLogger) Warnf(format string, v ...any)   { l.write(slog.LevelWarn, format, v) }
func (l *natsLogger) Debugf(string, ...any)           {} // the server was not told to debug
func (l *natsLogger) Tracef(string, ...any)           {} // or to trace

// Errorf also has the store looked at.
func (l *natsLogger) Errorf(format string, v ...any) {
	l.write(slog.LevelError, format, v)
	select {
	case l.failed <- struct{}{}:
	default:
	}
}

// Fatalf is the server's last word. It does not end the process.
func (l *natsLogger) Fatalf(format string, v ...any) {
	l.write(slog.LevelError, format, v)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.died == nil {
		l.died = fmt.Errorf(format, v...)
	}
}

func (l *natsLogger) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.died
}

func (l *natsLogger) write(level slog.Level, format string, v []any) {
	text := fmt.Sprintf(format, v...)
	kind := "the embedded NATS server says"
	if level >= slog.LevelError {
		kind = "the embedded NATS server reports an error"
	}
	l.log.Log(level, kind, text, "text", text)
}
