package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

// private keys of every kind, made once.
var privateKeys = sync.OnceValue(func() map[string]crypto.Signer {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	return map[string]crypto.Signer{
		"rsa": must(rsa.GenerateKey(rand.Reader, 2048)), "rsa2": must(rsa.GenerateKey(rand.Reader, 2048)),
		"small": must(rsa.GenerateKey(rand.Reader, 1024)),
		"p256":  must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), "p384": must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)),
		"p521": must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), "ed": ed,
	}
})

func public(name string) crypto.PublicKey { return privateKeys()[name].Public() }

// signWith signs claims with one of the private keys.
func signWith(t testing.TB, alg, key, kid string, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.GetSigningMethod(alg), claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	s, err := token.SignedString(privateKeys()[key])
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func issuers(t testing.TB, all ...Issuer) *Verifier {
	t.Helper()
	v := &Verifier{}
	apply, err := v.PrepareIssuers(all...)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	return v
}

// Every algorithm counts with keys of its kind, and with no other.
func TestAlgorithmsArePinnedToKeys(t *testing.T) {
	t.Parallel()
	kinds := map[string][]string{
		"rsa": {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, "p256": {"ES256"}, "p384": {"ES384"}, "p521": {"ES512"}, "ed": {"EdDSA"},
	}
	for key, algs := range kinds {
		v := issuers(t, Issuer{Keys: []Key{{Public: public(key)}, {Secret: secret}}})
		for _, alg := range algs {
			if _, err := v.Verify(signWith(t, alg, key, "", with(nil)), "r"); err != nil {
				t.Errorf("%s: %v", alg, err)
			}
			pinned := issuers(t, Issuer{Keys: []Key{{Public: public(key), Algorithms: []string{alg}}}})
			for other, others := range kinds {
				for _, a := range others {
					_, err := pinned.Verify(signWith(t, a, other, "", with(nil)), "r")
					if (err == nil) != (a == alg && other == key) {
						t.Errorf("a key for %s, a token of %s by %s: %v", alg, a, other, err)
					}
				}
			}
		}
		// Whoever has a public key has no secret.
		der := must(x509.MarshalPKIXPublicKey(public(key)))
		for name, s := range map[string][]byte{"DER": der, "PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})} {
			token := must(jwt.NewWithClaims(jwt.SigningMethodHS256, with(nil)).SignedString(s))
			if _, err := v.Verify(token, "r"); CauseOf(err) != CauseSignature {
				t.Errorf("%s of %s as a secret: %v", name, key, err)
			}
			only := issuers(t, Issuer{Keys: []Key{{Public: public(key)}}})
			if _, err := only.Verify(token, "r"); CauseOf(err) != CauseAlgorithm {
				t.Errorf("%s of %s as a secret, where there is none: %v", name, key, err)
			}
		}
	}
	for name, k := range map[string]Key{
		"small":             {Public: public("small")},
		"another algorithm": {Public: public("rsa"), Algorithms: []string{"ES256"}},
		"HS256":             {Public: public("rsa"), Algorithms: []string{"HS256"}},
		"a secret for RS":   {Secret: secret, Algorithms: []string{"RS256"}},
		"even exponent":     {Public: &rsa.PublicKey{N: public("rsa").(*rsa.PublicKey).N, E: 4}},
		"P-224":             {Public: must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)).Public()},
		"no key":            {Public: "key"},
	} {
		if _, err := (&Verifier{}).PrepareIssuers(Issuer{Keys: []Key{k}}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// jwk writes a public key as a JWK.
func jwk(t testing.TB, key, kid string, more map[string]any) map[string]any {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	m := map[string]any{"kid": kid, "use": "sig"}
	switch pub := public(key).(type) {
	case *rsa.PublicKey:
		m["kty"], m["n"], m["e"] = "RSA", b64(pub.N.Bytes()), b64(big.NewInt(int64(pub.E)).Bytes())
	case *ecdsa.PublicKey:
		p := must(pub.Bytes())[1:]
		m["kty"], m["crv"], m["x"], m["y"] = "EC", pub.Params().Name, b64(p[:len(p)/2]), b64(p[len(p)/2:])
	case ed25519.PublicKey:
		m["kty"], m["crv"], m["x"] = "OKP", "Ed25519", b64(pub)
	}
	for k, v := range more {
		m[k] = v
	}
	return m
}

func jwks(keys ...map[string]any) []byte { return must(json.Marshal(map[string]any{"keys": keys})) }

func TestParseKeys(t *testing.T) {
	t.Parallel()
	der := func(key string) []byte { return must(x509.MarshalPKIXPublicKey(public(key))) }
	block := func(kind string, p []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: p}))
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(-time.Hour)}
	certificate := must(x509.CreateCertificate(rand.Reader, template, template, public("p256"), privateKeys()["p256"]))
	many := func(n int) []byte {
		var all []map[string]any
		for i := range n {
			all = append(all, jwk(t, "ed", fmt.Sprint(i), nil))
		}
		return jwks(all...)
	}
	for name, c := range map[string]struct {
		in   string
		keys int
		says string
	}{
		"all kinds":            {string(jwks(jwk(t, "rsa", "1", nil), jwk(t, "p256", "2", nil), jwk(t, "p384", "3", nil), jwk(t, "p521", "4", nil), jwk(t, "ed", "5", nil))), 5, ""},
		"for encryption":       {string(jwks(jwk(t, "rsa", "1", map[string]any{"use": "enc"}), jwk(t, "ed", "2", nil), jwk(t, "rsa", "3", map[string]any{"alg": "RSA-OAEP"}))), 1, ""},
		"not to verify":        {string(jwks(jwk(t, "rsa", "1", map[string]any{"key_ops": []string{"encrypt"}}), jwk(t, "ed", "2", nil))), 1, ""},
		"kinds of the future":  {string(jwks(map[string]any{"kty": "AKP", "kid": "1"}, jwk(t, "ed", "2", nil))), 1, ""},
		"other curves":         {string(jwks(map[string]any{"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"}, jwk(t, "ed", "2", nil))), 1, ""},
		"certificates":         {string(jwks(jwk(t, "rsa", "1", map[string]any{"x5c": []string{"nonsense"}, "x5u": "https://127.0.0.1:1/", "x5t": "x"}))), 1, ""},
		"a secret":             {string(jwks(map[string]any{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString(secret)})), 1, ""},
		"PEM":                  {block("PUBLIC KEY", der("rsa")) + "\n" + block("PUBLIC KEY", der("ed")), 2, ""},
		"PKCS 1":               {block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(public("rsa").(*rsa.PublicKey))), 1, ""},
		"a certificate, ended": {block("CERTIFICATE", certificate), 1, ""},

		"a short secret":      {string(jwks(map[string]any{"kty": "oct", "k": "AAAA"})), 0, "at least 32 bytes"},
		"HTML":                {"<!doctype html><title>Sign in</title>", 0, "neither a JWK Set"},
		"another object":      {`{"issuer":"x"}`, 0, "neither a JWK Set"},
		"one key":             {string(must(json.Marshal(jwk(t, "rsa", "1", nil)))), 0, "neither a JWK Set"},
		"keys is no list":     {`{"keys":{}}`, 0, "neither a JWK Set"},
		"nothing":             {"", 0, "neither a JWK Set"},
		"no key":              {`{"keys":[]}`, 0, "no key for signatures"},
		"none that counts":    {string(jwks(jwk(t, "rsa", "1", map[string]any{"use": "enc"}))), 0, "no key for signatures"},
		"broken":              {string(jwks(jwk(t, "ed", "1", map[string]any{"x": "AAAA"}))), 0, "key 1 cannot be read"},
		"not on the curve":    {string(jwks(jwk(t, "p256", "1", map[string]any{"x": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}))), 0, "key 1 cannot be read"},
		"a small key":         {string(jwks(jwk(t, "small", "1", nil))), 0, "key 1: an RSA key has 1024 bits"},
		"an algorithm of RSA": {string(jwks(jwk(t, "p256", "1", map[string]any{"alg": "RS256"}))), 0, "key 1: a key for"},
		"an id twice":         {string(jwks(jwk(t, "ed", "1", nil), jwk(t, "rsa", "1", nil))), 0, "key 2 has the id"},
		"33 keys":             {string(many(33)), 0, "there are 33 keys"},
		"1,000 keys":          {string(many(1000)), 0, "there are 1000 keys"},
		"10,000 keys":         {string(many(10_000)), 0, "more than 262144 bytes"},
		"a megabyte":          {`{"keys":[]` + strings.Repeat(" ", 1<<20) + "}", 0, "more than 262144 bytes"},
		"a private key":       {block("PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(privateKeys()["ed"]))), 0, "block 1 is a private key"},
		"another block":       {block("X509 CRL", der("ed")), 0, "block 1 is"},
		"a broken block":      {block("PUBLIC KEY", der("rsa")[1:]), 0, "block 1 cannot be read"},
		"half a block":        {block("PUBLIC KEY", der("rsa"))[:100], 0, "block 1 is not PEM"},
		"33 blocks":           {strings.Repeat(block("PUBLIC KEY", der("ed")), 33), 0, "more than 32 keys"},
	} {
		keys, err := ParseKeys([]byte(c.in))
		if c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) || c.says == "" && err != nil || len(keys) != c.keys {
			t.Errorf("%s: %d keys, %v; want %d, %q", name, len(keys), err, c.keys, c.says)
		}
		if err == nil {
			issuers(t, Issuer{Keys: keys})
		}
	}
}

