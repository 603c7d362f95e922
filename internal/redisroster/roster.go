package redisroster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/hub"
)

// Bounds and defaults of a [Config].
const (
	DefaultPrefix   = "kansei"
	DefaultBuckets  = 64
	MaxBuckets      = 1024
	DefaultInterval = time.Second
	DefaultLease    = 6 * time.Second
	DefaultTimeout  = time.Second
)

const (
	workers  = 4                // goroutines for buckets that answer; a script takes a fraction of a millisecond
	nurses   = 2                // goroutines for buckets that do not
	linger   = 10               // intervals without a room before a node leaves a bucket
	sweeping = -1               // stands for the sweep where buckets are numbered
	quiet    = 10 * time.Second // between two log lines about resyncs
)

// Config says how a [Roster] works. Fields left at zero have the default.
type Config struct {
	// Client is used by the roster and closed by whoever made it, after the
	// roster. It must not retry by itself; [Connect] makes such a client.
	Client redis.UniversalClient

	// Prefix begins the name of every key. Prefix and Buckets must be the same on
	// all nodes.
	Prefix  string
	Buckets int // 1 to MaxBuckets

	Interval time.Duration // between two ticks of a bucket and two reports of a room
	Lease    time.Duration // how long a silent node's viewers count; at least three intervals
	Timeout  time.Duration // of one request

	Metrics *Metrics
	Logger  *slog.Logger
}

// Roster is a [hub.Roster] on Redis.
type Roster struct {
	cfg     Config
	metrics *Metrics
	log     *slog.Logger
	scripts scripts
	now     func() time.Time
	began   time.Time
	id      string // of this life of the node
	incs    atomic.Uint64
	buckets []*bucket

	due, sick chan *bucket // buckets whose round is due; sick: the last one failed
	cancel    context.CancelFunc
	done      chan struct{} // closed when all goroutines have ended
	closing   atomic.Bool
	answered  atomic.Bool // Redis has answered once

	guard  guard
	health struct {
		sync.Mutex
		failing  map[int]error // by bucket
		told     bool          // up was logged
		up       bool
		resynced time.Time // when a resync was last logged
	}
}

var _ hub.Roster = (*Roster)(nil)

// New returns a roster that begins to work at once. It does not wait for Redis;
// [Roster.Ready] reports whether it can be relied on. It works until [Roster.Close].
func New(cfg Config) *Roster {
	r := newRoster(cfg)
	// The roster must outlive the context that a signal ends: viewers leave while
	// the node drains. Close ends this one.
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	var wg sync.WaitGroup
	// All end with ctx, at the latest when the request under way has timed out.
	for range min(workers, len(r.buckets)) {
		wg.Go(func() { r.work(ctx, r.due) })
	}
	for range min(nurses, len(r.buckets)) {
		wg.Go(func() { r.work(ctx, r.sick) })
	}
	wg.Go(func() { r.sweep(ctx) })
	// Ends after the others; Close waits for it.
	go func() {
		wg.Wait()
		close(r.done)
	}()
	return r
}

// newRoster makes a roster whose rounds nobody does.
func newRoster(cfg Config) *Roster {
	if cfg.Prefix == "" {
		cfg.Prefix = DefaultPrefix
	}
	if cfg.Buckets <= 0 {
		cfg.Buckets = DefaultBuckets
	}
	cfg.Buckets = min(cfg.Buckets, MaxBuckets)
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Lease <= 0 {
		cfg.Lease = DefaultLease
	}
	cfg.Lease = max(cfg.Lease, 3*cfg.Interval)
	if cfg.Timeout <= 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Roster{
		cfg:     cfg,
		metrics: cfg.Metrics,
		log:     cfg.Logger,
		scripts: newScripts(),
		now:     time.Now,
		began:   time.Now(),
		id:      strings.ToLower(rand.Text()[:13]), // 65 random bits
		due:     make(chan *bucket, cfg.Buckets),
		sick:    make(chan *bucket, cfg.Buckets),
		done:    make(chan struct{}),
		buckets: make([]*bucket, cfg.Buckets),
	}
	r.health.failing = make(map[int]error)
	for i := range r.buckets {
		r.buckets[i] = &bucket{r: r, n: i, keys: newKeys(cfg.Prefix, i), rooms: make(map[string]*room)}
	}
	return r
}

