package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

func TestModes(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken, guest, mod := c.in(c.ken), c.mustDial("r", ""), c.in(c.mod)
	code := func(conn *wsConn, text string) string {
		t.Helper()
		conn.say(fmt.Sprintf(`{"type":"comment","ref":%q,"text":%q}`, text, text))
		m := conn.next("ok", "error")
		code, _ := m["code"].(string)
		return code
	}
	n := 0
	for _, row := range []struct{ patch, ken, guest, mod string }{
		{`{"mode":"users"}`, "", "locked", ""},
		{`{"mode":"members"}`, "locked", "locked", ""},
		{`{"mode":"known","known_ms":3600000}`, "locked", "locked", ""},
		{`{"mode":"locked"}`, "locked", "locked", ""},
		{`{"mode":null}`, "", "", ""},
		{`{"status":"scheduled"}`, "", "", ""},
		{`{"early_chat":false}`, "locked", "locked", ""},
		{`{"status":"live","links":"none"}`, "", "", ""},
		{`{"status":"ended"}`, "locked", "locked", ""},
	} {
		c.set(row.patch)
		n++
		for who, want := range map[*wsConn]string{ken: row.ken, guest: row.guest, mod: row.mod} {
			if got := code(who, fmt.Sprint(n, want)); got != want {
				t.Errorf("%s: %q, want %q", row.patch, got, want)
			}
		}
	}
	c.set(`{"status":"live","text":5}`)
	if got := code(ken, "看看 https://example.com"); got != "too_long" {
		t.Errorf("too long: %q", got)
	}
	c.set(`{"text":null}`)
	for text, want := range map[string]string{
		"看看https://x": "no_links", "WWW.example.com": "no_links", "http:// nothing": "", "www. nothing": "", "www.　空": "", "awww.cute": "", "https://": "",
	} {
		if got := code(ken, text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	if got := code(mod, "https://example.com"); got != "" {
		t.Errorf("the staff: %q", got)
	}
	// Whom the staff trusts is known.
	c.set(`{"mode":"known"}`)
	if e := ken.refused("k"); e["retry_ms"] == nil {
		t.Errorf("%v", e)
	}
	c.does(c.mod, `{"type":"trust","user":"ken"}`)
	ken.comment("trusted")
}

func TestSlowMode(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken, mod := c.in(c.ken), c.in(c.mod)
	ken.comment("before")
	c.set(`{"slow_ms":60000}`)
	e := ken.refused("too soon")
	if left := e["retry_ms"].(float64); e["code"] != "slow_mode" || left < 50000 || left > 60000 {
		t.Errorf("%v", e)
	}
	b := c.in(c.ken).next("welcome")["you"].(map[string]any)["blocked"].(map[string]any)
	if left := b["retry_ms"].(float64); b["code"] != "slow_mode" || left < 50000 || left > 60000 {
		t.Errorf("a reload: %v", b)
	}
	mod.comment("1")
	mod.comment("2")
	// Two at once through one node: one.
	eve := c.in(c.token("eve", protocol.RoleViewer, "r"))
	eve.say(`{"type":"comment","ref":"a","text":"a"}`)
	eve.say(`{"type":"comment","ref":"b","text":"b"}`)
	first, second := eve.next("ok", "error"), eve.next("ok", "error")
	if first["type"] == second["type"] {
		t.Errorf("%v and %v", first, second)
	}
	c.set(`{"slow_ms":0}`)
	ken.comment("after")
}

func TestStateOverTheSocket(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken, mod := c.in(c.ken), c.in(c.mod)
	id := ken.comment("pin me")
	mod.say(fmt.Sprintf(`{"type":"set","ref":"s","rev":0,"state":{"title":"t","notice":"n\n\u200bn","pin":{"id":%q},"data":{"a":[1,"<b>"]},"count":false}}`, id))
	ok := mod.next("ok", "error")
	if ok["rev"] == nil {
		t.Fatalf("%v", ok)
	}
	var st map[string]any
	for st = ken.next("state"); st["rev"] == 0.0; st = ken.next("state") {
	}
	pin := st["pin"].(map[string]any)["comment"].(map[string]any)
	if st["notice"] != "n\nn" || pin["text"] != "pin me" || pin["user"].(map[string]any)["id"] != "ken" || fmt.Sprint(st["data"]) != "map[a:[1 <b>]]" || st["rev"] != ok["rev"] {
		t.Errorf("%v", st)
	}
	// Of a conflict everybody gets the present document.
	mod.say(`{"type":"set","ref":"s2","rev":0,"state":{"title":"u"}}`)
	e := mod.next("ok", "error")
	if now, _ := e["state"].(map[string]any); e["code"] != "conflict" || now["title"] != "t" || now["rev"] != ok["rev"] {
		t.Errorf("%v", e)
	}
	// A client of the first version ends the broadcast, and wipes nothing that it does not know.
	status, answer := c.do(http.MethodPut, c.url+"/v1/rooms/r", c.boss, fmt.Sprintf(`{"rev":%.0f,"status":"ended","title":"t"}`, ok["rev"]))
	if status != http.StatusOK || !strings.Contains(answer, `"notice":"n\nn"`) {
		t.Errorf("%d %s", status, answer)
	}
	// What is pinned goes when it is removed, and comes back.
	done := c.does(c.mod, fmt.Sprintf(`{"type":"remove","ids":[%q]}`, id))
	if _, body := c.get(c.url + "/v1/rooms/r"); strings.Contains(body, "pin me") || !strings.Contains(body, `"title":"t"`) {
		t.Errorf("%s", body)
	}
	c.does(c.mod, fmt.Sprintf(`{"type":"undo","act":%q}`, done.Act))
	if _, body := c.get(c.url + "/v1/rooms/r"); !strings.Contains(body, "pin me") {
		t.Errorf("%s", body)
	}
	ken.say(`{"type":"set","ref":"s3","state":{"title":"mine"}}`)
	if e := ken.next("error"); e["code"] != "forbidden" {
		t.Errorf("%v", e)
	}
	for _, bad := range []string{`{"slow_ms":300001}`, `{"mode":"x"}`, `{"pin":{"id":"zzzzzzzzzz"}}`, `{"notice":"` + strings.Repeat("x", 1001) + `"}`, `[]`} {
		if status, answer := c.do(http.MethodPatch, c.url+"/v1/rooms/r", c.boss, bad); status != 400 && status != 422 {
			t.Errorf("%.40s: %d %s", bad, status, answer)
		}
	}
}

// With --rooms there are only rooms whose state was set, and those that match a pattern.
func TestWhichRoomsExist(t *testing.T) {
	t.Parallel()
	c := newCrew(t, "--rooms=created", "--rooms=lesson-*")
	ken := c.token("ken", protocol.RoleViewer, "*")
	in := func(room string) bool {
		conn := c.mustDial(room, "?token="+ken)
		m := conn.nextOrClosed()
		return m["type"] == "welcome"
	}
	for room, want := range map[string]bool{"r": false, "created": false, "lesson-1": true, "lesson-": true, "other": false} {
		if got := in(room); got != want {
			t.Errorf("%s is there: %v", room, got)
		}
		status, body := c.do(http.MethodGet, c.url+"/v1/rooms/"+room+"/comments", ken, "")
		if (status == http.StatusOK) != want || !want && !strings.Contains(body, `"no_room"`) {
			t.Errorf("comments of %s: %d %s", room, status, body)
		}
		if status, body := c.do(http.MethodPost, c.url+"/v1/rooms/"+room+"/comments", ken, `{"text":"x"}`); (status == http.StatusCreated) != want {
			t.Errorf("a comment in %s: %d %s", room, status, body)
		}
	}
	c.set(`{"title":"made"}`)
	if !in("r") {
		t.Error("a room that was made is not there")
	}
	if status, body := c.do(http.MethodDelete, c.url+"/v1/rooms/r", c.boss, ""); status != http.StatusOK || !strings.Contains(body, "remains") {
		t.Errorf("%d %s", status, body)
	}
	for end := time.Now().Add(5 * time.Second); in("r"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("a room that was deleted is there")
		}
	}
	c.set(`{"title":"made anew"}`)
	if _, body := c.get(c.url + "/v1/rooms/r"); !strings.Contains(body, "made anew") || strings.Contains(body, "deleted") {
		t.Errorf("%s", body)
	}
}

// A comment that is older than its room keeps is shown by nobody, before the log has removed it too.
func TestRoomKeepsForAShortTime(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	c.in(c.ken).comment("old")
	c.set(`{"keep_ms":60000}`)
	if got := c.read(); got != "old" {
		t.Errorf("what can be read is %q", got)
	}
	if status, body := c.do(http.MethodPatch, c.url+"/v1/rooms/r", c.boss, `{"keep_ms":1000}`); status != http.StatusBadRequest || !strings.Contains(body, "60000") {
		t.Errorf("%d %s", status, body)
	}
}

// The audience of a delayed room is behind on a node that has just opened it too, however much was said
// within the delay.
func TestDelayOnAColdNode(t *testing.T) {
	t.Parallel()
	args := []string{"--rate=10000", "--burst=10000", "--data-dir=" + t.TempDir()}
	n, stop := startNode(t, args...)
	n.ready()
	c := crew{testNode: n, boss: n.token("boss", protocol.RoleBroadcaster, "r"), ken: n.token("ken", protocol.RoleViewer, "r")}
	c.set(`{"delay_ms":60000}`)
	ken := c.in(c.ken)
	before, _ := ken.next("comments")["cursor"].(string)
	for i := range 120 { // more than are read
		ken.comment(fmt.Sprint("c", i))
	}
	stop()
	n, _ = startNode(t, args...)
	c.testNode = n
	if m := c.in(c.ken).next("comments"); len(texts(m)) > 0 {
		t.Errorf("who comes gets %q", texts(m))
	}
	for _, q := range []url.Values{nil, {"limit": {"100"}}, {"since": {before}}} {
		if page, _ := c.comments("r", q); len(page.Items) > 0 {
			t.Errorf("%v reads %d comments", q, len(page.Items))
		}
	}
	if m := c.in(c.boss).next("comments"); len(texts(m)) < 50 {
		t.Errorf("the staff gets %q", texts(m))
	}
	back := c.mustDial("r", "?token="+c.ken+"&since="+before)
	if m := back.next("welcome"); m["recovered"] != true {
		t.Errorf("who comes back: %v", m)
	}
	c.set(`{"delay_ms":null}`)
	var got []string
	for len(got) < 120 {
		got = append(got, texts(back.next("comments"))...)
	}
	if got[0] != "c0" || got[119] != "c119" || len(got) != 120 {
		t.Errorf("who was there gets %q", got)
	}
}

// A shield lies over the state, for everybody and at once; what is below is back when it is off.
func TestShield(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	guest, mod := c.mustDial("r", ""), c.in(c.mod)
	guest.next("comments")
	mod.next("comments")
	guest.comment("before")
	c.set(`{"slow_ms":2000,"notice":"hello"}`)
	c.set(`{"shield":true}`)
	state := func(w *wsConn, shield, slow any) map[string]any {
		for {
			if m := w.next("state"); m["shield"] == shield && m["slow_ms"] == slow {
				return m
			}
		}
	}
	if m := state(guest, true, 10000.0); m["mode"] != "known" || m["slow_ms"] != 10000.0 || m["links"] != "none" || m["notice"] != "hello" || m["under"] != nil {
		t.Errorf("the audience is told %v", m)
	}
	if m := state(mod, true, 10000.0); fmt.Sprint(m["under"]) != "map[slow_ms:2000]" {
		t.Errorf("the staff is told %v", m)
	}
	if m := guest.refused("newcomer"); m["code"] != "locked" {
		t.Errorf("a newcomer: %v", m)
	}
	mod.comment("https://example.com is the staff's")
	// What is below changes below; the stricter of both counts.
	c.set(`{"slow_ms":60000,"mode":"locked"}`)
	if m := state(mod, true, 60000.0); m["mode"] != "locked" {
		t.Errorf("the stricter ones: %v", m)
	}
	c.set(`{"shield_preset":{"links":"none"},"slow_ms":null,"mode":null}`)
	if m := state(guest, true, nil); m["mode"] != nil || m["links"] != "none" || m["shield_preset"] != nil {
		t.Errorf("with a preset of its own: %v", m)
	}
	guest.comment("no link")
	if m := guest.refused("www.a.b"); m["code"] != "no_links" {
		t.Errorf("a link: %v", m)
	}
	c.set(`{"shield":false}`)
	if m := state(guest, nil, nil); m["links"] != nil {
		t.Errorf("off again: %v", m)
	}
	for _, bad := range []string{`{"shield":1}`, `{"shield_preset":[]}`, `{"shield_preset":{"mode":"shut"}}`, `{"shield_preset":{"slow_ms":300001}}`, `{"shield_preset":{"title":"x"}}`} {
		if status, answer := c.do(http.MethodPatch, c.url+"/v1/rooms/r", c.boss, bad); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", bad, status, answer)
		}
	}
}
