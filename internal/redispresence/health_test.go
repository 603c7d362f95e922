package redispresence

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/internal/health"
	"github.com/kansei-live/kansei/test/ports"
)

// answer has a presence have been told once what it asks for at the start.
func (r *Presence) answer() {
	r.answered.Store(true)
	r.guard.told = true
	r.nodes.known = r.nodes.pins
}

// settle waits until a presence has been ready for a while.
func (r *Presence) settle(t *testing.T) {
	t.Helper()
	if err := r.Ready(); err != nil {
		t.Fatal(err)
	}
	r.health.Lock()
	r.health.well = r.health.well.Add(-settle * r.cfg.Interval)
	r.health.Unlock()
	if err := r.Ready(); err != nil {
		t.Fatal(err)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := newPresence(Config{Buckets: 4, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	refused := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for i, s := range []struct {
		answered bool // from here on
		bucket   int
		fails    int
		err      error
		ready    string // part of what Ready says; empty: nothing is wrong
	}{
		{false, sweeping, 0, nil, "no answer yet"}, // every bucket was in use: nobody was asked
		{false, sweeping, 1, refused, "refused"},
		{false, 2, 1, refused, "refused"},
		{false, 2, 2, refused, "redis does not answer; counts stand still: dial: connection refused"},
		{true, sweeping, 0, nil, "presence bucket 2 (1 of 4"},
		{true, 2, 0, nil, ""},
		{true, 3, 1, refused, ""}, // once is nothing
		{true, 3, 0, nil, ""},
		{true, 1, 1, refused, ""},
		{true, 1, 2, refused, "refused"},
		{true, 3, 0, nil, "refused"},
		{true, 1, 3, refused, "refused"},
		{true, recording, 3, refused, "redis: redis does not"},
		{true, recording, 0, nil, "presence bucket 1 (1 of 4"},
		{true, 1, 0, nil, ""},
	} {
		if s.answered {
			r.answer()
		}
		r.note(s.bucket, s.fails, s.err)
		err := r.Ready()
		if (err == nil) != (s.ready == "") || err != nil && (!strings.Contains(err.Error(), s.ready) || !strings.HasPrefix(err.Error(), "redis: ")) {
			t.Errorf("step %d: ready says %v, want %q", i, err, s.ready)
		}
		if err != nil && health.StateOf(err) != health.StateDegraded {
			t.Errorf("step %d: %v, and redis is away", i, health.StateOf(err))
		}
		if up := testutil.ToFloat64(r.metrics.up); (up == 1) != (err == nil) && s.answered {
			t.Errorf("step %d: kansei_redis_up is %v, ready says %v", i, up, err)
		}
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "redis answers") {
		t.Errorf("the log says\n%s", text)
	}
}

// TestFaults: what a fault at the start makes of a node, and what it is called.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		state health.State // of a node that was never well
		says  string
	}{
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, health.StateDegraded, "redis does not answer; "},
		{fmt.Errorf("get: %w", io.EOF), health.StateDegraded, "redis does not answer; "},
		{context.DeadlineExceeded, health.StateDegraded, "redis does not answer in time; "},
		{said("OOM command not allowed when used memory > 'maxmemory'."), health.StateDegraded, "give it more"},
		{said("LOADING Redis is loading the dataset in memory"), health.StateDegraded, "has just started"},
		{said("READONLY You can't write against a read only replica."), health.StateDegraded, "is a replica"},
		{said("ERR Error running script (call to f_1bf4): @user_script:29: @user_script: 29: -READONLY You can't write against a read only replica."), health.StateDegraded, "is a replica"},
		{said("CLUSTERDOWN Hash slot not served"), health.StateDegraded, "CLUSTERDOWN"},
		{said("ERR max number of clients reached"), health.StateDegraded, "max number of clients"},
		{errResyncs, health.StateDegraded, "again and again"},
		{said("WRONGPASS invalid username-password pair or user is disabled."), health.StateUnready, "--redis-user, --redis-password"},
		{fmt.Errorf("%w: %w", errSentinel, said("WRONGPASS invalid username-password pair or user is disabled.")), health.StateUnready, "--redis-sentinel-user, --redis-sentinel-password"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, health.StateUnready, "--redis-cert"},
		{said("NOAUTH Authentication required."), health.StateUnready, "--redis-user, --redis-password"},
		{said("NOPERM this user has no permissions to run the 'hset' command"), health.StateUnready, "docs/OPERATING.md"},
		{said("ERR The user executing the script can't run this command or subcommand script: 1af7, on @user_script:148."), health.StateUnready, "docs/OPERATING.md"},
		{said("MOVED 3999 127.0.0.1:6381"), health.StateUnready, "redis+cluster://"},
		{said("ERR unknown command 'EVALSHA'"), health.StateUnready, "counts stand still"},
		{fmt.Errorf("all sentinels: %w", redis.Nil), health.StateUnready, "master_name"},
		{fmt.Errorf("%w: tick: x", errAnswer), health.StateUnready, "proxy"},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, health.StateUnready, "rediss://"},
		{errors.New(`redis: can't parse map reply: "HTTP/1.1 400 Bad Request"`), health.StateUnready, "not Redis"},
	} {
		err := c.err
		if answers(err) {
			err = fmt.Errorf("redis answers: %w", err)
		}
		for _, was := range []bool{false, true} {
			r := newPresence(Config{Buckets: 4})
			want := c.state
			if was {
				r.answer()
				r.settle(t)
				want = health.StateDegraded // whatever it is, it came later
			}
			r.note(sweeping, 2, err)
			got := r.Ready()
			if health.StateOf(got) != want || !strings.Contains(got.Error(), c.says) || !strings.HasPrefix(got.Error(), "redis: ") {
				t.Errorf("%v, was well: %t: %v %v; want %v, %q", c.err, was, health.StateOf(got), got, want, c.says)
			}
			if answers(c.err) && strings.Contains(got.Error(), "does not answer") {
				t.Errorf("%v: it did answer: %v", c.err, got)
			}
		}
	}
}

