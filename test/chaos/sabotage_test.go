//go:build unix

package chaos

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/edge"
	"github.com/kansei-live/kansei/internal/embedded"
	"github.com/kansei-live/kansei/internal/moderation"
	"github.com/kansei-live/kansei/internal/natslog"
	"github.com/kansei-live/kansei/internal/redispresence"
	"github.com/kansei-live/kansei/internal/socket"
	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/loadtest/audit"
	"github.com/kansei-live/kansei/loadtest/crowd"
	"github.com/kansei-live/kansei/protocol"
)

// saboteur stands between a node and its room log, and once it is armed does one thing
// wrong, once.
type saboteur struct {
	hub.RoomLog
	// tamper makes what is delivered out of what is to be; it says when it has done its
	// work. nil: nothing.
	tamper func(events []hub.Event) (out []hub.Event, done bool)
	// lie has the next append acknowledged and not done: that of a comment, or with acts that of an act.
	lie, acts bool

	mu    sync.Mutex
	armed bool
	done  bool
}

func (s *saboteur) arm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = true
}

// finished reports whether the work is done.
func (s *saboteur) finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

func (s *saboteur) Append(room string, d hub.Draft, done func(hub.Receipt, error)) {
	s.mu.Lock()
	lies := s.armed && !s.done && s.lie && (d.Kind == hub.KindAct) == s.acts
	s.done = s.done || lies
	s.mu.Unlock()
	if lies {
		go done(hub.Receipt{Seq: 1 << 40}, nil) // done does not block
		return
	}
	s.RoomLog.Append(room, d, done)
}

func (s *saboteur) Follow(room string, recent int, f hub.Follower) hub.Follow {
	return s.RoomLog.Follow(room, recent, &tampering{f, s})
}

// tampering is what a saboteur puts before a follower.
type tampering struct {
	hub.Follower
	s *saboteur
}

func (t *tampering) Deliver(events []hub.Event) {
	t.s.mu.Lock()
	if t.s.armed && !t.s.done && t.s.tamper != nil {
		events, t.s.done = t.s.tamper(events)
	}
	t.s.mu.Unlock()
	if len(events) > 0 {
		t.Follower.Deliver(events)
	}
}

