package natslog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// Beside the log and the states there are streams that the first record makes, and without which a node is ready: the
// table, the feed, the keys of the day.

// storeAside publishes a message and waits until a stream has it. The stream is made by a configuration when it is not there.
func (l *Log) storeAside(ctx context.Context, op string, m *nats.Msg, stream string, config func() jetstream.StreamConfig) error {
	err := l.publishAside(ctx, op, m, stream)
	if errors.Is(err, natsconn.ErrNoResponders) {
		if err = l.createAside(ctx, config()); err == nil {
			err = l.publishAside(ctx, op, m, stream)
		}
	}
	return err
}

func (l *Log) publishAside(ctx context.Context, op string, m *nats.Msg, stream string) error {
	var said error
	err := l.conn.AskWith(ctx, op, m, 1, func(answer *nats.Msg) bool {
		var ack *jetstream.PubAck
		if ack, said = natsconn.Decode[jetstream.PubAck](answer.Data); said == nil && ack.Stream != stream {
			said = fmt.Errorf("stream %q has taken it", ack.Stream)
		}
		return false
	})
	return errors.Join(err, said)
}

// createAside makes a stream. That another node was faster is no error.
func (l *Log) createAside(ctx context.Context, c jetstream.StreamConfig) error {
	if l.cfg.NeverCreate {
		return fmt.Errorf("stream %s %w", c.Name, errNeverCreate)
	}
	_, err := natsconn.API[jetstream.StreamInfo](ctx, l.conn, opCreate, l.cfg.api()+"STREAM.CREATE."+c.Name, c, nil)
	if err != nil && !natsconn.IsCode(err, natsconn.CodeStreamNameInUse) {
		return fmt.Errorf("create stream %s: %w", c.Name, explained(err, l.cfg.Replicas))
	}
	return nil
}

// aside is what the configurations of these streams have in common.
func (l *Log) aside(epoch string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld,
		MaxConsumers: -1, MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1,
		Replicas: l.cfg.Replicas, Duplicates: dedupeWindow,
		Metadata: map[string]string{
			metaEpoch: epoch, metaLayout: strconv.Itoa(knownLayout), metaReads: strconv.Itoa(readsLayout),
		},
	}
}

// apart is one of these streams.
type apart struct {
	l     *Log
	s     *stream
	op    string // of the metrics
	what  string // it keeps
	shape func(*jetstream.StreamConfig)
}

func newApart(l *Log, name, subjects, op, what string, shape func(*jetstream.StreamConfig)) *apart {
	s := &stream{l: l, name: name, subjects: subjects, partition: -1}
	s.domain.Store("")
	return &apart{l, s, op, what, shape}
}

func (a *apart) config() jetstream.StreamConfig {
	c := a.l.aside(newEpoch())
	c.Name, c.Description, c.Subjects, c.AllowDirect = a.s.name, "Kansei: "+a.what, []string{a.s.subjects + ">"}, true
	a.shape(&c)
	return c
}

// violated is told of a permission that is missing, and reports whether it is one for the stream.
func (a *apart) violated(v natsconn.Violation) bool { return a.s.refused(v) }

// refused is told of a permission that is missing, and reports whether it is one for the stream; if so its requests fail at once.
func (s *stream) refused(v natsconn.Violation) bool {
	if v.Subscribe || !strings.HasPrefix(v.Subject, s.subjects) && !strings.HasSuffix(v.Subject, "."+s.name) {
		return false
	}
	denied := &natsconn.PermissionError{Subjects: v.Subject}
	if strings.HasPrefix(v.Subject, s.subjects) {
		denied.Subjects = s.subjects + ">"
	}
	s.l.conn.Refuse(v.Subject, denied)
	return true
}

// put stores a message for a time (0: as long as the stream keeps it). Its error wraps [hub.ErrUnavailable], or [hub.ErrConflict] where the
// headers say behind which message it comes, and another one is there.
func (a *apart) put(ctx context.Context, subject string, body []byte, life time.Duration, h nats.Header) error {
	if life > 0 {
		h[headerTTL] = lifeHeader(life)[headerTTL]
	}
	err := a.l.storeAside(ctx, a.op, &nats.Msg{Subject: a.s.subjects + subject, Data: body, Header: h}, a.s.name, a.config)
	switch {
	case err == nil:
		return nil
	case natsconn.IsCode(err, natsconn.CodeWrongLastSequence):
		return fmt.Errorf("natslog: %s: %w", a.what, hub.ErrConflict)
	}
	return a.unavailable(err)
}

func (a *apart) unavailable(err error) error {
	return fmt.Errorf("natslog: %s: %w: %w", a.what, hub.ErrUnavailable, err)
}

// patiently asks again while a stream has no leader for a moment: those who read it have nowhere else to ask.
func (a *apart) patiently(ctx context.Context, ask func() error) (err error) {
	for try := range askTries {
		err = ask()
		if err == nil || natsconn.IsCode(err, natsconn.CodeStreamNotFound) || !a.l.conn.Connected() || try == askTries-1 || !sleep(ctx, jitter(askPause<<try)) {
			break
		}
	}
	return err
}

const (
	askTries = 5
	askPause = 100 * time.Millisecond
)

// last is the last message of a subject, as the leader has it; nil: there is none.
func (a *apart) last(ctx context.Context, subject string) (rec *record, err error) {
	err = a.patiently(ctx, func() error {
		rec, err = a.s.leaderGet(ctx, getRequest{LastFor: a.s.subjects + subject})
		return err
	})
	switch {
	case natsconn.IsCode(err, natsconn.CodeStreamNotFound):
		return nil, nil
	case err != nil:
		return nil, a.unavailable(err)
	}
	return rec, nil
}

// read reads the messages of a subject behind a sequence, up to the last one that there is when the call begins; it has
// that one's sequence, or after.
func (a *apart) read(ctx context.Context, subject string, after uint64, each func(*record) error) (upTo uint64, err error) {
	last, err := a.last(ctx, subject)
	if err != nil || last == nil || last.seq <= after {
		return after, err
	}
	err = a.s.read(ctx, subject, hub.Position{Seq: after}, last.seq, func(records []record, _ hub.Position) error {
		for i := range records {
			if records[i].seq > last.seq {
				return nil
			}
			if err := each(&records[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return after, a.unavailable(err)
	}
	return last.seq, nil
}

// subjects are those behind the stream's own part that have messages, and how many each has.
func (a *apart) subjects(ctx context.Context, filter string) (map[string]uint64, error) {
	all := map[string]uint64{}
	for {
		request := struct {
			Filter string `json:"subjects_filter"`
			Offset int    `json:"offset,omitempty"`
		}{a.s.subjects + filter, len(all)}
		var info *streamSubjects
		err := a.patiently(ctx, func() (err error) {
			info, err = natsconn.API[streamSubjects](ctx, a.l.conn, opInfo, a.l.cfg.api()+"STREAM.INFO."+a.s.name, request, nil)
			return err
		})
		switch {
		case natsconn.IsCode(err, natsconn.CodeStreamNotFound):
			return nil, nil
		case err != nil:
			return nil, a.unavailable(err)
		}
		before := len(all)
		for subject, n := range info.State.Subjects {
			all[strings.TrimPrefix(subject, a.s.subjects)] = n
		}
		if len(all) == before || len(all) >= info.Total {
			return all, nil
		}
	}
}

// streamSubjects is what is read of an answer that lists subjects.
type streamSubjects struct {
	Total int `json:"total"`
	State struct {
		Subjects map[string]uint64 `json:"subjects"`
	} `json:"state"`
}
