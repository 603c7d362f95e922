package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Command is one run: its fields are the flags of "kansei load", tagged for kong.
type Command struct {
	URL        []string `name:"url" sep:"," placeholder:"URL" default:"http://127.0.0.1:8080" help:"Addresses of nodes, repeated or separated by commas; viewers are spread over them."`
	Room       string   `placeholder:"NAME" help:"The room; a fresh one by default."`
	AuthSecret string   `env:"KANSEI_AUTH_SECRET" placeholder:"SECRET" help:"The HS256 secret that the nodes have; without it everybody comes as a guest."`

	Viewers  int     `default:"100" help:"How many viewers."`
	JoinRate float64 `default:"500" placeholder:"N" help:"How many viewers come in a second."`
	UserIDs  string  `name:"user-ids" enum:"short,uuid" default:"short" help:"The form of all user ids, which everybody gets with the comments: short or uuid."`
	Compress bool    `help:"Viewers take deflated messages."`

	Trace      string        `placeholder:"FILE" help:"Play the comments of a trace: JSON lines with media_ms, text, position, size, color."`
	Speed      float64       `default:"1" help:"How many times faster than it was to play the trace."`
	Rate       float64       `default:"10" help:"Comments a second, made up, if there is no trace."`
	Duration   time.Duration `placeholder:"TIME" help:"How long to publish; by default the whole trace, or 30s."`
	Publishers int           `placeholder:"N" help:"How many broadcasters publish; by default as many as their limits need."`
	Settle     time.Duration `default:"15s" help:"How long viewers may take to receive the last comments."`
	Seed       uint64        `default:"1" help:"Of the made-up comments and user ids."`

	JSON  bool `name:"json" help:"Print the report as one JSON document."`
	Quiet bool `help:"Show no progress."`
}

const defaultDuration = 30 * time.Second

// ErrFailed says that a run came to its end and a check failed.
var ErrFailed = errors.New("loadtest: failed")

// Run makes the run: progress goes to stderr, the report to stdout. The end of
// ctx ends the publishing early, and the report covers what was published. The
// error wraps [ErrFailed] if a check failed.
func (c *Command) Run(ctx context.Context, stdout, stderr io.Writer) error {
	var d net.Dialer
	report, err := c.measure(ctx, stderr, d.DialContext)
	if err != nil {
		return err
	}
	if c.JSON {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		err = e.Encode(report)
	} else {
		_, err = io.WriteString(stdout, report.String())
	}
	if err != nil {
		return fmt.Errorf("loadtest: report: %w", err)
	}
	if failed := report.Failed(); len(failed) > 0 {
		return fmt.Errorf("%w: %s", ErrFailed, strings.Join(failed, ", "))
	}
	return nil
}

// dialFunc opens a connection to a node.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// check refuses what no run can be made of.
func (c *Command) check() error {
	if len(c.URL) == 0 {
		return errors.New("loadtest: url: at least one address of a node is needed")
	}
	for _, s := range c.URL {
		u, err := url.Parse(s)
		if err != nil {
			return fmt.Errorf("loadtest: url: %w", err)
		}
		if u.Host == "" {
			return fmt.Errorf("loadtest: url %q: want http://host:port", s)
		}
	}
	if c.Room != "" && !protocol.ValidRoom(c.Room) {
		return fmt.Errorf("loadtest: room %q: want letters, digits, - and _, at most %d", c.Room, protocol.MaxRoomName)
	}
	for _, f := range []struct {
		name string
		ok   bool
		got  any
		want string
	}{
		{"viewers", c.Viewers >= 1 && c.Viewers <= 1_000_000, c.Viewers, "1 to 1000000"},
		{"join-rate", c.JoinRate > 0, c.JoinRate, "more than 0"},
		{"speed", c.Speed > 0, c.Speed, "more than 0"},
		{"rate", c.Rate > 0, c.Rate, "more than 0"},
		{"duration", c.Duration >= 0, c.Duration, "0 or more"},
		{"publishers", c.Publishers >= 0 && c.Publishers <= 100_000, c.Publishers, "0 to 100000"},
		{"settle", c.Settle > 0, c.Settle, "more than 0"},
		{"user-ids", c.UserIDs == idsShort || c.UserIDs == idsUUID, c.UserIDs, idsShort + " or " + idsUUID},
	} {
		if !f.ok {
			return fmt.Errorf("loadtest: %s is %v, want %s", f.name, f.got, f.want)
		}
	}
	return nil
}

const (
	idsShort = "short"
	idsUUID  = "uuid"
)

// measure makes the run and reports on it.
func (c *Command) measure(ctx context.Context, stderr io.Writer, dial dialFunc) (*Report, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	p, err := c.plan()
	if err != nil {
		return nil, err
	}
	r := &run{
		cmd: c, plan: p, room: c.Room, tag: fmt.Sprintf("%08x", rand.Uint32()), check: newChecker(),
		http: newTransport(dial, c.Compress), rng: rand.New(rand.NewPCG(c.Seed, 2)), losses: newLosses(), latency: newLatencies(),
		stderr: stderr,
	}
	if c.Quiet {
		r.stderr = io.Discard
	}
	if r.room == "" {
		r.room = "load-" + r.tag
	}
	if err := RaiseFileLimit(c.Viewers + max(c.Publishers, 1)); err != nil {
		return nil, err
	}
	return r.execute(ctx)
}
