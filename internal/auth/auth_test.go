package auth

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/protocol"
)

var secret = []byte("a secret that only tests know, 32+")

func verifier(t testing.TB) *Verifier {
	t.Helper()
	v, err := NewVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// sign signs claims with the secret, whatever they are.
func sign(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// with is a valid set of claims with some of them replaced, or left out if nil.
func with(change jwt.MapClaims) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "u1", "name": "Ann", "role": "viewer", "rooms": []string{"r"}, "exp": time.Now().Add(time.Hour).Unix()}
	for k, v := range change {
		if v == nil {
			delete(c, k)
		} else {
			c[k] = v
		}
	}
	return c
}

func TestMintAndVerify(t *testing.T) {
	t.Parallel()
	in := Claims{Subject: "山田-1@example.com", Name: "  か\u3099\u202E ", Role: protocol.RoleBroadcaster, Rooms: []string{"r", "s"}}
	token, err := Mint(secret, in, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	c, err := verifier(t).Verify(token, "s")
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject != in.Subject || c.Name != "が" || c.Role != in.Role || !slices.Equal(c.Rooms, in.Rooms) {
		t.Errorf("claims are %+v", c)
	}
	if d := time.Until(c.Expires); d < 59*time.Minute || d > time.Hour {
		t.Errorf("the token ends in %v, not in an hour", d)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	now := time.Now()
	tests := []struct {
		name   string
		change jwt.MapClaims
		want   error // nil: holds for the room r
	}{
		{"plain", nil, nil},
		{"all rooms", jwt.MapClaims{"rooms": []string{"*"}}, nil},
		{"a room that is not in a list", jwt.MapClaims{"rooms": "r"}, nil},
		{"no name, no role", jwt.MapClaims{"name": nil, "role": nil}, nil},
		{"unknown claims", jwt.MapClaims{"iat": now.Add(time.Hour).Unix(), "aud": "x", "more": map[string]any{"a": 1}}, nil},
		{"expired within the leeway", jwt.MapClaims{"exp": now.Add(-Leeway / 2).Unix()}, nil},
		{"not yet within the leeway", jwt.MapClaims{"nbf": now.Add(Leeway / 2).Unix()}, nil},
		{"fraction of a second", jwt.MapClaims{"exp": float64(now.Unix()) + 60.5}, nil},
		{"64 bytes of sub", jwt.MapClaims{"sub": strings.Repeat("a", 64)}, nil},

		{"other rooms", jwt.MapClaims{"rooms": []string{"s", "R", "r2"}}, ErrRoom},
		{"expired", jwt.MapClaims{"exp": now.Add(-time.Minute).Unix()}, ErrExpired},
		{"expired, and of another room", jwt.MapClaims{"exp": now.Add(-time.Minute).Unix(), "rooms": "s"}, ErrExpired},
		{"not yet", jwt.MapClaims{"nbf": now.Add(time.Minute).Unix()}, ErrNotYet},
		{"no exp", jwt.MapClaims{"exp": nil}, ErrInvalid},
		{"exp is no number", jwt.MapClaims{"exp": "tomorrow"}, ErrInvalid},
		{"no sub", jwt.MapClaims{"sub": nil}, ErrInvalid},
		{"sub is a number", jwt.MapClaims{"sub": 7}, ErrInvalid},
		{"sub is empty", jwt.MapClaims{"sub": ""}, ErrInvalid},
		{"sub is too long", jwt.MapClaims{"sub": strings.Repeat("a", 65)}, ErrInvalid},
		{"sub with a line feed", jwt.MapClaims{"sub": "a\nb"}, ErrInvalid},
		{"sub with a zero-width space", jwt.MapClaims{"sub": "a\u200Bb"}, ErrInvalid},
		{"sub with an override", jwt.MapClaims{"sub": "a\u202Eb"}, ErrInvalid},
		{"sub that was broken", jwt.MapClaims{"sub": "a\uFFFD"}, ErrInvalid},
		{"sub with blanks around it", jwt.MapClaims{"sub": " a"}, ErrInvalid},
		{"no rooms", jwt.MapClaims{"rooms": nil}, ErrInvalid},
		{"empty rooms", jwt.MapClaims{"rooms": []string{}}, ErrInvalid},
		{"rooms of numbers", jwt.MapClaims{"rooms": []int{1}}, ErrInvalid},
		{"exp in milliseconds", jwt.MapClaims{"exp": now.Add(time.Hour).UnixMilli()}, ErrInvalid},
		{"unknown role", jwt.MapClaims{"role": "admin"}, ErrInvalid},
		{"huge", jwt.MapClaims{"more": strings.Repeat("x", MaxToken)}, ErrInvalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := verifier(t).Verify(sign(t, with(tt.change)), "r")
			if !errors.Is(err, tt.want) || (tt.want == nil) != (err == nil) {
				t.Fatalf("Verify: %v; want %v", err, tt.want)
			}
			if err != nil && c.Subject != "" {
				t.Errorf("a token that was refused says %+v", c)
			}
			if err == nil && !c.Role.Valid() {
				t.Errorf("the role is %q", c.Role)
			}
		})
	}
}

func TestVerifyForged(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(&key.PublicKey))})
	signed := func(m jwt.SigningMethod, key any) string {
		return must(jwt.NewWithClaims(m, with(nil)).SignedString(key))
	}
	good := sign(t, with(nil))
	parts := strings.Split(good, ".")
	segment := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	other := strings.Split(sign(t, with(jwt.MapClaims{"role": "broadcaster"})), ".")
	for name, token := range map[string]string{
		"none":                       signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType),
		"none with a signature":      segment(`{"alg":"none"}`) + "." + parts[1] + "." + parts[2],
		"None":                       segment(`{"alg":"None"}`) + "." + parts[1] + ".",
		"another secret":             signed(jwt.SigningMethodHS256, []byte("another secret that has 32 bytes!")),
		"HS384":                      signed(jwt.SigningMethodHS384, secret),
		"HS512":                      signed(jwt.SigningMethodHS512, secret),
		"RS256":                      signed(jwt.SigningMethodRS256, key),
		"public key as the secret":   signed(jwt.SigningMethodHS256, public),
		"RS256 said of HS256":        segment(`{"alg":"RS256"}`) + "." + parts[1] + "." + parts[2],
		"other claims":               parts[0] + "." + other[1] + "." + parts[2],
		"no signature":               parts[0] + "." + parts[1] + ".",
		"signature cut":              good[:len(good)-2],
		"no algorithm":               segment(`{}`) + "." + parts[1] + "." + parts[2],
		"algorithm is a number":      segment(`{"alg":1}`) + "." + parts[1] + "." + parts[2],
		"two segments":               parts[0] + "." + parts[1],
		"four segments":              good + ".x",
		"null claims":                parts[0] + "." + segment("null") + "." + parts[2],
		"nothing":                    "",
		"garbage":                    "a.b.c",
		"bytes":                      "\xff\x00.\xff.\xff",
		"padding":                    good + "=",
		"a key of the token's own":   segment(`{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}`) + "." + parts[1] + "." + parts[2],
		"a megabyte":                 strings.Repeat("a", 1<<20),
		"a header nested very deep":  segment(strings.Repeat("[", 1500)) + "." + parts[1] + "." + parts[2],
		"claims in the wrong places": parts[1] + "." + parts[0] + "." + parts[2],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := verifier(t).Verify(token, "r")
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("Verify: %v; want %v", err, ErrInvalid)
			}
			if len(token) > 10 && strings.Contains(err.Error(), token) {
				t.Errorf("the error contains the token: %v", err)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestTokenEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		token, err := Mint(secret, Claims{Subject: "u", Rooms: []string{"*"}}, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		v := verifier(t)
		time.Sleep(time.Minute + Leeway - time.Second)
		if _, err := v.Verify(token, "r"); err != nil {
			t.Fatalf("before its end and the leeway: %v", err)
		}
		time.Sleep(time.Second)
		if _, err := v.Verify(token, "r"); !errors.Is(err, ErrExpired) {
			t.Fatalf("after its end: %v", err)
		}
	})
}

