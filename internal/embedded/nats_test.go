package embedded

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startNATS(t *testing.T, cfg NATSConfig) *NATS {
	t.Helper()
	n, err := StartNATS(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func jetStream(t *testing.T, n *NATS) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect("", n.Option())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestNATSKeepsWhatItIsGiven(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]NATSConfig{
		"interval": {SyncInterval: 100 * time.Millisecond},
		"always":   {SyncAlways: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			cfg.StoreDir = filepath.Join(t.TempDir(), "made", "on", "demand")
			n := startNATS(t, cfg)
			js := jetStream(t, n)
			if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
				t.Fatal(err)
			}
			if _, err := js.Publish(ctx, "s", []byte("kept")); err != nil {
				t.Fatal(err)
			}
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}

			js = jetStream(t, startNATS(t, cfg))
			s, err := js.Stream(ctx, "S")
			if err != nil {
				t.Fatal(err)
			}
			if m, err := s.GetMsg(ctx, 1); err != nil || string(m.Data) != "kept" {
				t.Fatalf("after a restart: %v, %v", m, err)
			}
		})
	}
}

func TestNATSDoesNotListen(t *testing.T) {
	t.Parallel()
	if a := startNATS(t, NATSConfig{}).server.Addr(); a != nil {
		t.Errorf("it listens on %v", a)
	}
}

func TestNATSDirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := startNATS(t, NATSConfig{StoreDir: dir})
	_, err := StartNATS(NATSConfig{StoreDir: dir})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second start: %v, wanted ErrInUse that names %s", err, dir)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	startNATS(t, NATSConfig{StoreDir: dir})
}

func TestNATSTemporaryDirectoryIsRemoved(t *testing.T) {
	t.Parallel()
	n := startNATS(t, NATSConfig{})
	if _, err := os.Stat(n.temporary); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(n.temporary); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind: %v", n.temporary, err)
	}
}

func TestNATSBadConfig(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]NATSConfig{
		"negative interval": {SyncInterval: -1},
		"a file":            {StoreDir: file},
		"under a file":      {StoreDir: filepath.Join(file, "dir")},
	} {
		if n, err := StartNATS(cfg); err == nil {
			t.Errorf("%s: it started", name)
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestNATSStoreThatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// JetStream keeps its streams in a directory of this name.
	if err := os.WriteFile(filepath.Join(dir, "jetstream"), []byte("no directory"), 0o600); err != nil {
		t.Fatal(err)
	}
	n, err := StartNATS(NATSConfig{StoreDir: dir})
	if err == nil {
		t.Error("it started", n.Close())
	} else if !strings.Contains(err.Error(), "JetStream") || !strings.Contains(err.Error(), "store directory "+dir) {
		t.Errorf("error %q does not say what failed, and where", err)
	}
}
