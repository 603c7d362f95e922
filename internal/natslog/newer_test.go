package natslog

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kansei-live/kansei/hub"
)

// The tests in this file are about streams and records of versions to come, beside which a
// node must go on working.

// A stream may have more than this node knows, in the subjects that it stores, in what it
// republishes and in its metadata, unless its metadata say that this node must not use it.
func TestStreamsOfANewerVersion(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*jetstream.StreamConfig)
		refuse string
	}{
		{"more subjects, all republished", func(c *jetstream.StreamConfig) {
			base := strings.TrimSuffix(c.Subjects[0], ".*")
			c.Subjects = []string{base + ".>"}
			c.RePublish = &jetstream.RePublish{Source: base + ".>",
				Destination: strings.TrimSuffix(c.RePublish.Destination, ".{{wildcard(1)}}") + ".>"}
		}, ""},
		{"other subjects beside", func(c *jetstream.StreamConfig) {
			c.Subjects = append(c.Subjects, "other."+c.Name+".*")
			c.Metadata["kansei_layout"], c.Metadata["kansei_reads"], c.Metadata["kansei_tomorrow"] = "7", "1", "x"
		}, ""},
		{"of a layout that this node does not know", func(c *jetstream.StreamConfig) {
			c.Metadata["kansei_layout"], c.Metadata["kansei_reads"] = "3", "2"
		}, "has layout for nodes that know layout 2, wanted 1: a newer version of kansei made it: upgrade this node"},
		{"without the rooms' own subjects", func(c *jetstream.StreamConfig) {
			c.Subjects = []string{strings.Replace(c.Subjects[0], "*", "*.*", 1)}
			c.RePublish.Source, c.RePublish.Destination = c.Subjects[0], strings.Replace(c.RePublish.Destination, "{{wildcard(1)}}", "{{wildcard(1)}}.{{wildcard(2)}}", 1)
		}, "wanted [kansei."},
		{"republished elsewhere", func(c *jetstream.StreamConfig) {
			c.RePublish.Source, c.RePublish.Destination = ">", "elsewhere."+c.Name+".>"
		}, "has republish source"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, t.TempDir(), 0)
			js := jetStream(t, s.ClientURL())
			l := openReady(t, Config{URLs: urls(s)})
			mustAppend(t, l, "r", "a")
			closeLog(t, l)
			for name := range streamConfigs(t, js) {
				st, err := js.Stream(testContext(t), name)
				if err != nil {
					t.Fatal(err)
				}
				cfg := st.CachedInfo().Config
				c.change(&cfg)
				if _, err := js.UpdateStream(testContext(t), cfg); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := js.CreateStream(testContext(t), jetstream.StreamConfig{Name: "KANSEI_TOMORROW", Subjects: []string{"kansei.tomorrow.>"}}); err != nil {
				t.Fatal(err)
			}
			l = open(t, Config{URLs: urls(s)})
			if c.refuse != "" {
				eventually(t, 15*time.Second, "it says why it cannot use them", func() error {
					if err := l.Ready(); err == nil || !strings.Contains(err.Error(), c.refuse) {
						return fmt.Errorf("ready: %v", err)
					}
					return nil
				})
				return
			}
			eventually(t, 15*time.Second, "the log is ready", l.Ready)
			h := startHub(t, l, nil)
			v := join(t, h, "r", "")
			say(t, l, "r", "b")
			eventually(t, 5*time.Second, "a comment comes", func() error { return v.saw(false, "a", "b") })
			if rev, err := l.SetState(testContext(t), "r", 0, []byte(`{"status":"ended"}`)); err != nil || rev == 0 {
				t.Errorf("state: %d, %v", rev, err)
			}
		})
	}
}

