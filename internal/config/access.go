package config

import (
	"net/url"
	"regexp"
	"strings"
)

// NATSAccess is as whom a node connects to NATS, how it knows the servers, and where they
// keep the room log.
type NATSAccess struct {
	NATSCreds        string `group:"engine" name:"nats-creds" placeholder:"FILE" help:"Credentials of the node's user at NATS, the file that nsc makes."`
	NATSNKey         string `group:"engine" name:"nats-nkey" placeholder:"FILE" help:"Seed of the NKEY of the node's user at NATS, in a file."`
	NATSUser         string `group:"engine" name:"nats-user" placeholder:"NAME" help:"User of the node at NATS; with --nats-password or --nats-password-file."`
	NATSPassword     Secret `group:"engine" name:"nats-password" placeholder:"SECRET" help:"Its password, better as a variable or in a file."`
	NATSPasswordFile string `group:"engine" name:"nats-password-file" placeholder:"FILE" help:"File with its password."`
	NATSToken        Secret `group:"engine" name:"nats-token" placeholder:"SECRET" help:"Token that lets the node into NATS, better as a variable or in a file."`
	NATSTokenFile    string `group:"engine" name:"nats-token-file" placeholder:"FILE" help:"File with that token."`
	NATSCA           string `group:"engine" name:"nats-ca" placeholder:"FILE" help:"Authorities that sign the certificates of NATS, PEM, in the place of the machine's; connects with TLS."`
	NATSCert         string `group:"engine" name:"nats-cert" placeholder:"FILE" help:"Certificate that the node shows to NATS, PEM; with --nats-key; connects with TLS."`
	NATSKey          string `group:"engine" name:"nats-key" placeholder:"FILE" help:"Private key of that certificate, PEM."`
	NATSDomain       string `group:"engine" name:"nats-domain" placeholder:"NAME" help:"JetStream domain that the room log is in, when it is not that of the servers of --nats."`
}

// RedisAccess is as whom a node connects to Redis and its sentinels, and how it knows the
// servers.
type RedisAccess struct {
	RedisUser                 string `group:"engine" name:"redis-user" placeholder:"NAME" help:"User of the node in Redis, one of its ACL; with --redis-password or --redis-password-file."`
	RedisPassword             Secret `group:"engine" name:"redis-password" placeholder:"SECRET" help:"Password of Redis, better as a variable or in a file."`
	RedisPasswordFile         string `group:"engine" name:"redis-password-file" placeholder:"FILE" help:"File with the password of Redis."`
	RedisSentinelUser         string `group:"engine" name:"redis-sentinel-user" placeholder:"NAME" help:"User of the node at Sentinel, which is not that of Redis."`
	RedisSentinelPassword     Secret `group:"engine" name:"redis-sentinel-password" placeholder:"SECRET" help:"Password of Sentinel, which is not that of Redis, better as a variable or in a file."`
	RedisSentinelPasswordFile string `group:"engine" name:"redis-sentinel-password-file" placeholder:"FILE" help:"File with the password of Sentinel."`
	RedisReplicaReads         bool   `group:"engine" name:"redis-replica-reads" help:"Read the lists of members from replicas, of Sentinel or a Cluster, Redis 7 or later; what they lack is read from the primary."`
	RedisCA                   string `group:"engine" name:"redis-ca" placeholder:"FILE" help:"Authorities that sign the certificates of Redis and Sentinel, PEM, in the place of the machine's; --redis begins with rediss."`
	RedisCert                 string `group:"engine" name:"redis-cert" placeholder:"FILE" help:"Certificate that the node shows to Redis and Sentinel, PEM; with --redis-key; --redis begins with rediss."`
	RedisKey                  string `group:"engine" name:"redis-key" placeholder:"FILE" help:"Private key of that certificate, PEM."`
}

