package natslog

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// large is a draft of so many bytes.
func large(id string, size int) hub.Draft {
	d := draft1(id)
	d.Body = []byte(`{"text":"` + id + `","x":"` + strings.Repeat("x", size) + `"}`)
	return d
}

// fillUp appends until the log refuses, and tells what it has taken, and what its last
// word was. Each refusal must have come at once.
func fillUp(t *testing.T, l *Log, what string) (taken map[string]bool, refused []string, last error) {
	t.Helper()
	taken = make(map[string]bool)
	for i := 0; len(refused) < 3; i++ {
		if i > 2000 {
			t.Fatal("it never is full")
		}
		id := fmt.Sprint(what, i)
		began := time.Now()
		a := appendAll(t, l, "r", large(id, 8000))[0]
		if a.err == nil {
			taken[id] = true
			continue
		}
		refused, last = append(refused, id), a.err
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("%s was refused after %v: %v", id, took, a.err)
		}
	}
	return taken, refused, last
}

// holds checks that the log and an observer hold what was taken, and nothing that was
// refused.
func holds(t *testing.T, l *Log, o *observer, taken map[string]bool, refused []string) {
	t.Helper()
	id := func(e hub.Event) string {
		s := string(e.Body)[len(`{"text":"`):]
		return s[:strings.IndexByte(s, '"')]
	}
	check := func(where string, events []hub.Event) error {
		got := make(map[string]bool)
		for _, e := range events {
			got[id(e)] = true
		}
		for _, id := range refused {
			if got[id] {
				return fmt.Errorf("%s has %s, which was refused", where, id)
			}
		}
		for id := range taken {
			if !got[id] {
				return fmt.Errorf("%s has no %s", where, id)
			}
		}
		return nil
	}
	eventually(t, 20*time.Second, "the followers have all", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.wrong != nil || o.resets != 1 {
			return fmt.Errorf("%d resets, %w", o.resets, o.wrong)
		}
		return check("the room", o.events)
	})
	if l == nil {
		return
	}
	eventually(t, 20*time.Second, "the log has all", func() error {
		events, _, err := l.Read(testContext(t), "r", l.epochOf("r"), hub.Position{}, 10_000)
		if err != nil {
			return err
		}
		return check("the log", events)
	})
}

// A log that is full, by whatever limit, refuses at once and clearly; nothing that it
// has refused appears; who follows it stays; and it goes on when there is room again.
func TestFullStorage(t *testing.T) {
	t.Parallel()
	const limit = 400 << 10
	for name, c := range map[string]struct {
		options  server.Options
		restrict func(t *testing.T, s *server.Server, js jetstream.JetStream)
		code     string
	}{
		"of the server": {options: server.Options{JetStreamMaxStore: limit}, code: "10023"},
		"of the account": {code: "10002", restrict: func(t *testing.T, s *server.Server, _ jetstream.JetStream) {
			err := s.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{
				"": {MaxMemory: -1, MaxStore: limit, MaxStreams: -1, MaxConsumers: -1},
			})
			if err != nil {
				t.Fatal(err)
			}
		}},
		"of the stream, which an operator has told to keep the old": {code: "10077", restrict: func(t *testing.T, _ *server.Server, js jetstream.JetStream) {
			st, err := js.Stream(testContext(t), "KANSEI_LOG_0")
			if err != nil {
				t.Fatal(err)
			}
			cfg := st.CachedInfo().Config
			cfg.MaxBytes, cfg.Discard = limit, jetstream.DiscardNew
			if _, err := js.UpdateStream(testContext(t), cfg); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServerWith(t, t.TempDir(), 0, c.options)
			l := openReady(t, Config{URLs: urls(s)})
			js := jetStream(t, s.ClientURL())
			o, _ := followRoom(t, l, "r", 0)
			mustAppend(t, l, "r", "a")
			if c.restrict != nil {
				c.restrict(t, s, js)
			}
			taken, refused, err := fillUp(t, l, "full")
			if !errors.Is(err, hub.ErrUnavailable) || !strings.Contains(err.Error(), c.code) {
				t.Errorf("refused with %v", err)
			}
			if len(taken) < 5 {
				t.Errorf("only %d were taken", len(taken))
			}
			holds(t, l, o, taken, refused)
			if err := degradedIs(o, false); err != nil {
				t.Errorf("the room is degraded: %v", err)
			}

			purge(t, js, uint64(len(taken)))
			taken = make(map[string]bool)
			for i := range 5 {
				id := fmt.Sprint("again", i)
				if a := appendAll(t, l, "r", large(id, 8000))[0]; a.err != nil {
					t.Errorf("when there is room again: %v", a.err)
				}
				taken[id] = true
			}
			holds(t, nil, o, taken, refused)
		})
	}
}

// The same of a cluster. Over the limit of an account its leader refuses. Over that of
// the servers it steps down, and no other server wants to lead: there is nobody to take
// an append until somebody allows more, or what is too old has gone.
func TestFullCluster(t *testing.T) {
	t.Parallel()
	var limit int64 = 1 << 20
	c := newCluster(t, func(o *server.Options) { o.JetStreamMaxStore = limit })
	servers := c.start(t, 0, 1, 2)
	l := open(t, Config{URLs: c.urls(), Replicas: 3, AppendTimeout: 6 * time.Second})
	eventually(t, 60*time.Second, "the cluster is ready", l.Ready)
	o, _ := followRoom(t, l, "r", 0)
	all := make(map[string]bool)
	var refused []string
	settle := func(id string, a appended) error {
		switch {
		case a.err == nil:
			all[id] = true
		case errors.Is(a.err, hub.ErrUnavailable):
			refused = append(refused, id)
		}
		return a.err
	}
	again := func(what string) {
		t.Helper()
		eventually(t, 90*time.Second, what, func() error {
			id := fmt.Sprint("again", time.Now().UnixNano())
			return settle(id, appendAll(t, l, "r", draft1(id))[0])
		})
	}

	for _, s := range servers {
		err := s.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{
			"": {MaxMemory: -1, MaxStore: limit, MaxStreams: -1, MaxConsumers: -1}, // of all replicas together
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	taken, no, err := fillUp(t, l, "account")
	if !errors.Is(err, hub.ErrUnavailable) || !strings.Contains(err.Error(), "10002") {
		t.Errorf("refused with %v", err)
	}
	maps.Copy(all, taken)
	refused = append(refused, no...)
	for _, s := range servers {
		err := s.GlobalAccount().UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{
			"": {MaxMemory: -1, MaxStore: -1, MaxStreams: -1, MaxConsumers: -1},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	again("the account has room again")

	for i, failed := 0, 0; failed < 2; i++ {
		if i > 2000 {
			t.Fatal("it never is full")
		}
		id := fmt.Sprint("server", i)
		if err := settle(id, appendAll(t, l, "r", large(id, 30_000))[0]); err != nil {
			failed++
			t.Log(err)
		}
	}
	eventually(t, 30*time.Second, "the node says so", func() error {
		if err := l.Ready(); err == nil {
			return errors.New("it is ready")
		}
		return degradedIs(o, true)
	})
	limit = 1 << 30
	for i, s := range servers {
		stopServer(s)
		c.start(t, i)
	}
	again("the servers have room again")
	holds(t, l, o, all, refused)
	eventually(t, 30*time.Second, "all is well", func() error {
		if err := l.Ready(); err != nil {
			return err
		}
		return degradedIs(o, false)
	})
}
