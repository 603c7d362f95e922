package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
)

// A node that was told its public address takes pages from there for its own, answers to
// that name, and prints links that begin with it.
func TestPublicURL(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--public-url=https://example.com/live/", "--public-url=http://intern.example:8080")
	for _, c := range []struct {
		host, origin string
		want         int
	}{
		{"example.com", "https://example.com", http.StatusUnauthorized},
		{"localhost", "https://example.com", http.StatusUnauthorized}, // a proxy names the node itself
		{"127.0.0.1:80", "http://intern.example:8080", http.StatusUnauthorized},
		{"intern.example", "", http.StatusUnauthorized},
		{"localhost", "http://example.com", http.StatusForbidden},
		{"localhost", "https://intern.example:8080", http.StatusForbidden},
		{"other.example", "https://example.com", http.StatusMisdirectedRequest},
	} {
		// Any page may read what guests may watch; to publish takes a token, behind the origin.
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+"/v1/rooms/r/comments", strings.NewReader(`{"text":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != c.want {
			t.Errorf("%s, a page of %q: %d, want %d", c.host, c.origin, res.StatusCode, c.want)
		}
	}
	var said bytes.Buffer
	if err := n.greet(&said); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" https://example.com/live/\n", "https://example.com/live/studio/lobby", "https://example.com/live/v1/rooms/lobby/comments", n.ops + "/readyz"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("no %q in:\n%s", want, &said)
		}
	}
}
