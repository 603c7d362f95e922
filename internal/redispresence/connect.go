package redispresence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/kansei-live/kansei/internal/redact"
)

// Timeouts and sizes of the clients that Connect makes, where the URL does not set
// them. A presence has at most eight requests under way.
const (
	dialTimeout = time.Second
	ioTimeout   = 2 * time.Second // behind the deadline that each request bears
	poolSize    = 8
	clientName  = "kansei"
)

// Connect makes a client out of the setting "redis"; it does not connect yet. The
// setting is one of
//
//	redis://[user:password@]host[:port][/db]              one server; rediss:// with TLS
//	unix://[user:password@]/path/to/socket[?db=0]
//	redis+sentinel://[user:password@]host[:port][,…][/db]?master_name=name
//	                      sentinels, with their user; the server's own: ?username=…&password=…
//	redis://host[:port],host[:port],…                     some nodes of a Redis Cluster
//	redis+cluster://host[:port]                           the only known node of one
//
// with the query parameters of go-redis (pool_size, read_timeout, …). Special
// characters in user and password are percent-encoded. Whoever asks for the client
// closes it.
func Connect(urls string) (redis.UniversalClient, error) { return Access{}.Connect(urls) }

// Connect is [Connect] with what is not in the setting.
func (a Access) Connect(urls string) (redis.UniversalClient, error) {
	c, err := a.connect(strings.TrimSpace(urls))
	if err != nil {
		return nil, fmt.Errorf("redis: %w", redact.Quoted(err, urls))
	}
	return c, nil
}

func (a Access) connect(urls string) (redis.UniversalClient, error) {
	u, hosts, err := split(urls)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	if q.Has("max_retries") || q.Has("dialer_retries") {
		return nil, errors.New("max_retries and dialer_retries cannot be set: a client that retries by itself blurs deadlines")
	}
	for _, h := range hosts[1:] {
		q.Add("addr", h)
	}
	scheme, kind, _ := strings.Cut(u.Scheme, "+")
	if kind == "" && len(hosts) > 1 {
		kind = "cluster"
	}
	switch {
	case scheme == "unix" && kind == "" && len(hosts) == 1:
		return a.single(u)
	case scheme != "redis" && scheme != "rediss":
		return nil, fmt.Errorf("scheme %q is none of redis, rediss, unix, redis+sentinel, rediss+sentinel, redis+cluster, rediss+cluster", u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, errors.New("the URL names no host")
	}
	u.Scheme, u.RawQuery = scheme, q.Encode()
	switch kind {
	case "":
		return a.single(u)
	case "sentinel":
		if q.Get("master_name") == "" {
			return nil, errors.New("sentinels need ?master_name=")
		}
		return a.failover(u)
	case "cluster":
		if u.Path != "" && u.Path != "/" && u.Path != "/0" {
			return nil, fmt.Errorf("a cluster has only database 0, not %q", u.Path)
		}
		return a.cluster(u)
	}
	return nil, fmt.Errorf("scheme %q: %q is neither sentinel nor cluster", scheme+"+"+kind, kind)
}

// cutPassword reports whether what follows the scheme has an @ where none can be: behind
// the host, because a character of the password ends the host for whoever reads a URL. What
// comes behind that would be shown as a path or an option.
func cutPassword(rest string) bool {
	before, query, _ := strings.Cut(rest, "?")
	if strings.Contains(rest, "#") {
		return true
	}
	if host, path, ok := strings.Cut(before, "/"); ok && !strings.HasSuffix(host, ":") && strings.Contains(path, "@") && !strings.Contains(path, "://") {
		return true
	}
	for part := range strings.SplitSeq(query, "&") {
		if strings.Contains(part, "@") && !strings.Contains(part, "=") {
			return true
		}
	}
	return false
}

// split parses a URL whose host may be a list, or which may be a list of URLs of
// the same scheme. The URL returned has the first host only.
func split(urls string) (*url.URL, []string, error) {
	if urls == "" {
		return nil, nil, errors.New("the URL is empty")
	}
	scheme, rest, ok := strings.Cut(urls, "://")
	if !ok {
		return nil, nil, errors.New("not a URL such as redis://localhost:6379")
	}
	if scheme != "unix" && cutPassword(rest) {
		return nil, nil, errors.New("special characters in user and password are percent-encoded: / as %2F, ? as %3F, # as %23, @ as %40")
	}
	var hosts []string
	tail := ""
	parts := strings.Split(rest, ",")
	if scheme == "unix" {
		parts = []string{rest}
	}
	for i, p := range parts {
		if s, host, ok := strings.Cut(p, "://"); ok && i > 0 {
			if s != scheme {
				return nil, nil, fmt.Errorf("schemes differ: %q and %q", scheme, s)
			}
			p = host
		}
		host := p
		if at := strings.IndexAny(p, "/?"); at >= 0 {
			// The path and query of any one of the URLs hold for all.
			host = p[:at]
			if t := p[at:]; t != "/" && tail != "" && t != tail {
				return nil, nil, errors.New("path or query differ between the addresses")
			} else if t != "/" {
				tail = t
			}
		}
		if i > 0 {
			// There is one user for all, which the first address has.
			if j := strings.LastIndexByte(host, '@'); j >= 0 {
				if host[:j+1] != hosts[0][:strings.LastIndexByte(hosts[0], '@')+1] {
					return nil, nil, errors.New("user or password differ between the addresses: only the first needs them")
				}
				host = host[j+1:]
			}
			h, err := url.Parse("redis://" + host)
			if err != nil || h.Hostname() == "" {
				return nil, nil, fmt.Errorf("address %d is not host:port", i+1)
			}
			if host = h.Host; h.Port() == "" {
				host += ":6379"
			}
		}
		hosts = append(hosts, host)
	}
	if scheme == "unix" {
		hosts, tail = []string{""}, rest
	}
	u, err := url.Parse(scheme + "://" + hosts[0] + tail)
	if err != nil {
		// The error of url.Parse repeats the URL, password included.
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, nil, fmt.Errorf("not a URL such as redis://localhost:6379: %w", err)
	}
	return u, hosts, nil
}

func (a Access) single(u *url.URL) (redis.UniversalClient, error) {
	if a.Replicas {
		return nil, errors.New("replicas are those that sentinels or a cluster name: the setting names one server")
	}
	o, err := redis.ParseURL(u.String())
	if err != nil {
		return nil, plain(err)
	}
	o.CredentialsProviderContext = a.user()
	o.Dialer = a.dialer(o.TLSConfig, cmp.Or(o.DialTimeout, dialTimeout), false)
	return client(o), nil
}

// Inside makes a client of a server in this process, to which dial leads. Whoever asks
// for the client closes it.
func Inside(dial func(ctx context.Context, network, addr string) (net.Conn, error)) redis.UniversalClient {
	return client(&redis.Options{Addr: "inside", Dialer: dial}) // a name for the log; nothing resolves it
}

func client(o *redis.Options) redis.UniversalClient {
	o.MaxRetries, o.DialerRetries = -1, 1
	o.ContextTimeoutEnabled = true
	o.DialTimeout = cmp.Or(o.DialTimeout, dialTimeout)
	o.ReadTimeout = cmp.Or(o.ReadTimeout, ioTimeout)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, ioTimeout)
	o.PoolSize, o.Protocol = cmp.Or(o.PoolSize, poolSize), cmp.Or(o.Protocol, 2)
	o.OnConnect, o.ClientName = named(cmp.Or(o.ClientName, clientName)), ""
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	return redis.NewClient(o)
}

