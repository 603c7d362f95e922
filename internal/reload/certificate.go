package reload

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/kansei-live/kansei/internal/private"
)

const (
	// endsSoon is how long before the end of a certificate it should have been replaced. One
	// that holds for a few days alone has a quarter of its time.
	endsSoon = 7 * 24 * time.Hour
	// remind is how often it is told that it ends.
	remind = 24 * time.Hour
)

// Certificate is a [Source]: the certificate of a listener, and its key. Connections keep the
// one that they were made with.
type Certificate struct {
	cert, key string // files
	log       *slog.Logger
	notAfter  prometheus.Gauge
	pair      atomic.Pointer[tls.Certificate]
	reminded  time.Time // of the goroutine that loads and watches
}

var (
	_ Source  = (*Certificate)(nil)
	_ Watcher = (*Certificate)(nil)
)

// NewCertificate makes a Certificate out of the files of --tls-cert and --tls-key, which are
// read by Load.
func NewCertificate(cert, key string, reg prometheus.Registerer, log *slog.Logger) *Certificate {
	return &Certificate{cert: cert, key: key, log: log, notAfter: promauto.With(reg).NewGauge(prometheus.GaugeOpts{
		Name: "kansei_certificate_not_after_timestamp_seconds", Help: "When the certificate of the public listener ends, in Unix seconds.",
	})}
}

// Config is the configuration of a listener that shows the certificate, once it is loaded.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.pair.Load(), nil },
	}
}

// Files returns the two files.
func (c *Certificate) Files() []string { return []string{c.cert, c.key} }

// Load reads the certificate and the key, and checks that they fit each other.
func (c *Certificate) Load() (apply func(), err error) {
	cert, _, err := private.Read(c.cert, maxFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert: %w", err)
	}
	key, info, err := private.Read(c.key, maxFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-key: %w", err)
	}
	if private.Writable(info) {
		return nil, fmt.Errorf("--tls-key: %s: anybody may write it (mode %04o): run chmod o-w, and make sure that nobody has changed it", c.key, info.Mode().Perm())
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert, --tls-key: %s, %s: %w", c.cert, c.key, err)
	}
	if pair.Leaf == nil { // as with GODEBUG=x509keypairleaf=0
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("--tls-cert: %s: %w", c.cert, err)
		}
	}
	return func() {
		before := c.pair.Swap(&pair)
		c.notAfter.Set(float64(pair.Leaf.NotAfter.Unix()))
		if before == nil || !before.Leaf.Equal(pair.Leaf) {
			c.reminded = time.Time{}
		}
		c.Watch(time.Now())
	}, nil
}

// Watch warns, once a day, of a certificate that ends soon, or does not hold.
func (c *Certificate) Watch(now time.Time) {
	if now.Sub(c.reminded) < remind {
		return
	}
	leaf := c.pair.Load().Leaf
	left := leaf.NotAfter.Sub(now)
	attrs := []any{"flag", "--tls-cert", "file", c.cert, "from", leaf.NotBefore.UTC().Format(time.RFC3339), "until", leaf.NotAfter.UTC().Format(time.RFC3339)}
	switch {
	case left <= 0:
		c.log.Error("the certificate has ended, clients refuse it: put another one in its place, it is read when it changes", attrs...)
	case now.Before(leaf.NotBefore):
		c.log.Error("the certificate is not valid yet, clients refuse it: is the clock of this machine right?", attrs...)
	case left < min(endsSoon, leaf.NotAfter.Sub(leaf.NotBefore)/4):
		c.log.Warn("the certificate ends soon: put another one in its place, it is read when it changes", append(attrs, "left", left.Round(time.Minute))...)
	default:
		return
	}
	c.reminded = now
}
