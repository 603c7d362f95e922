package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

// texts returns the texts in a comments message.
func texts(m map[string]any) []string {
	var out []string
	items, _ := m["items"].([]any)
	for _, it := range items {
		out = append(out, it.(map[string]any)["text"].(string))
	}
	return out
}

func TestCommentReachesEverybody(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	alice := n.mustDial("r", "?token="+n.token("alice", protocol.RoleViewer, "r"))
	w := alice.next()
	if w["type"] != "welcome" || w["v"] != 1.0 || w["room"] != "r" || w["recovered"] != false {
		t.Errorf("the first message is %v", w)
	}
	if s := alice.next(); s["type"] != "state" || s["status"] != "live" {
		t.Errorf("the second message is %v", s)
	}
	bob := n.mustDial("r", "") // a guest
	bob.next("comments")
	alice.say(`{"type":"comment","ref":"1","text":"こんにちは 👋🏽","media_ms":1500,"style":{"color":"red","size":"big"}}`)
	ok := alice.next("ok")
	got := bob.next("comments")
	item := got["items"].([]any)[0].(map[string]any)
	if ok["id"] != item["id"] || item["text"] != "こんにちは 👋🏽" || item["media_ms"] != 1500.0 {
		t.Errorf("ok %v, item %v", ok, item)
	}
	if style := item["style"].(map[string]any); style["color"] != "#ff0000" || style["size"] != "big" {
		t.Errorf("style %v", style)
	}
	if user := item["user"].(map[string]any); user["id"] != "alice" || user["role"] != nil {
		t.Errorf("user %v", user)
	}
	// Again with the same ref: the same comment.
	alice.say(`{"type":"comment","ref":"1","text":"こんにちは 👋🏽","media_ms":1500,"style":{"color":"red","size":"big"}}`)
	if again := alice.next("ok"); again["id"] != ok["id"] {
		t.Errorf("the same ref made %v, before %v", again, ok)
	}
	alice.say(`{"type":"beat","visible":true}`)
	if b := alice.next("beat"); b["now"] == nil {
		t.Errorf("beat %v", b)
	}
	n.counted("r", 2)
	carol := n.mustDial("r", "") // a newcomer is told, and told again when it is counted
	for v := carol.next("viewers"); v["connections"] != 3.0 || v["users"] != 3.0; v = carol.next("viewers") {
	}
}

// counted waits until so many connections of a room are counted, and returns what GET
// says of it.
func (n *testNode) counted(room string, connections int) protocol.Room {
	n.t.Helper()
	var got protocol.Room
	body := ""
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		_, body = n.get(n.url + "/v1/rooms/" + room)
		got = protocol.Room{}
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			n.t.Fatalf("GET room: %s: %v", body, err)
		}
		if got.Viewers != nil && got.Viewers.Connections == connections {
			return got
		}
	}
	n.t.Fatalf("not %d connections: %s", connections, body)
	return got
}

