package natslog

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// The log of moderation is a stream of its own, which the first entry makes: it is kept for longer than
// comments, and nothing on the way of a comment waits for it. An act has one message there, at
// kansei.modlog.<room>.act.<whom>.<id>, in whose place another one is put when the act is undone. whom is the hash of
// the user whom it concerns, or _. What dry runs of sweeps have found is beside it, at kansei.modlog.<room>.found.<id>.

// nobody stands for the user of an act that concerns no single one.
const nobody = "_"

func newModlog(l *Log) *apart {
	names := naming{l.cfg.Prefix}
	return newApart(l, names.modlogStream(), names.modlogSubjects(), opModlog, "the log of moderation", func(c *jetstream.StreamConfig) {
		c.MaxMsgsPerSubject, c.AllowMsgTTL = 1, true
	})
}

// Enter implements [hub.ModerationLog].
func (l *Log) Enter(ctx context.Context, room string, e hub.LogEntry, undone bool, life time.Duration) error {
	whom, h := e.Whom, nats.Header{headerID: {room + "/" + e.ID}}
	if whom == "" {
		whom = nobody
	}
	if undone {
		h = nats.Header{headerID: {room + "/" + e.ID + "/undone"}}
	} else {
		h[nats.ExpectedLastSubjSeqHdr] = []string{"0"}
	}
	err := l.modlog.put(ctx, room+".act."+whom+"."+e.ID, e.Body, life, h)
	if !undone && errors.Is(err, hub.ErrConflict) {
		return nil // it is there
	}
	return err
}

// Entries implements [hub.ModerationLog].
func (l *Log) Entries(ctx context.Context, room, whom string, before uint64, limit int) (entries []hub.LogEntry, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	if whom == "" {
		whom = "*"
	}
	last := before - 1 // before the end: hub.EndSeq
	records, more, err := l.modlog.s.before(ctx, room+".act."+whom+".*", last, limit)
	if err != nil {
		if natsconn.IsCode(err, natsconn.CodeStreamNotFound) {
			return nil, false, nil
		}
		return nil, false, unread("the log of moderation", room, err)
	}
	for i := len(records) - 1; i >= 0; i-- {
		entries = append(entries, logEntry(&records[i]))
	}
	return entries, more, nil
}

// Entered implements [hub.ModerationLog].
func (l *Log) Entered(ctx context.Context, room, id string) (hub.LogEntry, error) {
	rec, err := l.modlog.last(ctx, room+".act.*."+id)
	if err != nil || rec == nil {
		return hub.LogEntry{}, err
	}
	return logEntry(rec), nil
}

// logEntry is what a record of the stream says: its subject ends in whom and id.
func logEntry(rec *record) hub.LogEntry {
	parts := strings.Split(rec.subject, ".")
	e := hub.LogEntry{Seq: rec.seq, ID: parts[len(parts)-1], Body: rec.data}
	if whom := parts[len(parts)-2]; whom != nobody {
		e.Whom = whom
	}
	return e
}

// KeepFound implements [hub.ModerationLog].
func (l *Log) KeepFound(ctx context.Context, room, id string, body []byte, life time.Duration) error {
	return l.modlog.put(ctx, room+".found."+id, body, life, nats.Header{})
}

// Found implements [hub.ModerationLog].
func (l *Log) Found(ctx context.Context, room, id string) ([]byte, error) {
	rec, err := l.modlog.last(ctx, room+".found."+id)
	if err != nil || rec == nil {
		return nil, err
	}
	return rec.data, nil
}
