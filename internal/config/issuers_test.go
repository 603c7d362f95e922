package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestIssuers(t *testing.T) {
	t.Parallel()
	file := `issuers:
  - issuer: https://login.example/
    name: login
    audience: kansei
    leeway: 1m
    default-role: viewer
    default-rooms: [lesson-*, lobby]
    jwks: https://login.example/jwks.json
    claims: {user: email, role: https://example/roles}
    roles: {teacher: broadcaster}
  - issuer: shop
    secret-file: /run/secrets/shop
`
	c, _, err := parse(t, []string{"serve", "--config=FILE"}, nil, file)
	if err != nil {
		t.Fatal(err)
	}
	want := []Issuer{
		{
			Issuer: "https://login.example/", Name: "login", Audience: []string{"kansei"}, Leeway: time.Minute, DefaultRole: "viewer",
			DefaultRooms: []string{"lesson-*", "lobby"}, JWKS: "https://login.example/jwks.json",
			Claims: map[string]string{"user": "email", "role": "https://example/roles"}, Roles: map[string]string{"teacher": "broadcaster"},
		},
		{Issuer: "shop", SecretFile: "/run/secrets/shop"},
	}
	if got := c.Serve.Issuers.List; !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
	// The same as a variable.
	c, _, err = parse(t, serve, []string{"KANSEI_ISSUERS=[{issuer: shop, secret-file: /run/secrets/shop}]"}, "")
	if err != nil || !reflect.DeepEqual(c.Serve.Issuers.List, want[1:]) {
		t.Errorf("a variable: %+v, %v", c.Serve.Issuers.List, err)
	}
	for text, says := range map[string]string{
		"[{issuer: a}]": "jwks of issuer 1 is missing, or secret-file",
		"[{jwks: /x}]":  "issuer of issuer 1 is missing",
		"[{issuer: a, jwks: /x}, {issuer: a, jwks: /y}]":   "issuer of issuer 2 appears twice",
		"[{issuer: a, jwks: /x, leeway: 1h}]":              "leeway of issuer 1 must be 0s to 15m0s",
		"[{issuer: a, jwks: /x, default-role: boss}]":      "default-role of issuer 1 must be viewer, monitor, moderator or broadcaster",
		"[{issuer: a, jwks: /x, default-rooms: ['a*b']}]":  "default-rooms of issuer 1",
		"[{issuer: a, jwks: /x, claims: {sub: x}}]":        "claims of issuer 1 has \"sub\", not user, name",
		"[{issuer: a, jwks: /x, roles: {x: boss}}]":        "roles of issuer 1",
		"[{issuer: a, jwks: 'http://login.example/jwks'}]": "jwks of issuer 1 must be fetched by https",
		"[{issuer: a, jwks: 'https://u:p@login.example'}]": "jwks of issuer 1 must be a file, or an address",
		"[{issuer: a, jwks: 'ftp://login.example/jwks'}]":  "jwks of issuer 1 must be a file, or an address",
		"[{issuer: a, jkws: /x}]":                          "must be a list of issuers: line 1: field jkws not found",
		"issuer: a":                                        "must be a list of issuers",
		"[":                                                "must be a list of issuers, in YAML",
	} {
		if _, _, err := parse(t, []string{"serve", "--issuers=" + text}, nil, ""); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", text, err, says)
		}
	}
	for args, says := range map[string]string{
		"--jwks=http://login.example/jwks": "must be fetched by https",
		"--jwks=http://127.0.0.1:1/jwks":   "",
		"--default-role=boss":              "must be viewer, monitor, moderator or broadcaster",
		"--max-token-age=1s":               "--max-token-age: must be 1m0s to 8784h0m0s",
	} {
		if _, _, err := parse(t, []string{"serve", args}, nil, ""); says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v, want %q", args, err, says)
		}
	}
}

func FuzzIssuers(f *testing.F) {
	f.Add("[{issuer: a, jwks: /x, leeway: 1m, audience: b, claims: {user: c}}]")
	f.Add("- issuer: &a x\n  audience: [*a]")
	f.Fuzz(func(_ *testing.T, text string) {
		var i Issuers
		if i.UnmarshalText([]byte(text)) != nil {
			return
		}
		var p Problems
		(&Auth{Issuers: i, DefaultRole: "viewer", MaxTokenAge: time.Hour}).validateIssuers(&p)
	})
}
