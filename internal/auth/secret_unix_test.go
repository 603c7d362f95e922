//go:build unix

package auth

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kansei-live/kansei/internal/private"
)

// What is no file is refused at once: nobody can hold up the start with a pipe.
func TestSecretThatIsAPipe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, SecretFile), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrMakeSecret(dir, SecretFile); !errors.Is(err, private.ErrNotRegular) {
		t.Errorf("error %v", err)
	}
}

// Whoever owns a secret or its directory knows or chooses it.
func TestSecretOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		return // root alone may give files away; package private tests who is trusted
	}
	for _, what := range []string{".", SecretFile} {
		dir := t.TempDir()
		path := filepath.Join(dir, SecretFile)
		if err := os.WriteFile(path, []byte(strings.Repeat("x", private.MinSecret)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(filepath.Join(dir, what), 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadOrMakeSecret(dir, SecretFile); !errors.Is(err, private.ErrOwner) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: error %v", what, err)
		}
	}
}
