package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// NATSConfig configures an embedded NATS server.
type NATSConfig struct {
	// StoreDir is where JetStream keeps what it is given; made if it is not there.
	// It belongs to one process at a time. Empty: a temporary directory, removed
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
	server    *server.Server
	lock      *os.File
	temporary string // the directory to remove; empty if there is none
	close     func() error
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
	n := new(NATS)
	n.close = sync.OnceValue(n.stop)
	if err := n.start(cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("embedded nats: %w", err), n.close())
	}
	return n, nil
}

func (n *NATS) start(cfg NATSConfig) error {
	dir := cfg.StoreDir
	if dir == "" {
		tmp, err := os.MkdirTemp("", "kansei-nats-")
		if err != nil {
			return err
		}
		dir, n.temporary = tmp, tmp
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	var err error
	if n.lock, err = lockFile(filepath.Join(dir, natsLockFile)); err != nil {
		return fmt.Errorf("store directory %s: %w", dir, err)
	}
	log := &natsLogger{log: cfg.Logger}
	n.server, err = server.NewServer(&server.Options{
		ServerName:         "kansei-embedded",
		DontListen:         true,
		NoSigs:             true,
		JetStream:          true,
		StoreDir:           dir,
		SyncInterval:       cfg.SyncInterval,
		SyncAlways:         cfg.SyncAlways,
		JetStreamMaxMemory: natsMaxMemory,
		MaxPayload:         natsMaxPayload,

		DisableJetStreamBanner: true,
	})
	if err != nil {
		return err
	}
	n.server.SetLogger(log, false, false)
	n.server.Start()
	if err := log.fatal(); err != nil {
		return err
	}
	if !n.server.ReadyForConnections(natsStartTime) {
		return fmt.Errorf("not ready after %v", natsStartTime)
	}
	return nil
}

// Option has a NATS client connect to this server, without a network.
func (n *NATS) Option() nats.Option { return nats.InProcessServer(n.server) }

// Close stops the server and waits until everything is written. It may be called
// more than once.
func (n *NATS) Close() error { return n.close() }

func (n *NATS) stop() error {
	if n.server != nil {
		n.server.Shutdown()
		n.server.WaitForShutdown()
	}
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

// natsLogger hands on what the server has to say, its notices as details.
type natsLogger struct {
	log *slog.Logger

	mu   sync.Mutex
	died error
}

func (l *natsLogger) Noticef(format string, v ...any) { l.write(l.log.Debug, format, v) }
func (l *natsLogger) Warnf(format string, v ...any)   { l.write(l.log.Warn, format, v) }
func (l *natsLogger) Errorf(format string, v ...any)  { l.write(l.log.Error, format, v) }
func (l *natsLogger) Debugf(string, ...any)           {} // the server was not told to debug
func (l *natsLogger) Tracef(string, ...any)           {} // or to trace

// Fatalf is the server's last word. It does not end the process.
func (l *natsLogger) Fatalf(format string, v ...any) {
	l.write(l.log.Error, format, v)
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

func (l *natsLogger) write(log func(string, ...any), format string, v []any) {
	log("nats: " + fmt.Sprintf(format, v...))
}