func TestMintRefuses(t *testing.T) {
	t.Parallel()
	good := Claims{Subject: "u", Rooms: []string{"r"}}
	many := good
	for i := range 400 {
		many.Rooms = append(many.Rooms, fmt.Sprintf("a-room-%d", i))
	}
	for name, tt := range map[string]struct {
		secret []byte
		claims Claims
		ttl    time.Duration
	}{
		"short secret": {secret[:31], good, time.Hour},
		"no user":      {secret, Claims{Rooms: []string{"r"}}, time.Hour},
		"no room":      {secret, Claims{Subject: "u"}, time.Hour},
		"bad room":     {secret, Claims{Subject: "u", Rooms: []string{"a b"}}, time.Hour},
		"bad role":     {secret, Claims{Subject: "u", Rooms: []string{"r"}, Role: "king"}, time.Hour},
		"no time":      {secret, good, 0},
		"too long":     {secret, many, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if token, err := Mint(tt.secret, tt.claims, tt.ttl); err == nil {
				t.Errorf("Mint made %q", token)
			}
		})
	}
	if _, err := NewVerifier(secret[:31]); !errors.Is(err, ErrSecret) {
		t.Errorf("NewVerifier with 31 bytes: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	v := verifier(f)
	good := sign(f, with(nil))
	f.Add(good, "r")
	f.Add("a.b.c", "r")
	f.Add(sign(f, with(jwt.MapClaims{"rooms": "*", "name": "\u202E"})), "x")
	f.Add("eyJhbGciOiJub25lIn0.e30.", "r")
	f.Fuzz(func(t *testing.T, token, room string) {
		c, err := v.Verify(token, room)
		if err == nil {
			// Nobody but the holder of the secret can make one.
			if CheckUser(c.Subject) != nil || !c.Allows(room) || !c.Role.Valid() {
				t.Fatalf("Verify(%q, %q) = %+v", token, room, c)
			}
			return
		}
		if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrExpired) && !errors.Is(err, ErrNotYet) && !errors.Is(err, ErrRoom) {
			t.Fatalf("Verify(%q, %q): %v", token, room, err)
		}
	})
}

