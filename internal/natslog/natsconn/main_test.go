package natsconn

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/internal/quiet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lines is what a connection has logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// debug returns a logger that writes everything.
func (l *lines) debug() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// with returns the lines that hold a text.
func (l *lines) with(text string) (found []string) {
	for line := range strings.Lines(l.String()) {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

func (l *lines) count(text string) int { return len(l.with(text)) }

// startServer starts a server on a free port.
func startServer(t *testing.T, o server.Options) *server.Server {
	t.Helper()
	o.Host, o.Port, o.NoLog, o.NoSigs = "127.0.0.1", -1, true, true
	s, err := server.NewServer(&o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server does not start")
	}
	return s
}

// connected begins a connection, and waits until it is there.
func connected(t *testing.T, cfg Config) *Conn {
	t.Helper()
	cfg.Name, cfg.Inboxes, cfg.RequestTimeout = "test", "_INBOX.test", 5*time.Second
	cfg.Metrics = NewMetrics(prometheus.NewRegistry(), []string{opTest}, nil)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Quiet = quiet.New(cfg.Logger)
	cfg.Up, cfg.Down, cfg.Dropped = func() {}, func() {}, func(*nats.Subscription) {}
	if cfg.Violated == nil {
		cfg.Violated = func(Violation, error) bool { return false }
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx at the latest
		c.Run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		c.Close()
	})
	eventually(t, "it is connected", c.Ready)
	return c
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

const opTest = "test"

// apiAnswer is how JetStream refuses with a code.
func apiAnswer(code int) string {
	return fmt.Sprintf(`{"error":{"code":400,"err_code":%d,"description":"because"}}`, code)
}
