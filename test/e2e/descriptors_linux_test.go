package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
)

// metric is the value of a metric of a node; -1 if it is not there.
func metric(t *testing.T, e *localcluster.Edge, name string) float64 {
	t.Helper()
	_, body, err := fetch(e.Ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(body)
	if m == nil {
		return -1
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// operable fails the test unless the operators' pages answer, more often than a node has
// descriptors in reserve, and several at once.
func operable(t *testing.T, e *localcluster.Edge) {
	t.Helper()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 5 {
				for _, page := range []string{"/healthz", "/readyz", "/metrics"} {
					status, body, err := fetch(e.Ops + page)
					if err != nil || body == "" || status != http.StatusOK && page != "/readyz" {
						t.Errorf("%s: %d %.100s %v", page, status, body, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// newcomer asks to be let in; the status is that of who is not. Hanging is an error that is
// a timeout.
func newcomer(t *testing.T, e *localcluster.Edge) (*websocket.Conn, int, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), promptly)
	defer cancel()
	c, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(e.URL, "http")+"/v1/rooms/r/ws",
		&websocket.DialOptions{Subprotocols: []string{protocol.Subprotocol}, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}})
	if err != nil {
		status := 0
		if res != nil {
			status = res.StatusCode
		}
		return nil, status, err
	}
	c.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = c.CloseNow() })
	return c, http.StatusSwitchingProtocols, nil
}

// reads waits until a viewer gets a comment with a text.
func reads(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		_, p, err := c.Read(ctx)
		if err != nil {
			t.Fatalf("waiting for %q: %v", text, err)
		}
		if strings.Contains(string(p), fmt.Sprintf("%q", text)) {
			return
		}
	}
}

// say publishes a comment through one viewer, again until the log takes it.
func say(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()
	m := fmt.Appendf(nil, `{"type":"comment","ref":%q,"text":%q}`, text, text)
	if err := c.Write(t.Context(), websocket.MessageText, m); err != nil {
		t.Fatal(err)
	}
}

// connects opens a TCP connection to the public listener that asks for nothing.
func connects(t *testing.T, e *localcluster.Edge) {
	t.Helper()
	c, err := net.DialTimeout("tcp", strings.TrimPrefix(e.URL, "http://"), promptly)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
}

// limited is a program that runs kansei with a limit of open files.
func limited(t *testing.T, files int) string {
	t.Helper()
	name, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "kansei")
	text := fmt.Sprintf("#!/bin/sh\nulimit -n %d\nexec '%s' \"$@\"\n", files, name)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil { // #nosec G306 -- a program
		t.Fatal(err)
	}
	return script
}

// leave lowers the limit of open files of a process so that it can open only so many more,
// until restore is called.
func leave(t *testing.T, pid, more int) (restore func()) {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	taken := map[string]bool{}
	for _, f := range open {
		taken[f.Name()] = true
	}
	limit := 0
	for free := 0; free < more; limit++ {
		if !taken[strconv.Itoa(limit)] {
			free++
		}
	}
	var was unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(limit), Max: was.Max}, nil); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &was, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// A node takes no more connections than its limit of open files has room for, beside what
// it needs itself: full of viewers and of idle connections it answers newcomers and
// operators, serves who is in, and finds NATS and Redis again.
func TestFullOfConnections(t *testing.T) {
	t.Parallel()
	const files = 300
	c := start(t, localcluster.Config{Edges: 1, EdgeArgs: []string{"--guests=comment"}, Kansei: limited(t, files)})
	e := c.Edges[0]
	log, err := os.ReadFile(e.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"level=WARN", "limit of open files", "limit=300", "max_viewers=50000", "LimitNOFILE", "ulimit -n"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
	most := int(metric(t, e, "kansei_max_viewers"))
	if most < files/4 || most >= files {
		t.Fatalf("%d viewers of %d open files", most, files)
	}
	var viewers []*websocket.Conn
	for range most {
		v, status, err := newcomer(t, e)
		if err != nil {
			t.Fatalf("viewer %d of %d: %d %v", len(viewers)+1, most, status, err)
		}
		viewers = append(viewers, v)
	}
	for range files {
		connects(t, e)
	}
	for range 3 {
		if _, status, err := newcomer(t, e); err == nil || status != http.StatusServiceUnavailable {
			t.Errorf("a newcomer of a full node: %d %v", status, err)
		}
	}
	if status, body, err := fetch(e.Ops + "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "full") {
		t.Errorf("readyz: %d %s %v", status, body, err)
	}
	operable(t, e)
	say(t, viewers[0], "before")
	reads(t, viewers[most-1], "before")

	for _, n := range c.NATS {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, time.Minute, "NATS is away", func() bool { return metric(t, e, "kansei_nats_connected") == 0 })
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for _, n := range c.NATS {
		wg.Go(func() {
			if err := n.Restart(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		if err := c.Redis.Restart(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	eventually(t, time.Minute, "NATS and Redis are there again", func() bool {
		_, body, err := fetch(e.Ops + "/readyz")
		return err == nil && strings.Contains(body, "nats: ready") && strings.Contains(body, "redis: ready")
	})
	say(t, viewers[0], "after")
	reads(t, viewers[most-1], "after")
	if n := metric(t, e, `kansei_accept_errors_total{listener="public"}`); n != 0 {
		t.Errorf("%v connections could not be taken: the parts have more than the limit", n)
	}
}

// Where something else has used up the descriptors, operators are answered all the same,
// nobody hangs, and who is in stays.
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, "--guests=comment")
	e := c.Edges[0]
	first, _, err := newcomer(t, e)
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := newcomer(t, e)
	if err != nil {
		t.Fatal(err)
	}
	restore := leave(t, e.PID(), 4)
	for range 20 {
		connects(t, e)
	}
	operable(t, e)
	turnedAway := 0
	for i := 0; turnedAway < 3; i++ { // idle connections make room first
		if i == 200 {
			t.Fatal("everybody is let in")
		}
		if _, status, err := newcomer(t, e); err != nil {
			if errors.Is(err, context.DeadlineExceeded) || status != 0 && status != http.StatusServiceUnavailable {
				t.Fatalf("a newcomer: %d %v", status, err)
			}
			turnedAway++
		}
	}
	status, body, err := fetch(e.URL + "/v1/rooms/r")
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() || err == nil && status != http.StatusServiceUnavailable {
		t.Errorf("a reader: %d %s %v", status, body, err)
	}
	operable(t, e)
	if status, body, err := fetch(e.Ops + "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "no file descriptor left") {
		t.Errorf("readyz: %d %s %v", status, body, err)
	}
	if n := metric(t, e, `kansei_accept_errors_total{listener="public"}`); n < 1 {
		t.Errorf("%v accept errors", n)
	}
	if n := metric(t, e, `kansei_refused_total{reason="full"}`); n < 3 {
		t.Errorf("%v are refused because the node is full", n)
	}
	say(t, first, "inside")
	reads(t, second, "inside")
	log, err := os.ReadFile(e.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "a connection could not be taken"); n < 1 || n > 60 || !strings.Contains(string(log), "raise the limit (LimitNOFILE=") {
		t.Errorf("%d lines say so:\n%s", n, log)
	}

	restore()
	eventually(t, time.Minute, "the node is ready again", func() bool {
		status, _, _ := fetch(e.Ops + "/readyz")
		return status == http.StatusOK
	})
	third, _, err := newcomer(t, e)
	if err != nil {
		t.Fatal(err)
	}
	say(t, third, "again")
	reads(t, first, "again")
}
