//go:build unix

package config

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A file of settings is read at once or refused, whatever it is.
func TestFileThatIsNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, dir, os.DevNull} {
		_, _, err := parse(t, []string{"serve", "--config=" + path}, nil, "")
		if err == nil || !strings.Contains(err.Error(), "--config: "+path+": it is not a regular file") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Who may write a file with a secret in it may choose the secret.
func TestFileThatAnybodyMayWrite(t *testing.T) {
	t.Parallel()
	secret := `"` + strings.Repeat("s", 40) + `"`
	for _, c := range []struct {
		content string
		mode    os.FileMode
		refused string
	}{
		{"recent: 3\nauth-secret: " + secret, 0o666, ":2: auth-secret: it is a secret"},
		{"recent: 3\nauth-secret: " + secret, 0o602, "mode 0602"},
		{"auth-secret: " + secret, 0o664, ""},
		{"redis: redis://u:p@h:1\nauth-secret: " + secret, 0o646, ":1: redis: it is a secret"},
		{"nats:\n  - nats://h:1\n  - nats://u:p@h:2\nauth-secret: " + secret, 0o646, ":1: nats: it is a secret"},
		{"origin: [https://h]", 0o666, ""},
		{"nats: t0ken@h:4222\nauth-secret: " + secret, 0o646, ":1: nats: it is a secret"},
		{"recent: 3", 0o666, ""},
	} {
		path := filepath.Join(t.TempDir(), "kansei.yaml")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := parse(t, []string{"serve", "--config=" + path}, nil, "")
		if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("mode %04o, %s: %v; want %q", c.mode, c.content, err, c.refused)
		}
		if err != nil && strings.Contains(err.Error(), secret[1:40]) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}
