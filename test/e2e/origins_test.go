package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
)

// sayFrom has a guest at an address say something over a connection.
func sayFrom(t *testing.T, e *localcluster.Edge, address, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(e.URL, "http")+"/v1/rooms/r/ws", &websocket.DialOptions{
		Subprotocols: []string{protocol.Subprotocol}, HTTPHeader: http.Header{"X-Forwarded-For": {address}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ws.CloseNow() }()
	if err := ws.Write(ctx, websocket.MessageText, []byte(fmt.Sprintf(`{"type":"comment","ref":"1","text":%q}`, text))); err != nil {
		t.Fatal(err)
	}
	for {
		_, p, err := ws.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(p), "Kansei-Origin") || strings.Contains(string(p), address) {
			t.Errorf("a viewer is told %s", p)
		}
		if strings.HasPrefix(string(p), `{"type":"ok"`) {
			return
		}
		if strings.HasPrefix(string(p), `{"type":"error"`) {
			t.Fatalf("%s: %s", text, p)
		}
	}
}

// What somebody says bears a hash of the address that it comes from, the same through every node; no stream has an address.
func TestAddressesAreHashed(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, "--guests=comment", "--trusted-proxy=127.0.0.1")
	nc, err := nats.Connect(c.NATSURLs())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "there is a key of the day", func() bool {
		info, err := js.StreamInfo("KANSEI_DAYKEY")
		return err == nil && info.State.Msgs > 0
	})
	// A node knows it a moment later: what is said before bears none.
	origin := map[string]string{}
	read := func() {
		t.Helper()
		for _, stream := range []string{"KANSEI_LOG_0", "KANSEI_STATE"} {
			info, err := js.StreamInfo(stream)
			if err != nil {
				t.Fatal(err)
			}
			for seq := info.State.FirstSeq; seq <= info.State.LastSeq && seq > 0; seq++ {
				m, err := js.GetMsg(stream, seq)
				if err != nil {
					continue // it was replaced
				}
				var body protocol.Comment
				_ = json.Unmarshal(m.Data, &body)
				origin[body.Text] = m.Header.Get("Kansei-Origin")
				if whole := fmt.Sprint(m.Header, string(m.Data)); strings.Contains(whole, "203.0.113") || strings.Contains(whole, "2001:db8") {
					t.Errorf("%s has an address: %s", stream, whole)
				}
			}
		}
	}
	for node, e := range c.Edges {
		eventually(t, 20*time.Second, fmt.Sprintf("node %d knows the key", node), func() bool {
			sayFrom(t, e, "203.0.113.9", fmt.Sprint("first", node))
			read()
			return origin[fmt.Sprint("first", node)] != ""
		})
	}
	sayFrom(t, c.Edges[0], "203.0.113.7", "a")
	sayFrom(t, c.Edges[1], "203.0.113.7", "b")
	sayFrom(t, c.Edges[1], "203.0.113.8", "c")
	sayFrom(t, c.Edges[0], "2001:db8::1", "d")
	sayFrom(t, c.Edges[1], "2001:db8::2", "e") // of the same network
	read()
	if origin["a"] == "" || origin["a"] != origin["b"] || origin["a"] == origin["c"] || origin["d"] != origin["e"] || origin["d"] == origin["a"] {
		t.Errorf("the origins are %v", origin)
	}
}
