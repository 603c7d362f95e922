package natslog

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
