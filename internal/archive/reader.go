// Package archive makes of a room's watch log what people keep of a broadcast: who watched it for how long, and how many there were
// when.
//
// The [Reader] (reader.go, history.go) reads the rows of a room and its log, and shapes a broadcast as it is known by now; nodes
// answer from it. The [Worker] (worker.go) shapes broadcasts that have ended, writes them as files (files.go) and into a
// database (sql.go), and tells back ends (deliver.go). Several workers may run, and any may be killed at any time: a lease says
// who shapes a broadcast, what it writes is a revision of its own, and which revision counts is one record, replaced by
// compare-and-set. erase.go takes a person out of all of it.
package archive

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
)

// Log is where rows, events and records are.
type Log interface {
	// Watched reads the batches of a room behind a sequence, or since a time; see natslog.
	Watched(ctx context.Context, room string, after uint64, since time.Time, each func(seq uint64, body []byte) error) (upTo uint64, err error)
	WatchedRooms(ctx context.Context) (map[string]uint64, error)
	ReplaceWatched(ctx context.Context, room string, seq uint64, id string, body []byte) error

	// Archived reads a record, PutArchived replaces the one with a revision, and fails with [hub.ErrConflict] when another
	// one is there.
	Archived(ctx context.Context, key string) (body []byte, rev uint64, err error)
	PutArchived(ctx context.Context, key string, body []byte, rev uint64, life time.Duration) error
	ArchivedKeys(ctx context.Context, room string) ([]string, error)
	ForgetArchived(ctx context.Context, key string) error
	TellArchive(ctx context.Context, room, id string, body []byte) error

	State(ctx context.Context, room string) (hub.State, error)
	Before(ctx context.Context, room, epoch string, at hub.Position, with bool, limit int) (hub.Page, error)
	UserHash(room, user string) string
	Now() time.Time
}

// ErrNoBroadcast says that a room has no such broadcast, or nothing is known of it.
var ErrNoBroadcast = errors.New("archive: there is no such broadcast")

// Input says what a broadcast was shaped from: the same input makes the same content.
type Input struct {
	Watch uint64 `json:"watch"` // the last batch
	Log   uint64 `json:"log"`   // the last event of the room
	AsOf  int64  `json:"as_of"` // when, by the log's clock, Unix milliseconds
}

// Reader shapes broadcasts as they are known by now.
type Reader struct {
	log     Log
	files   *Files        // nil: there are none
	silence time.Duration // that ends the broadcasts of rooms which are never set

	mu       sync.Mutex
	rooms    map[string]*known
	erased   map[string]int64 // hashes of users who were erased → when
	lookedAt time.Time        // for these
}

// known is what a reader remembers of a room, so that it reads on from there.
type known struct {
	mu      sync.Mutex
	used    time.Time
	fold    *watchlog.Fold
	seq     uint64 // of the last batch in fold
	since   int64  // when the batches in fold were stored, Unix milliseconds; 0: whenever
	history history
}

const (
	// mostKnown is how many rooms a reader remembers, and forgetAfter for how long after the last question.
	mostKnown   = 64
	forgetAfter = 10 * time.Minute
	erasedEvery = 5 * time.Second
)

// NewReader makes a Reader. files is where archived broadcasts are, whose rows are gone; nil: nowhere.
func NewReader(log Log, files *Files, silence time.Duration) *Reader {
	return &Reader{log: log, files: files, silence: silence, rooms: map[string]*known{}}
}

// hold returns what is known of a room, with its lock held.
func (r *Reader) hold(room string) *known {
	r.mu.Lock()
	now := time.Now()
	for name, k := range r.rooms {
		if now.Sub(k.used) > forgetAfter || len(r.rooms) > mostKnown && name != room {
			delete(r.rooms, name)
		}
	}
	k := r.rooms[room]
	if k == nil {
		k = &known{fold: watchlog.NewFold()}
		r.rooms[room] = k
	}
	k.used = now
	r.mu.Unlock()
	k.mu.Lock()
	return k
}

// fill reads the batches that have come, of those that were stored since a moment (0: all). Batches of a node that come out of their
// order, as those do that an erasure has written anew, have all be read and sorted.
func (r *Reader) fill(ctx context.Context, room string, k *known, since int64) error {
	if since < k.since {
		k.fold, k.seq = watchlog.NewFold(), 0
	}
	if k.seq == 0 {
		k.since = since
	}
	var from time.Time
	if k.since > 0 {
		from = time.UnixMilli(k.since)
	}
	sorted := true
	upTo, err := r.log.Watched(ctx, room, k.seq, from, func(_ uint64, body []byte) error {
		b, err := watchlog.Decode(body)
		if err != nil {
			return nil // nobody's
		}
		sorted = k.fold.Add(b) && sorted
		return nil
	})
	if err == nil && !sorted {
		var all []*watchlog.Batch
		upTo, err = r.log.Watched(ctx, room, 0, from, func(_ uint64, body []byte) error {
			if b, err := watchlog.Decode(body); err == nil {
				all = append(all, b)
			}
			return nil
		})
		slices.SortStableFunc(all, func(a, b *watchlog.Batch) int { return cmp.Or(cmp.Compare(a.Life, b.Life), cmp.Compare(a.N, b.N)) })
		k.fold = watchlog.NewFold()
		for _, b := range all {
			k.fold.Add(b)
		}
	}
	if err != nil {
		k.fold, k.seq = watchlog.NewFold(), 0 // half of it is not what there is
		return err
	}
	k.seq = upTo
	erased, err := r.whoIsErased(ctx)
	if err != nil {
		return err
	}
	if len(erased) > 0 {
		k.fold.Erase(func(user string, from int64) bool {
			at, is := erased[r.log.UserHash(everywhere, user)]
			return is && from <= at
		})
	}
	return nil
}

