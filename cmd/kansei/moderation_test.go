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

// reads reads JSON from a path of the room.
func (c crew) reads(token, path string, into any) (status int, problem protocol.Problem) {
	c.t.Helper()
	status, answer := c.do(http.MethodGet, c.url+"/v1/rooms/r/"+path, token, "")
	if status != http.StatusOK {
		into = &problem
	}
	if err := json.Unmarshal([]byte(answer), into); err != nil {
		c.t.Fatalf("%s: %d %s", path, status, answer)
	}
	return status, problem
}

// logged waits until the log of moderation says something, each entry in a word or two, the latest first.
func (c crew) logged(want ...string) []protocol.Entry {
	c.t.Helper()
	var log protocol.ModerationLog
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		log = protocol.ModerationLog{}
		if status, problem := c.reads(c.mod, "moderation", &log); status != http.StatusOK {
			c.t.Fatal(status, problem)
		}
		got := []string{}
		for i := range log.Entries {
			got = append(got, entry(&log.Entries[i]))
		}
		if fmt.Sprint(got) == fmt.Sprint(want) {
			return log.Entries
		}
		if time.Now().After(until) {
			c.t.Fatalf("the log is\n%q\nwant\n%q", got, want)
		}
	}
}

// entry is an entry in short: what, whom, by whom, and who has undone it.
func entry(e *protocol.Entry) string {
	s := e.Type
	if e.User != nil {
		s += " " + e.User.ID
	}
	if e.Comments > 0 {
		s += fmt.Sprintf(" %d comments", e.Comments)
	}
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	s += " by " + e.By.ID
	if e.Undone != nil {
		s += ", undone by " + e.Undone.By.ID
	}
	return s
}

