package natslog

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/quiet"
)

func TestNewerSchema(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header nats.Header
		newer  bool
	}{
		{nil, false},
		{nats.Header{headerSchema: {"1"}}, false},
		{nats.Header{headerSchema: {"2"}}, true},
		{nats.Header{headerSchema: {"0"}}, true},
		{nats.Header{headerSchema: {""}}, true},
		{nats.Header{headerSchema: {"x"}}, true},
		{nats.Header{headerSchema: {"1", "1"}}, true},
		{nats.Header{headerSchema: {"99999999999999999999"}}, true},
	} {
		if newerSchema(c.header) != c.newer {
			t.Errorf("%v: newer is %v", c.header, !c.newer)
		}
	}
}

// storeAs stores a record as a node of a later version does.
func storeAs(t *testing.T, js jetstream.JetStream, subject, id, schema, body string) uint64 {
	t.Helper()
	ack, err := js.PublishMsg(testContext(t), &nats.Msg{
		Subject: subject, Data: []byte(body), Header: nats.Header{headerID: {id}, headerSchema: {schema}, "Kansei-Later": {"x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return ack.Sequence
}

// Events of a newer schema are passed over: live, when they are read back, when a room is
// opened, in resumes and in pages. Their positions count all the same.
func TestEventOfANewerSchema(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	js := jetStream(t, s.ClientURL())
	var out lines
	l := openReady(t, Config{URLs: urls(s), Logger: out.logger()})
	first := mustAppend(t, l, "r", "a")
	o, f := followRoom(t, l, "r", 10)
	waitEvents(t, o, 10*time.Second, "a")
	newer := storeAs(t, js, "kansei.log.0.r", "b", "2", `{"text":"b"}`)
	eventually(t, 10*time.Second, "its position counts", func() error {
		if had := f.had.Load(); had != newer {
			return fmt.Errorf("had %d, wanted %d", had, newer)
		}
		return nil
	})
	lastSeq := mustAppend(t, l, "r", "c")
	waitEvents(t, o, 10*time.Second, "a", "c")
	if n := counter(t, l.metrics.gaps.WithLabelValues(gapLive)); n != 0 {
		t.Errorf("%v gaps", n)
	}

	ctx := testContext(t)
	epoch := l.epochOf("r")
	events, more, err := l.Read(ctx, "r", epoch, placed(t, l, "r", first), 10)
	if err != nil || more || len(events) != 1 || events[0].ID != "c" {
		t.Errorf("behind the first: %v, more %v, %v", events, more, err)
	}
	// A cursor may point at it.
	events, more, err = l.Read(ctx, "r", epoch, placed(t, l, "r", newer), 10)
	if err != nil || more || len(events) != 1 || events[0].ID != "c" {
		t.Errorf("behind the newer one: %v, more %v, %v", events, more, err)
	}
	if has, err := l.Has(ctx, "r", epoch, placed(t, l, "r", newer)); has != hub.AnchorRoom || err != nil {
		t.Errorf("the newer one's position: %v, %v", has, err)
	}
	// A page of two records has one event, and says that there are more before it.
	got, err := l.Before(ctx, "r", epoch, placed(t, l, "r", lastSeq), true, 2)
	if err != nil || len(got.Events) != 1 || got.Events[0].ID != "c" || got.From.Seq != newer || !got.More {
		t.Errorf("a page: %+v, %v", got, err)
	}
	if late, _ := followRoom(t, l, "r", 10); sameEvents(late, []string{"a", "c"}) != nil {
		waitEvents(t, late, 10*time.Second, "a", "c")
	}
	if n := counter(t, l.metrics.newer.WithLabelValues(recordEvent)); n < 4 {
		t.Errorf("%v newer records are counted", n)
	}
	if n := counter(t, l.metrics.skipped.WithLabelValues(string(skipBody))); n != 0 {
		t.Errorf("%v are counted as what is no event", n)
	}
	if err := out.once("level=WARN", "newer schema", "record=event", "schema=2", "known=1"); err != nil {
		t.Error(err)
	}
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
}

// A state of a newer schema is told as it is stored. A node that does not know the schema
// does not replace it.
func TestStateOfANewerSchema(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	js := jetStream(t, s.ClientURL())
	l := openReady(t, Config{URLs: urls(s)})
	o, _ := followRoom(t, l, "r", 10)
	when := regexp.MustCompile(`"(began|ended)_at":\d+,|,"timed":\d+`)
	told := func(want string) {
		t.Helper()
		eventually(t, 10*time.Second, "the state is told", func() error {
			o.mu.Lock()
			defer o.mu.Unlock()
			if n := len(o.states); n == 0 || when.ReplaceAllString(string(o.states[n-1].Body), "") != want {
				return fmt.Errorf("%d states, wanted %s at the end", n, want)
			}
			return nil
		})
	}
	const body = `{"title":"t","later":{"a":[1,2]},"rev":3}`
	storeAs(t, js, "kansei.state.r", "one", "2", body)
	told(body)
	ctx := testContext(t)
	st, err := l.State(ctx, "r")
	if err != nil || string(st.Body) != body || st.Rev == 0 {
		t.Fatalf("state %d %s, %v", st.Rev, st.Body, err)
	}
	if _, err := setState(ctx, l, "r", st.Rev, []byte(`{"title":"u"}`)); !errors.Is(err, hub.ErrUnavailable) || !errors.Is(err, errNewerSchema) {
		t.Errorf("it was replaced: %v", err)
	}
	if n := counter(t, l.metrics.newer.WithLabelValues(recordState)); n < 2 {
		t.Errorf("%v newer records are counted", n)
	}

	// Fields that it does not know are no newer schema: they are told, and survive a change.
	storeAs(t, js, "kansei.state.r", "two", "1", body)
	told(body)
	if st, err = l.State(ctx, "r"); err != nil || string(st.Body) != body {
		t.Fatalf("state %d %s, %v", st.Rev, st.Body, err)
	}
	put := []byte(`{"status":"live","title":"u"}`)
	rev, err := setState(ctx, l, "r", st.Rev, put)
	if err != nil {
		t.Fatal(err)
	}
	const kept = `{"broadcast":1,"later":{"a":[1,2]},"status":"live","title":"u"}`
	told(kept)
	// The same change again is the same change, also when a later node has changed its fields.
	if again, err := setState(ctx, l, "r", st.Rev, put); err != nil || again != rev {
		t.Errorf("again: %d, %v; wanted %d", again, err, rev)
	}
	// A field that is null is removed.
	if _, err := setState(ctx, l, "r", rev, []byte(`{"status":"ended","title":null}`)); err != nil {
		t.Fatal(err)
	}
	told(`{"broadcast":1,"later":{"a":[1,2]},"status":"ended"}`)
}

// What a node does not know of beside its streams is not its business.
func TestAdditionalStreams(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	js := jetStream(t, s.ClientURL())
	for name, subject := range map[string]string{"KANSEI_WATCH_0": "kansei.watch.0.>", "KANSEI_LATER": "kansei.later.>"} {
		if _, err := js.CreateStream(testContext(t), jetstream.StreamConfig{Name: name, Subjects: []string{subject}}); err != nil {
			t.Fatal(err)
		}
	}
	before := streamConfigs(t, js)
	l := openReady(t, Config{URLs: urls(s)})
	mustAppend(t, l, "r", "a")
	closeLog(t, l)
	after := streamConfigs(t, js)
	for name, was := range before {
		if after[name] != was {
			t.Errorf("stream %s\n%s\nbecame\n%s", name, was, after[name])
		}
	}
}

// Streams are made in the newest layout.
func TestStreamsHaveTheNewestLayout(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	js := jetStream(t, s.ClientURL())
	openReady(t, Config{URLs: urls(s)})
	for name, want := range map[string][2]string{"KANSEI_LOG_0": {"kansei.log.0.*", "0.{{wildcard(1)}}"}, "KANSEI_STATE": {"kansei.state.>", "state.>"}} {
		st, err := js.Stream(testContext(t), name)
		if err != nil {
			t.Fatal(err)
		}
		c := st.CachedInfo().Config
		live := "kansei.live." + c.Metadata[metaEpoch] + "." + want[1]
		if !slices.Equal(c.Subjects, []string{want[0]}) || c.RePublish.Source != want[0] || c.RePublish.Destination != live ||
			c.Metadata[metaLayout] != "2" || c.Metadata[metaReads] != "1" || c.AllowMsgTTL != (name == "KANSEI_STATE") {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// A stream of a later layout works: records on subjects that this node does not know take
// positions, and nothing else.
func TestStreamOfALaterLayout(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	js := jetStream(t, s.ClientURL())
	cfg, err := Config{URLs: urls(s)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	made := &Log{cfg: cfg}
	for _, st := range []*stream{
		newStream(made, "KANSEI_LOG_0", 0, "kansei.log.0.", "0"), newStream(made, "KANSEI_STATE", -1, "kansei.state.", "state"),
	} {
		later := st.wanted("epochofalater")
		later.Subjects = []string{st.subjects + ">", "kansei.more." + st.section + ".>"}
		later.RePublish.Source = st.subjects + ">"
		later.RePublish.Destination = st.liveSubjects("epochofalater") + ">"
		later.Metadata[metaLayout], later.Metadata[metaReads] = "7", "1"
		if _, err := js.CreateStream(testContext(t), later); err != nil {
			t.Fatal(err)
		}
	}
	var out lines
	l := openReady(t, Config{URLs: urls(s), Logger: out.logger()})
	o, f := followRoom(t, l, "r", 10)
	var ids []string
	for i := range 5 {
		for _, subject := range []string{"kansei.log.0.r.more", "kansei.more.0.r", "kansei.state.r.user.x", "kansei.more.state.r.y"} {
			storeAs(t, js, subject, fmt.Sprint(subject, i), "5", "what it is")
		}
		ids = append(ids, fmt.Sprint("id", i))
		mustAppend(t, l, "r", ids[i])
	}
	waitEvents(t, o, 10*time.Second, ids...)
	st, err := l.State(testContext(t), "r")
	if err != nil || st.Rev != 0 {
		t.Fatalf("state %+v, %v", st, err)
	}
	if _, err := setState(testContext(t), l, "r", 0, []byte(`{"title":"t"}`)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the state is told", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if n := len(o.states); n == 0 || string(o.states[n-1].Body) != `{"title":"t"}` {
			return fmt.Errorf("states %v", o.states)
		}
		return nil
	})
	// The stream goes on only with what this node does not know: the probe finds nothing.
	end := storeAs(t, js, "kansei.more.0.r", "end", "5", "what it is")
	eventually(t, 10*time.Second, "the probe reaches the end", func() error {
		if at := l.logs[0].known(); at != end {
			return fmt.Errorf("at %d, wanted %d", at, end)
		}
		return nil
	})
	late, _ := followRoom(t, l, "r", 10)
	waitEvents(t, late, 10*time.Second, ids...)
	if f.had.Load() != lastOf(t, l, "r") {
		t.Errorf("it has come to %d", f.had.Load())
	}
	for _, g := range []string{gapLive, gapTail, gapForgotten} {
		if n := counter(t, l.metrics.gaps.WithLabelValues(g)); n != 0 {
			t.Errorf("%v gaps: %s", n, g)
		}
	}
	if err := l.Ready(); err != nil || len(out.with("not as configured")) > 0 {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// A line tells of newer records at most once a minute.
func TestNewerRecordsAreToldOnceAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		out := new(lines)
		l := &Log{metrics: NewMetrics(prometheus.NewRegistry()), newer: quiet.Every(newerAgain, out.logger())}
		for range 150 {
			l.tellNewer(recordEvent, &record{header: nats.Header{headerSchema: {"9"}}})
			time.Sleep(time.Second)
		}
		if n := len(out.with("newer schema")); n != 3 {
			t.Errorf("%d lines", n)
		}
	})
}

func TestSubjectsThatCover(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		wide, narrow string
		want         bool
	}{
		{"a.*", "a.*", true}, {"a.>", "a.*", true}, {">", "a.*", true}, {"*.*", "a.*", true}, {"a.>", "a.>", true}, {"a.>", "a.*.>", true},
		{"a.b", "a.*", false}, {"a.*", "a.>", false}, {"a.*.>", "a.*", false}, {"a.>", "a", false}, {"a.*", "a.*.b", false}, {"b.>", "a.*", false},
	} {
		if covers(c.wide, c.narrow) != c.want {
			t.Errorf("%s covers %s: %v", c.wide, c.narrow, !c.want)
		}
	}
	for _, c := range []struct{ source, destination, want string }{
		{"k.log.*", "live.e.{{wildcard(1)}}", "live.e.room"},
		{"k.log.*", "live.e.{{ Wildcard( 1 ) }}", "live.e.room"},
		{"k.log.*", "live.e.$1", "live.e.room"},
		{"k.*.*", "live.e.$2", "live.e.room"},
		{"k.*.*", "live.e.$1", "live.e.log"},
		{"k.log.>", "live.e.>", "live.e.room"},
		{">", "live.e.>", "live.e.k.log.room"},
		{"k.log.*", "live.e.$7", "live.e.$7"},
		{"k.log.*", "live.e.{{partition(3,1)}}", "live.e.{{partition(3,1)}}"},
	} {
		if got := mapped("k.log.room", c.source, c.destination); got != c.want {
			t.Errorf("%s to %s is %s, wanted %s", c.source, c.destination, got, c.want)
		}
	}
}
