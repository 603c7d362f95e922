package natslog

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// The watch log is a stream of its own, at kansei.watch.<room>: batches of rows, of which internal/watchlog knows what they
// say. The first batch makes it. It is compressed, because rows are much alike.

func newWatch(l *Log) *apart {
	names := naming{l.cfg.Prefix}
	return newApart(l, names.watchStream(), names.watchSubjects(), opWatch, "the watch log", func(c *jetstream.StreamConfig) {
		c.MaxAge, c.Compression = l.cfg.WatchAge, jetstream.S2Compression
	})
}

// TellWatch stores a batch of rows of a room. The same id within two minutes is stored once.
func (l *Log) TellWatch(ctx context.Context, room, id string, body []byte) error {
	return l.watch.put(ctx, room, body, 0, nats.Header{headerID: {id}})
}

// Watched calls each with the batches of a room behind a sequence, or, if that is 0, with those that were stored since a time, in order, and returns
// the sequence of the last one that there was when the call began.
func (l *Log) Watched(ctx context.Context, room string, after uint64, since time.Time, each func(seq uint64, body []byte) error) (upTo uint64, err error) {
	if _, err := l.usable(l.state, room); err != nil {
		return after, err
	}
	if after == 0 && !since.IsZero() {
		last, err := l.watch.last(ctx, room)
		switch {
		case err != nil || last == nil:
			return 0, err
		case last.at < since.UnixMilli():
			return last.seq, nil
		}
		// Where a replica does not have it yet, or does not answer, more is read than is wanted.
		if p, err := l.watch.s.directGet(ctx, room, 0, &since, 1); err == nil && len(p.records) > 0 {
			after = p.records[0].seq - 1
		}
	}
	return l.watch.read(ctx, room, after, func(rec *record) error { return each(rec.seq, rec.data) })
}

// WatchedRooms are the rooms of which the watch log has batches, and how many of each.
func (l *Log) WatchedRooms(ctx context.Context) (map[string]uint64, error) {
	return l.watch.subjects(ctx, "*")
}

// ReplaceWatched stores a batch in the place of the one at a sequence, which is overwritten on the disks.
func (l *Log) ReplaceWatched(ctx context.Context, room string, seq uint64, id string, body []byte) error {
	if err := l.TellWatch(ctx, room, id, body); err != nil {
		return err
	}
	ask := struct {
		Seq uint64 `json:"seq"`
	}{seq}
	_, err := natsconn.API[struct{}](ctx, l.conn, opPurge, l.cfg.api()+"STREAM.MSG.DELETE."+l.watch.s.name, ask, nil)
	if err != nil {
		if rec, lost := l.watch.s.leaderGet(ctx, getRequest{Seq: seq}); lost == nil && rec == nil {
			return nil // it was gone already
		}
		return l.watch.unavailable(err)
	}
	return nil
}

// The records of archived broadcasts are a stream of their own too, at kansei.archive.<room>.<broadcast>, of which the last
// one counts. Behind another dot is the lease of the worker that shapes the broadcast.

func newArchive(l *Log) *apart {
	names := naming{l.cfg.Prefix}
	return newApart(l, names.archiveStream(), names.archiveSubjects(), opArchive, "what is known of archived broadcasts", func(c *jetstream.StreamConfig) {
		c.MaxMsgsPerSubject, c.AllowMsgTTL = 1, true
	})
}

// Archived is the record at a key, which is a room and a broadcast with a dot between them, and what may follow behind
// another one; rev is 0 when there is none.
func (l *Log) Archived(ctx context.Context, key string) (body []byte, rev uint64, err error) {
	rec, err := l.archive.last(ctx, key)
	if err != nil || rec == nil {
		return nil, 0, err
	}
	return rec.data, rec.seq, nil
}

// PutArchived puts a record into the place of the one with a revision (0: of none), for a time (0: for good). Its error wraps
// [hub.ErrConflict] when another one is there.
func (l *Log) PutArchived(ctx context.Context, key string, body []byte, rev uint64, life time.Duration) error {
	return l.archive.put(ctx, key, body, life, nats.Header{nats.ExpectedLastSubjSeqHdr: {fmt.Sprint(rev)}})
}

// ArchivedKeys lists the keys of records, of a room or of all rooms ("*"), without those of leases.
func (l *Log) ArchivedKeys(ctx context.Context, room string) (keys []string, err error) {
	all, err := l.archive.subjects(ctx, room+".*")
	for key := range all {
		keys = append(keys, key)
	}
	return keys, err
}

// ForgetArchived removes the record at a key.
func (l *Log) ForgetArchived(ctx context.Context, key string) error {
	return l.purge(ctx, l.archive.s, l.archive.s.subjects+key, hub.EndSeq)
}

// TellArchive tells back ends of a revision. The same id within two minutes is stored once.
func (l *Log) TellArchive(ctx context.Context, room, id string, body []byte) error {
	return l.tellFeed(ctx, "archive."+room, id, body)
}
