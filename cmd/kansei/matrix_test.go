package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// subject is who tries, and at which node.
type subject struct {
	node       *testNode
	credential string
	room       string // the room that it tries
}

// Every cell of the table in docs/SECURITY.md is what running nodes do.
func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(doc), "## The table\n")
	table, _, _ = strings.Cut(table, "\n## ")
	lines := regexp.MustCompile(`(?m)^\|.*\|$`).FindAllString(table, -1)
	if len(lines) < 3 {
		t.Fatal("docs/SECURITY.md has no table")
	}
	cells := func(line string) []string {
		parts := strings.Split(strings.Trim(line, "|"), "|")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		return parts
	}
	nodes := map[string]*testNode{}
	for _, guests := range []string{"none", "watch", "comment"} {
		// Nothing but what somebody may do is to refuse them.
		nodes[guests] = runNode(t, "--guests="+guests, "--rate=1000", "--burst=1000")
	}
	main := nodes["none"]
	as := func(role protocol.Role, can ...string) subject {
		return subject{main, main.mint(auth.Claims{Subject: "u-" + string(role), Role: role, Rooms: []string{"r"}, Can: can}), "r"}
	}
	key := func(scope string) subject {
		return subject{main, main.key(strings.ReplaceAll(scope, "_", "-"), scope, "r"), "r"}
	}
	other := as(protocol.RoleModerator)
	other.room = "s"
	subjects := map[string]subject{
		"nobody": {main, "", "r"}, "guest who may watch": {nodes["watch"], "", "r"}, "guest who may comment": {nodes["comment"], "", "r"},
		"viewer": as(protocol.RoleViewer), "monitor": as(protocol.RoleMonitor), "moderator": as(protocol.RoleModerator), "broadcaster": as(protocol.RoleBroadcaster),
		"viewer with `publish_as`": as(protocol.RoleViewer, "publish_as"), "viewer with `uncounted`": as(protocol.RoleViewer, "uncounted"),
		"key `publish`": key("publish"), "key `publish_as`": key("publish_as"), "key `moderate`": key("moderate"), "key `read`": key("read"), "key `admin`": key("admin"),
		"moderator of another room": other,
	}
	columns := cells(lines[0])[1:]
	if len(columns) != len(subjects) {
		t.Errorf("the table has %d columns, want %d", len(columns), len(subjects))
	}
	for _, line := range lines[2:] {
		row := cells(line)
		try := entrances[row[0]]
		if try == nil {
			t.Errorf("nobody knows how to try %q", row[0])
			continue
		}
		for i, cell := range row[1:] {
			who, known := subjects[columns[i]]
			if !known {
				t.Fatalf("nobody is %q", columns[i])
			}
			if got, how := try(t, who); got != (cell == "yes") || cell != "yes" && cell != "–" {
				t.Errorf("%s, %s: the table says %q, the node %s", row[0], columns[i], cell, how)
			}
		}
	}
	if n := len(lines) - 2; n != len(entrances) {
		t.Errorf("the table has %d rows, there are %d entrances", n, len(entrances))
	}
}

