package natsconn

import (
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// outageEvery is how often one of the attempts to connect that fail is logged while there
// is no connection. There are several a second, and each may tell another server, address
// or port. The first server that does not let the node's user in is told besides.
const outageEvery = time.Minute

// outage is a time without a connection, and what the log was told of it: one line when it
// begins, one a minute while it lasts, one when it is over.
type outage struct {
	mu     sync.Mutex
	since  time.Time // zero while there is none
	told   time.Time // the last line; zero before the first
	barred bool      // that a server does not let this node's user in was told
	tries  int       // attempts that have failed since since
	lost   int       // connections that were lost, ever
}

// begin is told that a connection was lost.
func (o *outage) begin(now time.Time) (key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.since, o.told, o.tries, o.barred = now, now, 0, false
	o.lost++
	return strconv.Itoa(o.lost)
}

// failed is told of an attempt that has failed, and reports whether a line is due. The
// first attempts of all are those of a node that starts.
func (o *outage) failed(now time.Time, refused bool) (due bool, lasts time.Duration, tries int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		o.since = now
	}
	o.tries++
	if news := refused && !o.barred; !news && !o.told.IsZero() && now.Sub(o.told) < outageEvery {
		return false, 0, 0
	}
	o.told, o.barred = now, refused || o.barred
	return true, now.Sub(o.since), o.tries
}

// end is told that there is a connection.
func (o *outage) end(now time.Time) (key string, lasted time.Duration, tries int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.since.IsZero() {
		lasted = now.Sub(o.since)
	}
	tries = o.tries
	o.since, o.told, o.tries, o.barred = time.Time{}, time.Time{}, 0, false
	return strconv.Itoa(o.lost), lasted, tries
}

// The lines of a connection that comes and goes are limited like those that clients cause.

func (c *Conn) logLost(err error) {
	key := c.outage.begin(time.Now())
	if err == nil {
		c.quiet.Log(slog.LevelInfo, "the node makes its connection to NATS anew", key)
		return
	}
	args := []any{"error", err}
	if server := c.server.Load(); server != nil {
		args = append(args, "server", *server)
	}
	c.quiet.Log(slog.LevelWarn, "the connection to NATS is lost: comments are neither taken nor shown until it is back; viewers stay",
		key, args...)
}

func (c *Conn) logFailed(err error) {
	due, lasts, tries := c.outage.failed(time.Now(), refusedUser(err))
	if !due {
		return
	}
	if r := c.noEntry.Load(); r != nil && time.Since(r.at) < refusalCounts {
		err = r.err
	}
	c.log.Warn("NATS cannot be reached: comments are neither taken nor shown until it can; viewers stay; "+remedy(err),
		"servers", c.servers(), "error", err, "for", lasts.Round(time.Second), "attempts", tries)
}

func (c *Conn) logBack(server string) {
	key, lasted, tries := c.outage.end(time.Now())
	args := []any{"server", server}
	if tries > 0 || lasted > 0 {
		args = append(args, "after", lasted.Round(time.Millisecond), "attempts", tries)
	}
	c.quiet.Log(slog.LevelInfo, "connected to NATS", key, args...)
}

// refused is the refusal of a server to let this node in, as whom it says it is.
type refused struct {
	err error
	at  time.Time
}

// refusalCounts is how long such a refusal is told before what other servers do: it takes
// somebody to change something, where they may just be starting.
const refusalCounts = 10 * time.Second

// whyNot is why there is no connection; nil when nobody knows yet.
func (c *Conn) whyNot() error {
	if r := c.noEntry.Load(); r != nil && time.Since(r.at) < refusalCounts {
		return r.err
	}
	// What goes wrong between the connection and the first word of the server, as with
	// certificates, is told nowhere else.
	if nc := c.nc.Load(); nc != nil {
		if err := c.secrets.Error(nc.LastError()); err != nil {
			return err
		}
	}
	if err := c.lastErr.Load(); err != nil {
		return *err
	}
	return nil
}

// remedy is what to look at first when a connection is refused.
func remedy(err error) string {
	if refusedUser(err) {
		return "the servers refuse this node's user: look at its token, password or credentials, and at the servers' users"
	}
	return "look whether the servers of --nats run, and whether this machine reaches them"
}

// refusedUser reports whether a server has refused to let this node in, as whom it says it is.
func refusedUser(err error) bool {
	for _, known := range []error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
	} {
		if errors.Is(err, known) {
			return true
		}
	}
	return false
}