// bucketOf returns the bucket of a room, the same on all nodes.
func (r *Roster) bucketOf(room string) *bucket {
	h := fnv.New32a()
	_, _ = h.Write([]byte(room)) // never fails
	return r.buckets[h.Sum32()%uint32(len(r.buckets))]
}

var (
	errNoAnswer = errors.New("redis: no answer yet")
	errNotAsked = errors.New("redis did not answer before")
)

// Ready returns nil when Redis answers for every bucket that this node uses and can be
// relied on, and otherwise what is wrong. One failed request is not yet wrong.
func (r *Roster) Ready() error {
	r.guard.mu.Lock()
	pin, policy := r.guard.pin, r.guard.policy
	r.guard.mu.Unlock()
	if pin != nil {
		return pin
	}
	r.health.Lock()
	defer r.health.Unlock()
	for n, err := range r.health.failing {
		if n == sweeping {
			return fmt.Errorf("redis: %w", err)
		}
		return fmt.Errorf("redis: presence bucket %d (%d of %d failing): %w", n, len(r.health.failing), len(r.buckets), err)
	}
	if !r.answered.Load() {
		return errNoAnswer
	}
	return policy
}

// note takes in how a round of a bucket, or a sweep, went: how many have failed in
// a row, and the last one's error.
func (r *Roster) note(n, fails int, err error) {
	h := &r.health
	h.Lock()
	defer h.Unlock()
	answered := r.answered.Load()
	switch {
	case err == nil:
		delete(h.failing, n)
	case fails > 1 || !answered:
		h.failing[n] = err
	}
	up := answered && len(h.failing) == 0
	if up == h.up && (h.told || err == nil) {
		return
	}
	h.up, h.told = up, true
	if up {
		r.metrics.up.Set(1)
		r.log.Info("redis answers")
		return
	}
	r.metrics.up.Set(0)
	switch {
	case isFull(err):
		r.log.Warn("redis is at maxmemory; who leaves is taken out, who comes waits", "error", err)
	case answers(err):
		r.log.Warn("redis answers with an error; counts stand still", "error", err)
	case errors.Is(err, errPinned):
		r.log.Warn("presence is not written; counts stand still", "error", err)
	default:
		r.log.Warn("redis does not answer; counts stand still", "error", err)
	}
}

// resynced counts and, not too often, logs that presence is written anew.
func (r *Roster) resynced(bucket int, reason string) {
	r.metrics.resyncs.WithLabelValues(reason).Inc()
	r.health.Lock()
	defer r.health.Unlock()
	if now := r.now(); now.Sub(r.health.resynced) >= quiet {
		r.health.resynced = now
		r.log.Warn("presence is written to redis anew", "reason", reason, "bucket", bucket)
	}
}

// Close hands this node's presence back, so that its viewers stop to count at
// once, and ends the roster's goroutines. Where that fails or ctx ends before, they
// stop to count when the lease lapses. Memberships may be used until then and
// after, without effect.
func (r *Roster) Close(ctx context.Context) error {
	if r.closing.Swap(true) {
		return nil
	}
	r.stop()
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("redis: presence is not handed back: %w", context.Cause(ctx))
	}
	return r.handBack(ctx)
}

// stop ends the goroutines and leaves what is in Redis as it is.
func (r *Roster) stop() {
	r.cancel()
	for _, b := range r.buckets {
		b.mu.Lock()
		b.closed = true
		if b.timer != nil {
			b.timer.Stop()
		}
		b.mu.Unlock()
	}
}

// handBack retires what this node has in Redis.
func (r *Roster) handBack(ctx context.Context) error {
	queue := make(chan *bucket, len(r.buckets))
	for _, b := range r.buckets {
		queue <- b
	}
	close(queue)
	var mu sync.Mutex
	var failed int
	var last error
	var wg sync.WaitGroup
	for range workers + nurses { // each ends when the queue is empty; every request has a deadline
		wg.Go(func() {
			for b := range queue {
				if err := b.handBack(ctx); err != nil {
					mu.Lock()
					failed, last = failed+1, err
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if failed > 0 {
		return fmt.Errorf("redis: presence in %d of %d buckets is not handed back: %w", failed, len(r.buckets), last)
	}
	return nil
}

func (b *bucket) handBack(ctx context.Context) error {
	switch {
	case b.inc == "":
		return nil
	case b.fails > 1 && b.silent:
		return errNotAsked
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return b.retire(ctx)
}
