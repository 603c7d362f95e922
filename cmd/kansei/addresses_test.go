package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/protocol"
)

// from is the header of a proxy that has seen an address.
func from(address string) http.Header {
	return http.Header{"X-Forwarded-For": {"192.0.2.1, " + address}}
}

// An address may have so many connections, over all rooms and users; networks are
// excepted, and proxies and this machine are nobody.
func TestConnectionsPerAddress(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-per-address=2", "--trusted-proxy=127.0.0.1", "--exempt-network=10.9.0.0/16")
	dial := func(room string, header http.Header) (*wsConn, *http.Response) {
		t.Helper()
		c, res, err := n.dial(room, "", header)
		if err != nil && res == nil {
			t.Fatal(err)
		}
		return c, res
	}
	first, _ := dial("a", from("198.51.100.7"))
	first.next("welcome")
	dial("b", from("198.51.100.7"))
	c, res := dial("c", from("198.51.100.7"))
	if c != nil || res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") != "10" {
		t.Errorf("a third connection of two: %v", res)
	}
	for _, header := range []http.Header{from("198.51.100.8"), from("10.9.1.1"), from("10.9.1.1"), from("10.9.1.1"), nil, nil, nil} {
		if c, res := dial("c", header); c == nil {
			t.Errorf("from %v: %v", header, res)
		}
	}
	status := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+"/v1/rooms/c", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = from("198.51.100.7")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	if got := status(); got != http.StatusTooManyRequests {
		t.Errorf("and GET says %d", got)
	}
	if _, body := n.get(n.ops + "/metrics"); !strings.Contains(body, "\nkansei_refused_total{reason=\"address\"} 1\n") {
		t.Error("it is not counted")
	}
	_ = first.CloseNow()
	for end := time.Now().Add(20 * time.Second); status() != http.StatusOK; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("when one has gone there is no place for another")
		}
	}
	if c, res := dial("c", from("198.51.100.7")); c == nil {
		t.Errorf("when one has gone: %v", res)
	}
	if log := n.logs.String(); strings.Contains(log, "198.51.100") || !strings.Contains(log, "--trusted-proxy") || !strings.Contains(log, "--exempt-network") {
		t.Errorf("the log names an address, or no flag:\n%s", log)
	}
}

// Whoever is refused for another reason counts as long as the connection lasts, and no
// longer.
func TestRefusedLeaveTheirAddress(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-per-address=1", "--trusted-proxy=127.0.0.1")
	header := from("198.51.100.7")
	for _, tt := range []struct {
		name, query string
		edit        func(http.Header)
	}{
		{"a bad token", "?token=bad", nil},
		{"no handshake", "", func(h http.Header) { h.Set("Sec-WebSocket-Version", "8") }},
		{"somebody good", "", nil},
	} {
		h := header.Clone()
		if tt.edit != nil {
			tt.edit(h)
		}
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			c, res, err := n.dial("r", tt.query, h)
			if err == nil {
				if tt.query == "" {
					c.next("welcome")
				} else if code, _ := c.closed(); code != 4401 {
					t.Errorf("%s: closed with %d", tt.name, code)
				}
				_ = c.CloseNow()
				break
			}
			if res != nil && res.StatusCode == http.StatusBadRequest {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %v %v", tt.name, res, err)
			}
		}
	}
}

// All guests of one address share a rate of comments; who has a token does not.
func TestGuestsOfAnAddress(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--rate-guests=0.01", "--burst-guests=5", "--trusted-proxy=127.0.0.1")
	say := func(query, address string) map[string]any {
		t.Helper()
		c, res, err := n.dial("r", query, from(address))
		if err != nil {
			t.Fatal(res, err)
		}
		defer func() { _ = c.CloseNow() }()
		c.say(`{"type":"comment","ref":"1","text":"x"}`)
		return c.next("ok", "error")
	}
	oks := 0
	var limited map[string]any
	for range 8 {
		if m := say("", "198.51.100.7"); m["type"] == "ok" {
			oks++
		} else {
			limited = m
		}
	}
	if oks != 5 || limited["code"] != "rate_limited" {
		t.Errorf("%d comments of guests were taken; then %v", oks, limited)
	}
	if m := say("", "198.51.100.8"); m["type"] != "ok" {
		t.Errorf("from another address: %v", m)
	}
	if m := say("?token="+n.token("u", protocol.RoleViewer, "r"), "198.51.100.7"); m["type"] != "ok" {
		t.Errorf("with a token: %v", m)
	}
	if log := n.logs.String(); strings.Contains(log, "198.51.100") || strings.Count(log, "--rate-guests permits") != 1 {
		t.Errorf("the log:\n%s", log)
	}
	// Who is refused for the others' sake has lost nothing of its own.
	c, _, err := n.dial("r", "?session=YXNkZmdoamtsMTIzNDU2Nw", from("198.51.100.7"))
	if err != nil {
		t.Fatal(err)
	}
	if oks := accepted(c); oks != 0 {
		t.Errorf("%d more are taken", oks)
	}
	_ = c.CloseNow()
	if c, _, err = n.dial("r", "?session=YXNkZmdoamtsMTIzNDU2Nw", from("198.51.100.9")); err != nil {
		t.Fatal(err)
	}
	if oks := accepted(c); oks != 5 {
		t.Errorf("elsewhere %d of 5 are taken", oks)
	}
}

