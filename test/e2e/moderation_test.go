package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// ask makes a request about the room at a node, and decodes what it answers; the status is 0 when it does not.
func (e *evening) ask(node int, method, path, token, body string, into any) (status int) {
	req, err := http.NewRequestWithContext(e.t.Context(), method, e.c.Edges[node].URL+"/v1/rooms/"+e.room+path, strings.NewReader(body))
	if err != nil {
		e.t.Error(err)
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := (&http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	p, err := io.ReadAll(res.Body)
	if err != nil || json.Unmarshal(p, into) != nil {
		return 0
	}
	return res.StatusCode
}

// logged is the log of moderation, by act, as a node reads it.
func (e *evening) logged(node int) map[string]protocol.Entry {
	all := map[string]protocol.Entry{}
	for cursor := ""; ; {
		var page protocol.ModerationLog
		if e.ask(node, http.MethodGet, "/moderation?limit=20&cursor="+cursor, e.boss, "", &page) != http.StatusOK {
			return nil
		}
		for _, entry := range page.Entries {
			if _, twice := all[entry.Act]; twice {
				e.t.Errorf("act %s is in the log twice", entry.Act)
			}
			all[entry.Act] = entry
		}
		if cursor = page.Cursor; cursor == "" {
			return all
		}
	}
}

// A node that does acts is killed in the middle. Whatever it has acknowledged is in the log of moderation, once, and who has
// undone it: somebody else enters what it has not.
func TestLogOfModerationThroughKills(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, "--rate-staff=10000", "--burst-staff=10000")
	e := &evening{t: t, c: c, room: "r", boss: token(t, c, "boss", protocol.RoleBroadcaster)}
	e.watch(1, token(t, c, "ken", protocol.RoleViewer), "") // so that the other node has the room open
	done, undone := map[string]bool{}, map[string]bool{}
	for round := range 4 {
		var mu sync.Mutex
		var all sync.WaitGroup
		answered := 0
		for i := range 20 {
			all.Go(func() {
				var act protocol.ActDone
				if e.ask(0, http.MethodPost, "/acts", e.boss, fmt.Sprintf(`{"type":"mute","user":"u%d-%d","reason":"spam"}`, round, i), &act) != http.StatusOK {
					return
				}
				mu.Lock()
				done[act.Act] = true
				answered++
				mu.Unlock()
				if i%2 == 0 && e.ask(0, http.MethodPost, "/acts", e.boss, fmt.Sprintf(`{"type":"undo","act":%q}`, act.Act), &protocol.ActDone{}) == http.StatusOK {
					mu.Lock()
					undone[act.Act] = true
					mu.Unlock()
				}
			})
		}
		eventually(t, 30*time.Second, "some acts are done", func() bool { // in the middle of the others
			mu.Lock()
			defer mu.Unlock()
			return answered >= 20 || answered >= 2+3*round && len(undone) >= round
		})
		if err := c.Edges[0].Kill(); err != nil {
			t.Fatal(err)
		}
		all.Wait()
		if err := c.Edges[0].Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(done) == 0 || len(undone) == 0 {
		t.Fatalf("%d acts were acknowledged, %d undone", len(done), len(undone))
	}
	missing := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(missing)
		}
	})
	eventually(t, 60*time.Second, "all is in the log", func() bool {
		log := e.logged(1)
		missing = ""
		for id := range done {
			if entry := log[id]; entry.Type != protocol.TypeMute || entry.By.ID != "boss" || undone[id] && entry.Undone == nil {
				missing += fmt.Sprintf("%s, undone %t, is logged as %+v\n", id, undone[id], entry)
			}
		}
		return missing == ""
	})
	t.Logf("%d acts were acknowledged, %d undone; the log has %d", len(done), len(undone), len(e.logged(0)))
}

// What one node has found in a dry run is swept by another, and a third one undoes it.
func TestSweepOverNodes(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "--rate=1000", "--burst=1000")
	e := &evening{t: t, c: c, room: "r", boss: token(t, c, "boss", protocol.RoleBroadcaster)}
	eve := token(t, c, "eve", protocol.RoleViewer)
	for i := range 30 {
		e.say(i%3, eve, fmt.Sprint("join now ", i))
	}
	e.say(0, token(t, c, "ken", protocol.RoleViewer), "hello")
	var found protocol.Sweep
	if status := e.ask(0, http.MethodPost, "/sweeps", e.boss, `{"last_ms":60000,"text":"JOIN NOW"}`, &found); status != http.StatusOK || found.Comments != 30 || found.Of != 2 {
		t.Fatalf("%d, %+v", status, found)
	}
	var act protocol.ActDone
	body := fmt.Sprintf(`{"type":"sweep","ref":"1","sweep":%q,"sure":true}`, found.Sweep)
	if status := e.ask(1, http.MethodPost, "/acts", e.boss, body, &act); status != http.StatusOK || act.Act == "" {
		t.Fatalf("%d, %+v", status, act)
	}
	left := func(want int) {
		t.Helper()
		for node := range c.Edges {
			eventually(t, 10*time.Second, fmt.Sprintf("node %d shows %d", node, want), func() bool {
				var page protocol.Comments
				return e.ask(node, http.MethodGet, "/comments", eve, "", &page) == http.StatusOK && len(page.Items) == want
			})
		}
	}
	left(1)
	var p protocol.Problem
	if status := e.ask(2, http.MethodPost, "/comments", eve, `{"text":"again"}`, &p); status != http.StatusForbidden || p.Code != protocol.CodeMuted || p.Act != act.Act {
		t.Errorf("%d, %+v", status, p)
	}
	if status := e.ask(2, http.MethodPost, "/acts", e.boss, fmt.Sprintf(`{"type":"undo","act":%q}`, act.Act), &act); status != http.StatusOK {
		t.Errorf("undo: %d", status)
	}
	left(31)
}
