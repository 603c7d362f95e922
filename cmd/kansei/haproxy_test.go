//go:build unix

package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/test/proxyrig"
)

// Behind HAProxy a node knows its viewers' addresses, and holds their WebSockets as ever.
func TestBehindHAProxy(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, server, arg string }{
		{"PROXY protocol", "send-proxy-v2", "--proxy-protocol"},
		{"X-Forwarded-For", "", "--forwarded-header=x-forwarded-for"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := runNode(t, "--trusted-proxy=127.0.0.1", "--max-per-address=1", tt.arg)
			front := startHAProxy(t, strings.TrimPrefix(n.url, "http://"), tt.server)
			behind := &testNode{&node{url: "http://" + front}, t, n.logs}
			as := func(address string) http.Header { return http.Header{"X-Test-Source": {address}} }
			c, res, err := behind.dial("r", "", as("198.51.100.7"))
			if err != nil {
				t.Fatal(res, err)
			}
			c.say(`{"type":"comment","ref":"1","text":"こんにちは"}`)
			if m := c.next("ok", "error"); m["type"] != "ok" {
				t.Errorf("the answer is %v", m)
			}
			if _, res, err := behind.dial("r", "", as("198.51.100.7")); err == nil || res == nil || res.StatusCode != http.StatusTooManyRequests {
				t.Errorf("a second connection of one: %v %v", res, err)
			}
			other, res, err := behind.dial("r", "", as("2001:db8::7"))
			if err != nil {
				t.Fatal(res, err)
			}
			other.next("welcome")
		})
	}
}

// HAProxy takes a path off as the operators' document says.
func TestUnderAPathBehindHAProxy(t *testing.T) {
	t.Parallel()
	const document = "../../docs/OPERATING.md"
	n := runNode(t, "--trusted-proxy=127.0.0.1", "--proxy-protocol")
	_, ops, _ := strings.Cut(strings.TrimPrefix(n.ops, "http://"), ":")
	server := strings.TrimPrefix(n.url, "http://") + " port " + ops
	front := "http://" + proxyrig.HAProxy(t, func(address string) string {
		return proxyrig.Replace(t, proxyrig.Block(t, document, "haproxy", "backend "),
			"10.0.0.11:8080", server, "10.0.0.12:8080", server, "bind :443 ssl crt /etc/haproxy/live.example.com.pem", "bind "+address,
			"  default_backend kansei\n", proxyrig.Block(t, document, "haproxy", "replace-path")+"  default_backend kansei\n")
	})
	behind := &testNode{&node{url: front + "/live"}, t, n.logs}
	for path, want := range map[string]int{"": 200, "/": 200, "/studio/r": 200, "/sdk/kansei.js": 200, "/v1/rooms/r": 200, "/nothing": 404} {
		if status, body := behind.get(front + "/live" + path); status != want {
			t.Errorf("/live%s: %d %.200s", path, status, body)
		}
	}
	c, res, err := behind.dial("r", "", http.Header{"Origin": {front}})
	if err != nil {
		t.Fatal(res, err)
	}
	c.next("welcome")
}

// startHAProxy runs HAProxy before a node, until the test ends, and returns its address.
// X-Test-Source says where a request is to come from: all of this machine is nobody.
func startHAProxy(t *testing.T, node, server string) string {
	t.Helper()
	return proxyrig.HAProxy(t, func(front string) string {
		return fmt.Sprintf(`defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  timeout tunnel 2m
frontend front
  bind %s
  http-request set-src req.hdr(x-test-source)
  option forwardfor
  default_backend nodes
backend nodes
  server node %s %s
`, front, node, server)
	})
}