func TestPostGetPut(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	staff := n.publisher("boss", protocol.RoleBroadcaster, "*")
	room := n.url + "/v1/rooms/r"
	viewer := n.mustDial("r", "")
	viewer.next("comments")
	if status, body := n.do("POST", room+"/comments", staff, `{"text":"from a back end","ref":"7","user":{"id":"u9","name":"\u202eNine\n"}}`); status != 201 || !strings.Contains(body, `"id":`) {
		t.Fatalf("POST: %d %s", status, body)
	}
	if got := texts(viewer.next("comments")); fmt.Sprint(got) != "[from a back end]" {
		t.Errorf("the viewer got %v", got)
	}
	status, body := n.get(room + "/comments")
	if status != 200 || !strings.Contains(body, "from a back end") || !strings.Contains(body, `"name":"Nine"`) {
		t.Errorf("GET comments: %d %s", status, body)
	}
	if status, body := n.do("PUT", room, staff, `{"rev":0,"status":"scheduled","title":"発表会"}`); status != 200 {
		t.Errorf("PUT: %d %s", status, body)
	}
	if s := viewer.next("state"); s["status"] != "scheduled" || s["title"] != "発表会" {
		t.Errorf("state %v", s)
	}
	if status, body := n.do("PUT", room, staff, `{"rev":0,"status":"live"}`); status != 409 || !strings.Contains(body, `"code":"conflict"`) {
		t.Errorf("PUT with an old rev: %d %s", status, body)
	}
	if got := n.counted("r", 1); got.State.Title != "発表会" || got.Viewers.Users != 1 || got.Viewers.PeakUsers != 1 {
		t.Errorf("GET room: %+v %+v", got, got.Viewers)
	}
	for _, c := range []struct {
		method, path, token, body string
		status                    int
		want                      string
	}{
		{"POST", "/comments", "", `{"text":"x"}`, 401, `"close":4401`},
		{"POST", "/comments", "nonsense", `{"text":"x"}`, 401, "not valid"},
		{"POST", "/comments", n.token("u", protocol.RoleViewer, "r"), `{"text":"x","user":{"id":"other"}}`, 403, "forbidden"},
		{"POST", "/comments", n.token("mod", protocol.RoleModerator, "r"), `{"text":"x","user":{"id":"other"}}`, 403, "publish_as"},
		{"POST", "/comments", n.token("m", protocol.RoleMonitor, "r"), `{"text":"x"}`, 403, "forbidden"},
		{"POST", "/comments", staff, `{"text":"x","user":{"id":"a\u202eb"}}`, 400, "user.id"},
		{"POST", "/comments", staff, `{"text":""}`, 422, "empty"},
		{"POST", "/comments", staff, `{"text":"` + strings.Repeat("あ", 1001) + `"}`, 422, "1001"},
		{"POST", "/comments", staff, `[]`, 400, "not a JSON object"},
		{"POST", "/comments", staff, `{`, 400, "bad_message"},
		{"POST", "/comments", staff, `{"text":7}`, 400, "text"},
		{"POST", "/comments", staff, strings.Repeat("x", 9000), 413, "8192"},
		{"PUT", "", n.token("u", protocol.RoleViewer, "r"), `{"status":"live"}`, 403, "forbidden"},
		{"PUT", "", staff, `{"status":"asleep"}`, 400, "status"},
		{"DELETE", "/comments", staff, "", 404, "no DELETE"},
		{"DELETE", "", n.token("mod", protocol.RoleModerator, "r"), "", 403, "broadcaster"},
	} {
		if status, body := n.do(c.method, room+c.path, c.token, c.body); status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %.30s: %d %s, want %d %s", c.method, c.path, c.body, status, body, c.status, c.want)
		}
	}
	if status, body := n.get(n.url + "/v1/rooms/-bad-"); status != 404 || !strings.Contains(body, `"close":4404`) {
		t.Errorf("a bad room name: %d %s", status, body)
	}
}

