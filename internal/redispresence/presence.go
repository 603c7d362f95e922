package redispresence

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/health"
)

// Bounds and defaults of a [Config].
const (
	DefaultPrefix   = "kansei"
	DefaultBuckets  = 64
	MaxBuckets      = 1024
	DefaultInterval = time.Second
	DefaultLease    = 6 * time.Second
	DefaultTimeout  = time.Second

	DefaultLeaveWait     = 10 * time.Second
	DefaultFirstSeen     = 100_000
	DefaultKeepSeen      = 30 * 24 * time.Hour
	DefaultDistinctExact = 10_000
)

const (
	workers      = 4           // goroutines for buckets that answer; a script takes a fraction of a millisecond
	retryWorkers = 2           // goroutines for buckets that do not
	linger       = 10          // intervals without a room before a node leaves a bucket
	settle       = 10          // intervals in which a node that is ready meets what is wrong at its start
	quiet        = time.Minute // between two log lines about resyncs
)

// What is no bucket, where buckets are numbered.
const (
	sweeping  = -1 // the sweep
	recording = -2 // the record of the node
)

// Config says how a [Presence] works. Fields left at zero have the default.
type Config struct {
	// Client is used by the presence and closed by its maker, after the
	// presence. It must not retry by itself; [Connect] makes such a client.
	Client redis.UniversalClient

	// Reads, if set, reads the lists of members: a client of replicas, which may be behind.
	// What they lack is read from Client.
	Reads redis.UniversalClient

	// Prefix begins the name of every key. Prefix and Buckets must be the same on
	// all nodes.
	Prefix  string
	Buckets int // 1 to MaxBuckets

	Interval time.Duration // between two ticks of a bucket and two reports of a room
	Lease    time.Duration // how long a silent node's viewers count; at least three intervals
	Timeout  time.Duration // of one request

	// Publish gives a batch of joins and leaves of a room to back ends: once, by its id. An
	// error has it called again later. nil: nobody is told, and nothing is kept for it.
	Publish func(ctx context.Context, room, id string, body []byte) error
	// LeaveWait is how long a user has been away when back ends are told; 10 s by default, none
	// when negative.
	LeaveWait time.Duration
	// FirstSeen is of how many users of a room it is kept when they were first seen there: of
	// half as many at least; 100,000 by default, none when negative. It is kept for KeepSeen
	// after the last of them came; 30 days by default.
	FirstSeen int
	KeepSeen  time.Duration
	// LogBegan is since when the room log is kept; the zero time when that is not known. When
	// presence is younger than the log it has lost what was before, and nobody is new.
	LogBegan func() time.Time
	// DistinctExact is how many distinct users of a broadcast are counted one by one; 10,000
	// by default. More are estimated.
	DistinctExact int

	// Pins are what all nodes must agree about; see [Presence.SetPins].
	Pins []Pin
	// Tell returns what other nodes are to know of this one, without blanks, and whether this
	// one asks for what they tell: see [Presence.Others]. It is called once an interval and
	// must not wait. nil: nothing.
	Tell func() (text string, ask bool)

	Metrics *Metrics
	Logger  *slog.Logger
}

// Presence is a [hub.Presence] on Redis.
type Presence struct {
	cfg     Config
	metrics *Metrics
	log     *slog.Logger
	scripts scripts
	now     func() time.Time
	began   time.Time
	id      string // of this life of the node
	incs    atomic.Uint64
	ahead   atomic.Int64 // how far Redis's clock is ahead of this node's, milliseconds
	buckets []*bucket

	due, sick chan *bucket // buckets whose flush is due; sick: the last one failed
	feeds     chan *bucket // buckets whose feed this node is to publish
	cancel    context.CancelFunc
	done      chan struct{} // closed when all goroutines have ended
	closing   atomic.Bool
	answered  atomic.Bool // Redis has answered once
	guard     guard
	nodes     nodes
	health    struct {
		sync.Mutex
		failing  map[int]error // by bucket
		told     bool          // that Redis answers was logged
		fine     bool          // the presence was ready for a while
		well     time.Time     // since when it is; zero: it is not
		resynced time.Time     // when a resync was last logged
		leftOut  int           // resyncs since
	}
}

