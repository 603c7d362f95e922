package natslog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

func jetStream(t testing.TB, url string) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(dial(t, url))
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"prefix":         {Prefix: "a.b"},
		"partitions":     {Partitions: 257},
		"replicas":       {Replicas: 6},
		"max age":        {MaxAge: time.Millisecond},
		"append timeout": {AppendTimeout: time.Minute + 1},
		"short age":      {MaxAge: 20 * time.Second},
		"live buffer":    {LiveBuffer: 15},
		"live buffers":   {LiveBuffer: 1<<20 + 1},
		"pending":        {MaxPending: -1},
		"url":            {URLs: []string{"nats://"}},
		"url syntax":     {URLs: []string{"nats://a b:c"}},
		"option":         {Options: []nats.Option{nats.RootCAs("/does/not/exist")}},
	} {
		if l, err := Open(cfg); err == nil {
			t.Errorf("%s: accepted", name)
			closeLog(t, l)
		}
	}
}

// Where events are must not change: the partitions of rooms are pinned here.
func TestPartitionIsStable(t *testing.T) {
	t.Parallel()
	for room, want := range map[string]int{"r": 5, "room-1": 12, "Lesson_2024": 14, "a": 12} {
		if got := partition(room, 16); got != want {
			t.Errorf("partition(%q, 16) = %d, want %d", room, got, want)
		}
	}
}

func TestFollowInOrder(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), Partitions: 2})
	first := mustAppend(t, l, "r", "a")
	mustAppend(t, l, "other", "x")
	o, _ := followRoom(t, l, "r", 10)
	for _, id := range []string{"b", "c", "d"} {
		mustAppend(t, l, "r", id)
	}
	waitEvents(t, o, 5*time.Second, "a", "b", "c", "d")
	o.look(t, func() {
		if len(o.recent) != 1 || o.recent[0].Seq != first {
			t.Errorf("the first report held %v, wanted the event at %d", o.recent, first)
		}
		if age := time.Since(time.UnixMilli(o.events[3].At)); age < 0 || age > time.Minute {
			t.Errorf("the event is %v old", age)
		}
		if e := o.events[3]; e.Kind != hub.KindComment || e.Audience != hub.AudienceAll {
			t.Errorf("kind %q for %q", e.Kind, e.Audience)
		}
		if o.resets != 1 || len(o.states) != 1 || o.states[0].Rev != 0 || o.states[0].Body != nil {
			t.Errorf("%d resets, states %v", o.resets, o.states)
		}
	})
}

func TestKindsAndAudiences(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	drafts := []hub.Draft{
		{ID: "1", Kind: "removed", Body: []byte(`{"ids":["a"]}`)},
		{ID: "2", Kind: hub.KindComment, Audience: hub.AudienceStaff, Body: []byte(` {"text":"b"}`)},
		{ID: "3", Kind: hub.KindComment, Audience: hub.AudienceUser + " ä\r\nX: 1%/ ", Body: []byte(`{"text":"c"}`)},
	}
	for _, a := range appendAll(t, l, "r", drafts...) {
		if a.err != nil {
			t.Fatal(a.err)
		}
	}
	events, more, err := l.Read(testContext(t), "r", l.epochOf("r"), hub.Position{}, 10)
	if err != nil || more || len(events) != len(drafts) {
		t.Fatalf("%d events, more %v, %v", len(events), more, err)
	}
	for i, e := range events {
		if d := drafts[i]; e.Kind != d.Kind || e.Audience != d.Audience || string(e.Body) != strings.TrimSpace(string(d.Body)) {
			t.Errorf("%+v came back as %+v", d, e)
		}
	}
}

func TestDraftsThatAreRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	good := draft1("id")
	for name, change := range map[string]func(*hub.Draft){
		"no id":      func(d *hub.Draft) { d.ID = "" },
		"id":         func(d *hub.Draft) { d.ID = "a\r\nb" },
		"long id":    func(d *hub.Draft) { d.ID = strings.Repeat("x", 65) },
		"no kind":    func(d *hub.Draft) { d.Kind = "" },
		"no body":    func(d *hub.Draft) { d.Body = nil },
		"empty body": func(d *hub.Draft) { d.Body = []byte("{ }") },
		"not UTF-8":  func(d *hub.Draft) { d.Body = []byte("{\"a\":\"\xff\"}") },
		"audience":   func(d *hub.Draft) { d.Audience = strings.Repeat("x", 257) },
		"too long":   func(d *hub.Draft) { d.Body = []byte(`{"a":"` + strings.Repeat("x", 2<<20) + `"}`) },
	} {
		d := good
		change(&d)
		if a := appendAll(t, l, "r", d)[0]; !errors.Is(a.err, hub.ErrUnavailable) {
			t.Errorf("%s: %v", name, a.err)
		}
	}
	if a := appendAll(t, l, "no.room", good)[0]; !errors.Is(a.err, hub.ErrUnavailable) {
		t.Errorf("bad room: %v", a.err)
	}
	if last := lastOf(t, l, "r"); last != 0 {
		t.Errorf("the log has %d", last)
	}
}

