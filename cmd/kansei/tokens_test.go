package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

// signedWith signs claims as a back end would.
func signedWith(t *testing.T, secret string, claims jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{"sub": "u1", "rooms": []string{"r"}, "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range claims {
		all[name] = value
	}
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, all).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Whoever makes wrong tokens finds what is wrong with them in the node's log, once, in its
// metrics, and in what the viewer is told.
func TestRefusedTokensAreDiagnosed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		secret       string
		claims       jwt.MapClaims
		told, logged string
		cause, claim string
	}{
		"role":      {testSecret, jwt.MapClaims{"role": "teacher"}, `role is "teacher"`, "claim=role", "claim", "role"},
		"sub":       {testSecret, jwt.MapClaims{"sub": ""}, "sub: the user id is missing", "claim=sub", "claim", "sub"},
		"exp":       {testSecret, jwt.MapClaims{"exp": time.Now().Add(time.Hour).UnixMilli()}, "exp looks like milliseconds", "claim=exp", "claim", "exp"},
		"rooms":     {testSecret, jwt.MapClaims{"rooms": 7}, "rooms must be a list", "claim=rooms", "claim", "rooms"},
		"secret":    {testSecret + "x", nil, "its signature does not match", "--auth-secret", "signature", ""},
		"expired":   {testSecret, jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()}, "the token has expired", "has expired", "expired", ""},
		"not yet":   {testSecret, jwt.MapClaims{"nbf": time.Now().Add(time.Hour).Unix()}, "not valid yet", "clocks", "early", ""},
		"elsewhere": {testSecret, jwt.MapClaims{"rooms": []string{"s"}}, "not for this room", "claim rooms", "room", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := runNode(t)
			token := signedWith(t, tt.secret, tt.claims)
			if code, why := n.mustDial("r", "?token="+token).closed(); code != 4401 || !strings.Contains(why, tt.told) {
				t.Errorf("closed with %d %s, want 4401 with %q", code, why, tt.told)
			}
			const others = 20
			for range others {
				if status, body := n.do(http.MethodGet, n.url+"/v1/rooms/r", token, ""); status != http.StatusUnauthorized || !strings.Contains(strings.ReplaceAll(body, `\"`, `"`), tt.told) {
					t.Fatalf("over HTTP: %d %s", status, body)
				}
			}
			log := n.logs.String()
			lines := regexp.MustCompile(`(?m)^.*msg="refused.*$`).FindAllString(log, -1)
			if len(lines) != 1 || !strings.Contains(lines[0], tt.logged) {
				t.Errorf("logged %q, want one line with %q", lines, tt.logged)
			}
			for _, part := range strings.Split(token, ".")[1:] {
				if strings.Contains(log, part) {
					t.Errorf("the token is in the log:\n%s", log)
				}
			}
			want := fmt.Sprintf("\nkansei_token_refusals_total{cause=%q,claim=%q} %d\n", tt.cause, tt.claim, 1+others)
			if _, metrics := n.get(n.ops + "/metrics"); !strings.Contains(metrics, want) {
				t.Errorf("no %s in the metrics", want)
			}
		})
	}
}

// A token that is there is a token, if there is nothing in it: who forgot to fill it in is
// told, and does not become a guest. Other ways to log in are none of ours.
func TestEmptyTokenIsNoGuest(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	header := func(name, value string) http.Header { return http.Header{name: {value}} }
	for _, tt := range []struct {
		query  string
		header http.Header
		guest  bool
	}{
		{"", nil, true},
		{"", header("Authorization", "Basic dTpw"), true},
		{"?x=token", nil, true},
		{"", header("Authorization", "Bearer"), false},
		{"", header("Authorization", "Bearer "), false},
		{"", header("Authorization", "bearer"), false},
		{"?token=", nil, false},
		{"?token", nil, false},
		{"?t%6Fken=", nil, false},
		{"", header("Sec-WebSocket-Protocol", "bearer."), false},
		{"?token=undefined", nil, false},
	} {
		c, res, err := n.dial("r", tt.query, tt.header)
		if err != nil {
			t.Fatalf("%+v: %v, %v", tt, res, err)
		}
		if tt.guest {
			if m := c.next("welcome"); m["you"].(map[string]any)["role"] != string(protocol.RoleViewer) {
				t.Errorf("%+v: %v", tt, m)
			}
		} else if code, why := c.closed(); code != 4401 || !strings.Contains(why, "not valid") {
			t.Errorf("%+v: closed with %d %s", tt, code, why)
		}
		if tt.header.Get("Sec-WebSocket-Protocol") != "" {
			continue // that is for WebSockets
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+"/v1/rooms/r/comments"+tt.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.header != nil {
			req.Header = tt.header.Clone()
		}
		req.Close = true
		res, err = http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if got := res.StatusCode == http.StatusOK; got != tt.guest {
			t.Errorf("%+v over HTTP: %s", tt, res.Status)
		}
	}
}
