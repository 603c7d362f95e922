package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
)

// evening is a room of a cluster, over the API alone.
type evening struct {
	t    *testing.T
	c    *localcluster.Cluster
	boss string // tokens
	mod  string
	room string
}

// call makes a request to a node, and returns the status and the body.
func (e *evening) call(node int, method, path, token, body string) (int, string) {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), method, e.c.Edges[node].URL+"/v1/rooms/"+e.room+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		e.t.Fatalf("%s %s on node %d: %v", method, path, node, err)
	}
	defer func() { _ = res.Body.Close() }()
	p, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(p)
}

// must is call for what has to succeed.
func (e *evening) must(node int, method, path, token, body string) string {
	e.t.Helper()
	status, answer := e.call(node, method, path, token, body)
	if status/100 != 2 {
		e.t.Fatalf("%s %s %s on node %d: %d %s", method, path, body, node, status, answer)
	}
	return answer
}

// act does an act and returns its id and cursor.
func (e *evening) act(node int, token, format string, a ...any) protocol.ActDone {
	e.t.Helper()
	var done protocol.ActDone
	if err := json.Unmarshal([]byte(e.must(node, http.MethodPost, "/acts", token, fmt.Sprintf(format, a...))), &done); err != nil {
		e.t.Fatal(err)
	}
	return done
}

// say publishes a comment and returns its id.
func (e *evening) say(node int, token, text string) string {
	e.t.Helper()
	var posted protocol.Posted
	if err := json.Unmarshal([]byte(e.must(node, http.MethodPost, "/comments", token, fmt.Sprintf(`{"text":%q}`, text))), &posted); err != nil {
		e.t.Fatal(err)
	}
	return posted.ID
}

// refused says something and returns the code of the refusal.
func (e *evening) refused(node int, token, text string) protocol.Problem {
	e.t.Helper()
	status, answer := e.call(node, http.MethodPost, "/comments", token, fmt.Sprintf(`{"text":%q}`, text))
	var p protocol.Problem
	_ = json.Unmarshal([]byte(answer), &p)
	if status/100 == 2 {
		e.t.Errorf("%s was taken by node %d", text, node)
	}
	return p
}

// listener keeps every byte that a connection is sent.
type listener struct {
	ws     *websocket.Conn
	mu     sync.Mutex
	text   bytes.Buffer
	cursor string
	closed websocket.StatusCode
	reason string
	done   chan struct{}
}

// watch connects to a node.
func (e *evening) watch(node int, token, since string) *listener {
	e.t.Helper()
	url := "ws" + strings.TrimPrefix(e.c.Edges[node].URL, "http") + "/v1/rooms/" + e.room + "/ws?since=" + since + "&token=" + token
	ctx, cancel := context.WithTimeout(e.t.Context(), 20*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{Subprotocols: []string{protocol.Subprotocol}})
	if err != nil {
		e.t.Fatalf("node %d: %v", node, err)
	}
	ws.SetReadLimit(1 << 20)
	w := &listener{ws: ws, done: make(chan struct{})}
	go func() { // ends with the connection
		defer close(w.done)
		for {
			_, p, err := ws.Read(context.Background())
			w.mu.Lock()
			if err != nil {
				w.closed = websocket.CloseStatus(err)
				w.reason = err.Error()
				w.mu.Unlock()
				return
			}
			w.text.Write(append(p, '\n'))
			if m, _ := protocol.Decode(p); m != nil {
				switch m := m.(type) {
				case *protocol.Comments:
					w.cursor = m.Cursor
				case *protocol.Gap:
					w.cursor = m.Cursor
				}
			}
			w.mu.Unlock()
		}
	}()
	e.t.Cleanup(func() { _ = ws.CloseNow(); <-w.done })
	return w
}

func (w *listener) got() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

func (w *listener) at() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cursor
}

