package credentials_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nkeys"

	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/credentials"
)

// TestBadFiles: what is wrong with a file is told with the flag and the file, and no secret.
func TestBadFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := newAuthority(t, "a")
	cert, key := a.issue(t, "node")
	_, other := a.issue(t, "node")
	creds, _ := newChain(t)
	stranger, _ := newChain(t)
	seed := regexp.MustCompile(`(?m)^SU[A-Z2-7]{56}$`).FindString
	mixed := strings.Replace(creds, seed(creds), seed(stranger), 1)
	account := newKey(t, nkeys.CreateAccount)
	f := func(name, content string) string { return write(t, dir, name, content) }
	open := f("open", "s3cret")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	good, goodKey := f("good.pem", cert), f("good-key.pem", key)
	nowhere := filepath.Join(dir, "nowhere")
	for name, c := range map[string]struct {
		access config.NATSAccess
		flag   string
		says   string
	}{
		"no creds":         {config.NATSAccess{NATSCreds: nowhere}, "--nats-creds", "no such file"},
		"a directory":      {config.NATSAccess{NATSCreds: dir}, "--nats-creds", "not a regular file"},
		"no JWT":           {config.NATSAccess{NATSCreds: f("text", "s3cret")}, "--nats-creds", "nsc"},
		"no seed":          {config.NATSAccess{NATSCreds: f("jwt", creds[:strings.Index(creds, "*****")])}, "--nats-creds", "nsc"},
		"another's seed":   {config.NATSAccess{NATSCreds: f("mixed", mixed)}, "--nats-creds", "not that of the user"},
		"no NKEY":          {config.NATSAccess{NATSNKey: f("text2", "s3cret")}, "--nats-nkey", "begins with SU"},
		"an account's":     {config.NATSAccess{NATSNKey: f("account", account.seed)}, "--nats-nkey", "begins with SU"},
		"no password":      {config.NATSAccess{NATSUser: "u", NATSPasswordFile: f("empty", "\n")}, "--nats-password-file", "empty"},
		"two lines":        {config.NATSAccess{NATSUser: "u", NATSPasswordFile: f("two", "s3cret\ns3cret\n")}, "--nats-password-file", "one line"},
		"anybody writes":   {config.NATSAccess{NATSTokenFile: open}, "--nats-token-file", "chmod o-w"},
		"too large":        {config.NATSAccess{NATSTokenFile: f("large", strings.Repeat("s3cret", 20_000))}, "--nats-token-file", "too large"},
		"no authority":     {config.NATSAccess{NATSCA: f("none.pem", "s3cret")}, "--nats-ca", "PEM"},
		"half a one":       {config.NATSAccess{NATSCA: f("half.pem", cert+cert[:len(cert)/2])}, "--nats-ca", "whole"},
		"a key":            {config.NATSAccess{NATSCA: f("mixed.pem", cert+key)}, "--nats-ca", "PRIVATE KEY"},
		"another's key":    {config.NATSAccess{NATSCert: good, NATSKey: f("other.pem", other)}, "--nats-key", "does not match"},
		"no key":           {config.NATSAccess{NATSCert: good, NATSKey: nowhere}, "--nats-key", "no such file"},
		"no certificate":   {config.NATSAccess{NATSCert: nowhere, NATSKey: goodKey}, "--nats-cert", "no such file"},
		"the wrong way up": {config.NATSAccess{NATSCert: goodKey, NATSKey: good}, "--nats-cert", "PEM"},
	} {
		_, err := credentials.NewNATS(c.access)
		if err == nil || !strings.Contains(err.Error(), c.flag) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v; want %s, %q and the file", name, err, c.flag, c.says)
			continue
		}
		for _, secret := range []string{"s3cret", seed(creds), seed(stranger), account.seed} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: a secret is shown: %v", name, err)
			}
		}
	}
}

// TestMountedSecret: a file that is a link, which all may read and nobody may write, is taken,
// as Kubernetes mounts secrets; and another one in its place.
func TestMountedSecret(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, v := range []string{"one", "two"} {
		d := filepath.Join(dir, v)
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(write(t, d, "password", v), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	link("one")
	if err := os.Symlink("..data/password", filepath.Join(dir, "password")); err != nil {
		t.Fatal(err)
	}
	r, err := credentials.NewRedis(config.RedisAccess{RedisPasswordFile: filepath.Join(dir, "password")})
	if err != nil {
		t.Fatal(err)
	}
	if _, got := r.User()(); got != "one" {
		t.Errorf("the password is %q", got)
	}
	link("two")
	apply, err := r.Load()
	if err != nil {
		t.Fatal(err)
	}
	if _, got := r.User()(); got != "one" {
		t.Errorf("before it is applied the password is %q", got)
	}
	apply()
	if _, got := r.User()(); got != "two" {
		t.Errorf("then the password is %q", got)
	}
	link("nowhere")
	if _, err := r.Load(); err == nil || !strings.Contains(err.Error(), "--redis-password-file") {
		t.Errorf("of a file that is gone: %v", err)
	}
	if _, got := r.User()(); got != "two" {
		t.Errorf("after that the password is %q", got)
	}
}
