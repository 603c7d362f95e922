//go:build unix

package embedded

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A store that cannot be written, here because no file may become larger, is opened anew
// when it can be: what was acknowledged is there, and it takes more.
func TestNATSIsMended(t *testing.T) {
	// Not parallel: the limit is the process's.
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	n := startNATS(t, NATSConfig{})
	js := jetStream(t, n)
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	if err != nil {
		t.Fatal(err)
	}
	publish := func() (uint64, error) {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		ack, err := js.Publish(ctx, "s", []byte(strings.Repeat("x", 50_000)))
		if err != nil {
			return 0, err
		}
		return ack.Sequence, nil
	}
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	limit := was
	limit.Cur = 300_000
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	raise := func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Error(err)
		}
	}
	defer raise()
	last := uint64(0)
	for {
		seq, err := publish()
		if err != nil {
			break
		}
		if last = seq; last > 100 {
			t.Fatal("the limit does nothing")
		}
	}
	if last == 0 {
		t.Fatal("nothing was taken")
	}
	// It stays readable meanwhile, and takes nothing.
	time.Sleep(time.Second)
	if _, err := stream.GetMsg(ctx, last); err != nil {
		t.Errorf("what was acknowledged cannot be read: %v", err)
	}
	if seq, err := publish(); err == nil {
		t.Errorf("taken at %d, beyond the limit", seq)
	}
	raise()
	var seq uint64
	for end := time.Now().Add(30 * time.Second); seq == 0; time.Sleep(100 * time.Millisecond) {
		if seq, err = publish(); err != nil && time.Now().After(end) {
			t.Fatalf("not mended: %v", err)
		}
	}
	for want := uint64(1); want <= last; want++ {
		if _, err := stream.GetMsg(ctx, want); err != nil {
			t.Errorf("what was acknowledged at %d is lost: %v", want, err)
		}
	}
	if seq <= last {
		t.Errorf("what came after was put at %d, before %d", seq, last)
	}
	if why := n.ill(); why != nil {
		t.Errorf("it is ill: %v", why)
	}
}

// A server whose JetStream is disabled, as NATS does when the disk is full, is replaced.
func TestNATSIsReplaced(t *testing.T) {
	t.Parallel()
	n := startNATS(t, NATSConfig{})
	js := jetStream(t, n)
	if err := n.server.ShutdownJetStream(); err != nil {
		t.Fatal(err)
	}
	n.server.Errorf("JetStream out of resources, will be DISABLED") // the server's own words
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// A link in the store does not choose which file is overwritten.
func TestNATSFollowsNoLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "store")
	n := startNATS(t, NATSConfig{StoreDir: store})
	if err := os.Symlink(victim, filepath.Join(store, mendFile)); err != nil {
		t.Fatal(err)
	}
	if err := n.room(); err != nil {
		t.Errorf("the disk takes nothing: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(store, mendFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left behind: %v", mendFile, err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(store, natsLockFile)
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, lock); err != nil {
		t.Fatal(err)
	}
	if n, err := StartNATS(NATSConfig{StoreDir: store}); err == nil {
		t.Error("it locks what a link leads to", n.Close())
	}
	if p, err := os.ReadFile(victim); err != nil || string(p) != "precious" {
		t.Errorf("the link's target holds %q, %v", p, err)
	}
}

// The log is for this user alone.
func TestNATSStoreIsPrivate(t *testing.T) {
	t.Parallel()
	store := filepath.Join(t.TempDir(), "made", "on", "demand")
	startNATS(t, NATSConfig{StoreDir: store})
	for path, want := range map[string]os.FileMode{store: 0o700, filepath.Dir(store): 0o700, filepath.Join(store, natsLockFile): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}
