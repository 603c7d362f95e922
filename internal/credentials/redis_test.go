package credentials_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/internal/credentials"
	"github.com/kansei-live/kansei/internal/redispresence"
	"github.com/kansei-live/kansei/test/ports"
)

// everything is what a user of an ACL may do here.
const everything = "~* &* +@all"

// TestRedis: servers that demand something let in whoever has it, and a node that has something
// else says so. When the files are read again, what they hold then is used, and not before.
func TestRedis(t *testing.T) {
	t.Parallel()
	authorities := [2]*authority{newAuthority(t, "0"), newAuthority(t, "1")}
	secured := func(t *testing.T, i int) []string {
		dir := t.TempDir()
		putCertificate(t, dir, authorities[i], "redis", "127.0.0.1")
		return []string{"tls-cert-file " + dir + "/cert.pem", "tls-key-file " + dir + "/key.pem", "tls-ca-cert-file " + dir + "/ca.pem", "tls-auth-clients yes"}
	}
	for name, c := range map[string]struct {
		scheme, query string
		secure        bool
		flags         func(dir string) []string
		put           func(t *testing.T, dir string, i int)
		conf          func(t *testing.T, i int) []string // of a server that lets the i-th user in alone
		sentinel      func(t *testing.T, i int) []string // the same of a sentinel; nil for none
		says          []string                           // what a node tells that is not let in
	}{
		"user": {
			"redis", "", false,
			func(dir string) []string {
				return []string{"--redis-user=ann", "--redis-password-file=" + dir + "/password"}
			},
			func(t *testing.T, dir string, i int) { write(t, dir, "password", fmt.Sprintf("p@ss:%d\n", i)) },
			func(_ *testing.T, i int) []string {
				return []string{"user default off", fmt.Sprintf("user ann on >p@ss:%d %s", i, everything)}
			},
			nil, []string{"WRONGPASS", "--redis-user", "--redis-password"},
		},
		"password": {
			"redis", "", false,
			func(dir string) []string { return []string{"--redis-password-file=" + dir + "/password"} },
			func(t *testing.T, dir string, i int) { write(t, dir, "password", fmt.Sprint("secret", i)) },
			func(_ *testing.T, i int) []string { return []string{fmt.Sprint("requirepass secret", i)} },
			nil, []string{"WRONGPASS", "--redis-user", "--redis-password"},
		},
		"cluster": {
			"redis+cluster", "", false,
			func(dir string) []string { return []string{"--redis-password-file=" + dir + "/password"} },
			func(t *testing.T, dir string, i int) { write(t, dir, "password", fmt.Sprint("secret", i)) },
			func(t *testing.T, i int) []string {
				return []string{fmt.Sprint("requirepass secret", i), "cluster-enabled yes", fmt.Sprint("cluster-port ", ports.ForTest(t).Number)}
			},
			nil, []string{"WRONGPASS", "--redis-user", "--redis-password"},
		},
		"certificate": {
			"rediss", "", true, certificateFlags,
			func(t *testing.T, dir string, i int) { putCertificate(t, dir, authorities[i], "node") },
			secured, nil, []string{"certificate", "--redis-ca"},
		},
		"cluster with certificates": {
			"rediss+cluster", "", true, certificateFlags,
			func(t *testing.T, dir string, i int) { putCertificate(t, dir, authorities[i], "node") },
			func(t *testing.T, i int) []string {
				return append(secured(t, i), "cluster-enabled yes", fmt.Sprint("cluster-port ", ports.ForTest(t).Number), "tls-cluster yes")
			},
			nil, []string{"certificate", "--redis-ca"},
		},
		"sentinel": {
			"redis+sentinel", "&master_name=main", false,
			func(dir string) []string {
				return []string{"--redis-user=ann", "--redis-password-file=" + dir + "/password",
					"--redis-sentinel-user=bob", "--redis-sentinel-password-file=" + dir + "/sentinel"}
			},
			func(t *testing.T, dir string, i int) {
				write(t, dir, "password", fmt.Sprint("of-redis", i))
				write(t, dir, "sentinel", fmt.Sprint("of-sentinel", i))
			},
			func(_ *testing.T, i int) []string {
				return []string{"user default off", fmt.Sprintf("user ann on >of-redis%d %s", i, everything)}
			},
			func(_ *testing.T, i int) []string {
				return []string{fmt.Sprint("sentinel auth-pass main of-redis", i), "sentinel auth-user main ann",
					"user default off", fmt.Sprintf("user bob on >of-sentinel%d %s", i, everything)}
			},
			[]string{"WRONGPASS", "--redis-sentinel-user", "--redis-sentinel-password"},
		},
		"sentinel with certificates": {
			"rediss+sentinel", "&master_name=main", true,
			func(dir string) []string {
				return append(certificateFlags(dir), "--redis-sentinel-password-file="+dir+"/sentinel")
			},
			func(t *testing.T, dir string, i int) {
				putCertificate(t, dir, authorities[i], "node")
				write(t, dir, "sentinel", fmt.Sprint("of-sentinel", i))
			},
			secured,
			func(t *testing.T, i int) []string {
				return append(secured(t, i), fmt.Sprint("requirepass of-sentinel", i), "tls-replication yes")
			},
			[]string{"certificate", "--redis-ca"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, port := t.TempDir(), ports.ForTest(t).Number
			c.put(t, dir, 0)
			url := fmt.Sprintf("--redis=%s://%s?read_timeout=60s&dial_timeout=60s%s", c.scheme, at(port), c.query)
			s := settings(t, append(c.flags(dir), url)...)
			source, err := credentials.NewRedis(s.RedisAccess)
			if err != nil {
				t.Fatal(err)
			}
			serve := func(i int) (stop func()) {
				mine := t.TempDir()
				c.put(t, mine, i)
				own, err := credentials.NewRedis(settings(t, append(c.flags(mine), url)...).RedisAccess)
				if err != nil {
					t.Fatal(err)
				}
				if c.sentinel == nil {
					return startRedis(t, own, port, c.secure, c.conf(t, i))
				}
				primary := ports.ForTest(t).Number
				stopPrimary := startRedis(t, own, primary, c.secure, c.conf(t, i))
				stopSentinel := startRedis(t, own, port, c.secure,
					append([]string{fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1", primary)}, c.sentinel(t, i)...))
				return func() { stopSentinel(); stopPrimary() }
			}
			stop := serve(0)
			was := join(t, s.Redis, source)
			eventually(t, "the server lets the node in", was.Ready)
			stop()

			serve(1)
			late := join(t, s.Redis, source)
			refused := func() error {
				for _, r := range []*redispresence.Presence{was, late} {
					err := r.Ready()
					for _, say := range c.says {
						if err == nil || !strings.Contains(err.Error(), say) {
							return fmt.Errorf("it says %w", err)
						}
					}
				}
				return nil
			}
			eventually(t, "the other server does not", refused)
			c.put(t, dir, 1)
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

// TestRedisNames: a primary that sentinels name is known by its own address, or by the name in
// --redis, and by no other.
func TestRedisNames(t *testing.T) {
	t.Parallel()
	a, mine := newAuthority(t, "a"), t.TempDir()
	putCertificate(t, mine, a, "node", "127.0.0.1", "localhost")
	for names, good := range map[string]bool{"127.0.0.1": true, "localhost": true, "redis.example": false} {
		t.Run(names, func(t *testing.T) {
			t.Parallel()
			conf := func(name string) []string {
				dir := t.TempDir()
				putCertificate(t, dir, a, name)
				return []string{"tls-cert-file " + dir + "/cert.pem", "tls-key-file " + dir + "/key.pem", "tls-ca-cert-file " + dir + "/ca.pem", "tls-replication yes"}
			}
			primary, sentinel := ports.ForTest(t).Number, ports.ForTest(t).Number
			url := fmt.Sprintf("rediss+sentinel://localhost:%d?master_name=main&dial_timeout=60s", sentinel)
			s := settings(t, append(certificateFlags(mine), "--redis="+url)...)
			source, err := credentials.NewRedis(s.RedisAccess)
			if err != nil {
				t.Fatal(err)
			}
			startRedis(t, source, primary, true, conf(names))
			startRedis(t, source, sentinel, true, append(conf("localhost"), fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1", primary)))
			r := join(t, s.Redis, source)
			eventually(t, "it is believed, or not", func() error {
				err := r.Ready()
				if !good && err != nil && strings.Contains(err.Error(), "certificate") && strings.Contains(err.Error(), "--redis-ca") {
					return nil
				}
				if !good {
					return fmt.Errorf("it says %w", err)
				}
				return err
			})
		})
	}
}

func certificateFlags(dir string) []string {
	return []string{"--redis-ca=" + dir + "/ca.pem", "--redis-cert=" + dir + "/cert.pem", "--redis-key=" + dir + "/key.pem"}
}

// TestRedisWithoutCertificate: a server that demands a certificate, and a sentinel that demands
// a password, are told of as such to a node that has none.
func TestRedisWithoutCertificate(t *testing.T) {
	t.Parallel()
	a, dir, port, primary := newAuthority(t, "a"), t.TempDir(), ports.ForTest(t).Number, ports.ForTest(t).Number
	putCertificate(t, dir, a, "redis", "127.0.0.1")
	full, err := credentials.NewRedis(settings(t, append(certificateFlags(dir), "--redis=rediss://r")...).RedisAccess)
	if err != nil {
		t.Fatal(err)
	}
	startRedis(t, full, port, true, []string{"tls-cert-file " + dir + "/cert.pem", "tls-key-file " + dir + "/key.pem", "tls-ca-cert-file " + dir + "/ca.pem", "tls-auth-clients yes"})
	locked := ports.ForTest(t).Number
	startRedis(t, full, primary, false, nil)
	startRedis(t, full, locked, false, []string{fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1", primary), "requirepass s3cret"})
	for _, c := range []struct {
		args []string
		says []string
	}{
		{[]string{"--redis=rediss://" + at(port) + "?dial_timeout=60s", "--redis-ca=" + dir + "/ca.pem"}, []string{"certificate", "--redis-cert"}},
		{[]string{"--redis=redis+sentinel://" + at(locked) + "?master_name=main"}, []string{"NOAUTH", "--redis-sentinel-password"}},
	} {
		s := settings(t, c.args...)
		source, err := credentials.NewRedis(s.RedisAccess)
		if err != nil {
			t.Fatal(err)
		}
		r := join(t, s.Redis, source)
		eventually(t, c.args[0], func() error {
			err := r.Ready()
			for _, say := range c.says {
				if err == nil || !strings.Contains(err.Error(), say) {
					return fmt.Errorf("it says %w", err)
				}
			}
			return nil
		})
	}
}

// access is as whom a node connects, as cmd/kansei has it.
func access(source *credentials.Redis) redispresence.Access {
	return redispresence.Access{User: source.User(), Sentinel: source.Sentinel(), TLS: source.TLS}
}

// join makes a presence that ends with the test.
func join(t *testing.T, url string, source *credentials.Redis) *redispresence.Presence {
	t.Helper()
	client, err := access(source).Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	r := redispresence.New(redispresence.Config{Client: client, Buckets: 1, Timeout: 5 * time.Second})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = r.Close(ctx) // what cannot be handed back lapses
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// startRedis starts a server, or a sentinel, that ends with the test. source is who asks
// whether it runs; one that refuses it, as a sentinel does, runs, too.
func startRedis(t *testing.T, source *credentials.Redis, port int, secure bool, conf []string) (stop func()) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("%v: `make setup` installs it", err)
	}
	dir := t.TempDir()
	listen := fmt.Sprintf("port %d", port)
	scheme, unverified := "redis", ""
	if secure {
		listen, scheme, unverified = fmt.Sprintf("port 0\ntls-port %d", port), "rediss", "&skip_verify=true"
	}
	text := fmt.Sprintf("bind 127.0.0.1\n%s\ndir %s\n%s\n", listen, dir, strings.Join(conf, "\n"))
	args := []string{"--save", ""}
	if strings.Contains(text, "sentinel monitor") {
		args = []string{"--sentinel"}
	}
	cmd := exec.Command(path, append([]string{write(t, dir, "redis.conf", text)}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // a second time there is nothing to wait for
	}
	t.Cleanup(stop)
	client, err := access(source).Connect(scheme + "://" + at(port) + "?dial_timeout=60s" + unverified)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	eventually(t, "redis-server answers", func() error {
		err := client.Ping(context.Background()).Err()
		if err == nil && strings.Contains(text, "cluster-enabled") {
			err = assign(client)
		}
		if _, said := errors.AsType[redis.Error](err); said {
			return nil
		}
		return err
	})
	return stop
}

// assign gives a cluster's only node all slots.
func assign(client redis.UniversalClient) error {
	ctx := context.Background()
	info, err := client.ClusterInfo(ctx).Result()
	if err == nil && !strings.Contains(info, "cluster_state:ok") {
		_ = client.ClusterAddSlotsRange(ctx, 0, 16383).Err() // it may have them
		return errors.New(info)
	}
	return err
}
