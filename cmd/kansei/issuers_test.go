package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// ecKey makes a key, and the JWK Set that publishes it under an id.
func ecKey(t *testing.T, kid string) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	set, err := json.Marshal(map[string]any{"keys": []any{map[string]string{"kty": "EC", "crv": "P-256", "kid": kid, "x": b64(p[1:33]), "y": b64(p[33:])}}})
	if err != nil {
		t.Fatal(err)
	}
	return k, set
}

// signedBy signs claims with a private key.
func signedBy(t *testing.T, m jwt.SigningMethod, k crypto.PrivateKey, kid string, more jwt.MapClaims) string {
	t.Helper()
	all := jwt.MapClaims{"sub": "u1", "rooms": []string{"r"}, "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range more {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	token := jwt.NewWithClaims(m, all)
	if kid != "" {
		token.Header["kid"] = kid
	}
	s, err := token.SignedString(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func writeFile(t *testing.T, path string, p []byte) {
	t.Helper()
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A node takes the tokens of its own back ends, of an issuer whose keys it fetches, and of one
// whose keys are in a file, each with what is its own; and it reads that file again.
func TestIssuers(t *testing.T) {
	t.Parallel()
	fetched, set := ecKey(t, "2026")
	var asked atomic.Int64
	authority := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write(set)
	}))
	defer authority.Close()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "shop.pem")
	writeFile(t, file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	settings := filepath.Join(dir, "kansei.yaml")
	writeFile(t, settings, []byte(`
issuer: school
audience: kansei
jwks: `+authority.URL+`
issuers:
  - issuer: https://shop.example/
    name: shop
    default-rooms: sale-*
    claims: {user: id, role: group}
    roles: {seller: broadcaster}
    jwks: `+file+`
`))
	n := runNode(t, "--config="+settings)
	who := func(room, token string) string {
		c := n.mustDial(room, "?token="+token)
		_, p, err := c.Read(t.Context())
		if err != nil {
			return err.Error()
		}
		var m struct{ You struct{ ID, Role string } }
		if err := json.Unmarshal(p, &m); err != nil {
			t.Fatal(err)
		}
		return m.You.ID + " " + m.You.Role
	}
	school := jwt.MapClaims{"iss": "school", "aud": "kansei"}
	shop := jwt.MapClaims{"iss": "https://shop.example/", "id": "bob", "group": "seller", "rooms": nil}
	shopRoom := jwt.MapClaims{"iss": "https://shop.example/", "id": "bob", "group": "seller"}
	other, _ := ecKey(t, "x")
	for name, c := range map[string]struct{ room, token, want string }{
		"a secret":               {"r", signedBy(t, jwt.SigningMethodHS256, []byte(testSecret), "", school), "u1 viewer"},
		"a fetched key":          {"r", signedBy(t, jwt.SigningMethodES256, fetched, "2026", school), "u1 viewer"},
		"a key in a file":        {"sale-1", signedBy(t, jwt.SigningMethodEdDSA, private, "", shop), "shop~bob broadcaster"},
		"rooms of its own":       {"r", signedBy(t, jwt.SigningMethodEdDSA, private, "", shopRoom), "shop~bob broadcaster"},
		"other rooms":            {"r", signedBy(t, jwt.SigningMethodEdDSA, private, "", shop), "not for this room"},
		"the wrong issuer's key": {"r", signedBy(t, jwt.SigningMethodES256, fetched, "2026", shop), "not signed with EdDSA"},
		"another's key":          {"r", signedBy(t, jwt.SigningMethodES256, other, "2026", school), "signature does not match"},
		"an unknown key":         {"r", signedBy(t, jwt.SigningMethodES256, other, "2031", school), "signature does not match"},
		"no audience":            {"r", signedBy(t, jwt.SigningMethodHS256, []byte(testSecret), "", jwt.MapClaims{"iss": "school"}), "aud is not kansei"},
		"no issuer":              {"r", signedBy(t, jwt.SigningMethodHS256, []byte(testSecret), "", nil), "issuer is not known"},
	} {
		if got := who(c.room, c.token); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	// What the command makes and explains with the same settings is what the node takes.
	_, token, _ := command(t, "token", "--config="+settings, "--auth-secret="+testSecret, "--room=r", "--user=ann")
	if got := who("r", strings.TrimSpace(token)); got != "ann viewer" {
		t.Errorf("a token of the command: %q", got)
	}
	status, out, errs := command(t, "token", "--config="+settings, "--check="+signedBy(t, jwt.SigningMethodES256, fetched, "2026", school))
	if status != 0 || !strings.Contains(out, "nodes with this secret take it") {
		t.Errorf("explained: %d %s %s", status, out, errs)
	}
	if _, metrics := n.get(n.ops + "/metrics"); !strings.Contains(metrics, `kansei_auth_keys{issuer="school"} 1`) {
		t.Errorf("no key of the issuer in the metrics; asked %d times", asked.Load())
	}

	// A file of keys that has changed counts, and what is no file of keys does not.
	next, nextSet := ecKey(t, "b")
	writeFile(t, file, nextSet)
	if err := n.files.Reload("test"); err != nil {
		t.Fatal(err)
	}
	if got := who("sale-1", signedBy(t, jwt.SigningMethodES256, next, "b", shop)); got != "shop~bob broadcaster" {
		t.Errorf("a new key: %q", got)
	}
	if got := who("sale-1", signedBy(t, jwt.SigningMethodEdDSA, private, "", shop)); !strings.Contains(got, "not signed with ES256") {
		t.Errorf("a key that is gone: %q", got)
	}
	writeFile(t, file, []byte("<html>"))
	if err := n.files.Reload("test"); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("HTML in the place of keys: %v", err)
	}
	if got := who("sale-1", signedBy(t, jwt.SigningMethodES256, next, "b", shop)); got != "shop~bob broadcaster" {
		t.Errorf("after a broken file: %q", got)
	}
}

// Who joins does not wait for an issuer that hangs, and the node says that it lacks its keys.
func TestIssuerThatHangs(t *testing.T) {
	t.Parallel()
	quit := make(chan struct{})
	authority := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-quit }))
	defer authority.Close()
	defer close(quit)
	n := runUnready(t, "--jwks="+authority.URL)
	k, _ := ecKey(t, "1")
	start := time.Now()
	for range 20 {
		if m := n.mustDial("r", "?token="+n.token("u", "viewer", "r")).next("welcome"); m == nil {
			t.Fatal("no welcome")
		}
		if code, why := n.mustDial("r", "?token="+signedBy(t, jwt.SigningMethodES256, k, "1", nil)).closed(); code != 4401 {
			t.Fatalf("an unknown key: %d %s", code, why)
		}
	}
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("40 joins took %v beside an issuer that hangs", took)
	}
	if status, body := n.get(n.ops + "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "keys of the issuer") {
		t.Errorf("ready: %d %s", status, body)
	}
}
