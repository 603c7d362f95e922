package auth

import (
	"errors"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/kansei-live/kansei/protocol"
)

var (
	oldSecret = []byte("the secret of guests that goes, 32+")
	newSecret = []byte("the secret of guests that comes, 32+")
)

func guests(t testing.TB, secrets ...[]byte) *Guests {
	t.Helper()
	g, err := NewGuests(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func idOf(g *Guests, session string) string {
	id, _ := g.Guest(session)
	return id
}

func TestGuests(t *testing.T) {
	t.Parallel()
	g, same, other := guests(t, oldSecret), guests(t, oldSecret), guests(t, newSecret)
	seen := map[string]bool{}
	var all sync.WaitGroup
	var mu sync.Mutex
	for range 8 {
		all.Go(func() { // ends by itself, and is waited for
			for range 100 {
				session := g.Session()
				id, name := g.Guest(session)
				if !protocol.ValidSession(session) || CheckUser(id) == nil || !regexp.MustCompile(`^guest-[0-9a-f]{24}$`).MatchString(id) {
					t.Errorf("session %q is %q", session, id)
				}
				if want := "Guest " + strings.ToUpper(id[6:10]); name != want {
					t.Errorf("%q has the name %q, want %q", id, name, want)
				}
				if again := idOf(same, session); again != id {
					t.Errorf("on another node %q is %q, here %q", session, again, id)
				}
				if foreign := idOf(other, session); foreign == id {
					t.Errorf("%q is %q under another secret too", session, id)
				}
				mu.Lock()
				if seen[session] || seen[id] {
					t.Errorf("%q or %q is there twice", session, id)
				}
				seen[session], seen[id] = true, true
				mu.Unlock()
			}
		})
	}
	all.Wait()
}

// A hash is one: what the id is must not change between versions of this program, or
// every guest would be somebody else.
func TestGuestIDsStay(t *testing.T) {
	t.Parallel()
	const session = "a-session-of-ones-own"
	const want = "guest-42e81b457e753f2e5c16101e"
	if got := idOf(guests(t, oldSecret), session); got != want {
		t.Errorf("%q is %q, want %q", session, got, want)
	}
}

// While one secret takes the place of another, all nodes agree on who is who.
func TestGuestsWhileSecretsChange(t *testing.T) {
	t.Parallel()
	before, learning, changing, after := guests(t, oldSecret), guests(t, oldSecret, newSecret), guests(t, newSecret, oldSecret), guests(t, newSecret)
	for range 100 {
		made := before.Session()
		id := idOf(before, made)
		if a, b := idOf(learning, made), idOf(changing, made); a != id || b != id {
			t.Errorf("an older session is %q, then %q, then %q", id, a, b)
		}
		// Some nodes have the new secret in front already.
		made = changing.Session()
		id = idOf(changing, made)
		if a, b := idOf(learning, made), idOf(after, made); a != id || b != id {
			t.Errorf("a newer session is %q, on another node %q, in the end %q", id, a, b)
		}
	}
	// A guest's own is as long as one of ours, by chance, or not.
	for _, own := range []string{"0123456789abcdef", strings.Repeat("x", 27), strings.Repeat("-", 27), strings.Repeat("_", 64), "YXNkZmdoamtsMTIzNDU2Nw"} {
		if a, b := idOf(learning, own), idOf(before, own); a != b {
			t.Errorf("%q is %q under the first secret alone, and %q", own, b, a)
		}
		if a, b := idOf(changing, own), idOf(after, own); a != b {
			t.Errorf("%q is %q under the first secret alone, and %q", own, b, a)
		}
	}
}

func TestGuestsWithoutASecret(t *testing.T) {
	t.Parallel()
	var g Guests
	if a, b := g.Session(), g.Session(); !protocol.ValidSession(a) || a == b {
		t.Errorf("sessions %q and %q", a, b)
	}
	if _, err := NewGuests(oldSecret, newSecret[:31]); !errors.Is(err, ErrSecret) || strings.Contains(err.Error(), string(newSecret[:31])) {
		t.Errorf("with a short secret: %v", err)
	}
}

func FuzzGuest(f *testing.F) {
	one, two := guests(f, newSecret), guests(f, newSecret, oldSecret)
	f.Add(one.Session())
	f.Add(guests(f, oldSecret).Session())
	f.Add("0123456789abcdef")
	f.Fuzz(func(t *testing.T, session string) {
		if !protocol.ValidSession(session) {
			return
		}
		a, _ := one.Guest(session)
		b, _ := two.Guest(session)
		if CheckUser(a) == nil || CheckUser(b) == nil || len(a) != len(b) || b != a && b != idOf(guests(t, oldSecret), session) {
			t.Fatalf("%q is %q and %q", session, a, b)
		}
	})
}

func BenchmarkGuest(b *testing.B) {
	for name, g := range map[string]*Guests{"one secret": guests(b, newSecret), "two secrets": guests(b, newSecret, oldSecret)} {
		session := guests(b, oldSecret).Session()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = g.Guest(session)
			}
		})
	}
	g := guests(b, newSecret)
	b.Run("session", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = g.Session()
		}
	})
}
