// Presence follows who is in a room of Kansei, as a back end does: it lists the members, goes on
// from there with the joins and leaves that nodes publish on NATS, and prints each change.
//
//	go run ./docs/examples/presence --nats nats://127.0.0.1:4222 --url http://127.0.0.1:8080 --room lesson --token TOKEN
//
// The rules are those of protocol/PROTOCOL.md, "Joins and leaves".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/protocol"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	f := follower{here: map[string]bool{}}
	servers := flag.String("nats", nats.DefaultURL, "addresses of NATS")
	stream := flag.String("stream", "KANSEI_FEED", "the stream of events")
	flag.StringVar(&f.base, "url", "http://127.0.0.1:8080", "address of a node")
	flag.StringVar(&f.room, "room", "", "the room")
	flag.StringVar(&f.token, "token", "", "token of somebody of the staff")
	flag.Parse()
	if err := f.run(ctx, *servers, *stream); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

// follower knows who is in a room.
type follower struct {
	base, room, token string

	here       map[string]bool
	generation string
}

func (f *follower) run(ctx context.Context, servers, stream string) error {
	nc, err := nats.Connect(servers)
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	// From now on, in order; what comes while the members are listed waits.
	events, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{"kansei.feed.presence." + f.room, "kansei.feed.presence._all"},
		DeliverPolicy:  jetstream.DeliverNewPolicy,
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) && pause(ctx) { // it is made with the first event
		return f.run(ctx, servers, stream)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", stream, err)
	}
	messages, err := events.Messages()
	if err != nil {
		return err
	}
	defer messages.Stop()
	context.AfterFunc(ctx, messages.Stop)
	if err := f.list(ctx); err != nil {
		return err
	}
	fmt.Println("following", len(f.here))
	for {
		m, err := messages.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		var e protocol.PresenceEvent
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			return fmt.Errorf("%s: %w", m.Subject(), err)
		}
		if err := f.take(ctx, &e); err != nil {
			return err
		}
	}
}

// take takes in one batch.
func (f *follower) take(ctx context.Context, e *protocol.PresenceEvent) error {
	if e.Type == "reset" || e.Type == "presence" && e.Generation != f.generation {
		if err := f.list(ctx); err != nil {
			return err
		}
	}
	if e.Type != "presence" || e.Generation != f.generation {
		return nil
	}
	for _, u := range e.Joined {
		f.set(u.ID, true)
	}
	for _, u := range e.Left {
		f.set(u.ID, false)
	}
	return nil
}

func (f *follower) set(user string, here bool) {
	if f.here[user] == here {
		return
	}
	if here {
		f.here[user] = true
		fmt.Println("+", user)
	} else {
		delete(f.here, user)
		fmt.Println("-", user)
	}
}

// list lists the members anew, until all pages are of one generation.
func (f *follower) list(ctx context.Context) error {
	for {
		listed, generation := map[string]bool{}, ""
		for cursor, first := "", true; first || cursor != ""; first = false {
			page, err := f.page(ctx, cursor)
			if err != nil {
				return err
			}
			if !first && page.Generation != generation {
				generation = ""
				break
			}
			for _, u := range page.Users {
				listed[u.ID] = true
			}
			cursor, generation = page.Cursor, page.Generation
		}
		if generation == "" {
			continue
		}
		f.generation = generation
		for user := range listed {
			f.set(user, true)
		}
		for user := range f.here {
			f.set(user, listed[user])
		}
		return nil
	}
}

// page reads a page of members, and waits while none can be read.
func (f *follower) page(ctx context.Context, cursor string) (*protocol.Members, error) {
	at := f.base + "/v1/rooms/" + url.PathEscape(f.room) + "/viewers?leaving=1&limit=1000&cursor=" + url.QueryEscape(cursor)
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+f.token)
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return nil, err
		}
		var page protocol.Members
		err = json.NewDecoder(res.Body).Decode(&page)
		_ = res.Body.Close()
		switch {
		case res.StatusCode == http.StatusOK && err == nil && !page.Stale:
			return &page, nil
		case res.StatusCode == http.StatusOK && err != nil:
			return nil, err
		case res.StatusCode != http.StatusOK && res.StatusCode != http.StatusServiceUnavailable && res.StatusCode != http.StatusTooManyRequests:
			return nil, fmt.Errorf("%s: %s", at, res.Status)
		}
		if !pause(ctx) {
			return nil, ctx.Err()
		}
	}
}

// pause waits a second; false when the context has ended.
func pause(ctx context.Context) bool {
	select {
	case <-time.After(time.Second):
		return true
	case <-ctx.Done():
		return false
	}
}
