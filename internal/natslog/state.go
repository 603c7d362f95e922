package natslog

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
	"github.com/kansei-live/kansei/protocol"
)

// The state of a room is one record, which replaces the one before. Its revision is the
// record's position in the stream of states and, in the lowest bits, a hash of its id: a
// stream that has lost its end gives positions again, and a change that was based on a
// state of another past must not replace what its author never saw.
//
// The id is the hash of the change: the room, the revision that it was based on, and the
// new state. So a change that is tried again, by this node or by a client whose connection
// died, has the id that it had. The stream knows it for two minutes; and each record names
// the changes before it, so that a change can be found that others have followed.

const (
	// headerPast names the changes before a state's, the latest first: revision and id of
	// each, with a colon between them and commas around.
	headerPast = "Kansei-Past"
	// pastChanges is how many of them a record names; some 40 bytes each.
	pastChanges = 8
	// revisionHash is how many bits of a revision are of the hash. A million to one is
	// enough beside a fault that is rare already, and 33 bits are left for positions:
	// browsers count exactly up to 2⁵³.
	revisionHash = 20
)

// revision is that of the state that a position of the stream has, by its id.
func revision(seq uint64, id string) uint64 {
	h := sha256.Sum256([]byte(id))
	return seq<<revisionHash | uint64(binary.BigEndian.Uint32(h[:4])>>(32-revisionHash))
}

// revision is that of the state that the record has; 0 when there is none.
func (r *record) revision() uint64 {
	if r == nil {
		return 0
	}
	if id := natsconn.Last(r.header, headerID); id != "" {
		return revision(r.seq, id)
	}
	return revision(r.seq, strconv.FormatInt(r.at, 10)) // somebody else has written it
}

// state is the state that the record has.
func (r *record) state() hub.State {
	if r == nil {
		return hub.State{}
	}
	// The document as it is stored, with the fields that this node does not know.
	return hub.State{Rev: r.revision(), Body: r.data}
}

// change is one of those that have led to a state.
type change struct {
	rev uint64
	id  string
}

// changes are those that a state's record tells of, the latest, its own, first.
func (r *record) changes() []change {
	if r == nil {
		return nil
	}
	all := []change{{r.revision(), natsconn.Last(r.header, headerID)}}
	for part := range strings.SplitSeq(natsconn.Last(r.header, headerPast), ",") {
		rev, id, _ := strings.Cut(part, ":")
		n, err := strconv.ParseUint(rev, 36, 64)
		if err != nil || len(all) > pastChanges {
			break
		}
		all = append(all, change{n, id})
	}
	return all
}

// changeID is the id of a change.
func changeID(room string, rev uint64, body []byte) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "state/%s/%d/", room, rev) // a hash takes everything
	_, _ = h.Write(body)
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16])
}

// State implements [hub.RoomLog].
func (l *Log) State(ctx context.Context, room string) (hub.State, error) {
	s, err := l.usable(l.state, room)
	if err != nil {
		return hub.State{}, err
	}
	rec, err := s.leaderLast(ctx, room)
	if err != nil {
		return hub.State{}, unread("state", room, err)
	}
	return rec.state(), nil
}

// SetState implements [hub.RoomLog]. Besides [hub.ErrConflict] its errors are
// those of an append. A change that was done and followed by more than pastChanges others
// cannot be told from a conflict. A state of a newer schema is not replaced: [hub.ErrUnavailable].
func (l *Log) SetState(ctx context.Context, room string, rev uint64, body []byte) (hub.State, error) {
	s, err := l.usable(l.state, room)
	if err != nil {
		return hub.State{}, err
	}
	rec, err := s.leaderLast(ctx, room)
	if err != nil {
		return hub.State{}, unread("state", room, err)
	}
	id := changeID(room, rev, body)
	if rec.revision() != rev {
		return l.done(room, rec, rev, id)
	}
	if err := newerState(rec); err != nil {
		l.tellNewer(recordState, rec)
		return hub.State{}, fmt.Errorf("natslog: state of room %s: %w: %w", room, hub.ErrUnavailable, err)
	}
	receipt, stored, err := l.write(ctx, s, room, id, rec, body)
	if err == nil && receipt.Duplicate {
		// Done between the two, or removed by an operator since.
		if now, unread := s.leaderLast(ctx, room); unread == nil && now.revision() == rev {
			id = rand.Text()
			receipt, stored, err = l.write(ctx, s, room, id, now, body)
		}
	}
	if err == nil {
		return hub.State{Rev: revision(receipt.Seq, id), Body: stored}, nil
	}
	if _, is := errors.AsType[*sequenceError](err); !is {
		return hub.State{}, err
	}
	// Another change was faster, or an earlier try of this one, which others may have
	// followed.
	if rec, err = s.leaderLast(ctx, room); err != nil {
		return hub.State{}, fmt.Errorf("natslog: state of room %s: %w: %w", room, hub.ErrUnknownOutcome, err)
	}
	return l.done(room, rec, rev, id)
}

// done looks for a change among those that have led to a state; if it is not there, it is
// a conflict.
func (l *Log) done(room string, rec *record, rev uint64, id string) (hub.State, error) {
	for _, c := range rec.changes() {
		switch {
		case c.id != id:
		case c.rev == rec.revision():
			return rec.state(), nil
		default:
			return hub.State{Rev: c.rev}, nil
		}
	}
	return hub.State{}, fmt.Errorf("natslog: state of room %s is not at revision %d: %w", room, rev, hub.ErrConflict)
}

// write stores a state, if that before it is still the room's. It keeps the fields of the one
// before that this node does not know.
func (l *Log) write(ctx context.Context, s *stream, room, id string, before *record, body []byte) (r hub.Receipt, stored []byte, err error) {
	h := nats.Header{headerID: {id}, nats.ExpectedLastSubjSeqHdr: {"0"}}
	if before != nil {
		h[nats.ExpectedLastSubjSeqHdr] = []string{strconv.FormatUint(before.seq, 10)}
		var past []string
		for _, c := range before.changes() {
			past = append(past, strconv.FormatUint(c.rev, 36)+":"+c.id)
		}
		h[headerPast] = []string{strings.Join(past[:min(len(past), pastChanges)], ",")}
		body = protocol.MergeState(before.data, body, l.Now().UnixMilli())
	} else {
		body = protocol.MergeState(nil, body, l.Now().UnixMilli())
	}
	type outcome struct {
		receipt hub.Receipt
		err     error
	}
	done := make(chan outcome, 1)
	l.appender.add(s, &nats.Msg{Subject: s.subjects + room, Data: body, Header: h},
		func(r hub.Receipt, err error) { done <- outcome{r, err} })
	select {
	case o := <-done:
		return o.receipt, body, o.err
	case <-ctx.Done():
		return hub.Receipt{}, nil, fmt.Errorf("natslog: state of room %s: %w: %w", room, hub.ErrUnknownOutcome, ctx.Err())
	}
}