// erasedKey is what the keys of records of those who were erased begin with; behind it is a hash. everywhere stands for all
// rooms in it.
const (
	erasedKey  = "_erased"
	everywhere = "_all"
)

// whoIsErased are the hashes of the users who were erased, and when.
func (r *Reader) whoIsErased(ctx context.Context) (map[string]int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.erased != nil && time.Since(r.lookedAt) < erasedEvery {
		return r.erased, nil
	}
	keys, err := r.log.ArchivedKeys(ctx, erasedKey)
	if err != nil {
		return nil, err
	}
	all := map[string]int64{}
	for _, key := range keys {
		hash := strings.TrimPrefix(key, erasedKey+".")
		if at, known := r.erased[hash]; known {
			all[hash] = at
			continue
		}
		body, _, err := r.log.Archived(ctx, key)
		if err != nil {
			return nil, err
		}
		at, _ := strconv.ParseInt(string(body), 10, 64) // 0 where it is none: nothing is older
		all[hash] = at
	}
	r.erased, r.lookedAt = all, time.Now()
	return all, nil
}

// Record is what is known of an archived broadcast: which revision counts.
type Record struct {
	Room      string `json:"room"`
	Broadcast string `json:"broadcast"`
	Waiting   int64  `json:"waiting_at,omitempty"`
	Began     int64  `json:"began_at"`
	Ended     int64  `json:"ended_at"`

	Revision int    `json:"revision"` // from 1
	Prefix   string `json:"prefix"`   // where its files are
	Hash     string `json:"hash"`     // of their content
	Final    bool   `json:"final"`    // no more can come
	Input    Input  `json:"input"`
	At       int64  `json:"at"` // when it was made

	// What was delivered of it.
	Stored bool     `json:"stored,omitempty"` // in the database
	Told   bool     `json:"told,omitempty"`   // on NATS
	Hook   Delivery `json:"hook,omitzero"`

	rev uint64 // of the record itself
}

// revision is that of the record, which each change makes another one; 0: there is none.
func (r *Record) revision() uint64 {
	if r == nil {
		return 0
	}
	return r.rev
}

func keyOf(room, broadcast string) string { return room + "." + broadcast }

// record reads a record; nil: there is none.
func record(ctx context.Context, log Log, key string) (*Record, error) {
	body, rev, err := log.Archived(ctx, key)
	if err != nil || rev == 0 {
		return nil, err
	}
	rec := new(Record)
	if err := json.Unmarshal(body, rec); err != nil {
		return nil, fmt.Errorf("archive: the record %s cannot be read: %w", key, err)
	}
	rec.rev = rev
	return rec, nil
}

// Records lists the archived broadcasts of a room, the latest first.
func (r *Reader) Records(ctx context.Context, room string) ([]Record, error) {
	return records(ctx, r.log, room)
}

func records(ctx context.Context, log Log, room string) ([]Record, error) {
	keys, err := log.ArchivedKeys(ctx, room)
	if err != nil {
		return nil, err
	}
	var all []Record
	for _, key := range keys {
		if strings.HasPrefix(key, "_") {
			continue
		}
		rec, err := record(ctx, log, key)
		if err != nil {
			return nil, err
		}
		if rec != nil {
			all = append(all, *rec)
		}
	}
	slices.SortFunc(all, func(a, b Record) int { return cmp.Or(cmp.Compare(b.Began, a.Began), cmp.Compare(a.Room, b.Room)) })
	return all, nil
}

// Shaped is a broadcast as it is known.
type Shaped struct {
	watchlog.Shaped
	Broadcast watchlog.Broadcast
	Input     Input
}

// Shape shapes a broadcast of a room as it is known by now; the last one if id is empty. Its error may wrap [ErrNoBroadcast].
func (r *Reader) Shape(ctx context.Context, room, id string) (*Shaped, error) {
	return r.shapeAs(ctx, room, id, false)
}

// shapeAs is Shape; closed says that no more is waited for.
func (r *Reader) shapeAs(ctx context.Context, room, id string, closed bool) (*Shaped, error) {
	k := r.hold(room)
	defer k.mu.Unlock()
	b, err := r.find(ctx, room, id, k)
	if err != nil {
		return nil, err
	}
	b.Closed = closed
	return r.shape(ctx, k, b)
}

