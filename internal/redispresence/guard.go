package redispresence

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// policyEvery is how long a node relies on what it knows of Redis's settings: nobody
// changes them often.
const policyEvery = 30 * time.Second

// guard is what must be right before a node writes presence, or is ready.
type guard struct {
	mu     sync.Mutex
	asked  bool  // Redis has told the number of buckets
	pin    error // why nothing may be written then; nil: it is this node's number
	policy error // why Redis cannot be relied on; nil: it can, or does not tell
	looked time.Time
	told   bool // it has been asked for its policy once
}

var (
	errNewer  = errors.New("its presence is for newer versions of kansei")
	errPinned = errors.New("the number of presence buckets differs")
	errPolicy = errors.New("its maxmemory-policy evicts presence")
)

// pinKey holds the number of buckets that all nodes have in common. It lies outside of
// the buckets, in a slot of its own.
func (r *Presence) pinKey() string { return r.cfg.Prefix + ":buckets" }

// readsKey holds the lowest layout whose nodes may write presence, if a version has set it
// that older ones would harm.
func (r *Presence) readsKey() string { return r.cfg.Prefix + ":reads" }

// pinned returns nil when this node may write presence, and otherwise why it may not.
func (r *Presence) pinned(ctx context.Context) error {
	r.guard.mu.Lock()
	asked, err := r.guard.asked, r.guard.pin
	r.guard.mu.Unlock()
	if !asked {
		return r.pin(ctx)
	}
	return err
}

// pin compares this node's number of buckets with the one that Redis holds, which is the
// first node's, and its layout with the one that is asked for there. While Redis does not
// answer, what was known holds.
func (r *Presence) pin(ctx context.Context) error {
	want := strconv.Itoa(r.cfg.Buckets)
	got, reads := "", ""
	err := r.call(ctx, opPin, func(ctx context.Context) (err error) {
		got, err = r.cfg.Client.Get(ctx, r.pinKey()).Result()
		if !errors.Is(err, redis.Nil) {
			return err
		}
		if err = r.cfg.Client.SetNX(ctx, r.pinKey(), want, 0).Err(); err != nil {
			return err
		}
		got, err = r.cfg.Client.Get(ctx, r.pinKey()).Result()
		return err
	})
	if err == nil {
		err = r.call(ctx, opPin, func(ctx context.Context) (err error) {
			reads, err = r.cfg.Client.Get(ctx, r.readsKey()).Result()
			if errors.Is(err, redis.Nil) {
				return nil
			}
			return err
		})
	}
	if err != nil {
		return err
	}
	if n, bad := strconv.Atoi(reads); reads != "" && (bad != nil || n > layout) {
		err = fmt.Errorf("redis: %w: the key %s asks for layout %.20s, this node knows %d; upgrade it; it writes no presence", errNewer, r.readsKey(), reads, layout)
	} else if got != want {
		err = fmt.Errorf("redis: %w: %.20s by the key %s, %s by --presence-buckets of this node; it writes no presence", errPinned, got, r.pinKey(), want)
	}
	r.guard.mu.Lock()
	defer r.guard.mu.Unlock()
	r.guard.asked, r.guard.pin = true, err
	return err
}

// check asks Redis for what must be right. Its error says that Redis does not answer, or that
// presence may not be written.
func (r *Presence) check(ctx context.Context) error {
	err := r.pin(ctx)
	r.guard.mu.Lock()
	due := r.guard.looked.IsZero() || r.now().Sub(r.guard.looked) >= policyEvery
	if err != nil {
		r.guard.looked = time.Time{} // whoever answers next may be another server
	}
	r.guard.mu.Unlock()
	if err != nil || !due {
		return err
	}
	policy := r.policyOf(ctx)
	r.guard.mu.Lock()
	defer r.guard.mu.Unlock()
	r.guard.policy, r.guard.looked, r.guard.told = policy, r.now(), true
	return nil
}

// policyOf returns what is wrong with the way in which Redis evicts keys. Policies that
// evict keys with a time to live do no harm: ours have none. What Redis does not tell is
// taken for right.
func (r *Presence) policyOf(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	var mu sync.Mutex
	var wrong error
	look := func(ctx context.Context, c *redis.Client) error {
		if p := policy(ctx, c); strings.HasPrefix(p, "allkeys-") {
			mu.Lock()
			defer mu.Unlock()
			wrong = fmt.Errorf("redis: %w: it is %.40q, set noeviction", errPolicy, p)
		}
		return nil
	}
	switch c := r.cfg.Client.(type) {
	case *redis.Client:
		_ = look(ctx, c) // never fails
	case *redis.ClusterClient:
		_ = c.ForEachMaster(ctx, look) // the masters that answer say what they are
	}
	return wrong
}

// policy is the maxmemory-policy of a server; empty when it cannot be had. Managed services
// may forbid or rename CONFIG.
func policy(ctx context.Context, c *redis.Client) string {
	if m, err := c.ConfigGet(ctx, "maxmemory-policy").Result(); err == nil && m["maxmemory-policy"] != "" {
		return m["maxmemory-policy"]
	}
	info, err := c.Info(ctx, "memory").Result()
	if err != nil {
		return ""
	}
	for line := range strings.Lines(info) {
		if p, ok := strings.CutPrefix(line, "maxmemory_policy:"); ok {
			return strings.TrimSpace(p)
		}
	}
	return ""
}
