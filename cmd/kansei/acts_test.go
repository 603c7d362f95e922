package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/protocol"
)

// crew is a node with a moderator and a viewer in a room.
type crew struct {
	*testNode
	mod, boss, ken string // tokens
}

func newCrew(t *testing.T, args ...string) crew {
	n := runNode(t, append([]string{"--rate=1000", "--burst=1000"}, args...)...)
	return crew{n, n.token("mod", protocol.RoleModerator, "r"), n.token("boss", protocol.RoleBroadcaster, "r"), n.token("ken", protocol.RoleViewer, "r")}
}

func (c crew) in(token string) *wsConn { return c.mustDial("r", "?token="+token) }

// act does an act over HTTP.
func (c crew) act(token, body string) (status int, got protocol.ActDone, problem protocol.Problem) {
	c.t.Helper()
	status, answer := c.do(http.MethodPost, c.url+"/v1/rooms/r/acts", token, body)
	if status == http.StatusOK {
		_ = json.Unmarshal([]byte(answer), &got)
	} else {
		_ = json.Unmarshal([]byte(answer), &problem)
	}
	return status, got, problem
}

// does is act for one that has to succeed.
func (c crew) does(token, body string) protocol.ActDone {
	c.t.Helper()
	status, got, problem := c.act(token, body)
	if status != http.StatusOK {
		c.t.Fatalf("%s: %d %+v", body, status, problem)
	}
	return got
}

// set patches the state.
func (c crew) set(patch string) {
	c.t.Helper()
	if status, answer := c.do(http.MethodPatch, c.url+"/v1/rooms/r", c.boss, patch); status != http.StatusOK {
		c.t.Fatalf("%s: %d %s", patch, status, answer)
	}
}

// comment says something and returns its id.
func (c *wsConn) comment(text string) string {
	c.t.Helper()
	c.say(fmt.Sprintf(`{"type":"comment","ref":%q,"text":%q}`, text, text))
	m := c.next("ok", "error")
	if m["type"] != "ok" {
		c.t.Fatalf("%s: %v", text, m)
	}
	return m["id"].(string)
}

// refused says something and returns why not.
func (c *wsConn) refused(text string) map[string]any {
	c.t.Helper()
	c.say(fmt.Sprintf(`{"type":"comment","ref":%q,"text":%q}`, fmt.Sprint(time.Now().UnixNano()), text))
	m := c.next("ok", "error")
	if m["type"] != "error" {
		c.t.Fatalf("%s was taken", text)
	}
	return m
}

// read returns the texts of what everybody can read.
func (c crew) read() string {
	c.t.Helper()
	page, _ := c.comments("r", nil)
	var out []string
	for _, it := range page.Items {
		out = append(out, it.Text)
	}
	return strings.Join(out, " ")
}

