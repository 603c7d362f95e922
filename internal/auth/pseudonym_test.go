package auth

import (
	"strings"
	"testing"
)

func pseudonyms(t testing.TB, secrets ...[]byte) *Pseudonyms {
	t.Helper()
	p := &Pseudonyms{}
	apply, err := p.Prepare(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	apply()
	return p
}

// A pseudonym is the same for a user in a room, on every node, another one in each room, and tells
// who it is to those with the secret alone.
func TestPseudonyms(t *testing.T) {
	t.Parallel()
	one, two := pseudonyms(t, oldSecret), pseudonyms(t, oldSecret)
	seen := map[string]string{}
	for _, user := range []string{"u", "u1", "山田-1@example.com", "guest-0123456789abcdef01234567", strings.Repeat("x", maxID), "p-u", strings.Repeat("y", 16)} {
		for _, room := range []string{"lesson-1", "lesson-2"} {
			p := one.Of(room, user)
			if p != two.Of(room, user) || !strings.HasPrefix(p, PseudonymPrefix) || len(p) > maxPseudonym || strings.Contains(p, user) && len(user) > 2 {
				t.Errorf("%s in %s is %s", user, room, p)
			}
			if other, is := seen[p]; is {
				t.Errorf("%s is %s, and %s in %s", p, other, user, room)
			}
			seen[p] = user + " in " + room
			if got := two.User(p); got != user {
				t.Errorf("%s is %q, want %q", p, got, user)
			}
			if got := pseudonyms(t, newSecret).User(p); got != p {
				t.Errorf("with another secret %s is %q", p, got)
			}
			for i := len(PseudonymPrefix); i < len(p)-1; i += 7 { // of the last character some bits are nothing
				wrong := []byte(p)
				if wrong[i] = 'A'; p[i] == 'A' {
					wrong[i] = 'B'
				}
				if got := one.User(string(wrong)); got != string(wrong) {
					t.Errorf("mistyped at %d it is %q", i, got)
				}
			}
		}
	}
	// Ids of one length, about, have pseudonyms of one length.
	if a, b := one.Of("r", "ab"), one.Of("r", "abcdefghijklmno"); len(a) != len(b) {
		t.Errorf("%s and %s", a, b)
	}
	// While one secret takes the place of another, both are known.
	changing := pseudonyms(t, newSecret, oldSecret)
	if got := changing.User(one.Of("r", "u")); got != "u" {
		t.Errorf("of the old secret: %q", got)
	}
	if changing.Of("r", "u") != pseudonyms(t, newSecret).Of("r", "u") {
		t.Error("the first secret is not in use")
	}
	none := &Pseudonyms{}
	if none.Of("r", "u") != "u" || none.User("p-abc") != "p-abc" {
		t.Error("without a secret ids are not as they are")
	}
	for _, id := range []string{"", "u", "p-", "p-!", "p-" + strings.Repeat("A", 60), "p-" + strings.Repeat("A", 10_000)} {
		if got := one.User(id); got != id {
			t.Errorf("%.20q is %q", id, got)
		}
	}
}

func FuzzPseudonym(f *testing.F) {
	p := pseudonyms(f, oldSecret)
	f.Add("r", "u")
	f.Add("lesson-1", p.Of("r", "u"))
	f.Fuzz(func(t *testing.T, room, user string) {
		if len(user) > maxID {
			return
		}
		if got := p.User(p.Of(room, user)); got != user {
			t.Errorf("%q in %q became %q", user, room, got)
		}
		p.User(user)
	})
}

func BenchmarkPseudonym(b *testing.B) {
	p := pseudonyms(b, oldSecret)
	b.ReportAllocs()
	for b.Loop() {
		p.Of("lesson-1", "user-17")
	}
}
