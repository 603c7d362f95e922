package credentials

import (
	"crypto/tls"
	"crypto/x509"
	"sync/atomic"

	"github.com/kansei-live/kansei/internal/config"
)

// Redis is as whom a node connects to Redis and to its sentinels.
type Redis struct {
	access config.RedisAccess
	now    atomic.Pointer[redisValues]
}

// redisValues are the values of one reading.
type redisValues struct {
	password string
	sentinel string // its password
	tls      identity
}

// NewRedis returns the source of what access says, which has been validated, with all files
// read.
func NewRedis(access config.RedisAccess) (*Redis, error) {
	r := &Redis{access: access}
	apply, err := r.Load()
	if err != nil {
		return nil, err
	}
	apply()
	return r, nil
}

// Files returns the files that Load reads.
func (r *Redis) Files() []string {
	a := &r.access
	return named(a.RedisPasswordFile, a.RedisSentinelPasswordFile, a.RedisCA, a.RedisCert, a.RedisKey)
}

// Load reads and checks all files. It changes nothing until apply is called.
func (r *Redis) Load() (apply func(), err error) {
	a, v := &r.access, new(redisValues)
	if v.password, err = readSecret("redis-password", a.RedisPassword, a.RedisPasswordFile); err != nil {
		return nil, err
	}
	if v.sentinel, err = readSecret("redis-sentinel-password", a.RedisSentinelPassword, a.RedisSentinelPasswordFile); err != nil {
		return nil, err
	}
	if v.tls, err = readIdentity("redis", a.RedisCA, a.RedisCert, a.RedisKey); err != nil {
		return nil, err
	}
	return func() { r.now.Store(v) }, nil
}

// User returns the user, which may be empty, and the password of the moment; nil when there
// is none but what the URL may have.
func (r *Redis) User() func() (user, password string) {
	if r.access.RedisPassword == "" && r.access.RedisPasswordFile == "" {
		return nil
	}
	return func() (string, string) { return r.access.RedisUser, r.now.Load().password }
}

// Sentinel returns the same for the sentinels.
func (r *Redis) Sentinel() func() (user, password string) {
	if r.access.RedisSentinelPassword == "" && r.access.RedisSentinelPasswordFile == "" {
		return nil
	}
	return func() (string, string) { return r.access.RedisSentinelUser, r.now.Load().sentinel }
}

// TLS returns the authorities of the moment, nil for the machine's, and the certificate to
// show, nil for none.
func (r *Redis) TLS() (*x509.CertPool, *tls.Certificate) {
	v := r.now.Load()
	return v.tls.roots, v.tls.cert
}
