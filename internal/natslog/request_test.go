package natslog

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A server that knows of no leader answers at once, and the leader later: the leader's
// answer counts, whatever it is; without one the other's does.
func TestAnswersOfServersWithoutALeader(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), RequestTimeout: 5 * time.Second})
	nc := dial(t, s.ClientURL())
	info := func(leader string) string {
		b, err := json.Marshal(jetstream.StreamInfo{Config: jetstream.StreamConfig{Name: "S"}, Cluster: &jetstream.ClusterInfo{Leader: leader}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	led, unled, refused, gone := info("n1"), info(""), apiAnswer(codeClusterNotAvailable), apiAnswer(codeStreamNotFound)
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
		"refused":                   {[]string{refused}, "", codeClusterNotAvailable, secondOpinion},
		"refused, then not found":   {[]string{refused, gone}, "", codeStreamNotFound, 0},
		"more servers than can be":  {[]string{unled, unled, unled, unled, unled, unled, unled, unled, unled}, "", 0, 0},
		"no leader, then a refusal": {[]string{unled, refused}, "", codeClusterNotAvailable, secondOpinion},
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
			got, err := api(testContext(t), l.caller, opInfo, subject, nil, leaderless)
			took := time.Since(began)
			if c.code > 0 {
				if !isCode(err, c.code) {
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
		if _, err := api(testContext(t), l.caller, opInfo, "fake.garbage", nil, leaderless); errors.Is(err, nats.ErrTimeout) || err == nil {
			t.Errorf("%v", err)
		}
	})
}