func TestRemoveAndUndo(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken, eve := c.in(c.ken), c.in(c.token("eve", protocol.RoleViewer, "r"))
	a := ken.comment("one")
	b := ken.comment("two")
	eve.next("comments")
	done := c.does(c.mod, fmt.Sprintf(`{"type":"remove","ref":"1","ids":[%q],"reason":"no"}`, a))
	if done.Act == "" || done.Cursor == "" {
		t.Errorf("the act is %+v", done)
	}
	if m := eve.next("removed"); fmt.Sprint(m["ids"]) != "["+a+"]" {
		t.Errorf("viewers are told %v", m)
	}
	if got := c.read(); got != "two" {
		t.Errorf("what can be read is %q", got)
	}
	if m := c.in(c.ken).next("comments"); strings.Join(texts(m), " ") != "two" {
		t.Errorf("a newcomer gets %v", m)
	}
	// The same again is the same act.
	if again := c.does(c.mod, fmt.Sprintf(`{"type":"remove","ref":"1","ids":[%q],"reason":"no"}`, a)); again != done {
		t.Errorf("again it is %+v, was %+v", again, done)
	}
	// The broadcaster's are not the moderator's to remove.
	boss := c.in(c.boss)
	if status, _, p := c.act(c.mod, fmt.Sprintf(`{"type":"remove","ids":[%q]}`, boss.comment("mine"))); status != http.StatusForbidden || p.Code != protocol.CodeForbidden {
		t.Errorf("the broadcaster's: %d %+v", status, p)
	}
	// A viewer takes back what is their own, and nothing else.
	if status, _, _ := c.act(c.ken, fmt.Sprintf(`{"type":"remove","ids":[%q]}`, b)); status != http.StatusOK {
		t.Errorf("one's own: %d", status)
	}
	if status, _, _ := c.act(c.token("eve", protocol.RoleViewer, "r"), fmt.Sprintf(`{"type":"remove","ids":[%q]}`, b)); status != http.StatusForbidden {
		t.Errorf("another's: %d", status)
	}
	if got := c.read(); got != "mine" {
		t.Errorf("what can be read is %q", got)
	}
	undo := fmt.Sprintf(`{"type":"undo","ref":"2","act":%q}`, done.Act)
	first := c.does(c.boss, undo)
	m := eve.next("restored")
	if items := m["items"].([]any); len(items) != 1 || items[0].(map[string]any)["text"] != "one" {
		t.Errorf("viewers are told %v", m)
	}
	if got := c.read(); got != "one mine" {
		t.Errorf("what can be read is %q", got)
	}
	if again := c.does(c.boss, undo); again != first {
		t.Errorf("again it is %+v, was %+v", again, first)
	}
	if again := c.does(c.mod, fmt.Sprintf(`{"type":"undo","act":%q}`, done.Act)); again.Act != first.Act {
		t.Errorf("another one undoes it again: %+v", again)
	}
	if status, _, p := c.act(c.mod, `{"type":"undo","act":"abcdefghijklmnopqrstuv"}`); status != http.StatusNotFound || p.Code != protocol.CodeNoAct {
		t.Errorf("an act that never was: %d %+v", status, p)
	}
	// Removed again it is gone again.
	c.does(c.mod, fmt.Sprintf(`{"type":"remove","ref":"3","ids":[%q]}`, a))
	if got := c.read(); got != "mine" {
		t.Errorf("what can be read is %q", got)
	}
}

func TestMuteTellsWhyAndHowLong(t *testing.T) {
	t.Parallel()
	c := newCrew(t, "--appeal-url=https://example.com/appeal")
	ken := c.in(c.ken)
	ken.comment("hello")
	mod := c.in(c.mod)
	mod.say(`{"type":"mute","ref":"m","user":"ken","for_ms":600000,"reason":"no advertising"}`)
	act := mod.next("ok", "error")
	if act["act"] == nil || act["cursor"] == nil {
		t.Fatalf("the act is answered with %v", act)
	}
	check := func(what string, b map[string]any) {
		t.Helper()
		left, _ := b["retry_ms"].(float64)
		if b["code"] != "muted" || b["reason"] != "no advertising" || b["act"] != act["act"] || b["appeal_url"] != "https://example.com/appeal" || left < 590000 || left > 600000 {
			t.Errorf("%s: %v", what, b)
		}
	}
	you := ken.next("you")
	check("you", you["blocked"].(map[string]any))
	check("error", ken.refused("again"))
	check("welcome", c.in(c.ken).next("welcome")["you"].(map[string]any)["blocked"].(map[string]any))
	status, answer := c.do(http.MethodPost, c.url+"/v1/rooms/r/comments", c.ken, `{"text":"by post"}`)
	var p map[string]any
	_ = json.Unmarshal([]byte(answer), &p)
	if check("problem", p); status != http.StatusForbidden {
		t.Errorf("%d %s", status, answer)
	}
	// Nobody mutes a broadcaster but a broadcaster who... not even that.
	c.in(c.boss).next("comments")
	if status, _, _ := c.act(c.mod, `{"type":"mute","user":"boss"}`); status != http.StatusForbidden {
		t.Errorf("a moderator mutes a broadcaster: %d", status)
	}
	if status, _, _ := c.act(c.ken, `{"type":"mute","user":"eve"}`); status != http.StatusForbidden {
		t.Errorf("a viewer mutes: %d", status)
	}
	mod.say(`{"type":"unmute","ref":"u","user":"ken"}`)
	if m := mod.next("ok", "error"); m["act"] == nil {
		t.Errorf("unmute: %v", m)
	}
	if you := ken.next("you"); you["blocked"] != nil {
		t.Errorf("you are %v", you)
	}
	ken.comment("thanks")
	mod.say(`{"type":"unmute","ref":"u2","user":"ken"}`)
	if m := mod.next("ok", "error"); m["type"] != "ok" || m["act"] != nil {
		t.Errorf("unmute of somebody who is not muted: %v", m)
	}
}

