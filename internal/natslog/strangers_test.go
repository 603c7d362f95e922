package natslog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// startConfigured starts a server by a configuration file.
func startConfigured(t *testing.T, conf string) *server.Server {
	t.Helper()
	path := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := server.ProcessConfigFile(path)
	if err != nil {
		t.Fatal(err)
	}
	o.NoLog, o.NoSigs = true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { stopServer(s) })
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	return s
}

// An archive, or a namesake of the log, in the JetStream domain of a leaf node stores the
// log's subjects too, and acknowledges them. Whoever has got ok is in the log, where the
// log says that it is; also while the log refuses.
func TestOtherStreamsOnTheSubjects(t *testing.T) {
	t.Parallel()
	for _, archive := range []string{"ARCHIVE", "KANSEI_LOG_0"} {
		t.Run(archive, func(t *testing.T) {
			t.Parallel()
			ports := freePorts(t, 3)
			main := startConfigured(t, fmt.Sprintf(`listen: "127.0.0.1:%d", server_name: main, jetstream {store_dir: %q, domain: main}, leafnodes {listen: "127.0.0.1:%d"}`,
				ports[0], t.TempDir(), ports[1]))
			leaf := startConfigured(t, fmt.Sprintf(`listen: "127.0.0.1:%d", server_name: leaf, jetstream {store_dir: %q, domain: leaf}, leafnodes {remotes: [{url: "nats://127.0.0.1:%d"}]}`,
				ports[2], t.TempDir(), ports[1]))
			eventually(t, 20*time.Second, "the leaf node is connected", func() error {
				if main.NumLeafNodes() != 1 {
					return errors.New("it is not")
				}
				return nil
			})
			l := openReady(t, Config{URLs: []string{main.ClientURL()}, AppendTimeout: 2 * time.Second})
			js, err := jetstream.NewWithDomain(dial(t, leaf.ClientURL()), "leaf")
			if err != nil {
				t.Fatal(err)
			}
			other, err := js.CreateStream(testContext(t), jetstream.StreamConfig{Name: archive, Subjects: []string{"kansei.log.>"}, FirstSeq: 5000})
			if err != nil {
				t.Fatal(err)
			}
			check := func(id string) (ok bool) {
				t.Helper()
				a := appendAll(t, l, "r", draft1(id))[0]
				if a.err != nil {
					return false
				}
				if rec, err := l.logs[0].leaderGet(testContext(t), getRequest{Seq: a.Seq}); err != nil || rec == nil || natsconn.Last(rec.header, headerID) != id {
					t.Errorf("%s was acknowledged at %d, where there is %v, %v", id, a.Seq, rec, err)
				}
				return true
			}
			stored := func() uint64 {
				info, err := other.Info(testContext(t))
				if err != nil {
					t.Fatal(err)
				}
				return info.State.Msgs
			}
			// The servers take a moment to know of each other's subjects.
			first := 0
			eventually(t, 10*time.Second, "the archive gets what the log gets", func() error {
				check(fmt.Sprint("first", first))
				if first++; stored() == 0 {
					return errors.New("it has nothing")
				}
				return nil
			})
			before := stored()
			for _, id := range names("a", 20) {
				if !check(id) {
					t.Errorf("%s was not taken", id)
				}
			}
			eventually(t, 10*time.Second, "the archive has them too", func() error {
				if n := stored(); n < before+20 {
					return fmt.Errorf("it has %d, and had %d before", n, before)
				}
				return nil
			})
			mjs := jetStream(t, main.ClientURL())
			st, err := mjs.Stream(testContext(t), "KANSEI_LOG_0")
			if err != nil {
				t.Fatal(err)
			}
			cfg := st.CachedInfo().Config
			cfg.MaxMsgs, cfg.Discard = int64(st.CachedInfo().State.Msgs), jetstream.DiscardNew
			if _, err := mjs.UpdateStream(testContext(t), cfg); err != nil {
				t.Fatal(err)
			}
			for _, id := range names("full", 5) {
				if check(id) {
					t.Errorf("%s was acknowledged, and the log is full", id)
				}
			}
		})
	}
}
