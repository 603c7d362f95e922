package natslog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// watched reads the batches of a room behind a sequence.
func watched(t testing.TB, l *Log, room string, after uint64) (all []string, seqs []uint64, upTo uint64) {
	t.Helper()
	upTo, err := l.Watched(testContext(t), room, after, time.Time{}, func(seq uint64, body []byte) error {
		all, seqs = append(all, string(body)), append(seqs, seq)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, seqs, upTo
}

// Batches are read in order, each once, from where one has read before; one is replaced by another one, and gone from the stream.
func TestWatchStream(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	if all, _, upTo := watched(t, l, "r", 0); len(all) != 0 || upTo != 0 {
		t.Errorf("before the first: %v up to %d", all, upTo)
	}
	if rooms, err := l.WatchedRooms(testContext(t)); err != nil || len(rooms) != 0 {
		t.Errorf("before the first: %v, %v", rooms, err)
	}
	var want []string
	for i := range 600 { // more than two reads
		body := fmt.Sprint("batch ", i)
		for range 1 + i%2 { // some twice
			if err := l.TellWatch(testContext(t), "r", fmt.Sprint("id ", i), []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 0 {
			if err := l.TellWatch(testContext(t), "other", fmt.Sprint("other ", i), []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		want = append(want, body)
	}
	all, seqs, upTo := watched(t, l, "r", 0)
	if fmt.Sprint(all) != fmt.Sprint(want) || upTo != seqs[len(seqs)-1] {
		t.Errorf("%d batches up to %d", len(all), upTo)
	}
	if rest, _, end := watched(t, l, "r", seqs[499]); fmt.Sprint(rest) != fmt.Sprint(want[500:]) || end != upTo {
		t.Errorf("%d batches behind the 500th, up to %d", len(rest), end)
	}
	if rooms, err := l.WatchedRooms(testContext(t)); err != nil || rooms["r"] != 600 || rooms["other"] != 200 || len(rooms) != 2 {
		t.Errorf("%v, %v", rooms, err)
	}
	// Since a time: as if there were no others.
	rec, err := l.watch.s.leaderGet(testContext(t), getRequest{Seq: seqs[400]})
	if err != nil {
		t.Fatal(err)
	}
	for since, least := range map[time.Time]int{time.UnixMilli(rec.at): 200, time.UnixMilli(rec.at - 3600_000): 600, time.UnixMilli(rec.at + 3600_000): 0} {
		n, first := 0, ""
		end, err := l.Watched(testContext(t), "r", 0, since, func(_ uint64, body []byte) error {
			if n++; n == 1 {
				first = string(body)
			}
			return nil
		})
		if err != nil || end != upTo || n < least || least == 0 && n > 0 || least == 200 && n > 300 {
			t.Errorf("since %v: %d batches from %s on, up to %d, %v", since, n, first, end, err)
		}
	}
	for range 2 { // the second time it is gone already
		if err := l.ReplaceWatched(testContext(t), "r", seqs[10], "replaced", []byte("instead")); err != nil {
			t.Fatal(err)
		}
	}
	all, _, _ = watched(t, l, "r", 0)
	if len(all) != 600 || all[10] != "batch 11" || all[599] != "instead" {
		t.Errorf("%d batches, the last %q", len(all), all[len(all)-1])
	}
	if _, err := l.Watched(testContext(t), "r", 0, time.Time{}, func(uint64, []byte) error { return errors.New("enough") }); err == nil {
		t.Error("what the reader says is not told")
	}
	if _, err := l.Watched(testContext(t), "*", 0, time.Time{}, func(uint64, []byte) error { return nil }); err == nil {
		t.Error("a pattern is no room")
	}
}

// A record is replaced by compare-and-set; one with a life ends; leases are in no list.
func TestArchiveStream(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	ctx := testContext(t)
	if body, rev, err := l.Archived(ctx, "r.1"); body != nil || rev != 0 || err != nil {
		t.Errorf("before the first: %s %d %v", body, rev, err)
	}
	put := func(key, body string, rev uint64) error { return l.PutArchived(ctx, key, []byte(body), rev, 0) }
	if err := put("r.1", "one", 0); err != nil {
		t.Fatal(err)
	}
	if err := put("r.1", "two", 0); !errors.Is(err, hub.ErrConflict) {
		t.Errorf("where there is one: %v", err)
	}
	_, rev, err := l.Archived(ctx, "r.1")
	if err != nil || rev == 0 {
		t.Fatal(rev, err)
	}
	if err := errors.Join(put("r.1", "two", rev), put("r.2", "x", 0), put("q.0-17", "y", 0)); err != nil {
		t.Fatal(err)
	}
	if body, _, err := l.Archived(ctx, "r.1"); string(body) != "two" || err != nil {
		t.Errorf("%s %v", body, err)
	}
	if err := l.PutArchived(ctx, "r.1.lease", []byte("w"), 0, time.Second); err != nil {
		t.Fatal(err)
	}
	keys, err := l.ArchivedKeys(ctx, "r")
	if err != nil || len(keys) != 2 {
		t.Errorf("%q %v", keys, err)
	}
	if keys, err = l.ArchivedKeys(ctx, "*"); err != nil || len(keys) != 3 {
		t.Errorf("%q %v", keys, err)
	}
	eventually(t, 10*time.Second, "the lease has lapsed", func() error {
		if _, rev, err := l.Archived(ctx, "r.1.lease"); err != nil || rev != 0 {
			return fmt.Errorf("%d %w", rev, err)
		}
		return nil
	})
	if err := l.PutArchived(ctx, "r.1.lease", []byte("v"), 0, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := l.ForgetArchived(ctx, "r.1.lease"); err != nil {
		t.Fatal(err)
	}
	if err := l.PutArchived(ctx, "r.1.lease", []byte("v"), 0, time.Minute); err != nil {
		t.Errorf("after it was given back: %v", err)
	}
}

// The batches of a room are read whole while the leader of their stream changes.
func TestWatchStreamChangesItsLeader(t *testing.T) {
	t.Parallel()
	l := openReady(t, Config{URLs: urls(startCluster(t, nil)...), Replicas: 3})
	stepDown := func() {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		// That there is no leader at the moment is no error.
		_, _ = natsconn.API[struct{}](ctx, l.conn, opInfo, "$JS.API.STREAM.LEADER.STEPDOWN."+l.watch.s.name, nil, nil)
	}
	write := func(i int) {
		eventually(t, 30*time.Second, "a batch is stored", func() error {
			return l.TellWatch(testContext(t), "r", fmt.Sprint("id ", i), []byte(fmt.Sprint(i)))
		})
	}
	const n = 400
	for i := range n {
		write(i)
		if i%100 == 50 {
			stepDown()
		}
	}
	stepDown()
	var all []string
	eventually(t, 30*time.Second, "all is read", func() error {
		all = nil
		_, err := l.Watched(testContext(t), "r", 0, time.Time{}, func(_ uint64, body []byte) error {
			if all = append(all, string(body)); len(all) == n/2 {
				stepDown()
			}
			return nil
		})
		if err == nil && len(all) != n {
			t.Errorf("%d batches without an error, want %d", len(all), n)
		}
		return err
	})
	for i := range all {
		if all[i] != fmt.Sprint(i) {
			t.Fatalf("batch %d is %s", i, all[i])
		}
	}
}

// Without the grants a node is ready, and says what it may not do.
func TestWatchLogIsNotGranted(t *testing.T) {
	t.Parallel()
	block, _ := documentedGrants(t)
	s := startGranted(t, 0, t.TempDir(), block)
	l := openReady(t, Config{URLs: []string{grantedURL(s)}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := l.TellWatch(ctx, "r", "id", []byte("x")); !errors.Is(err, hub.ErrUnavailable) || !strings.Contains(err.Error(), "kansei.watch.>") {
		t.Errorf("the error is %v", err)
	}
	if err := l.PutArchived(ctx, "r.1", []byte("x"), 0, 0); !errors.Is(err, hub.ErrUnavailable) || !strings.Contains(err.Error(), "kansei.archive.>") {
		t.Errorf("the error is %v", err)
	}
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
}