// A trusted proxy begins connections with the PROXY protocol, and what comes behind it is
// a WebSocket as ever.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--max-per-address=1", "--trusted-proxy=127.0.0.1", "--proxy-protocol")
	dial := func(header string) (*wsConn, *http.Response, error) {
		transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil {
				_, err = c.Write([]byte(header))
			}
			return c, err
		}}
		t.Cleanup(transport.CloseIdleConnections)
		c, res, err := websocket.Dial(t.Context(), "ws"+strings.TrimPrefix(n.url, "http")+"/v1/rooms/r/ws",
			&websocket.DialOptions{Subprotocols: []string{protocol.Subprotocol}, HTTPClient: &http.Client{Transport: transport}})
		if err != nil {
			return nil, res, err
		}
		t.Cleanup(func() { _ = c.CloseNow() })
		return &wsConn{t, c}, res, nil
	}
	v1 := func(address string) string { return fmt.Sprintf("PROXY TCP4 %s 10.0.0.1 4711 443\r\n", address) }
	c, _, err := dial(v1("198.51.100.7"))
	if err != nil {
		t.Fatal(err)
	}
	c.say(`{"type":"comment","ref":"1","text":"こんにちは"}`)
	if m := c.next("ok", "error"); m["type"] != "ok" {
		t.Errorf("the answer is %v", m)
	}
	if _, res, err := dial(v1("198.51.100.7")); err == nil || res == nil || res.StatusCode != http.StatusTooManyRequests {
		t.Errorf("a second connection of one: %v %v", res, err)
	}
	c, _, err = dial("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x08\x0a\x00\x00\x01\x12\x67\x01\xbb")
	if err != nil {
		t.Fatal(err)
	}
	c.next("welcome")
	if _, res, err := dial(""); err == nil || res != nil {
		t.Errorf("without a header: %v %v", res, err)
	}
	if _, body := n.get(n.ops + "/metrics"); !strings.Contains(body, "\nkansei_refused_total{reason=\"proxy\"} 1\n") {
		t.Error("it is not counted")
	}
	if log := n.logs.String(); !strings.Contains(log, "without --proxy-protocol") || strings.Contains(log, "198.51.100") {
		t.Errorf("the log:\n%s", log)
	}
}

// All viewers of one address who have a token share another rate of comments; the staff do not
// count.
func TestViewersOfAnAddress(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--rate-address=0.01", "--burst-address=5", "--trusted-proxy=127.0.0.1")
	say := func(query, address string) map[string]any {
		t.Helper()
		c, res, err := n.dial("r", query, from(address))
		if err != nil {
			t.Fatal(res, err)
		}
		defer func() { _ = c.CloseNow() }()
		c.say(`{"type":"comment","ref":"1","text":"x"}`)
		return c.next("ok", "error")
	}
	oks := 0
	for i := range 8 {
		m := say("?token="+n.token(fmt.Sprint("u", i), protocol.RoleViewer, "r"), "198.51.100.7")
		if m["type"] == "ok" {
			oks++
		} else if m["code"] != "rate_limited" || m["retry_ms"] == nil {
			t.Errorf("refused with %v", m)
		}
	}
	if oks != 5 {
		t.Errorf("%d comments were taken, want 5", oks)
	}
	for name, query := range map[string]string{"the staff": "?token=" + n.token("mod", protocol.RoleModerator, "r"), "a guest": ""} {
		if m := say(query, "198.51.100.7"); m["type"] != "ok" {
			t.Errorf("%s: %v", name, m)
		}
	}
	if m := say("?token="+n.token("other", protocol.RoleViewer, "r"), "198.51.100.8"); m["type"] != "ok" {
		t.Errorf("from another address: %v", m)
	}
}