func TestSameIDIsTheSameEvent(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	o, _ := followRoom(t, l, "r", 10)
	for i, a := range appendAll(t, l, "r", draft1("a"), draft1("a"), draft1("a")) {
		if a.err != nil || a.Seq != 1 || a.Duplicate != (i > 0) {
			t.Errorf("append %d: %+v", i, a)
		}
	}
	mustAppend(t, l, "r", "b")
	waitEvents(t, o, 5*time.Second, "a", "b")
}

func TestAppendsOfOneCallerKeepTheirOrder(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	var drafts []hub.Draft
	ids := names("n", 2000)
	for _, id := range ids {
		drafts = append(drafts, draft1(id))
	}
	o, _ := followRoom(t, l, "r", 10)
	last := uint64(0)
	for i, a := range appendAll(t, l, "r", drafts...) {
		if a.err != nil || a.Seq <= last {
			t.Fatalf("append %d: %+v after %d", i, a, last)
		}
		last = a.Seq
	}
	waitEvents(t, o, 20*time.Second, ids...)
}

func TestReadPagesWithHoles(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	ctx := testContext(t)
	stream, err := jetStream(t, s.ClientURL()).Stream(ctx, "KANSEI_LOG_0")
	if err != nil {
		t.Fatal(err)
	}
	var want []uint64
	for i := range 150 {
		seq := mustAppend(t, l, "r", fmt.Sprint("r", i))
		mustAppend(t, l, "other", fmt.Sprint("o", i))
		if i%3 == 1 || i > 140 {
			if err := stream.DeleteMsg(ctx, seq); err != nil {
				t.Fatal(err)
			}
		} else {
			want = append(want, seq)
		}
	}
	var begin hub.Position
	for _, limit := range []int{1, 7, 100, len(want) - 1, len(want), len(want) + 1, 1000} {
		var got []uint64
		after, pages := begin, 0
		for more := true; more; pages++ {
			var events []hub.Event
			events, more, err = l.Read(ctx, "r", l.epochOf("r"), after, limit)
			if err != nil || len(events) > limit || more && len(events) < limit {
				t.Fatalf("limit %d after %d: %d events, more %v, %v", limit, after, len(events), more, err)
			}
			for _, e := range events {
				got = append(got, e.Seq)
				after = e.Position()
			}
		}
		if !slices.Equal(got, want) || pages != (len(want)+limit-1)/limit {
			t.Errorf("limit %d: %d events in %d pages, wanted %d", limit, len(got), pages, len(want))
		}
		if limit == 1 {
			want = want[len(want)-50:] // pages of one are slow
			want = slices.Clone(want)
			if err := stream.Purge(ctx, jetstream.WithPurgeSequence(want[0])); err != nil {
				t.Fatal(err)
			}
			begin, want = placed(t, l, "r", want[0]), want[1:]
		}
	}
	if last := lastOf(t, l, "r"); last != want[len(want)-1] {
		t.Errorf("last is %d; wanted %d", last, want[len(want)-1])
	}
	if events, more, err := l.Read(ctx, "never", l.epochOf("never"), begin, 10); err != nil || more || len(events) != 0 {
		t.Errorf("of an empty room: %d events, %v, %v", len(events), more, err)
	}
	for name, p := range map[string]struct {
		room, epoch string
		after       hub.Position
	}{
		"from the future":           {"r", l.epochOf("r"), hub.Position{Seq: 1 << 40, At: 1}},
		"from before the beginning": {"r", l.epochOf("r"), hub.Position{Seq: begin.Seq - 1, At: begin.At}},
		"of another past":           {"r", l.epochOf("r"), hub.Position{Seq: begin.Seq, At: begin.At + 1}},
		"of no time":                {"r", l.epochOf("r"), hub.Position{Seq: begin.Seq}},
		"of an empty room, from before the beginning": {"never", l.epochOf("r"), hub.Position{}},
		"of another log": {"r", "other", begin},
	} {
		if events, _, err := l.Read(ctx, p.room, p.epoch, p.after, 10); !errors.Is(err, hub.ErrForgotten) || len(events) > 0 {
			t.Errorf("%s: %d events, %v", name, len(events), err)
		}
	}
	if _, _, err := l.Read(ctx, "no.room", l.epochOf("no.room"), hub.Position{}, 1); !errors.Is(err, hub.ErrUnavailable) {
		t.Errorf("of no room: %v", err)
	}
}

func TestRecentEventsAmongManyOthers(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	var drafts []hub.Draft
	for i := range 3000 {
		drafts = append(drafts, draft1(fmt.Sprint("a", i)))
	}
	// The room is talkative at first, then one among many.
	appendAll(t, l, "r", drafts...)
	for i := range 60 {
		var noise []hub.Draft
		for j := range 15 {
			noise = append(noise, draft1(fmt.Sprint("x", i, "-", j)))
		}
		appendAll(t, l, "other", noise...)
		mustAppend(t, l, "r", fmt.Sprint("b", i))
	}
	for _, n := range []int{0, 1, 30, 59, 60, 61, 500, 5000} {
		o, f := followRoom(t, l, "r", n)
		all := append(names("a", 3000), names("b", 60)...)
		waitEvents(t, o, time.Second, all[max(0, len(all)-n):]...)
		f.Stop()
	}
	o, _ := followRoom(t, l, "silent", 50)
	waitEvents(t, o, time.Second)
}

