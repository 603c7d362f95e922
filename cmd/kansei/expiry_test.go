package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// endingToken makes a token that lets somebody stay for d.
func endingToken(t *testing.T, user string, role protocol.Role, d time.Duration) string {
	t.Helper()
	tok, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"sub": user, "role": role, "rooms": []string{"r"}, "exp": time.Now().Add(d - auth.Leeway).Unix(),
	}).SignedString([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// Whose token ends is out of the room with it, and back with a new one.
func TestTokenEndsOnAnOpenConnection(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	began := time.Now()
	watcher := n.mustDial("r", "") // a guest, who has no token to end
	watcher.next("comments")
	n.mustDial("r", "?token="+n.token("later", protocol.RoleViewer, "r")).next("comments")

	const stay = 2 * time.Second
	tokens := 0
	causes := make(chan error, 10)
	c, err := client.New(client.Config{
		URLs: []string{n.url}, Room: "r",
		Token: func(context.Context) (string, error) {
			switch tokens++; tokens {
			case 1:
				return endingToken(t, "renewing", protocol.RoleViewer, stay), nil
			case 2: // the server asks for a fresh one before, and there is none
				return "", errors.New("the back end is away")
			}
			return n.token("renewing", protocol.RoleViewer, "r"), nil
		},
		Handler: client.Handler{Disconnected: func(err error, _ time.Duration) { causes <- err }},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) }) // ends with cancel
	defer running.Wait()
	defer cancel()

	mod := n.mustDial("r", "?token="+endingToken(t, "mod", protocol.RoleModerator, stay))
	mod.say(`{"type":"comment","ref":"1","text":"still a moderator"}`)
	mod.next("ok")
	code, reason := mod.closed()
	took := time.Since(began)
	if code != 4401 || !strings.Contains(reason, "new one") || protocol.RetryMS(reason) < 1 {
		t.Errorf("closed with %d %q", code, reason)
	}
	if took < stay-time.Second || took > stay+10*time.Second {
		t.Errorf("closed after %v, the token held for %v", took, stay)
	}

	// The client comes back by itself: it can comment again.
	select {
	case err := <-causes:
		if ce, ok := errors.AsType[*client.CloseError](err); !ok || ce.Code != protocol.CloseUnauthorized {
			t.Errorf("the client was disconnected by %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("the client was not disconnected")
	}
	if _, err := c.Comment(ctx, protocol.CommentRequest{Text: "with a new token"}); err != nil {
		t.Errorf("a comment with a new token: %v", err)
	}
	watcher.say(`{"type":"beat"}`)
	watcher.next("beat")
	if _, metrics := n.get(n.ops + "/metrics"); !strings.Contains(metrics, "kansei_token_ends_total 2\n") || !strings.Contains(metrics, "kansei_connections 3\n") {
		t.Errorf("two tokens of four viewers have ended, one came back: %s", grep(metrics, "kansei_token_ends", "kansei_connections"))
	}
}

// A token that ends while the node leaves sends its viewer for another one first.
func TestTokenEndsInADrain(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--drain=10m")
	mod := n.mustDial("r", "?token="+endingToken(t, "mod", protocol.RoleModerator, 2*time.Second))
	mod.next("comments")
	n.do("POST", n.ops+"/drain", "", "")
	mod.next("reconnect")
	if code, reason := mod.closed(); code != 4401 && code != 1012 { // once in 60 times its moment comes before
		t.Errorf("closed with %d %q", code, reason)
	}
	n.edge.Hurry()
}

// grep returns the lines of s that begin with one of the words.
func grep(s string, words ...string) string {
	var out []string
	for line := range strings.Lines(s) {
		for _, w := range words {
			if strings.HasPrefix(line, w) {
				out = append(out, line)
			}
		}
	}
	return strings.Join(out, "")
}