func (r *Reader) shape(ctx context.Context, k *known, b watchlog.Broadcast) (*Shaped, error) {
	if err := r.fill(ctx, b.Room, k, sinceOf(b)); err != nil {
		return nil, err
	}
	if err := k.history.reach(ctx, r.log, b.Room, b.Began); err != nil {
		return nil, err
	}
	if b.Waiting == 0 && !strings.HasPrefix(b.ID, "0-") {
		b.Waiting = k.history.waiting(b.Began)
	}
	in := Input{Watch: k.seq, Log: k.history.last.Seq, AsOf: r.log.Now().UnixMilli()}
	return &Shaped{watchlog.Shape(k.fold, b, in.AsOf, k.history.comments), b, in}, nil
}

// sinceOf is since when rows say who was there in a broadcast, or waited for it: nodes tell anew of those who stay for long. It is 0 where
// that is not known.
func sinceOf(b watchlog.Broadcast) int64 {
	if strings.HasPrefix(b.ID, "0-") {
		return 0
	}
	return max(1, b.Began-longestWait-watchlog.ToldAnew.Milliseconds()-time.Hour.Milliseconds()) // clocks differ
}

// find finds a broadcast of a room.
func (r *Reader) find(ctx context.Context, room, id string, k *known) (watchlog.Broadcast, error) {
	for _, deep := range []bool{false, true} {
		all, err := r.broadcasts(ctx, room, k, deep)
		if err != nil {
			return watchlog.Broadcast{}, err
		}
		for _, b := range all {
			if id == "" || b.ID == id {
				return b, nil
			}
		}
	}
	return watchlog.Broadcast{}, fmt.Errorf("%w: %s of room %s", ErrNoBroadcast, cmp.Or(id, "any"), room)
}

// broadcasts lists the broadcasts of a room that are known of, the latest first. A room that was never made live has those that a
// silence lies between. deep has the room's log be read for those that neither the state nor an archived record tells of.
func (r *Reader) broadcasts(ctx context.Context, room string, k *known, deep bool) ([]watchlog.Broadcast, error) {
	doc, err := r.log.State(ctx, room)
	if err != nil {
		return nil, err
	}
	state := stateOf(doc)
	archived, err := r.Records(ctx, room)
	if err != nil {
		return nil, err
	}
	all := map[string]watchlog.Broadcast{}
	for _, rec := range archived {
		all[rec.Broadcast] = watchlog.Broadcast{Room: room, ID: rec.Broadcast, Waiting: rec.Waiting, Began: rec.Began, Ended: rec.Ended}
	}
	bounds(room, &state, all)
	switch {
	case state.Broadcast == 0:
		if err := r.fill(ctx, room, k, 0); err != nil {
			return nil, err
		}
		r.spans(room, k, all)
	case deep:
		if err := k.history.states(ctx, r.log, room, state.Broadcast, all); err != nil {
			return nil, err
		}
	}
	var list []watchlog.Broadcast
	for _, b := range all {
		list = append(list, b)
	}
	slices.SortFunc(list, func(a, b watchlog.Broadcast) int { return cmp.Compare(b.Began, a.Began) })
	return list, nil
}

// stateOf is a room's state. That of a room that was deleted knows of its broadcasts.
func stateOf(doc hub.State) (s protocol.State) {
	_ = json.Unmarshal(doc.Body, &s) // nothing, or what cannot be read: no broadcast has begun
	return s
}

// spans adds the broadcasts of a room that was never made live. One that was archived keeps its name, even if rows that came late
// say that it began earlier.
func (r *Reader) spans(room string, k *known, all map[string]watchlog.Broadcast) {
	now := r.log.Now().UnixMilli()
	for _, s := range k.fold.Spans(r.silence) {
		b := watchlog.Broadcast{Room: room, ID: fmt.Sprintf("0-%d", s[0]), Began: s[0]}
		if now-s[1] > r.silence.Milliseconds() {
			b.Ended = s[1]
		}
		for _, had := range all {
			if had.Began <= s[1] && (had.Ended == 0 || had.Ended >= s[0]) {
				b.ID = had.ID
			}
		}
		all[b.ID] = b
	}
}

// bounds adds to all the broadcast that a state tells of, if it says when that began.
func bounds(room string, s *protocol.State, all map[string]watchlog.Broadcast) {
	if s.Broadcast == 0 || s.BeganAt == 0 || s.Timed != s.Broadcast {
		return
	}
	b := watchlog.Broadcast{Room: room, ID: strconv.FormatInt(s.Broadcast, 10), Began: s.BeganAt}
	if s.EndedAt >= s.BeganAt && s.Status != protocol.StatusLive {
		b.Ended = s.EndedAt
	}
	had, known := all[b.ID]
	if known && had.Ended > 0 { // and the record's bounds stay what they are
		return
	}
	all[b.ID] = b
}
