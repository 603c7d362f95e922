package natslog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
	"github.com/kansei-live/kansei/internal/quiet"
)

const (
	// tablePoll is how often a node asks for what is new in the table: what others write is in
	// force within a second.
	tablePoll = 400 * time.Millisecond
	// tableCheck is how often it makes sure that the table is still the same one.
	tableCheck = 10 * time.Second
	// maxEntry bounds an entry, in bytes.
	maxEntry = 64 << 10
)

// Table is what all nodes must know and what belongs to no room: revocations, keys. Each node has
// all of it in memory. It is a stream of its own, which the first entry makes: without it there
// are no entries.
type Table struct {
	l *Log
	s *stream

	writing sync.Mutex // held while entries are read, so that they are told in order
	had     uint64     // everything up to here was told; with writing
	epoch   string     // of the stream, empty before it is known; with writing
	checked time.Time  // with writing
	told    func(entries []Entry, anew bool)

	mu   sync.Mutex
	read bool  // all that was there has been told once
	err  error // why the last reading failed
}

// Entry is one record of a table: the last of its name.
type Entry struct {
	Name string // such as key.a1b2
	Body []byte
}

func newTable(l *Log) *Table {
	names := naming{l.cfg.Prefix}
	s := &stream{l: l, name: names.configStream(), subjects: names.configSubjects(), partition: -1}
	s.domain.Store("")
	return &Table{l: l, s: s}
}

