package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// event publishes an event over HTTP, and returns its id, or why not.
func (c crew) event(token, body string) (id string, problem protocol.Problem) {
	c.t.Helper()
	var posted protocol.Posted
	status, answer := c.do(http.MethodPost, c.url+"/v1/rooms/r/events", token, body)
	if status == http.StatusCreated {
		_ = json.Unmarshal([]byte(answer), &posted)
	} else {
		_ = json.Unmarshal([]byte(answer), &problem)
	}
	return posted.ID, problem
}

// publishes is event for one that has to succeed.
func (c crew) publishes(token, body string) string {
	c.t.Helper()
	id, problem := c.event(token, body)
	if id == "" {
		c.t.Fatalf("%s: %+v", body, problem)
	}
	return id
}

// told reads what comes up to the answer to a beat, and returns the events: name and data of each.
func (c *wsConn) told() (events []string) {
	c.t.Helper()
	c.say(`{"type":"beat"}`)
	for {
		m := c.next("event", "beat", "removed", "restored")
		switch m["type"] {
		case "beat":
			return events
		case "event":
			data, _ := json.Marshal(m["data"])
			was := ""
			if m["cursor"] == nil {
				was = "was "
			}
			events = append(events, fmt.Sprint(was, m["name"], string(data)))
		default:
			events = append(events, fmt.Sprint(m["type"]))
		}
	}
}

// knows waits until what it is told beside answers is that.
func (c *wsConn) knows(what string, want ...string) {
	c.t.Helper()
	var got []string
	for until := time.Now().Add(5 * time.Second); time.Now().Before(until) && len(got) < len(want); time.Sleep(20 * time.Millisecond) {
		got = append(got, c.told()...)
	}
	time.Sleep(100 * time.Millisecond) // nothing more comes
	got = append(got, c.told()...)
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		c.t.Errorf("%s: told %q, not %q", what, got, want)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	c := newCrew(t, "--viewer-events=answer", "--max-lasting=2")
	ken, eve, mod := c.in(c.ken), c.in(c.token("eve", protocol.RoleViewer, "r")), c.in(c.mod)

	c.publishes(c.boss, `{"name":"gift","data":{"amount": 5.00,"from":"さくら"}}`)
	for _, w := range []*wsConn{ken, eve, mod} {
		m := w.next("event")
		if m["name"] != "gift" || m["cursor"] == nil || m["id"] == nil || m["at"] == nil || fmt.Sprint(m["user"]) != "map[id:boss name:boss role:broadcaster]" {
			t.Errorf("told %v", m)
		}
	}
	// In the order of the log, among comments.
	ken.comment("one")
	c.publishes(c.boss, `{"name":"slide","data":{"page":1}}`)
	ken.comment("two")
	var order []string
	for len(order) < 3 {
		switch m := eve.next("event", "comments"); m["type"] {
		case "event":
			order = append(order, fmt.Sprint(m["name"]))
		default:
			order = append(order, texts(m)...)
		}
	}
	if strings.Join(order, " ") != "one slide two" {
		t.Errorf("the order is %q", order)
	}
	// For the staff, and for one user.
	ken.knows("ken, before", `slide{"page":1}`)
	mod.knows("mod, before", `slide{"page":1}`)
	c.publishes(c.mod, `{"name":"note","audience":"staff"}`)
	c.publishes(c.mod, `{"name":"won","audience":"user:ken"}`)
	ken.knows("ken", "wonnull")
	eve.knows("eve")
	mod.knows("mod", "notenull")

	// Viewers publish what they may.
	for body, want := range map[string]protocol.ErrorCode{
		`{"type":"event","ref":"1","name":"answer","data":{"a":1}}`:                                   "",
		`{"type":"event","ref":"2","name":"answer","audience":"staff"}`:                               "",
		`{"type":"event","ref":"3","name":"gift"}`:                                                    protocol.CodeForbidden,
		`{"type":"event","ref":"4","name":"answer","lasting":true}`:                                   protocol.CodeForbidden,
		`{"type":"event","ref":"5","name":"answer","audience":"user:eve"}`:                            protocol.CodeForbidden,
		`{"type":"event","ref":"6","name":"an answer"}`:                                               protocol.CodeBadMessage,
		`{"type":"event","ref":"7","name":"answer","data":{"a":"` + strings.Repeat("x", 4100) + `"}}`: protocol.CodeTooLong,
	} {
		ken.say(body)
		m := ken.next("ok", "error")
		if code, _ := m["code"].(string); code != string(want) {
			t.Errorf("%.80s: %v", body, m)
		}
	}
	// What keeps somebody from commenting keeps them from that too; slow mode does not.
	c.set(`{"slow_ms":60000}`)
	eve.comment("slow")
	eve.say(`{"type":"event","ref":"8","name":"answer"}`)
	if m := eve.next("ok", "error"); m["type"] != "ok" {
		t.Errorf("in slow mode: %v", m)
	}
	c.does(c.mod, `{"type":"mute","user":"eve","for_ms":60000}`)
	eve.say(`{"type":"event","ref":"9","name":"answer"}`)
	if m := eve.next("ok", "error"); m["code"] != string(protocol.CodeMuted) {
		t.Errorf("muted: %v", m)
	}
	// The same ref is the same event.
	one, two := c.publishes(c.boss, `{"ref":"x","name":"gift"}`), c.publishes(c.boss, `{"ref":"x","name":"gift"}`)
	if one != two || c.publishes(c.boss, `{"ref":"x","name":"gift","data":{}}`) == one {
		t.Errorf("%s and %s", one, two)
	}
	if id, problem := c.event(c.ken, `{"name":"gift","user":{"id":"eve"}}`); id != "" || problem.Code != protocol.CodeForbidden {
		t.Errorf("in the name of another: %s %+v", id, problem)
	}
}

