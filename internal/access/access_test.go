package access

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// store is records that several nodes share.
type store struct {
	mu      sync.Mutex
	entries []Entry
	nodes   []*Access
	fails   error
}

func (s *store) node() *Access {
	a := New(Config{Put: s.put, MaxTokenAge: time.Hour, Logger: slog.New(slog.DiscardHandler)})
	s.nodes = append(s.nodes, a)
	a.Apply(s.entries, true)
	return a
}

func (s *store) put(_ context.Context, e Entry) error {
	if s.fails != nil {
		return s.fails
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(slices.DeleteFunc(s.entries, func(o Entry) bool { return o.Name == e.Name }), e)
	for _, n := range s.nodes {
		n.Apply([]Entry{e}, false)
	}
	return nil
}

func TestRevocations(t *testing.T) {
	t.Parallel()
	s := new(store)
	a, b := s.node(), s.node()
	ctx, now := t.Context(), time.Now().Unix()
	revoke := func(r Revocation) {
		t.Helper()
		if _, err := a.Revoke(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	if b.Revoked("u", "t", 0) {
		t.Error("before anything was revoked")
	}
	revoke(Revocation{User: "u"})
	revoke(Revocation{JTI: "t1"})
	revoke(Revocation{User: "v", Before: now - 100})
	revoke(Revocation{User: "v", Before: now - 200}) // nothing counts again
	late := s.node()
	for _, n := range []*Access{a, b, late} {
		for _, c := range []struct {
			user, jti string
			issued    int64
			want      bool
		}{
			{"u", "", now - 10, true}, {"u", "", now, true}, {"u", "", now + 5, false}, {"u", "", 0, true}, {"u", "t2", now + 5, false},
			{"x", "t1", now + 5, true}, {"x", "", now, false}, {"x", "t2", now, false},
			{"v", "", now - 150, true}, {"v", "", now - 99, false},
		} {
			if got := n.Revoked(c.user, c.jti, c.issued); got != c.want {
				t.Errorf("%+v: %v", c, got)
			}
		}
	}
	revoke(Revocation{Before: now - 1000})
	if !late.Revoked("x", "", now-1001) || late.Revoked("x", "", now-999) || !late.Revoked("x", "", 0) {
		t.Error("all that were issued before are not revoked, or others are")
	}
	// After a restore of the records nodes that have heard of it do not forget.
	b.Apply(nil, true)
	if !b.Revoked("u", "", now-10) {
		t.Error("a revocation is forgotten")
	}
	if n := len(a.Revocations()); n != 4 {
		t.Errorf("%d revocations are listed", n)
	}
	for name, r := range map[string]Revocation{
		"nothing": {}, "two": {User: "u", JTI: "t"}, "an id and a moment": {JTI: "t", Before: now}, "the future": {Before: now + 3600},
		"milliseconds": {User: "u", Before: now * 1000}, "negative": {Before: -1}, "long": {User: strings.Repeat("u", 129)},
	} {
		if _, err := a.Revoke(ctx, r); !errors.Is(err, ErrRevocation) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.fails = errors.New("away")
	if _, err := a.Revoke(ctx, Revocation{User: "w"}); !errors.Is(err, s.fails) || a.Revoked("w", "", now+5) {
		t.Errorf("what is not stored counts: %v", err)
	}
}

// Revocations end when no token that they concern can hold any longer.
func TestRevocationsEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := new(store).node()
		for i := range 600 {
			if _, err := a.Revoke(t.Context(), Revocation{JTI: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Hour)
		for i := range 300 {
			if _, err := a.Revoke(t.Context(), Revocation{JTI: fmt.Sprint("late", i)}); err != nil {
				t.Fatal(err)
			}
		}
		if n, kept := len(a.Revocations()), len(a.revoked); n != 300 || kept > 600 {
			t.Errorf("%d are listed, %d are kept", n, kept)
		}
	})
}

func TestKeys(t *testing.T) {
	t.Parallel()
	s := new(store)
	a, b := s.node(), s.node()
	ctx := t.Context()
	k, secret, err := a.NewKey(ctx, "shop", []Scope{ScopePublish, ScopeRead}, []string{"sale-*"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range s.entries {
		if strings.Contains(string(e.Body), secret[20:40]) {
			t.Error("the secret is stored")
		}
	}
	got, err := b.Find(secret)
	if err != nil || got.ID != k.ID || got.Name != "shop" || !got.Has(ScopeRead) || got.Has(ScopeAdmin) {
		t.Errorf("found %+v, %v", got, err)
	}
	// Any single mistake is one, and so is a cut key.
	for i := range len(secret) {
		wrong := []byte(secret)
		if wrong[i] = 'a'; secret[i] == 'a' {
			wrong[i] = 'b'
		}
		if _, err := b.Find(string(wrong)); !errors.Is(err, ErrMistyped) {
			t.Errorf("mistyped at %d: %v", i, err)
		}
	}
	for _, wrong := range []string{"", KeyPrefix, secret[:len(secret)-1], secret + "a", strings.ToUpper(secret), strings.Repeat("a", 10_000), secret + "\n"} {
		if _, err := b.Find(wrong); !errors.Is(err, ErrMistyped) {
			t.Errorf("%.20q: %v", wrong, err)
		}
	}
	other := KeyPrefix + k.ID + "_" + strings.Repeat("a", 52)
	if _, err := b.Find(other + checksum(k.ID+strings.Repeat("a", 52))); !errors.Is(err, ErrNoKey) {
		t.Errorf("another secret of a key that there is: %v", err)
	}

	// Two at a time.
	second, secondSecret, err := b.NewKey(ctx, "shop", []Scope{ScopeRead}, []string{"*"})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.NewKey(ctx, "shop", []Scope{ScopeRead}, []string{"*"}); !errors.Is(err, ErrKey) {
		t.Errorf("a third one: %v", err)
	}
	if _, err := a.RevokeKey(ctx, "shop"); !errors.Is(err, ErrNoKey) || !strings.Contains(err.Error(), "give the id") {
		t.Errorf("revoked by a name that two have: %v", err)
	}
	if _, err := a.RevokeKey(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Find(secret); !errors.Is(err, ErrNoKey) {
		t.Errorf("a revoked key: %v", err)
	}
	if _, err := s.node().Find(secret); !errors.Is(err, ErrNoKey) {
		t.Errorf("a revoked key, after a restart: %v", err)
	}
	if _, err := b.Find(secondSecret); err != nil {
		t.Errorf("the one that replaces it: %v", err)
	}
	if _, err := a.RevokeKey(ctx, "shop"); err != nil {
		t.Errorf("the only one of a name: %v", err)
	}
	if _, err := a.RevokeKey(ctx, second.ID); !errors.Is(err, ErrNoKey) {
		t.Errorf("revoked twice: %v", err)
	}
	if n := len(a.Keys()); n != 2 {
		t.Errorf("%d keys are listed", n)
	}
	for name, c := range map[string]struct {
		name   string
		scopes []Scope
		rooms  []string
	}{
		"no name": {"", []Scope{ScopeRead}, []string{"*"}}, "a long name": {strings.Repeat("n", 41), []Scope{ScopeRead}, []string{"*"}},
		"no scope": {"n", nil, []string{"*"}}, "an unknown scope": {"n", []Scope{"all"}, []string{"*"}}, "no room": {"n", []Scope{ScopeRead}, nil},
		"no name of a room": {"n", []Scope{ScopeRead}, []string{"a*b"}},
	} {
		if _, _, err := a.NewKey(ctx, c.name, c.scopes, c.rooms); !errors.Is(err, ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzFind(f *testing.F) {
	s := new(store)
	a := s.node()
	_, secret, err := a.NewKey(context.Background(), "n", []Scope{ScopeRead}, []string{"*"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(secret)
	f.Add(KeyPrefix)
	f.Fuzz(func(t *testing.T, shown string) {
		if k, err := a.Find(shown); err == nil && shown != secret {
			t.Fatalf("%q is taken for %+v", shown, k)
		}
	})
}

func FuzzApply(f *testing.F) {
	f.Add("revoked.user.x", []byte(`{"user":"u","before":1}`))
	f.Add("key.a", []byte(`{"name":"n","scopes":["read"]}`))
	f.Add("words.x", []byte(`{`))
	f.Fuzz(func(_ *testing.T, name string, body []byte) {
		a := new(store).node()
		a.Apply([]Entry{{name, body}}, false)
		a.Revoked("u", "t", 1)
		a.Keys()
		a.Revocations()
	})
}

// Nodes whose clocks are 14 minutes apart revoke the same, by the clock of the store.
func TestRevocationByTheStoresClock(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{-14 * time.Minute, 14 * time.Minute} {
		s := new(store)
		here := time.Now().Add(off) // as this node's clock has it
		a := New(Config{Put: s.put, Now: func() time.Time { return here.Add(-off) }, MaxTokenAge: time.Hour, Logger: slog.New(slog.DiscardHandler)})
		s.nodes = append(s.nodes, a)
		made, err := a.Revoke(t.Context(), Revocation{User: "u"})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now().Unix()
		if d := made.Before - now; d < -2 || d > 2 {
			t.Errorf("revoked up to %d s from now", d)
		}
		if !a.Revoked("u", "", now-1) || a.Revoked("u", "", now+3) {
			t.Error("a token of just before counts, or one of just after does not")
		}
	}
}
