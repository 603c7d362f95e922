package credentials_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/credentials"
	"github.com/kansei-live/kansei/internal/natslog"
	"github.com/kansei-live/kansei/test/ports"
)

// way is a way to be let in by a server.
type way struct {
	flags   func(dir string) []string
	put     func(t *testing.T, dir string, i int)        // writes the files of the i-th user
	conf    func(t *testing.T, dir string, i int) string // of a server that lets the i-th user in alone
	refusal string                                       // what a node tells of a server that does not
}

func ways(t *testing.T) map[string]way {
	seeds, public := [2]string{}, [2]string{}
	var chains [2]struct{ creds, conf string }
	var authorities [2]*authority
	for i := range seeds {
		key := newKey(t, nkeys.CreateUser)
		seeds[i], public[i] = key.seed, key.public
		chains[i].creds, chains[i].conf = newChain(t)
		authorities[i] = newAuthority(t, fmt.Sprint("authority ", i))
	}
	return map[string]way{
		"creds": {
			func(dir string) []string { return []string{"--nats-creds=" + dir + "/user.creds"} },
			func(t *testing.T, dir string, i int) { write(t, dir, "user.creds", chains[i].creds) },
			func(_ *testing.T, _ string, i int) string { return chains[i].conf },
			"authorization violation",
		},
		"nkey": {
			func(dir string) []string { return []string{"--nats-nkey=" + dir + "/user.nk"} },
			func(t *testing.T, dir string, i int) { write(t, dir, "user.nk", "# of a node\r\n"+seeds[i]+"\r\n") },
			func(_ *testing.T, _ string, i int) string {
				return fmt.Sprintf("authorization {users: [{nkey: %s}]}", public[i])
			},
			"authorization violation",
		},
		"password": {
			func(dir string) []string {
				return []string{"--nats-user=ann", "--nats-password-file=" + dir + "/password"}
			},
			func(t *testing.T, dir string, i int) { write(t, dir, "password", fmt.Sprintf("pass: word %d\n", i)) },
			func(_ *testing.T, _ string, i int) string {
				return fmt.Sprintf("authorization {users: [{user: ann, password: 'pass: word %d'}]}", i)
			},
			"authorization violation",
		},
		"token": {
			func(dir string) []string { return []string{"--nats-token-file=" + dir + "/token"} },
			func(t *testing.T, dir string, i int) { write(t, dir, "token", fmt.Sprintf("t0ken@%d\r\n", i)) },
			func(_ *testing.T, _ string, i int) string { return fmt.Sprintf("authorization {token: 't0ken@%d'}", i) },
			"authorization violation",
		},
		"certificate": {
			func(dir string) []string {
				return []string{"--nats-ca=" + dir + "/ca.pem", "--nats-cert=" + dir + "/cert.pem", "--nats-key=" + dir + "/key.pem"}
			},
			func(t *testing.T, dir string, i int) { putCertificate(t, dir, authorities[i], "node") },
			func(t *testing.T, dir string, i int) string {
				putCertificate(t, dir, authorities[i], "nats", "127.0.0.1")
				return fmt.Sprintf("tls {cert_file: %q, key_file: %q, ca_file: %q, verify: true}", dir+"/cert.pem", dir+"/key.pem", dir+"/ca.pem")
			},
			"certificate",
		},
	}
}

// TestNATS: servers that demand something let in whoever has it, and a node that has something
// else says so. When the files are read again, what they hold then is used, and not before.
func TestNATS(t *testing.T) {
	t.Parallel()
	for name, w := range ways(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, port := t.TempDir(), ports.ForTest(t).Number
			w.put(t, dir, 0)
			s := settings(t, append(w.flags(dir), "--nats=nats://"+at(port), "--redis=redis://unused")...)
			source, err := credentials.NewNATS(s.NATSAccess)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(source.Files()); n != len(w.flags(dir)) && name != "password" {
				t.Errorf("it reads %v", source.Files())
			}
			server := startNATS(t, port, w.conf(t, t.TempDir(), 0))
			was := open(t, s, source)
			eventually(t, "the server lets the node in", was.Ready)
			stop(server)

			startNATS(t, port, w.conf(t, t.TempDir(), 1))
			late := open(t, s, source)
			refused := func() error {
				for _, l := range []*natslog.Log{was, late} {
					if err := l.Ready(); err == nil || !strings.Contains(strings.ToLower(err.Error()), w.refusal) {
						return fmt.Errorf("it says %w", err)
					}
				}
				return nil
			}
			eventually(t, "the other server does not", refused)
			w.put(t, dir, 1)
			apply, err := source.Load()
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "nothing has changed yet", refused)
			apply()
			eventually(t, "it lets both in", func() error { return errors.Join(was.Ready(), late.Ready()) })
		})
	}
}

