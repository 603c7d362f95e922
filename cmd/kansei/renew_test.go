package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// A fresh token takes the place of the one that counts, over the open connection, if it is the
// same user's and not older.
func TestFreshTokenOnAnOpenConnection(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	now := time.Now()
	token := func(more jwt.MapClaims) string {
		all := jwt.MapClaims{"sub": "u", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
		for k, v := range more {
			all[k] = v
		}
		return signedBy(t, jwt.SigningMethodHS256, []byte(testSecret), "", all)
	}
	c := n.mustDial("r", "?token="+token(nil))
	if you := c.next("welcome")["you"].(map[string]any); you["ends"] != float64(now.Add(time.Hour).Unix()*1000) {
		t.Errorf("welcome: you are %v", you)
	}
	c.next("comments")
	ref := 0
	send := func(token string) map[string]any {
		t.Helper()
		ref++
		c.say(fmt.Sprintf(`{"type":"auth","ref":"%d","token":%q}`, ref, token))
		for {
			if m := c.next("ok", "error"); m["ref"] == fmt.Sprint(ref) {
				return m
			}
		}
	}
	pause := func() { time.Sleep(1100 * time.Millisecond) }
	// The same one again changes nothing.
	if m := send(token(nil)); m["type"] != "ok" {
		t.Errorf("the same token: %v", m)
	}
	if m := send(token(jwt.MapClaims{"exp": now.Add(2 * time.Hour).Unix()})); m["code"] != "rate_limited" || m["retry_ms"] == nil {
		t.Errorf("two at once: %v", m)
	}
	for _, tt := range []struct {
		name, token, code string
	}{
		{"another user's", token(jwt.MapClaims{"sub": "v"}), "forbidden"},
		{"older", token(jwt.MapClaims{"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(3 * time.Hour).Unix()}), "forbidden"},
		{"without iat, ending before", signedBy(t, jwt.SigningMethodHS256, []byte(testSecret), "", jwt.MapClaims{"sub": "u", "exp": now.Add(time.Minute).Unix()}), "forbidden"},
		{"for another room", token(jwt.MapClaims{"rooms": "s"}), "unauthorized"},
		{"ended", token(jwt.MapClaims{"exp": now.Add(-time.Hour).Unix()}), "unauthorized"},
		{"of another secret", signedBy(t, jwt.SigningMethodHS256, []byte(testSecret+"x"), "", jwt.MapClaims{"sub": "u"}), "unauthorized"},
		{"nonsense", "x", "unauthorized"},
	} {
		pause()
		if m := send(tt.token); m["code"] != tt.code {
			t.Errorf("%s: %v, want %s", tt.name, m, tt.code)
		}
	}
	pause()
	if m := send(token(jwt.MapClaims{"exp": now.Add(2 * time.Hour).Unix(), "name": "Ann", "can": "uncounted"})); m["type"] != "ok" {
		t.Errorf("a fresh token: %v", m)
	}
	you := c.next("you")
	if you["name"] != "Ann" || you["ends"] != float64(now.Add(2*time.Hour).Unix()*1000) || fmt.Sprint(you["can"]) != "[comment uncounted]" || you["limits"] == nil {
		t.Errorf("you are %v", you)
	}
	c.say(`{"type":"comment","text":"as Ann"}`)
	if items := c.next("comments")["items"].([]any); items[0].(map[string]any)["user"].(map[string]any)["name"] != "Ann" {
		t.Errorf("it comes as %v", items)
	}
	// Another role: it may do at once what it may now, and is to come back.
	pause()
	if m := send(token(jwt.MapClaims{"exp": now.Add(2 * time.Hour).Unix(), "role": "moderator"})); m["type"] != "ok" {
		t.Errorf("another role: %v", m)
	}
	if you := c.next("you"); you["role"] != "moderator" || you["limits"].(map[string]any)["text"] != float64(1000) {
		t.Errorf("you are %v", you)
	}
	if m := c.next("reconnect"); m["after_ms"] != float64(0) {
		t.Errorf("told %v", m)
	}
	if code, why := c.closed(); code != 1012 || !strings.Contains(why, "changed") {
		t.Errorf("closed with %d %s", code, why)
	}

	guest := n.mustDial("r", "")
	guest.next("comments")
	guest.say(fmt.Sprintf(`{"type":"auth","ref":"1","token":%q}`, token(nil)))
	if m := guest.next("ok", "error"); m["code"] != "forbidden" {
		t.Errorf("a guest: %v", m)
	}
	// A hundred a second end the connection, as a hundred of anything do.
	for range 200 {
		guest.say(`{"type":"auth","ref":"1","token":"x"}`)
	}
	if code, _ := guest.closed(); code != 4429 {
		t.Errorf("closed with %d", code)
	}
}

// The clients stay when their token ends: they send a fresh one before, and a client whose role has
// changed comes in anew by itself.
func TestClientRenews(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	var tokens atomic.Int32
	role := protocol.RoleViewer
	welcomes := make(chan *protocol.Welcome, 10)
	yous := make(chan *protocol.YouNow, 10)
	c, err := client.New(client.Config{
		URLs: []string{n.url}, Room: "r",
		Token: func(context.Context) (string, error) {
			switch tokens.Add(1) {
			case 1: // the server asks for another one at once
				return endingToken(t, "u", role, auth.Leeway+5*time.Second), nil
			case 2:
				return endingToken(t, "u", role, auth.Leeway+20*time.Second), nil
			default:
				return n.token("u", protocol.RoleModerator, "r"), nil
			}
		},
		Handler: client.Handler{
			Welcome: func(w *protocol.Welcome) { welcomes <- w },
			You:     func(y *protocol.YouNow) { yous <- y },
			Disconnected: func(err error, _ time.Duration) {
				if t.Context().Err() == nil && !strings.Contains(err.Error(), client.ErrMoved.Error()) && !strings.Contains(err.Error(), "canceled") {
					t.Errorf("disconnected: %v", err)
				}
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) }) // ends with cancel
	defer running.Wait()
	defer cancel()
	next := func(what string) protocol.You {
		t.Helper()
		select {
		case w := <-welcomes:
			if what == "welcome" {
				return w.You
			}
		case y := <-yous:
			if what == "you" {
				return y.You
			}
		case <-time.After(40 * time.Second):
		}
		t.Fatalf("no %s", what)
		return protocol.You{}
	}
	first := next("welcome")
	if renewed := next("you"); renewed.Ends <= first.Ends || renewed.Role != protocol.RoleViewer {
		t.Errorf("renewed: %+v, before %+v", renewed, first)
	}
	if promoted := next("you"); promoted.Role != protocol.RoleModerator {
		t.Errorf("promoted: %+v", promoted)
	}
	if back := next("welcome"); back.Role != protocol.RoleModerator {
		t.Errorf("back: %+v", back)
	}
	_, metrics := n.get(n.ops + "/metrics")
	for _, want := range []string{`kansei_token_renewals_total{result="asked"} 2`, `kansei_token_renewals_total{result="taken"} 2`, "kansei_token_ends_total 0"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}
