package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"

	"github.com/kansei-live/kansei/internal/private"
)

// Issuer is somebody who signs tokens. Its tokens bear its name as the claim iss.
type Issuer struct {
	// Name is empty for the default issuer, whose tokens are all those that bear no other
	// issuer's name. Users of the others have ids of their own: "name~sub".
	Name string
	Keys []Key
}

// Key is what an issuer signs with.
type Key struct {
	// ID is the key's name in the headers of tokens (kid). A key without one is tried for
	// every token that names no key that is known.
	ID     string
	Secret []byte // of HS256
}

// namespace separates the name of an issuer from the id of a user.
const namespace = "~"

// keySet is the keys that count at one time. They are found by issuer and id, from memory:
// no key is fetched while somebody waits to join.
type keySet struct {
	issuers map[string][]int // by name, the indices of its keys, in the order in which they are tried
	keys    []Key
	desks   sync.Pool // *desk
}

// desk is what checking one token needs.
type desk struct {
	macs  []hash.Hash // by the index of the key
	buf   []byte
	sum   []byte
	given []byte // the signature of the token
}

// newKeySet makes a set of the keys of issuers. Its error names what is wrong with them.
func newKeySet(issuers []Issuer) (*keySet, error) {
	s := &keySet{issuers: map[string][]int{}}
	for _, i := range issuers {
		if _, twice := s.issuers[i.Name]; twice {
			return nil, fmt.Errorf("auth: the issuer %q appears twice", i.Name)
		}
		if i.Name != "" && (CheckUser(i.Name) != nil || strings.Contains(i.Name, namespace)) {
			return nil, fmt.Errorf("auth: %q cannot be the name of an issuer: it begins the ids of users", i.Name)
		}
		if len(i.Keys) == 0 {
			return nil, errors.New("auth: there is no secret to check tokens with")
		}
		for _, k := range i.Keys {
			if len(k.Secret) < private.MinSecret {
				return nil, fmt.Errorf("%w, not %d", ErrSecret, len(k.Secret))
			}
			k.Secret = slices.Clone(k.Secret)
			s.issuers[i.Name] = append(s.issuers[i.Name], len(s.keys))
			s.keys = append(s.keys, k)
		}
	}
	s.desks.New = func() any {
		d := &desk{}
		for _, k := range s.keys {
			d.macs = append(d.macs, hmac.New(sha256.New, k.Secret))
		}
		return d
	}
	return s, nil
}

// issuerOf returns the issuer that a token's claims name, before they are believed.
func (s *keySet) issuerOf(claims []byte) string {
	if len(s.issuers) == 1 { // the usual case: whatever the claims say
		for name := range s.issuers {
			return name
		}
	}
	if name := issuerClaim(claims); s.issuers[name] != nil {
		return name
	}
	return ""
}

// find returns the indices of the keys that may have signed a token of an issuer that names
// a key, or none.
func (s *keySet) find(issuer, id string) []int {
	all := s.issuers[issuer]
	if id == "" {
		return all
	}
	var open []int
	for _, k := range all {
		switch s.keys[k].ID {
		case id:
			return []int{k}
		case "":
			open = append(open, k)
		}
	}
	return open
}

// userOf returns the id of an issuer's user, or says why there can be none.
func (s *keySet) userOf(issuer, sub string) (string, error) {
	if issuer == "" {
		if name, _, is := strings.Cut(sub, namespace); is && name != "" && s.issuers[name] != nil {
			return "", &ClaimsError{"sub", "sub begins like those of the issuer " + name}
		}
		return sub, nil
	}
	id := issuer + namespace + sub
	if len(id) > maxID {
		return "", &ClaimsError{"sub", fmt.Sprintf("sub: with the issuer's name it has %d bytes, at most %d are allowed", len(id), maxID)}
	}
	return id, nil
}

// signed reports whether the signature that was given is one of text by one of some keys.
func (d *desk) signed(text []byte, keys []int) bool {
	for _, k := range keys {
		mac := d.macs[k]
		mac.Reset()
		_, _ = mac.Write(text) // never fails
		d.sum = mac.Sum(d.sum[:0])
		if hmac.Equal(d.given, d.sum) {
			return true
		}
	}
	return false
}