func TestBadMessages(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--rate=1000", "--burst=1000")
	for _, c := range []struct{ name, send, code, says string }{
		{"bare object", `{}`, "bad_message", "type"},
		{"array", `[]`, "bad_message", "not a JSON object"},
		{"number", `7`, "bad_message", "not a JSON object"},
		{"no JSON", `hello`, "bad_message", "JSON"},
		{"deep nesting", `{"type":"comment","text":` + strings.Repeat("[", 4000), "bad_message", ""},
		{"text is no string", `{"type":"comment","ref":"a","text":{}}`, "bad_message", "text"},
		{"too long", `{"type":"comment","ref":"a","text":"` + strings.Repeat("あ", 201) + `"}`, "too_long", "201"},
		{"empty", `{"type":"comment","ref":"a","text":" \u200b\n"}`, "empty", ""},
		{"style", `{"type":"comment","ref":"a","text":"x","style":{"size":"huge"}}`, "bad_message", "style.size"},
		{"unknown type with a ref", `{"type":"dance","ref":"a"}`, "unsupported", "dance"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := n.mustDial("bad", "")
			w.say(c.send)
			e := w.next("error")
			if e["code"] != c.code || !strings.Contains(fmt.Sprint(e["message"]), c.says) {
				t.Errorf("got %v, want %s %s", e, c.code, c.says)
			}
			if strings.Contains(c.send, `"ref":"a"`) && e["ref"] != "a" {
				t.Errorf("the ref is missing: %v", e)
			}
			w.say(`{"type":"beat"}`)
			w.next("beat") // it goes on
		})
	}
	t.Run("unknown type and fields", func(t *testing.T) {
		t.Parallel()
		w := n.mustDial("ignored", "")
		w.say(`{"type":"dance"}`)
		w.say(`{"type":"comment","ref":"a","text":"x","later":{"a":[1]}}`)
		if m := w.next("ok", "error"); m["type"] != "ok" {
			t.Error(m)
		}
	})
	for _, c := range []struct {
		name string
		typ  websocket.MessageType
		send []byte
		code websocket.StatusCode
	}{
		{"not UTF-8", websocket.MessageText, []byte("{\"type\":\"comment\",\"text\":\"\xff\"}"), 1007},
		{"binary", websocket.MessageBinary, []byte(`{"type":"beat"}`), 1003},
		{"1 MiB", websocket.MessageText, make([]byte, 1<<20), 1009},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := n.mustDial("bad", "")
			_ = w.Write(t.Context(), c.typ, c.send) // the server may close in the middle
			if code, reason := w.closed(); code != c.code {
				t.Errorf("closed with %d %q, want %d", code, reason, c.code)
			}
		})
	}
	t.Run("again and again", func(t *testing.T) {
		t.Parallel()
		w := n.mustDial("bad", "")
		for range 11 {
			w.say(`7`)
		}
		if code, _ := w.closed(); code != 4400 {
			t.Errorf("closed with %d", code)
		}
	})
	t.Run("a flood", func(t *testing.T) {
		t.Parallel()
		w := n.mustDial("bad", "")
		for range 5000 {
			if w.Write(t.Context(), websocket.MessageText, []byte(`{"type":"beat"}`)) != nil {
				break
			}
		}
		if code, reason := w.closed(); code != 4429 && code != 4408 {
			t.Errorf("closed with %d %q", code, reason)
		}
	})
}

