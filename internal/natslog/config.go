package natslog

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/internal/redact"
)

// Config configures a [Log]. The zero value of a field is its default.
type Config struct {
	URLs    []string      // of the NATS servers; default nats://127.0.0.1:4222
	Options []nats.Option // applied after the log's own: credentials, TLS, a server in process
	Name    string        // of the connection, as NATS reports it; default kansei
	// NKey returns the public key of the node's user, which is asked for before every
	// attempt to connect; nil for what Options say.
	NKey   func() string
	Domain string // of JetStream, [A-Za-z0-9_-]+; default that of the server

	Prefix     string // of subjects; in capitals, of streams; [a-z0-9_-]{1,32}; default kansei
	Partitions int    // 1 to 256; default 1; every node must have the same
	Replicas   int    // of every stream, 1 to 5; default 1
	// NeverCreate has the log wait for a stream that is not there, instead of creating it.
	NeverCreate bool
	// MaxAge is how long events are kept; default 7 days, at least 1 second.
	MaxAge time.Duration
	// WatchAge is how long rows of the watch log are kept; default 30 days.
	WatchAge time.Duration
	// DayKeys has the log keep the keys under which addresses are hashed: see [Log.Origin].
	DayKeys bool
	// HistoryWindow is how old a room's last event may be for a first report to
	// hold recent events at all, and how old these may be; default 24 hours.
	HistoryWindow time.Duration

	AppendTimeout  time.Duration // until the outcome of an append is told; default 12 s
	RequestTimeout time.Duration // of one request, and of one try of an append; default 2 s
	// MaxPending bounds the appends in flight; default 8192, less than what a stream
	// takes in before it refuses.
	MaxPending int
	// LiveBuffer is how many live messages of one stream, of all its rooms together, may
	// be on their way to them, 16 to 1048576; default 8192. What is too much is dropped
	// and read back.
	LiveBuffer int

	Metrics *Metrics     // default: registered nowhere
	Logger  *slog.Logger // default: discards

	directGet string // what precedes the stream in the subject of direct gets: tests play replicas
}

const (
	maxPartitions = 256
	minLiveBuffer = 16
	maxLiveBuffer = 1 << 20
	// dedupeWindow is how long a stream remembers the ids of its drafts.
	dedupeWindow = 2 * time.Minute
)

// withDefaults returns the configuration complete, or says what in it can never
// work.
func (c Config) withDefaults() (Config, error) {
	if len(c.URLs) == 0 {
		c.URLs = []string{nats.DefaultURL}
	}
	setDefault(&c.Name, "kansei")
	setDefault(&c.Prefix, "kansei")
	setDefault(&c.Partitions, 1)
	setDefault(&c.Replicas, 1)
	setDefault(&c.MaxAge, 7*24*time.Hour)
	setDefault(&c.WatchAge, 30*24*time.Hour)
	setDefault(&c.HistoryWindow, 24*time.Hour)
	setDefault(&c.AppendTimeout, 12*time.Second)
	setDefault(&c.RequestTimeout, 2*time.Second)
	setDefault(&c.MaxPending, 8192)
	setDefault(&c.LiveBuffer, 8192)
	setDefault(&c.directGet, c.api()+"DIRECT.GET.")
	if c.Metrics == nil {
		c.Metrics = NewMetrics(prometheus.NewRegistry())
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}

	if len(c.Prefix) > 32 || strings.Trim(c.Prefix, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
		return c, fmt.Errorf("natslog: prefix %q: it must be [a-z0-9_-]{1,32}", c.Prefix)
	}
	if strings.ContainsAny(c.Domain, ".*> \t\r\n") {
		return c, fmt.Errorf("natslog: %q is not the name of a JetStream domain", c.Domain)
	}
	if c.Partitions < 1 || c.Partitions > maxPartitions {
		return c, fmt.Errorf("natslog: %d partitions: there must be 1 to %d", c.Partitions, maxPartitions)
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		return c, fmt.Errorf("natslog: %d replicas: there must be 1 to 5", c.Replicas)
	}
	if c.MaxAge < time.Second {
		return c, fmt.Errorf("natslog: a maximum age of %v: it must be at least 1s", c.MaxAge)
	}
	if c.HistoryWindow < 0 || c.AppendTimeout < 0 || c.RequestTimeout < 0 || c.MaxPending < 0 {
		return c, errors.New("natslog: windows, timeouts and limits must not be negative")
	}
	if c.LiveBuffer < minLiveBuffer || c.LiveBuffer > maxLiveBuffer {
		return c, fmt.Errorf("natslog: a live buffer of %d: it must be %d to %d", c.LiveBuffer, minLiveBuffer, maxLiveBuffer)
	}
	if most := min(dedupeWindow, c.MaxAge) / 2; c.AppendTimeout > most {
		return c, fmt.Errorf("natslog: an append timeout of %v: it must be at most %v with a maximum age of %v, or a late try would not be recognised",
			c.AppendTimeout, most, c.MaxAge)
	}
	for _, u := range c.URLs {
		if !strings.Contains(u, "://") {
			u = "nats://" + u
		}
		if p, err := url.Parse(strings.TrimSpace(u)); err != nil || p.Host == "" {
			return c, fmt.Errorf("natslog: %q is not the address of a NATS server; special characters in its user and password are percent-encoded", redact.URL(u))
		}
	}
	return c, nil
}

// api is what the subjects of the JetStream API begin with.
func (c *Config) api() string {
	if c.Domain == "" {
		return "$JS.API."
	}
	return "$JS." + c.Domain + ".API."
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}
