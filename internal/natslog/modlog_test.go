package natslog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// entered are the entries of a room by pages of n, the latest first: ids and bodies.
func entered(t testing.TB, l *Log, room, whom string, n int) (all []string) {
	t.Helper()
	for before := uint64(0); ; {
		page, more, err := l.Entries(testContext(t), room, whom, before, n)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			all = append(all, e.ID+" "+string(e.Body))
			before = e.Seq
		}
		if !more {
			return all
		}
	}
}

func enter(t testing.TB, l *Log, room, whom, id, body string, undone bool) {
	t.Helper()
	if err := l.Enter(testContext(t), room, hub.LogEntry{ID: id, Whom: whom, Body: []byte(body)}, undone, time.Hour); err != nil {
		t.Fatal(err)
	}
}

// An act has one entry, whoever enters it how often: the last that it was undone. Pages have each of a room, or about a
// user, in order.
func TestLogOfModeration(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	a, b := openReady(t, Config{URLs: urls(s)}), openReady(t, Config{URLs: urls(s)})
	if got := entered(t, a, "r", "", 10); got != nil {
		t.Errorf("before the first: %q", got)
	}
	if e, err := a.Entered(testContext(t), "r", "x"); err != nil || e.Seq != 0 {
		t.Errorf("before the first: %+v, %v", e, err)
	}
	var want, ken []string
	for i := range 300 { // more than one read
		l, whom := a, ""
		if i%2 == 1 {
			l = b
		}
		if i%3 == 0 {
			whom = "ken"
		}
		id := fmt.Sprint("act", i)
		enter(t, l, "r", whom, id, "done", false)
		want = append([]string{id + " done"}, want...)
		if whom != "" {
			ken = append([]string{id + " done"}, ken...)
		}
	}
	enter(t, a, "other", "", "elsewhere", "done", false)
	enter(t, b, "r", "ken", "act0", "late", false) // by whoever finishes it
	for _, n := range []int{1, 7, 50, 299, 300, 1000} {
		if got := entered(t, b, "r", "", n); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("by %d: %q", n, got)
		}
		if got := entered(t, a, "r", "ken", n); fmt.Sprint(got) != fmt.Sprint(ken) {
			t.Errorf("about ken, by %d: %q", n, got)
		}
	}
	// Undone, it is the latest, and a late try of the act changes nothing.
	enter(t, b, "r", "ken", "act150", "undone", true)
	enter(t, a, "r", "ken", "act150", "done", false)
	got := entered(t, a, "r", "", 50)
	if len(got) != 300 || got[0] != "act150 undone" || strings.Contains(fmt.Sprint(got), "act150 done") {
		t.Errorf("undone: %d, %q", len(got), got[0])
	}
	if e, err := b.Entered(testContext(t), "r", "act150"); err != nil || string(e.Body) != "undone" || e.Whom != "ken" {
		t.Errorf("%+v, %v", e, err)
	}
	if got := entered(t, a, "other", "", 10); len(got) != 1 {
		t.Errorf("another room: %q", got)
	}
	// What a dry run has found is no entry, and ends.
	if err := a.KeepFound(testContext(t), "r", "found", []byte("f"), time.Second); err != nil {
		t.Fatal(err)
	}
	if p, err := b.Found(testContext(t), "r", "found"); err != nil || string(p) != "f" {
		t.Errorf("%s, %v", p, err)
	}
	if got := entered(t, a, "r", "", 1000); len(got) != 300 {
		t.Errorf("%d entries", len(got))
	}
	eventually(t, 20*time.Second, "it ends", func() error {
		if p, err := b.Found(testContext(t), "r", "found"); err != nil || p != nil {
			return fmt.Errorf("%s, %w", p, err)
		}
		return nil
	})
	st, err := jetStream(t, s.ClientURL()).Stream(testContext(t), "KANSEI_MODLOG")
	if err != nil {
		t.Fatal(err)
	}
	if c := st.CachedInfo().Config; c.Storage != jetstream.FileStorage || c.MaxMsgsPerSubject != 1 || c.MaxAge != 0 {
		t.Errorf("the stream is %+v", c)
	}
}

// In a cluster an entry that was stored is read by every node at once, whichever server answers, and entries go on when one is gone.
func TestLogOfModerationInACluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t, nil)
	a := openReady(t, Config{URLs: urls(servers[0]), Replicas: 3})
	b := openReady(t, Config{URLs: urls(servers[1], servers[2]), Replicas: 3})
	for i := range 50 {
		enterUntil(t, a, fmt.Sprint("act", i))
		if got := entered(t, b, "r", "", 5); len(got) != i+1 || got[0] != fmt.Sprintf("act%d done", i) {
			t.Fatalf("after %d: %q", i+1, got)
		}
	}
	stopServer(servers[2])
	enterUntil(t, a, "behind")
	eventually(t, 30*time.Second, "it is read", func() error {
		page, _, err := a.Entries(testContext(t), "r", "", 0, 5)
		if err != nil || page[0].ID != "behind" {
			return fmt.Errorf("%v, %w", page, err)
		}
		return nil
	})
}

// enterUntil enters an act of the room r, as whoever finishes acts does: until it is done.
func enterUntil(t *testing.T, l *Log, id string) {
	t.Helper()
	eventually(t, 60*time.Second, id+" is entered", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return l.Enter(ctx, "r", hub.LogEntry{ID: id, Body: []byte("done")}, false, 0)
	})
}

// Without the grant acts go on, and the log of moderation says that it cannot be kept.
func TestLogOfModerationIsNotGranted(t *testing.T) {
	t.Parallel()
	block, _ := documentedGrants(t)
	s := startGranted(t, 0, t.TempDir(), block)
	l := openReady(t, Config{URLs: []string{grantedURL(s)}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := l.Enter(ctx, "r", hub.LogEntry{ID: "a", Body: []byte("{}")}, false, 0); !errors.Is(err, hub.ErrUnavailable) || !strings.Contains(err.Error(), "kansei.modlog.>") {
		t.Errorf("the error is %v", err)
	}
	mustAppend(t, l, "r", "a")
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
	if page, more, err := l.Entries(ctx, "r", "", 0, 5); len(page) != 0 || more || err != nil {
		t.Errorf("%v, %t, %v", page, more, err)
	}
}
