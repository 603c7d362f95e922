package natslog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// notThere is nil when a log is not ready, because it does not create its streams.
func notThere(l *Log, stream string) error {
	want := "nats: stream " + stream + " is not there, and --log-create=never: "
	if err := l.Ready(); err == nil || !strings.HasPrefix(err.Error(), want) {
		return fmt.Errorf("it says %w", err)
	}
	return nil
}

// A node that is not to create streams waits for them, and says so.
func TestStreamsThatAreNotCreated(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	waits := open(t, Config{URLs: urls(s), NeverCreate: true})
	o := new(observer)
	f := waits.Follow("r", 1, o)
	t.Cleanup(f.Stop)
	eventually(t, 15*time.Second, "it waits", func() error { return notThere(waits, "KANSEI_LOG_0") })
	if all := streamConfigs(t, jetStream(t, s.ClientURL())); len(all) > 0 {
		t.Errorf("there are %v", all)
	}
	if a := appendAll(t, waits, "r", draft1("early"))[0]; !errors.Is(a.err, hub.ErrUnavailable) {
		t.Errorf("append: %v", a.err)
	}
	makes := openReady(t, Config{URLs: urls(s)})
	waitReady(t, waits)
	mustAppend(t, makes, "r", "a")
	waitEvents(t, o, 15*time.Second, "a")
}

// backup is what nats stream backup puts into a directory.
type backup struct {
	Config jetstream.StreamConfig `json:"config"`
	State  json.RawMessage        `json:"state"`
	chunks [][]byte
}

// request asks the JetStream API for something, as the tools of operators do.
func request(t *testing.T, nc *nats.Conn, subject string, body, answer any) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	m, err := nc.Request(subject, b, 20*time.Second)
	if err != nil {
		t.Fatal(subject, err)
	}
	var refusal struct{ Error *natsconn.APIError }
	if err := json.Unmarshal(m.Data, &refusal); err != nil || refusal.Error != nil {
		t.Fatalf("%s: %s", subject, m.Data)
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		t.Fatalf("%s: %s: %v", subject, m.Data, err)
	}
}

// backUp does what nats stream backup does.
func backUp(t *testing.T, nc *nats.Conn, stream string) *backup {
	t.Helper()
	inbox := nats.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	b := new(backup)
	request(t, nc, "$JS.API.STREAM.SNAPSHOT."+stream, map[string]any{"deliver_subject": inbox, "no_consumers": true, "chunk_size": 4096}, b)
	for {
		m, err := sub.NextMsg(20 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Data) == 0 {
			if status := m.Header.Get(headerStatus); status != "" && status != "204" {
				t.Fatalf("the backup ends with %v", m.Header)
			}
			return b
		}
		b.chunks = append(b.chunks, m.Data)
		if m.Reply == "" {
			continue // within the window
		}
		if err := m.Respond(nil); err != nil {
			t.Fatal(err)
		}
	}
}

// restore does what nats stream restore does.
func (b *backup) restore(t *testing.T, nc *nats.Conn) {
	t.Helper()
	var to struct {
		Subject string `json:"deliver_subject"`
	}
	request(t, nc, "$JS.API.STREAM.RESTORE."+b.Config.Name, b, &to)
	bring := func(chunk []byte) (m *nats.Msg, err error) {
		for range 200 { // the other servers may not know yet who takes it
			if m, err = nc.Request(to.Subject, chunk, 30*time.Second); !errors.Is(err, nats.ErrNoResponders) {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		return m, err
	}
	for _, chunk := range b.chunks {
		if _, err := bring(chunk); err != nil {
			t.Fatal(err)
		}
	}
	m, err := bring(nil)
	if err != nil || strings.Contains(string(m.Data), `"error"`) {
		t.Fatalf("the restore ends with %s, %v", m.Data, err)
	}
}

// The steps of "Restoring the log" in docs/OPERATING.md, with nodes that run and have
// viewers. Between the removal and the restore the nodes have looked for the streams, so
// that a node that creates streams would have.
func TestRestoringTheLog(t *testing.T) {
	t.Parallel()
	for name, replicas := range map[string]int{"one server": 1, "a cluster": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var servers []*server.Server
			if replicas > 1 {
				servers = startCluster(t, nil)
			} else {
				servers = []*server.Server{startServer(t, t.TempDir(), 0)}
			}
			maker := open(t, Config{URLs: urls(servers...), Replicas: replicas})
			eventually(t, 60*time.Second, "the streams are made", maker.Ready)
			closeLog(t, maker)
			nc := dial(t, servers[0].ClientURL())
			js := jetStream(t, servers[0].ClientURL())

			// 1: the nodes run with --log-create=never.
			l := open(t, Config{URLs: urls(servers...), Replicas: replicas, NeverCreate: true})
			eventually(t, 60*time.Second, "the node is ready", l.Ready)
			h := startHub(t, l, nil)
			v := join(t, h, "r", "")
			kept := names("kept", 100)
			for _, text := range kept {
				say(t, l, "r", text)
			}
			if _, err := setState(testContext(t), l, "r", 0, []byte(`{"title":"kept"}`)); err != nil {
				t.Fatal(err)
			}
			eventually(t, 20*time.Second, "they are shown", func() error { return v.has(kept...) })
			before := v.at()
			streams := []string{"KANSEI_LOG_0", "KANSEI_STATE"}
			var backups []*backup
			for _, name := range streams {
				backups = append(backups, backUp(t, nc, name))
			}
			say(t, l, "r", "lost")
			eventually(t, 20*time.Second, "it is shown", func() error { return v.has("lost") })
			lost := v.at()

			// 2: the streams are removed. Nobody makes them anew.
			for _, name := range streams {
				eventually(t, 30*time.Second, "stream "+name+" is removed", func() error { // nobody may lead the cluster
					ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
					defer cancel()
					err := js.DeleteStream(ctx, name)
					if errors.Is(err, jetstream.ErrStreamNotFound) {
						return nil
					}
					return err
				})
			}
			eventually(t, 30*time.Second, "the node waits", func() error { return notThere(l, "KANSEI_LOG_0") })
			start := time.Now()
			if a := appendAll(t, l, "r", draft1("refused"))[0]; !errors.Is(a.err, hub.ErrUnavailable) || time.Since(start) > 5*time.Second {
				t.Errorf("append meanwhile: %v after %v", a.err, time.Since(start))
			}

			// 3: they are restored, and the nodes go on.
			for _, b := range backups {
				b.restore(t, nc)
			}
			eventually(t, 60*time.Second, "the node is ready again", l.Ready)
			eventually(t, 60*time.Second, "the end is known to be lost", func() error {
				v.mu.Lock()
				defer v.mu.Unlock()
				if v.gaps == 0 {
					return errors.New("no gap")
				}
				return nil
			})
			say(t, l, "r", "new")
			eventually(t, 20*time.Second, "what is new is shown", func() error { return v.has("new") })
			st, err := l.State(testContext(t), "r")
			if err != nil || string(st.Body) != `{"title":"kept"}` {
				t.Errorf("state %s, %v", st.Body, err)
			}
			fresh := startHub(t, l, nil)
			if err := join(t, fresh, "r", before).saw(true, "new"); err != nil {
				t.Errorf("with a cursor of before: %v", err)
			}
			want := append(kept[51:len(kept):len(kept)], "new")
			if err := join(t, fresh, "r", lost).saw(false, want...); err != nil {
				t.Errorf("with a cursor of what is gone: %v", err)
			}
		})
	}
}