func (a Access) failover(u *url.URL) (redis.UniversalClient, error) {
	o, err := redis.ParseFailoverURL(u.String())
	if err != nil {
		return nil, plain(err)
	}
	o.MaxRetries, o.DialerRetries = -1, 1
	o.ContextTimeoutEnabled = true
	o.DialTimeout = cmp.Or(o.DialTimeout, dialTimeout)
	o.ReadTimeout = cmp.Or(o.ReadTimeout, ioTimeout)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, ioTimeout)
	o.PoolSize, o.Protocol = cmp.Or(o.PoolSize, poolSize), cmp.Or(o.Protocol, 2)
	o.OnConnect, o.ClientName = a.introduced(cmp.Or(o.ClientName, clientName)), ""
	o.CredentialsProviderContext = a.user()
	o.Dialer = a.dialer(o.TLSConfig, o.DialTimeout, true)
	o.DisableIdentity = true
	o.ReplicaOnly = a.Replicas
	return redis.NewFailoverClient(o), nil
}

func (a Access) cluster(u *url.URL) (redis.UniversalClient, error) {
	u.Path = ""
	o, err := redis.ParseClusterURL(u.String())
	if err != nil {
		return nil, plain(err)
	}
	// Redirections stay on: without them no answer of a node that has passed a
	// slot on would be followed.
	o.MaxRetries, o.DialerRetries = -1, 1
	o.ContextTimeoutEnabled = true
	o.DialTimeout = cmp.Or(o.DialTimeout, dialTimeout)
	o.ReadTimeout = cmp.Or(o.ReadTimeout, ioTimeout)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, ioTimeout)
	o.PoolSize, o.Protocol = cmp.Or(o.PoolSize, poolSize), cmp.Or(o.Protocol, 2)
	o.OnConnect, o.ClientName = named(cmp.Or(o.ClientName, clientName)), ""
	o.CredentialsProviderContext = a.user()
	o.Dialer = a.dialer(o.TLSConfig, o.DialTimeout, true)
	o.DisableIdentity = true
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	o.ReadOnly = a.Replicas
	return redis.NewClusterClient(o), nil
}

// named gives each new connection its name, for CLIENT LIST. A user that may not do that
// connects all the same, which it would not if go-redis did it.
func named(name string) func(context.Context, *redis.Conn) error {
	return func(ctx context.Context, c *redis.Conn) error {
		if err := c.ClientSetName(ctx, name).Err(); !answers(err) {
			return err
		}
		return nil
	}
}

// plain takes from an error of go-redis the name that Connect puts before all, and
// from one of url.Parse the URL.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return errors.New(strings.TrimPrefix(err.Error(), "redis: "))
}
