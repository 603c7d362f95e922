package credentials

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/kansei-live/kansei/internal/config"
)

// NATS is as whom a node connects to NATS.
type NATS struct {
	access config.NATSAccess
	now    atomic.Pointer[natsValues]
}

// natsValues are the values of one reading.
type natsValues struct {
	jwt   string // of the user
	nkey  string // public key of the user
	seed  []byte // of the key that signs for the user
	pass  string
	token string
	tls   identity
}

// NewNATS returns the source of what access says, which has been validated, with all files
// read.
func NewNATS(access config.NATSAccess) (*NATS, error) {
	n := &NATS{access: access}
	apply, err := n.Load()
	if err != nil {
		return nil, err
	}
	apply()
	return n, nil
}

// Files returns the files that Load reads.
func (n *NATS) Files() []string {
	a := &n.access
	return named(a.NATSCreds, a.NATSNKey, a.NATSPasswordFile, a.NATSTokenFile, a.NATSCA, a.NATSCert, a.NATSKey)
}

// Load reads and checks all files. It changes nothing until apply is called.
func (n *NATS) Load() (apply func(), err error) {
	a, v := &n.access, new(natsValues)
	if a.NATSCreds != "" {
		if v.jwt, v.seed, err = readCreds(a.NATSCreds); err != nil {
			return nil, err
		}
	}
	if a.NATSNKey != "" {
		if v.nkey, v.seed, err = readNKey(a.NATSNKey); err != nil {
			return nil, err
		}
	}
	if v.pass, err = readSecret("nats-password", a.NATSPassword, a.NATSPasswordFile); err != nil {
		return nil, err
	}
	if v.token, err = readSecret("nats-token", a.NATSToken, a.NATSTokenFile); err != nil {
		return nil, err
	}
	if v.tls, err = readIdentity("nats", a.NATSCA, a.NATSCert, a.NATSKey); err != nil {
		return nil, err
	}
	return func() { n.now.Store(v) }, nil
}

// Options returns what a connection needs to connect with the values that are in force
// then. The public key of an NKEY, which is no callback, is that of the moment: see
// [NATS.NKey].
func (n *NATS) Options() []nats.Option {
	a, sign := &n.access, func(nonce []byte) ([]byte, error) { return sign(n.now.Load().seed, nonce) }
	var o []nats.Option
	switch {
	case a.NATSCreds != "":
		o = append(o, nats.UserJWT(func() (string, error) { return n.now.Load().jwt, nil }, sign))
	case a.NATSNKey != "":
		o = append(o, nats.Nkey(n.now.Load().nkey, sign))
	case a.NATSUser != "":
		o = append(o, nats.UserInfoHandler(func() (string, string) { return a.NATSUser, n.now.Load().pass }))
	case a.NATSToken != "" || a.NATSTokenFile != "":
		o = append(o, nats.TokenHandler(func() string { return n.now.Load().token }))
	}
	if a.NATSCA != "" || a.NATSCert != "" {
		var cert nats.TLSCertHandler
		if a.NATSCert != "" {
			cert = func() (tls.Certificate, error) { return *n.now.Load().tls.cert, nil }
		}
		o = append(o, nats.ClientTLSConfig(cert, func() (*x509.CertPool, error) { return n.now.Load().tls.roots, nil }))
	}
	return o
}

// NKey returns the public key that the user has now; nil when the user has none.
func (n *NATS) NKey() func() string {
	if n.access.NATSNKey == "" {
		return nil
	}
	return func() string { return n.now.Load().nkey }
}

// sign signs what a server asks to be signed.
func sign(seed, nonce []byte) ([]byte, error) {
	key, err := nkeys.FromSeed(seed)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	return key.Sign(nonce)
}

// readCreds reads a file of credentials: the JWT of a user, and the seed of its key.
func readCreds(path string) (jwt string, seed []byte, err error) {
	b, err := read("nats-creds", path, maxSecret)
	if err != nil {
		return "", nil, err
	}
	fail := func(err error) (string, []byte, error) {
		return "", nil, fmt.Errorf("--nats-creds: %s: %w", path, err)
	}
	if jwt, err = nkeys.ParseDecoratedJWT(b); err != nil {
		return fail(errNoCreds)
	}
	subject, ok := subject(jwt)
	if !ok {
		return fail(errNoCreds)
	}
	key, err := nkeys.ParseDecoratedUserNKey(b)
	if err != nil {
		return fail(errNoCreds)
	}
	defer key.Wipe()
	if public, err := key.PublicKey(); err != nil || public != subject {
		return fail(errors.New("the seed in it is not that of the user in it"))
	}
	if seed, err = key.Seed(); err != nil {
		return fail(errNoCreds)
	}
	return jwt, append([]byte(nil), seed...), nil
}

// errNoCreds has nothing of what was read in it.
var errNoCreds = errors.New("it must be what nsc makes (nsc generate creds): the JWT of a user and the seed of its key")

// subject is whom a JWT is about. The server checks the JWT; this is for what is in the
// same file.
func subject(jwt string) (string, bool) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return "", false
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Subject string `json:"sub"`
	}
	if err != nil || json.Unmarshal(b, &claims) != nil {
		return "", false
	}
	return claims.Subject, nkeys.IsValidPublicUserKey(claims.Subject)
}

// readNKey reads the file with the seed of a user's key.
func readNKey(path string) (public string, seed []byte, err error) {
	b, err := read("nats-nkey", path, maxSecret)
	if err != nil {
		return "", nil, err
	}
	b = bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	wrong := fmt.Errorf("--nats-nkey: %s: it must be the seed of a user's NKEY, which begins with SU", path)
	key, err := nkeys.ParseDecoratedUserNKey(b)
	if err != nil {
		return "", nil, wrong
	}
	defer key.Wipe()
	if seed, err = key.Seed(); err != nil {
		return "", nil, wrong
	}
	seed = append([]byte(nil), seed...)
	if public, err = key.PublicKey(); err != nil {
		return "", nil, wrong
	}
	return public, seed, nil
}
