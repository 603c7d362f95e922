package natslog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// The feed is a stream of what back ends are told, apart from the room log: nothing on the way of
// a comment or a viewer waits for it, and a node without it is ready.

// feedAge is for how long back ends may be away and still be told.
const feedAge = 24 * time.Hour

// feed is the configuration of its stream.
func (l *Log) feed(epoch string) jetstream.StreamConfig {
	names := naming{l.cfg.Prefix}
	return jetstream.StreamConfig{
		Name: names.feedStream(), Description: "Kansei: events for back ends", Subjects: []string{names.feedSubjects() + ">"},
		Retention: jetstream.LimitsPolicy, Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld,
		MaxConsumers: -1, MaxMsgs: -1, MaxBytes: -1, MaxMsgsPerSubject: -1, MaxMsgSize: -1,
		MaxAge: feedAge, Replicas: l.cfg.Replicas, Duplicates: dedupeWindow, AllowDirect: true,
		Metadata: map[string]string{
			metaEpoch: epoch, metaLayout: strconv.Itoa(knownLayout), metaReads: strconv.Itoa(readsLayout),
		},
	}
}

// TellPresence stores a batch of joins and leaves of a room for back ends. The same id within two
// minutes is stored once. The stream is made when it is not there.
func (l *Log) TellPresence(ctx context.Context, room, id string, body []byte) error {
	m := &nats.Msg{Subject: naming{l.cfg.Prefix}.feedSubjects() + "presence." + room, Data: body, Header: nats.Header{headerID: {id}}}
	err := l.store(ctx, m)
	if errors.Is(err, natsconn.ErrNoResponders) {
		if err = l.createFeed(ctx); err == nil {
			err = l.store(ctx, m)
		}
	}
	if err != nil {
		return fmt.Errorf("natslog: the feed for back ends: %w: %w", hub.ErrUnavailable, err)
	}
	return nil
}

func (l *Log) createFeed(ctx context.Context) error {
	config := l.feed(newEpoch())
	if l.cfg.NeverCreate {
		return fmt.Errorf("stream %s %w", config.Name, errNeverCreate)
	}
	_, err := natsconn.API[jetstream.StreamInfo](ctx, l.conn, opCreate, l.cfg.api()+"STREAM.CREATE."+config.Name, config, nil)
	if err != nil && !natsconn.IsCode(err, natsconn.CodeStreamNameInUse) {
		return fmt.Errorf("create stream %s: %w", config.Name, explained(err, l.cfg.Replicas))
	}
	return nil
}

// store publishes a message and waits until the feed's stream has it.
func (l *Log) store(ctx context.Context, m *nats.Msg) error {
	var said error
	err := l.conn.AskWith(ctx, opFeed, m, 1, func(answer *nats.Msg) bool {
		var ack *jetstream.PubAck
		if ack, said = natsconn.Decode[jetstream.PubAck](answer.Data); said == nil && ack.Stream != (naming{l.cfg.Prefix}).feedStream() {
			said = fmt.Errorf("stream %q has taken it", ack.Stream)
		}
		return false
	})
	return errors.Join(err, said)
}

// Began is since when the room log is kept: since the first of its streams was made. It is the
// zero time while that is not known.
func (l *Log) Began() time.Time {
	var first time.Time
	for _, s := range l.logs {
		if made := s.identity().created; !made.IsZero() && (first.IsZero() || made.Before(first)) {
			first = made
		}
	}
	return first
}