// What can be parsed can be used.
func FuzzParseKeys(f *testing.F) {
	f.Add(jwks(jwk(f, "rsa", "1", nil), jwk(f, "p256", "2", nil), jwk(f, "ed", "5", map[string]any{"alg": "EdDSA"})))
	f.Add(jwks(map[string]any{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString(secret)}))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(public("p384")))}))
	f.Fuzz(func(t *testing.T, p []byte) {
		keys, err := ParseKeys(p)
		if err != nil {
			return
		}
		v := issuers(t, Issuer{Keys: keys})
		if c, err := v.Verify(signWith(t, "PS256", "rsa2", "1", with(nil)), "r"); err == nil {
			t.Fatalf("%q lets %+v in", p, c)
		}
	})
}

// An issuer may call things as it likes, and what it leaves out has a default.
func TestIssuersClaims(t *testing.T) {
	t.Parallel()
	v := issuers(t, Issuer{
		Name: "school", Claim: "https://login.example/", Keys: []Key{{Public: public("p256")}}, Audience: []string{"live", "kansei"},
		Leeway: time.Minute, DefaultRole: protocol.RoleViewer, DefaultRooms: []string{"lesson-*"},
		Names: Names{User: "email", Name: "email", Avatar: "picture", Role: "https://school/roles", Can: "permissions", Members: "premium"},
		Roles: map[string]protocol.Role{"teacher": protocol.RoleBroadcaster, "assistant": protocol.RoleModerator},
	})
	base := func(more jwt.MapClaims) jwt.MapClaims {
		c := jwt.MapClaims{"iss": "https://login.example/", "aud": "live", "email": "a@b.c", "exp": time.Now().Add(time.Hour).Unix()}
		for k, x := range more {
			if c[k] = x; x == nil {
				delete(c, k)
			}
		}
		return c
	}
	for name, c := range map[string]struct {
		more jwt.MapClaims
		want string // "user name role rooms can avatar member", or the cause
	}{
		"least":            {nil, "school~a@b.c a@b.c viewer [lesson-*] []  false"},
		"role":             {jwt.MapClaims{"https://school/roles": "teacher"}, "school~a@b.c a@b.c broadcaster [lesson-*] []  false"},
		"highest role":     {jwt.MapClaims{"https://school/roles": []string{"assistant", "teacher", "offline", "viewer"}}, "school~a@b.c a@b.c broadcaster [lesson-*] []  false"},
		"roles of others":  {jwt.MapClaims{"https://school/roles": []string{"offline", "x"}}, "school~a@b.c a@b.c viewer [lesson-*] []  false"},
		"unknown role":     {jwt.MapClaims{"https://school/roles": "janitor"}, "claim role"},
		"role of its own":  {jwt.MapClaims{"role": "broadcaster", "sub": "boss"}, "school~a@b.c a@b.c viewer [lesson-*] []  false"},
		"more":             {jwt.MapClaims{"rooms": []string{"a"}, "permissions": "uncounted", "picture": "https://x/y.png", "premium": true}, "school~a@b.c a@b.c viewer [a] [uncounted] https://x/y.png true"},
		"audiences":        {jwt.MapClaims{"aud": []string{"x", "kansei"}}, "school~a@b.c a@b.c viewer [lesson-*] []  false"},
		"other audience":   {jwt.MapClaims{"aud": "shop"}, "claim aud"},
		"no audience":      {jwt.MapClaims{"aud": nil}, "claim aud"},
		"other issuer":     {jwt.MapClaims{"iss": "https://login.example"}, "issuer "},
		"no issuer":        {jwt.MapClaims{"iss": nil}, "issuer "},
		"no user":          {jwt.MapClaims{"email": nil, "sub": "x"}, "claim sub"},
		"premium":          {jwt.MapClaims{"premium": "yes"}, "claim members"},
		"ended, in leeway": {jwt.MapClaims{"exp": time.Now().Add(-50 * time.Second).Unix()}, "school~a@b.c a@b.c viewer [lesson-*] []  false"},
		"ended":            {jwt.MapClaims{"exp": time.Now().Add(-61 * time.Second).Unix()}, "expired "},
	} {
		got, err := v.Read(signWith(t, "ES256", "p256", "", base(c.more)))
		is := fmt.Sprint(got.Subject, " ", got.Name, " ", got.Role, " ", got.Rooms, " ", got.Can, " ", got.Avatar, " ", got.Member)
		if err != nil {
			is = string(CauseOf(err)) + " " + claimOf(err)
		}
		if is != c.want {
			t.Errorf("%s: %s, want %s (%v)", name, is, c.want, err)
		}
	}
}

