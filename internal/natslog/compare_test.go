package natslog

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

// A node whose settings are not those that the streams were made with says in what, and
// is refused only if it could do harm.
func TestStreamOfAnotherConfiguration(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	js := jetStream(t, s.ClientURL())
	l := openReady(t, Config{URLs: urls(s), Partitions: 2})
	mustAppend(t, l, "r", "a")
	if _, err := js.CreateStream(testContext(t), jetstream.StreamConfig{Name: "MINE_LOG_0", Subjects: []string{"mine.log.0.*"}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cfg    Config
		effect effect
		want   string // of the error; of the log, if it is only a warning
	}{
		{Config{Partitions: 3}, effectRefused, "stream KANSEI_LOG_0 has partitions 2, wanted 3 (--log-partitions)"},
		{Config{Partitions: 1}, effectRefused, "stream KANSEI_LOG_0 has partitions 2, wanted 1 (--log-partitions)"},
		{Config{Partitions: 2, MaxAge: time.Hour}, effectWarned, "stream=KANSEI_LOG_0 difference=max_age is=168h0m0s wanted=1h0m0s flag=--log-max-age"},
		{Config{Partitions: 2, MaxAge: time.Minute}, effectWarned, "stream=KANSEI_LOG_0 difference=max_age is=168h0m0s wanted=1m0s"},
		{Config{Partitions: 2, Replicas: 3}, effectWarned, "stream=KANSEI_STATE difference=replicas is=1 wanted=3 flag=--log-replicas"},
		{Config{Partitions: 2, AppendTimeout: time.Minute}, effectWarned, ""},
		{Config{Prefix: "mine"}, effectRefused, "stream MINE_LOG_0 has no kansei_epoch in its metadata: it was not made by kansei"},
		{Config{Prefix: "new", Replicas: 3}, effectRefused, "create stream NEW_LOG_0: 3 replicas need 3 NATS servers with JetStream in one cluster: start them, or set --log-replicas 1 for a single server: replicas > 1 not supported"},
	} {
		c.cfg.URLs = urls(s)
		differs(t, js, c.cfg, c.effect, c.want)
	}
	if err := l.Ready(); err != nil {
		t.Errorf("the first one: %v", err)
	}
}

// differs checks that a log of a configuration tells the difference, appends unless it is
// refused, and changes nothing.
func differs(t *testing.T, js jetstream.JetStream, cfg Config, e effect, want string) {
	t.Helper()
	before := streamConfigs(t, js)
	out := new(lines)
	cfg.Logger = out.logger()
	l := open(t, cfg)
	eventually(t, 15*time.Second, "the difference is told", func() error { return tells(l, out, e, want) })
	id := fmt.Sprint("id", time.Now().UnixNano())
	if e != effectRefused {
		eventually(t, 15*time.Second, "an append", func() error { return appendAll(t, l, "r", draft1(id))[0].err })
	} else if a := appendAll(t, l, "r", draft1(id))[0]; !errors.Is(a.err, hub.ErrUnavailable) {
		t.Errorf("%s: append: %v", want, a.err)
	}
	if e == effectWarned {
		if err := l.Ready(); err != nil {
			t.Errorf("%s: %v", want, err)
		}
	}
	closeLog(t, l)
	after := streamConfigs(t, js)
	for name, was := range before {
		if is := after[name]; is != was {
			t.Errorf("%s: stream %s\n%s\nbecame\n%s", want, name, was, is)
		}
	}
}

// tells checks that a log is ready and has warned, or is not and says why.
func tells(l *Log, out *lines, e effect, want string) error {
	err := l.Ready()
	if e == effectWarned {
		if err != nil || want == "" {
			return err
		}
		return out.once("level=WARN", want)
	}
	if err == nil || !strings.HasPrefix(err.Error(), "nats: ") || !strings.Contains(err.Error(), want) {
		return fmt.Errorf("it says %w, and not %q", err, want)
	}
	return nil
}

// What somebody has changed in a stream is told and not changed back: by a node that
// comes, and by one that has used the stream and goes on as far as it can.
func TestStreamThatWasChanged(t *testing.T) {
	t.Parallel()
	const (
		log   = "KANSEI_LOG_0"
		state = "KANSEI_STATE"
	)
	for name, c := range map[string]struct {
		stream string
		change func(*jetstream.StreamConfig)
		effect effect
		want   string
	}{
		"longer age": {log, func(c *jetstream.StreamConfig) { c.MaxAge *= 2 }, effectWarned,
			"difference=max_age is=336h0m0s wanted=168h0m0s flag=--log-max-age"},
		"age of a minute": {log, func(c *jetstream.StreamConfig) { c.MaxAge, c.Duplicates = time.Minute, time.Minute }, effectWarned,
			"difference=max_age is=1m0s wanted=168h0m0s flag=--log-max-age"},
		"shorter window": {log, func(c *jetstream.StreamConfig) { c.Duplicates = 30 * time.Second }, effectWarned,
			"difference=duplicate_window is=30s wanted=2m0s"},
		"bytes": {log, func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 30 }, effectWarned, "difference=max_bytes is=1073741824 wanted=unlimited"},
		"discard": {log, func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardNew }, effectWarned,
			"difference=discard is=DiscardNew wanted=DiscardOld"},
		"what is the operators' own": {log, func(c *jetstream.StreamConfig) {
			c.Description, c.Compression, c.DenyDelete, c.Metadata["owner"] = "ours", jetstream.S2Compression, true, "us"
		}, effectWarned, ""},

		"window": {log, func(c *jetstream.StreamConfig) { c.Duplicates = 23 * time.Second }, effectRefused,
			"duplicate_window 23s, wanted 2m0s, or at least 24s (twice --append-timeout): a comment that is sent again would be stored twice; nats stream edit KANSEI_LOG_0 --dupe-window 2m0s"},
		"more subjects":        {log, func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "more.*") }, effectWarned, ""},
		"wider subjects":       {log, func(c *jetstream.StreamConfig) { c.Subjects = []string{"kansei.log.0.>"} }, effectWarned, ""},
		"more states subjects": {state, func(c *jetstream.StreamConfig) { c.Subjects = []string{"kansei.more.>", "kansei.state.>"} }, effectWarned, ""},
		"a later layout": {log, func(c *jetstream.StreamConfig) {
			c.Metadata[metaLayout], c.Metadata[metaReads], c.Metadata["kansei_other"] = "99", "1", "x"
		}, effectWarned, ""},
		"the first layout": {state, func(c *jetstream.StreamConfig) {
			c.Subjects, c.RePublish.Source = []string{"kansei.state.*"}, "kansei.state.*"
			c.RePublish.Destination = strings.TrimSuffix(c.RePublish.Destination, ">") + "{{wildcard(1)}}"
			delete(c.Metadata, metaLayout)
			delete(c.Metadata, metaReads)
		}, effectWarned, ""},
		"wider republish": {log, func(c *jetstream.StreamConfig) {
			c.Subjects = append(c.Subjects, "kansei.log.0.*.more")
			c.RePublish.Source = "kansei.log.0.>"
			c.RePublish.Destination = strings.TrimSuffix(c.RePublish.Destination, "{{wildcard(1)}}") + ">"
		}, effectWarned, ""},

		"a layout for later nodes": {log, func(c *jetstream.StreamConfig) { c.Metadata[metaLayout], c.Metadata[metaReads] = "99", "98" }, effectRefused,
			"stream KANSEI_LOG_0 has a layout (kansei_layout 99) for nodes that know layout 98 or later; this node knows 2: run a later version of kansei"},
		"subjects": {log, func(c *jetstream.StreamConfig) { c.Subjects = []string{"kansei.log.0.*.more"}; c.RePublish = nil }, effectRefused,
			"subjects [kansei.log.0.*.more], wanted [kansei.log.0.*]: nats stream edit KANSEI_LOG_0 --subjects 'kansei.log.0.*'"},
		"narrower republish": {log, func(c *jetstream.StreamConfig) {
			c.RePublish.Source, c.RePublish.Destination = "kansei.log.0.r", "kansei.live.r"
		}, effectRefused,
			"republish source kansei.log.0.r, wanted kansei.log.0.*"},
		"no republish": {log, func(c *jetstream.StreamConfig) { c.RePublish = nil }, effectRefused, "republish none, wanted kansei.live."},
		"republish elsewhere": {log, func(c *jetstream.StreamConfig) { c.RePublish.Destination = "else.{{wildcard(1)}}" }, effectRefused,
			"republish destination else.{{wildcard(1)}}, wanted kansei.live."},
		"republish headers": {log, func(c *jetstream.StreamConfig) { c.RePublish.HeadersOnly = true }, effectRefused,
			"republish headers_only true, wanted false: nats stream edit KANSEI_LOG_0 --republish-source 'kansei.log.0.*' --republish-destination 'kansei.live."},
		"no direct gets": {log, func(c *jetstream.StreamConfig) { c.AllowDirect = false }, effectRefused,
			"allow_direct false, wanted true: nats stream edit KANSEI_LOG_0 --allow-direct"},
		"no acks":  {log, func(c *jetstream.StreamConfig) { c.NoAck = true }, effectRefused, "no_ack true, wanted false"},
		"sealed":   {log, func(c *jetstream.StreamConfig) { c.Sealed = true }, effectRefused, "sealed true, wanted false"},
		"interest": {log, func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }, effectRefused, "retention Interest, wanted Limits"},
		"per room": {log, func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 }, effectRefused,
			"max_msgs_per_subject 5, wanted unlimited: viewers who come back would miss comments"},
		"transform": {log, func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "kansei.log.0.*", Destination: "kansei.log.0.{{wildcard(1)}}"}
		}, effectRefused, "subject_transform true, wanted false"},
		"sources":  {log, func(c *jetstream.StreamConfig) { c.Sources = []*jetstream.StreamSource{{Name: "OTHER"}} }, effectRefused, "sources 1, wanted 0"},
		"no epoch": {log, func(c *jetstream.StreamConfig) { c.Metadata = nil }, effectRefused, "no kansei_epoch in its metadata"},

		"states that age": {state, func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, effectUnready,
			"stream KANSEI_STATE has max_age 1h0m0s, wanted 0s: rooms would forget their states; nats stream edit KANSEI_STATE --max-age 0s"},
		"bytes of states": {state, func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 }, effectUnready,
			"max_bytes 1048576, wanted unlimited: nats stream edit KANSEI_STATE --max-bytes=-1"},
		"states that are refused": {state, func(c *jetstream.StreamConfig) { c.MaxBytes, c.Discard = 1<<20, jetstream.DiscardNew }, effectWarned,
			"stream=KANSEI_STATE difference=max_bytes"},
		"more states": {state, func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 5 }, effectWarned,
			"stream=KANSEI_STATE difference=max_msgs_per_subject is=5 wanted=1"},
		"states for good": {state, func(c *jetstream.StreamConfig) { c.Discard, c.DiscardNewPerSubject = jetstream.DiscardNew, true }, effectRefused,
			"discard_new_per_subject true, wanted false: no state could be replaced"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, t.TempDir(), 0)
			js := jetStream(t, s.ClientURL())
			out := new(lines)
			l := openReady(t, Config{URLs: urls(s), Logger: out.logger()})
			mustAppend(t, l, "r", "a")
			followRoom(t, l, "r", 1) // whose streams are looked at every second
			st, err := js.Stream(testContext(t), c.stream)
			if err != nil {
				t.Fatal(err)
			}
			cfg := st.CachedInfo().Config
			was, err := js.Stream(testContext(t), c.stream)
			if err != nil {
				t.Fatal(err)
			}
			c.change(&cfg)
			if _, err := js.UpdateStream(testContext(t), cfg); err != nil {
				t.Fatal(err)
			}
			if c.stream == log {
				differs(t, js, Config{URLs: urls(s)}, c.effect, c.want)
			}
			eventually(t, 15*time.Second, "who has used it says so", func() error { return tells(l, out, c.effect, c.want) })
			if c.want == "" {
				return
			}
			if n := counter(t, l.metrics.differences.WithLabelValues(c.effect.String())); n < 1 {
				t.Errorf("%v differences are counted", n)
			}
			// And is content when it is as it was, if it can be.
			if _, err := js.UpdateStream(testContext(t), was.CachedInfo().Config); err != nil {
				t.Log("it stays as it is:", err)
				return
			}
			eventually(t, 15*time.Second, "it is content", func() error {
				for e := range effects {
					if n := counter(t, l.metrics.differences.WithLabelValues(effect(e).String())); n != 0 {
						return fmt.Errorf("%v %v", n, effect(e))
					}
				}
				return errors.Join(l.Ready(), out.once("level=INFO", "as configured again", c.stream))
			})
		})
	}
}

