package natslog

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// Standing records are in the stream of states, behind the subject of the room's state. A room has up to
// 256 messages of them, by a hash of their ids: kansei.state.<room>.act.<00 to ff>. So ten thousand are
// read with 256 messages when the room is opened, and to write one sends few others again.
//
// Each message, a bucket, has a line for each record, the latest first: its id, its version, when it ends
// (Unix seconds; 0: it does not), and its body, which is JSON without line breaks. A bucket is replaced by
// compare-and-set. The version of a record is the sequence of the bucket that it was written upon, and 1.

const (
	// headerTTL is how long a bucket lives, in seconds.
	headerTTL = "Nats-TTL"
	// buckets is how many a room has.
	buckets = 256
	// keepTries is how often a record is written again when others have written into its bucket.
	keepTries = 32
)

// kept is a record in a bucket.
type kept struct {
	hub.Standing
	ends int64 // Unix seconds; 0: it does not end
}

// bucket is the records that a message has.
type bucket struct {
	seq   uint64
	newer bool // a later version has written it: nobody knows what it does
	all   []kept
}

// bucketOf is the bucket of a record.
func bucketOf(id string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id)) // never fails
	return int(h.Sum32() % buckets)
}

// actSubject is what precedes the number of a bucket in its subject.
func (l *Log) actSubject(room string) string { return l.state.subjects + room + ".act." }

// bucket reads one; rec is nil when there is none.
func (l *Log) bucket(rec *record) (b bucket) {
	if rec == nil {
		return b
	}
	b.seq, b.newer = rec.seq, newerSchema(rec.header)
	if b.newer {
		l.tellNewer(recordState, rec)
		return b
	}
	now := l.Now().Unix()
	for line := range bytes.SplitSeq(rec.data, []byte("\n")) {
		id, rest, _ := bytes.Cut(line, []byte(" "))
		version, rest, _ := bytes.Cut(rest, []byte(" "))
		ends, body, ok := bytes.Cut(rest, []byte(" "))
		v, err := strconv.ParseUint(string(version), 10, 64)
		end, err2 := strconv.ParseInt(string(ends), 10, 64)
		if !ok || err != nil || err2 != nil || end > 0 && end <= now {
			continue
		}
		b.all = append(b.all, kept{hub.Standing{ID: string(id), Seq: v, Body: body}, end})
	}
	return b
}

// find returns a record; without a version when it is not there.
func (b *bucket) find(id string) hub.Standing {
	for i := range b.all {
		if b.all[i].ID == id {
			return b.all[i].Standing
		}
	}
	return hub.Standing{ID: id}
}

// with is the message that has a record besides, or instead of its predecessor, and how long it lives; 0: for good.
func (b *bucket) with(st hub.Standing, ends int64) (data []byte, until int64) {
	line := func(k *kept) {
		data = fmt.Appendf(data, "%s %d %d %s\n", k.ID, k.Seq, k.ends, k.Body)
		if k.ends == 0 || until < 0 {
			until = -1
		} else {
			until = max(until, k.ends)
		}
	}
	line(&kept{st, ends})
	for i := range b.all {
		if b.all[i].ID != st.ID {
			line(&b.all[i])
		}
	}
	return data, max(until, 0)
}

