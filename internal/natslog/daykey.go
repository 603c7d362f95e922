package natslog

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// The address of a sender is not stored. A comment bears a hash of it, under a random key that all nodes share for a
// day, so that the staff can find what else has come from there. The keys are in a stream of their own, which is in
// memory alone, and forgets them: nobody can tell an address from a hash then, with whatever backup or secret.

const (
	// dayKeyAge is how long a key is kept after it was made.
	dayKeyAge = 48 * time.Hour
	// dayKeyPoll is how often a node looks whether it has the key of the day; sooner while it has not.
	dayKeyPoll, dayKeyAgain = time.Minute, 15 * time.Second
	// dayKeyAhead is how long before midnight, UTC, it looks for that of the next day.
	dayKeyAhead = 10 * time.Minute

	day = "2006-01-02"
)

// dayKeys is the keys that this node knows.
type dayKeys struct {
	l *Log
	s *stream

	mu   sync.Mutex
	keys []dayKey
}

// dayKey is the key of a day, which begins at from.
type dayKey struct {
	day        string
	from, made time.Time
	key        []byte
}

func newDayKeys(l *Log) *dayKeys {
	names := naming{l.cfg.Prefix}
	s := &stream{l: l, name: names.dayKeyStream(), subjects: names.dayKeySubjects(), partition: -1}
	s.domain.Store("")
	return &dayKeys{l: l, s: s}
}

// violated is told of a permission that is missing, and reports whether it is one for the keys. Without it there
// are none.
func (d *dayKeys) violated(v natsconn.Violation) bool {
	if v.Subscribe || !strings.HasPrefix(v.Subject, d.s.subjects) && !strings.HasSuffix(v.Subject, "."+d.s.name) {
		return false
	}
	d.l.conn.Refuse(v.Subject, &natsconn.PermissionError{Subjects: v.Subject})
	return true
}

// run keeps the keys of today, and before midnight of tomorrow, until the log is closed.
func (d *dayKeys) run() {
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-d.l.ctx.Done():
			return
		case <-tick.C:
		}
		wait, now := dayKeyPoll, d.l.Now().UTC()
		for _, at := range []time.Time{now, now.Add(dayKeyAhead)} {
			ctx, cancel := context.WithTimeout(d.l.ctx, readTime)
			err := d.ensure(ctx, at.Format(day), now)
			cancel()
			if err != nil {
				if wait = dayKeyAgain; !d.l.conn.Connected() {
					wait = time.Second
				} else {
					d.l.quiet.Log(slog.LevelDebug, "the key of the day cannot be had: comments bear no hash of their sender's address meanwhile", "daykey", "error", err)
				}
			}
		}
		tick.Reset(wait)
	}
}

// ensure has this node know the key of a day, which is made if there is none, and forget old ones.
func (d *dayKeys) ensure(ctx context.Context, of string, now time.Time) error {
	d.mu.Lock()
	d.keys = slices.DeleteFunc(d.keys, func(k dayKey) bool {
		old := now.Sub(k.made) > dayKeyAge
		if old {
			clear(k.key)
		}
		return old
	})
	known := slices.ContainsFunc(d.keys, func(k dayKey) bool { return k.day == of })
	d.mu.Unlock()
	if known {
		return nil
	}
	from, err := time.Parse(day, of)
	if err != nil {
		return fmt.Errorf("the day %s: %w", of, err)
	}
	rec, err := d.last(ctx, of)
	if err == nil && rec == nil {
		if err = d.make(ctx, of); err == nil {
			rec, err = d.last(ctx, of)
		}
	}
	switch {
	case err != nil:
		return err
	case rec == nil || len(rec.data) != sha256.Size:
		return fmt.Errorf("stream %s has no key of %s", d.s.name, of)
	}
	d.mu.Lock()
	d.keys = append(d.keys, dayKey{of, from, time.UnixMilli(rec.at), rec.data})
	d.mu.Unlock()
	return nil
}

// last is the key of a day, as the leader has it; nil when there is none.
func (d *dayKeys) last(ctx context.Context, of string) (*record, error) {
	rec, err := d.s.leaderGet(ctx, getRequest{LastFor: d.s.subjects + of})
	if natsconn.IsCode(err, natsconn.CodeStreamNotFound) {
		return nil, nil
	}
	return rec, err
}

// make writes a key for a day. That another node was faster is no error.
func (d *dayKeys) make(ctx context.Context, of string) error {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails
	m := &nats.Msg{Subject: d.s.subjects + of, Data: key, Header: nats.Header{nats.ExpectedLastSubjSeqHdr: {"0"}}}
	err := d.l.storeAside(ctx, opConfig, m, d.s.name, d.config)
	if natsconn.IsCode(err, natsconn.CodeWrongLastSequence) {
		return nil
	}
	return err
}

// config is the configuration of the stream.
func (d *dayKeys) config() jetstream.StreamConfig {
	c := d.l.aside(newEpoch())
	c.Name, c.Description, c.Subjects = d.s.name, "Kansei: the keys of the last two days, under which addresses are hashed", []string{d.s.subjects + "*"}
	c.Storage, c.MaxMsgsPerSubject, c.MaxAge = jetstream.MemoryStorage, 1, dayKeyAge
	return c
}

// Origin implements [hub.RoomLog]: the day, a dot, and 16 bytes of a hash in base64.
func (l *Log) Origin(room, address string) string {
	now := l.Now()
	l.days.mu.Lock()
	defer l.days.mu.Unlock() // keys are wiped under it
	i := slices.IndexFunc(l.days.keys, func(k dayKey) bool { age := now.Sub(k.from); return age >= 0 && age < 24*time.Hour })
	if i < 0 || address == "" {
		return ""
	}
	k := &l.days.keys[i]
	var text [256]byte
	all := append(text[:0], k.key...)
	for _, part := range [...]string{"kansei/address", room, address} {
		all = append(append(all, 0), part...)
	}
	sum := sha256.Sum256(all)
	clear(all)
	return k.day + "." + base64.RawURLEncoding.EncodeToString(sum[:16])
}