// Streams that were made by hand, with what cannot be changed later.
func TestStreamThatWasMadeByHand(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(*jetstream.StreamConfig)
		effect effect
		want   string
	}{
		"memory": {func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, effectRefused,
			"storage Memory, wanted File: this cannot be changed in a stream that is there: with all nodes stopped, nats stream rm KANSEI_LOG_0"},
		"async":   {func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.AsyncPersistMode }, effectRefused, "persist_mode Async, wanted Default"},
		"counter": {func(c *jetstream.StreamConfig) { c.AllowMsgCounter = true }, effectRefused, "allow_msg_counter true, wanted false"},
		"work queue": {func(c *jetstream.StreamConfig) { c.Retention = jetstream.WorkQueuePolicy }, effectRefused,
			"retention WorkQueue, wanted Limits"},
		"mirror": {func(c *jetstream.StreamConfig) {
			c.Mirror, c.Subjects, c.RePublish = &jetstream.StreamSource{Name: "OTHER"}, nil, nil
		}, effectRefused, "mirror true, wanted false"},
		"late beginning": {func(c *jetstream.StreamConfig) { c.FirstSeq = 5000 }, effectWarned, ""},
		"too late": {func(c *jetstream.StreamConfig) { c.FirstSeq = 1 << 40 }, effectRefused,
			"first_seq above 4294967296 true, wanted false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, t.TempDir(), 0)
			js := jetStream(t, s.ClientURL())
			if _, err := js.CreateStream(testContext(t), jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other"}}); err != nil {
				t.Fatal(err)
			}
			l, err := Config{URLs: urls(s)}.withDefaults()
			if err != nil {
				t.Fatal(err)
			}
			made := newStream(&Log{cfg: l}, "KANSEI_LOG_0", 0, "kansei.log.0.", "0").wanted("epoch")
			c.change(&made)
			if _, err := js.CreateStream(testContext(t), made); err != nil {
				t.Fatal(err)
			}
			differs(t, js, Config{URLs: urls(s)}, c.effect, c.want)
		})
	}
}

