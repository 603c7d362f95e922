package redispresence

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Access is as whom a client connects and whom it believes, where the setting "redis" does
// not say. Each function is called for every connection that is made, so that what it returns
// may change; nil for none.
type Access struct {
	User     func() (user, password string) // of Redis; the user may be empty
	Sentinel func() (user, password string) // of sentinels; the user may be empty
	// TLS returns the authorities that sign the servers' certificates, nil for the machine's,
	// and the certificate to show to them, nil for none. It does not by itself make a
	// connection one with TLS.
	TLS func() (*x509.CertPool, *tls.Certificate)
	// Replicas has the client read from replicas, and write nothing. Sentinels or a cluster
	// name them.
	Replicas bool
}

// user is User as go-redis wants it; nil when there is none.
func (a Access) user() func(context.Context) (string, string, error) {
	if a.User == nil {
		return nil
	}
	return func(context.Context) (string, string, error) {
		user, password := a.User()
		return user, password, nil
	}
}

// errSentinel says that a sentinel has refused a user or a password.
var errSentinel = errors.New("sentinel")

// introduced is [named] for a client that uses sentinels, which are told who connects, too:
// go-redis itself asks for the password of a sentinel only once, for all connections.
func (a Access) introduced(name string) func(context.Context, *redis.Conn) error {
	return func(ctx context.Context, c *redis.Conn) error {
		if !toSentinel(c) {
			return named(name)(ctx, c)
		}
		if a.Sentinel != nil {
			user, password := a.Sentinel()
			err := authenticate(ctx, c, user, password)
			if answers(err) {
				return fmt.Errorf("%w: %w", errSentinel, err)
			}
			if err != nil {
				return err
			}
		}
		err := c.ClientSetName(ctx, name).Err()
		if code(err) == "NOAUTH" {
			return fmt.Errorf("%w: %w", errSentinel, err)
		}
		if answers(err) { // as a user that may not do that
			return nil
		}
		return err
	}
}

func authenticate(ctx context.Context, c *redis.Conn, user, password string) error {
	if user == "" {
		return c.Auth(ctx, password).Err()
	}
	return c.AuthACL(ctx, user, password).Err()
}

// toSentinel reports whether a connection of a client that uses sentinels is to one of them.
// Those to the server have a name in the place of an address, which go-redis gives them
// before it knows one.
func toSentinel(c *redis.Conn) bool { return !strings.HasPrefix(c.String(), "Redis<FailoverClient ") }

// dialer returns how a client dials with TLS; nil where it does without, as go-redis does by
// itself. base is what the setting says, with the name of its first host. That a server has
// another name is right where there are several, which tell each other's addresses.
func (a Access) dialer(base *tls.Config, timeout time.Duration, several bool) func(context.Context, string, string) (net.Conn, error) {
	if base == nil {
		return nil
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		conf := base.Clone()
		conf.MinVersion = tls.VersionTLS12
		if a.TLS != nil {
			roots, cert := a.TLS()
			conf.RootCAs = roots
			if cert != nil {
				// Shown to every server, so that one that does not know it can say so.
				conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
			}
		}
		if host, _, err := net.SplitHostPort(address); several && err == nil && host != base.ServerName && !conf.InsecureSkipVerify {
			conf.ServerName = host
			conf.InsecureSkipVerify = true // for VerifyConnection, which does all that is left out
			conf.VerifyConnection = func(s tls.ConnectionState) error { return verify(s, conf.RootCAs, host, base.ServerName) }
		}
		return (&tls.Dialer{NetDialer: &net.Dialer{KeepAlive: keepAlive}, Config: conf}).DialContext(ctx, network, address)
	}
}

// keepAlive is how often the kernel looks whether a silent connection is still there.
const keepAlive = 30 * time.Second

// verify checks the certificates of a server as crypto/tls does, but for the name: one of
// several is enough.
func verify(s tls.ConnectionState, roots *x509.CertPool, names ...string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the server shows no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
	for _, c := range s.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	leaf := s.PeerCertificates[0]
	_, err := leaf.Verify(o)
	if err == nil {
		for _, name := range names {
			if err = leaf.VerifyHostname(name); err == nil {
				return nil
			}
		}
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: s.PeerCertificates, Err: err}
}