// An evening over the API on three nodes: scheduled, live, spam, slow mode, ban, undo, lock, end. What was
// removed is in no byte that anybody is sent from then on: by a welcome, a resume, a poll, a page, a node
// that has not had the room open, and one that was restarted.
func TestEvening(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 4, "--rate=1000", "--burst=1000", "--appeal-url=https://example.com/appeal")
	e := &evening{t: t, c: c, room: "evening", boss: token(t, c, "boss", protocol.RoleBroadcaster), mod: token(t, c, "mod", protocol.RoleModerator)}
	ken, eve, spammer := token(t, c, "ken", protocol.RoleViewer), token(t, c, "eve", protocol.RoleViewer), token(t, c, "spammer", protocol.RoleViewer)
	within := func(what string, f func() bool) { t.Helper(); eventually(t, 10*time.Second, what, f) }

	// Node 3 does not have the room open before the end.
	starts := time.Now().Add(time.Hour).UnixMilli()
	e.must(0, http.MethodPatch, "", e.boss, fmt.Sprintf(`{"status":"scheduled","title":"第七回","starts_at":%d,"early_chat":false}`, starts))
	viewers := []*listener{e.watch(0, ken, ""), e.watch(1, eve, ""), e.watch(2, ken, "")}
	if p := e.refused(1, ken, "too early"); p.Code != protocol.CodeLocked || p.RetryMS < 3_500_000 {
		t.Errorf("before the start: %+v", p)
	}
	e.must(1, http.MethodPatch, "", e.boss, `{"status":"live","starts_at":null,"notice":"welcome"}`)
	for i, v := range viewers {
		within(fmt.Sprint("it is live for viewer ", i), func() bool {
			return strings.Contains(v.got(), `"status":"live"`) && strings.Contains(v.got(), `"broadcast":1`)
		})
	}
	e.say(0, ken, "hello")

	// Spam, by somebody who is connected to three nodes.
	bots := []*listener{e.watch(0, spammer, ""), e.watch(1, spammer, ""), e.watch(2, spammer, "")}
	const secret = "BUY-GOLD-AT-EXAMPLE"
	var spam []string
	for i := range 6 {
		spam = append(spam, e.say(i%3, spammer, fmt.Sprint(secret, i)))
	}
	within("everybody sees it", func() bool {
		return !slices.ContainsFunc(viewers, func(v *listener) bool { return strings.Count(v.got(), secret) < 6 })
	})
	before := viewers[1].at()
	e.must(2, http.MethodPatch, "", e.mod, `{"slow_ms":5000}`)
	ban := e.act(1, e.mod, `{"type":"ban","ref":"b","user":"spammer","for_ms":3600000,"reason":"advertising","clear":true}`)
	removed := e.act(2, e.mod, `{"type":"remove","ids":[%q,%q]}`, spam[0], spam[1])
	for i, b := range bots {
		within(fmt.Sprint("bot ", i, " is closed"), func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.closed != 0 })
		if b.closed != websocket.StatusCode(protocol.CloseBanned) || !strings.Contains(b.reason, "advertising") || protocol.RetryMS(b.reason) == 0 ||
			!strings.Contains(b.got(), `"appeal_url":"https://example.com/appeal"`) {
			t.Errorf("bot %d: %d %s", i, b.closed, b.reason)
		}
	}
	for i, v := range viewers {
		within(fmt.Sprint("viewer ", i, " is told"), func() bool { return strings.Contains(v.got(), `{"type":"removed","user":"spammer"}`) })
	}
	for node := range 3 {
		if p := e.refused(node, spammer, secret); p.Code != protocol.CodeBanned || p.Act != ban.Act {
			t.Errorf("node %d: %+v", node, p)
		}
	}
	e.say(0, eve, "fine")
	within("the other node has it", func() bool { return strings.Contains(viewers[1].got(), "fine") })
	if p := e.refused(1, eve, "too soon"); p.Code != protocol.CodeSlowMode || p.RetryMS < 1 || p.RetryMS > 5000 {
		t.Errorf("slow mode on another node: %+v", p)
	}

	// Nobody is sent it again.
	gone := func(what, bytes string) {
		t.Helper()
		if strings.Contains(bytes, secret) {
			t.Errorf("%s has what was removed: %.300s", what, bytes)
		}
	}
	read := func(node int) {
		t.Helper()
		for path, want := range map[string]string{"/comments": "", "/comments?limit=1000": "", "/comments?since=" + before: "removed", "/comments?before=" + removed.Cursor: "", "/comments?after=" + before: "", "": ""} {
			answer := e.must(node, http.MethodGet, path, ken, "")
			gone(fmt.Sprint("node ", node, " ", path), answer)
			if !strings.Contains(answer, want) {
				t.Errorf("node %d %s: %s", node, path, answer)
			}
		}
		for _, since := range []string{"", before, removed.Cursor} {
			w := e.watch(node, ken, since)
			within("the welcome", func() bool { return strings.Contains(w.got(), `"type":"state"`) })
			time.Sleep(300 * time.Millisecond)
			gone(fmt.Sprintf("node %d, a viewer with the cursor %q", node, since), w.got())
			if since == before && !strings.Contains(w.got(), `"recovered":true`) {
				t.Errorf("node %d: not recovered: %.300s", node, w.got())
			}
			_ = w.ws.CloseNow()
		}
	}
	for node := range 4 {
		read(node)
	}
	if err := c.Edges[2].Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Edges[2].Restart(ctx); err != nil {
		t.Fatal(err)
	}
	read(2)

	// Undone, it is back, on every node.
	e.act(0, e.boss, `{"type":"undo","act":%q}`, removed.Act)
	e.act(0, e.boss, `{"type":"unban","user":"spammer"}`)
	for node := range 4 {
		within(fmt.Sprint("node ", node, " has it back"), func() bool {
			return strings.Count(e.must(node, http.MethodGet, "/comments?limit=1000", ken, ""), secret) == 6
		})
	}
	within("viewers are told", func() bool { return strings.Contains(viewers[0].got(), `"type":"restored"`) })

	e.must(3, http.MethodPatch, "", e.mod, `{"slow_ms":null,"mode":"locked"}`)
	within("it is locked everywhere", func() bool {
		for node := range 4 {
			if status, _ := e.call(node, http.MethodPost, "/comments", eve, `{"text":"x"}`); status != http.StatusForbidden {
				return false
			}
		}
		return true
	})
	e.say(1, e.mod, "the staff may")
	// A client of the first version ends it, and wipes nothing.
	var room protocol.Room
	_ = json.Unmarshal([]byte(e.must(1, http.MethodGet, "", e.boss, "")), &room)
	answer := e.must(1, http.MethodPut, "", e.boss, fmt.Sprintf(`{"rev":%d,"status":"ended","title":"第七回"}`, room.State.Rev))
	if !strings.Contains(answer, `"mode":"locked"`) || !strings.Contains(answer, `"notice":"welcome"`) || !strings.Contains(answer, `"broadcast":1`) {
		t.Errorf("it ends as %s", answer)
	}
	// Deleted, it is gone.
	e.must(0, http.MethodDelete, "", e.boss, "")
	within("its viewers are closed", func() bool {
		viewers[1].mu.Lock()
		defer viewers[1].mu.Unlock()
		return viewers[1].closed == websocket.StatusCode(protocol.CloseNoRoom)
	})
	for _, node := range []int{0, 1, 3} {
		within(fmt.Sprint("node ", node, " has nothing"), func() bool {
			return !strings.Contains(e.must(node, http.MethodGet, "/comments?limit=1000", ken, ""), `"text"`)
		})
	}
}