// node is a whole node in this process, with a saboteur in it.
func startNode(t *testing.T, s *saboteur) (url, secret string, log *nats.Conn) {
	t.Helper()
	server, err := embedded.StartNATS(embedded.NATSConfig{StoreDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	redis := embedded.StartRedis()
	t.Cleanup(redis.Close)
	client := redispresence.Inside(redis.Dial)
	t.Cleanup(func() { _ = client.Close() })
	presence := redispresence.New(redispresence.Config{Client: client, Buckets: 1})
	t.Cleanup(func() { _ = presence.Close(context.Background()) })
	roomLog, err := natslog.Open(natslog.Config{URLs: []string{"nats://inside"}, Options: []nats.Option{server.Option()}})
	must(t, err)
	t.Cleanup(func() { _ = roomLog.Close(context.Background()) })
	for roomLog.Ready() != nil {
		time.Sleep(10 * time.Millisecond)
	}
	s.RoomLog = roomLog
	desk := moderation.New(moderation.Config{Log: s, Entries: roomLog, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(desk.Close)
	rooms := hub.New(hub.Config{Log: s, Presence: presence, Finish: desk.Finish})
	t.Cleanup(rooms.Close)
	sockets := socket.NewServer(socket.Config{MaxMessage: 8192, Deflate: true})
	secret = strings.Repeat("secret", 8)
	tokens, err := auth.NewVerifier([]byte(secret))
	must(t, err)
	watch := watchlog.New(watchlog.Config{
		Now: roomLog.Now, Store: roomLog.TellWatch, Mode: protocol.WatchUsers, Beat: 30 * time.Second,
		Metrics: watchlog.NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = watch.Close(ctx)
	})
	e := edge.New(edge.Config{
		Watch: watch,
		Hub:   rooms, Log: s, Desk: desk, Moderation: roomLog, MaxSweep: 2000, Sockets: sockets, Tokens: tokens, Guests: protocol.GuestsNone, GuestIDs: new(auth.Guests),
		ViewerRate: edge.Rate{PerS: 100, Burst: 100}, StaffRate: edge.Rate{PerS: 1000, Burst: 1000},
		ViewerText: 200, StaffText: 1000, MaxMessage: 8192, MaxViewers: 1000, Beat: 30 * time.Second,
		Sent: sockets.SentBytes, Metrics: edge.NewMetrics(nil), Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(e.Close)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = sockets.Close(ctx)
	})
	mux := http.NewServeMux()
	e.Register(mux)
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	log, err = nats.Connect("nats://inside", server.Option())
	must(t, err)
	t.Cleanup(log.Close)
	return web.URL, secret, log
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The product is broken on purpose, each time in another way, and each time the audit
// finds it, and nothing else. With nobody breaking it, it finds nothing.
func TestAuditFindsSabotage(t *testing.T) {
	t.Parallel()
	const viewers = 6
	var held *hub.Event
	for name, c := range map[string]struct {
		saboteur *saboteur
		tail     bool // armed for the last comment alone
		want     map[string]int
	}{
		"nobody": {saboteur: new(saboteur)},
		"one comment is dropped": {
			saboteur: &saboteur{tamper: func(events []hub.Event) ([]hub.Event, bool) { return events[1:], true }},
			// Historians are owed it too, and publishers are viewers.
			want: map[string]int{"lost on the way": viewers + 2 + 1},
		},
		"one is delivered twice": {
			saboteur: &saboteur{tamper: func(events []hub.Event) ([]hub.Event, bool) {
				return append([]hub.Event{events[0]}, events...), true
			}},
			want: map[string]int{"duplicated": viewers + 2 + 1},
		},
		"two are swapped": {
			saboteur: &saboteur{tamper: func(events []hub.Event) ([]hub.Event, bool) {
				if held == nil {
					held = &events[0]
					return events[1:], false
				}
				return append([]hub.Event{events[0], *held}, events[1:]...), true
			}},
			want: map[string]int{"disordered": viewers + 2 + 1},
		},
		"one is acknowledged before the append, which fails": {
			saboteur: &saboteur{lie: true},
			want:     map[string]int{"lost in the log": 1},
		},
		"one is lost at the tail": {
			saboteur: &saboteur{tamper: func(events []hub.Event) ([]hub.Event, bool) { return events[:len(events)-1], true }},
			tail:     true,
			want:     map[string]int{"lost on the way": viewers + 2 + 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := c.saboteur
			url, secret, nc := startNode(t, s)
			journal := audit.NewJournal()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			here, err := crowd.Join(ctx, crowd.Config{
				Front: url, Nodes: []string{url}, Secret: secret, Rooms: []string{"r"},
				Viewers: viewers, JoinRate: 100, Publishers: 2, Rate: 100, Seed: 1, Journal: journal,
			})
			must(t, err)
			defer here.Leave()
			cursors := map[string]string{}
			for len(cursors) == 0 {
				cursors = here.Cursors()
			}
			talk := here.Publish()
			time.Sleep(300 * time.Millisecond)
			if !c.tail {
				s.arm()
				for name != "nobody" && !s.finished() {
					time.Sleep(5 * time.Millisecond)
				}
				time.Sleep(300 * time.Millisecond)
			}
			talk.Stop()
			if c.tail {
				s.arm()
			}
			last, err := here.Mark(ctx)
			must(t, err)
			for end := time.Now().Add(3 * time.Second); here.Behind(last) > 0 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			if behind := here.Behind(last); (behind > 0) != c.tail {
				t.Errorf("%d viewers are behind", behind)
			}
			history, end := context.WithTimeout(ctx, 3*time.Second)
			defer end()
			if err := here.History(history, cursors, last); (err != nil) != c.tail {
				t.Errorf("history: %v", err)
			}
			here.Leave()
			log, err := readStream(ctx, nc, "KANSEI_LOG_0")
			must(t, err)
			v := journal.Verify(log)
			if v.Acknowledged < 20 {
				t.Errorf("%d comments were acknowledged", v.Acknowledged)
			}
			for _, f := range v.Findings() {
				if f.N != c.want[f.Name] {
					t.Errorf("%s: found %d, want %d", f.Name, f.N, c.want[f.Name])
				}
			}
			if t.Failed() {
				t.Log(v)
			}
		})
	}
}

// The same of acts of moderators: one that a node does not hear, and one that is acknowledged and not done.
func TestAuditFindsSabotagedActs(t *testing.T) {
	t.Parallel()
	deaf := func(events []hub.Event) ([]hub.Event, bool) {
		return slices.DeleteFunc(slices.Clone(events), func(e hub.Event) bool { return e.Kind == hub.KindAct }), false
	}
	for name, c := range map[string]struct {
		saboteur *saboteur
		want     string
	}{
		"nobody":                        {&saboteur{}, ""},
		"a node that hears of no act":   {&saboteur{tamper: deaf}, "shown"},
		"an act acknowledged, not done": {&saboteur{lie: true, acts: true}, "acts lost"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, secret, nc := startNode(t, c.saboteur)
			journal := audit.NewJournal()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			here, err := crowd.Join(ctx, crowd.Config{
				Front: url, Nodes: []string{url}, Secret: secret, Rooms: []string{"r"},
				Viewers: 6, JoinRate: 100, Publishers: 3, Rate: 60, Acts: 20, Seed: 1, Journal: journal,
			})
			must(t, err)
			defer here.Leave()
			cursors := map[string]string{}
			for len(cursors) == 0 {
				cursors = here.Cursors()
			}
			c.saboteur.arm()
			talk := here.Publish()
			time.Sleep(4 * time.Second)
			talk.Stop()
			last, err := here.Mark(ctx)
			must(t, err)
			for end := time.Now().Add(5 * time.Second); here.Behind(last) > 0 && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			history, end := context.WithTimeout(ctx, 5*time.Second)
			defer end()
			must(t, here.History(history, cursors, last))
			here.Leave()
			log, err := readStream(ctx, nc, "KANSEI_LOG_0")
			must(t, err)
			v := journal.Verify(log)
			if v.Acts < 2 || v.Hidden < 2 || c.want == "" && v.Acts < 20 {
				t.Errorf("%d acts, %d comments hidden", v.Acts, v.Hidden)
			}
			found := map[string]bool{}
			for _, f := range v.Failed() {
				found[f.Name] = true
			}
			if c.want == "" && len(found) > 0 || c.want != "" && !found[c.want] {
				t.Errorf("found %v, want %s\n%s", found, c.want, v)
			}
		})
	}
}