// OpenTable connects to a table alone, as a command does. It is closed by [Table.Close].
func OpenTable(cfg Config) (*Table, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Log{cfg: cfg, metrics: cfg.Metrics, log: cfg.Logger, quiet: quiet.New(cfg.Logger), newer: quiet.Every(newerAgain, cfg.Logger), closed: make(chan struct{})}
	t := newTable(l)
	l.table = t
	l.conn, err = natsconn.New(natsconn.Config{
		URLs: cfg.URLs, Options: cfg.Options, Name: cfg.Name, NKey: cfg.NKey, Domain: cfg.Domain,
		Inboxes: naming{cfg.Prefix}.inboxes(), RequestTimeout: cfg.RequestTimeout,
		Metrics: cfg.Metrics.nats, Logger: l.log, Quiet: l.quiet,
		Up: func() {}, Down: func() {}, Dropped: func(*nats.Subscription) {}, Violated: func(v natsconn.Violation, _ error) bool { return t.violated(v) },
	})
	if err != nil {
		return nil, fmt.Errorf("natslog: %w", err)
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(func() { l.conn.Run(l.ctx) }) // ends with l.ctx; Close waits for it
	return t, nil
}

// Close ends what [OpenTable] began.
func (t *Table) Close() {
	t.l.conn.Leave()
	t.l.cancel()
	t.l.wg.Wait()
	t.l.conn.Close()
}

// violated is told of a permission that is missing, and reports whether it is one for the table.
func (t *Table) violated(v natsconn.Violation) bool { return t.s.refused(v) }

// Table returns the log's table.
func (l *Log) Table() *Table { return l.table }

// Follow has told called with all entries, and then with each that is written, in order, by one
// goroutine at a time, until the log is closed. anew says that these are all there are: those of
// before are gone. It is called once.
func (t *Table) Follow(told func(entries []Entry, anew bool)) {
	t.writing.Lock()
	t.told = told
	t.writing.Unlock()
	t.l.wg.Go(func() { // ends with l.ctx; Close waits for it
		tick := time.NewTicker(tablePoll)
		defer tick.Stop()
		for {
			_ = t.Read(t.l.ctx) // Ready says why it failed
			select {
			case <-t.l.ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
}

// Ready says why this node may lack entries; nil when it has all.
func (t *Table) Ready() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.read {
		return nil // what came later is a matter of the connection
	}
	if t.err != nil {
		return fmt.Errorf("nats: stream %s: %w", t.s.name, t.err)
	}
	return fmt.Errorf("nats: stream %s was not read yet", t.s.name)
}

// Now is the time by the clock of NATS, as far as it is known: nodes may disagree.
func (t *Table) Now() time.Time {
	ahead := t.s.ahead.Load()
	if ahead == 0 && t.l.state != nil {
		ahead = t.l.state.ahead.Load()
	}
	return time.Now().Add(time.Duration(ahead))
}

// Read tells whatever is new by now, as the stream's leader has it.
func (t *Table) Read(ctx context.Context) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	err := t.readOn(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	t.read = t.read || err == nil
	return err
}

func (t *Table) readOn(ctx context.Context) error {
	anew := false
	if t.epoch == "" || time.Since(t.checked) > tableCheck {
		info, err := t.s.info(ctx)
		switch {
		case natsconn.IsCode(err, natsconn.CodeStreamNotFound):
			t.begin("", true)
			return nil
		case err != nil:
			return err
		}
		if !info.TimeStamp.IsZero() {
			t.s.ahead.Store(int64(time.Until(info.TimeStamp)))
		}
		epoch := info.Config.Metadata[metaEpoch] + "@" + info.Created.String()
		if anew = epoch != t.epoch || info.State.LastSeq < t.had; anew {
			t.begin(epoch, false)
		}
		t.checked = time.Now()
	}
	all, err := t.collect(ctx, anew)
	switch {
	case err != nil && anew:
		t.epoch = "" // it is read from its beginning again: half of it is not all there is
		return err
	case len(all) > 0 || anew:
		if t.told != nil {
			t.told(all, anew)
		}
	}
	return err
}

// collect reads what comes after what was told. What it has read it returns with an error, too.
func (t *Table) collect(ctx context.Context, anew bool) ([]Entry, error) {
	var all []Entry
	for anew { // many at a time, from any replica
		p, err := t.s.directGet(ctx, ">", t.had+1, nil, batchRecords)
		if err != nil && !errors.Is(err, errMirror) {
			return all, err
		}
		if len(p.records) == 0 {
			break
		}
		for i := range p.records {
			all = t.take(all, &p.records[i])
		}
	}
	for { // and the latest from the leader, who has them all
		rec, err := t.s.leaderGet(ctx, getRequest{NextFor: t.s.subjects + ">", Seq: t.had + 1})
		if natsconn.IsCode(err, natsconn.CodeStreamNotFound) {
			t.epoch = ""
			return all, nil
		}
		if err != nil || rec == nil {
			return all, err
		}
		all = t.take(all, rec)
	}
}

// begin is for a table that is another one, or none.
func (t *Table) begin(epoch string, gone bool) {
	had := t.had
	t.epoch, t.had = epoch, 0
	if gone && had > 0 && t.told != nil {
		t.told(nil, true)
	}
}

// take adds a record to entries.
func (t *Table) take(all []Entry, rec *record) []Entry {
	t.had = rec.seq
	if newerSchema(rec.header) {
		t.l.tellNewer(recordState, rec)
		return all
	}
	return append(all, Entry{strings.TrimPrefix(rec.subject, t.s.subjects), rec.data})
}

// Put writes an entry in the place of the one of its name, and returns when it is stored and this
// node has been told of it. Its error is [hub.ErrUnavailable] when it is not stored, and
// [hub.ErrUnknownOutcome] when it may be: to write it again is safe.
func (t *Table) Put(ctx context.Context, e Entry) error { return t.PutFor(ctx, e, 0) }

// PutFor is Put for an entry that lives for a time; 0: for good. Nodes that were told of it are not told
// of its end.
func (t *Table) PutFor(ctx context.Context, e Entry, life time.Duration) error {
	if len(e.Body) > maxEntry {
		return fmt.Errorf("natslog: an entry has %d bytes, at most %d are taken", len(e.Body), maxEntry)
	}
	m := &nats.Msg{Subject: t.s.subjects + e.Name, Data: e.Body}
	if life > 0 {
		m.Header = lifeHeader(life)
	}
	switch err := t.l.storeAside(ctx, opConfig, m, t.s.name, t.config); {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("natslog: %s: %w: %w", t.s.name, hub.ErrUnknownOutcome, err)
	case err != nil:
		return fmt.Errorf("natslog: %s: %w: %w", t.s.name, hub.ErrUnavailable, err)
	}
	if err := t.Read(ctx); err != nil {
		return fmt.Errorf("natslog: %s: stored, but not read back yet: %w: %w", t.s.name, hub.ErrUnknownOutcome, err)
	}
	return nil
}

// config is the configuration of the stream.
func (t *Table) config() jetstream.StreamConfig {
	epoch := newEpoch()
	c := t.l.aside(epoch)
	c.Name, c.Description, c.Subjects = t.s.name, "Kansei: revocations, keys, and what else belongs to no room", []string{t.s.subjects + ">"}
	c.MaxMsgsPerSubject, c.AllowDirect, c.AllowMsgTTL = 1, true, true
	c.RePublish = &jetstream.RePublish{Source: t.s.subjects + ">", Destination: naming{t.l.cfg.Prefix}.liveSubjects(epoch, "config") + ">"}
	return c
}
