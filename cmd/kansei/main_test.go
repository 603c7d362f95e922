package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/protocol"
)

func TestMain(m *testing.M) {
	logging.Disable() // as serve does
	goleak.VerifyTestMain(m)
}

const testSecret = "a secret of more than thirty-two bytes"

// syncBuffer is a log that tests can read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// parse returns the settings of kansei serve with these arguments.
func parse(t testing.TB, args ...string) config.Serve {
	t.Helper()
	var all commands
	p, err := config.NewParser(&all)
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"serve", "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0", "--auth-secret=" + testSecret,
		"--data-dir=" + t.TempDir(), "--drain=1s"}, args...)
	if _, err := p.Parse(args); err != nil {
		t.Fatal(err)
	}
	return all.Serve.Serve
}

type testNode struct {
	*node
	t    testing.TB
	logs *syncBuffer
}

// runNode starts a node in this process, which ends with the test.
func runNode(t testing.TB, args ...string) *testNode {
	t.Helper()
	n := runUnready(t, args...)
	n.ready()
	return n
}

// runUnready does not wait for it to be ready.
func runUnready(t testing.TB, args ...string) *testNode {
	t.Helper()
	logs := new(syncBuffer)
	n, err := start(context.Background(), parse(t, args...), slog.New(slog.NewTextHandler(logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := n.stop(ctx); err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Logf("the node's log:\n%s", logs)
		}
	})
	return &testNode{n, t, logs}
}

// ready waits until the node says that it is.
func (n *testNode) ready() {
	n.t.Helper()
	body := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		var status int
		if status, body = n.get(n.ops + "/readyz"); status == http.StatusOK {
			return
		}
	}
	n.t.Fatalf("not ready:\n%s", body)
}

func (n *testNode) get(url string) (int, string) {
	n.t.Helper()
	return n.do(http.MethodGet, url, "", "")
}

// do makes a request, with a token if there is one.
func (n *testNode) do(method, url, token, body string) (int, string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

func (n *testNode) token(user string, role protocol.Role, rooms ...string) string {
	n.t.Helper()
	return n.mint(auth.Claims{Subject: user, Name: user, Role: role, Rooms: rooms})
}

// publisher makes a token of somebody who may publish as anybody.
func (n *testNode) publisher(user string, role protocol.Role, rooms ...string) string {
	n.t.Helper()
	return n.mint(auth.Claims{Subject: user, Name: user, Role: role, Rooms: rooms, Can: []string{protocol.CanPublishAs}})
}

func (n *testNode) mint(c auth.Claims) string {
	n.t.Helper()
	t, err := auth.Mint([]byte(testSecret), c, time.Hour)
	if err != nil {
		n.t.Fatal(err)
	}
	return t
}

// wsConn is a client that knows nothing but WebSocket and JSON.
type wsConn struct {
	t testing.TB
	*websocket.Conn
}

// dial opens a WebSocket to a room; query begins with ? if it is not empty.
func (n *testNode) dial(room, query string, header http.Header) (*wsConn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(n.t.Context(), time.Minute)
	defer cancel()
	c, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(n.url, "http")+"/v1/rooms/"+room+"/ws"+query,
		&websocket.DialOptions{Subprotocols: []string{protocol.Subprotocol}, HTTPHeader: header})
	if err != nil {
		return nil, res, err
	}
	n.t.Cleanup(func() { _ = c.CloseNow() })
	return &wsConn{n.t, c}, res, nil
}

func (n *testNode) mustDial(room, query string) *wsConn {
	n.t.Helper()
	c, _, err := n.dial(room, query, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// say sends a text message.
func (c *wsConn) say(m string) {
	c.t.Helper()
	if err := c.Write(c.t.Context(), websocket.MessageText, []byte(m)); err != nil {
		c.t.Fatal(err)
	}
}

// next returns the next message of one of the types; without any, of all.
func (c *wsConn) next(types ...string) map[string]any {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	for {
		_, p, err := c.Read(ctx)
		if err != nil {
			c.t.Fatalf("waiting for %v: %v", types, err)
		}
		var m map[string]any
		if err := json.Unmarshal(p, &m); err != nil {
			c.t.Fatalf("%s: %v", p, err)
		}
		if len(types) == 0 {
			return m
		}
		for _, typ := range types {
			if m["type"] == typ {
				return m
			}
		}
	}
}

// nextOrClosed returns the next message; nil if the server closed the connection instead.
func (c *wsConn) nextOrClosed() map[string]any {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	_, p, err := c.Read(ctx)
	if websocket.CloseStatus(err) != -1 {
		return nil
	}
	var m map[string]any
	if err != nil || json.Unmarshal(p, &m) != nil {
		c.t.Fatalf("%s: %v", p, err)
	}
	return m
}

// closed waits for the close frame.
func (c *wsConn) closed() (websocket.StatusCode, string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	for {
		if _, _, err := c.Read(ctx); err != nil {
			e, ok := errors.AsType[websocket.CloseError](err)
			if !ok {
				c.t.Fatalf("no close frame: %v", err)
			}
			return e.Code, e.Reason
		}
	}
}
