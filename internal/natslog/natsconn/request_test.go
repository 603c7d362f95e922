package natsconn

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/internal/quiet"
)

// A server that knows of no leader answers at once, and the leader later: the leader's
// answer counts, whatever it is; without one the other's does.
func TestAnswersOfServersWithoutALeader(t *testing.T) {
	t.Parallel()
	s := startServer(t, server.Options{})
	conn := connected(t, Config{URLs: []string{s.ClientURL()}})
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	leaderless := func(info *jetstream.StreamInfo) bool { return info.Cluster.Leader == "" }
	info := func(leader string) string {
		b, err := json.Marshal(jetstream.StreamInfo{Config: jetstream.StreamConfig{Name: "S"}, Cluster: &jetstream.ClusterInfo{Leader: leader}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	led, unled, refused, gone := info("n1"), info(""), apiAnswer(CodeClusterNotAvailable), apiAnswer(CodeStreamNotFound)
	for name, c := range map[string]struct {
		answers []string
		leader  string
		code    int
		least   time.Duration
	}{
		"the leader alone":          {[]string{led}, "n1", 0, 0},
		"the leader second":         {[]string{unled, led}, "n1", 0, 0},
		"the leader third":          {[]string{refused, unled, led}, "n1", 0, 0},
		"no leader":                 {[]string{unled}, "", 0, secondOpinion},
		"refused":                   {[]string{refused}, "", CodeClusterNotAvailable, secondOpinion},
		"refused, then not found":   {[]string{refused, gone}, "", CodeStreamNotFound, 0},
		"more servers than can be":  {[]string{unled, unled, unled, unled, unled, unled, unled, unled, unled}, "", 0, 0},
		"no leader, then a refusal": {[]string{unled, refused}, "", CodeClusterNotAvailable, secondOpinion},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			subject := nats.NewInbox()
			sub, err := nc.Subscribe(subject, func(m *nats.Msg) {
				for i, answer := range c.answers {
					if i > 0 {
						time.Sleep(20 * time.Millisecond)
					}
					_ = nc.Publish(m.Reply, []byte(answer)) // the test may be over by the last one
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Unsubscribe() //nolint:errcheck // the test is over
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			got, err := API(t.Context(), conn, opTest, subject, nil, leaderless)
			took := time.Since(began)
			if c.code > 0 {
				if !IsCode(err, c.code) {
					t.Errorf("%v, want %d", err, c.code)
				}
			} else if err != nil || got.Cluster.Leader != c.leader {
				t.Errorf("%+v, %v, want the leader %q", got, err, c.leader)
			}
			if took < c.least || took > 4*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("garbage", func(t *testing.T) {
		t.Parallel()
		if _, err := nc.Subscribe("fake.garbage", func(m *nats.Msg) { _ = m.Respond([]byte("{")) }); err != nil {
			t.Fatal(err)
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := API(t.Context(), conn, opTest, "fake.garbage", nil, leaderless); errors.Is(err, nats.ErrTimeout) || err == nil {
			t.Errorf("%v", err)
		}
	})
}

// Who may not ask is told at once, by the permission that is missing; who may not hear the answers
// too, and hears them again when it is permitted.
func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	user := func(p *server.Permissions) *server.Options {
		return &server.Options{Users: []*server.User{{Username: "u", Password: "a long one", Permissions: p}}}
	}
	deny := func(subject string) *server.SubjectPermission {
		return &server.SubjectPermission{Deny: []string{subject}}
	}
	address := func(s *server.Server) []string {
		return []string{strings.Replace(s.ClientURL(), "nats://", "nats://u:a%20long%20one@", 1)}
	}
	ask := func(c *Conn) error {
		return c.Ask(t.Context(), opTest, "secret.ask", nil, 1, func(*nats.Msg) bool { return false })
	}
	t.Run("publish", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, *user(&server.Permissions{Publish: deny("secret.>")}))
		var c *Conn
		ready := make(chan struct{})
		c = connected(t, Config{URLs: address(s), Violated: func(v Violation, _ error) bool {
			<-ready
			c.Refuse(v.Subject, &PermissionError{false, "secret.>"})
			return true
		}})
		close(ready)
		began := time.Now()
		err := ask(c)
		if e, ok := errors.AsType[*PermissionError](err); !ok || e.Subjects != "secret.>" || time.Since(began) > 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if err := ask(c); !strings.Contains(err.Error(), "may not publish to secret.>") {
			t.Errorf("again: %v", err)
		}
	})
	t.Run("subscribe", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, *user(&server.Permissions{Subscribe: deny("_INBOX.>")}))
		conn, err := New(Config{URLs: address(s), Logger: slog.New(slog.DiscardHandler), Inboxes: "_INBOX.test", RequestTimeout: time.Second,
			Metrics: NewMetrics(prometheus.NewRegistry(), []string{opTest}, nil), Quiet: quiet.New(slog.New(slog.DiscardHandler)),
			Up: func() {}, Down: func() {}})
		if err != nil {
			t.Fatal(err)
		}
		conn.Run(t.Context())
		defer conn.Close()
		eventually(t, "it says so", func() error {
			if err := conn.Ready(); err == nil || !strings.Contains(err.Error(), "may not subscribe to _INBOX.test.>") {
				return fmt.Errorf("it says %w", err)
			}
			return nil
		})
		if again, err := conn.TryInbox(0); again || err == nil {
			t.Errorf("tried again: %v, %v", again, err)
		}
	})
	t.Run("nobody", func(t *testing.T) {
		t.Parallel()
		s := startServer(t, server.Options{})
		c := connected(t, Config{URLs: []string{s.ClientURL()}, Domain: "hub"})
		if err := ask(c); !errors.Is(err, ErrNoResponders) || !strings.Contains(err.Error(), "in the JetStream domain hub") {
			t.Errorf("%v", err)
		}
	})
}