// Rooms may be named by their beginning.
func TestRoomsByPrefix(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rooms, room string
		want        bool
	}{
		{"lesson-*", "lesson-7", true}, {"lesson-*", "lesson-", true}, {"lesson-*", "lesson", false}, {"lesson-*", "xlesson-7", false},
		{"*", "a", true}, {"a*b", "axb", false}, {"a**", "ab", false}, {"a", "a", true}, {"a", "ab", false},
	} {
		claims := Claims{Rooms: []string{c.rooms}}
		if got := claims.Allows(c.room); got != c.want {
			t.Errorf("%s for %s: %v", c.rooms, c.room, got)
		}
	}
	for s, want := range map[string]bool{"a": true, "*": true, "lesson-*": true, "": false, "-a": false, "a*b": false, "**": false, "あ*": false} {
		if ValidRooms(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

// A token that holds too long is refused, whoever made it.
func TestMaxAge(t *testing.T) {
	t.Parallel()
	v := verifier(t)
	v.MaxAge = time.Hour
	now := time.Now()
	for name, c := range map[string]struct {
		iat  any
		exp  time.Duration
		good bool
	}{
		"an hour":                 {now.Unix(), time.Hour, true},
		"made long ago":           {now.Add(-time.Hour).Unix(), time.Minute, false},
		"two hours":               {now.Unix(), 2 * time.Hour, false},
		"made later, as it seems": {now.Add(Leeway / 2).Unix(), time.Hour + Leeway/2, true},
		"without iat":             {nil, time.Hour, true},
		"without iat, too long":   {nil, 2 * time.Hour, false},
		"in the leeway":           {nil, time.Hour + Leeway/2, true},
	} {
		_, err := v.Verify(sign(t, with(jwt.MapClaims{"iat": c.iat, "exp": now.Add(c.exp).Unix()})), "r")
		if (err == nil) != c.good || err != nil && claimOf(err) != "exp" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := (&Signer{Secret: secret, MaxAge: time.Hour}).Mint(Claims{Subject: "u", Rooms: []string{"*"}}, 2*time.Hour); err == nil {
		t.Error("a longer token was made")
	}
}

// What is fetched counts beside what is given, replaces what was fetched before, and stays when
// settings change.
func TestFetchedKeys(t *testing.T) {
	t.Parallel()
	given := Issuer{Keys: []Key{{Secret: secret}}, Fetched: true}
	v := issuers(t, given)
	var asked []string
	v.UnknownKey = func(issuer string) { asked = append(asked, issuer) }
	by := func(key, kid string) Cause {
		_, err := v.Verify(signWith(t, "RS256", key, kid, with(nil)), "r")
		if err == nil {
			return ""
		}
		return CauseOf(err)
	}
	if got := by("rsa", "1"); got != CauseAlgorithm {
		t.Errorf("before anything was fetched: %v", got)
	}
	if err := v.SetKeys("", []Key{{ID: "1", Public: public("rsa")}}); err != nil {
		t.Fatal(err)
	}
	if got := by("rsa", "1"); got != "" || len(asked) != 1 { // once, before
		t.Errorf("a fetched key: %v, asked for %v", got, asked)
	}
	if _, err := v.Verify(sign(t, with(nil)), "r"); err != nil {
		t.Errorf("the secret beside it: %v", err)
	}
	if got := by("rsa2", "2"); got != CauseSignature || len(asked) != 2 {
		t.Errorf("an unknown key: %v, asked for %v", got, asked)
	}
	if err := v.SetKeys("", []Key{{ID: "2", Public: public("rsa2")}}); err != nil {
		t.Fatal(err)
	}
	apply, err := v.PrepareIssuers(given)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	if got := by("rsa2", "2"); got != "" {
		t.Errorf("a key that was fetched before: %v", got)
	}
	if got := by("rsa", "1"); got == "" {
		t.Error("a key that is gone counts")
	}
	for name, keys := range map[string][]Key{"a secret": {{Secret: secret}}, "none": {}, "small": {{Public: public("small")}}} {
		if err := v.SetKeys("", keys); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if got := by("rsa2", "2"); got != "" {
		t.Errorf("after keys that are not taken: %v", got)
	}
}

// What is remembered of a token is no more than it says, and for no longer than it holds.
func TestRememberedTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := issuers(t, Issuer{Keys: []Key{{Public: public("p256")}}})
		token := signWith(t, "ES256", "p256", "", with(jwt.MapClaims{"exp": time.Now().Add(2*time.Second - Leeway).Unix()}))
		for range 2 {
			if c, err := v.Verify(token, "r"); err != nil || c.Subject != "u1" {
				t.Fatalf("%+v, %v", c, err)
			}
			if _, err := v.Verify(token, "s"); !errors.Is(err, ErrRoom) {
				t.Errorf("for another room: %v", err)
			}
			if _, err := v.Verify(token[:len(token)-20]+strings.Repeat("A", 20), "r"); err == nil {
				t.Error("another signature counts")
			}
		}
		time.Sleep(3 * time.Second)
		if _, err := v.Verify(token, "r"); !errors.Is(err, ErrExpired) {
			t.Errorf("after its end: %v", err)
		}
		token = signWith(t, "ES256", "p256", "", with(nil))
		if _, err := v.Verify(token, "r"); err != nil {
			t.Fatal(err)
		}
		apply, err := v.PrepareIssuers(Issuer{Keys: []Key{{Public: public("rsa")}}})
		if err != nil {
			t.Fatal(err)
		}
		apply()
		if _, err := v.Verify(token, "r"); err == nil {
			t.Error("a token counts whose key does not any more")
		}
	})
}

func BenchmarkVerifyFresh(b *testing.B) {
	for _, c := range []struct{ alg, key string }{{"HS256", ""}, {"RS256", "rsa"}, {"ES256", "p256"}, {"EdDSA", "ed"}} {
		b.Run(c.alg, func(b *testing.B) {
			keys := []Key{{Secret: secret}}
			token := sign(b, with(nil))
			if c.key != "" {
				keys = []Key{{Public: public(c.key)}}
				token = signWith(b, c.alg, c.key, "", with(nil))
			}
			v := issuers(b, Issuer{Keys: keys})
			b.ReportAllocs()
			for b.Loop() {
				v.cache.of = nil // nothing is remembered
				if _, err := v.Verify(token, "r"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What a header says of keys beside their id is ignored, whatever it is.
func TestHeadersNameNoKeys(t *testing.T) {
	t.Parallel()
	v := issuers(t, Issuer{Keys: []Key{{ID: "1", Public: public("rsa")}}})
	own := jwk(t, "rsa2", "2", nil)
	for name, value := range map[string]any{
		"jwk": own, "jku": "http://127.0.0.1:1/jwks", "x5u": "http://127.0.0.1:1/cert", "x5c": []string{"MIIB"}, "x5t": "x",
	} {
		for key, want := range map[string]bool{"rsa": true, "rsa2": false} {
			token := jwt.NewWithClaims(jwt.SigningMethodRS256, with(nil))
			token.Header["kid"], token.Header[name] = "1", value
			s, err := token.SignedString(privateKeys()[key])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(s, "r"); (err == nil) != want {
				t.Errorf("%s, signed by %s: %v", name, key, err)
			}
		}
	}
}

// An issuer's clock may be 14 minutes off, if its leeway says so.
func TestIssuersClock(t *testing.T) {
	t.Parallel()
	strict := issuers(t, Issuer{Keys: []Key{{Secret: secret}}})
	lenient := issuers(t, Issuer{Keys: []Key{{Secret: secret}}, Leeway: 15 * time.Minute})
	for _, off := range []time.Duration{-14 * time.Minute, 14 * time.Minute} {
		there := time.Now().Add(off)
		token := sign(t, with(jwt.MapClaims{"iat": there.Unix(), "nbf": there.Unix(), "exp": there.Add(time.Minute).Unix()}))
		if _, err := lenient.Verify(token, "r"); err != nil {
			t.Errorf("%v off: %v", off, err)
		}
		if _, err := strict.Verify(token, "r"); err == nil {
			t.Errorf("%v off, without leeway: taken", off)
		}
	}
}

// Whatever a token is, what is taken has a signature that the library takes too.
func FuzzRead(f *testing.F) {
	v := issuers(f, Issuer{Keys: []Key{{Secret: secret}, {ID: "1", Public: public("rsa")}, {Public: public("p256")}}}, Issuer{Name: "other", Keys: []Key{{Public: public("ed")}}})
	for _, t := range []string{
		sign(f, with(nil)), signWith(f, "RS256", "rsa", "1", with(nil)), signWith(f, "ES256", "p256", "", with(nil)), signWith(f, "EdDSA", "ed", "", with(jwt.MapClaims{"iss": "other"})),
		"..", "eyJhbGciOiJub25lIn0.e30.",
	} {
		f.Add(t)
	}
	parser := jwt.NewParser(jwt.WithoutClaimsValidation())
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := v.Read(token); err != nil {
			return
		}
		_, err := parser.Parse(token, func(t *jwt.Token) (any, error) {
			switch t.Method.Alg()[:2] {
			case "HS":
				return secret, nil
			case "ES":
				return public("p256"), nil
			case "Ed":
				return public("ed"), nil
			}
			return public("rsa"), nil
		})
		if err != nil {
			t.Fatalf("%q is taken: %v", token, err)
		}
	})
}
