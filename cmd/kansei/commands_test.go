package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// command runs the program as from a shell.
func command(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return commandWith(t, "", args...)
}

// commandWith is command with an input.
func commandWith(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}

func TestToken(t *testing.T) {
	t.Parallel()
	// Of two secrets that nodes have while one replaces the other, each is known.
	const next = "another secret of more than thirty-two bytes"
	for _, one := range []string{testSecret, next} {
		_, made, _ := command(t, "token", "--room=r", "--user=u", "--auth-secret="+one)
		if status, out, errs := commandWith(t, made, "token", "--check=-", "--auth-secret="+next+","+testSecret); status != 0 {
			t.Errorf("a token of one of two secrets: %d %s %s", status, out, errs)
		}
	}
	status, out, errs := command(t, "token", "--room=r", "--role=broadcaster", "--user=u", "--ttl=2h", "--auth-secret="+testSecret)
	if status != 0 || !strings.Contains(errs, "signed with the secret of --auth-secret") || strings.Contains(errs, testSecret) || strings.Count(out, "\n") != 1 {
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

// Without --auth-secret the secret is the one that a node with the same data directory
// has made. The command makes none, which no node would know.
func TestTokenOfADataDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if status, out, errs := command(t, "token", "--room=*", "--user=u", "--data-dir="+dir); status != 1 || out != "" || !strings.Contains(errs, "--auth-secret") || !strings.Contains(errs, dir) {
		t.Errorf("without a secret: %d %q %q", status, out, errs)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
		t.Errorf("it has made %v, %v", files, err)
	}
	secret, err := auth.LoadOrMakeSecret(dir, auth.SecretFile)
	if err != nil {
		t.Fatal(err)
	}
	_, out, errs := command(t, "token", "--room=*", "--user=u", "--data-dir="+dir)
	if !strings.Contains(errs, "signed with the secret in "+filepath.Join(dir, auth.SecretFile)) {
		t.Errorf("it says %q", errs)
	}
	v, err := auth.NewVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(strings.TrimSpace(out), "any"); err != nil {
		t.Error(err)
	}
}

// A token is explained with all that is in it but for its signature, and so is why it is
// refused.
func TestTokenCheck(t *testing.T) {
	t.Parallel()
	sign := func(secret, claims string) string {
		text := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	end := fmt.Sprintf(`"exp":%d`, time.Now().Add(time.Hour).Unix())
	good := `{"sub":"u1","name":"Ann","role":"moderator","rooms":["r","s"],` + end + `}`
	for name, tt := range map[string]struct {
		token, room string
		status      int
		says        []string
	}{
		"good":             {sign(testSecret, good), "", 0, []string{`{"typ":"JWT","alg":"HS256"}`, good, "made with the secret of --auth-secret", "u1 (Ann)", "moderator: may comment", "r, s", "nodes with this secret take it"}},
		"for a room":       {sign(testSecret, good), "s", 0, []string{"take it"}},
		"for another room": {sign(testSecret, good), "t", 1, []string{"not for this room"}},
		"another secret":   {sign(testSecret+"x", good), "", 1, []string{"not made with the secret of", "u1 (Ann)", "its signature does not match"}},
		"both wrong":       {sign("x", `{"sub":"u","rooms":["r"],"exp":1790000000000}`), "", 1, []string{"signature does not match", "exp looks like milliseconds"}},
		"a wrong role":     {sign(testSecret, `{"sub":"u","role":"teacher","rooms":["r"],`+end+`}`), "", 1, []string{`role is "teacher"`}},
		"no sub":           {sign(testSecret, `{"rooms":["r"],`+end+`}`), "", 1, []string{"sub: the user id is missing"}},
		"expired":          {sign(testSecret, `{"sub":"u","rooms":["r"],"exp":1}`), "", 1, []string{"expired"}},
		"another algorithm": {"eyJhbGciOiJSUzI1NiJ9." + strings.SplitN(sign(testSecret, good), ".", 2)[1], "", 1,
			[]string{`not signed with HS256, but with "RS256"`}},
		"steering a terminal": {sign(testSecret, `{"sub":"u","rooms":["\u001b[2J"],`+end+`,"x":"`+"\x7f"+`"}`), "", 0, []string{"take it"}},
		"nothing":             {"no token", "", 1, []string{"not three parts"}},
		"too long":            {strings.Repeat("x", 5000), "", 1, []string{"5000 bytes"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"token", "--auth-secret=" + testSecret}
			if tt.room != "" {
				args = append(args, "--room="+tt.room)
			}
			status, out, errs := command(t, append(args, "--check="+tt.token)...)
			if status != tt.status {
				t.Errorf("status %d, want %d", status, tt.status)
			}
			for _, want := range tt.says {
				if !strings.Contains(out+errs, want) {
					t.Errorf("no %q in\n%s%s", want, out, errs)
				}
			}
			if strings.ContainsAny(out+errs, "\x1b\x7f") || strings.Contains(out, testSecret) {
				t.Errorf("it prints what it must not:\n%q", out)
			}
			piped, pipedOut, pipedErrs := commandWith(t, tt.token+"\n", append(args, "--check=-")...)
			if piped != status || pipedErrs != errs || len(pipedOut) != len(out) {
				t.Errorf("from the input: %d\n%s%s", piped, pipedOut, pipedErrs)
			}
		})
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
		{"token --user=u", 2, "--room"},
		{"token --user=u --check=x", 2, "--check"},
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
