package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
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

// What the log has taken is not judged again when it is said again, over a socket and
// over HTTP: neither the rate nor another name under another token is in its way.
func TestRetryIsNotJudgedAgain(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--rate=0.001", "--burst=1")
	w, see := n.mustDial("r", ""), n.mustDial("r", "")
	known := func(text string) {
		for !slices.Contains(texts(see.next("comments")), text) {
		}
	}
	w.say(`{"type":"comment","ref":"1","text":"x"}`)
	id := w.next("ok")["id"]
	known("x")
	w.say(`{"type":"comment","ref":"1","text":"x"}`)
	if m := w.next("ok", "error"); m["type"] != "ok" || m["id"] != id {
		t.Errorf("said again: %v, not ok with %v", m, id)
	}
	w.say(`{"type":"comment","ref":"1","text":"y"}`)
	if m := w.next("ok", "error"); m["code"] != "rate_limited" {
		t.Errorf("another comment under the ref: %v", m)
	}

	const post = `{"ref":"1","text":"from a back end"}`
	status, first := n.do("POST", n.url+"/v1/rooms/r/comments", n.token("u", protocol.RoleViewer, "r"), post)
	if status != 201 {
		t.Fatalf("POST: %d %s", status, first)
	}
	known("from a back end")
	renamed, err := auth.Mint([]byte(testSecret), auth.Claims{Subject: "u", Name: "another name", Role: protocol.RoleViewer, Rooms: []string{"r"}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if status, again := n.do("POST", n.url+"/v1/rooms/r/comments", renamed, post); status != 201 || again != first {
		t.Errorf("POST again: %d %s, not 201 %s", status, again, first)
	}
}

// A room beyond its rate shows a sample and says so; the author of a comment gets it
// all the same.
func TestRoomRate(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--room-rate=5", "--rate-staff=10000", "--burst-staff=10000")
	staff := n.publisher("boss", protocol.RoleBroadcaster, "*")
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

// Those who are refused and do nothing about it keep no viewer out.
func TestRefusedAreNoViewers(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-viewers=2")
	for range 100 {
		c, err := net.Dial("tcp", strings.TrimPrefix(n.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := fmt.Fprintf(c, "GET /v1/rooms/r/ws?token=bad HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: %s\r\n\r\n", protocol.Subprotocol); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	n.mustDial("r", "").next("welcome")
	n.mustDial("r", "").next("welcome")
}

// Whoever reads any number of rooms opens no more than may be read, leaves nothing
// behind in those that do not exist, and keeps no viewer out.
func TestReadRooms(t *testing.T) {
	t.Parallel()
	const limit = 20
	n := runNode(t, fmt.Sprint("--max-read-rooms=", limit), "--recent=5")
	token := n.token("boss", protocol.RoleBroadcaster, "*")
	open := func(rooms int) {
		t.Helper()
		body := ""
		for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			if _, body = n.get(n.ops + "/metrics"); strings.Contains(body, fmt.Sprintf("\nkansei_rooms %d\n", rooms)) {
				return
			}
		}
		t.Fatalf("not %d rooms: %s", rooms, regexp.MustCompile(`(?m)^kansei_rooms.*$`).FindString(body))
	}
	for i := range 100 {
		if status, body := n.get(fmt.Sprintf("%s/v1/rooms/none-%d/comments", n.url, i)); status != 200 {
			t.Fatalf("%d %s", status, body)
		}
	}
	if status, body := n.get(n.url + "/v1/rooms/none"); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	open(0)
	for i := range limit {
		path := fmt.Sprintf("%s/v1/rooms/said-%d/comments", n.url, i)
		if status, body := n.do("POST", path, token, `{"text":"x"}`); status != 201 {
			t.Fatalf("POST: %d %s", status, body)
		}
	}
	open(0)
	for i := range limit {
		path := fmt.Sprintf("%s/v1/rooms/said-%d/comments", n.url, i)
		if status, body := n.get(path); status != 200 || !strings.Contains(body, `"x"`) {
			t.Fatalf("%d %s", status, body)
		}
	}
	for _, path := range []string{"", "/comments"} {
		res, err := http.Get(n.url + "/v1/rooms/other" + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != 503 || res.Header.Get("Retry-After") != "1" {
			t.Errorf("one room more: %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
		}
	}
	if status, body := n.do("POST", n.url+"/v1/rooms/other/comments", token, `{"text":"x"}`); status != 201 {
		t.Errorf("POST: %d %s", status, body)
	}
	w := n.mustDial("viewers", "")
	w.next("comments")
	if status, body := n.get(n.url + "/v1/rooms/viewers"); status != 200 {
		t.Errorf("a room with viewers: %d %s", status, body)
	}
	open(1)
}

func TestFullNode(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-viewers=2", "--max-egress=1000000")
	n.mustDial("r", "").next("welcome")
	n.mustDial("r", "").next("welcome")
	if _, body := n.get(n.ops + "/metrics"); !strings.Contains(body, "\nkansei_max_viewers 2\n") || !strings.Contains(body, "\nkansei_max_egress_bytes 1e+06\n") {
		t.Error("the limits are in no metric")
	}
	_, res, err := n.dial("r", "", nil)
	if err == nil || res == nil || res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
		t.Errorf("a third viewer of two: %v %v", res, err)
	}
	if status, body := n.get(n.ops + "/readyz"); status != 503 || !strings.Contains(body, "full") {
		t.Errorf("readyz: %d %s", status, body)
	}
}
