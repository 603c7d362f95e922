package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// A broadcaster makes links for the crew of a room, and gives nobody more than they have.
func TestCrewLinks(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	boss := n.token("boss", protocol.RoleBroadcaster, "lesson-*")
	make := func(room, token, body string) (protocol.Link, int, string) {
		t.Helper()
		status, answer := n.do(http.MethodPost, n.url+"/v1/rooms/"+room+"/links", token, body)
		var link protocol.Link
		if status == http.StatusCreated && json.Unmarshal([]byte(answer), &link) != nil {
			t.Fatalf("%s", answer)
		}
		return link, status, answer
	}
	link, status, answer := make("lesson-7", boss, `{"role":"moderator","name":"Ann","can":["uncounted"],"for_ms":3600000,"page":"https://live.example/studio/lesson-7"}`)
	if status != http.StatusCreated {
		t.Fatalf("%d %s", status, answer)
	}
	if link.URL != "https://live.example/studio/lesson-7#token="+link.Token || link.QR == nil || link.QR.Size < 21 || !strings.HasPrefix(link.User, "crew-") {
		t.Errorf("made %+v", link)
	}
	if left := time.Until(time.UnixMilli(link.Ends)); left > time.Hour || left < 59*time.Minute {
		t.Errorf("it ends in %v", left)
	}
	w := n.mustDial("lesson-7", "?token="+link.Token).next("welcome")
	if you := w["you"].(map[string]any); you["id"] != link.User || you["name"] != "Ann" || you["role"] != "moderator" {
		t.Errorf("you are %v", you)
	}
	if code, _ := n.mustDial("lesson-8", "?token="+link.Token).closed(); code != 4401 {
		t.Errorf("in another room: %d", code)
	}
	// It can be revoked by its id.
	if status, _, errs := command(t, "revoke", n.opsFlag(), "--jti="+link.JTI); status != 0 {
		t.Fatal(errs)
	}
	if code, why := n.mustDial("lesson-7", "?token="+link.Token).closed(); code != 4401 || !strings.Contains(why, "revoked") {
		t.Errorf("a revoked link: %d %s", code, why)
	}
	plain, _, _ := make("lesson-7", boss, `{"role":"viewer"}`)
	if plain.URL != "" || plain.QR != nil || plain.Token == "" {
		t.Errorf("without a page: %+v", plain)
	}
	admin := n.key("admin", "admin", "*")
	if link, status, answer := make("lesson-7", admin, `{"role":"broadcaster","user":"ann","can":["publish_as"]}`); status != 201 || link.User != "ann" {
		t.Errorf("by an admin: %d %s", status, answer)
	}
	year := 366 * 24 * time.Hour
	for name, c := range map[string]struct {
		room, token, body string
		status            int
		says              string
	}{
		"a moderator":           {"lesson-7", n.token("mod", protocol.RoleModerator, "*"), `{"role":"viewer"}`, 403, "broadcaster"},
		"a viewer":              {"lesson-7", n.token("v", protocol.RoleViewer, "*"), `{"role":"viewer"}`, 403, "broadcaster"},
		"a guest":               {"lesson-7", "", `{"role":"viewer"}`, 401, "token"},
		"a key without admin":   {"lesson-7", n.key("mod", "moderate", "*"), `{"role":"viewer"}`, 403, "admin"},
		"another room":          {"party", boss, `{"role":"viewer"}`, 401, "room"},
		"a user's name":         {"lesson-7", boss, `{"role":"viewer","user":"ann"}`, 403, "publish_as"},
		"more than one has":     {"lesson-7", boss, `{"role":"viewer","can":["publish_as"]}`, 403, "publish_as"},
		"an unknown right":      {"lesson-7", boss, `{"role":"viewer","can":["fly"]}`, 400, "can must be"},
		"no role":               {"lesson-7", boss, `{}`, 400, "role must be"},
		"another role":          {"lesson-7", boss, `{"role":"king"}`, 400, "role must be"},
		"too long":              {"lesson-7", boss, fmt.Sprintf(`{"role":"viewer","for_ms":%d}`, year.Milliseconds()), 400, "for_ms must be"},
		"too short":             {"lesson-7", boss, `{"role":"viewer","for_ms":10}`, 400, "for_ms must be"},
		"a page that is none":   {"lesson-7", boss, `{"role":"viewer","page":"javascript:alert(1)"}`, 400, "page must be"},
		"a page with a part":    {"lesson-7", boss, `{"role":"viewer","page":"https://a.example/#x"}`, 400, "page must be"},
		"a long page":           {"lesson-7", boss, `{"role":"viewer","page":"https://a.example/` + strings.Repeat("x", 600) + `"}`, 400, "page must be"},
		"a user who may not be": {"lesson-7", admin, `{"role":"viewer","user":"guest-1"}`, 400, "user: "},
	} {
		if _, status, answer := make(c.room, c.token, c.body); status != c.status || !strings.Contains(answer, c.says) {
			t.Errorf("%s: %d %s, want %d %q", name, status, answer, c.status, c.says)
		}
	}
}

// Where all tokens are signed by others, the nodes sign those of the crew by their node secret, and
// take them on every node.
func TestCrewLinksWithPublicKeysAlone(t *testing.T) {
	t.Parallel()
	const nodeSecret = "a node secret that only tests know 32+"
	c := parse(t, "--jwks=http://127.0.0.1:1/", "--node-secret="+nodeSecret).Auth
	sign := signerOf(c, nil, [][]byte{[]byte(nodeSecret)})
	token, err := sign.Mint(auth.Claims{Subject: "crew-1", Role: protocol.RoleModerator, Rooms: []string{"r"}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	issuers, err := issuersOf(c, nil, [][]byte{[]byte("the next node secret of 32 bytes or more"), []byte(nodeSecret)})
	if err != nil {
		t.Fatal(err)
	}
	v := &auth.Verifier{}
	apply, err := v.PrepareIssuers(issuers...)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	got, err := v.Verify(token, "r")
	if err != nil || got.Subject != "kansei~crew-1" || got.Role != protocol.RoleModerator {
		t.Errorf("%+v, %v", got, err)
	}
	// The node secret itself signs nothing.
	forged, err := auth.Mint([]byte(nodeSecret), auth.Claims{Subject: "boss", Role: protocol.RoleBroadcaster, Rooms: []string{"*"}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(forged, "r"); err == nil {
		t.Error("a token that is signed with the node secret counts")
	}
}
