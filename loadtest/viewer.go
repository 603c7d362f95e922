package loadtest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/protocol"
)

// newTransport makes the HTTP transport of all connections. With metered, each of
// them is a meter, over TLS inside of it.
func newTransport(dial dialFunc, metered bool) *http.Transport {
	// An answer other than an upgrade must not leave a connection behind.
	t := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	if metered {
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &meter{Conn: conn}, nil
		}
		t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			host, _, err := net.SplitHostPort(address)
			if err != nil {
				host = address
			}
			secure := tls.Client(conn, &tls.Config{ServerName: host, NextProtos: []string{"http/1.1"}})
			if err := secure.HandshakeContext(ctx); err != nil {
				_ = conn.Close() // the handshake's error says more
				return nil, err
			}
			return &meter{Conn: secure}, nil
		}
	}
	return t
}

// viewer is one virtual viewer. Its fields belong to the goroutine of its client, but
// for dialled.
type viewer struct {
	run       *run
	track     *track
	begun     int64 // when it set out to join
	meter     *meter
	dialled   atomic.Pointer[meter] // of the connection that was made last, until its first message
	connected bool
	wasIn     bool
	lostAt    int64 // when the last message of the last connection came
}

// view keeps a viewer in the room until ctx ends.
func (r *run) view(ctx context.Context, number int, token string) {
	v := &viewer{run: r, track: r.check.viewer(), begun: r.check.now()}
	if r.cmd.Compress {
		// The connection that a request gets is told to the context of the request.
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) {
				m, _ := info.Conn.(*meter)
				v.dialled.Store(m)
			},
		})
	}
	err := r.keep(ctx, client.Config{
		URLs: r.addresses(number), Compress: r.cmd.Compress,
		Handler: client.Handler{
			Frame:        v.frame,
			Welcome:      v.welcome,
			NotRecovered: func(since string) { r.check.notRecovered(v.track, since) },
			Gap:          func(m *protocol.Gap) { r.check.gap(v.track, m) },
			Disconnected: v.disconnected,
		},
	}, token)
	if v.connected {
		r.watching.Add(-1)
	}
	if ctx.Err() == nil {
		r.losses.ended(err)
	}
}

// keep runs a client until ctx ends or it is not wanted back.
func (r *run) keep(ctx context.Context, cfg client.Config, token string) error {
	c, err := r.client(cfg, token)
	if err != nil {
		return err
	}
	return c.Run(ctx)
}

// client makes a client for the room of the run.
func (r *run) client(cfg client.Config, token string) (*client.Client, error) {
	cfg.Room, cfg.Buffers = r.room, &r.buffers
	cfg.HTTPClient = &http.Client{Transport: r.http}
	cfg.ConnectTimeout = connectPatience
	if token != "" {
		cfg.Token = client.StaticToken(token)
	}
	return client.New(cfg)
}

// connectPatience is long, so that an overloaded node shows as slow joins first.
const connectPatience = 20 * time.Second

// addresses are the nodes in the order in which the n-th client tries them.
func (r *run) addresses(n int) []string {
	urls := r.cmd.URL
	n %= len(urls)
	return slices.Concat(urls[n:], urls[:n])
}

func (v *viewer) frame(raw []byte) {
	at := v.run.check.now()
	wire := len(raw)
	if v.meter == nil {
		v.meter = v.dialled.Swap(nil)
	}
	if v.meter != nil {
		wire = v.meter.take()
	}
	v.run.check.frame(v.track, raw, wire, at)
}

func (v *viewer) welcome(w *protocol.Welcome) {
	at := v.run.check.now()
	v.run.watching.Add(1)
	v.connected = true
	v.run.check.welcomed(v.track, at, v.wasIn && w.Recovered)
	if v.wasIn {
		v.run.losses.back(time.Duration(at - v.lostAt))
		return
	}
	v.wasIn = true
	v.run.losses.joined(time.Duration(at - v.begun))
	v.run.joined.Add(1)
}

func (v *viewer) disconnected(err error, wait time.Duration) {
	if v.connected {
		v.connected = false
		v.run.watching.Add(-1)
		v.lostAt = v.run.check.seen(v.track)
	} else if v.wasIn || errors.Is(err, context.Canceled) {
		return // one loss, however many attempts it takes to come back
	}
	v.meter = nil
	if !errors.Is(err, context.Canceled) {
		v.run.losses.lost(err, v.wasIn)
	}
}

// seen is when the last message reached a viewer.
func (c *checker) seen(t *track) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.lastFrame
}

// losses counts how viewers came, went and came back.
type losses struct {
	mu       sync.Mutex
	join     *hdrhistogram.Histogram
	away     *hdrhistogram.Histogram // from the last message before to the welcome after
	returned int64
	refusals map[string]int64 // attempts to join that failed, by reason
	reasons  map[string]int64 // connections lost, by reason
	ends     map[string]int64 // viewers that were sent away for good, by reason
	last     error            // why an attempt failed
}

func newLosses() *losses {
	return &losses{
		join: newHistogram(), away: newHistogram(),
		refusals: make(map[string]int64), reasons: make(map[string]int64), ends: make(map[string]int64),
	}
}

func (l *losses) joined(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	record(l.join, d, 1)
}

func (l *losses) back(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	record(l.away, d, 1)
	l.returned++
}

func (l *losses) lost(err error, wasIn bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = err
	if wasIn {
		l.reasons[reason(err)]++
	} else {
		l.refusals[reason(err)]++
	}
}

func (l *losses) ended(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = err
	l.ends[reason(err)]++
}

func (l *losses) lastError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// counted is how many connections were lost, and how many viewers ended.
func (l *losses) counted() (lost, ended int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sum(l.reasons), sum(l.ends)
}

func sum(m map[string]int64) (n int64) {
	for v := range maps.Values(m) {
		n += v
	}
	return n
}

// reason names why a connection ended or was not made, in few words.
func reason(err error) string {
	if e, ok := errors.AsType[*client.CloseError](err); ok {
		return fmt.Sprintf("closed %d", e.Code)
	}
	if e, ok := errors.AsType[*client.RefusedError](err); ok {
		return fmt.Sprintf("refused %d", e.Status)
	}
	var op *net.OpError
	switch {
	case errors.Is(err, client.ErrSilent):
		return "silent"
	case errors.Is(err, client.ErrMoved):
		return "asked to reconnect"
	case errors.Is(err, client.ErrMessage), errors.Is(err, client.ErrSubprotocol):
		return "malformed"
	case errors.Is(err, client.ErrStaleToken):
		return "token"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.As(err, &op) && op.Op == "dial":
		return "unreachable"
	}
	return "cut off"
}

// audience counts who is there.
type audience struct {
	joined   atomic.Int64 // ever
	watching atomic.Int64 // now
}