// entrances try what a row of the table says, and report whether it was done, and how it ended.
var entrances = map[string]func(t *testing.T, s subject) (bool, string){
	"come in (`GET …/ws`)": func(t *testing.T, s subject) (bool, string) {
		_, m, how := s.comeIn(t, "")
		return m != nil, how
	},
	"come in uncounted (`count=0`)": func(t *testing.T, s subject) (bool, string) {
		_, m, how := s.comeIn(t, "&count=0")
		if m == nil {
			return false, how
		}
		can := fmt.Sprint(m["you"].(map[string]any)["can"])
		return strings.Contains(can, "uncounted"), can
	},
	"`comment`": func(t *testing.T, s subject) (bool, string) {
		return s.ask(t, `{"type":"comment","ref":"1","text":"x"}`)
	},
	"`auth`": func(t *testing.T, s subject) (bool, string) {
		return s.ask(t, fmt.Sprintf(`{"type":"auth","ref":"1","token":%q}`, s.credential))
	},
	"`GET /v1/rooms/{room}`":            request(http.MethodGet, "/v1/rooms/ROOM", ""),
	"`GET …/comments`":                  request(http.MethodGet, "/v1/rooms/ROOM/comments", ""),
	"`POST …/comments`":                 request(http.MethodPost, "/v1/rooms/ROOM/comments", `{"text":"x"}`),
	"`POST …/comments` as another user": request(http.MethodPost, "/v1/rooms/ROOM/comments", `{"text":"x","user":{"id":"v"}}`),
	"`POST …/events`, `event`": func(t *testing.T, s subject) (bool, string) {
		did, how := request(http.MethodPost, "/v1/rooms/ROOM/events", `{"name":"gift"}`)(t, s)
		if c, m, _ := s.comeIn(t, ""); m != nil {
			c.say(`{"type":"event","ref":"event","name":"gift"}`)
			if answer := c.next("ok", "error"); (answer["type"] == "ok") != did {
				t.Errorf("over the socket: %v", answer)
			}
		}
		return did, how
	},
	"`PUT /v1/rooms/{room}`": func(t *testing.T, s subject) (bool, string) {
		// It has the latest revision, so that only what somebody may do decides.
		_, body := s.node.do(http.MethodGet, s.node.url+"/v1/rooms/"+s.room, s.node.token("reader", protocol.RoleViewer, "*"), "")
		var room protocol.Room
		_ = json.Unmarshal([]byte(body), &room)
		return request(http.MethodPut, "/v1/rooms/ROOM", fmt.Sprintf(`{"rev":%d,"status":"live"}`, room.State.Rev))(t, s)
	},
	"`PATCH /v1/rooms/{room}`, `set`": func(t *testing.T, s subject) (bool, string) {
		did, how := request(http.MethodPatch, "/v1/rooms/ROOM", `{"title":"t"}`)(t, s)
		if c, m, _ := s.comeIn(t, ""); m != nil {
			c.say(`{"type":"set","ref":"set","state":{"title":"t"}}`)
			if answer := c.next("ok", "error"); (answer["type"] == "ok") != did {
				t.Errorf("over the socket: %v", answer)
			}
		}
		return did, how
	},
	"`DELETE /v1/rooms/{room}`": request(http.MethodDelete, "/v1/rooms/ROOM", ""),
	"`POST …/acts`: on others":  request(http.MethodPost, "/v1/rooms/ROOM/acts", `{"type":"mute","user":"nobody","for_ms":1000}`),
	"take back one's own comment": func(t *testing.T, s subject) (bool, string) {
		c, m, how := s.comeIn(t, "")
		if m == nil {
			return false, how
		}
		c.say(fmt.Sprintf(`{"type":"comment","ref":"%d","text":"mine"}`, time.Now().UnixNano()))
		answer := c.next("ok", "error")
		if answer["type"] != "ok" {
			return false, fmt.Sprint(answer)
		}
		c.say(fmt.Sprintf(`{"type":"remove","ref":"remove","ids":[%q]}`, answer["id"]))
		answer = c.next("ok", "error")
		return answer["type"] == "ok", fmt.Sprint(answer)
	},
	"`GET …/moderation`, `GET …/users/{user}`": func(t *testing.T, s subject) (bool, string) {
		did, how := request(http.MethodGet, "/v1/rooms/ROOM/moderation", "")(t, s)
		if card, how := request(http.MethodGet, "/v1/rooms/ROOM/users/u", "")(t, s); card != did {
			t.Errorf("of a user: %s", how)
		}
		return did, how
	},
	"`GET …/watchlog`, `GET …/broadcasts`": func(t *testing.T, s subject) (bool, string) {
		did, how := request(http.MethodGet, "/v1/rooms/ROOM/watchlog", "")(t, s)
		if list, how := request(http.MethodGet, "/v1/rooms/ROOM/broadcasts", "")(t, s); list != did {
			t.Errorf("the list: %s", how)
		}
		return did, how
	},
	"`POST …/sweeps`":              request(http.MethodPost, "/v1/rooms/ROOM/sweeps", `{"last_ms":1000,"guests":true}`),
	"`GET …/viewers`":              request(http.MethodGet, "/v1/rooms/ROOM/viewers", ""),
	"`GET /v1/users/{user}/rooms`": request(http.MethodGet, "/v1/users/u/rooms", ""),
	"`GET /v1/rooms?sort=users`":   request(http.MethodGet, "/v1/rooms?sort=users", ""),
	"`POST …/links`":               request(http.MethodPost, "/v1/rooms/ROOM/links", `{"role":"viewer"}`),
	"`POST /v1/revocations`":       request(http.MethodPost, "/v1/revocations", `{"jti":"nobody's"}`),
	"`GET /v1/revocations`":        request(http.MethodGet, "/v1/revocations", ""),
}

// request tries an entrance over HTTP. What is refused is so with 401 or 403.
func request(method, path, body string) func(t *testing.T, s subject) (bool, string) {
	return func(t *testing.T, s subject) (bool, string) {
		t.Helper()
		status, answer := s.node.do(method, s.node.url+strings.ReplaceAll(path, "ROOM", s.room), s.credential, body)
		if status != 401 && status != 403 && status/100 != 2 {
			t.Errorf("%s %s: %d %s", method, path, status, answer)
		}
		return status/100 == 2, fmt.Sprint(status, " ", answer)
	}
}

// comeIn connects, and returns the welcome; nil when it was refused.
func (s subject) comeIn(t *testing.T, query string) (*wsConn, map[string]any, string) {
	t.Helper()
	c := s.node.mustDial(s.room, "?x="+query+tokenQuery(s.credential))
	_, p, err := c.Read(t.Context())
	if websocket.CloseStatus(err) == websocket.StatusCode(protocol.CloseUnauthorized) {
		return c, nil, err.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(p, &m); err != nil || m["type"] != "welcome" {
		t.Fatalf("%s, %v", p, err)
	}
	return c, m, "lets them in"
}

// ask comes in and makes a request, which is answered by ok or an error.
func (s subject) ask(t *testing.T, request string) (bool, string) {
	t.Helper()
	c, m, how := s.comeIn(t, "")
	if m == nil {
		return false, how
	}
	c.next("comments")
	for end := time.Now().Add(10 * time.Second); ; {
		c.say(request)
		answer := c.next("ok", "error")
		if answer["code"] == string(protocol.CodeRateLimited) && time.Now().Before(end) {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		return answer["type"] == "ok", fmt.Sprint(answer)
	}
}

// tokenQuery is a token as a parameter.
func tokenQuery(token string) string {
	if token == "" {
		return ""
	}
	return "&token=" + token
}
