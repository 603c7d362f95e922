// Package access knows what all nodes must know of who may come: which tokens are revoked, and the
// API keys of back ends.
//
// Both are records that one node, or a command, writes and that all nodes have in memory
// ([Access.Apply]): a check asks nobody. What is written is in force on every node within a
// second, and after restarts.
package access

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Entry is one record: the last of its name counts.
type Entry struct {
	Name string
	Body []byte
}

// Access is what a node knows. Its methods may be called from any goroutine.
type Access struct {
	cfg Config

	mu      sync.RWMutex
	revoked map[string]Revocation // by the name of the record
	users   map[string]int64      // of those: up to when their tokens are revoked, Unix seconds
	tokens  map[string]bool       // of those: the ids of tokens
	before  int64                 // all tokens that were issued up to then are revoked, Unix seconds
	keys    map[string]Key        // by id
}

// Config is what an Access needs.
type Config struct {
	// Put stores a record and returns when it is stored and Apply has been told of it.
	Put func(ctx context.Context, e Entry) error
	// Now is the time by a clock that all nodes share, that of the store; nil: this node's.
	Now func() time.Time
	// MaxTokenAge is how long a token may hold: a revocation is kept no longer.
	MaxTokenAge time.Duration
	// Changed is told that something was revoked; nil for nobody. It must not wait.
	Changed func()
	Logger  *slog.Logger
}

// New makes an Access that knows nothing yet.
func New(cfg Config) *Access {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Access{
		cfg: cfg, revoked: map[string]Revocation{}, users: map[string]int64{}, tokens: map[string]bool{}, keys: map[string]Key{},
	}
}

// What the names of records begin with.
const (
	revokedPrefix = "revoked."
	keyPrefix     = "key."
)

// Apply takes records in. anew says that these are all there are. A record that cannot be read is
// passed over and logged: it may be of a later version.
//
// What was revoked stays so when the records are others all at once, as after a restore: a node
// that has heard of it does not forget.
func (a *Access) Apply(entries []Entry, anew bool) {
	a.mu.Lock()
	if anew {
		clear(a.keys)
	}
	revoked := false
	for _, e := range entries {
		var err error
		switch {
		case strings.HasPrefix(e.Name, revokedPrefix):
			var r Revocation
			if err = json.Unmarshal(e.Body, &r); err == nil {
				a.revoke(e.Name, r)
				revoked = true
			}
		case strings.HasPrefix(e.Name, keyPrefix):
			var k Key
			if err = json.Unmarshal(e.Body, &k); err == nil {
				a.keys[strings.TrimPrefix(e.Name, keyPrefix)] = k
			}
		}
		if err != nil {
			a.cfg.Logger.Warn("a record about who may come cannot be read, and is passed over", "record", e.Name)
		}
	}
	a.mu.Unlock()
	if revoked && a.cfg.Changed != nil {
		a.cfg.Changed()
	}
}

// hashed is a text as a part of the name of a record: 26 characters of [a-z2-7].
func hashed(s string) string {
	sum := sha256.Sum256([]byte(s))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:26]
}

// put writes a record.
func (a *Access) put(ctx context.Context, name string, record any) error {
	body, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("access: %w", err)
	}
	return a.cfg.Put(ctx, Entry{name, body})
}
