// Package fakelog is a room log for tests: the standing records and the events of one room, in memory, which fail when
// they are told to.
package fakelog

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
)

// Log is a [hub.RoomLog] and a [hub.ModerationLog] with what writes and finishes records. Whoever reads its fields knows that nobody writes.
type Log struct {
	hub.RoomLog // what these do not have panics
	hub.ModerationLog

	mu      sync.Mutex
	seq     uint64
	Records map[string]hub.Standing
	Lives   map[string]time.Duration // of the records, as they were asked for
	Events  []hub.Event
	Keeping time.Duration           // of events
	Entry   map[string]hub.LogEntry // the log of moderation

	keep, append, enter []Failure
}

// Failure is what a call does: it fails, unless Err is nil.
type Failure struct {
	Err   error
	After bool // it was done all the same
}

// New makes a log that keeps events for an hour.
func New() *Log {
	return &Log{Records: map[string]hub.Standing{}, Lives: map[string]time.Duration{}, Entry: map[string]hub.LogEntry{}, Keeping: time.Hour}
}

// Fail says what the next calls of Keep and Append do.
func (l *Log) Fail(keep, append []Failure) {
	l.mu.Lock()
	l.keep, l.append = keep, append
	l.mu.Unlock()
}

func pop(f *[]Failure) (one Failure) {
	if len(*f) > 0 {
		one, *f = (*f)[0], (*f)[1:]
	}
	return one
}

// Record decodes a record; it is empty when there is none.
func (l *Log) Record(t testing.TB, id string) (rec hub.Record) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.Records[id]; s.Seq > 0 {
		if err := json.Unmarshal(s.Body, &rec); err != nil {
			t.Fatalf("record %s: %v", id, err)
		}
	}
	return rec
}

// Keep implements [hub.RoomLog].
func (l *Log) Keep(_ context.Context, _ string, s hub.Standing, life time.Duration) (hub.Standing, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fail := pop(&l.keep)
	if fail.Err != nil && !fail.After {
		return hub.Standing{}, fail.Err
	}
	if had := l.Records[s.ID]; had.Seq != s.Seq {
		return had, hub.ErrConflict
	}
	l.seq++
	s.Seq = l.seq
	l.Records[s.ID], l.Lives[s.ID] = s, life
	return s, fail.Err
}

// Kept implements [hub.RoomLog].
func (l *Log) Kept(_ context.Context, _, id string) (hub.Standing, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Records[id], nil
}

// Append implements [hub.RoomLog].
func (l *Log) Append(_ string, d hub.Draft, done func(hub.Receipt, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fail := pop(&l.append)
	if fail.Err != nil && !fail.After {
		go done(hub.Receipt{}, fail.Err)
		return
	}
	for _, e := range l.Events {
		if e.ID == d.ID {
			go done(hub.Receipt{Seq: e.Seq, Duplicate: true}, fail.Err)
			return
		}
	}
	e := hub.Event{Seq: uint64(len(l.Events) + 1), At: time.Now().UnixMilli(), ID: d.ID, Kind: d.Kind, Body: d.Body}
	l.Events = append(l.Events, e)
	go done(hub.Receipt{Seq: e.Seq}, fail.Err)
}

// Event implements [hub.RoomLog].
func (l *Log) Event(_ context.Context, _ string, seq uint64) (*hub.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &l.Events[seq-1], nil
}

// Before implements [hub.RoomLog]: all events come before every place.
func (l *Log) Before(context.Context, string, string, hub.Position, bool, int) (hub.Page, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return hub.Page{Events: l.Events}, nil
}

// Now implements [hub.RoomLog].
func (l *Log) Now() time.Time { return time.Now() }

// KeepFor implements [hub.RoomLog].
func (l *Log) KeepFor() time.Duration { return l.Keeping }

// UserHash implements [hub.RoomLog].
func (l *Log) UserHash(room, user string) string { return room + "/" + user }

// Enter implements [hub.ModerationLog].
func (l *Log) Enter(_ context.Context, _ string, e hub.LogEntry, undone bool, _ time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if fail := pop(&l.enter); fail.Err != nil {
		return fail.Err
	}
	if _, there := l.Entry[e.ID]; there && !undone {
		return nil
	}
	e.Seq = uint64(len(l.Entry) + 1)
	l.Entry[e.ID] = e
	return nil
}

// FailEnter says what the next calls of Enter do.
func (l *Log) FailEnter(enter ...Failure) {
	l.mu.Lock()
	l.enter = enter
	l.mu.Unlock()
}
