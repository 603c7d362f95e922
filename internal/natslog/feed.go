package natslog

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// The feed is a stream of what back ends are told, apart from the room log: nothing on the way of
// a comment or a viewer waits for it, and a node without it is ready.

// feedAge is for how long back ends may be away and still be told.
const feedAge = 24 * time.Hour

// feed is the configuration of its stream.
func (l *Log) feed() jetstream.StreamConfig {
	names, c := naming{l.cfg.Prefix}, l.aside(newEpoch())
	c.Name, c.Description, c.Subjects = names.feedStream(), "Kansei: events for back ends", []string{names.feedSubjects() + ">"}
	c.MaxAge, c.AllowDirect = feedAge, true
	return c
}

// TellPresence stores a batch of joins and leaves of a room for back ends. The same id within two
// minutes is stored once. The stream is made when it is not there.
func (l *Log) TellPresence(ctx context.Context, room, id string, body []byte) error {
	return l.tellFeed(ctx, "presence."+room, id, body)
}

func (l *Log) tellFeed(ctx context.Context, subject, id string, body []byte) error {
	names := naming{l.cfg.Prefix}
	m := &nats.Msg{Subject: names.feedSubjects() + subject, Data: body, Header: nats.Header{headerID: {id}}}
	if err := l.storeAside(ctx, opFeed, m, names.feedStream(), l.feed); err != nil {
		return fmt.Errorf("natslog: the feed for back ends: %w: %w", hub.ErrUnavailable, err)
	}
	return nil
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
