package natslog

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kansei-live/kansei/hub"
)

// An outage of servers is told in few lines. What is said meanwhile is refused at once, and the log
// gives the reason.
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