var (
	isPrefix = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`) // what natslog.Config.Prefix may be
	isDomain = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// given is a setting that may have a value.
type given struct {
	name string
	is   bool
}

// first is the name of the first setting that has a value; empty when none has.
func first(all ...given) string {
	for _, g := range all {
		if g.is {
			return g.name
		}
	}
	return ""
}

func (a *NATSAccess) validate(p *Problems, servers string) {
	user := first(given{"nats-user", a.NATSUser != ""}, given{"nats-password", a.NATSPassword != ""}, given{"nats-password-file", a.NATSPasswordFile != ""})
	token := first(given{"nats-token", a.NATSToken != ""}, given{"nats-token-file", a.NATSTokenFile != ""})
	ways := []given{{"nats-creds", a.NATSCreds != ""}, {"nats-nkey", a.NATSNKey != ""}, {user, user != ""}, {token, token != ""}}
	way := first(ways...)
	one := first(given{way, way != ""}, given{"nats-ca", a.NATSCA != ""}, given{"nats-cert", a.NATSCert != ""},
		given{"nats-key", a.NATSKey != ""}, given{"nats-domain", a.NATSDomain != ""})
	if one != "" && servers == "" {
		p.add(one, "is for the servers of --nats, and there are none: the embedded NATS needs nothing of the kind")
		return
	}
	for _, g := range ways {
		if g.is && g.name != way {
			p.add(g.name, "must not be given together with --%s: a connection has one user", way)
		}
	}
	if way != "" && natsUserInfo(servers) {
		p.add(way, "must not be given while an address of --nats has a user, a password or a token in it: take one of the two away")
	}
	oneForm(p, "nats-password", a.NATSPassword, a.NATSPasswordFile)
	oneForm(p, "nats-token", a.NATSToken, a.NATSTokenFile)
	switch password := a.NATSPassword != "" || a.NATSPasswordFile != ""; {
	case a.NATSUser != "" && !password:
		p.add("nats-password", "is needed with --nats-user; or --nats-password-file")
	case a.NATSUser == "" && password:
		p.add("nats-user", "is needed with --%s", user)
	}
	pair(p, "nats", a.NATSCert, a.NATSKey)
	if a.NATSDomain != "" && !isDomain.MatchString(a.NATSDomain) {
		p.add("nats-domain", "must be the name of a JetStream domain, 1 to 64 letters, digits, _ and -, not %q", a.NATSDomain)
	}
}

func (a *RedisAccess) validate(p *Problems, servers string) {
	user := first(given{"redis-user", a.RedisUser != ""}, given{"redis-password", a.RedisPassword != ""}, given{"redis-password-file", a.RedisPasswordFile != ""})
	sentinel := first(given{"redis-sentinel-user", a.RedisSentinelUser != ""}, given{"redis-sentinel-password", a.RedisSentinelPassword != ""},
		given{"redis-sentinel-password-file", a.RedisSentinelPasswordFile != ""})
	secure := first(given{"redis-ca", a.RedisCA != ""}, given{"redis-cert", a.RedisCert != ""}, given{"redis-key", a.RedisKey != ""})
	if one := first(given{user, user != ""}, given{sentinel, sentinel != ""}, given{secure, secure != ""}); one != "" && servers == "" {
		p.add(one, "is for the servers of --redis, and there are none: the embedded Redis needs nothing of the kind")
		return
	}
	scheme, _, _ := strings.Cut(servers, "://")
	sentinels := strings.HasSuffix(scheme, "+sentinel")
	inURL, inQuery := redisUserInfo(servers)
	switch {
	case user != "" && sentinels && inQuery:
		p.add(user, "must not be given while --redis has ?username= or ?password=: take one of the two away")
	case user != "" && !sentinels && inURL:
		p.add(user, "must not be given while --redis has a user or a password in it: take one of the two away")
	}
	switch {
	case sentinel != "" && !sentinels:
		p.add(sentinel, "is for sentinels: --redis must begin with redis+sentinel:// or rediss+sentinel://")
	case sentinel != "" && inURL:
		p.add(sentinel, "must not be given while --redis has a user or a password of Sentinel in it: take one of the two away")
	}
	if secure != "" && !strings.HasPrefix(scheme, "rediss") {
		p.add(secure, "is for TLS: --redis must begin with rediss://, rediss+sentinel:// or rediss+cluster://")
	}
	oneForm(p, "redis-password", a.RedisPassword, a.RedisPasswordFile)
	oneForm(p, "redis-sentinel-password", a.RedisSentinelPassword, a.RedisSentinelPasswordFile)
	if a.RedisUser != "" && a.RedisPassword == "" && a.RedisPasswordFile == "" {
		p.add("redis-password", "is needed with --redis-user; or --redis-password-file")
	}
	if a.RedisSentinelUser != "" && a.RedisSentinelPassword == "" && a.RedisSentinelPasswordFile == "" {
		p.add("redis-sentinel-password", "is needed with --redis-sentinel-user; or --redis-sentinel-password-file")
	}
	pair(p, "redis", a.RedisCert, a.RedisKey)
}

// oneForm refuses a secret that is given as it is and in a file.
func oneForm(p *Problems, name string, value Secret, file string) {
	if value != "" && file != "" {
		p.add(name+"-file", "must not be given together with --%s: they may differ", name)
	}
}

// pair refuses a certificate without its key, and a key without its certificate.
func pair(p *Problems, of, cert, key string) {
	switch {
	case cert != "" && key == "":
		p.add(of+"-key", "is needed with --%s-cert", of)
	case cert == "" && key != "":
		p.add(of+"-cert", "is needed with --%s-key", of)
	}
}

// natsUserInfo reports whether one of the addresses has a user, or a token, in it.
func natsUserInfo(servers string) bool {
	for _, a := range split(servers) {
		if !strings.Contains(a, "://") {
			a = "nats://" + a
		}
		if u, err := url.Parse(a); err == nil && u.User != nil {
			return true
		}
	}
	return false
}

// redisUserInfo reports whether there is a user or a password before a host of --redis, which
// may be a list of hosts or of URLs, and in what is behind them.
func redisUserInfo(servers string) (before, behind bool) {
	for a := range strings.SplitSeq(servers, ",") {
		if _, rest, ok := strings.Cut(a, "://"); ok {
			a = rest
		}
		if end := strings.IndexAny(a, "/?"); end >= 0 {
			a = a[:end]
		}
		before = before || strings.Contains(a, "@")
	}
	_, query, _ := strings.Cut(servers, "?")
	q, err := url.ParseQuery(query)
	return before, err == nil && (q.Has("username") || q.Has("password"))
}
