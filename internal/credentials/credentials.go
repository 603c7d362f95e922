// Package credentials holds what a node proves itself with to NATS and Redis, and what it
// recognises them by: users, passwords, tokens, keys, certificates.
//
// [NATS] and [Redis] are sources of such values. What is in files can be read again while
// the node runs: Load reads and checks all of them, and the function that it returns puts
// them in force. Every connection that is made from then on uses the new values; open ones
// stay.
//
// A file may be a symbolic link and may be readable by others, as the secrets that
// Kubernetes mounts are. It must be a regular file of this process's user or of root, and not
// everybody may write it. A line end behind a password or a token is not part of it.
//
// Errors name the flag and the file. None has a secret in it.
package credentials

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/private"
)

const (
	maxSecret = 64 << 10 // bytes of a file with a password, a token or a key: many times what they take
	maxPEM    = 1 << 20  // bytes of a file with certificates, such as all that a machine trusts
)

// read reads a file that only this user or root may have written.
func read(flag, path string, limit int64) ([]byte, error) {
	b, info, err := private.Read(path, limit)
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	if err := private.Owned(info); err != nil {
		return nil, fmt.Errorf("--%s: %s: %w", flag, path, err)
	}
	if private.Writable(info) {
		return nil, fmt.Errorf("--%s: %s: anybody may write it (mode %04o): run chmod o-w, and make sure that nobody has changed it",
			flag, path, info.Mode().Perm())
	}
	return b, nil
}

// readSecret returns a secret that is given as it is, or that is in a file.
func readSecret(flag string, value config.Secret, path string) (string, error) {
	if path == "" {
		return string(value), nil
	}
	flag += "-file"
	b, err := read(flag, path, maxSecret)
	if err != nil {
		return "", err
	}
	b = bytes.TrimRight(b, "\r\n")
	switch {
	case len(b) == 0:
		return "", fmt.Errorf("--%s: %s: it is empty", flag, path)
	case bytes.ContainsAny(b, "\r\n\x00"):
		return "", fmt.Errorf("--%s: %s: it must have one line, with nothing but the secret", flag, path)
	}
	return string(b), nil
}

// identity is what a node shows when it connects with TLS, and whom it believes.
type identity struct {
	roots *x509.CertPool   // nil: the machine's
	cert  *tls.Certificate // nil: none is shown
}

// readIdentity reads the files of --<of>-ca, --<of>-cert and --<of>-key, as far as there are any.
func readIdentity(of, ca, cert, key string) (identity, error) {
	var id identity
	if ca != "" {
		roots, err := readRoots(of+"-ca", ca)
		if err != nil {
			return id, err
		}
		id.roots = roots
	}
	if cert != "" {
		c, err := read(of+"-cert", cert, maxPEM)
		if err != nil {
			return id, err
		}
		k, err := read(of+"-key", key, maxPEM)
		if err != nil {
			return id, err
		}
		pair, err := tls.X509KeyPair(c, k)
		if err != nil {
			return id, fmt.Errorf("--%[1]s-cert %[2]s, --%[1]s-key %[3]s: %[4]w", of, cert, key, err)
		}
		id.cert = &pair
	}
	return id, nil
}

// readRoots reads a file of certificates, each of which must be one.
func readRoots(flag, path string) (*x509.CertPool, error) {
	b, err := read(flag, path, maxPEM)
	if err != nil {
		return nil, err
	}
	pool, found := x509.NewCertPool(), 0
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("--%s: %s: there is a %q in it; it must have certificates alone", flag, path, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("--%s: %s: certificate %d: %w", flag, path, found+1, err)
		}
		pool.AddCert(c)
		found++
	}
	if found == 0 || bytes.Contains(b, []byte("-----BEGIN")) { // that does not end
		return nil, fmt.Errorf("--%s: %s: %w", flag, path, errNoCertificate)
	}
	return pool, nil
}

var errNoCertificate = errors.New("it must have certificates in PEM, and each must be whole")

// named returns those of the paths that are not empty.
func named(paths ...string) []string {
	var out []string
	for _, p := range paths {
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}
