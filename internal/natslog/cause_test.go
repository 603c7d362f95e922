package natslog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// readySays waits until a log is not ready and says all of want.
func readySays(t *testing.T, l *Log, want ...string) {
	t.Helper()
	eventually(t, 30*time.Second, "it says why", func() error {
		err := l.Ready()
		for _, w := range want {
			if err == nil || !strings.Contains(err.Error(), w) {
				return fmt.Errorf("it says %w, not %q", err, w)
			}
		}
		return nil
	})
}

// Whoever starts a node on a NATS that cannot hold its log is told what is wrong with it,
// and what to do.
func TestCausesAreNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		conf     string // of the server, with its directory
		user     string
		replicas int
		want     []string
	}{
		"no JetStream": {``, "", 1, []string{"nats: ", "no NATS server that is reached has JetStream: enable it (jetstream {…}"}},
		"an account without JetStream": {`jetstream {store_dir: %q}, accounts {
			B {jetstream: enabled, users: [{user: b, password: bbbb}]}, A {users: [{user: a, password: aaaa}]}}`, "a:aaaa@", 1,
			[]string{"this NATS account has no JetStream: enable it for the account", "10039"}},
		"one server, three replicas": {`jetstream {store_dir: %q}`, "", 3,
			[]string{"3 replicas need 3 NATS servers with JetStream in one cluster", "--log-replicas 1 for a single server"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conf := c.conf
			if strings.Contains(conf, "%q") {
				conf = fmt.Sprintf(conf, t.TempDir())
			}
			s := startConfigured(t, fmt.Sprintf("listen: \"127.0.0.1:%d\"\n%s", freePorts(t, 1)[0], conf))
			l := open(t, Config{URLs: []string{strings.Replace(s.ClientURL(), "nats://", "nats://"+c.user, 1)}, Replicas: c.replicas})
			readySays(t, l, c.want...)
		})
	}
}

// A cluster of which too few servers are left says so, to a node that was there as to one
// that comes.
func TestNoQuorumIsNamed(t *testing.T) {
	t.Parallel()
	servers := startCluster(t, nil)
	l := open(t, Config{URLs: urls(servers[0]), Replicas: 3})
	eventually(t, 60*time.Second, "the cluster is ready", l.Ready)
	stopServer(servers[1])
	stopServer(servers[2])
	late := open(t, Config{URLs: urls(servers[0]), Replicas: 3})
	for _, l := range []*Log{l, late} {
		readySays(t, l, "has no leader: no quorum, 1 of its 3 replicas are there: start the other NATS servers")
	}
}

// Every refusal that somebody has to do something about says what, and stays what it was.
func TestExplained(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err      error
		replicas int
		want     string
	}{
		{&natsconn.APIError{Code: 503, ErrCode: natsconn.CodeNoJetStream, Description: "JetStream not enabled"}, 1, "JetStream is not enabled on this NATS server"},
		{&natsconn.APIError{Code: 503, ErrCode: natsconn.CodeNoJetStreamAccount, Description: "JetStream not enabled for account"}, 1, "this NATS account has no JetStream"},
		{&natsconn.APIError{Code: 503, ErrCode: natsconn.CodeNoAccount, Description: "account not found"}, 1, "this NATS account has no JetStream"},
		{&natsconn.APIError{Code: 503, ErrCode: natsconn.CodeClusterNotAvailable, Description: "JetStream system temporarily unavailable"}, 1, "JetStream has no quorum"},
		{&natsconn.APIError{Code: 400, ErrCode: natsconn.CodeNoPeers, Description: "no suitable peers for placement"}, 5, "5 replicas need 5 NATS servers"},
		{&natsconn.APIError{Code: 400, ErrCode: natsconn.CodeNoPeers, Description: "no suitable peers for placement"}, 1, "no suitable peers"},
		{natsconn.ErrNoResponders, 1, "has JetStream: enable it"},
		{context.DeadlineExceeded, 1, "no answer in time"},
		{errClosed, 1, errClosed.Error()},
	} {
		got := explained(c.err, c.replicas)
		if !errors.Is(got, c.err) || !strings.Contains(got.Error(), c.want) {
			t.Errorf("%v: %v, wanted %s", c.err, got, c.want)
		}
	}
	if err := explained(nil, 3); err != nil {
		t.Error(err)
	}
}
