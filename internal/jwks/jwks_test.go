package jwks

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/internal/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority is an issuer that the test plays.
type authority struct {
	*httptest.Server
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
}

func newAuthority(t *testing.T, h http.HandlerFunc) *authority {
	a := &authority{}
	a.answer.Store(&h)
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.asked.Add(1)
		(*a.answer.Load())(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func key(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// set writes keys as a JWK Set, the first with the id 0 or from on.
func set(t *testing.T, from int, keys ...*ecdsa.PrivateKey) http.HandlerFunc {
	t.Helper()
	var all []map[string]string
	for i, k := range keys {
		p, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		b64 := base64.RawURLEncoding.EncodeToString
		all = append(all, map[string]string{"kty": "EC", "crv": "P-256", "kid": fmt.Sprint(from + i), "x": b64(p[1:33]), "y": b64(p[33:])})
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": all})
	}
}

func token(t *testing.T, k *ecdsa.PrivateKey, kid string) string {
	t.Helper()
	j := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": "u", "rooms": "*", "exp": time.Now().Add(time.Hour).Unix()})
	j.Header["kid"] = kid
	s, err := j.SignedString(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// begin runs a fetcher for a verifier of one issuer.
func begin(t *testing.T, address string, every, asked time.Duration) (*auth.Verifier, *Fetcher) {
	t.Helper()
	v := &auth.Verifier{}
	apply, err := v.PrepareIssuers(auth.Issuer{Fetched: true})
	if err != nil {
		t.Fatal(err)
	}
	apply()
	f := New(Config{Issuer: "i", URL: address, Metrics: NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
		Keys: func(keys []auth.Key) error { return v.SetKeys("", keys) }, every: every, askedEvery: asked})
	v.UnknownKey = func(string) { f.Ask() }
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return v, f
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// A key that is new is fetched once a token names it, and then counts; a token with a key that
// nobody has is refused at once, however often it comes.
func TestUnknownKey(t *testing.T) {
	t.Parallel()
	one, two := key(t), key(t)
	a := newAuthority(t, set(t, 0, one))
	v, f := begin(t, a.URL, time.Hour, 50*time.Millisecond)
	eventually(t, "the first keys", func() bool { return f.Ready() == nil })
	if _, err := v.Verify(token(t, one, "0"), "r"); err != nil {
		t.Fatal(err)
	}
	if n := a.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	h := set(t, 0, one, two)
	a.answer.Store(&h)
	if _, err := v.Verify(token(t, two, "1"), "r"); auth.CauseOf(err) != auth.CauseKey {
		t.Errorf("a key that is not fetched yet: %v", err)
	}
	eventually(t, "the new key counts", func() bool { _, err := v.Verify(token(t, two, "1"), "r"); return err == nil })

	began, before := time.Now(), a.asked.Load()
	nonsense := token(t, key(t), "nobody's")
	for time.Since(began) < 300*time.Millisecond {
		if _, err := v.Verify(nonsense, "r"); auth.CauseOf(err) != auth.CauseKey {
			t.Fatalf("a key that nobody has: %v", err)
		}
	}
	if n := a.asked.Load() - before; n > 8 {
		t.Errorf("asked %d times in 300 ms, when once in 50 ms is allowed", n)
	}
}

// While an issuer hangs, is away, answers nonsense or far too much, its keys count on.
func TestIssuerInTrouble(t *testing.T) {
	t.Parallel()
	one := key(t)
	good := set(t, 0, one)
	a := newAuthority(t, good)
	v, f := begin(t, a.URL, 10*time.Millisecond, 10*time.Millisecond)
	eventually(t, "the first keys", func() bool { return f.Ready() == nil })
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	var many []*ecdsa.PrivateKey
	for range 40 {
		many = append(many, one)
	}
	for name, h := range map[string]http.HandlerFunc{
		"HTML":       func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<!doctype html>")) },
		"500":        func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
		"a megabyte": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) },
		"many keys":  set(t, 0, many...),
		"elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		},
		"in circles": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		},
	} {
		before := a.asked.Load()
		a.answer.Store(&h)
		eventually(t, name+" was asked", func() bool { return a.asked.Load() > before })
		for range 100 {
			start := time.Now()
			if _, err := v.Verify(token(t, one, "0"), "r"); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if _, err := v.Verify(token(t, key(t), "x"), "r"); auth.CauseOf(err) != auth.CauseKey {
				t.Fatalf("%s: an unknown key: %v", name, err)
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Fatalf("%s: a join waited for %v", name, took)
			}
		}
		if name == "hangs" {
			release <- struct{}{}
		}
		a.answer.Store(&good)
	}
}

// An issuer that changes its keys twice a second is followed no faster than it is asked.
func TestRotation(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, nil)
	var n atomic.Int64
	one := key(t)
	h := func(w http.ResponseWriter, r *http.Request) { set(t, int(n.Add(1)), one)(w, r) }
	a.answer.Store((*http.HandlerFunc)(&h))
	v, f := begin(t, a.URL, time.Hour, 100*time.Millisecond)
	eventually(t, "the first keys", func() bool { return f.Ready() == nil })
	began := time.Now()
	for time.Since(began) < 500*time.Millisecond {
		_, _ = v.Verify(token(t, one, fmt.Sprint(n.Load()+1)), "r")
	}
	if got := a.asked.Load(); got < 3 || got > 9 {
		t.Errorf("asked %d times in 500 ms, when once in 100 ms is allowed", got)
	}
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"https://login.example/jwks": true, "http://127.0.0.1:8/": true, "http://[::1]/": true, "http://localhost/": true,
		"http://login.example/": false, "http://10.0.0.1/": false, "http://localhost.example/": false, "ftp://127.0.0.1/": false, "file:///etc/passwd": false,
	} {
		u, err := url.Parse(address)
		if err != nil {
			t.Fatal(err)
		}
		if err := Allowed(u); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
		if _, err := Get(t.Context(), http.DefaultClient, address); !want && (err == nil || !strings.Contains(err.Error(), "https")) {
			t.Errorf("%s: %v", address, err)
		}
	}
}
