package natslog

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/quiet"
)

// An outage is one line when it begins, one a minute while it lasts, one when it is over,
// whatever each attempt tells.
func TestOutageIsToldOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out lines
		l := &Log{log: out.debug(), quiet: quiet.New(out.debug())}
		attempts := func(d time.Duration) {
			for i := range int(d / (100 * time.Millisecond)) {
				time.Sleep(100 * time.Millisecond)
				l.logFailed(fmt.Errorf("dial tcp 10.0.0.1:%d: connection refused", 1000+i))
			}
		}
		attempts(90 * time.Second) // a start without NATS
		if n := len(out.with("NATS cannot be reached")); n != 2 {
			t.Errorf("a start without NATS has %d lines in 90 s:\n%s", n, &out)
		}
		l.logBack("nats://a:4222")
		if back := out.with("connected to NATS"); len(back) != 1 || !strings.Contains(back[0], "attempts=900") {
			t.Errorf("the end: %q", back)
		}
		time.Sleep(time.Hour)
		l.logLost(errors.New("read tcp 10.0.0.2:4711: connection reset"))
		attempts(50 * time.Second)
		if n := len(out.with("NATS cannot be reached")); n != 2 {
			t.Errorf("the first minute of an outage has %d lines more:\n%s", n-2, &out)
		}
		attempts(150 * time.Second)
		if n := len(out.with("NATS cannot be reached")); n != 5 {
			t.Errorf("200 s of an outage have %d lines more:\n%s", n-2, &out)
		}
		l.logBack("nats://a:4222")
		if lost, back := out.with("is lost"), out.with("connected to NATS"); len(lost) != 1 || len(back) != 2 || !strings.Contains(back[1], "after=3m20s") {
			t.Errorf("lost %q, back %q", lost, back)
		}
		// One that comes and goes all the time.
		before := strings.Count(out.String(), "\n")
		for range 600 {
			l.logLost(errors.New("EOF"))
			time.Sleep(50 * time.Millisecond)
			l.logFailed(errors.New("EOF"))
			l.logBack("nats://a:4222")
			time.Sleep(50 * time.Millisecond)
		}
		if n := strings.Count(out.String(), "\n") - before; n > 60 {
			t.Errorf("a connection that comes and goes for a minute has %d lines", n)
		}
	})
}

// The same with servers that go away for some seconds, and with what is said meanwhile:
// who says it is told at once, and the log gives the reason.
func TestOutageOfServers(t *testing.T) {
	t.Parallel()
	dir, ports := t.TempDir(), freePorts(t, 3)
	s := startServer(t, dir, ports[0])
	var out lines
	var servers []string
	for _, p := range ports {
		servers = append(servers, fmt.Sprintf("nats://127.0.0.1:%d", p))
	}
	l := openReady(t, Config{URLs: servers, Logger: out.debug()})
	mustAppend(t, l, "r", "a")
	stopServer(s)
	eventually(t, 10*time.Second, "it is lost", func() error {
		if len(out.with("is lost")) == 0 {
			return errors.New("no line")
		}
		return nil
	})
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if a := appendAll(t, l, "r", draft1("b"))[0]; !errors.Is(a.err, hub.ErrUnavailable) {
			t.Fatalf("append: %v", a.err)
		}
	}
	startServer(t, dir, ports[0])
	waitReady(t, l)
	mustAppend(t, l, "r", "c")
	for what, most := range map[string]int{
		"the connection to NATS is lost": 1, "NATS cannot be reached": 0, "connected to NATS": 2, "was not stored": 1,
	} {
		if n := len(out.with(what)); n > most || n == 0 && most > 0 {
			t.Errorf("%d lines of %q, wanted %d:\n%s", n, what, most, &out)
		}
	}
	if said := out.with("was not stored"); len(said) == 1 && !strings.Contains(said[0], "not connected") {
		t.Errorf("of an append that failed the log says %s", said[0])
	}
}

// Appends that were refused at once are logged with the reason, one of them every 10 s.
func TestRefusedAppendsAreLogged(t *testing.T) {
	t.Parallel()
	var out lines
	l := open(t, Config{URLs: []string{fmt.Sprintf("nats://127.0.0.1:%d", freePorts(t, 1)[0])}, Logger: out.debug()})
	began := time.Now()
	for range 100 {
		if a := appendAll(t, l, "r", draft1("a"))[0]; !errors.Is(a.err, hub.ErrUnavailable) {
			t.Fatal(a.err)
		}
	}
	most := 1 + int(time.Since(began)/complainEvery)
	if said := out.with("was not stored"); len(said) < 1 || len(said) > most || !strings.Contains(said[0], "not connected") {
		t.Errorf("wanted 1 line:\n%s", strings.Join(said, ""))
	}
}

// Neither a token nor a password of an address is shown, whether a server is there or not,
// and whether it lets the node in or not.
func TestTokensAreNotShown(t *testing.T) {
	t.Parallel()
	const token, password = "S3CR3TTOKEN", "s3cr3t%2Fp@ss,w"
	port := freePorts(t, 1)[0]
	for name, c := range map[string]struct {
		url     string
		options server.Options
	}{
		"a token":    {fmt.Sprintf("nats://%s@127.0.0.1:%d", token, port), server.Options{Authorization: token}},
		"a password": {fmt.Sprintf("nats://ann:s3cr3t%%252Fp%%40ss%%2Cw@127.0.0.1:%d", port), server.Options{Username: "ann", Password: password}},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: they have the same port
			var out lines
			safe := func(what, text string) {
				t.Helper()
				for _, secret := range []string{token, password, "s3cr3t", "S3CR3T", "p@ss", "p%40ss"} {
					if strings.Contains(text, secret) {
						t.Errorf("%s has %q:\n%s", what, secret, text)
					}
				}
			}
			none := fmt.Sprintf("nats://%s@127.0.0.1:%d", token, freePorts(t, 1)[0])
			l := open(t, Config{URLs: []string{c.url, none}, Logger: out.debug()})
			readySays(t, l, "not connected to nats://***@127.0.0.1:", "refused")
			safe("Ready", l.Ready().Error())
			safe("an append", appendAll(t, l, "r", draft1("a"))[0].err.Error())
			wrong := startServerWith(t, t.TempDir(), port, server.Options{Authorization: "another one"})
			readySays(t, l, "uthorization")
			safe("Ready", l.Ready().Error())
			stopServer(wrong)
			s := startServerWith(t, t.TempDir(), port, c.options)
			waitReady(t, l)
			stopServer(s)
			readySays(t, l, "not connected")
			safe("Ready", l.Ready().Error())
			closeLog(t, l)
			safe("the log", out.String())
			if len(out.with("connected to NATS")) == 0 {
				t.Errorf("the log says nothing:\n%s", &out)
			}
		})
	}
	for _, bad := range []string{"nats://S3CR3TTOKEN@", "nats://ann:S3CR3T%zz@a", "nats://ann:S3CR3T/x@a", "S3CR3TTOKEN@"} {
		if _, err := Open(Config{URLs: []string{bad}, Logger: slog.New(slog.DiscardHandler)}); err == nil || strings.Contains(err.Error(), "S3CR3T") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
