package auth

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/MicahParks/jwkset"

	"github.com/kansei-live/kansei/internal/private"
)

const (
	// MaxKeyFile is how long a set of keys, or a file of them, may be, in bytes. Sets that the
	// large issuers publish have less than 10 KiB.
	MaxKeyFile = 256 << 10
	// MaxKeys is how many keys an issuer may have: each is tried for a token that names none.
	MaxKeys = 32
)

// ParseKeys reads the keys of an issuer: a JWK Set (RFC 7517), or public keys and certificates
// in PEM. Keys that are not for signatures, and those of kinds that are not known, are left
// out, as sets may have them for others. The error says what is wrong, and holds no key.
//
// Certificates are wrappings of keys here: neither their names nor their ends count, and what a
// set says of certificates (x5c, x5u) is ignored.
func ParseKeys(p []byte) ([]Key, error) {
	if len(p) > MaxKeyFile {
		return nil, fmt.Errorf("it has more than %d bytes", MaxKeyFile)
	}
	keys, err := parseSet(p)
	if bytes.Contains(p, []byte("-----BEGIN ")) {
		keys, err = parsePEM(p)
	}
	switch {
	case err != nil:
		return nil, err
	case len(keys) == 0:
		return nil, errors.New("there is no key for signatures in it")
	case len(keys) > MaxKeys:
		return nil, fmt.Errorf("there are %d keys in it, at most %d are taken", len(keys), MaxKeys)
	}
	return keys, nil
}

// parseSet reads a JWK Set.
func parseSet(p []byte) ([]Key, error) {
	var set struct {
		Keys []jwkset.JWKMarshal `json:"keys"`
	}
	if err := json.Unmarshal(p, &set); err != nil || set.Keys == nil {
		return nil, errors.New("it is neither a JWK Set, a JSON object with keys, nor PEM")
	}
	if len(set.Keys) > MaxKeys { // before anything is done with them
		return nil, fmt.Errorf("there are %d keys in it, at most %d are taken", len(set.Keys), MaxKeys)
	}
	var keys []Key
	for n, m := range set.Keys {
		if m.USE != "" && m.USE != jwkset.UseSig || len(m.KEYOPS) > 0 && !slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify) {
			continue
		}
		m.X5C, m.X5U, m.X5T, m.X5TS256 = nil, "", "", ""
		// A secret is private; of other private keys the public part is taken.
		jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{Private: m.KTY == jwkset.KtyOct}, jwkset.JWKValidateOptions{SkipAll: true})
		if errors.Is(err, jwkset.ErrUnsupportedKey) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("key %d cannot be read: it is broken", n+1) // the error may hold the key
		}
		k := Key{ID: m.KID}
		if m.ALG != "" {
			k.Algorithms = []string{m.ALG.String()}
		}
		if secret, is := jwk.Key().([]byte); is {
			k.Secret = secret
		} else {
			k.Public = jwk.Key()
		}
		if _, err := k.algorithms(); err != nil {
			if supported(k.Algorithms) {
				return nil, fmt.Errorf("key %d: %s", n+1, strings.TrimPrefix(err.Error(), "auth: "))
			}
			continue // such as one for encryption, or of secp256k1
		}
		if k.ID != "" && slices.ContainsFunc(keys, func(o Key) bool { return o.ID == k.ID }) {
			return nil, fmt.Errorf("key %d has the id of another one", n+1)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

// supported reports whether algorithms are known here; none stand for those of the key.
func supported(algorithms []string) bool {
	known := []string{"HS256", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	return !slices.ContainsFunc(algorithms, func(a string) bool { return !slices.Contains(known, a) })
}

// parsePEM reads public keys and certificates. They have no ids: all are tried.
func parsePEM(p []byte) ([]Key, error) {
	var keys []Key
	for n := 1; ; n++ {
		block, rest := pem.Decode(p)
		if block == nil {
			if bytes.Contains(p, []byte("-----BEGIN ")) {
				return nil, fmt.Errorf("block %d is not PEM", n)
			}
			return keys, nil
		}
		p = rest
		var k Key
		var err error
		switch block.Type {
		case "PUBLIC KEY":
			k.Public, err = x509.ParsePKIXPublicKey(block.Bytes)
		case "RSA PUBLIC KEY":
			k.Public, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case "CERTIFICATE":
			var c *x509.Certificate
			if c, err = x509.ParseCertificate(block.Bytes); err == nil {
				k.Public = c.PublicKey
			}
		default:
			if strings.Contains(block.Type, "PRIVATE KEY") {
				return nil, fmt.Errorf("block %d is a private key, which nobody but the issuer needs: give its public key (openssl pkey -pubout)", n)
			}
			return nil, fmt.Errorf("block %d is %.40q, not a public key or a certificate", n, block.Type)
		}
		if err != nil {
			return nil, fmt.Errorf("block %d cannot be read as a %s", n, strings.ToLower(block.Type))
		}
		if _, err := k.algorithms(); err != nil {
			return nil, fmt.Errorf("block %d: %s", n, strings.TrimPrefix(err.Error(), "auth: "))
		}
		if keys = append(keys, k); len(keys) > MaxKeys {
			return nil, fmt.Errorf("there are more than %d keys in it", MaxKeys)
		}
	}
}

// ReadKeys reads a file of keys, as [ParseKeys] does. Its error names the file.
func ReadKeys(path string) ([]Key, error) {
	content, info, err := private.Read(path, MaxKeyFile)
	if err != nil {
		return nil, err
	}
	if private.Writable(info) {
		return nil, fmt.Errorf("%s: anybody may write it (mode %04o): run chmod o-w, and make sure that nobody has changed it", path, info.Mode().Perm())
	}
	keys, err := ParseKeys(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}