// A warning comes again after an hour, or when something else is different.
func TestDifferencesAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := new(lines)
		cfg, err := Config{Logger: out.logger()}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		s := newStream(&Log{cfg: cfg, log: cfg.Logger, metrics: cfg.Metrics}, "KANSEI_LOG_0", 0, "kansei.log.0.", "0")
		is := s.wanted("epoch")
		is.MaxAge, is.Replicas = 14*24*time.Hour, 3
		tell := func(times int, every time.Duration) {
			for range times {
				s.tellDifferences(s.compare(is))
				time.Sleep(every)
			}
		}
		count := func(want int, parts ...string) {
			t.Helper()
			if n := len(out.with(parts...)); n != want {
				t.Errorf("%d lines with %q, wanted %d:\n%s", n, parts, want, strings.Join(out.with(), "\n"))
			}
		}
		tell(3000, time.Second)
		count(1, "difference=max_age")
		count(1, "difference=replicas")
		tell(3000, time.Second)
		count(2, "difference=max_age")
		is.MaxAge = time.Hour
		tell(10, time.Second)
		count(3, "difference=max_age")
		count(1, "difference=max_age is=1h0m0s wanted=168h0m0s flag=--log-max-age")
		count(2, "difference=replicas")
		is.Sealed = true
		tell(10, time.Second)
		count(1, "level=ERROR", "difference=sealed")
		tell(1, time.Second)
		is = s.wanted("epoch")
		tell(10, time.Second)
		count(1, "level=INFO", "as configured again")
	})
}

// streamConfigs is what all streams are configured to be, by name.
func streamConfigs(t testing.TB, js jetstream.JetStream) map[string]string {
	t.Helper()
	all := make(map[string]string)
	lister := js.ListStreams(testContext(t))
	for info := range lister.Info() {
		b, err := json.Marshal(info.Config)
		if err != nil {
			t.Fatal(err)
		}
		all[info.Config.Name] = string(b)
	}
	if err := lister.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}
