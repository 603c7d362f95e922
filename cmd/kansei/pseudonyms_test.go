package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// With --pseudonyms nothing that the audience of a room gets has a user's own id in it, and the ids
// that it has are others in each room; the staff and back ends see the users' own, and may name
// either.
func TestPseudonyms(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--pseudonyms", "--members=everyone")
	const secretID, sent = "member-4711-miller", "a word"
	all := map[string]*strings.Builder{"r": {}, "s": {}} // whatever the audience gets
	hear := func(room string, c *wsConn, typ string) map[string]any {
		t.Helper()
		m := c.next()
		for {
			p, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			all[room].Write(p)
			if m["type"] == typ {
				return m
			}
			m = c.next()
		}
	}
	read := func(room, path, token string) string {
		t.Helper()
		status, body := n.do(http.MethodGet, n.url+path, token, "")
		if status != 200 {
			t.Fatalf("%s: %d %s", path, status, body)
		}
		if room != "" {
			all[room].WriteString(body)
		}
		return body
	}
	aliases := map[string]string{}
	for _, room := range []string{"r", "s"} {
		staff := n.mustDial(room, "?token="+n.mint(auth.Claims{Subject: "boss", Name: "Ms. Bell", Role: protocol.RoleBroadcaster, Rooms: []string{"*"}}))
		if you := staff.next("welcome")["you"].(map[string]any); you["id"] != "boss" || you["user"] != nil {
			t.Errorf("the staff is %v", you)
		}
		staff.next("comments")
		me := n.mustDial(room, "?token="+n.mint(auth.Claims{Subject: secretID, Name: "Ann", Rooms: []string{"*"}}))
		you := me.next("welcome")["you"].(map[string]any) // which tells the member alone
		alias := you["id"].(string)
		if you["user"] != secretID || !strings.HasPrefix(alias, "p-") {
			t.Errorf("you are %v", you)
		}
		aliases[room] = alias
		me.next("comments")
		other := n.mustDial(room, "")
		hear(room, other, "comments")
		me.say(`{"type":"comment","ref":"1","text":"` + sent + `"}`)
		author := func(m map[string]any) any {
			return m["items"].([]any)[0].(map[string]any)["user"].(map[string]any)["id"]
		}
		if got := author(hear(room, other, "comments")); got != alias {
			t.Errorf("the audience sees %v, want %s", got, alias)
		}
		if got := author(me.next("comments")); got != alias {
			t.Errorf("I see myself as %v, want %s", got, alias)
		}
		if got := author(staff.next("comments")); got != secretID {
			t.Errorf("the staff sees %v", got)
		}
		late := n.mustDial(room, "")
		hear(room, late, "comments")
		viewer := n.token("another", protocol.RoleViewer, "*")
		base := "/v1/rooms/" + room
		for end := time.Now().Add(10 * time.Second); strings.Count(read("", base+"/viewers", viewer), `"devices"`) < 4; time.Sleep(100 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("not all are listed")
			}
		}
		for _, path := range []string{base, base + "/comments", base + "/comments?limit=5", base + "/viewers", base + "/viewers?limit=1"} {
			read(room, path, viewer)
		}
		// A page that begins where another one ended.
		for cursor, pages := "", 0; ; pages++ {
			body := read(room, base+"/viewers?limit=1&cursor="+cursor, viewer)
			var page protocol.Members
			if err := json.Unmarshal([]byte(body), &page); err != nil {
				t.Fatal(err)
			}
			if cursor = page.Cursor; cursor == "" {
				if pages < 3 {
					t.Errorf("%d pages", pages)
				}
				break
			}
		}
		boss := n.token("boss", protocol.RoleBroadcaster, "*")
		for _, path := range []string{base + "/comments", base + "/comments?limit=5", base + "/viewers"} {
			if body := read("", path, boss); !strings.Contains(body, `"id":"`+secretID+`"`) || strings.Contains(body, alias) {
				t.Errorf("the staff reads at %s: %s", path, body)
			}
		}
	}
	if aliases["r"] == aliases["s"] {
		t.Error("a user has one id in two rooms")
	}
	for room, b := range all {
		got := b.String()
		if strings.Contains(got, secretID) || strings.Contains(got, "boss") || !strings.Contains(got, sent) {
			t.Errorf("the audience of %s got a user's own id, or nothing:\n%s", room, got)
		}
		other := map[string]string{"r": "s", "s": "r"}[room]
		if strings.Contains(got, aliases[other]) {
			t.Errorf("the audience of %s got an id of another room", room)
		}
		// Cursors are base64, and must not have it in them either.
		if strings.Contains(got, "bWVtYmVyLTQ3MTE") || strings.Contains(got, "tZW1iZXItNDcxM") || strings.Contains(got, "1lbWJlci00NzEx") {
			t.Errorf("a cursor has a user's own id in it:\n%s", got)
		}
	}
	// Whoever sees both may name either.
	boss := n.token("boss", protocol.RoleBroadcaster, "*")
	for _, id := range []string{secretID, aliases["r"], aliases["s"]} {
		if body := read("", "/v1/users/"+id+"/rooms", boss); !strings.Contains(body, `"r"`) || !strings.Contains(body, `"s"`) {
			t.Errorf("where %s is: %s", id, body)
		}
		key := n.key(fmt.Sprint("k", len(id), id[2:4]), "publish_as,admin", "*")
		if status, body := n.do(http.MethodPost, n.url+"/v1/rooms/r/comments", key, fmt.Sprintf(`{"text":"by a back end","user":{"id":%q}}`, id)); status != 201 {
			t.Errorf("publish as %s: %d %s", id, status, body)
		}
		if status, body := n.do(http.MethodPost, n.url+"/v1/revocations", key, fmt.Sprintf(`{"user":%q}`, id)); status != 201 || !strings.Contains(body, secretID) {
			t.Errorf("revoke %s: %d %s", id, status, body)
		}
	}
}