// Two moderators who remove, undo and remove the same on other nodes agree in the end, and so does everybody.
func TestActsRace(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, "--rate=1000", "--burst=1000")
	e := &evening{t: t, c: c, room: "race", boss: token(t, c, "boss", protocol.RoleBroadcaster), mod: token(t, c, "mod", protocol.RoleModerator)}
	ken := token(t, c, "ken", protocol.RoleViewer)
	var listeners []*listener
	for node := range 3 {
		listeners = append(listeners, e.watch(node, ken, ""))
	}
	for round := range 5 {
		id := e.say(round%3, ken, fmt.Sprint("word", round))
		var all sync.WaitGroup
		for i, who := range []string{e.boss, e.mod, e.boss} {
			all.Go(func() {
				done := e.act(i, who, `{"type":"remove","ids":[%q]}`, id)
				e.act((i+1)%3, e.mod, `{"type":"undo","act":%q}`, done.Act)
				if i == 0 && round%2 == 0 {
					e.act((i+2)%3, who, `{"type":"remove","ids":[%q]}`, id)
				}
			})
		}
		all.Wait()
		for node := range 3 {
			eventually(t, 5*time.Second, fmt.Sprintf("node %d agrees about word%d", node, round), func() bool {
				return strings.Contains(e.must(node, http.MethodGet, "/comments?limit=100", ken, ""), fmt.Sprint("word", round)) == (round%2 != 0)
			})
		}
	}
	// A moderator against a broadcaster, over the state: the last one that is told ok is what is.
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			who := []string{e.boss, e.mod}[i%2]
			e.must(i%3, http.MethodPatch, "", who, fmt.Sprintf(`{"notice":"n%d","data":{"a%d":1}}`, i, i))
		})
	}
	all.Wait()
	var states []string
	for node := range 3 {
		eventually(t, 5*time.Second, "the nodes agree", func() bool {
			states = append(states[:node], e.must(node, http.MethodGet, "", ken, ""))
			_, a, _ := strings.Cut(states[0], `"state":`)
			_, b, _ := strings.Cut(states[node], `"state":`)
			a, _, _ = strings.Cut(a, `,"viewers"`)
			b, _, _ = strings.Cut(b, `,"viewers"`)
			return strings.TrimRight(a, "}\n") == strings.TrimRight(b, "}\n")
		})
	}
	for _, w := range listeners {
		if strings.Contains(w.got(), `"type":"error"`) {
			t.Errorf("%.300s", w.got())
		}
	}
}

