package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

// opsFlag is how a command reaches a node.
func (n *testNode) opsFlag() string { return "--ops=" + strings.TrimPrefix(n.ops, "http://") }

// key makes an API key by the command.
func (n *testNode) key(name, scopes, rooms string) string {
	n.t.Helper()
	status, out, errs := command(n.t.(*testing.T), "key", "new", n.opsFlag(), "--name="+name, "--scope="+scopes, "--room="+rooms)
	if status != 0 || !strings.Contains(errs, "nobody can show it again") || strings.Contains(errs, strings.TrimSpace(out)) {
		n.t.Fatalf("key new: %d %q %q", status, out, errs)
	}
	return strings.TrimSpace(out)
}

// What is revoked is refused, and closed where it is open: by user, by the id of a token, or by the
// time of issue, over HTTP and by command.
func TestRevocation(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	admin := n.key("admin", "admin", "*")
	now := time.Now()
	token := func(user, jti string, iat time.Time) string {
		return signedBy(t, jwt.SigningMethodHS256, []byte(testSecret), "", jwt.MapClaims{"sub": user, "jti": jti, "iat": iat.Unix()})
	}
	dial := func(token string) *wsConn {
		c := n.mustDial("r", "?token="+token)
		c.next("comments")
		return c
	}
	revoke := func(body string) {
		t.Helper()
		status, answer := n.do(http.MethodPost, n.url+"/v1/revocations", admin, body)
		var r protocol.Revocation
		if status != http.StatusCreated || json.Unmarshal([]byte(answer), &r) != nil || r.Until < now.Add(31*24*time.Hour).Unix() {
			t.Fatalf("%s: %d %s", body, status, answer)
		}
	}
	gone := func(c *wsConn, what string) {
		t.Helper()
		began := time.Now()
		if code, why := c.closed(); code != 4401 || !strings.Contains(why, "revoked") || protocol.RetryMS(why) < 1 {
			t.Errorf("%s: closed with %d %s", what, code, why)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s: closed after %v", what, took)
		}
	}
	refused := func(token, what string) {
		t.Helper()
		if code, why := n.mustDial("r", "?token="+token).closed(); code != 4401 || !strings.Contains(why, "revoked") {
			t.Errorf("%s: %d %s", what, code, why)
		}
		if status, body := n.do(http.MethodGet, n.url+"/v1/rooms/r", token, ""); status != 401 || !strings.Contains(body, "revoked") {
			t.Errorf("%s over HTTP: %d %s", what, status, body)
		}
	}
	old, fresh, other := token("u", "t1", now.Add(-time.Minute)), token("u", "t2", now.Add(20*time.Second)), token("v", "t3", now.Add(-time.Minute))
	a, b, c, guest := dial(old), dial(fresh), dial(other), n.mustDial("r", "")
	revoke(`{"user":"u"}`)
	gone(a, "a user's old token")
	refused(old, "a user's old token")
	for _, stays := range []*wsConn{b, c, guest} {
		stays.say(`{"type":"beat"}`)
		stays.next("beat")
	}
	b.say(fmt.Sprintf(`{"type":"auth","ref":"1","token":%q}`, old))
	if m := b.next("error"); m["code"] != "unauthorized" || !strings.Contains(m["message"].(string), "revoked") {
		t.Errorf("a revoked token over the open connection: %v", m)
	}
	revoke(`{"jti":"t2"}`)
	gone(b, "a token by its id")
	refused(fresh, "a token by its id")
	if status, _, errs := command(t, "revoke", n.opsFlag(), "--before="+now.UTC().Format(time.RFC3339)); status != 0 || !strings.Contains(errs, "all tokens issued up to") {
		t.Fatalf("revoke: %d %s", status, errs)
	}
	gone(c, "all up to now")
	guest.say(`{"type":"beat"}`)
	guest.next("beat")
	if _, out, _ := command(t, "revoke", n.opsFlag(), "--revoked"); strings.Count(out, "\n") != 4 || !strings.Contains(out, "the token t2") || !strings.Contains(out, "tokens of u issued up to") {
		t.Errorf("listed:\n%s", out)
	}
	if status, body := n.do(http.MethodGet, n.url+"/v1/revocations", admin, ""); status != 200 || strings.Count(body, `"until"`) != 3 {
		t.Errorf("listed: %d %s", status, body)
	}
	for body, want := range map[string]string{
		`{}`: "one of user", `{"user":"u","jti":"t"}`: "one of user", `{"user":7}`: "user must be a string", `{"before":1.5}`: "before must be a whole number",
		`{"before":99999999999}`: "up to now", `[]`: "not a JSON object", `{"user":"a","user":"b"}`: "user appears twice",
		`{"user":"` + strings.Repeat("u", 200) + `"}`: "at most 128 bytes",
	} {
		if status, answer := n.do(http.MethodPost, n.url+"/v1/revocations", admin, body); status != 400 || !strings.Contains(answer, want) {
			t.Errorf("%s: %d %s, want %q", body, status, answer, want)
		}
	}
	for name, who := range map[string]string{
		"a broadcaster": n.token("boss", protocol.RoleBroadcaster, "*"), "a key without the scope": n.key("reader", "read,moderate,publish_as", "*"),
	} {
		if status, body := n.do(http.MethodPost, n.url+"/v1/revocations", who, `{"user":"u"}`); status != 403 && status != 401 {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	_, metrics := n.get(n.ops + "/metrics")
	if !strings.Contains(metrics, "kansei_token_revocation_closes_total 3") || strings.Contains(metrics, `kansei_token_refusals_total{cause="revoked",claim=""} 0`) {
		t.Error("the metrics do not tell what was revoked")
	}
}

// An API key does what its scopes say, in its rooms, over HTTP, until it is revoked.
func TestAPIKeys(t *testing.T) {
	t.Parallel()
	n := runNode(t)
	key := n.key("shop", "publish", "sale-*")
	post := func(room, key, body string) (int, string) {
		return n.do(http.MethodPost, n.url+"/v1/rooms/"+room+"/comments", key, body)
	}
	viewer := n.mustDial("sale-1", "")
	viewer.next("comments")
	if status, body := post("sale-1", key, `{"text":"20 % off"}`); status != 201 {
		t.Fatalf("publish: %d %s", status, body)
	}
	item := viewer.next("comments")["items"].([]any)[0].(map[string]any)
	if user := item["user"].(map[string]any); user["id"] != "key~shop" || user["name"] != "shop" || user["role"] != nil {
		t.Errorf("it comes from %v", user)
	}
	// The limits of back ends count.
	for i := range 20 {
		if status, body := post("sale-1", key, fmt.Sprintf(`{"text":"%d"}`, i)); status != 201 {
			t.Fatalf("comment %d: %d %s", i, status, body)
		}
	}
	for name, c := range map[string]struct {
		status int
		say    func() (int, string)
	}{
		"another room": {401, func() (int, string) { return post("other", key, `{"text":"x"}`) }},
		"as a user":    {403, func() (int, string) { return post("sale-1", key, `{"text":"x","user":{"id":"u"}}`) }},
		"the room":     {403, func() (int, string) { return n.do(http.MethodPut, n.url+"/v1/rooms/sale-1", key, `{"status":"ended"}`) }},
		"mistyped":     {401, func() (int, string) { return post("sale-1", mistyped(key), `{"text":"x"}`) }},
		"cut":          {401, func() (int, string) { return post("sale-1", key[:20], `{"text":"x"}`) }},
	} {
		if status, body := c.say(); status != c.status {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
	if code, why := n.mustDial("sale-1", "?token="+key).closed(); code != 4401 || !strings.Contains(why, "HTTP") {
		t.Errorf("a WebSocket with a key: %d %s", code, why)
	}
	as := n.key("forum", "publish_as", "*")
	if status, body := post("sale-1", as, `{"text":"hello","user":{"id":"u","name":"Ann"}}`); status != 201 {
		t.Errorf("publish as a user: %d %s", status, body)
	}
	if status, body := post("sale-1", as, `{"text":"hello","user":{"id":"key~shop"}}`); status != 400 || !strings.Contains(body, "API keys") {
		t.Errorf("publish as a key: %d %s", status, body)
	}
	mod := n.key("tv", "moderate", "*")
	if status, body := n.do(http.MethodPut, n.url+"/v1/rooms/sale-1", mod, `{"status":"ended"}`); status != 200 {
		t.Errorf("change the room: %d %s", status, body)
	}
	if status, body := post("sale-1", key, `{"text":"a back end speaks in a room that has ended, too"}`); status != 201 {
		t.Errorf("in a room that has ended: %d %s", status, body)
	}
	for _, reader := range []string{n.key("reader", "read", "*"), mod} {
		if status, body := n.do(http.MethodGet, n.url+"/v1/rooms/sale-1/viewers", reader, ""); status != 200 {
			t.Errorf("who is there: %d %s", status, body)
		}
	}
	if status, _ := n.do(http.MethodGet, n.url+"/v1/rooms/sale-1/viewers", key, ""); status != 403 {
		t.Errorf("who is there, without the scope: %d", status)
	}

	status, out, _ := command(t, "key", "list", n.opsFlag())
	if status != 0 || !strings.Contains(out, "shop") || !strings.Contains(out, "sale-*") || strings.Contains(out, key[20:60]) {
		t.Errorf("listed: %d\n%s", status, out)
	}
	if status, _, errs := command(t, "key", "revoke", n.opsFlag(), "shop"); status != 0 || !strings.Contains(errs, "revoked") {
		t.Errorf("revoke: %d %s", status, errs)
	}
	if status, body := post("sale-1", key, `{"text":"x"}`); status != 401 || !strings.Contains(body, "revoked") {
		t.Errorf("a revoked key: %d %s", status, body)
	}
	for _, args := range [][]string{
		{"key", "revoke", n.opsFlag(), "nobody"}, {"key", "new", n.opsFlag(), "--name=a b", "--scope=read", "--room=*"},
		{"key", "new", n.opsFlag(), "--name=a", "--scope=all", "--room=*"}, {"key", "new", n.opsFlag(), "--name=a", "--scope=read", "--room=a*b"},
	} {
		if status, out, errs := command(t, args...); status != 1 || out != "" || errs == "" {
			t.Errorf("%v: %d %q %q", args, status, out, errs)
		}
	}
	// A page in an operator's browser must not make or revoke keys.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.ops+"/v1/keys", strings.NewReader(`{"name":"x","scopes":["admin"],"rooms":["*"]}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("from a page of another site: %d", res.StatusCode)
	}
}

// mistyped is a key with another last character.
func mistyped(key string) string {
	if strings.HasSuffix(key, "7") {
		return key[:len(key)-1] + "6"
	}
	return key[:len(key)-1] + "7"
}