// What the staff do is in the log of moderation, with whom, why, until when, and who has undone it. The staff
// is told of it as it happens, and nobody else.
func TestLogOfModeration(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken, staff := c.in(c.ken), c.in(c.mod)
	ken.next("welcome")
	staff.next("welcome")
	said := ken.comment("something")
	own := ken.comment("my own")
	began := time.Now().UnixMilli()

	mute := c.does(c.mod, `{"type":"mute","user":"ken","for_ms":3600000,"reason":"advertising"}`)
	live := staff.next("moderation")["entry"].(map[string]any)
	if live["type"] != "mute" || live["act"] != mute.Act || live["reason"] != "advertising" || live["by"].(map[string]any)["id"] != "mod" {
		t.Errorf("the staff is told %v", live)
	}
	c.does(c.boss, fmt.Sprintf(`{"type":"remove","ids":[%q]}`, said))
	c.does(c.ken, fmt.Sprintf(`{"type":"remove","ids":[%q]}`, own)) // nobody's business
	note := c.does(c.mod, `{"type":"note","user":"ken","text":"first time"}`)
	entries := c.logged("note ken (first time) by mod", "remove 1 comments by boss", "mute ken by mod")
	if e := entries[2]; e.Reason != "advertising" || e.Ends < began+3600_000-5000 || e.Ends > began+3700_000 || e.At < began-5000 || e.By.Role != protocol.RoleModerator {
		t.Errorf("%+v", e)
	}
	if e := entries[1]; fmt.Sprint(e.IDs) != "["+said+"]" {
		t.Errorf("%+v", e)
	}
	staff.next("moderation") // remove
	if live := staff.next("moderation")["entry"].(map[string]any); live["type"] != "note" {
		t.Errorf("the staff is told %v", live)
	}

	// Undone, each stands once, with who has done it.
	c.does(c.boss, fmt.Sprintf(`{"type":"undo","act":%q}`, mute.Act))
	if live := staff.next("moderation")["entry"].(map[string]any); live["act"] != mute.Act || live["undone"].(map[string]any)["by"].(map[string]any)["id"] != "boss" {
		t.Errorf("the staff is told %v", live)
	}
	undone := c.does(c.boss, fmt.Sprintf(`{"type":"undo","act":%q}`, note.Act))
	if again := c.does(c.mod, fmt.Sprintf(`{"type":"undo","act":%q}`, note.Act)); again.Act != undone.Act {
		t.Errorf("a note is undone again: %+v, first %+v", again, undone)
	}
	c.logged("note ken (first time) by mod, undone by boss", "mute ken by mod, undone by boss", "remove 1 comments by boss")

	// Nobody else is told, nor may read it.
	ken.comment("the end")
	for m := ken.next("moderation", "comments"); ; m = ken.next("moderation", "comments") {
		if m["type"] == "moderation" {
			t.Fatalf("a viewer is told %v", m)
		}
		if strings.Contains(fmt.Sprint(m), "the end") {
			break
		}
	}
	for token, want := range map[string]int{c.ken: http.StatusForbidden, "": http.StatusForbidden} {
		for _, path := range []string{"moderation", "users/ken"} {
			if status, _ := c.reads(token, path, new(any)); status != want {
				t.Errorf("%s: %d, want %d", path, status, want)
			}
		}
	}

	// Pages.
	for i := range 5 {
		c.does(c.mod, fmt.Sprintf(`{"type":"note","user":"eve","text":"%d"}`, i))
	}
	var all []string
	for cursor := ""; ; {
		var page protocol.ModerationLog
		c.reads(c.mod, "moderation?limit=3&cursor="+cursor, &page)
		for i := range page.Entries {
			all = append(all, entry(&page.Entries[i]))
		}
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	if len(all) != 8 || all[0] != "note eve (4) by mod" || all[7] != "remove 1 comments by boss" {
		t.Errorf("by pages: %q", all)
	}
	for _, bad := range []string{"limit=0", "limit=x", "cursor=!", "cursor=zzzzzzzzzzzzzzzzzzzz", "all_rooms=yes", "limit=1&limit=2"} {
		if status, problem := c.reads(c.mod, "moderation?"+bad, new(any)); status != http.StatusBadRequest || problem.Detail == "" {
			t.Errorf("%s: %d %+v", bad, status, problem)
		}
	}
	if status, problem := c.reads(c.mod, "moderation?all_rooms=1", new(any)); status != http.StatusForbidden {
		t.Errorf("of all rooms: %d %+v", status, problem)
	}
}

// Acts for all rooms are in a log of their own, and what carries them out is in that of the room.
func TestLogOfAllRooms(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	everywhere := c.token("chief", protocol.RoleModerator, "*")
	ken := c.in(c.ken)
	ken.next("welcome")
	ban := c.does(everywhere, `{"type":"ban","user":"ken","all_rooms":true,"for_ms":60000}`)
	entries := c.logged("ban ken by chief")
	if entries[0].From != ban.Act {
		t.Errorf("%+v", entries[0])
	}
	var log protocol.ModerationLog
	c.reads(everywhere, "moderation?all_rooms=1", &log)
	if len(log.Entries) != 1 || log.Entries[0].Act != ban.Act || !log.Entries[0].AllRooms {
		t.Errorf("%+v", log)
	}
	c.does(everywhere, fmt.Sprintf(`{"type":"undo","act":%q}`, ban.Act))
	c.reads(everywhere, "moderation?all_rooms=1", &log)
	if len(log.Entries) != 1 || log.Entries[0].Undone == nil {
		t.Errorf("undone: %+v", log)
	}
}

// The staff see what somebody has said, what of it is hidden, what was done about them, since when they are known, and on
// how many devices they are there.
func TestPerson(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	first, second := c.in(c.ken), c.in(c.ken)
	first.next("welcome")
	second.next("welcome")
	bad := first.comment("bad")
	first.comment("good")
	c.does(c.mod, fmt.Sprintf(`{"type":"remove","ids":[%q]}`, bad))
	c.does(c.mod, `{"type":"warn","user":"ken","reason":"no"}`)
	c.does(c.mod, `{"type":"note","user":"ken","text":"a note"}`)
	c.does(c.mod, `{"type":"note","user":"eve","text":"another"}`)
	c.logged("note eve (another) by mod", "note ken (a note) by mod", "warn ken by mod", "remove 1 comments by mod")
	var p protocol.Person
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		p = protocol.Person{}
		if status, problem := c.reads(c.mod, "users/ken", &p); status != http.StatusOK {
			t.Fatal(status, problem)
		}
		if p.Devices == 2 && p.FirstSeen > 0 || time.Now().After(until) {
			break
		}
	}
	if p.User.ID != "ken" || p.Devices != 2 || p.FirstSeen == 0 || p.Since == 0 {
		t.Errorf("%+v", p)
	}
	if len(p.Comments) != 2 || p.Comments[0].Text != "good" || p.Comments[0].Removed || p.Comments[1].ID != bad || !p.Comments[1].Removed {
		t.Errorf("%+v", p.Comments)
	}
	if len(p.Acts) != 2 || entry(&p.Acts[0]) != "note ken (a note) by mod" || entry(&p.Acts[1]) != "warn ken by mod" {
		t.Errorf("%+v", p.Acts)
	}
	p = protocol.Person{}
	if c.reads(c.mod, "users/nobody", &p); p.User.ID != "nobody" || p.Devices != 0 || p.FirstSeen != 0 || len(p.Comments)+len(p.Acts) != 0 {
		t.Errorf("nobody is %+v", p)
	}
	if status, problem := c.reads(c.mod, "users/"+url.PathEscape(strings.Repeat("x", 300)), new(any)); status != http.StatusBadRequest {
		t.Errorf("a long id: %d %+v", status, problem)
	}
}
