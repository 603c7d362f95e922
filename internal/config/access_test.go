package config

import (
	"strings"
	"testing"
)

// TestAccess: what contradicts itself is refused, and both of what it contradicts are named.
func TestAccess(t *testing.T) {
	t.Parallel()
	const (
		nats     = "--nats=nats://n:4222"
		redis    = "--redis=redis://r"
		sentinel = "--redis=redis+sentinel://s?master_name=m"
	)
	for _, c := range []struct {
		args string
		says []string // nothing: it is allowed
	}{
		{nats + " --nats-creds=/f --nats-ca=/f --nats-cert=/f --nats-key=/f --nats-domain=hub --prefix=live-2", nil},
		{nats + " --nats-nkey=/f", nil},
		{nats + " --nats-user=u --nats-password=s3cret", nil},
		{nats + " --nats-user=u --nats-password-file=/f", nil},
		{nats + " --nats-token=s3cret", nil},
		{"--nats=nats://u:s3cret@n --nats-ca=/f", nil},
		{redis + " --redis-user=u --redis-password=s3cret", nil},
		{redis + " --redis-password-file=/f", nil},
		{"--redis=rediss://u:s3cret@r --redis-ca=/f --redis-cert=/f --redis-key=/f", nil},
		{sentinel + " --redis-user=u --redis-password=s3cret --redis-sentinel-password=s3cret", nil},
		{"--redis=rediss+sentinel://u:s3cret@s?master_name=m --redis-password=s3cret --redis-ca=/f", nil},
		{"--redis=redis+sentinel://s?master_name=m&password=s3cret --redis-sentinel-password=s3cret", nil},
		{"--prefix=live", nil},

		{"--nats-creds=/f", []string{"--nats-creds: ", "--nats, and there are none"}},
		{"--nats-domain=hub", []string{"--nats-domain: ", "--nats, and there are none"}},
		{nats + " --nats-creds=/f --nats-nkey=/f", []string{"--nats-nkey: ", "together with --nats-creds"}},
		{nats + " --nats-creds=/f --nats-user=u --nats-password=s3cret", []string{"--nats-user: ", "together with --nats-creds"}},
		{nats + " --nats-token=s3cret --nats-user=u --nats-password=s3cret", []string{"--nats-token: ", "together with --nats-user"}},
		{"--nats=n,u:s3cret@m --nats-creds=/f", []string{"--nats-creds: ", "--nats has a user"}},
		{"--nats=nats://s3cret@n --nats-token-file=/f", []string{"--nats-token-file: ", "--nats has a user"}},
		{nats + " --nats-user=u", []string{"--nats-password: ", "--nats-user"}},
		{nats + " --nats-password-file=/f", []string{"--nats-user: ", "--nats-password-file"}},
		{nats + " --nats-user=u --nats-password=s3cret --nats-password-file=/f", []string{"--nats-password-file: ", "together with --nats-password"}},
		{nats + " --nats-token=s3cret --nats-token-file=/f", []string{"--nats-token-file: ", "together with --nats-token"}},
		{nats + " --nats-cert=/f", []string{"--nats-key: ", "--nats-cert"}},
		{nats + " --nats-key=/f", []string{"--nats-cert: ", "--nats-key"}},
		{nats + " --nats-domain=a.b", []string{"--nats-domain: ", `"a.b"`}},
		{"--redis-password=s3cret", []string{"--redis-password: ", "--redis, and there are none"}},
		{redis + " --redis-user=u", []string{"--redis-password: ", "--redis-user"}},
		{redis + " --redis-ca=/f", []string{"--redis-ca: ", "rediss://"}},
		{"--redis=rediss://r --redis-cert=/f", []string{"--redis-key: ", "--redis-cert"}},
		{redis + " --redis-sentinel-password=s3cret", []string{"--redis-sentinel-password: ", "redis+sentinel://"}},
		{"--redis=redis://u:s3cret@r --redis-password=s3cret", []string{"--redis-password: ", "--redis has a user"}},
		{"--redis=redis://r,redis://u:s3cret@q --redis-user=u --redis-password=s3cret", []string{"--redis-user: ", "--redis has a user"}},
		{"--redis=redis+sentinel://s?master_name=m,redis+sentinel://u:s3cret@q --redis-sentinel-password=s3cret", []string{"--redis-sentinel-password: ", "--redis has a user"}},
		{"--redis=redis+sentinel://u:s3cret@s?master_name=m --redis-sentinel-user=u --redis-sentinel-password=s3cret", []string{"--redis-sentinel-user: ", "--redis has a user"}},
		{"--redis=redis+sentinel://s?master_name=m&password=s3cret --redis-password-file=/f", []string{"--redis-password-file: ", "?password="}},
		{sentinel + " --redis-sentinel-user=u", []string{"--redis-sentinel-password: ", "--redis-sentinel-user"}},
		{redis + " --redis-password=s3cret --redis-password-file=/f", []string{"--redis-password-file: ", "together with --redis-password"}},
		{"--prefix=Live", []string{"--prefix: ", `"Live"`}},
		{"--prefix=a.b", []string{"--prefix: ", `"a.b"`}},
		{"--prefix=" + strings.Repeat("x", 33), []string{"--prefix: "}},
	} {
		args := append([]string{"serve", "--auth-secret=" + strings.Repeat("a", 32)}, strings.Fields(c.args)...)
		_, _, err := parse(t, args, nil, "")
		if len(c.says) == 0 {
			if err != nil {
				t.Errorf("%s: %v", c.args, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: allowed", c.args)
			continue
		}
		for _, s := range c.says {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v; want %q", c.args, err, s)
			}
		}
		if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: a secret is shown: %v", c.args, err)
		}
	}
}