// A record of a newer schema is passed over, and counted; what lies around it is shown. The
// state of a room is handed on, and not replaced.
func TestRecordsOfANewerSchema(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	out := new(lines)
	reg := prometheus.NewRegistry()
	l := openReady(t, Config{URLs: urls(s), Logger: out.logger(), Metrics: NewMetrics(reg)})
	h := startHub(t, l, nil)
	v := join(t, h, "r", "")
	say(t, l, "r", "a")
	put(t, s, "kansei.log.0.r", `{"user":{"id":"u"},"text":"newer"}`, nats.Header{headerSchema: {"2"}})
	say(t, l, "r", "b")
	eventually(t, 5*time.Second, "the comments come", func() error { return v.saw(false, "a", "b") })
	again := join(t, h, "r", "")
	eventually(t, 5*time.Second, "they come to a new viewer", func() error { return again.saw(false, "a", "b") })
	events, more, err := l.Read(testContext(t), "r", l.logs[0].identity().epoch, hub.Position{}, 10)
	if err != nil || more || len(events) != 2 {
		t.Errorf("%d events, more %v, %v", len(events), more, err)
	}
	if n := testutil.ToFloat64(l.metrics.skipped.WithLabelValues(string(skipNewer))); n == 0 {
		t.Error("it is not counted")
	}
	if n := strings.Count(out.String(), "passed over a record"); n != 1 {
		t.Errorf("it is logged %d times:\n%s", n, out)
	}

	body := `{"status":"ended","tomorrow":1}`
	put(t, s, "kansei.state.r", body, nats.Header{headerSchema: {"2"}, headerID: {"x"}})
	st, err := l.State(testContext(t), "r")
	if err != nil || string(st.Body) != body {
		t.Errorf("state %s, %v", st.Body, err)
	}
	if _, err := l.SetState(testContext(t), "r", st.Rev, []byte(`{"status":"live"}`)); !errors.Is(err, hub.ErrUnavailable) || !errors.Is(err, errNewer) {
		t.Errorf("set: %v", err)
	}
}

// What this node does not know of a state survives its changes, and a change that is tried
// again is still the same change.
func TestUnknownFieldsOfAState(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	put(t, s, "kansei.state.r", `{"status":"scheduled","title":"t","slow_ms":3000}`, nats.Header{headerID: {"x"}})
	st, err := l.State(testContext(t), "r")
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"status":"live"}`)
	rev, err := l.SetState(testContext(t), "r", st.Rev, body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.State(testContext(t), "r")
	if err != nil || string(got.Body) != `{"status":"live","slow_ms":3000}` || got.Rev != rev {
		t.Errorf("state %s at %d, want %d; %v", got.Body, got.Rev, rev, err)
	}
	if again, err := l.SetState(testContext(t), "r", st.Rev, body); err != nil || again != rev {
		t.Errorf("the same change: %d, %v; want %d", again, err, rev)
	}
}

// put stores a record as another program would.
func put(t *testing.T, s *server.Server, subject, body string, h nats.Header) {
	t.Helper()
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(testContext(t), 5*time.Second)
	defer cancel()
	if _, err := js.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: []byte(body), Header: h}); err != nil {
		t.Fatal(err)
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, other string
		want           bool
	}{
		{"a.*", "a.*", true}, {"a.>", "a.*", true}, {"a.>", "a.*.b", true}, {">", "a.*", true}, {"a.>", "a.>", true}, {"a.*", "a.b", true},
		{"a.*", "a.>", false}, {"a.*", "a.b.c", false}, {"a.b", "a.*", false}, {"a.>", "a", false}, {"b.*", "a.*", false}, {"a.*.*", "a.*", false},
	} {
		if got := covers(c.pattern, c.other); got != c.want {
			t.Errorf("%s covers %s: %v", c.pattern, c.other, got)
		}
	}
	for _, c := range []struct{ source, destination, subject, want string }{
		{"a.*", "l.{{wildcard(1)}}", "a.x", "l.x"}, {"a.*", "l.$1", "a.x", "l.x"}, {"a.*", "l.{{Wildcard( 1 )}}.y", "a.x", "l.x.y"},
		{"a.>", "l.>", "a.x", "l.x"}, {"", "l.>", "a.x", "l.a.x"}, {">", "l.>", "a.x.y", "l.a.x.y"}, {"*.*", "l.$2.$1", "a.x", "l.x.a"},
		{"b.*", "l.$1", "a.x", ""}, {"a.*", "l.$2", "a.x", ""}, {"a.*", "l.{{partition(3,1)}}", "a.x", ""},
	} {
		if got, ok := republished(c.source, c.destination, c.subject); got != c.want || ok != (c.want != "") {
			t.Errorf("%s to %s: %s is %q, want %q", c.source, c.destination, c.subject, got, c.want)
		}
	}
}
