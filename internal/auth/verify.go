package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Verifier checks tokens. Its methods may be called from any goroutine.
type Verifier struct {
	keys  atomic.Pointer[keySet]
	cache cache

	// MaxAge is how long a token may hold: exp - iat, or exp - now without iat; 0 for any. It is
	// set before the first token is checked.
	MaxAge time.Duration
	// UnknownKey is told, on the way of who joins, that a token names a key (kid) of an issuer
	// with fetched keys that is not there; nil for nobody. It must not wait.
	UnknownKey func(issuer string)

	mu      sync.Mutex
	issuers []Issuer         // those that count, without what was fetched
	fetched map[string][]Key // by the names of issuers
}

// usualHeaders are those with which nearly all libraries begin a token that is signed with a
// secret, in base64.
var usualHeaders = [...]string{
	"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", // {"alg":"HS256","typ":"JWT"}
	"eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9", // {"typ":"JWT","alg":"HS256"}
	"eyJhbGciOiJIUzI1NiJ9",                 // {"alg":"HS256"}
}

// NewVerifier makes a Verifier for tokens that were signed with one of the secrets, of
// which there is one at least. Its error is that of [Verifier.Prepare].
func NewVerifier(secrets ...[]byte) (*Verifier, error) {
	v := &Verifier{}
	apply, err := v.Prepare(secrets...)
	if err != nil {
		return nil, err
	}
	apply()
	return v, nil
}

// Prepare checks secrets of the default issuer, and returns what puts them in the
// place of all issuers that v has. Tokens that are being checked meanwhile are checked with either.
// Its error is [ErrSecret], or that there are none or too many.
func (v *Verifier) Prepare(secrets ...[]byte) (apply func(), err error) {
	if err := checkSecrets(secrets, MaxSecrets); err != nil {
		return nil, err
	}
	return v.PrepareIssuers(Issuer{Keys: SecretKeys(secrets...)})
}

// SecretKeys are keys that are secrets, without ids.
func SecretKeys(secrets ...[]byte) []Key {
	keys := make([]Key, len(secrets))
	for i, s := range secrets {
		keys[i].Secret = s
	}
	return keys
}

// PrepareIssuers is Prepare for several issuers. They keep what was fetched for issuers of their
// names.
func (v *Verifier) PrepareIssuers(issuers ...Issuer) (apply func(), err error) {
	if _, err := newKeySet(issuers); err != nil {
		return nil, err
	}
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.issuers = slices.Clone(issuers)
		v.build()
	}, nil
}

// SetKeys puts the keys that were fetched for an issuer in the place of those that were before.
// Its error says what is wrong with them; nothing has changed then.
func (v *Verifier) SetKeys(issuer string, keys []Key) error {
	if slices.ContainsFunc(keys, func(k Key) bool { return k.Public == nil }) {
		return errors.New("auth: there is a secret among fetched keys, which others have read too")
	}
	if _, err := newKeySet([]Issuer{{Keys: keys}}); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fetched == nil {
		v.fetched = map[string][]Key{}
	}
	v.fetched[issuer] = slices.Clone(keys)
	v.build()
	return nil
}

// build makes the set of keys anew, of parts that were checked. The caller holds mu.
func (v *Verifier) build() {
	all := slices.Clone(v.issuers)
	for n, i := range all {
		if i.Fetched {
			all[n].Keys = slices.Concat(i.Keys, v.fetched[i.Name])
		}
	}
	keys, err := newKeySet(all)
	if err != nil { // cannot be: each part was checked
		return
	}
	v.keys.Store(keys)
}

// Verify returns what a token says, if it holds for room. Its errors never contain
// the token.
func (v *Verifier) Verify(token, room string) (Claims, error) {
	c, err := v.Read(token)
	if err == nil && !c.Allows(room) {
		return Claims{}, ErrRoom
	}
	return c, err
}