// TestNATSByValue: secrets may be given as they are.
func TestNATSByValue(t *testing.T) {
	t.Parallel()
	for conf, flags := range map[string][]string{
		"authorization {users: [{user: ann, password: s3cret}]}": {"--nats-user=ann", "--nats-password=s3cret"},
		"authorization {token: s3cret}":                          {"--nats-token=s3cret"},
	} {
		port := ports.ForTest(t).Number
		startNATS(t, port, conf)
		s := settings(t, append(flags, "--nats="+at(port), "--redis=redis://unused")...)
		source, err := credentials.NewNATS(s.NATSAccess)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, conf, open(t, s, source).Ready)
	}
}

// TestNATSCertificateRefused: a server that does not know the node's certificate says so, and
// one that is not who it should be is not believed.
func TestNATSCertificateRefused(t *testing.T) {
	t.Parallel()
	ours, other := newAuthority(t, "ours"), newAuthority(t, "other")
	dir, theirs, port := t.TempDir(), t.TempDir(), ports.ForTest(t).Number
	putCertificate(t, theirs, ours, "nats", "127.0.0.1")
	startNATS(t, port, fmt.Sprintf("tls {cert_file: %q, key_file: %q, ca_file: %q, verify: true}", theirs+"/cert.pem", theirs+"/key.pem", theirs+"/ca.pem"))
	putCertificate(t, dir, other, "node")
	write(t, dir, "ca.pem", ours.pem+other.pem)
	for name, c := range map[string]struct {
		flags []string
		says  string
	}{
		"another authority": {[]string{"--nats-ca=" + dir + "/ca.pem", "--nats-cert=" + dir + "/cert.pem", "--nats-key=" + dir + "/key.pem"}, "certificate"},
		"no certificate":    {[]string{"--nats-ca=" + dir + "/ca.pem"}, "certificate"},
		"nothing":           {nil, "certificate"},
	} {
		s := settings(t, append(c.flags, "--nats="+at(port), "--redis=redis://unused")...)
		source, err := credentials.NewNATS(s.NATSAccess)
		if err != nil {
			t.Fatal(err)
		}
		l := open(t, s, source)
		eventually(t, name, func() error {
			if err := l.Ready(); err == nil || !strings.Contains(err.Error(), c.says) {
				return fmt.Errorf("it says %w", err)
			}
			return nil
		})
	}
}

// open opens a log as cmd/kansei does.
func open(t *testing.T, s config.Serve, source *credentials.NATS) *natslog.Log {
	t.Helper()
	l, err := natslog.Open(natslog.Config{
		URLs: s.NATSServers(), Options: source.Options(), NKey: source.NKey(), Domain: s.NATSDomain, Prefix: s.Prefix,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return l
}

// startNATS starts a server with JetStream, and with a configuration besides.
func startNATS(t *testing.T, port int, conf string) *server.Server {
	t.Helper()
	if !strings.Contains(conf, "jetstream") {
		conf += fmt.Sprintf("\njetstream {store_dir: %q}\n", t.TempDir())
	}
	path := write(t, t.TempDir(), "nats.conf", fmt.Sprintf("listen: %q\nserver_name: one\n%s", at(port), conf))
	o, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o.NoLog, o.NoSigs = true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { stop(s) })
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server does not start")
	}
	return s
}

func stop(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// key is a key of NATS.
type key struct {
	nkeys.KeyPair
	seed, public string
}

func newKey(t *testing.T, create func() (nkeys.KeyPair, error)) key {
	t.Helper()
	k, err := create()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := k.Seed()
	if err != nil {
		t.Fatal(err)
	}
	public, err := k.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	return key{k, string(seed), public}
}

// newChain makes an operator, an account with JetStream and a user: its credentials, and the
// configuration of a server of that operator.
func newChain(t *testing.T) (creds, conf string) {
	t.Helper()
	operator, account, user := newKey(t, nkeys.CreateOperator), newKey(t, nkeys.CreateAccount), newKey(t, nkeys.CreateUser)
	encode := func(c jwt.Claims, by key) string {
		s, err := c.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a := jwt.NewAccountClaims(account.public)
	a.Name = "live"
	a.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit}
	system := newKey(t, nkeys.CreateAccount)
	conf = fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {%s: %s, %s: %s}",
		encode(jwt.NewOperatorClaims(operator.public), operator), system.public, account.public, encode(a, operator),
		system.public, encode(jwt.NewAccountClaims(system.public), operator))
	u := jwt.NewUserClaims(user.public)
	u.Expires = time.Now().Add(time.Hour).Unix()
	b, err := jwt.FormatUserConfig(encode(u, account), []byte(user.seed))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), conf
}