func TestWhoMayComeIn(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--guests=none", "--origin=https://friend.example")
	mint := func(method jwt.SigningMethod, key any, room string, ttl time.Duration) string {
		tok, err := jwt.NewWithClaims(method, jwt.MapClaims{
			"sub": "u", "role": "viewer", "rooms": []string{room}, "exp": time.Now().Add(ttl).Unix(),
		}).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	hs256, secret := jwt.SigningMethodHS256, []byte(testSecret)
	good := mint(hs256, secret, "r", time.Hour)
	inMS, err := jwt.NewWithClaims(hs256, jwt.MapClaims{"sub": "u", "rooms": "r", "exp": time.Now().Add(time.Hour).UnixMilli()}).SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, query string
		code        websocket.StatusCode
		says        string
	}{
		{"without a token", "", 4401, "a token is needed"},
		{"an empty token", "?token=", 4401, "not valid: it is empty"},
		{"garbage", "?token=garbage", 4401, "not valid"},
		{"expired", "?token=" + mint(hs256, secret, "r", -time.Hour), 4401, "expired"},
		{"wrong key", "?token=" + mint(hs256, []byte("another secret of more than thirty-two bytes"), "r", time.Hour), 4401, "not valid"},
		{"alg none", "?token=" + mint(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "r", time.Hour), 4401, "not valid"},
		{"another room", "?token=" + mint(hs256, secret, "q", time.Hour), 4401, "not for this room"},
		{"milliseconds", "?token=" + inMS, 4401, "exp looks like milliseconds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := n.mustDial("r", c.query)
			code, reason := w.closed()
			if code != c.code || !strings.Contains(reason, c.says) {
				t.Errorf("closed with %d %q, want %d %q", code, reason, c.code, c.says)
			}
			status, body := n.get(n.url + "/v1/rooms/r" + c.query)
			if status != 401 || !strings.Contains(body, fmt.Sprint(`"close":`, int(c.code))) {
				t.Errorf("over HTTP: %d %s", status, body)
			}
		})
	}
	t.Run("bad room name", func(t *testing.T) {
		t.Parallel()
		if code, _ := n.mustDial("_r", "?token="+good).closed(); code != 4404 {
			t.Errorf("closed with %d", code)
		}
	})
	t.Run("three ways to carry a token", func(t *testing.T) {
		t.Parallel()
		n.mustDial("r", "?token="+good).next("welcome")
		w, _, err := n.dial("r", "", http.Header{"Authorization": {"Bearer " + good}})
		if err != nil {
			t.Fatal(err)
		}
		w.next("welcome")
		c, _, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(n.url, "http")+"/v1/rooms/r/ws",
			&websocket.DialOptions{Subprotocols: []string{protocol.Subprotocol, protocol.BearerPrefix + good}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.CloseNow() }()
		if c.Subprotocol() != protocol.Subprotocol {
			t.Errorf("subprotocol %q", c.Subprotocol())
		}
		(&wsConn{t, c}).next("welcome")
	})
	t.Run("origins", func(t *testing.T) {
		t.Parallel()
		host := strings.TrimPrefix(n.url, "http://")
		for origin, allowed := range map[string]bool{
			"http://" + host:           true,
			"https://friend.example":   true,
			"http://localhost:3000":    true,
			"http://friend.example":    false, // not with that scheme
			"https://friend.example.x": false,
			"https://evil.example":     false,
			"null":                     false,
		} {
			_, res, err := n.dial("r", "?token="+good, http.Header{"Origin": {origin}})
			if (err == nil) != allowed {
				t.Errorf("%s: %v", origin, err)
			}
			if !allowed && (res == nil || res.StatusCode != 403) {
				t.Errorf("%s: refused with %v", origin, res)
			}
		}
		for _, want := range []string{"origin=https://evil.example host=" + host, "--origin=https://evil.example", "--public-url=https://evil.example"} {
			if !strings.Contains(n.logs.String(), want) {
				t.Errorf("the log of a refused origin has no %s", want)
			}
		}
	})
}

func TestCursors(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--rate=1000", "--burst=1000")
	w := n.mustDial("r", "")
	session := w.next("welcome")["session"].(string)
	w.next("comments") // the history, which is empty
	var cursors []string
	for i := range 10 {
		w.say(fmt.Sprintf(`{"type":"comment","text":"%d"}`, i))
		cursors = append(cursors, w.next("comments")["cursor"].(string))
	}
	other := n.mustDial("q", "")
	other.next("comments")
	other.say(`{"type":"comment","text":"x"}`)
	foreign := other.next("comments")["cursor"].(string)
	future := cursors[0][:8] + "zzzzzz-mjzzzzzz"

	back := n.mustDial("r", "?since="+cursors[6]+"&session="+session)
	if m := back.next("welcome"); m["recovered"] != true || m["session"] != session {
		t.Errorf("welcome %v", m)
	}
	if got := texts(back.next("comments")); fmt.Sprint(got) != "[7 8 9]" {
		t.Errorf("recovered %v", got)
	}
	for name, cursor := range map[string]string{"garbage": "xx", "more garbage": strings.Repeat("z", 40), "of another room": foreign, "from the future": future} {
		c := n.mustDial("r", "?since="+cursor)
		if m := c.next("welcome"); m["recovered"] != false {
			t.Errorf("%s: %v", name, m)
		}
		if got := texts(c.next("comments")); len(got) != 10 {
			t.Errorf("%s: %d recent comments", name, len(got))
		}
	}
}