var _ hub.Presence = (*Presence)(nil)

// New returns a presence that begins to work at once. It does not wait for Redis;
// [Presence.Ready] reports whether it can be relied on. It works until [Presence.Close].
func New(cfg Config) *Presence {
	r := newPresence(cfg)
	// The presence must outlive the context that a signal ends: viewers leave while
	// the node drains. Close ends this one.
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	var wg sync.WaitGroup
	// All end with ctx, at the latest when the request under way has timed out.
	for range min(workers, len(r.buckets)) {
		wg.Go(func() { r.work(ctx, r.due) })
	}
	for range min(retryWorkers, len(r.buckets)) {
		wg.Go(func() { r.work(ctx, r.sick) })
	}
	wg.Go(func() { r.sweep(ctx) })
	wg.Go(func() { r.attend(ctx) })
	wg.Go(func() { r.publish(ctx) })
	// Ends after the others; Close waits for it.
	go func() {
		wg.Wait()
		close(r.done)
	}()
	return r
}

// newPresence makes a Presence without its goroutines.
func newPresence(cfg Config) *Presence {
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
	if cfg.LeaveWait == 0 {
		cfg.LeaveWait = DefaultLeaveWait
	}
	cfg.LeaveWait = max(cfg.LeaveWait, 0)
	if cfg.FirstSeen == 0 {
		cfg.FirstSeen = DefaultFirstSeen
	}
	if cfg.KeepSeen <= 0 {
		cfg.KeepSeen = DefaultKeepSeen
	}
	if cfg.DistinctExact <= 0 {
		cfg.DistinctExact = DefaultDistinctExact
	}
	if cfg.LogBegan == nil {
		cfg.LogBegan = func() time.Time { return time.Time{} }
	}
	if cfg.Tell == nil {
		cfg.Tell = func() (string, bool) { return "", false }
	}
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Presence{
		cfg:     cfg,
		metrics: cfg.Metrics,
		log:     cfg.Logger,
		scripts: newScripts(),
		now:     time.Now,
		began:   time.Now(),
		id:      strings.ToLower(rand.Text()[:13]), // 65 random bits
		due:     make(chan *bucket, cfg.Buckets),
		sick:    make(chan *bucket, cfg.Buckets),
		feeds:   make(chan *bucket, cfg.Buckets),
		done:    make(chan struct{}),
		buckets: make([]*bucket, cfg.Buckets),
	}
	r.health.failing = make(map[int]error)
	r.nodes.pins = pinText(cfg.Pins)
	for i := range r.buckets {
		r.buckets[i] = &bucket{r: r, n: i, keys: newKeys(cfg.Prefix, i), rooms: make(map[string]*room)}
	}
	return r
}

// bucketOf returns the bucket of a room, the same on all nodes.
func (r *Presence) bucketOf(room string) *bucket {
	h := fnv.New32a()
	_, _ = h.Write([]byte(room)) // never fails
	return r.buckets[h.Sum32()%uint32(len(r.buckets))]
}

// clock is Redis's time, as far as this node knows it, in Unix milliseconds.
func (r *Presence) clock() int64 { return r.now().UnixMilli() + r.ahead.Load() }

var (
	errNoAnswer = errors.New("redis: no answer yet")
	errNotAsked = errors.New("redis did not answer before")
)

