package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// PseudonymPrefix begins every pseudonym.
const PseudonymPrefix = "p-"

// The parts of a pseudonym, in bytes.
const (
	pseudonymIV    = 16
	pseudonymBlock = 16 // ids are padded to whole ones, so that their length tells little
	pseudonymTag   = 8
	// maxPseudonym is how long a pseudonym may be: that of the longest id, or of what else is
	// hidden so.
	maxPseudonym = 1024
)

// Pseudonyms makes ids under which the audience of a room sees users: nobody without the secret can
// tell who they are, nor that two of different rooms are the same user. They need no table: whoever
// has the secret, as all nodes do, can tell the user of one.
//
// A pseudonym is a keyed hash of room and user (HMAC-SHA256, 128 bits), the user's id encrypted
// under it (AES in counter mode, with the hash as the initial counter: a synthetic IV, as in
// RFC 5297), and a keyed hash of both, by which a text that is none is known. The zero value makes
// none.
type Pseudonyms struct {
	keys atomic.Pointer[[]pseudonymKey]
}

// pseudonymKey is what one secret is made into.
type pseudonymKey struct {
	hash, tag [sha256.Size]byte
	block     cipher.Block
}

// Prepare makes keys of one or two secrets, the first of which is in use, and returns what puts them
// in the place of those that p has. Its error is [ErrSecret], or that there are too many.
func (p *Pseudonyms) Prepare(secrets ...[]byte) (apply func(), err error) {
	if err := checkSecrets(secrets, MaxNodeSecrets); err != nil {
		return nil, fmt.Errorf("pseudonyms: %w", err)
	}
	keys := make([]pseudonymKey, len(secrets))
	for i, s := range secrets {
		derive := func(what string) (key [sha256.Size]byte) {
			mac := hmac.New(sha256.New, s)
			_, _ = mac.Write([]byte("kansei: pseudonyms, " + what)) // never fails
			mac.Sum(key[:0])
			return key
		}
		secret := derive("cipher")
		block, err := aes.NewCipher(secret[:])
		if err != nil {
			return nil, fmt.Errorf("auth: %w", err)
		}
		keys[i] = pseudonymKey{derive("hash"), derive("tag"), block}
	}
	return func() { p.keys.Store(&keys) }, nil
}

// Of returns the id under which the audience of a room sees a user; the user's own where there is no
// secret.
func (p *Pseudonyms) Of(room, user string) string {
	keys := p.keys.Load()
	if keys == nil || len(*keys) == 0 {
		return user
	}
	k := &(*keys)[0]
	mac := hmac.New(sha256.New, k.hash[:])
	_, _ = mac.Write([]byte(room + "\x00" + user)) // never fails
	pad := pseudonymBlock - len(user)%pseudonymBlock
	out := make([]byte, pseudonymIV, pseudonymIV+len(user)+pad+pseudonymTag)
	copy(out, mac.Sum(nil))
	out = append(out, user...)
	out = append(out, slices.Repeat([]byte{byte(pad)}, pad)...)
	cipher.NewCTR(k.block, out[:pseudonymIV]).XORKeyStream(out[pseudonymIV:], out[pseudonymIV:])
	out = append(out, k.sum(out)...)
	return PseudonymPrefix + base64.RawURLEncoding.EncodeToString(out)
}

// sum is the keyed hash by which a pseudonym is known.
func (k *pseudonymKey) sum(p []byte) []byte {
	mac := hmac.New(sha256.New, k.tag[:])
	_, _ = mac.Write(p) // never fails
	return mac.Sum(nil)[:pseudonymTag]
}

// User returns the user of a pseudonym; what is none, and a user's own id, as it is.
func (p *Pseudonyms) User(id string) string {
	keys := p.keys.Load()
	rest, is := strings.CutPrefix(id, PseudonymPrefix)
	if keys == nil || !is || len(id) > maxPseudonym {
		return id
	}
	given, err := base64.RawURLEncoding.DecodeString(rest)
	if err != nil || len(given) < pseudonymIV+pseudonymBlock+pseudonymTag {
		return id
	}
	body, tag := given[:len(given)-pseudonymTag], given[len(given)-pseudonymTag:]
	for i := range *keys {
		k := &(*keys)[i]
		if !hmac.Equal(k.sum(body), tag) {
			continue
		}
		user := make([]byte, len(body)-pseudonymIV)
		cipher.NewCTR(k.block, body[:pseudonymIV]).XORKeyStream(user, body[pseudonymIV:])
		if pad := int(user[len(user)-1]); pad >= 1 && pad <= pseudonymBlock && pad <= len(user) {
			return string(user[:len(user)-pad])
		}
	}
	return id
}
