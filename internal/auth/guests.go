package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// GuestPrefix begins the id of every guest.
const GuestPrefix = "guest-"

// The sizes of what is made for guests, in bytes.
const (
	// guestID is how much of a hash is an id: 96 bits, which nobody meets by trying.
	guestID = 12
	// sessionRandom is what makes a session a secret.
	sessionRandom = 16
	// sessionMark is how much of a hash marks a session as made under a secret. It does not
	// prove anything to anybody, it chooses among two secrets.
	sessionMark = 4
)

// Guests says who somebody without a token is, from the session.
//
// The id of a guest is a hash of the session under a secret that all nodes have. So the
// same session is the same guest everywhere, and nobody can work out offline which
// session has the id of somebody else, or one that is like it.
//
// A session is made by the server, or by the guest itself, of 16 characters or more. Those
// that the server makes bear a mark of the secret that they were made under. While one secret takes the place of another, nodes have both: a
// session keeps the id that it has under the secret of its mark. A session without a
// mark that any secret knows, such as one of the guest's own, has its id under the first
// secret, and another id when that changes. The zero value has no secret, for where no
// guests are let in.
type Guests struct {
	// known is the secrets that count, the first in use; nil without any.
	known atomic.Pointer[[]*guestKey]
}

// guestKey is one secret; a hash.Hash is for one user at a time.
type guestKey struct{ macs sync.Pool }

// NewGuests makes a Guests with one or two secrets, or none. New sessions are made under the
// first. Its error is that of [Guests.Prepare].
func NewGuests(secrets ...[]byte) (*Guests, error) {
	g := &Guests{}
	apply, err := g.Prepare(secrets...)
	if err != nil {
		return nil, err
	}
	apply()
	return g, nil
}

// Prepare checks secrets and returns what puts them in the place of those that g has. Its
// error is [ErrSecret], or that there are too many.
func (g *Guests) Prepare(secrets ...[]byte) (apply func(), err error) {
	if err := checkSecrets(secrets, MaxNodeSecrets); err != nil {
		return nil, fmt.Errorf("guests: %w", err)
	}
	known := make([]*guestKey, len(secrets))
	for i, s := range secrets {
		key := slices.Clone(s)
		known[i] = &guestKey{sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
	}
	return func() { g.known.Store(&known) }, nil
}

// keys returns the secrets that count now.
func (g *Guests) keys() []*guestKey {
	if known := g.known.Load(); known != nil {
		return *known
	}
	return nil
}

// sum returns a hash of s for one purpose.
func (k *guestKey) sum(purpose, s string) (sum [sha256.Size]byte) {
	m := k.macs.Get().(hash.Hash)
	defer k.macs.Put(m)
	m.Reset()
	var buf [8 + 64]byte // as long as a session may be
	_, _ = m.Write(append(append(append(buf[:0], purpose...), 0), s...))
	m.Sum(sum[:0])
	return sum
}

// mark returns the end of a session that begins with random.
func (k *guestKey) mark(random string) []byte {
	sum := k.sum("session", random)
	return sum[:sessionMark]
}

// Session makes a session.
func (g *Guests) Session() string {
	var b [sessionRandom + sessionMark]byte
	_, _ = rand.Read(b[:]) // never fails
	if known := g.keys(); len(known) > 0 {
		copy(b[sessionRandom:], known[0].mark(string(b[:sessionRandom])))
	}
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Guest returns the id and the name of the guest with a session. There must be a secret.
func (g *Guests) Guest(session string) (id, name string) {
	sum := keyOf(g.keys(), session).sum("guest", session)
	h := hex.EncodeToString(sum[:guestID])
	return GuestPrefix + h, "Guest " + strings.ToUpper(h[:4])
}

// keyOf is the secret among known that a session was made under; the first if none is.
func keyOf(known []*guestKey, session string) *guestKey {
	if len(known) < 2 || len(session) != base64.RawURLEncoding.EncodedLen(sessionRandom+sessionMark) {
		return known[0]
	}
	b, err := base64.RawURLEncoding.DecodeString(session)
	if err != nil {
		return known[0]
	}
	for _, k := range known {
		if hmac.Equal(k.mark(string(b[:sessionRandom])), b[sessionRandom:]) {
			return k
		}
	}
	return known[0]
}