// TestResyncsDoNotFlood: a Redis that loses keys all the time gets a line a minute, which says why.
func TestResyncsDoNotFlood(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := newPresence(Config{Buckets: 4, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	now := time.Unix(1_800_000_000, 0)
	r.now = func() time.Time { return now }
	for range 180 {
		r.resynced(1, resyncKeys)
		now = now.Add(time.Second)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[2], "reason=keys") || !strings.Contains(lines[2], "evicts or deletes") || !strings.Contains(lines[2], "left_out=59") {
		t.Errorf("%d lines:\n%s", len(lines), log.String())
	}
}

// TestWhatIsNotRedis: what a node says of addresses that lead to something else than they should.
func TestWhatIsNotRedis(t *testing.T) {
	t.Parallel()
	pages := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(pages.Close)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it
	secure.StartTLS()
	t.Cleanup(secure.Close)
	single, locked := dial(t, startProcess(t, ports.ForTest(t).Number)), dial(t, startProcess(t, ports.ForTest(t).Number))
	if err := locked.raw.Do(t.Context(), "ACL", "SETUSER", "default", "resetpass", ">s3cret").Err(); err != nil {
		t.Fatal(err)
	}
	host := func(url string) string { return url[strings.Index(url, "://")+3:] }
	for url, c := range map[string]struct {
		state health.State
		says  string
	}{
		"redis://127.0.0.1:1":                                       {health.StateDegraded, "does not answer"},
		"redis://" + host(pages.URL):                                {health.StateUnready, "is not Redis"},
		"redis+cluster://" + host(pages.URL):                        {health.StateUnready, "is not Redis"},
		"rediss://" + host(pages.URL):                               {health.StateUnready, "rediss://"},
		"rediss://" + host(secure.URL):                              {health.StateUnready, "certificate"},
		locked.url:                                                  {health.StateUnready, "NOAUTH"},
		"redis://:wr0ng@" + host(locked.url):                        {health.StateUnready, "WRONGPASS"},
		"redis://" + host(single.url) + "/99":                       {health.StateUnready, "DB index"},
		"redis+cluster://" + host(single.url):                       {health.StateUnready, "cluster support disabled"},
		"redis+sentinel://" + host(single.url) + "/0?master_name=m": {health.StateUnready, "unknown command"},
	} {
		client, err := Connect(url)
		if err != nil {
			t.Fatal(err)
		}
		n := &node{line: &line{}, metrics: NewMetrics(nil)}
		n.Presence = New(Config{Client: client, Buckets: 1, Interval: testInterval, Lease: testLease})
		eventually(t, url, func() error {
			if err := says(n, c.says); err != nil {
				return err
			}
			if got := health.StateOf(n.Ready()); got != c.state {
				return fmt.Errorf("it is %v", got)
			}
			if strings.Contains(n.Ready().Error(), "wr0ng") {
				return errors.New("it says the password")
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_ = n.Close(ctx) // nothing was written
		cancel()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
}
