package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// command runs the program as from a shell.
func command(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, &out, &errs)
	return status, out.String(), errs.String()
}

func TestToken(t *testing.T) {
	t.Parallel()
	status, out, errs := command(t, "token", "--room=r", "--role=broadcaster", "--user=u", "--ttl=2h", "--auth-secret="+testSecret)
	if status != 0 || errs != "" || strings.Count(out, "\n") != 1 {
		t.Fatalf("%d %q %q", status, out, errs)
	}
	v, err := auth.NewVerifier([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	c, err := v.Verify(strings.TrimSpace(out), "r")
	if err != nil || c.Subject != "u" || c.Name != "u" || c.Role != protocol.RoleBroadcaster {
		t.Errorf("%+v %v", c, err)
	}
}

// Without --auth-secret the secret is the one that a node with the same data
// directory has, readable by its owner alone.
func TestTokenOfADataDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, out, _ := command(t, "token", "--room=*", "--user=u", "--data-dir="+dir)
	secret, err := os.ReadFile(filepath.Join(dir, auth.SecretFile))
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, auth.SecretFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	v, err := auth.NewVerifier(bytes.TrimSpace(secret))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(strings.TrimSpace(out), "any"); err != nil {
		t.Error(err)
	}
}

// What is wrong with a data directory names the setting, whichever of its files it is.
func TestDataDirectoryThatIsNone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := t.TempDir()
	if err := os.WriteFile(filepath.Join(open, auth.NodeSecretFile), []byte(testSecret), 0o644); err != nil { // #nosec G306 -- it is to be refused
		t.Fatal(err)
	}
	store := t.TempDir()
	if err := os.WriteFile(filepath.Join(store, "nats"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	serve := []string{"serve", "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"}
	for _, args := range [][]string{
		{"token", "--room=r", "--user=u", "--data-dir=" + file},
		append(serve, "--data-dir="+file),
		append(serve, "--data-dir="+file, "--auth-secret="+testSecret),
		append(serve, "--data-dir="+file, "--auth-secret="+testSecret, "--node-secret="+testSecret),
		append(serve, "--data-dir="+open),
		append(serve, "--data-dir="+store),
	} {
		if status, _, errs := command(t, args...); status != 1 || !strings.Contains(errs, "--data-dir: ") {
			t.Errorf("%v: %d %s", args, status, errs)
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args   string
		status int
		says   string
	}{
		{"--help", 0, "serve"},
		{"serve --help", 0, "--max-viewers"},
		{"version", 0, "kansei "},
		{"settings", 0, "# Settings"},
		{"serve --listn=:1", 2, "did you mean --listen"},
		{"serve --guests=all", 2, "none, watch or comment"},
		{"serve --rate=x", 2, "rate"},
		{"serve --nats=nats://n:1", 2, "auth-secret"},
		{"serve --nats=nats://n:1 --guests=comment", 2, "--node-secret: is needed with --nats and --guests comment"},
		{"token --room=r --user=u --auth-secret=short", 2, "32 bytes"},
		{"token --room=r", 2, "--user"},
		{"dance", 2, "dance"},
		{"load --viewers=0", 1, "viewers"},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			status, out, errs := command(t, strings.Fields(c.args)...)
			if status != c.status || !strings.Contains(out+errs, c.says) {
				t.Errorf("%d, want %d\n%s%s", status, c.status, out, errs)
			}
		})
	}
}
