// Package jwks fetches the keys of issuers, in the background. Nobody who joins waits for it:
// it hands keys on when it has them, and what it has handed on counts for as long as the issuer
// cannot be reached.
package jwks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/internal/auth"
)

const (
	// Every is how often keys are fetched. Issuers announce new ones for a day or more before
	// they sign with them.
	Every = 5 * time.Minute
	// AskedEvery is how often they are fetched because a token names a key that is not there:
	// whoever sends nonsense must not have a node ask an issuer again and again.
	AskedEvery = time.Minute
	// firstRetry and longestRetry are how long to wait after a failure, twice as long each time.
	firstRetry   = time.Second
	longestRetry = time.Minute
	// patience is how long an issuer has for its answer.
	patience = 10 * time.Second
	// maxRedirects is how often an issuer may send elsewhere.
	maxRedirects = 3
)

// Config is what a Fetcher needs.
type Config struct {
	Issuer  string // for logs and metrics
	URL     string
	Keys    func([]auth.Key) error // takes keys, or says what is wrong with them
	Metrics *Metrics
	Logger  *slog.Logger

	every, askedEvery time.Duration // of tests; 0 for the above
}

// Fetcher fetches the keys of one issuer.
type Fetcher struct {
	cfg    Config
	client *http.Client
	asked  chan struct{}
	has    atomic.Bool
}

// Metrics counts what fetchers do.
type Metrics struct {
	fetches *prometheus.CounterVec
	last    *prometheus.GaugeVec
	keys    *prometheus.GaugeVec
}

// NewMetrics registers metrics.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kansei_auth_key_fetches_total", Help: "Times that the keys of an issuer were fetched, by result: ok or failed.",
		}, []string{"issuer", "result"}),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kansei_auth_keys_fetched_timestamp_seconds", Help: "When the keys of an issuer were fetched last, successfully; 0: never.",
		}, []string{"issuer"}),
		keys: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kansei_auth_keys", Help: "Keys of an issuer that were fetched and count.",
		}, []string{"issuer"}),
	}
	reg.MustRegister(m.fetches, m.last, m.keys)
	return m
}

// New makes a Fetcher, which does nothing before [Fetcher.Run].
func New(cfg Config) *Fetcher {
	if cfg.every == 0 {
		cfg.every = Every
	}
	if cfg.askedEvery == 0 {
		cfg.askedEvery = AskedEvery
	}
	for _, result := range []string{"ok", "failed"} {
		cfg.Metrics.fetches.WithLabelValues(cfg.Issuer, result)
	}
	cfg.Metrics.last.WithLabelValues(cfg.Issuer)
	cfg.Metrics.keys.WithLabelValues(cfg.Issuer)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = 64 << 10
	return &Fetcher{cfg: cfg, asked: make(chan struct{}, 1), client: &http.Client{
		Timeout: patience, Transport: transport,
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("it sends elsewhere again and again")
			}
			return Allowed(r.URL)
		},
	}}
}

// Allowed says whether keys may be fetched from an address: by https, or from this machine.
func Allowed(u *url.URL) error {
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback()) {
		return nil
	}
	return errors.New("it is not https: whoever is on the way could put other keys in its place")
}

// Ask has keys fetched soon, because a token names one that is not there. It never waits.
func (f *Fetcher) Ask() {
	select {
	case f.asked <- struct{}{}:
	default:
	}
}

// Ready says why tokens of the issuer cannot be checked; nil once its keys were fetched.
func (f *Fetcher) Ready() error {
	if !f.has.Load() {
		return fmt.Errorf("jwks: the keys of the issuer %s were not fetched yet from %s", f.cfg.Issuer, host(f.cfg.URL))
	}
	return nil
}

// Run fetches until ctx ends.
func (f *Fetcher) Run(ctx context.Context) {
	defer f.client.CloseIdleConnections()
	failures := 0
	var last time.Time // of the last fetch because of Ask
	for {
		wait := f.cfg.every
		if err := f.fetch(ctx); ctx.Err() != nil {
			return
		} else if err != nil {
			wait = min(firstRetry<<min(failures, 16), longestRetry, f.cfg.every)
			failures++
			f.cfg.Logger.Warn("the keys of an issuer could not be fetched; those that were fetched before count", "issuer", f.cfg.Issuer, "from", host(f.cfg.URL), "error", err, "again in", wait)
		} else {
			failures = 0
		}
		timer := time.NewTimer(wait/2 + rand.N(wait)) //nolint:gosec // nobody gains by guessing it
		asked := f.asked
		if failures > 0 {
			asked = nil // it comes soon anyhow
		}
		var later <-chan time.Time
	waiting:
		for {
			select {
			case <-ctx.Done():
				timer.Stop()
				return
			case <-timer.C:
				break waiting
			case <-later:
				break waiting
			case <-asked:
				asked = nil
				later = time.After(max(0, f.cfg.askedEvery-time.Since(last)))
			}
		}
		if later != nil {
			last = time.Now()
		}
		timer.Stop()
	}
}

// fetch fetches the keys once, and hands them on.
func (f *Fetcher) fetch(ctx context.Context) error {
	keys, err := f.get(ctx)
	if err == nil {
		err = f.cfg.Keys(keys)
	}
	if err != nil {
		f.cfg.Metrics.fetches.WithLabelValues(f.cfg.Issuer, "failed").Inc()
		return err
	}
	f.cfg.Metrics.fetches.WithLabelValues(f.cfg.Issuer, "ok").Inc()
	f.cfg.Metrics.last.WithLabelValues(f.cfg.Issuer).SetToCurrentTime()
	f.cfg.Metrics.keys.WithLabelValues(f.cfg.Issuer).Set(float64(len(keys)))
	f.has.Store(true)
	return nil
}

// get asks for the keys.
func (f *Fetcher) get(ctx context.Context) ([]auth.Key, error) { return Get(ctx, f.client, f.cfg.URL) }

// Get asks for the keys at an address. Its errors name the host alone.
func Get(ctx context.Context, client *http.Client, address string) ([]auth.Key, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, errors.New("its address is none")
	}
	if err := Allowed(req.URL); err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	answer, err := client.Do(req)
	if err != nil {
		return nil, plain(err)
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answers %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, auth.MaxKeyFile+1))
	if err != nil {
		return nil, plain(err)
	}
	return auth.ParseKeys(body)
}

// plain is an error without the address, which may have more in it than is to be logged.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return errors.New("it does not answer in time")
	}
	return err
}

// host is the part of an address that is shown.
func host(address string) string {
	if u, err := url.Parse(address); err == nil {
		return u.Host
	}
	return "?"
}