// Who comes later has the latest lasting event of each name, exactly one, whichever way it comes.
func TestLastingEvents(t *testing.T) {
	t.Parallel()
	c := newCrew(t, "--max-lasting=2")
	here := c.in(c.ken)
	here.told()
	for page := range 3 {
		c.publishes(c.boss, fmt.Sprintf(`{"name":"slide","data":{"page":%d},"lasting":true}`, page))
	}
	c.publishes(c.boss, `{"name":"crew","lasting":true,"audience":"staff"}`)
	c.publishes(c.boss, `{"name":"gift"}`)
	if id, problem := c.event(c.boss, `{"name":"third","lasting":true}`); id != "" || problem.Code != protocol.CodeForbidden {
		t.Errorf("a name too many: %s %+v", id, problem)
	}
	here.knows("who is here", `slide{"page":0}`, `slide{"page":1}`, `slide{"page":2}`, "giftnull")
	c.in(c.ken).knows("who comes", `was slide{"page":2}`)
	c.in(c.mod).knows("a moderator who comes", `was slide{"page":2}`, "was crewnull")

	// Over HTTP.
	page, _ := c.comments("r", nil)
	if len(page.Messages) != 1 || !strings.Contains(string(page.Messages[0]), `"page":2`) {
		t.Errorf("over HTTP: %s", page.Messages)
	}
	here.comment("one")
	if page, _ = c.comments("r", url.Values{"limit": {"1"}}); len(page.Messages) != 1 || !strings.Contains(string(page.Messages[0]), `"page":2`) {
		t.Errorf("the latest one alone: %s", page.Messages)
	}
	if page, _ = c.comments("r", url.Values{"limit": {"100"}}); strings.Count(fmt.Sprintf("%s", page.Messages), `"page":2`) != 1 {
		t.Errorf("with the events themselves: %s", page.Messages)
	}
	if page, _ = c.comments("r", url.Values{"since": {"garbage"}, "limit": {"100"}}); strings.Count(fmt.Sprintf("%s", page.Messages), `"page":2`) != 1 {
		t.Errorf("who cannot be recovered: %s", page.Messages)
	}
	// It is removed, and back.
	id := c.publishes(c.boss, `{"name":"slide","data":{"page":9},"lasting":true}`)
	here.knows("who is here", `slide{"page":9}`)
	status, _, _ := c.act(c.mod, fmt.Sprintf(`{"type":"remove","ids":[%q]}`, id))
	if status != http.StatusForbidden {
		t.Errorf("a moderator removes what the broadcaster has published: %d", status)
	}
	done := c.does(c.boss, fmt.Sprintf(`{"type":"remove","ids":[%q]}`, id))
	here.knows("who is here", "removed")
	c.in(c.ken).knows("who comes to what was removed")
	c.does(c.mod, fmt.Sprintf(`{"type":"undo","act":%q}`, done.Act))
	here.knows("who is here", "restored")
	c.in(c.ken).knows("who comes to what is back", `was slide{"page":9}`)
}

// A node that was restarted has it, however much was said since, and so has who resumes there.
func TestLastingAfterRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	begin := func() (crew, func()) {
		n, stop := startNode(t, "--rate=10000", "--burst=10000", "--data-dir="+dir)
		return crew{n, n.token("mod", protocol.RoleModerator, "r"), n.token("boss", protocol.RoleBroadcaster, "r"), n.token("ken", protocol.RoleViewer, "r")}, stop
	}
	c, stop := begin()
	ken := c.in(c.ken)
	before, _ := ken.next("comments")["cursor"].(string)
	c.publishes(c.boss, `{"name":"slide","data":{"page":1},"lasting":true}`)
	c.publishes(c.boss, `{"name":"slide","data":{"page":2},"lasting":true}`)
	cursor, _ := ken.next("event")["cursor"].(string)
	for i := range 100 {
		ken.comment(fmt.Sprint("c", i))
	}
	stop()
	c, _ = begin()
	c.in(c.ken).knows("who comes", `was slide{"page":2}`)
	c.mustDial("r", "?token="+c.ken+"&since="+before).knows("who resumes from before them", `slide{"page":1}`, `slide{"page":2}`)
	c.mustDial("r", "?token="+c.ken+"&since="+cursor).knows("who resumes from between them", `slide{"page":2}`)
	c.mustDial("r", "?token="+c.ken+"&since=garbage").knows("who cannot resume", `was slide{"page":2}`)
	last := c.mustDial("r", "?token="+c.ken)
	at, _ := last.next("comments")["cursor"].(string)
	c.mustDial("r", "?token="+c.ken+"&since="+at).knows("who has it")
	c.publishes(c.boss, `{"name":"slide","data":{"page":3},"lasting":true}`)
	last.knows("who is here", `slide{"page":3}`)
	c.in(c.ken).knows("who comes", `was slide{"page":3}`)
}
