package embedded

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"
)

// unsynced is how many pages of the messages in a store are not on the disk; false when
// the system does not tell.
func unsynced(t *testing.T, dir string) (pages uint64, known bool) {
	t.Helper()
	known = true
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".blk") {
			return err
		}
		f, err := os.Open(path) // #nosec G304 -- of the test's own store
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		var stat unix.Cachestat_t
		err = unix.Cachestat(uint(f.Fd()), &unix.CachestatRange{}, &stat, 0)
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPERM) {
			known, err = false, nil
		}
		pages += stat.Dirty + stat.Writeback
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pages, known
}

// What the settings say reaches the files of every stream: with an interval they are on
// the disk within it, long before the system would write them by itself (30 s), and with
// always before they are acknowledged. A system that does not tell (before Linux 6.5, or a
// file system in memory) shows no page that is not there.
func TestNATSSyncsItsFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg NATSConfig
		at  time.Duration // when all must be on the disk; 0: not for long
	}{
		"the default": {NATSConfig{}, 2 * time.Second},
		"interval":    {NATSConfig{SyncInterval: 200 * time.Millisecond}, time.Second},
		"always":      {NATSConfig{SyncAlways: true}, time.Nanosecond},
		"seldom":      {NATSConfig{SyncInterval: time.Hour}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			n := startNATS(t, c.cfg)
			js := jetStream(t, n)
			for _, stream := range []string{"A", "B"} {
				if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: stream, Subjects: []string{stream}}); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				for _, stream := range []string{"A", "B"} {
					if _, err := js.Publish(ctx, stream, make([]byte, 5000)); err != nil {
						t.Fatal(err)
					}
				}
				wrote := time.Now()
				pages, known := unsynced(t, n.dir)
				if !known {
					t.Log("this system does not tell")
					return
				}
				if c.at == 0 {
					t.Logf("%d pages are not on the disk", pages)
					continue
				}
				for ; pages > 0; pages, _ = unsynced(t, n.dir) {
					if took := time.Since(wrote); took > c.at+5*time.Second { // the machine may be busy
						t.Fatalf("%d pages are not on the disk after %v", pages, took)
					}
					if c.cfg.SyncAlways {
						t.Fatalf("%d pages are not on the disk, and were acknowledged", pages)
					}
					time.Sleep(10 * time.Millisecond)
				}
				t.Logf("on the disk after %v", time.Since(wrote).Round(time.Millisecond))
			}
		})
	}
}
