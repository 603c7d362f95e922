package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/kansei-live/kansei/internal/private"
	"github.com/kansei-live/kansei/protocol"
)

// Issuer is somebody who signs tokens. Its tokens bear its name as the claim iss.
type Issuer struct {
	// Name is empty for the default issuer. Users of the others have ids of their own:
	// "name~sub".
	Name string
	// Claim is what its tokens have as iss; empty for Name. Tokens that bear no known issuer's
	// name are the default issuer's, if that has no Claim.
	Claim    string
	Keys     []Key
	Audience []string      // one of which its tokens must have as aud; empty: whatever they have
	Leeway   time.Duration // by how much its clock may differ; 0 for [Leeway]
	// DefaultRole and DefaultRooms are for tokens that name none; empty for viewer, and for
	// none.
	DefaultRole  protocol.Role
	DefaultRooms []string
	Names        Names                    // under which claims come
	Roles        map[string]protocol.Role // its own words for roles
	// Fetched reports that its keys come from elsewhere, by [Verifier.SetKeys], so that it may
	// begin with none.
	Fetched bool
}

// Names are the names under which claims come; empty ones are sub, name, avatar, role, rooms,
// can and members.
type Names struct{ User, Name, Avatar, Role, Rooms, Can, Members string }

// Key is what an issuer signs with: a secret, or a private key of which this is the public one.
type Key struct {
	// ID is the key's name in the headers of tokens (kid). A key without one is tried for
	// every token that names no key that is known.
	ID     string
	Secret []byte           // of HS256
	Public crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
	// Algorithms are those that count with the key; empty for all that it can be used with. A
	// token cannot choose another one.
	Algorithms []string
}

// algorithms returns those that a key can be used with, or an error if it can be used with none.
// The sizes of RSA bound the work for a signature.
func (k *Key) algorithms() ([]string, error) {
	var all []string
	switch pub := k.Public.(type) {
	case nil:
		if len(k.Secret) < private.MinSecret {
			return nil, fmt.Errorf("%w, not %d", ErrSecret, len(k.Secret))
		}
		all = []string{"HS256"}
	case *rsa.PublicKey:
		if n := pub.N.BitLen(); n < minRSA || n > maxRSA {
			return nil, fmt.Errorf("auth: an RSA key has %d bits, %d to %d are taken", n, minRSA, maxRSA)
		}
		if pub.E < 3 || pub.E%2 == 0 || int64(pub.E) >= 1<<31 {
			return nil, errors.New("auth: an RSA key has an exponent that is even, or not from 3 to 2^31")
		}
		all = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PublicKey:
		switch name := pub.Curve.Params().Name; name {
		case "P-256":
			all = []string{"ES256"}
		case "P-384":
			all = []string{"ES384"}
		case "P-521":
			all = []string{"ES512"}
		default:
			return nil, fmt.Errorf("auth: the curve %s is not taken", name)
		}
	case ed25519.PublicKey:
		all = []string{"EdDSA"}
	default:
		return nil, fmt.Errorf("auth: a key is %T, not RSA, ECDSA or Ed25519", pub)
	}
	if len(k.Algorithms) == 0 {
		return all, nil
	}
	for _, a := range k.Algorithms {
		if !slices.Contains(all, a) {
			return nil, fmt.Errorf("auth: a key for %.20q can be used with %s alone", a, strings.Join(all, ", "))
		}
	}
	return k.Algorithms, nil
}

// The bits of RSA keys that are taken.
const (
	minRSA = 2048
	maxRSA = 8192
)

// namespace separates the name of an issuer from the id of a user.
const namespace = "~"

// keySet is the keys that count at one time. They are found by issuer and id, from memory:
// no key is fetched while somebody waits to join.
type keySet struct {
	issuers []*issuer
	byClaim map[string]*issuer
	open    *issuer // of tokens that bear no known issuer's name; nil: nobody's
	keys    []Key
	desks   sync.Pool // *desk
}

// issuer is an Issuer in a keySet.
type issuer struct {
	Issuer
	keys       []int    // indices, in the order in which they are tried
	algorithms []string // that count with any of them
	claims     map[string]claimSet
}

// desk is what checking one token needs.
type desk struct {
	macs  []hash.Hash // by the index of the key; nil for public ones
	buf   []byte
	sum   []byte
	given []byte // the signature of the token
}

