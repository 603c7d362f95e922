//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/loadtest/audit"
)

// readLog reads what the log holds, from NATS itself.
func (l *lab) readLog(ctx context.Context) ([]audit.Entry, error) {
	js, err := jetstream.New(l.nc)
	if err != nil {
		return nil, err
	}
	var all []audit.Entry
	for _, name := range l.streams() {
		entries, err := readStream(ctx, js, name)
		// A server that has just come back may not know yet who leads.
		for tries := 1; err != nil && tries < maxReads; tries++ {
			if err := sleep(ctx, time.Second); err != nil {
				return nil, err
			}
			entries, err = readStream(ctx, js, name)
		}
		if err != nil {
			return nil, fmt.Errorf("chaos: read %s: %w", name, err)
		}
		all = append(all, entries...)
	}
	return all, nil
}

const maxReads = 30

func readStream(ctx context.Context, js jetstream.JetStream, name string) ([]audit.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	stream, err := js.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	info, err := stream.Info(ctx)
	if err != nil || info.State.Msgs == 0 {
		return nil, err
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return nil, err
	}
	messages, err := consumer.Messages()
	if err != nil {
		return nil, err
	}
	defer messages.Stop()
	var out []audit.Entry
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return nil, fmt.Errorf("%d of %d: %w", len(out), info.State.Msgs, err)
		}
		meta, err := m.Metadata()
		if err != nil {
			return nil, err
		}
		var body struct {
			Text    string
			MediaMS int64 `json:"media_ms"`
			User    struct{ ID string }
		}
		if err := json.Unmarshal(m.Data(), &body); err != nil {
			return nil, fmt.Errorf("%d: %w", meta.Sequence.Stream, err)
		}
		out = append(out, audit.Entry{
			Room: m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:], Seq: meta.Sequence.Stream,
			Serial: audit.Serial(body.MediaMS), Author: body.User.ID, Digest: audit.Digest(body.User.ID, body.Text),
		})
		if meta.NumPending == 0 {
			return out, nil
		}
	}
}
