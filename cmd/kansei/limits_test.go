package main

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

func TestRateLimit(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	w := n.mustDial("r", "")
	for i := range 6 {
		w.say(fmt.Sprintf(`{"type":"comment","ref":"%d","text":"x"}`, i))
	}
	answers := map[string]string{}
	var limited map[string]any
	for range 6 {
		m := w.next("ok", "error")
		answers[m["ref"].(string)] = m["type"].(string)
		if m["type"] == "error" {
			limited = m
		}
	}
	if len(answers) != 6 || answers["5"] != "error" || answers["4"] != "ok" {
		t.Errorf("answers %v", answers)
	}
	if ms, _ := limited["retry_ms"].(float64); limited["code"] != "rate_limited" || ms < 1 || ms > 1000 {
		t.Errorf("refused with %v", limited)
	}
}

// A room beyond its rate shows a sample and says so; the author of a comment gets it
// all the same.
func TestRoomRate(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--room-rate=5", "--rate-staff=10000", "--burst-staff=10000")
	staff := n.token("boss", protocol.RoleBroadcaster, "*")
	me := n.mustDial("r", "?token="+n.token("me", protocol.RoleViewer, "r"))
	you := n.mustDial("r", "?token="+n.token("you", protocol.RoleViewer, "r"))
	me.next("comments")
	you.next("comments")
	const comments = 300
	for i := range comments {
		user := "other"
		if i%3 == 0 {
			user = "me"
		}
		if status, body := n.do("POST", n.url+"/v1/rooms/r/comments", staff,
			fmt.Sprintf(`{"text":"%d","user":{"id":%q}}`, i, user)); status != 201 {
			t.Fatalf("POST: %d %s", status, body)
		}
	}
	count := func(c *wsConn) (items, mine, of int) {
		for of < comments {
			m := c.next("comments")
			list := m["items"].([]any)
			for _, it := range list {
				if it.(map[string]any)["user"].(map[string]any)["id"] == "me" {
					mine++
				}
			}
			items += len(list)
			if n, ok := m["of"].(float64); ok {
				of += int(n)
			} else {
				of += len(list)
			}
		}
		return items, mine, of
	}
	if items, mine, of := count(me); mine != comments/3 || items >= comments || of != comments {
		t.Errorf("I got %d comments, %d of my %d, of %d", items, mine, comments/3, of)
	}
	if items, mine, of := count(you); mine >= comments/3 || items >= comments || of != comments {
		t.Errorf("you got %d comments, %d of my %d, of %d", items, mine, comments/3, of)
	}
	if _, body := n.get(n.ops + "/metrics"); strings.Contains(body, `kansei_dropped_comments_total{reason="sampled"} 0`) {
		t.Error("the metric says that nothing was sampled out")
	}
}

// A viewer that reads nothing holds up nobody: while it is behind rounds go on, and
// whoever reads gets every comment.
func TestFrozenViewer(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--rate-staff=10000", "--burst-staff=10000", "--compress=false")
	staff := n.token("boss", protocol.RoleBroadcaster, "*")
	frozen, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = frozen.Close() }()
	_ = frozen.(*net.TCPConn).SetReadBuffer(4 << 10)
	if _, err := fmt.Fprintf(frozen, "GET /v1/rooms/r/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %s\r\n\r\n", protocol.Subprotocol); err != nil {
		t.Fatal(err)
	}
	other := n.mustDial("r", "")
	other.next("comments")
	n.counted("r", 2)
	behind := func() bool {
		_, body := n.get(n.ops + "/metrics")
		return strings.Contains(body, "\nkansei_slow_writers 1\n")
	}
	long := strings.Repeat("歓", 1000)
	for i, since := 0, -1; since < 0 || i < since+30; i++ {
		if i == 2000 {
			t.Fatal("a viewer that reads nothing is never behind")
		}
		if status, body := n.do("POST", n.url+"/v1/rooms/r/comments", staff, fmt.Sprintf(`{"text":%q}`, long)); status != 201 {
			t.Fatalf("POST: %d %s", status, body)
		}
		other.next("comments")
		if since < 0 && i%10 == 0 && behind() {
			since = i
		}
	}
	if !behind() {
		t.Error("it was not behind all the time")
	}
}

func TestSlowHeaders(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	c, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("GET /v1/rooms/r/ws HTTP/1.1\r\nHost: localhost\r\n")); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	buf := make([]byte, 512)
	for {
		if _, err := c.Read(buf); err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
				t.Error("a request whose headers never end is kept")
			}
			return
		}
	}
}

func TestFullNode(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-viewers=2")
	n.mustDial("r", "").next("welcome")
	n.mustDial("r", "").next("welcome")
	_, res, err := n.dial("r", "", nil)
	if err == nil || res == nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("a third viewer of two: %v %v", res, err)
	}
	if status, body := n.get(n.ops + "/readyz"); status != 503 || !strings.Contains(body, "full") {
		t.Errorf("readyz: %d %s", status, body)
	}
}
