package auth

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"unicode/utf8"

	"github.com/kansei-live/kansei/internal/private"
)

// The files in a node's data directory that hold its secrets.
const (
	SecretFile     = "auth-secret" // that signs tokens
	NodeSecretFile = "node-secret" // of [NewGuests]
)

// maxSecret bounds what is read of a secret's file, in bytes.
const maxSecret = 4096

// ErrReadable is the error of a secret that others than its owner may read or write.
var ErrReadable = errors.New("others may read or write it")

// LoadOrMakeSecret returns the secret in a file of dataDir. If there is none it makes the
// directory and a secret of 32 random bytes, as text, that its owner alone can read.
// Of processes that do so at once all get the same secret.
func LoadOrMakeSecret(dataDir, file string) ([]byte, error) {
	if dataDir == "" {
		return nil, errors.New("auth: there is no data directory to keep a secret in")
	}
	if err := private.Dir(dataDir); err != nil {
		return nil, fmt.Errorf("auth: data directory: %w", err)
	}
	path := filepath.Join(dataDir, file)
	secret, err := load(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = create(dataDir, path); err == nil {
			secret, err = load(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("auth: secret in %s: %w", path, err)
	}
	return secret, nil
}

// LoadSecret returns the secret in a file of dataDir. Without one its error is
// [fs.ErrNotExist].
func LoadSecret(dataDir, file string) ([]byte, error) {
	path := filepath.Join(dataDir, file)
	secret, err := load(path)
	if err != nil {
		return nil, fmt.Errorf("auth: secret in %s: %w", path, err)
	}
	return secret, nil
}

func load(path string) ([]byte, error) {
	secret, info, err := private.Read(path, maxSecret)
	if err != nil {
		return nil, err
	}
	if err := private.Owned(info); err != nil {
		return nil, fmt.Errorf("%w, once nobody can have read it", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" { // whose modes say nothing
		return nil, fmt.Errorf("%w (mode %04o): whoever has it can pose as anybody; make sure that nobody has read it and run chmod 600, or remove it to get a new one", ErrReadable, mode)
	}
	secret = bytes.TrimRight(secret, "\r\n")
	if len(secret) < private.MinSecret {
		return nil, fmt.Errorf("it has %d bytes: %w", len(secret), ErrSecret)
	}
	return secret, nil
}

// ReadSecrets returns the secrets in a file that somebody else has written: one a line,
// [MaxSecrets] at most, the first in use. Others may read it, as mounted volumes are often
// for all of a container, but not write it. Its errors name the file, and hold no secret.
func ReadSecrets(path string) ([][]byte, error) {
	content, info, err := private.Read(path, maxSecret)
	if err != nil {
		return nil, err
	}
	if err := private.Owned(info); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if private.Writable(info) {
		return nil, fmt.Errorf("%s: anybody may write it (mode %04o): run chmod o-w, and make sure that nobody has changed it", path, info.Mode().Perm())
	}
	var secrets [][]byte
	number := 0
	for line := range bytes.SplitSeq(content, []byte("\n")) {
		number++
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			continue
		}
		if err := checkLine(line); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		secrets = append(secrets, line)
	}
	switch n := len(secrets); {
	case n == 0:
		return nil, fmt.Errorf("%s: there is no secret in it; openssl rand -hex 32 makes one", path)
	case n > MaxSecrets:
		return nil, fmt.Errorf("%s: there are %d secrets in it, one a line; at most %d are taken", path, n, MaxSecrets)
	}
	return secrets, nil
}

// checkLine refuses what one reader would take for the secret and another would not.
func checkLine(line []byte) error {
	switch {
	case bytes.IndexByte(line, ',') >= 0:
		return errors.New("there is a comma in it; a file has one secret a line, and a secret no comma")
	case len(bytes.TrimSpace(line)) != len(line):
		return errors.New("there are blanks around the secret")
	case !utf8.Valid(line) || bytes.HasPrefix(line, []byte("\ufeff")):
		return errors.New("it is not UTF-8 text without a mark at its beginning; openssl rand -hex 32 makes a secret")
	case len(line) < private.MinSecret:
		return fmt.Errorf("it has %d bytes: %w", len(line), ErrSecret)
	}
	return nil
}

// create writes a new secret to path, whole or not at all, unless somebody else is
// first.
func create(dir, path string) error {
	var b [32]byte
	_, _ = rand.Read(b[:])                                        // never fails
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".new*") // with mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(base64.RawURLEncoding.EncodeToString(b[:]) + "\n")
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	// A link, unlike a rename, leaves alone what is there.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

// syncDir makes sure that a file made in dir is still there after a power loss.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" { // cannot
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if e := d.Close(); err == nil {
		err = e
	}
	return err
}
