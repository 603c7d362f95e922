//go:build unix

package private

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(at("file"), []byte("four"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", at("link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		limit int64
		want  error
	}{
		{"file", 4, nil},
		{"link", 4, nil}, // as mounted secrets are
		{"file", 3, ErrSize},
		{"pipe", 4, ErrNotRegular}, // at once, though nobody writes
		{".", 4, ErrNotRegular},
		{"none", 4, fs.ErrNotExist},
	} {
		p, info, err := Read(at(c.name), c.limit)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil && (string(p) != "four" || info.Size() != 4) {
			t.Errorf("%s: %q, %d bytes", c.name, p, info.Size())
		}
		if err != nil && !strings.Contains(err.Error(), at(c.name)) {
			t.Errorf("the error does not name the file: %v", err)
		}
	}
}

func TestDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	if err := Dir(dir); err != nil {
		t.Fatal(err)
	}
	for d := dir; filepath.Base(d) != "made"; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v", d, info.Mode(), err)
		}
	}
	if err := Dir(dir); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestOwner(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		owner, self int
		want        bool
	}{{1000, 1000, true}, {0, 1000, true}, {0, 0, true}, {1001, 1000, false}, {1000, 0, false}} {
		if got := trusted(c.owner, c.self); got != c.want {
			t.Errorf("what is %d's, to %d: %v", c.owner, c.self, got)
		}
	}
	dir := t.TempDir()
	if os.Geteuid() == 0 { // who alone may give files away
		if err := os.Chown(dir, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if err := Dir(dir); !errors.Is(err, ErrOwner) || !strings.Contains(err.Error(), "12345") {
			t.Errorf("a directory of another user: %v", err)
		}
	} else if err := Dir(dir); err != nil {
		t.Error(err)
	}
}

// What somebody has put in the place of a file is not written through.
func TestLinksAreNotFollowed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	victim, link, pipe := filepath.Join(dir, "victim"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{link, pipe} {
		if f, err := Open(name); err == nil {
			t.Errorf("%s is opened", name)
			_ = f.Close()
		}
	}
	f, err := Create(link)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("new"); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	if p, err := os.ReadFile(victim); err != nil || string(p) != "precious" {
		t.Errorf("the link's target holds %q, %v", p, err)
	}
	if p, err := os.ReadFile(link); err != nil || string(p) != "new" {
		t.Errorf("the new file holds %q, %v", p, err)
	}
	if f, err = Open(filepath.Join(dir, "lock")); err != nil {
		t.Fatal(err)
	}
	if info, err := f.Stat(); err != nil || info.Mode() != 0o600 {
		t.Errorf("a new file has mode %v, %v", info.Mode(), err)
	}
	_ = f.Close()
}
