package reload

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// writePair writes a certificate and its key.
func writePair(t *testing.T, cert, key string, from, until time.Time) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: until, DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	put(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	put(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})))
}

// A certificate that should have been replaced is told of, once a day.
func TestCertificateThatEnds(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now := time.Now()
	for _, c := range []struct {
		name        string
		from, until time.Duration
		says        string
	}{
		{"has a month", -60 * day, 30 * day, ""},
		{"has six days of ninety", -84 * day, 6 * day, "level=WARN"},
		{"has five days of six", -day, 5 * day, ""},
		{"has one day of six", -5 * day, day, "level=WARN"},
		{"has ended", -90 * day, -time.Hour, "level=ERROR msg=\"the certificate has ended"},
		{"begins tomorrow", day, 90 * day, "level=ERROR msg=\"the certificate is not valid yet"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cert, key := filepath.Join(dir, "cert"), filepath.Join(dir, "key")
			writePair(t, cert, key, now.Add(c.from), now.Add(c.until))
			log, reg := new(journal), prometheus.NewRegistry()
			p := NewCertificate(cert, key, reg, slog.New(slog.NewTextHandler(log, nil)))
			load := func() {
				t.Helper()
				apply, err := p.Load()
				if err != nil {
					t.Fatal(err)
				}
				apply()
			}
			load()
			if got := testutil.ToFloat64(p.notAfter); got != float64(now.Add(c.until).Unix()) {
				t.Errorf("it ends at %v", got)
			}
			load() // the same one
			for range 5 {
				p.Watch(now.Add(time.Hour))
			}
			want := 0
			if c.says != "" {
				want = 1
			}
			if l := log.lines("level="); len(l) != want || want == 1 && (!strings.Contains(l[0], c.says) || !strings.Contains(l[0], cert) || !strings.Contains(l[0], "--tls-cert")) {
				t.Errorf("the log says %q, want %d with %s", l, want, c.says)
			}
			p.Watch(now.Add(25 * time.Hour))
			if l := log.lines("level="); c.says != "" && c.name != "begins tomorrow" && len(l) != 2 {
				t.Errorf("a day later the log says %q", l)
			}
			// Another one is another matter.
			writePair(t, cert, key, now.Add(-day), now.Add(90*day))
			load()
			if got := testutil.ToFloat64(p.notAfter); got != float64(now.Add(90*day).Unix()) {
				t.Errorf("the other one ends at %v", got)
			}
		})
	}
}

func TestCertificateRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	now := time.Now()
	writePair(t, path("cert"), path("key"), now, now.Add(time.Hour))
	writePair(t, path("other-cert"), path("other-key"), now, now.Add(time.Hour))
	put(t, path("broken"), "-----BEGIN CERTIFICATE-----\nx")
	writePair(t, path("open-cert"), path("open-key"), now, now.Add(time.Hour))
	if err := os.Chmod(path("open-key"), 0o602); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ cert, key, says string }{
		{"none", "key", "--tls-cert: open " + path("none")},
		{"cert", "none", "--tls-key: open " + path("none")},
		{"broken", "key", "--tls-cert, --tls-key: " + path("broken")},
		{"cert", "other-key", "--tls-cert, --tls-key: " + path("cert") + ", " + path("other-key")},
		{"key", "cert", "--tls-cert, --tls-key: "},
		{"open-cert", "open-key", "anybody may write it"},
	} {
		p := NewCertificate(path(c.cert), path(c.key), prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
		if _, err := p.Load(); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s and %s: %v, want %q", c.cert, c.key, err, c.says)
		}
	}
}
