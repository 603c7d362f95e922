package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/crc32"
	"regexp"
	"slices"
	"strings"

	"github.com/kansei-live/kansei/internal/auth"
)

// KeyPrefix begins every API key, so that scanners for leaked secrets find them.
const KeyPrefix = "kansei_"

// MaxKeys is how many keys of one name count at a time: one, and another while it replaces that.
const MaxKeys = 2

// Scope is what a key may be used for.
type Scope string

// The scopes.
const (
	ScopePublish   Scope = "publish"    // comments of its own
	ScopePublishAs Scope = "publish_as" // comments of any user
	ScopeModerate  Scope = "moderate"   // changing a room
	ScopeRead      Scope = "read"       // whatever the staff may read
	ScopeAdmin     Scope = "admin"      // revoking tokens, making links
)

// Scopes are all there are.
func Scopes() []Scope {
	return []Scope{ScopePublish, ScopePublishAs, ScopeModerate, ScopeRead, ScopeAdmin}
}

// Key is an API key without its secret.
type Key struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Scopes  []Scope  `json:"scopes"`
	Rooms   []string `json:"rooms"`  // as those of a token
	SHA256  []byte   `json:"sha256"` // of the secret
	Created int64    `json:"created"`
	Revoked int64    `json:"revoked,omitempty"` // Unix seconds
}

// Has reports whether the key may be used for something.
func (k *Key) Has(s Scope) bool { return slices.Contains(k.Scopes, s) }

// Errors of keys.
var (
	ErrNoKey    = errors.New("access: there is no such key, or it is revoked")
	ErrMistyped = errors.New("access: the key is mistyped, or cut")
	ErrKey      = errors.New("access: a key cannot be made so")
)

// A key is KeyPrefix, its id, _, its secret of 256 random bits, and four characters that tell a
// mistyped one; all of [a-z2-7].
var isKey = regexp.MustCompile(`^` + KeyPrefix + `([a-z2-7]{10})_([a-z2-7]{52})([a-z2-7]{4})$`)

// IsKey reports whether somebody has shown a key, and no token.
func IsKey(s string) bool { return strings.HasPrefix(s, KeyPrefix) }

func base(p []byte) string {
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(p))
}

func checksum(s string) string {
	n := crc32.ChecksumIEEE([]byte(s))
	return base([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8)})[:4]
}

// Find returns the key that somebody has shown. The error is [ErrMistyped] or [ErrNoKey].
func (a *Access) Find(shown string) (Key, error) {
	if len(shown) > 100 {
		return Key{}, ErrMistyped
	}
	m := isKey.FindStringSubmatch(shown)
	if m == nil || checksum(m[1]+m[2]) != m[3] {
		return Key{}, ErrMistyped
	}
	a.mu.RLock()
	k, is := a.keys[m[1]]
	a.mu.RUnlock()
	sum := sha256.Sum256([]byte(m[2]))
	if subtle.ConstantTimeCompare(sum[:], k.SHA256) != 1 || !is || k.Revoked > 0 {
		return Key{}, ErrNoKey
	}
	return k, nil
}

var isKeyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$`)

// NewKey makes a key and stores it without its secret, which nobody can have again. The error is
// [ErrKey], or that of the store.
func (a *Access) NewKey(ctx context.Context, name string, scopes []Scope, rooms []string) (k Key, secret string, err error) {
	var random [32 + 7]byte
	_, _ = rand.Read(random[:]) // never fails
	id, hidden := base(random[32:])[:10], base(random[:32])
	sum := sha256.Sum256([]byte(hidden))
	k = Key{ID: id, Name: name, Scopes: scopes, Rooms: rooms, SHA256: sum[:], Created: a.cfg.Now().Unix()}
	switch {
	case !isKeyName.MatchString(name):
		err = fmt.Errorf("%w: its name must be 1 to 40 of A-Z a-z 0-9 _ . -, the first a letter or digit, not %.50q", ErrKey, name)
	case len(scopes) == 0:
		err = fmt.Errorf("%w: it needs a scope: publish, publish_as, moderate, read or admin", ErrKey)
	case len(rooms) == 0:
		err = fmt.Errorf("%w: it needs rooms, * for all", ErrKey)
	case len(rooms) > 100:
		err = fmt.Errorf("%w: it has %d rooms, at most 100 are taken; lesson-* is all that begin so", ErrKey, len(rooms))
	}
	for _, r := range rooms {
		if !auth.ValidRooms(r) {
			err = fmt.Errorf("%w: its room must be a name, the beginning of one and *, or *, not %.50q", ErrKey, r)
		}
	}
	for _, s := range scopes {
		if !slices.Contains(Scopes(), s) {
			err = fmt.Errorf("%w: its scope must be publish, publish_as, moderate, read or admin, not %.50q", ErrKey, s)
		}
	}
	if n := len(a.named(name)); err == nil && n >= MaxKeys {
		err = fmt.Errorf("%w: there are %d keys of the name %s already, as many as there may be while one replaces the other: revoke one", ErrKey, n, name)
	}
	if err == nil {
		err = a.put(ctx, keyPrefix+id, k)
	}
	if err != nil {
		return Key{}, "", err
	}
	return k, KeyPrefix + id + "_" + hidden + checksum(id+hidden), nil
}

// named are the keys of a name that count.
func (a *Access) named(name string) []Key {
	return slices.DeleteFunc(a.Keys(), func(k Key) bool { return k.Name != name || k.Revoked > 0 })
}

// RevokeKey revokes the key of an id, or the only one of a name.
func (a *Access) RevokeKey(ctx context.Context, which string) (Key, error) {
	a.mu.RLock()
	k, is := a.keys[which]
	a.mu.RUnlock()
	if named := a.named(which); !is && len(named) == 1 {
		k, is = named[0], true
	} else if len(named) > 1 {
		return Key{}, fmt.Errorf("%w: there are %d of the name %s: give the id of one, %s", ErrNoKey, len(named), which, named[0].ID)
	}
	if !is || k.Revoked > 0 {
		return Key{}, ErrNoKey
	}
	k.Revoked = a.cfg.Now().Unix()
	return k, a.put(ctx, keyPrefix+k.ID, k)
}

// Keys are all keys, by name, the oldest first.
func (a *Access) Keys() []Key {
	a.mu.RLock()
	defer a.mu.RUnlock()
	all := make([]Key, 0, len(a.keys))
	for _, k := range a.keys {
		all = append(all, k)
	}
	slices.SortFunc(all, func(x, y Key) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), cmp.Compare(x.Created, y.Created), strings.Compare(x.ID, y.ID))
	})
	return all
}
