package main

import (
	"encoding/csv"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/internal/archive"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// A broadcaster reads who watched while the broadcast runs, and when no more can come; a spreadsheet reads it too. A person can have
// theirs, and have it erased.
func TestWatchLog(t *testing.T) {
	t.Parallel()
	c := newCrew(t, "--archive-settle=1s")
	evil := c.mint(auth.Claims{Subject: "=evil()", Name: "+1", Role: protocol.RoleViewer, Rooms: []string{"r"}})
	var none protocol.Problem
	if status, p := c.reads(c.boss, "watchlog", &none); status != http.StatusNotFound || p.Code != protocol.CodeNoRoom {
		t.Errorf("before the first broadcast: %d %+v", status, p)
	}
	c.set(`{"status":"live"}`)
	ken := c.mustDial("r", "?visible=1&media_ms=1000"+tokenQuery(c.ken))
	if m := ken.next("welcome"); m["watch"] != "users" {
		t.Errorf("the welcome does not say what is kept: %v", m)
	}
	other := c.mustDial("r", "?visible=0"+tokenQuery(evil))
	other.next("welcome")
	crew := c.mustDial("r", "?count=0"+tokenQuery(c.boss))
	crew.next("welcome")
	var log protocol.WatchLog
	for until := time.Now().Add(20 * time.Second); len(log.Users) < 2; time.Sleep(50 * time.Millisecond) {
		if status, p := c.reads(c.boss, "watchlog", &log); status != http.StatusOK {
			t.Fatal(status, p)
		}
		if time.Now().After(until) {
			t.Fatalf("while it runs: %+v", log)
		}
	}
	if log.Broadcast != "1" || log.Final || log.Summary.Users != 2 || log.Summary.BeganAt == 0 || log.Summary.EndedAt != 0 || log.Users[0].ID != "=evil()" || log.Users[1].ID != "ken" {
		t.Errorf("while it runs: %+v", log)
	}
	time.Sleep(time.Second)
	ken.say(`{"type":"beat","visible":true,"media_ms":2000}`)
	ken.next("beat")
	_ = other.Close(websocket.StatusNormalClosure, "")
	time.Sleep(1500 * time.Millisecond)
	_ = ken.Close(websocket.StatusNormalClosure, "")
	c.set(`{"status":"ended"}`)
	for until := time.Now().Add(30 * time.Second); !log.Final; time.Sleep(100 * time.Millisecond) {
		if status, p := c.reads(c.boss, "watchlog?broadcast=1", &log); status != http.StatusOK {
			t.Fatal(status, p)
		}
		if time.Now().After(until) {
			t.Fatalf("it does not become final: %+v", log)
		}
	}
	u := log.Users[1]
	if log.Revision != 1 || u.VisibleMS < 2000 || u.VisibleMS > u.ConnectedMS || u.PlayedMS < 900 || u.PlayedMS > 1100 || u.Estimated || u.Share <= log.Users[0].Share || log.Users[0].VisibleMS != 0 || log.Summary.Devices["other"] != 2 {
		t.Errorf("%+v", log)
	}
	if c.reads(c.boss, "watchlog?min_share=0.85", &log); len(log.Users) != 1 || log.Users[0].ID != "ken" {
		t.Errorf("those who watched 85 %%: %+v", log.Users)
	}
	if c.reads(c.boss, "watchlog?users=0", &log); len(log.Users) != 0 || log.Summary.Users != 2 {
		t.Errorf("without users: %+v", log)
	}
	var all protocol.Broadcasts
	if c.reads(c.boss, "broadcasts", &all); len(all.Broadcasts) != 1 || !all.Broadcasts[0].Final || all.Broadcasts[0].Broadcast != "1" {
		t.Errorf("%+v", all)
	}
	for query, field := range map[string]string{
		"broadcast=x": "broadcast", "broadcast=": "broadcast", "broadcast=0-": "broadcast", "broadcast=-1": "broadcast", "broadcast=1.lease": "broadcast", "min_share=2": "min_share", "min_share=NaN": "min_share", "min_share=": "min_share",
		"tz=Mars": "tz", "tz=../../etc/passwd": "tz", "tz=Local": "tz", "users=2": "users", "users=0&users=1": "users",
	} {
		if status, p := c.reads(c.boss, "watchlog?"+query, &none); status != http.StatusBadRequest || !strings.Contains(p.Detail, field) {
			t.Errorf("%s: %d %+v", query, status, p)
		}
	}
	if status, p := c.reads(c.boss, "watchlog?broadcast=7", &none); status != http.StatusNotFound || !strings.Contains(p.Detail, "no such broadcast") {
		t.Errorf("%d %+v", status, p)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.url+"/v1/rooms/r/watchlog?tz=Asia/Tokyo", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.boss)
	req.Header.Set("Accept", "text/csv")
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	rows, err := csv.NewReader(answer.Body).ReadAll()
	if err != nil || len(rows) != 3 || rows[0][0] != "\uFEFFid" || rows[1][0] != "'=evil()" || rows[1][1] != "'+1" || rows[2][0] != "ken" || !strings.HasSuffix(rows[2][3], "+09:00") {
		t.Errorf("%q, %v", rows, err)
	}
	if got := answer.Header.Get("Content-Disposition"); got != `attachment; filename="r-1.csv"` {
		t.Error(got)
	}

	status, out, errOut := command(t, "archive", "export", "--user=ken", c.opsFlag())
	var exported archive.Exported
	if err := json.Unmarshal([]byte(out), &exported); status != 0 || err != nil || len(exported.Broadcasts) != 1 || exported.Broadcasts[0].Whole.VisibleMS != u.VisibleMS || len(exported.Broadcasts[0].Intervals) != 1 {
		t.Errorf("%d %s %s %v", status, out, errOut, err)
	}
	if status, out, errOut = command(t, "archive", "forget", "--user=ken", c.opsFlag()); status != 0 || !strings.Contains(out, "KANSEI_WATCH") || !strings.Contains(out, "This does not reach") {
		t.Errorf("%d %s %s", status, out, errOut)
	}
	if status, out, errOut = command(t, "archive", "list", c.opsFlag()); status != 0 || !strings.Contains(out, "true") || strings.Count(out, "\n") != 2 {
		t.Errorf("%d %s %s", status, out, errOut)
	}
	log = protocol.WatchLog{}
	if c.reads(c.boss, "watchlog", &log); log.Revision != 2 || len(log.Users) != 1 || log.Users[0].ID != "=evil()" {
		t.Errorf("after ken was erased: %+v", log)
	}
}

// What a room keeps of who watches it, it says, and keeps no more.
func TestWatchModes(t *testing.T) {
	t.Parallel()
	c := newCrew(t, "--watch=totals")
	c.set(`{"status":"live"}`)
	read := func(users, totals int) {
		t.Helper()
		var log protocol.WatchLog
		for until := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if status, p := c.reads(c.boss, "watchlog", &log); status != http.StatusOK {
				t.Fatal(status, p)
			}
			if len(log.Users) == users && log.Summary.TotalsOnly == totals && log.Summary.Users == users+totals {
				return
			}
			if time.Now().After(until) {
				t.Fatalf("%+v, want %d users and %d of whom the totals alone are kept", log, users, totals)
			}
		}
	}
	enter := func(mode string) *wsConn {
		t.Helper()
		v := c.mustDial("r", "?visible=1"+tokenQuery(c.ken))
		if m := v.next("welcome"); m["watch"] != mode {
			t.Errorf("the welcome says %v, want %s", m["watch"], mode)
		}
		return v
	}
	ken := enter("totals")
	read(0, 1)
	c.set(`{"watch":"users"}`)
	read(1, 1)
	_ = ken.Close(websocket.StatusNormalClosure, "")
	c.set(`{"watch":"off"}`)
	off := enter("off")
	time.Sleep(2500 * time.Millisecond)
	read(1, 1)
	var log protocol.WatchLog
	c.reads(c.boss, "watchlog", &log)
	if log.Summary.Intervals != 2 {
		t.Errorf("%+v: what was off is kept", log.Summary)
	}
	_ = off.Close(websocket.StatusNormalClosure, "")
}