// FuzzClaims signs what the fuzzer makes of claims, so that it gets past the
// signature. What a usual header says must not matter.
func FuzzClaims(f *testing.F) {
	v := verifier(f)
	f.Add([]byte(`{"sub":"u","rooms":["r"],"exp":9999999999}`))
	f.Add([]byte(`{"sub":"u","rooms":"*","exp":1e300,"nbf":-1,"name":"` + "\u200F" + `","role":"monitor"}`))
	f.Add([]byte(`{"sub":"u","rooms":["r"],"exp":1}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"sub":"u","rooms":["r"],"exp":9999999999,"role":"viewer","Role":"broadcaster","ROOMS":"*","room\u017f":"*"}`))
	f.Add([]byte(`{"sub":"u","sub":"v","rooms":[null,""],"exp":1767225600000,"nbf":null,"\u0065xp":1.5e300}`))
	f.Add([]byte("{\"sub\":\"\xff\",\"rooms\":[\"r\",\"\"],\"exp\":9999999999.75}"))
	f.Fuzz(func(t *testing.T, claims []byte) {
		if len(claims) > MaxToken/2 { // whether a token is too long may depend on the header
			return
		}
		verify := func(header string) (Claims, error) {
			text := header + "." + base64.RawURLEncoding.EncodeToString(claims)
			sig, err := jwt.SigningMethodHS256.Sign(text, secret)
			if err != nil {
				t.Fatal(err)
			}
			return v.Verify(text+"."+base64.RawURLEncoding.EncodeToString(sig), "r")
		}
		want, wantErr := verify(base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","kid":"1"}`)))
		for _, header := range usualHeaders {
			c, err := verify(header)
			same := fmt.Sprint(err) == fmt.Sprint(wantErr)
			if !json.Valid(claims) { // the library has words of its own for that
				same = errors.Is(err, ErrInvalid) && errors.Is(wantErr, ErrInvalid)
			}
			if !reflect.DeepEqual(c, want) || !same {
				t.Fatalf("claims %q became %+v, %v; with another header %+v, %v", claims, c, err, want, wantErr)
			}
		}
		if wantErr != nil {
			return
		}
		if CheckUser(want.Subject) != nil || !want.Allows("r") || !want.Role.Valid() || want.Expires.Before(time.Now().Add(-Leeway)) || want.Expires.Year() > 9999 {
			t.Fatalf("claims %q became %+v", claims, want)
		}
		// A map has exact names; it cannot tell what was there twice.
		var plain map[string]any
		if err := json.Unmarshal(claims, &plain); err != nil || plain["sub"] != want.Subject {
			t.Fatalf("claims %q became %+v; sub is %v, %v", claims, want, plain["sub"], err)
		}
		if role, _ := plain["role"].(string); role != string(want.Role) && (role != "" || want.Role != protocol.RoleViewer) {
			t.Fatalf("claims %q became %+v; role is %q", claims, want, role)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	v := verifier(b)
	token := sign(b, with(nil))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(token, "r"); err != nil {
			b.Fatal(err)
		}
	}
}
