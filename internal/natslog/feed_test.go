package natslog

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// A batch for back ends is stored once under its id, in a stream that is made with the first one.
func TestFeed(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: []string{s.ClientURL()}})
	ctx := testContext(t)
	if began := l.Began(); time.Since(began) > time.Minute || began.IsZero() {
		t.Errorf("the log began %v", began)
	}
	for _, id := range []string{"one", "one", "two"} {
		if err := l.TellPresence(ctx, "r", id, []byte(`{"id":"`+id+`"}`)); err != nil {
			t.Fatal(err)
		}
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(ctx, "KANSEI_FEED")
	if err != nil {
		t.Fatal(err)
	}
	config := stream.CachedInfo().Config
	if config.MaxAge != feedAge || config.Metadata[metaLayout] == "" || len(config.Subjects) != 1 || config.Subjects[0] != "kansei.feed.>" {
		t.Errorf("the stream is %+v", config)
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 2 {
		m, err := consumer.Next()
		if err != nil {
			t.Fatal(err)
		}
		var body struct{ ID string }
		if err := json.Unmarshal(m.Data(), &body); err != nil || m.Subject() != "kansei.feed.presence.r" {
			t.Errorf("%s: %s, %v", m.Subject(), m.Data(), err)
		}
		got = append(got, body.ID)
	}
	if strings.Join(got, " ") != "one two" || stream.CachedInfo().State.Msgs != 2 {
		t.Errorf("stored are %q, %d messages", got, stream.CachedInfo().State.Msgs)
	}
	// It is made anew where somebody has deleted it.
	if err := js.DeleteStream(ctx, "KANSEI_FEED"); err != nil {
		t.Fatal(err)
	}
	if err := l.TellPresence(ctx, "r", "three", []byte(`{}`)); err != nil {
		t.Error(err)
	}
}

// A node that may make no streams says which one is missing, and is ready without it.
func TestFeedIsNotThere(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	closeLog(t, openReady(t, Config{URLs: []string{s.ClientURL()}}))
	l := openReady(t, Config{URLs: []string{s.ClientURL()}, NeverCreate: true})
	err := l.TellPresence(testContext(t), "r", "one", []byte(`{}`))
	if !errors.Is(err, hub.ErrUnavailable) || !strings.Contains(err.Error(), "KANSEI_FEED is not there, and --log-create=never") {
		t.Error(err)
	}
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
}