func TestBan(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken, other, eve := c.in(c.ken), c.in(c.ken), c.in(c.token("eve", protocol.RoleViewer, "r"))
	ken.comment("spam")
	done := c.does(c.mod, `{"type":"ban","ref":"b","user":"ken","for_ms":3600000,"reason":"spam","clear":true}`)
	for _, conn := range []*wsConn{ken, other} {
		if b := conn.next("you")["blocked"].(map[string]any); b["code"] != "banned" || b["reason"] != "spam" {
			t.Errorf("blocked %v", b)
		}
		code, reason := conn.closed()
		if ms := protocol.RetryMS(reason); code != websocket.StatusCode(protocol.CloseBanned) || !strings.Contains(reason, "spam") || ms < 3500000 || ms > 3600000 {
			t.Errorf("closed with %d %q", code, reason)
		}
	}
	if m := eve.next("removed"); m["user"] != "ken" {
		t.Errorf("viewers are told %v", m)
	}
	if got := c.read(); got != "" {
		t.Errorf("what can be read is %q", got)
	}
	if code, reason := c.in(c.ken).closed(); code != websocket.StatusCode(protocol.CloseBanned) {
		t.Errorf("came in: %d %q", code, reason)
	}
	status, answer := c.do(http.MethodGet, c.url+"/v1/rooms/r", c.ken, "")
	var p protocol.Problem
	_ = json.Unmarshal([]byte(answer), &p)
	if status != http.StatusForbidden || p.Code != protocol.CodeBanned || p.Close != protocol.CloseBanned || p.Reason != "spam" || p.Act != done.Act || p.RetryMS == 0 {
		t.Errorf("%d %s", status, answer)
	}
	c.does(c.mod, `{"type":"unban","user":"ken"}`)
	if m := eve.next("restored"); len(m["items"].([]any)) != 1 {
		t.Errorf("viewers are told %v", m)
	}
	c.in(c.ken).comment("back")
	if got := c.read(); got != "spam back" {
		t.Errorf("what can be read is %q", got)
	}
}

func TestQuietMute(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken, eve := c.in(c.ken), c.in(c.token("eve", protocol.RoleViewer, "r"))
	eve.comment("hi")
	done := c.does(c.mod, `{"type":"mute","user":"ken","for_ms":60000,"quiet":true}`)
	ken.comment("can you hear me")
	for seen := ""; !strings.Contains(seen, "can you hear me"); {
		seen = fmt.Sprint(texts(ken.next("comments"))) // the author sees it
	}
	eve.comment("no")
	for seen := ""; !strings.Contains(seen, "no"); { // the node has heard of it
		if seen = fmt.Sprint(texts(eve.next("comments"))); strings.Contains(seen, "hear") {
			t.Fatalf("others see %s", seen)
		}
	}
	if got := c.read(); got != "hi no" {
		t.Errorf("others see %q", got)
	}
	eve.say(`{"type":"comment","ref":"end","text":"end"}`)
	for seen := ""; !strings.Contains(seen, "end"); {
		if seen = fmt.Sprint(texts(eve.next("comments"))); strings.Contains(seen, "hear") {
			t.Errorf("others see %q", seen)
		}
	}
	if b := c.in(c.ken).next("welcome")["you"].(map[string]any)["blocked"]; b != nil {
		t.Errorf("the user is told %v", b)
	}
	c.does(c.mod, fmt.Sprintf(`{"type":"undo","act":%q}`, done.Act))
	if m := eve.next("restored"); m["items"].([]any)[0].(map[string]any)["text"] != "can you hear me" {
		t.Errorf("viewers are told %v", m)
	}
	if got := c.read(); got != "hi can you hear me no end" {
		t.Errorf("others see %q", got)
	}
}

