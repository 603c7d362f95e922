package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kansei-live/kansei/protocol"
)

// comments asks for a page of a room, and says whether the place was followed.
func (n *testNode) comments(room string, q url.Values) (page protocol.Comments, recovered bool) {
	n.t.Helper()
	res, err := http.Get(n.url + "/v1/rooms/" + room + "/comments?" + q.Encode())
	if err != nil {
		n.t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&page); err != nil || res.StatusCode != http.StatusOK {
		n.t.Fatalf("%v: %s, %v", q, res.Status, err)
	}
	return page, res.Header.Get("Kansei-Recovered") == "true"
}

// A reader that pages through a room over HTTP, backwards and forwards, on a node that has just
// come, gets everything that was said there, once and in order, however many others talk in
// other rooms.
func TestHistory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := runNode(t, "--data-dir="+dir, "--rate-staff=100000", "--burst-staff=100000")
	staff := first.token("boss", protocol.RoleBroadcaster, "*")
	const said = 700
	var wg sync.WaitGroup
	ids := make([]string, said)
	for i := range said { // in any order
		wg.Go(func() {
			room := "r"
			if i%3 == 2 {
				room = "other"
			}
			status, body := first.do("POST", first.url+"/v1/rooms/"+room+"/comments", staff, fmt.Sprintf(`{"text":"%d"}`, i))
			var posted protocol.Posted
			if err := json.Unmarshal([]byte(body), &posted); err != nil || status != 201 {
				t.Errorf("POST: %d %s", status, body)
			}
			if room == "r" {
				ids[i] = posted.ID
			}
		})
		if i%20 == 19 {
			wg.Wait()
		}
	}
	wg.Wait()
	ids = slices.DeleteFunc(ids, func(id string) bool { return id == "" })
	slices.Sort(ids)
	if err := first.stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	n := runNode(t, "--data-dir="+dir)

	var back []protocol.Comment
	place, cursor := "", ""
	for pages := 0; ; pages++ {
		q := url.Values{"limit": {"37"}}
		if place != "" {
			q.Set("before", place)
		}
		page, recovered := n.comments("r", q)
		if recovered != (place != "") || len(page.Items) > 37 || pages > said {
			t.Fatalf("page %d before %q: recovered %v, %d items", pages, place, recovered, len(page.Items))
		}
		if cursor == "" {
			cursor = page.Cursor
		}
		back = append(page.Items, back...)
		if place = page.Before; place == "" {
			break
		}
	}
	got := make([]string, len(back))
	for i, c := range back {
		got[i] = c.ID
		if i > 0 && c.At < back[i-1].At {
			t.Errorf("%s of %d comes after one of %d", c.ID, c.At, back[i-1].At)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, ids) {
		t.Errorf("backwards: %d comments of %d", len(got), len(ids))
	}
	// All at once is the same, and leads nowhere.
	all, _ := n.comments("r", url.Values{"limit": {"1000"}})
	if !slices.EqualFunc(all.Items, back, sameComment) || all.Before != "" || all.Cursor != cursor {
		t.Errorf("at once: %d comments of %d, before %q, cursor %s, not %s", len(all.Items), len(back), all.Before, all.Cursor, cursor)
	}
	// And from the middle, in both directions.
	middle, _ := n.comments("r", url.Values{"limit": {"200"}})
	older, _ := n.comments("r", url.Values{"limit": {"1000"}, "before": {middle.Before}})
	forward := older.Items
	for place := older.Cursor; ; {
		page, recovered := n.comments("r", url.Values{"limit": {"41"}, "after": {place}})
		if !recovered {
			t.Fatalf("not recovered after %s", place)
		}
		forward = append(forward, page.Items...)
		if page.Cursor == place {
			break
		}
		place = page.Cursor
	}
	if !slices.EqualFunc(forward, back, sameComment) {
		t.Errorf("from the middle: %d comments of %d", len(forward), len(back))
	}
	since, recovered := n.comments("r", url.Values{"limit": {"300"}, "since": {older.Cursor}})
	if !recovered || !slices.EqualFunc(since.Items, middle.Items, sameComment) {
		t.Errorf("since: recovered %v, %d comments of %d", recovered, len(since.Items), len(middle.Items))
	}
	if page, recovered := n.comments("r", url.Values{"before": {"garbage"}, "limit": {"3"}}); recovered || !slices.EqualFunc(page.Items, back[len(back)-3:], sameComment) {
		t.Errorf("garbage: recovered %v, %d comments", recovered, len(page.Items))
	}
}

func sameComment(a, b protocol.Comment) bool { return a.ID == b.ID && a.Text == b.Text }

// A room whose broadcast has ended takes comments of the staff alone, over WebSocket and
// HTTP, whether this node has it open or not. What was said before is answered as it was.
func TestEndedRoomIsLocked(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-read-rooms=1")
	staff, viewer := n.token("boss", protocol.RoleBroadcaster, "*"), n.token("u", protocol.RoleViewer, "*")
	w := n.mustDial("r", "?token="+viewer)
	w.next("comments")
	w.say(`{"type":"comment","ref":"1","text":"in time"}`)
	before := w.next("ok")
	rev := uint64(0)
	set := func(room, status string) {
		t.Helper()
		code, body := n.do("PUT", n.url+"/v1/rooms/"+room, staff, `{"rev":`+strconv.FormatUint(rev, 10)+`,"status":"`+status+`"}`)
		var st protocol.State
		if err := json.Unmarshal([]byte(body), &st); err != nil || code != 200 {
			t.Fatalf("PUT: %d %s", code, body)
		}
		rev = st.Rev
	}
	set("r", "ended")
	for w.next("state")["status"] != "ended" {
	}
	w.say(`{"type":"comment","ref":"2","text":"too late"}`)
	if e := w.next("error"); e["code"] != "locked" || e["ref"] != "2" || !strings.Contains(fmt.Sprint(e["message"]), "ended") {
		t.Errorf("a viewer gets %v", e)
	}
	w.say(`{"type":"comment","ref":"1","text":"in time"}`)
	if again := w.next("ok"); again["id"] != before["id"] {
		t.Errorf("what was said is answered with %v, before %v", again, before)
	}
	boss := n.mustDial("r", "?token="+staff)
	boss.next("comments")
	boss.say(`{"type":"comment","ref":"1","text":"thank you"}`)
	boss.next("ok")
	post := func(room, token string) (int, string) {
		return n.do("POST", n.url+"/v1/rooms/"+room+"/comments", token, `{"text":"x"}`)
	}
	rooms := []string{"r", "closed", "beyond"}
	for i, room := range rooms {
		if i > 0 {
			rev = 0
			set(room, "ended")
		}
		// A room that is read for its counts stays open: the last one finds no place.
		if room == "closed" {
			n.get(n.url + "/v1/rooms/closed")
		}
		if status, body := post(room, viewer); status != 403 || !strings.Contains(body, `"code":"locked"`) {
			t.Errorf("%s: a viewer's POST: %d %s", room, status, body)
		}
		if status, body := post(room, staff); status != 201 {
			t.Errorf("%s: the staff's POST: %d %s", room, status, body)
		}
	}
	rev = 0
	set("again", "ended")
	set("again", "live")
	if status, body := post("again", viewer); status != 201 {
		t.Errorf("live again: %d %s", status, body)
	}
}
