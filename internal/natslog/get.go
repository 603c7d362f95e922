package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// getRequest asks for stored messages, of the leader (Seq, LastFor or NextFor with
// Seq) or of any replica (the rest too).
type getRequest struct {
	Seq       uint64     `json:"seq,omitempty"`
	LastFor   string     `json:"last_by_subj,omitempty"`
	NextFor   string     `json:"next_by_subj,omitempty"`
	Batch     int        `json:"batch,omitempty"`
	MaxBytes  int        `json:"max_bytes,omitempty"`
	StartTime *time.Time `json:"start_time,omitempty"`
	MultiLast []string   `json:"multi_last,omitempty"`
}

const (
	batchRecords = 256     // of one direct get; bounds its memory together with
	batchBytes   = 1 << 20 // which the server counts without its own headers
)

// storedMessage is the leader's answer to a getRequest.
type storedMessage struct {
	Message struct {
		Subject string    `json:"subject"`
		Seq     uint64    `json:"seq"`
		Header  []byte    `json:"hdrs"`
		Data    []byte    `json:"data"`
		Time    time.Time `json:"time"`
	} `json:"message"`
}

// leaderGet asks the stream's leader for one message; nil when there is none. No
// other server tells of one.
func (s *stream) leaderGet(ctx context.Context, r getRequest) (*record, error) {
	answer, err := natsconn.API[storedMessage](ctx, s.l.conn, opLeaderGet, s.l.cfg.api()+"STREAM.MSG.GET."+s.name, r, nil)
	if natsconn.IsCode(err, natsconn.CodeNoMessage) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask the leader of %s: %w", s.name, explained(err, 0))
	}
	m := answer.Message
	if m.Seq == 0 {
		return nil, fmt.Errorf("ask the leader of %s: an answer without a message", s.name)
	}
	rec := &record{seq: m.Seq, at: m.Time.UnixMilli(), subject: m.Subject, data: m.Data}
	if len(m.Header) > 0 {
		h, err := nats.DecodeHeadersMsg(m.Header)
		if err != nil {
			// A record that nobody can read is passed over like any other garbage.
			h, rec.data = nil, nil
		}
		rec.header = h
	}
	return rec, nil
}

// leaderLast is the last record of a room, as the leader has it; nil when it has
// none.
func (s *stream) leaderLast(ctx context.Context, room string) (*record, error) {
	return s.leaderGet(ctx, getRequest{LastFor: s.subjects + room})
}

// page is the answer to a batched direct get.
type page struct {
	records []record
	end     uint64 // everything up to here is in records, if it is still stored; 0 when nothing was found
	pending uint64 // how many records follow, at the time of the first one
}

// directGet reads up to n records of a room from a position or a time on, from
// any replica: what it answers has no holes, but may lack the latest.
func (s *stream) directGet(ctx context.Context, room string, from uint64, since *time.Time, n int) (page, error) {
	r := getRequest{NextFor: s.subjects + room, Batch: n, MaxBytes: batchBytes}
	if since != nil {
		r.StartTime = since
	} else {
		r.Seq = from
	}
	var (
		p       page
		unread  bool // a message whose envelope cannot be read came last
		refusal error
	)
	err := s.direct(ctx, opDirectGet, r, n+1, func(m *nats.Msg) bool {
		if status := status(m); status != "" {
			switch status {
			case "204": // the end of the batch
				if end, ok := parseSeq(m.Header, headerPrevious); ok && unread {
					p.end = max(p.end, end)
				}
			case "404":
			default:
				s.l.metrics.nats.Failed(opDirectGet)
				refusal = errors.New(describe(m))
			}
			return false
		}
		if refusal = s.misanswered(m); refusal != nil {
			return false
		}
		rec, ok := parseRecord(m)
		if !ok {
			s.l.metrics.skip(skipEnvelope)
			unread = true
			return true
		}
		if rec.previous != p.end && !unread {
			// An answer was lost on its way: what follows would leave a hole.
			return false
		}
		if len(p.records) == 0 {
			p.pending, _ = parseSeq(m.Header, headerPending)
		}
		p.records, p.end, unread = append(p.records, rec), rec.seq, false
		return true
	})
	if err == nil {
		err = refusal
	}
	if err != nil {
		return page{}, fmt.Errorf("direct get from %s: %w", s.name, err)
	}
	return p, nil
}

var errTooMany = errors.New("too many subjects for one request")

// lasts is the answer to a tail probe.
type lasts struct {
	records []record
	upTo    uint64 // nothing before or at this position is left out; 0 when not told
	unread  bool   // but for a room whose last record cannot be read
}

// directLasts reads the last record of each room that has one at or after a
// position.
func (s *stream) directLasts(ctx context.Context, rooms []string, from uint64) (lasts, error) {
	r := getRequest{Seq: from, MultiLast: make([]string, len(rooms))}
	for i, room := range rooms {
		r.MultiLast[i] = s.subjects + room
	}
	var (
		p       lasts
		end     uint64
		refusal error
	)
	err := s.direct(ctx, opTailProbe, r, len(rooms)+1, func(m *nats.Msg) bool {
		switch status(m) {
		case "":
			if refusal = s.misanswered(m); refusal != nil {
				return false
			}
			rec, ok := parseRecord(m)
			if !ok {
				s.l.metrics.skip(skipEnvelope)
				p.unread = true
				return true
			}
			if rec.previous != end && !p.unread {
				refusal = errors.New("an answer was lost")
				return false
			}
			p.records, end = append(p.records, rec), rec.seq
			return true
		case "204":
			p.upTo, _ = parseSeq(m.Header, headerUpTo)
			if n, ok := parseSeq(m.Header, headerPending); ok && n > 0 {
				p.upTo = min(p.upTo, end) // cut short by its size
			}
		case "404":
		case "413":
			refusal = errTooMany
		default:
			s.l.metrics.nats.Failed(opTailProbe)
			refusal = errors.New(describe(m))
		}
		return false
	})
	if err == nil {
		err = refusal
	}
	if err != nil {
		return lasts{}, fmt.Errorf("tail probe of %s: %w", s.name, err)
	}
	return p, nil
}

// misanswered is why a message that was got directly is not to be used; nil when it is.
func (s *stream) misanswered(m *nats.Msg) error {
	if s.foreign(m) {
		return errMirror
	}
	if natsconn.Last(m.Header, headerSequence) != "" && natsconn.Last(m.Header, headerPending) == "" {
		return fmt.Errorf("it was answered by a nats-server older than %s: %w", oldestServer, errOldServer)
	}
	return nil
}

// direct asks any replica, unless a mirror would answer.
func (s *stream) direct(ctx context.Context, op string, r getRequest, most int, each func(*nats.Msg) bool) error {
	if s.byMirror() {
		return errMirror
	}
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return s.l.conn.Ask(ctx, op, s.l.cfg.directGet+s.name, body, most, each)
}

// status is the status of an answer that is none of the messages asked for; empty
// for one that is. (A stored record could have a header of that name.)
func status(m *nats.Msg) string {
	if natsconn.Last(m.Header, headerSubject) != "" {
		return ""
	}
	return natsconn.Last(m.Header, headerStatus)
}

func describe(m *nats.Msg) string {
	return natsconn.Last(m.Header, headerStatus) + " " + natsconn.Last(m.Header, "Description")
}