func TestWarnAndAck(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken := c.in(c.ken)
	ken.comment("x")
	c.does(c.mod, `{"type":"warn","user":"ken","reason":"be kind"}`)
	b := ken.next("you")["blocked"].(map[string]any)
	if b["code"] != "warned" || b["reason"] != "be kind" {
		t.Fatalf("blocked %v", b)
	}
	if e := ken.refused("y"); e["code"] != "warned" || e["act"] != b["act"] {
		t.Errorf("%v", e)
	}
	if status, _, _ := c.act(c.token("eve", protocol.RoleViewer, "r"), fmt.Sprintf(`{"type":"ack","act":%q}`, b["act"])); status != http.StatusForbidden {
		t.Errorf("another one acknowledges it: %d", status)
	}
	ken.say(fmt.Sprintf(`{"type":"ack","ref":"a","act":%q}`, b["act"]))
	for range 2 { // in any order
		if m := ken.next("ok", "error", "you"); m["type"] == "error" || m["blocked"] != nil {
			t.Fatalf("%v", m)
		}
	}
	ken.comment("z")
}

func TestClear(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken, eve := c.in(c.ken), c.in(c.token("eve", protocol.RoleViewer, "r"))
	ken.comment("a")
	eve.comment("b")
	c.does(c.mod, `{"type":"clear","user":"ken"}`)
	if m := eve.next("removed"); m["user"] != "ken" {
		t.Errorf("%v", m)
	}
	if got := c.read(); got != "b" {
		t.Errorf("%q", got)
	}
	ken.comment("c")
	done := c.does(c.mod, `{"type":"clear"}`)
	if m := eve.next("removed"); m["all"] != true {
		t.Errorf("%v", m)
	}
	ken.comment("d")
	if got := c.read(); got != "d" {
		t.Errorf("%q", got)
	}
	c.does(c.mod, fmt.Sprintf(`{"type":"undo","act":%q}`, done.Act))
	if got := c.read(); got != "b c d" {
		t.Errorf("%q", got)
	}
}

// Acts, sanctions and the state are there after a restart.
func TestActsOutliveTheNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n, stop := startNode(t, "--data-dir="+dir, "--rate=1000", "--burst=1000")
	c := crew{n, n.token("mod", protocol.RoleModerator, "r"), n.token("boss", protocol.RoleBroadcaster, "r"), n.token("ken", protocol.RoleViewer, "r")}
	ken := c.in(c.ken)
	id := ken.comment("secret")
	ken.comment("stays")
	c.does(c.mod, fmt.Sprintf(`{"type":"remove","ids":[%q]}`, id))
	c.does(c.mod, `{"type":"ban","user":"eve"}`)
	undone := c.does(c.mod, `{"type":"ban","user":"ken"}`)
	c.does(c.mod, fmt.Sprintf(`{"type":"undo","act":%q}`, undone.Act))
	c.set(`{"slow_ms":1000}`)
	stop()
	n, stop = startNode(t, "--data-dir="+dir)
	defer stop()
	c.testNode = n
	if got := c.read(); got != "stays" {
		t.Errorf("what can be read is %q", got)
	}
	if code, _ := c.mustDial("r", "?token="+c.token("eve", protocol.RoleViewer, "r")).closed(); code != websocket.StatusCode(protocol.CloseBanned) {
		t.Errorf("the ban is forgotten: %d", code)
	}
	if m := c.in(c.ken).next("state"); m["slow_ms"] != 1000.0 {
		t.Errorf("%v", m)
	}
}