func TestRecentEventsThatAreTooOld(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), HistoryWindow: time.Second})
	mustAppend(t, l, "r", "a")
	time.Sleep(1100 * time.Millisecond)
	o, f := followRoom(t, l, "r", 10)
	waitEvents(t, o, time.Second)
	o.look(t, func() {
		if o.head != 1 {
			t.Errorf("head %d, wanted 1", o.head)
		}
	})
	mustAppend(t, l, "r", "b")
	waitEvents(t, o, 5*time.Second, "b")
	f.Stop()
	o, _ = followRoom(t, l, "r", 10)
	waitEvents(t, o, time.Second, "b")
}

func TestStateIsSharedAndGuarded(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	a, b := openReady(t, Config{URLs: urls(s)}), openReady(t, Config{URLs: urls(s)})
	ctx := testContext(t)
	if st, err := a.State(ctx, "r"); err != nil || st.Rev != 0 || st.Body != nil {
		t.Fatalf("never set: %+v, %v", st, err)
	}
	if _, err := setState(ctx, a, "r", 9, []byte(`{}`)); !errors.Is(err, hub.ErrConflict) {
		t.Errorf("on a revision that never was: %v", err)
	}
	o, _ := followRoom(t, b, "r", 10)
	rev, err := setState(ctx, a, "r", 0, []byte(`{"title":"1"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := setState(ctx, b, "r", 0, []byte(`{"title":"x"}`)); !errors.Is(err, hub.ErrConflict) {
		t.Errorf("on an old revision: %v", err)
	}
	if _, err := setState(ctx, b, "other", 0, []byte(`{"title":"o"}`)); err != nil {
		t.Error(err)
	}
	rev2, err := setState(ctx, b, "r", rev, []byte(`{"title":"2"}`))
	if err != nil || rev2 <= rev {
		t.Fatalf("revision %d after %d, %v", rev2, rev, err)
	}
	if st, err := a.State(ctx, "r"); err != nil || st.Rev != rev2 || string(st.Body) != `{"title":"2"}` {
		t.Errorf("state %+v, %v", st, err)
	}
	eventually(t, 5*time.Second, "the states are reported", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if n := len(o.states); n != 3 || o.states[1].Rev != rev || string(o.states[2].Body) != `{"title":"2"}` {
			return fmt.Errorf("%d states: %v", n, o.states)
		}
		return nil
	})
	o2, _ := followRoom(t, a, "r", 10)
	o2.look(t, func() {
		if len(o2.states) != 1 || o2.states[0].Rev != rev2 {
			t.Errorf("a later follow is told %v", o2.states)
		}
	})
}

func TestGarbageInTheLogIsPassedOver(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	o, _ := followRoom(t, l, "r", 10)
	nc := dial(t, s.ClientURL())
	throw := func() {
		for _, body := range []string{"", "null", "[]", "{}", "42", "\xff", `{"a":1`, `{"a":"` + "\xff" + `"}`} {
			if err := nc.Publish("kansei.log.0.r", []byte(body)); err != nil {
				t.Fatal(err)
			}
		}
		for _, h := range []nats.Header{
			{headerKind: {""}}, {headerAudience: {"%zz"}}, {headerKind: {"a", "b"}},
			{headerSequence: {"7"}, headerStatus: {"204"}, headerSubject: {""}, headerKind: {""}},
		} {
			if err := nc.PublishMsg(&nats.Msg{Subject: "kansei.log.0.r", Header: h, Data: []byte(`{"a":1}`)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := nc.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	throw()
	mustAppend(t, l, "r", "a")
	throw()
	mustAppend(t, l, "r", "b")
	throw()
	waitEvents(t, o, 5*time.Second, "a", "b")
	eventually(t, 5*time.Second, "all is read", func() error {
		if f := l.logs[0].follows()[0]; f.had.Load() != 3*12+2 {
			return fmt.Errorf("read up to %d", f.had.Load())
		}
		return nil
	})
	o2, _ := followRoom(t, l, "r", 30)
	waitEvents(t, o2, 5*time.Second, "a", "b")
	events, _, err := l.Read(testContext(t), "r", l.epochOf("r"), hub.Position{}, 10)
	if err != nil || len(events) != 2 {
		t.Errorf("%d events, %v", len(events), err)
	}
	for _, reason := range []skipReason{skipBody, skipHeader} {
		if counter(t, l.metrics.skipped.WithLabelValues(string(reason))) == 0 {
			t.Errorf("none was counted as %q", reason)
		}
	}
}
