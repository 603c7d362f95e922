package natslog

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// Standing records are in the stream of states, behind the subject of the room's state: one subject
// for each, kansei.state.<room>.act.<id>, of which the last message counts. A room that is opened
// reads them all; what is written later is republished.

// headerTTL is how long a record lives, in seconds.
const headerTTL = "Nats-TTL"

// standingBatch is how many standing records are asked for at once, at most. The server counts what is
// left for each request, so that many small ones would take it longer than the records themselves.
const standingBatch = 16384

// actSubject is what precedes the id in the subject of a standing record of a room.
func (l *Log) actSubject(room string) string { return l.state.subjects + room + ".act." }

// Keep implements [hub.RoomLog].
func (l *Log) Keep(ctx context.Context, room string, st hub.Standing, life time.Duration) (hub.Standing, error) {
	s, err := l.usable(l.state, room)
	if err != nil {
		return hub.Standing{}, err
	}
	h := nats.Header{
		headerID:                    {changeID(room+"/"+st.ID, st.Seq, st.Body)},
		nats.ExpectedLastSubjSeqHdr: {strconv.FormatUint(st.Seq, 10)},
	}
	if life > 0 {
		h[headerTTL] = lifeHeader(life)[headerTTL]
	}
	type outcome struct {
		receipt hub.Receipt
		err     error
	}
	done := make(chan outcome, 1)
	l.appender.add(s, &nats.Msg{Subject: l.actSubject(room) + st.ID, Data: st.Body, Header: h},
		func(r hub.Receipt, err error) { done <- outcome{r, err} })
	var o outcome
	select {
	case o = <-done:
	case <-ctx.Done():
		return hub.Standing{}, fmt.Errorf("natslog: a record of room %s: %w: %w", room, hub.ErrUnknownOutcome, ctx.Err())
	}
	if _, is := errors.AsType[*sequenceError](o.err); is {
		there, err := l.Kept(ctx, room, st.ID)
		if err != nil {
			return hub.Standing{}, fmt.Errorf("natslog: a record of room %s: %w: %w", room, hub.ErrUnknownOutcome, err)
		}
		if string(there.Body) == string(st.Body) {
			return there, nil // an earlier try
		}
		return there, fmt.Errorf("natslog: record %s of room %s: %w", st.ID, room, hub.ErrConflict)
	}
	st.Seq = o.receipt.Seq
	return st, o.err
}

// lifeHeader has a record end by itself.
func lifeHeader(life time.Duration) nats.Header {
	return nats.Header{headerTTL: {strconv.FormatInt(int64(max(life, time.Second)/time.Second), 10)}}
}

// Kept implements [hub.RoomLog].
func (l *Log) Kept(ctx context.Context, room, id string) (hub.Standing, error) {
	s, err := l.usable(l.state, room)
	if err != nil {
		return hub.Standing{}, err
	}
	rec, err := s.leaderGet(ctx, getRequest{LastFor: l.actSubject(room) + id})
	if err != nil {
		return hub.Standing{}, unread("a record", room, err)
	}
	if rec == nil {
		return hub.Standing{ID: id}, nil
	}
	return hub.Standing{ID: id, Seq: rec.seq, Body: rec.data}, nil
}

// standing reads all standing records of a room, as the leader has them. Most come from any
// replica, many at a time; the leader tells what that one lacks.
func (f *follow) standing(ctx context.Context) ([]hub.Standing, error) {
	s := f.l.state
	prefix := f.l.actSubject(f.room)
	var all []hub.Standing
	at := uint64(0)
	take := func(rec *record) {
		at = rec.seq
		if newerSchema(rec.header) {
			f.l.tellNewer(recordState, rec)
			rec.data = nil // nobody knows what it does
		}
		all = append(all, hub.Standing{ID: strings.TrimPrefix(rec.subject, prefix), Seq: rec.seq, Body: rec.data})
	}
	for n := batchRecords; n > 0; {
		p, err := s.directGet(ctx, f.room+".act.*", at+1, nil, n)
		if err != nil && !errors.Is(err, errMirror) {
			return nil, err
		}
		for i := range p.records {
			take(&p.records[i])
		}
		n = 0
		if len(p.records) > 0 { // pending is how many follow the first one
			n = min(int(p.pending)+1-len(p.records), standingBatch)
		}
	}
	for {
		rec, err := s.leaderGet(ctx, getRequest{NextFor: prefix + "*", Seq: at + 1})
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
func (l *Log) UserHash(room, user string) string {
	h := hmac.New(sha256.New, []byte("kansei/user/"+l.state.identity().epoch))
	_, _ = h.Write([]byte(room + "\x00" + user)) // never fails
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil))[:26])
}

// Now implements [hub.RoomLog].
func (l *Log) Now() time.Time {
	return time.Now().Add(time.Duration(l.logs[0].ahead.Load()))
}

// KeepFor implements [hub.RoomLog].
func (l *Log) KeepFor() time.Duration { return l.cfg.MaxAge }
