package redispresence

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestConnect(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]struct {
		addrs      []string
		user, pass string
		db         int
		tls        bool
		master     string
	}{
		"redis://localhost":                            {addrs: []string{"localhost:6379"}},
		" redis://localhost:6380/3\n":                  {addrs: []string{"localhost:6380"}, db: 3},
		"redis://ann:s%2Cec%40ret@[::1]:7000":          {addrs: []string{"[::1]:7000"}, user: "ann", pass: "s,ec@ret"},
		"rediss://:pw@redis.example:6379?pool_size=20": {addrs: []string{"redis.example:6379"}, pass: "pw", tls: true},
		"unix://ann:pw@/run/redis.sock?db=2":           {addrs: []string{"/run/redis.sock"}, user: "ann", pass: "pw", db: 2},
		"redis://u:p@a:1,b:2,c": {
			addrs: []string{"a:1", "b:2", "c:6379"}, user: "u", pass: "p"},
		"rediss://u:p@a:1,rediss://u:p@b:2/": {
			addrs: []string{"a:1", "b:2"}, user: "u", pass: "p", tls: true},
		"redis+cluster://entry.example:6379/0": {addrs: []string{"entry.example:6379"}},
		"redis+sentinel://s:t@a:1,b,c:3/4?master_name=main&username=u&password=p": {
			addrs: []string{"a:1", "b:6379", "c:3"}, user: "u", pass: "p", db: 4, master: "main"},
	} {
		c, err := Connect(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		var addrs []string
		var user, pass string
		var db, redirects int
		switch c := c.(type) {
		case *redis.Client:
			o := c.Options()
			addrs, user, pass, db = []string{o.Addr}, o.Username, o.Password, o.DB
			if o.MaxRetries != 0 || o.DialerRetries != 1 || !o.ContextTimeoutEnabled || o.DialTimeout != dialTimeout || o.ReadTimeout != ioTimeout {
				t.Errorf("%s: retries %d, dials %d, context %t, timeouts %v and %v", url,
					o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.DialTimeout, o.ReadTimeout)
			}
			if (o.TLSConfig != nil) != want.tls {
				t.Errorf("%s: TLS %t", url, !want.tls)
			}
			if want.master != "" { // the client of sentinels hides their addresses
				if o.Addr != "FailoverClient" {
					t.Errorf("%s: not a client of sentinels, but of %q", url, o.Addr)
				}
				addrs = want.addrs
			}
		case *redis.ClusterClient:
			o := c.Options()
			addrs, user, pass, redirects = o.Addrs, o.Username, o.Password, o.MaxRedirects
			if o.MaxRetries != -1 && o.MaxRetries != 0 || o.DialerRetries != 1 || !o.ContextTimeoutEnabled || redirects != 3 {
				t.Errorf("%s: retries %d, dials %d, context %t, redirects %d", url,
					o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, redirects)
			}
			if (o.TLSConfig != nil) != want.tls {
				t.Errorf("%s: TLS %t", url, !want.tls)
			}
		}
		if !reflect.DeepEqual(addrs, want.addrs) || user != want.user || pass != want.pass || db != want.db {
			t.Errorf("%s: %q as %q with %q, database %d", url, addrs, user, pass, db)
		}
		if err := c.Close(); err != nil {
			t.Errorf("%s: close: %v", url, err)
		}
	}
}

func TestConnectRefuses(t *testing.T) {
	t.Parallel()
	for url, says := range map[string]string{
		"":                                           "empty",
		"localhost:6379":                             "not a URL",
		"http://localhost":                           `scheme "http"`,
		"redis+http://localhost":                     `"http" is neither`,
		"redis://":                                   "no host",
		"redis://:s3cret@":                           "no host",
		"redis://:s3cret@host:port":                  "invalid port",
		"redis://:s3cret%zz@host":                    "invalid",
		"redis://:s3cret@host/abc":                   `"abc"`,
		"redis://:s3cret/x@host":                     "percent-encoded",
		"redis://ann:12/s3cret@host/0":               "percent-encoded",
		"redis://ann:12?s3cret@host/0":               "percent-encoded",
		"redis://ann:12#s3cret@host/0":               "percent-encoded",
		"redis://s3cret/@a,b":                        "percent-encoded",
		"redis://:s3cret@host?nonsense=1":            "nonsense",
		"redis://:s3cret@host?pool_size=many":        "pool_size",
		"redis://:s3cret@host?max_retries=3":         "max_retries",
		"redis://:s3cret@a,b/2":                      "only database 0",
		"redis://:s3cret@a,rediss://b":               "schemes differ",
		"redis://:s3cret@a,":                         "address 2",
		"redis://:s3cret@a,b:x":                      "address 2",
		"redis://:s3cret@a/0,b/1":                    "differ",
		"redis://a,redis://u:s3cret@b":               "user or password differ",
		"redis://u:s3cret@a,u:s3cret2@b":             "user or password differ",
		"redis+sentinel://:s3cret@a:26379,b/0":       "master_name",
		"redis+sentinel://:s3cret@a/x?master_name=m": `"x"`,
	} {
		c, err := Connect(url)
		if err == nil {
			_ = c.Close()
			t.Errorf("%s: accepted", url)
			continue
		}
		if !strings.HasPrefix(err.Error(), "redis: ") || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v; want redis: …%s…", url, err, says)
		}
	}
}

func FuzzConnect(f *testing.F) {
	for _, s := range []string{"redis://a", "redis://u:p@a,b:2?x=1", "unix:///x", "redis+sentinel://a,b/1?master_name=m", "redis://a/,redis://b/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := Connect(s)
		if (c == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v", s, c, err)
		}
		if err == nil {
			_ = c.Close()
		}
	})
}

func FuzzParseAnswer(f *testing.F) {
	f.Add("ok", "", int64(1), int64(2), int64(0), "inc", "room", "3 4 5 6 7", "1 6 2")
	f.Add("resync", "lost", int64(0), int64(0), int64(0), "", "", "", "")
	f.Fuzz(func(t *testing.T, kind, reason string, now, version, lapsed int64, inc, room, counts, own string) {
		for _, v := range [][]any{
			nil,
			{kind, reason},
			{kind, now, version, lapsed, []any{inc}, lapsed, []any{room, counts, own}},
			{kind, now, version, lapsed, []any{inc}, now, []any{room, "", ""}},
			{kind, now, version, lapsed, inc, lapsed, []any{room}},
			{kind, now, reason, lapsed, []any{inc, now}, reason, []any{room, counts, room, own}},
		} {
			a, err := parseAnswer(v)
			if err != nil {
				continue
			}
			for _, c := range a.rooms {
				if c.counts.Users < 0 || c.counts.Connections < 0 || c.counts.PeakUsers < 0 || c.counts.At != a.now ||
					c.gen < 0 || c.own.gen < 0 || c.own.conns < 0 || c.own.users < 0 {
					t.Errorf("%q: %+v", v, c)
				}
			}
			if a.resync == "" && kind != "ok" || a.resync != "" && a.resync != reason {
				t.Errorf("%q: %+v", v, a)
			}
		}
	})
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	r := newPresence(Config{})
	if c := r.cfg; c.Prefix != "kansei" || c.Buckets != 64 || c.Interval != time.Second || c.Lease != 6*time.Second || c.Timeout != time.Second {
		t.Errorf("defaults: %+v", c)
	}
	r = newPresence(Config{Buckets: 1 << 20, Interval: time.Second, Lease: time.Millisecond})
	if c := r.cfg; c.Buckets != MaxBuckets || c.Lease != 3*time.Second {
		t.Errorf("bounds: %+v", c)
	}
}
