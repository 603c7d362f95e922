package auth

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kansei-live/kansei/internal/private"
)

func TestSecretIsMadeOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "deep", "data")
	secrets := make([][]byte, 8)
	var all sync.WaitGroup
	for i := range secrets {
		// Ends when the secret is loaded; waited for below.
		all.Go(func() {
			var err error
			if secrets[i], err = LoadOrMakeSecret(dir, SecretFile); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, s := range secrets {
		if len(s) < private.MinSecret || !bytes.Equal(s, secrets[0]) {
			t.Errorf("secrets %q and %q", s, secrets[0])
		}
	}
	info, err := os.Stat(filepath.Join(dir, SecretFile))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("the file has mode %v, %v; want 0600", info.Mode(), err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("the directory holds %v, %v; want the secret alone", files, err)
	}
}

func TestSecretRefused(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", private.MinSecret)
	for name, tt := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"readable by the group": {long, 0o640, "chmod 600"},
		"readable by all":       {long, 0o644, "0644"},
		"writable by others":    {long, 0o602, "chmod 600"},
		"too short":             {long[1:] + "\n", 0o600, "31 bytes"},
		"too long":              {strings.Repeat("x", maxSecret+1), 0o600, "more than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, SecretFile)
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			_, err := LoadOrMakeSecret(dir, SecretFile)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("error %v; want one with %q and the path", err, tt.want)
			}
			if tt.mode != 0o600 && !errors.Is(err, ErrReadable) {
				t.Errorf("error %v; want %v", err, ErrReadable)
			}
			if got, _ := os.ReadFile(path); string(got) != tt.content {
				t.Error("the file was changed")
			}
		})
	}
}

func TestSecretOfOnesOwn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := strings.Repeat("my own ", 5)
	if err := os.WriteFile(filepath.Join(dir, SecretFile), []byte(want+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadOrMakeSecret(dir, SecretFile); err != nil || string(got) != want {
		t.Errorf("secret %q, %v; want %q", got, err, want)
	}
}

func TestSecretHasNoPlace(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, SecretFile), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", file, dir} {
		if s, err := LoadOrMakeSecret(dir, SecretFile); err == nil {
			t.Errorf("LoadOrMakeSecret(%q) = %q", dir, s)
		}
	}
}