// Ready returns nil when Redis answers for every bucket that this node uses and can be relied
// on, and otherwise what is wrong: [health.Degraded] unless it is a mistake in the settings that
// this node has met since it started. One failed request is not yet wrong.
func (r *Presence) Ready() error {
	err := r.trouble()
	h, now := &r.health, r.now()
	h.Lock()
	defer h.Unlock()
	if err == nil {
		if h.well.IsZero() {
			h.well = now
		}
		h.fine = h.fine || now.Sub(h.well) >= settle*r.cfg.Interval
		return nil
	}
	h.well = time.Time{}
	// What was right once is wrong for all nodes now, and what nobody answers is no mistake
	// of this one.
	if h.fine || passes(err) {
		return health.Degraded(err)
	}
	return err
}

func (r *Presence) trouble() error {
	r.guard.mu.Lock()
	pin, policy, told := r.guard.pin, r.guard.policy, r.guard.told
	r.guard.mu.Unlock()
	if pin != nil {
		return pin
	}
	agreed := r.agrees()
	if errors.Is(agreed, errDiffers) {
		return agreed
	}
	r.health.Lock()
	defer r.health.Unlock()
	if n := len(r.health.failing); n > 0 {
		first := slices.Min(slices.Collect(maps.Keys(r.health.failing)))
		err := r.health.failing[first]
		if first < 0 {
			return fmt.Errorf("redis: %w", err)
		}
		return fmt.Errorf("redis: presence bucket %d (%d of %d failing): %w", first, n, len(r.buckets), err)
	}
	switch {
	case policy != nil:
		return policy
	case !told || agreed != nil:
		return errNoAnswer
	}
	return nil
}

// note takes in how a flush of a bucket, a sweep or a record went: how many have failed in
// a row, and the last one's error.
func (r *Presence) note(n, fails int, err error) {
	h := &r.health
	h.Lock()
	defer h.Unlock()
	answered := r.answered.Load()
	switch {
	case err == nil:
		delete(h.failing, n)
	case fails > 1 || !answered:
		h.failing[n] = explain(err)
	}
	if !answered || len(h.failing) > 0 {
		r.metrics.up.Set(0)
		return
	}
	r.metrics.up.Set(1)
	if !h.told { // later changes are logged by whoever asks Ready
		h.told = true
		r.log.Info("redis answers")
	}
}

// resynced counts and, not too often, logs that presence is written anew.
func (r *Presence) resynced(bucket int, reason string) {
	r.metrics.resyncs.WithLabelValues(reason).Inc()
	h := &r.health
	h.Lock()
	defer h.Unlock()
	now := r.now()
	if now.Sub(h.resynced) < quiet {
		h.leftOut++
		return
	}
	h.resynced = now
	r.log.Warn("presence is written to redis anew; counts may be wrong for some seconds",
		"reason", reason, "cause", resyncCause[reason], "bucket", bucket, "left_out", h.leftOut)
	h.leftOut = 0
}

// Close hands this node's presence back, so that its viewers stop to count at
// once, and ends the presence's goroutines. Where that fails or ctx ends before, they
// stop to count when the lease lapses. Memberships may be used until then and
// after, without effect.
func (r *Presence) Close(ctx context.Context) error {
	if r.closing.Swap(true) {
		return nil
	}
	r.stop()
	select {
	case <-r.done:
	case <-ctx.Done():
		return fmt.Errorf("redis: presence is not handed back, and lapses after --presence-lease: %w", context.Cause(ctx))
	}
	return r.handBack(ctx)
}

// stop ends the goroutines and leaves what is in Redis as it is.
func (r *Presence) stop() {
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
func (r *Presence) handBack(ctx context.Context) error {
	r.unrecord(ctx)
	queue := make(chan *bucket, len(r.buckets))
	for _, b := range r.buckets {
		queue <- b
	}
	close(queue)
	var mu sync.Mutex
	var failed int
	var last error
	var wg sync.WaitGroup
	for range workers + retryWorkers { // each ends when the queue is empty; every request has a deadline
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
		return fmt.Errorf("redis: presence in %d of %d buckets is not handed back, and lapses after --presence-lease: %w", failed, len(r.buckets), last)
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
