package main

import (
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

// The crew is no audience: who may be in no count, and asks for it, is in none; everybody
// else is counted, whatever they ask for.
func TestUncounted(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	overlay := signedWith(t, testSecret, jwt.MapClaims{"sub": "overlay", "can": []string{"uncounted", "of a later version"}})
	status, made, _ := command(t, "token", "--room=r", "--user=made", "--can=uncounted", "--auth-secret="+testSecret)
	if status != 0 {
		t.Fatal("no token is made")
	}
	for _, c := range []struct {
		query   string
		counted bool
		may     bool
	}{
		{"?count=0", false, false}, // a guest, who may not
		{"?count=0&token=" + n.token("viewer", protocol.RoleViewer, "r"), false, false},
		{"?token=" + n.token("host", protocol.RoleBroadcaster, "r"), true, true},
	} {
		w := n.mustDial("r", c.query).next("welcome")
		if can := strings.Contains(strings.Join(strs(w["you"].(map[string]any)["can"]), " "), "uncounted"); can != c.may {
			t.Errorf("%s may be uncounted: %v", c.query, can)
		}
	}
	for _, query := range []string{
		"?count=0&token=" + n.token("studio", protocol.RoleBroadcaster, "r"), "?count=0&token=" + n.token("mod", protocol.RoleModerator, "r"),
		"?count=0&token=" + n.token("monitor", protocol.RoleMonitor, "r"), "?count=0&token=" + overlay, "?count=0&token=" + strings.TrimSpace(made),
	} {
		c := n.mustDial("r", query)
		if w := c.next("welcome"); !strings.Contains(strings.Join(strs(w["you"].(map[string]any)["can"]), " "), "uncounted") {
			t.Errorf("%.20s: %v", query, w)
		}
		defer func() { _ = c.CloseNow() }()
	}
	// Who is in no count gets the counts all the same, and they do not wait for it.
	seen := n.mustDial("r", "?count=0&token="+n.token("late", protocol.RoleMonitor, "r"))
	for end := time.Now().Add(time.Minute); ; {
		m := seen.next("viewers")
		if m["connections"] == 3.0 && m["users"] == 3.0 {
			break
		}
		if m["connections"].(float64) > 3 || time.Now().After(end) {
			t.Fatalf("counts %v, want 3 of 3", m)
		}
	}
	if _, body := n.get(n.ops + "/metrics"); !strings.Contains(body, "\nkansei_connections 9\n") {
		t.Error("the node does not have nine connections")
	}
}

// strs is a list of strings out of JSON.
func strs(v any) (out []string) {
	all, _ := v.([]any)
	for _, s := range all {
		out = append(out, s.(string))
	}
	return out
}