// An act for all rooms holds in every room, on this node at once, also in those that its user comes to later; undone, it
// does not.
func TestAllRooms(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	admin := c.token("admin", protocol.RoleModerator, "*")
	ken := c.token("ken", protocol.RoleViewer, "*")
	here := c.mustDial("r", "?token="+ken)
	here.comment("before")
	if status, _, p := c.act(c.mod, `{"type":"ban","user":"ken","all_rooms":true}`); status != http.StatusForbidden || !strings.Contains(p.Detail, "all rooms") {
		t.Errorf("a moderator of one room: %d %+v", status, p)
	}
	done := c.does(admin, `{"type":"ban","user":"ken","all_rooms":true,"reason":"spam"}`)
	if code, reason := here.closed(); code != websocket.StatusCode(protocol.CloseBanned) || !strings.Contains(reason, "spam") {
		t.Errorf("closed with %d %q", code, reason)
	}
	for _, room := range []string{"r", "elsewhere"} {
		if code, _ := c.mustDial(room, "?token="+ken).closed(); code != websocket.StatusCode(protocol.CloseBanned) {
			t.Errorf("came into %s: %d", room, code)
		}
		if status, body := c.do(http.MethodPost, c.url+"/v1/rooms/"+room+"/comments", ken, `{"text":"x"}`); status != http.StatusForbidden || !strings.Contains(body, `"banned"`) {
			t.Errorf("comments in %s: %d %s", room, status, body)
		}
	}
	if status, _, p := c.act(c.mod, `{"type":"unban","user":"ken"}`); status != http.StatusForbidden || !strings.Contains(p.Detail, "all_rooms") {
		t.Errorf("lifted in one room: %d %+v", status, p)
	}
	if status, _, _ := c.act(c.mod, fmt.Sprintf(`{"type":"undo","act":%q}`, done.Act)); status != http.StatusForbidden {
		t.Errorf("undone by a moderator of one room: %d", status)
	}
	c.does(admin, `{"type":"unban","user":"ken","all_rooms":true}`)
	for _, room := range []string{"r", "elsewhere"} {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			status, body := c.do(http.MethodPost, c.url+"/v1/rooms/"+room+"/comments", ken, `{"text":"back"}`)
			if status == http.StatusCreated {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("after it was lifted, in %s: %d %s", room, status, body)
			}
		}
		page, _ := c.comments(room, nil)
		if n := len(page.Items); n == 0 || page.Items[n-1].Text != "back" {
			t.Errorf("%s has %+v", room, page.Items)
		}
	}
}

// An act until the broadcast ends holds in the one that runs, or in the next.
func TestUntilTheBroadcastEnds(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken := c.in(c.ken)
	ken.comment("a")
	c.does(c.mod, `{"type":"mute","user":"ken","until":"broadcast"}`)
	for _, status := range []string{"live", "scheduled", "live"} {
		c.set(`{"status":"` + status + `"}`)
		if e := ken.refused("b"); e["code"] != "muted" || e["retry_ms"] != nil {
			t.Errorf("%s: %v", status, e)
		}
	}
	if got := c.read(); got != "a" {
		t.Errorf("what can be read is %q", got)
	}
}

// What is not there any more is removed all the same; only its author could not say that it was theirs.
func TestActsOnWhatIsGone(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken := c.in(c.ken)
	id := ken.comment("a")
	if done := c.does(c.mod, `{"type":"remove","ids":["zzzzzabcd","`+id+`"]}`); done.Act == "" {
		t.Errorf("%+v", done)
	}
	if got := c.read(); got != "" {
		t.Errorf("what can be read is %q", got)
	}
	if status, _, _ := c.act(c.ken, `{"type":"remove","ids":["zzzzzabcd"]}`); status != http.StatusForbidden {
		t.Errorf("a viewer: %d", status)
	}
	// A thousand at once, over the socket too.
	ids := make([]string, protocol.MaxActIDs)
	for i := range ids {
		ids[i] = fmt.Sprintf("zzzzzzzzz%06d", i)
	}
	list, _ := json.Marshal(ids)
	c.does(c.mod, `{"type":"remove","ids":`+string(list)+`}`)
	mod := c.in(c.mod)
	mod.say(`{"type":"remove","ref":"m","ids":` + string(list) + `}`)
	if m := mod.next("ok", "error"); m["act"] == nil {
		t.Errorf("%v", m)
	}
	if m := ken.next("removed"); len(m["ids"].([]any)) != 2 {
		t.Errorf("%v", m)
	}
	if m := ken.next("removed"); len(m["ids"].([]any)) != len(ids) {
		t.Errorf("%d ids", len(m["ids"].([]any)))
	}
}
