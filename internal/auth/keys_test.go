package auth

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// signedBy makes a token with whatever headers and claims.
func signedBy(t *testing.T, secret []byte, header, claims map[string]any) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(claims))
	for k, v := range header {
		token.Header[k] = v
	}
	s, err := token.SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Keys are found by issuer and id. Nobody's key signs for another issuer, and no two issuers
// have a user in common.
func TestIssuersAndKeys(t *testing.T) {
	t.Parallel()
	secret := func(c string) []byte { return []byte(strings.Repeat(c, 32)) }
	v, err := NewVerifier(secret("d"))
	if err != nil {
		t.Fatal(err)
	}
	apply, err := v.PrepareIssuers(
		Issuer{Keys: []Key{{Secret: secret("d")}, {Secret: secret("e")}}},
		Issuer{Name: "acme", Keys: []Key{{ID: "1", Secret: secret("1")}, {ID: "2", Secret: secret("2")}, {Secret: secret("o")}}},
		Issuer{Name: "https://login.example", Keys: []Key{{ID: "1", Secret: secret("l")}}},
	)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	for name, c := range map[string]struct {
		key      string
		iss, kid any
		sub      string
		want     string // the user; empty: refused
	}{
		"default":                          {"d", nil, nil, "bob", "bob"},
		"default, second key":              {"e", nil, nil, "bob", "bob"},
		"default, with a name nobody has":  {"d", "nobody", nil, "bob", "bob"},
		"default, with a key id":           {"e", nil, "x", "bob", "bob"},
		"another issuer":                   {"1", "acme", "1", "bob", "acme~bob"},
		"its second key":                   {"2", "acme", "2", "bob", "acme~bob"},
		"its key without an id":            {"o", "acme", "9", "bob", "acme~bob"},
		"no key named":                     {"2", "acme", nil, "bob", "acme~bob"},
		"the key of another id":            {"1", "acme", "2", "bob", ""},
		"the same id of another issuer":    {"1", "https://login.example", "1", "bob", ""},
		"a third issuer":                   {"l", "https://login.example", "1", "bob", "https://login.example~bob"},
		"the default's key for another":    {"d", "acme", "1", "bob", ""},
		"the default's key, no id":         {"d", "acme", nil, "bob", ""},
		"another's key for the default":    {"1", nil, nil, "bob", ""},
		"another's key, an unknown issuer": {"1", "nobody", "1", "bob", ""},
		"an issuer that is no string":      {"d", 7, nil, "bob", "bob"},
		"posing as another issuer's user":  {"d", nil, nil, "acme~bob", ""},
		"a tilde that is nobody's":         {"d", nil, nil, "someone~bob", "someone~bob"},
		"too long with the issuer's name":  {"l", "https://login.example", "1", strings.Repeat("b", 64), "https://login.example~" + strings.Repeat("b", 64)},
		"like a guest":                     {"d", nil, nil, "guest-0123", ""},
		"like a guest, of another issuer":  {"1", "acme", "1", "guest-0123", ""},
		"a key id that is no string":       {"1", "acme", 5, "bob", "acme~bob"},
	} {
		claims := map[string]any{"sub": c.sub, "rooms": []string{"r"}, "exp": time.Now().Add(time.Hour).Unix()}
		header := map[string]any{}
		if c.iss != nil {
			claims["iss"] = c.iss
		}
		if c.kid != nil {
			header["kid"] = c.kid
		}
		got, err := v.Verify(signedBy(t, secret(c.key), header, claims), "r")
		if got.Subject != c.want || (err == nil) != (c.want != "") || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %q, %v; want %q", name, got.Subject, err, c.want)
		}
	}
	for name, issuers := range map[string][]Issuer{
		"twice":        {{Keys: []Key{{Secret: secret("a")}}}, {Keys: []Key{{Secret: secret("b")}}}},
		"no key":       {{Name: "a"}},
		"short":        {{Keys: []Key{{Secret: []byte("short")}}}},
		"with a tilde": {{Name: "a~b", Keys: []Key{{Secret: secret("a")}}}},
		"like a guest": {{Name: "guest-a", Keys: []Key{{Secret: secret("a")}}}},
	} {
		if _, err := v.PrepareIssuers(issuers...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	long := Issuer{Name: strings.Repeat("i", 64), Keys: []Key{{ID: "1", Secret: secret("a")}}}
	if apply, err = v.PrepareIssuers(long); err != nil {
		t.Fatal(err)
	}
	apply()
	claims := map[string]any{"iss": long.Name, "sub": strings.Repeat("b", 64), "rooms": []string{"r"}, "exp": time.Now().Add(time.Hour).Unix()}
	if _, err := v.Verify(signedBy(t, secret("a"), map[string]any{"kid": "1"}, claims), "r"); err == nil || !strings.Contains(err.Error(), fmt.Sprint(maxID)) {
		t.Errorf("an id of 129 bytes: %v", err)
	}
}