// Read returns what a token says, whatever rooms it is for.
func (v *Verifier) Read(token string) (Claims, error) {
	if len(token) > MaxToken {
		return Claims{}, fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrInvalid, len(token), MaxToken)
	}
	keys, now := v.keys.Load(), time.Now()
	sealed, err := split(token)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if c, ok := v.cache.get(keys, &sealed, now); ok {
		return c, nil
	}
	d := keys.desks.Get().(*desk)
	defer keys.desks.Put(d)
	i, claims, public, err := v.open(keys, &sealed, d)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	c, err := readClaims(claims, i, now, v.MaxAge)
	if err != nil {
		return Claims{}, err
	}
	if c.Subject, err = keys.userOf(i, c.Subject); err != nil {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if public {
		v.cache.put(keys, &sealed, c, now)
	}
	return c, nil
}

// sealed is a token in its parts, of which nothing is believed yet.
type sealed struct {
	token                     string
	header, claims, signature string // in base64
	alg, key                  string // of the header
}

// split takes a token apart and reads its header.
func split(token string) (sealed, error) {
	t := sealed{token: token}
	if token == "" {
		return t, errors.New("it is empty")
	}
	var ok1, ok2 bool
	t.header, t.claims, ok1 = strings.Cut(token, ".")
	t.claims, t.signature, ok2 = strings.Cut(t.claims, ".")
	if !ok1 || !ok2 || strings.Contains(t.signature, ".") {
		return t, errors.New("it is not three parts with a dot between them")
	}
	if slices.Contains(usualHeaders[:], t.header) {
		t.alg = "HS256"
		return t, nil
	}
	return t, t.readHeader()
}

// readHeader reads the header of a token. It refuses one that others may understand otherwise:
// with a name twice, or with extensions that must be understood (crit), of which we know none.
func (t *sealed) readHeader() error {
	p, err := base64.RawURLEncoding.DecodeString(t.header)
	if err != nil {
		return errors.New("its header is not a JSON object in base64url")
	}
	fields, ok := protocol.Fields(p)
	if !ok {
		return errors.New("its header is not a JSON object in UTF-8")
	}
	var seen []string
	for name, value := range fields {
		n := string(name)
		switch n {
		case "crit":
			return errors.New("the header names extensions that must be understood (crit), which are not known")
		case "alg", "typ", "kid":
		default:
			continue
		}
		if slices.Contains(seen, n) {
			return fmt.Errorf("%s appears twice in the header", n)
		}
		seen = append(seen, n)
		switch n {
		case "alg":
			if readString(n, name, value, &t.alg) != nil { // it is no string, and no algorithm
				t.alg = string(value)
			}
		case "kid":
			_ = readString(n, name, value, &t.key) // one that is no string names no key
		}
	}
	if t.alg == "" {
		return fmt.Errorf("%w anything: its header has no alg", errAlgorithm)
	}
	return nil
}

// open checks the signature of a token. It returns the issuer and the claims, which are d's.
func (v *Verifier) open(keys *keySet, t *sealed, d *desk) (i *issuer, claims []byte, public bool, err error) {
	d.buf = append(d.buf[:0], t.token...) // a hash takes no strings
	end, at := len(t.header)+1+len(t.claims), len(d.buf)
	buf, err := base64.RawURLEncoding.AppendDecode(d.buf, d.buf[len(t.header)+1:end])
	if err == nil {
		d.buf, claims = buf, buf[at:]
		i = keys.issuerOf(claims)
	}
	switch {
	case err == nil && i == nil:
		return nil, nil, false, fmt.Errorf("%w: iss is %.40q", errIssuer, issuerClaim(claims))
	case i != nil && i.Fetched && t.key != "" && !keys.names(i, t.key):
		if v.UnknownKey != nil {
			v.UnknownKey(i.Name)
		}
		if !slices.ContainsFunc(i.keys, func(k int) bool { return keys.keys[k].ID == "" }) {
			return nil, nil, false, errKey
		}
	}
	switch {
	case i != nil && !slices.Contains(i.algorithms, t.alg):
		return nil, nil, false, notSignedWith(i.algorithms, t.alg)
	case err != nil:
		return nil, nil, false, errors.New("its claims is not base64url without padding")
	}
	if d.given, err = base64.RawURLEncoding.AppendDecode(d.given[:0], d.buf[end+1:at]); err != nil {
		return nil, nil, false, errors.New("its signature is not base64url without padding")
	}
	ok, public := keys.signed(d, d.buf[:end], t.alg, keys.find(i, t.key))
	if !ok {
		return nil, nil, false, errSignature
	}
	return i, claims, public, nil
}
