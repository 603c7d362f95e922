package natslog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
)

// tableView is what a node was told of the table.
type tableView struct {
	mu    sync.Mutex
	all   map[string]string
	anews int
}

func viewTable(l *Log) *tableView {
	v := &tableView{all: map[string]string{}}
	l.Table().Follow(func(entries []Entry, anew bool) {
		v.mu.Lock()
		defer v.mu.Unlock()
		if anew {
			clear(v.all)
			v.anews++
		}
		for _, e := range entries {
			v.all[e.Name] = string(e.Body)
		}
	})
	return v
}

func (v *tableView) wait(t *testing.T, within time.Duration, want map[string]string) {
	t.Helper()
	eventually(t, within, "the table", func() error {
		v.mu.Lock()
		defer v.mu.Unlock()
		if !maps.Equal(v.all, want) {
			return fmt.Errorf("%d entries: %v", len(v.all), slices.Sorted(maps.Keys(v.all)))
		}
		return nil
	})
}

// What one node writes all nodes have within a second, and after a restart; the last of a name
// counts. A table that is deleted is empty.
func TestTable(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	ctx := testContext(t)
	one, two := openReady(t, Config{URLs: urls(s)}), openReady(t, Config{URLs: urls(s)})
	a, b := viewTable(one), viewTable(two)
	eventually(t, 5*time.Second, "without a stream there is nothing to wait for", one.Table().Ready)
	want := map[string]string{}
	put := func(l *Log, name, body string) {
		t.Helper()
		if err := l.Table().Put(ctx, Entry{name, []byte(body)}); err != nil {
			t.Fatal(err)
		}
		want[name] = body
	}
	put(one, "key.a", `{"n":1}`)
	a.wait(t, 100*time.Millisecond, want) // whoever has written it knows it at once
	b.wait(t, time.Second+tablePoll, want)
	put(two, "key.a", `{"n":2}`)
	put(two, "revoked.user.x", `{}`)
	b.wait(t, 100*time.Millisecond, want)
	a.wait(t, time.Second, want)
	for i := range 600 {
		put(one, fmt.Sprint("revoked.jti.", i), "{}")
	}
	b.wait(t, 2*time.Second, want)
	viewTable(openReady(t, Config{URLs: urls(s)})).wait(t, 5*time.Second, want)

	alone, err := OpenTable(Config{URLs: urls(s)})
	if err != nil {
		t.Fatal(err)
	}
	defer alone.Close()
	eventually(t, 5*time.Second, "a command writes", func() error { return alone.Put(ctx, Entry{"key.b", []byte("{}")}) })
	want["key.b"] = "{}"
	a.wait(t, time.Second, want)

	if err := one.Table().Put(ctx, Entry{"key.c", make([]byte, maxEntry+1)}); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a large entry: %v", err)
	}
	if err := jetStream(t, s.ClientURL()).DeleteStream(ctx, "KANSEI_CONFIG"); err != nil {
		t.Fatal(err)
	}
	a.wait(t, 2*tableCheck, map[string]string{})
	clear(want)
	put(two, "key.d", "{}")
	a.wait(t, 2*time.Second, want)
}

// Without NATS nothing is written, and who asks is told within the time for a request.
func TestTableWithoutNATS(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), RequestTimeout: 500 * time.Millisecond})
	s.Shutdown()
	ctx, cancel := context.WithTimeout(testContext(t), 5*time.Second)
	defer cancel()
	if err := l.Table().Put(ctx, Entry{"key.a", []byte("{}")}); !errors.Is(err, hub.ErrUnavailable) && !errors.Is(err, hub.ErrUnknownOutcome) {
		t.Errorf("without NATS: %v", err)
	}
	unread, err := Open(Config{URLs: []string{"nats://127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unread.Close(ctx) }()
	viewTable(unread)
	eventually(t, 5*time.Second, "it is not read", func() error {
		if err := unread.Table().Ready(); err == nil || !strings.Contains(err.Error(), "not connected") {
			return fmt.Errorf("ready: %w", err)
		}
		return nil
	})
}

// A read that fails on the way loses nothing of what it has read.
func TestTableReadIsCutShort(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	ctx := testContext(t)
	one, two := openReady(t, Config{URLs: urls(s)}), openReady(t, Config{URLs: urls(s)})
	told := map[string]bool{}
	table := two.Table()
	table.told = func(entries []Entry, anew bool) { // this goroutine reads
		if anew {
			clear(told)
		}
		for _, e := range entries {
			told[e.Name] = true
		}
	}
	put := func(n int) {
		t.Helper()
		for i := range 200 {
			if err := one.Table().Put(ctx, Entry{fmt.Sprint("revoked.jti.", n, ".", i), []byte("{}")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(1)
	cut := 0
	read := func(want int) {
		t.Helper()
		for end, limit := time.Now().Add(20*time.Second), 3*time.Millisecond; len(told) < want; limit += time.Millisecond {
			if time.Now().After(end) {
				t.Fatalf("told of %d entries, want %d; %d reads were cut short", len(told), want, cut)
			}
			short, cancel := context.WithTimeout(ctx, limit)
			if table.Read(short) != nil {
				cut++
			}
			cancel()
		}
	}
	if err := table.Read(ctx); err != nil || len(told) != 200 {
		t.Fatalf("told of %d entries, %v", len(told), err)
	}
	put(2)
	read(400)
	table.epoch = "" // as for another stream, whose first reading is cut short, too
	clear(told)
	read(400)
	if cut == 0 {
		t.Error("no read was cut short")
	}
}