// No recent comments and no missed ones are settings too, and not the default.
func TestNoneIsNone(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--recent=0", "--recover-max=0")
	w := n.mustDial("r", "")
	w.next("comments")
	w.say(`{"type":"comment","text":"0"}`)
	cursor := w.next("comments")["cursor"].(string)
	if m := n.mustDial("r", "?since="+cursor); m.next("welcome")["recovered"] != true {
		t.Error("who has missed nothing is not recovered")
	}
	w.say(`{"type":"comment","text":"1"}`)
	w.next("comments")
	for what, query := range map[string]string{"who comes": "", "who has missed one": "?since=" + cursor} {
		c := n.mustDial("r", query)
		if c.next("welcome")["recovered"] != false {
			t.Errorf("%s is recovered", what)
		}
		if got := texts(c.next("comments")); len(got) != 0 {
			t.Errorf("%s gets %v", what, got)
		}
	}
}

func TestRestartKeepsComments(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := runNode(t, "--data-dir="+dir)
	w := first.mustDial("r", "")
	w.next("comments")
	w.say(`{"type":"comment","ref":"1","text":"before"}`)
	at := ""
	for range 2 { // the answer and the comment, in either order
		if m := w.next("ok", "comments"); m["type"] == "comments" {
			at = m["cursor"].(string)
		}
	}
	w.say(`{"type":"comment","ref":"2","text":"after"}`)
	w.next("ok")
	if err := first.stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	second := runNode(t, "--data-dir="+dir)
	back := second.mustDial("r", "?since="+at)
	if m := back.next("welcome"); m["recovered"] != true {
		t.Errorf("welcome %v", m)
	}
	if got := texts(back.next("comments")); fmt.Sprint(got) != "[after]" {
		t.Errorf("recovered %v", got)
	}
}

func TestStopTellsViewersToComeBack(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	w := n.mustDial("r", "")
	w.next("welcome")
	done := make(chan error, 1)
	go func() { done <- n.stop(context.Background()) }()
	if code, reason := w.closed(); code != 1012 || protocol.RetryMS(reason) < 1 {
		t.Errorf("closed with %d %q", code, reason)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	for _, flag := range []string{"listen", "ops-listen"} {
		_, err = start(t.Context(), parse(t, "--"+flag+"="+l.Addr().String()), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), "--"+flag+" "+l.Addr().String()) {
			t.Errorf("--%s: %v", flag, err)
		}
	}
}

func TestOps(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	n.mustDial("r", "").next("welcome")
	if status, body := n.get(n.ops + "/healthz"); status != 200 || body != "ok\n" {
		t.Errorf("healthz: %d %s", status, body)
	}
	if status, body := n.get(n.ops + "/debug/pprof/goroutine?debug=1"); status != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("pprof: %d", status)
	}
	if status, _ := n.get(n.url + "/metrics"); status != 404 {
		t.Errorf("the public listener has metrics: %d", status)
	}
	_, body := n.get(n.ops + "/metrics")
	for _, want := range []string{
		"kansei_connections 1", "kansei_viewers 1", "kansei_rooms 1", `kansei_joins_total{result="new"} 1`,
		`kansei_leaves_total{reason="too_slow"} 0`, `kansei_comments_total{result="unknown_outcome"} 0`,
		`kansei_dropped_comments_total{reason="slow"} 0`, "kansei_delivery_seconds_count", "kansei_append_seconds_count",
		"kansei_round_seconds_count", "kansei_round_viewers_count", "kansei_frames_total", "kansei_sent_bytes_total",
		"kansei_nats_connected 1", "kansei_redis_up 1", "kansei_build_info{", "go_goroutines", "process_resident_memory_bytes",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}