// Without a leader of the log nothing can be done, and whoever asks is told so in time. What was not known is known
// when the log is back: the same request is one act.
func TestActWithoutALeader(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, "--append-timeout=2s")
	e := &evening{t: t, c: c, room: "alone", boss: token(t, c, "boss", protocol.RoleBroadcaster), mod: token(t, c, "mod", protocol.RoleModerator)}
	ken := token(t, c, "ken", protocol.RoleViewer)
	e.watch(0, ken, "")
	id := e.say(0, ken, "spam")
	for _, n := range c.NATS[1:] {
		if err := n.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	request := fmt.Sprintf(`{"type":"remove","ref":"once","ids":[%q]}`, id)
	start := time.Now()
	status, answer := e.call(0, http.MethodPost, "/acts", e.mod, request)
	var p protocol.Problem
	_ = json.Unmarshal([]byte(answer), &p)
	if status/100 != 5 || p.Code != protocol.CodeUnavailable && p.Code != protocol.CodeUnknownOutcome || time.Since(start) > 15*time.Second {
		t.Errorf("after %v: %d %s", time.Since(start), status, answer)
	}
	var back sync.WaitGroup
	for _, n := range c.NATS[1:] { // together: one alone may never be ready, what was in memory is gone from both
		back.Go(func() {
			if err := n.Restart(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	back.Wait()
	var done protocol.ActDone
	eventually(t, time.Minute, "the same request is done", func() bool {
		status, answer := e.call(0, http.MethodPost, "/acts", e.mod, request)
		return status == http.StatusOK && json.Unmarshal([]byte(answer), &done) == nil
	})
	for node := range 2 {
		eventually(t, 10*time.Second, "it is gone", func() bool {
			return !strings.Contains(e.must(node, http.MethodGet, "/comments?limit=100", ken, ""), "spam")
		})
	}
	if again := e.act(1, e.mod, `{"type":"remove","ref":"once","ids":[%q]}`, id); again.Act != done.Act {
		t.Errorf("asked again it is another act: %+v, %+v", again, done)
	}
	e.act(1, e.boss, `{"type":"undo","act":%q}`, done.Act)
	for node := range 2 {
		eventually(t, 10*time.Second, "it is back", func() bool {
			return strings.Contains(e.must(node, http.MethodGet, "/comments?limit=100", ken, ""), "spam")
		})
	}
}