// newKeySet makes a set of the keys of issuers. Its error names what is wrong with them.
func newKeySet(issuers []Issuer) (*keySet, error) {
	s := &keySet{byClaim: map[string]*issuer{}}
	for _, i := range issuers {
		if i.Claim == "" {
			i.Claim = i.Name
		}
		if i.Leeway == 0 {
			i.Leeway = Leeway
		}
		if i.DefaultRole == "" {
			i.DefaultRole = protocol.RoleViewer
		}
		if err := s.check(i); err != nil {
			return nil, err
		}
		in := &issuer{Issuer: i, claims: i.Names.set()}
		s.issuers = append(s.issuers, in)
		if s.byClaim[i.Claim] = in; i.Claim == "" {
			s.open = in
		}
		for _, k := range i.Keys {
			var err error
			if k.Algorithms, err = k.algorithms(); err != nil {
				return nil, err
			}
			k.Secret = bytes.Clone(k.Secret)
			in.keys = append(in.keys, len(s.keys))
			s.keys = append(s.keys, k)
			in.algorithms = append(in.algorithms, k.Algorithms...)
		}
		slices.Sort(in.algorithms)
		in.algorithms = slices.Compact(in.algorithms)
	}
	s.desks.New = func() any {
		d := &desk{macs: make([]hash.Hash, len(s.keys))}
		for i, k := range s.keys {
			if k.Secret != nil {
				d.macs[i] = hmac.New(sha256.New, k.Secret)
			}
		}
		return d
	}
	return s, nil
}

// check says what is wrong with the next issuer of a set.
func (s *keySet) check(i Issuer) error {
	if slices.ContainsFunc(s.issuers, func(o *issuer) bool { return o.Claim == i.Claim || o.Name == i.Name }) {
		return fmt.Errorf("auth: the issuer %q appears twice", i.Claim)
	}
	if i.Name != "" && (CheckUser(i.Name) != nil || strings.Contains(i.Name, namespace) || i.Name+namespace == KeyUsers) {
		return fmt.Errorf("auth: %q cannot be the name of an issuer: it begins the ids of users", i.Name)
	}
	if len(i.Keys) == 0 && !i.Fetched {
		return errors.New("auth: there is no secret to check tokens with")
	}
	if !i.DefaultRole.Valid() {
		return fmt.Errorf("auth: %.20q is no role", string(i.DefaultRole))
	}
	for word, role := range i.Roles {
		if !role.Valid() {
			return fmt.Errorf("auth: %.20q, for %.20q, is no role", string(role), word)
		}
	}
	return nil
}

// issuerOf returns the issuer of a token, which its claims name before they are believed; nil if
// that is nobody who is known.
func (s *keySet) issuerOf(claims []byte) *issuer {
	if len(s.issuers) == 1 && s.open != nil { // the usual case: whatever the claims say
		return s.open
	}
	if i := s.byClaim[issuerClaim(claims)]; i != nil {
		return i
	}
	return s.open
}

// find returns the indices of the keys that may have signed a token of an issuer that names
// a key, or none.
func (s *keySet) find(i *issuer, id string) []int {
	if id == "" {
		return i.keys
	}
	var open []int
	for _, k := range i.keys {
		switch s.keys[k].ID {
		case id:
			return []int{k}
		case "":
			open = append(open, k)
		}
	}
	return open
}

// names reports whether an issuer has a key of that id.
func (s *keySet) names(i *issuer, id string) bool {
	return slices.ContainsFunc(i.keys, func(k int) bool { return s.keys[k].ID == id })
}

// userOf returns the id of an issuer's user, or says why there can be none.
func (s *keySet) userOf(i *issuer, sub string) (string, error) {
	if i.Name == "" {
		if name, _, is := strings.Cut(sub, namespace); is && name != "" &&
			slices.ContainsFunc(s.issuers, func(o *issuer) bool { return o.Name == name }) {
			return "", &ClaimsError{"sub", "sub begins like those of the issuer " + name}
		}
		return sub, nil
	}
	id := i.Name + namespace + sub
	if len(id) > maxID {
		return "", &ClaimsError{"sub", fmt.Sprintf("sub: with the issuer's name it has %d bytes, at most %d are allowed", len(id), maxID)}
	}
	return id, nil
}

// signed reports whether the signature that was given is one of text, made with an algorithm by
// one of some keys. It reports too whether that took a public key, which takes long.
func (s *keySet) signed(d *desk, text []byte, alg string, keys []int) (ok, public bool) {
	for _, k := range keys {
		key := &s.keys[k]
		if !slices.Contains(key.Algorithms, alg) {
			continue
		}
		if mac := d.macs[k]; mac != nil {
			mac.Reset()
			_, _ = mac.Write(text) // never fails
			d.sum = mac.Sum(d.sum[:0])
			if hmac.Equal(d.given, d.sum) {
				return true, false
			}
			continue
		}
		if jwt.GetSigningMethod(alg).Verify(string(text), d.given, key.Public) == nil {
			return true, true
		}
	}
	return false, false
}
