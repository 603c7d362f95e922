package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/protocol"
)

// accepted has each connection say 5 comments and returns how many of them were taken.
func accepted(conns ...*wsConn) (oks int) {
	for i, c := range conns {
		for k := range 5 {
			c.say(fmt.Sprintf(`{"type":"comment","ref":"%d","text":"%p %d %d"}`, k, c, i, k))
		}
	}
	for _, c := range conns {
		for range 5 {
			if c.next("ok", "error")["type"] == "ok" {
				oks++
			}
		}
	}
	return oks
}

// The rate belongs to a user in a room: it is the same on all connections, on the next
// one, and over HTTP.
func TestRateBelongsToTheUser(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--rate=0.01", "--burst=5")
	const guest = "?session=YXNkZmdoamtsMTIzNDU2Nw"
	oks := 0
	for range 8 { // one after the other: 40 messages, of which 50 may come at once
		c := n.mustDial("r", guest)
		oks += accepted(c)
		_ = c.CloseNow()
	}
	if oks != 5 {
		t.Errorf("%d comments of a guest that reconnects again and again were taken", oks)
	}
	if oks := accepted(n.mustDial("r", "")); oks != 5 {
		t.Errorf("%d comments of another guest were taken", oks)
	}

	token := n.token("u", protocol.RoleViewer, "*")
	var at []*wsConn
	for range 9 {
		at = append(at, n.mustDial("r", "?token="+token))
	}
	if oks := accepted(at...); oks != 5 {
		t.Errorf("%d comments of a user with nine connections were taken", oks)
	}
	status, body := n.do(http.MethodPost, n.url+"/v1/rooms/r/comments", token, `{"text":"over HTTP"}`)
	if status != http.StatusTooManyRequests || !strings.Contains(body, `"code":"rate_limited"`) {
		t.Errorf("and over HTTP: %d %s", status, body)
	}
	status, body = n.do(http.MethodPost, n.url+"/v1/rooms/other/comments", token, `{"text":"elsewhere"}`)
	if status != http.StatusCreated {
		t.Errorf("in another room: %d %s", status, body)
	}
	if oks := accepted(n.mustDial("other", "?token="+token)); oks != 4 {
		t.Errorf("%d comments were taken behind one over HTTP", oks)
	}
}

// The rate of messages is the user's as well.
func TestMessagesBelongToTheUser(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-per-user=2", "--beat=1m")
	var last *wsConn
	for range 8 { // 480 messages, of which 50 may come at once and 12 a second
		last = n.mustDial("r", "?session=YXNkZmdoamtsMTIzNDU2Nw")
		for range 60 {
			if last.Write(t.Context(), websocket.MessageText, []byte(`{"type":"beat"}`)) != nil {
				break
			}
		}
		if last.answers(60) == websocket.StatusCode(protocol.CloseTooMany) {
			return
		}
	}
	t.Error("one guest may send any number of messages")
}

// Over HTTP too what is malformed is a message.
func TestMessagesOverHTTP(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-per-user=1", "--beat=1m", "--rate-staff=1", "--burst-staff=5")
	for _, c := range []struct {
		method, path string
		role         protocol.Role
	}{
		{http.MethodPost, "/v1/rooms/r/comments", protocol.RoleViewer},
		{http.MethodPut, "/v1/rooms/r", protocol.RoleModerator},
	} {
		token := n.token(string(c.role), c.role, "*")
		limited := false
		for range 400 { // of which 50 may come at once and 12 a second
			status, body := n.do(c.method, n.url+c.path, token, `{`)
			if limited = status == http.StatusTooManyRequests; limited {
				break
			}
			if status != http.StatusBadRequest {
				t.Fatalf("%d %s", status, body)
			}
		}
		if !limited {
			t.Errorf("one user may send any number of messages with %s", c.method)
		}
	}
}

// answers reads so many beats and goes; when the connection is closed before, it returns
// the code.
func (c *wsConn) answers(beats int) websocket.StatusCode {
	for beats > 0 {
		_, p, err := c.Read(c.t.Context())
		if err != nil {
			return websocket.CloseStatus(err)
		}
		if strings.HasPrefix(string(p), `{"type":"beat"`) {
			beats--
		}
	}
	_ = c.CloseNow()
	return 0
}

// A user may have so many connections in a room, and is told when to try again.
func TestConnectionsPerUser(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-per-user=2")
	token := n.token("u", protocol.RoleViewer, "*")
	first := n.mustDial("r", "?token="+token)
	first.next("welcome")
	n.mustDial("r", "?token="+token).next("welcome")
	third := n.mustDial("r", "?token="+token)
	if code, reason := third.closed(); code != 4429 || !strings.Contains(reason, "retry_ms=10000") {
		t.Errorf("a third connection of two: %d %q", code, reason)
	}
	if status, body := n.do(http.MethodGet, n.url+"/v1/rooms/r", token, ""); status != 429 || !strings.Contains(body, `"close":4429`) {
		t.Errorf("and GET says %d %s", status, body)
	}
	// Who reads without a token is not that guest, whatever session somebody chooses.
	for range 2 {
		n.mustDial("r", "?session=somebody-who-reads").next("welcome")
	}
	if status, body := n.get(n.url + "/v1/rooms/r"); status != http.StatusOK {
		t.Errorf("whoever reads is told %d %s", status, body)
	}
	n.mustDial("other", "?token="+token).next("welcome")
	n.mustDial("r", "?token="+n.token("v", protocol.RoleViewer, "*")).next("welcome")
	if _, body := n.get(n.ops + "/metrics"); !strings.Contains(body, "\nkansei_refused_total{reason=\"user\"} 1\n") {
		t.Error("it is not counted")
	}
	_ = first.CloseNow()
	for end := time.Now().Add(20 * time.Second); ; {
		status, body := n.do(http.MethodGet, n.url+"/v1/rooms/r", token, "")
		if status == http.StatusOK {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("when one has gone: %d %s", status, body)
		}
		time.Sleep(10 * time.Millisecond)
	}
	n.mustDial("r", "?token="+token).next("welcome")
}