// Keep implements [hub.RoomLog].
func (l *Log) Keep(ctx context.Context, room string, st hub.Standing, life time.Duration) (hub.Standing, error) {
	s, err := l.usable(l.state, room)
	if err != nil {
		return hub.Standing{}, err
	}
	if st.ID == "" || strings.ContainsAny(st.ID, " \n") || bytes.IndexByte(st.Body, '\n') >= 0 {
		return hub.Standing{}, fmt.Errorf("natslog: a record of room %s: %w: its id or body cannot be stored", room, hub.ErrUnavailable)
	}
	n := bucketOf(st.ID)
	l.keeping[n].Lock() // this node's own need not try again
	defer l.keeping[n].Unlock()
	subject := fmt.Sprintf("%s%02x", l.actSubject(room), n)
	for range keepTries {
		rec, err := s.leaderGet(ctx, getRequest{LastFor: subject})
		if err != nil {
			return hub.Standing{}, unread("a record", room, err)
		}
		b := l.bucket(rec)
		there := b.find(st.ID)
		switch {
		case b.newer:
			return hub.Standing{}, fmt.Errorf("natslog: a record of room %s: %w: a newer version has written beside it", room, hub.ErrUnavailable)
		case there.Seq == st.Seq:
		case bytes.Equal(there.Body, st.Body):
			return there, nil // an earlier try
		default:
			return there, fmt.Errorf("natslog: record %s of room %s: %w", st.ID, room, hub.ErrConflict)
		}
		next := hub.Standing{ID: st.ID, Seq: b.seq + 1, Body: st.Body}
		switch err := l.replace(ctx, s, room, subject, &b, next, life); {
		case err == nil:
			return next, nil
		case !isSequenceError(err):
			return hub.Standing{}, err
		}
	}
	return hub.Standing{}, fmt.Errorf("natslog: a record of room %s: %w: too much is written beside it", room, hub.ErrUnavailable)
}

// replace writes a bucket with a further record.
func (l *Log) replace(ctx context.Context, s *stream, room, subject string, b *bucket, next hub.Standing, life time.Duration) error {
	now, ends := l.Now().Unix(), int64(0)
	if life > 0 {
		ends = now + int64(max(life, time.Second)/time.Second)
	}
	data, until := b.with(next, ends)
	if nc := l.conn.NATS(); nc != nil && nc.MaxPayload() > 0 && int64(len(data)) > nc.MaxPayload()-(4<<10) {
		return fmt.Errorf("natslog: a record of room %s: %w: the room has too many acts in force", room, hub.ErrUnavailable)
	}
	h := nats.Header{
		headerID:                    {changeID(subject, b.seq, data)},
		nats.ExpectedLastSubjSeqHdr: {strconv.FormatUint(b.seq, 10)},
	}
	if until > 0 {
		h[headerTTL] = lifeHeader(time.Duration(until-now) * time.Second)[headerTTL]
	}
	done := make(chan error, 1)
	l.appender.add(s, &nats.Msg{Subject: subject, Data: data, Header: h}, func(_ hub.Receipt, err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("natslog: a record of room %s: %w: %w", room, hub.ErrUnknownOutcome, ctx.Err())
	}
}

func isSequenceError(err error) bool {
	_, is := errors.AsType[*sequenceError](err)
	return is
}

// lifeHeader has a message end by itself.
func lifeHeader(life time.Duration) nats.Header {
	return nats.Header{headerTTL: {strconv.FormatInt(int64(max(life, time.Second)/time.Second), 10)}}
}

// Kept implements [hub.RoomLog].
func (l *Log) Kept(ctx context.Context, room, id string) (hub.Standing, error) {
	s, err := l.usable(l.state, room)
	if err != nil {
		return hub.Standing{}, err
	}
	rec, err := s.leaderGet(ctx, getRequest{LastFor: fmt.Sprintf("%s%02x", l.actSubject(room), bucketOf(id))})
	if err != nil {
		return hub.Standing{}, unread("a record", room, err)
	}
	b := l.bucket(rec)
	return b.find(id), nil
}

// records are those that a bucket has; one that cannot be read where a later version has written it.
func (b *bucket) records() []hub.Standing {
	if b.newer {
		return []hub.Standing{{Seq: b.seq}}
	}
	out := make([]hub.Standing, len(b.all))
	for i := range b.all {
		out[i] = b.all[i].Standing
	}
	return out
}

// standing reads all standing records of a room, as the leader has them. Most come from any
// replica, many at a time; the leader tells what that one lacks. A record may come twice, the later version last.
func (f *follow) standing(ctx context.Context) ([]hub.Standing, error) {
	s := f.l.state
	var all []hub.Standing
	at := uint64(0)
	take := func(rec *record) {
		b := f.l.bucket(rec)
		at, all = rec.seq, append(all, b.records()...)
	}
	for {
		p, err := s.directGet(ctx, f.room+".act.*", at+1, nil, buckets)
		if err != nil && !errors.Is(err, errMirror) {
			return nil, err
		}
		for i := range p.records {
			take(&p.records[i])
		}
		if p.pending == 0 || len(p.records) == 0 || uint64(len(p.records)) > p.pending {
			break
		}
	}
	for {
		rec, err := s.leaderGet(ctx, getRequest{NextFor: f.l.actSubject(f.room) + "*", Seq: at + 1})
		if err != nil || rec == nil {
			return all, err
		}
		take(rec)
	}
}

// Event implements [hub.RoomLog].
func (l *Log) Event(ctx context.Context, room string, seq uint64) (*hub.Event, error) {
	s, err := l.partitionOf(room)
	if err != nil {
		return nil, err
	}
	rec, err := s.leaderGet(ctx, getRequest{Seq: seq})
	if err != nil {
		return nil, unread("event", room, err)
	}
	if rec == nil || rec.subject != s.subjects+room {
		return nil, nil
	}
	e, reason := rec.event()
	if reason != "" {
		return nil, nil
	}
	return &e, nil
}

// Forget implements [hub.RoomLog].
func (l *Log) Forget(ctx context.Context, room string, upTo uint64) error {
	s, err := l.partitionOf(room)
	if err != nil {
		return err
	}
	return l.purge(ctx, s, s.subjects+room, upTo)
}

// ForgetStanding implements [hub.RoomLog].
func (l *Log) ForgetStanding(ctx context.Context, room string) error {
	s, err := l.usable(l.state, room)
	if err != nil {
		return err
	}
	return l.purge(ctx, s, s.subjects+room+".>", hub.EndSeq)
}

// purge removes the records with a subject, up to a sequence.
func (l *Log) purge(ctx context.Context, s *stream, subject string, upTo uint64) error {
	ask := struct {
		Subject string `json:"filter"`
		Seq     uint64 `json:"seq,omitempty"` // up to here, without it
	}{Subject: subject}
	if upTo != hub.EndSeq {
		ask.Seq = upTo + 1
	}
	type answer struct {
		Success bool `json:"success"`
	}
	done, err := natsconn.API[answer](ctx, l.conn, opPurge, l.cfg.api()+"STREAM.PURGE."+s.name, ask, nil)
	switch {
	case err != nil:
		return fmt.Errorf("natslog: purge %s: %w: %w", subject, hub.ErrUnavailable, explained(err, 0))
	case !done.Success:
		return fmt.Errorf("natslog: purge %s: %w: it was not done", subject, hub.ErrUnavailable)
	}
	return nil
}

// UserHash implements [hub.RoomLog]. Its key is the identity of the stream: a record says nothing
// of who it is about without that.
// Every join and comment of a room with sanctions asks for it. Half of the digest is kept, so that
// SHA-256 needs no HMAC around it: nobody can go on from there.
func (l *Log) UserHash(room, user string) string {
	var text [256]byte
	all := append(text[:0], "kansei/user/"...)
	for _, part := range [...]string{l.state.identity().epoch, room, user} {
		all = append(append(all, part...), 0)
	}
	sum := sha256.Sum256(all)
	return userHashes.EncodeToString(sum[:16])
}

var userHashes = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Now implements [hub.RoomLog].
func (l *Log) Now() time.Time {
	return time.Now().Add(time.Duration(l.logs[0].ahead.Load()))
}

// KeepFor implements [hub.RoomLog].
func (l *Log) KeepFor() time.Duration { return l.cfg.MaxAge }
