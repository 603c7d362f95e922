package natslog

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
)

func keep(t testing.TB, l *Log, room, id, body string, seq uint64) hub.Standing {
	t.Helper()
	s, err := l.Keep(testContext(t), room, hub.Standing{ID: id, Seq: seq, Body: []byte(body)}, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A standing record is replaced by whoever names the one that is there. A follower has all of them when
// its room is opened, and hears of those that are written later.
func TestStandingRecords(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	a := keep(t, l, "r", "a", `{"n":1}`, 0)
	if again := keep(t, l, "r", "a", `{"n":1}`, 0); again.Seq != a.Seq {
		t.Errorf("the same again is %d, was %d", again.Seq, a.Seq)
	}
	there, err := l.Keep(testContext(t), "r", hub.Standing{ID: "a", Body: []byte(`{"n":2}`)}, 0)
	if !errors.Is(err, hub.ErrConflict) || there.Seq != a.Seq || string(there.Body) != `{"n":1}` {
		t.Errorf("a conflict: %+v, %v", there, err)
	}
	b := keep(t, l, "r", "a", `{"n":2}`, a.Seq)
	keep(t, l, "other", "x", `{"n":9}`, 0)
	keep(t, l, "r", "b", `{"n":3}`, 0)
	if got, err := l.Kept(testContext(t), "r", "a"); err != nil || got.Seq != b.Seq || string(got.Body) != `{"n":2}` {
		t.Errorf("kept %+v, %v", got, err)
	}
	if got, err := l.Kept(testContext(t), "r", "none"); err != nil || got.Seq != 0 {
		t.Errorf("none: %+v, %v", got, err)
	}
	o, _ := followRoom(t, l, "r", 10)
	bodies := func() (out string) {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, s := range o.standing {
			out += s.ID + string(s.Body)
		}
		return out
	}
	if got := bodies(); got != `a{"n":2}b{"n":3}` {
		t.Errorf("a room is opened with %s", got)
	}
	keep(t, l, "r", "c", `{"n":4}`, 0)
	keep(t, l, "other", "y", `{"n":9}`, 0)
	eventually(t, 5*time.Second, "a record is heard of", func() error {
		if got := bodies(); got != `a{"n":2}b{"n":3}c{"n":4}` {
			return errors.New(got)
		}
		return nil
	})
	// One that is to live for a time ends by itself.
	if _, err := l.Keep(testContext(t), "r", hub.Standing{ID: "short", Body: []byte(`{"n":5}`)}, time.Second); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "it ends", func() error {
		got, err := l.Kept(testContext(t), "r", "short")
		if err == nil && got.Seq > 0 {
			err = errors.New("it is there")
		}
		return err
	})
	if err := l.ForgetStanding(testContext(t), "r"); err != nil {
		t.Fatal(err)
	}
	if got, err := l.Kept(testContext(t), "r", "a"); err != nil || got.Seq != 0 {
		t.Errorf("forgotten: %+v, %v", got, err)
	}
	if got, err := l.Kept(testContext(t), "other", "x"); err != nil || got.Seq == 0 {
		t.Errorf("another room's: %+v, %v", got, err)
	}
}

// neighbours are ids of records in the bucket of the first one.
func neighbours(n int) (ids []string) {
	for i := 0; len(ids) < n; i++ {
		if id := fmt.Sprint("id", i); len(ids) == 0 || bucketOf(id) == bucketOf(ids[0]) {
			ids = append(ids, id)
		}
	}
	return ids
}

// Records that share a message end one by one, and what one says never comes between the others.
func TestRecordsOfOneBucket(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	ids := neighbours(4)
	stays := keep(t, l, "r", ids[0], `{"n":0}`, 0)
	if _, err := l.Keep(testContext(t), "r", hub.Standing{ID: ids[1], Body: []byte(`{"n":1}`)}, time.Second); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "it ends", func() error {
		if got, err := l.Kept(testContext(t), "r", ids[1]); err != nil || got.Seq > 0 {
			return fmt.Errorf("%+v, %w", got, err)
		}
		return nil
	})
	anew := keep(t, l, "r", ids[1], `{"n":2}`, 0)
	if got, err := l.Kept(testContext(t), "r", ids[0]); err != nil || got.Seq != stays.Seq || string(got.Body) != `{"n":0}` {
		t.Errorf("its neighbour: %+v, %v", got, err)
	}
	if _, err := l.Keep(testContext(t), "r", hub.Standing{ID: ids[1], Seq: anew.Seq - 1, Body: []byte(`{"n":3}`)}, 0); !errors.Is(err, hub.ErrConflict) {
		t.Errorf("on an older one: %v", err)
	}
	for _, st := range []hub.Standing{{ID: "a b", Body: []byte("{}")}, {Body: []byte("{}")}, {ID: "a", Body: []byte("{\n}")}} {
		if _, err := l.Keep(testContext(t), "r", st, 0); !errors.Is(err, hub.ErrUnavailable) {
			t.Errorf("%+v: %v", st, err)
		}
	}
	// There is an end to what one message takes.
	large := []byte(`"` + strings.Repeat("x", 600<<10) + `"`)
	if _, err := l.Keep(testContext(t), "r", hub.Standing{ID: ids[2], Body: large}, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Keep(testContext(t), "r", hub.Standing{ID: ids[3], Body: large}, 0); !errors.Is(err, hub.ErrUnavailable) || !strings.Contains(err.Error(), "too many acts") {
		t.Errorf("a full one: %v", err)
	}
}

// A bucket that a later version has written is left as it is: nobody knows what its records do.
func TestBucketOfALaterVersion(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	js := jetStream(t, s.ClientURL())
	subject := fmt.Sprintf("kansei.state.r.act.%02x", bucketOf("a"))
	if _, err := js.PublishMsg(testContext(t), &nats.Msg{Subject: subject, Data: []byte("?"), Header: nats.Header{headerSchema: {"99"}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Keep(testContext(t), "r", hub.Standing{ID: "a", Body: []byte("{}")}, 0); !errors.Is(err, hub.ErrUnavailable) {
		t.Errorf("written beside it: %v", err)
	}
	o, _ := followRoom(t, l, "r", 10)
	o.look(t, func() {
		if len(o.standing) != 1 || o.standing[0].Body != nil {
			t.Errorf("a room is opened with %+v", o.standing)
		}
	})
}

// A room with hundreds of records is opened with all of them, whoever has written them at the same time.
func TestManyStandingRecords(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	other := openReady(t, Config{URLs: urls(s)})
	const n = 400
	var writing sync.WaitGroup
	for w := range 16 { // on two nodes, which write into the same buckets
		writing.Go(func() {
			for i := w; i < n; i += 16 {
				log := []*Log{l, other}[w%2]
				first, err := log.Keep(testContext(t), "r", hub.Standing{ID: fmt.Sprintf("a%05d", i), Body: []byte(`{"n":1}`)}, 0)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := log.Keep(testContext(t), "r", hub.Standing{ID: first.ID, Seq: first.Seq, Body: []byte(`{"n":2}`)}, time.Hour); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writing.Wait()
	o, _ := followRoom(t, l, "r", 10)
	o.look(t, func() {
		there := map[string]bool{}
		for _, s := range o.standing {
			there[s.ID] = string(s.Body) == `{"n":2}`
		}
		for i := range n {
			if !there[fmt.Sprintf("a%05d", i)] {
				t.Fatalf("record %d is lost", i)
			}
		}
		if len(o.standing) != n {
			t.Errorf("%d records", len(o.standing))
		}
	})
}

// The hash of a user is another one in each room, and in each stream of states.
func TestUserHash(t *testing.T) {
	t.Parallel()
	hashes := map[string]bool{}
	for range 2 {
		l := openReady(t, Config{URLs: urls(startServer(t, t.TempDir(), 0))})
		for _, room := range []string{"r", "s"} {
			h := l.UserHash(room, "ken")
			if len(h) != 26 || hashes[h] || l.UserHash(room, "ken") != h || l.UserHash(room, "eve") == h {
				t.Errorf("the hash is %s", h)
			}
			hashes[h] = true
		}
	}
}

func TestEventAndForget(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	a, other, b := mustAppend(t, l, "r", "a"), mustAppend(t, l, "s", "x"), mustAppend(t, l, "r", "b")
	if e, err := l.Event(testContext(t), "r", a); err != nil || e == nil || string(e.Body) != `{"text":"a"}` || e.At == 0 {
		t.Errorf("%+v, %v", e, err)
	}
	for _, seq := range []uint64{other, 99} {
		if e, err := l.Event(testContext(t), "r", seq); err != nil || e != nil {
			t.Errorf("%d: %+v, %v", seq, e, err)
		}
	}
	if err := l.Forget(testContext(t), "r", a); err != nil {
		t.Fatal(err)
	}
	for seq, want := range map[uint64]bool{a: false, b: true} {
		if e, err := l.Event(testContext(t), "r", seq); err != nil || (e != nil) != want {
			t.Errorf("%d: %+v, %v", seq, e, err)
		}
	}
	if err := l.Forget(testContext(t), "r", hub.EndSeq); err != nil {
		t.Fatal(err)
	}
	if e, err := l.Event(testContext(t), "r", b); err != nil || e != nil {
		t.Errorf("all: %+v, %v", e, err)
	}
	if e, err := l.Event(testContext(t), "s", other); err != nil || e == nil {
		t.Errorf("another room's: %+v, %v", e, err)
	}
}

// A room keeps its comments for as long as its state says, and other rooms theirs.
func TestForgetOld(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	for room, doc := range map[string]string{"short": `{"status":"live","keep_ms":1500}`, "quiet": `{"keep_ms":1500}`, "long": `{"keep_ms":600000}`, "ever": `{"status":"live"}`} {
		if _, err := setState(testContext(t), l, room, 0, []byte(doc)); err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, room, "old-"+room)
	}
	time.Sleep(2 * time.Second)
	fresh := mustAppend(t, l, "short", "new")
	if n, err := l.ForgetOld(testContext(t)); n != 2 || err != nil {
		t.Errorf("%d rooms, %v", n, err)
	}
	for room, want := range map[string]int{"short": 1, "quiet": 0, "long": 1, "ever": 1} {
		page, err := l.Before(testContext(t), room, l.epochOf(room), hub.Position{Seq: hub.EndSeq}, true, 10)
		if err != nil || len(page.Events) != want {
			t.Errorf("%s has %d events, %v", room, len(page.Events), err)
		}
		if room == "short" && len(page.Events) > 0 && page.Events[0].Seq != fresh {
			t.Error("the wrong one is left")
		}
	}
	if n, err := l.ForgetOld(testContext(t)); n != 0 || err != nil {
		t.Errorf("again: %d rooms, %v", n, err)
	}
}

// A stream of states of layout 1 is widened, and takes acts then. Nothing is taken away from it.
func TestOldStatesAreWidened(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	js := jetStream(t, s.ClientURL())
	l := openReady(t, Config{URLs: urls(s)})
	if _, err := setState(testContext(t), l, "r", 0, []byte(`{"status":"ended"}`)); err != nil {
		t.Fatal(err)
	}
	closeLog(t, l)
	st, err := js.Stream(testContext(t), "KANSEI_STATE")
	if err != nil {
		t.Fatal(err)
	}
	c := st.CachedInfo().Config
	c.Subjects = []string{"kansei.state.*"}
	c.RePublish = &jetstream.RePublish{Source: "kansei.state.*", Destination: "kansei.live." + c.Metadata[metaEpoch] + ".state.{{wildcard(1)}}"}
	delete(c.Metadata, metaLayout)
	delete(c.Metadata, metaReads)
	c.Metadata["of_the_operators"] = "x"
	c.Name = "OLD"
	if err := js.DeleteStream(testContext(t), "KANSEI_STATE"); err != nil {
		t.Fatal(err)
	}
	c.Name, c.AllowMsgTTL = "KANSEI_STATE", false
	if _, err := js.CreateStream(testContext(t), c); err != nil {
		t.Fatal(err)
	}
	l = openReady(t, Config{URLs: urls(s)})
	o, _ := followRoom(t, l, "r", 10)
	eventually(t, 20*time.Second, "an act is kept", func() error {
		_, err := l.Keep(testContext(t), "r", hub.Standing{ID: "a", Body: []byte(`{"n":1}`)}, time.Hour)
		if errors.Is(err, hub.ErrConflict) {
			err = nil
		}
		return err
	})
	eventually(t, 5*time.Second, "it is heard of", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.standing) != 1 {
			return fmt.Errorf("%d records", len(o.standing))
		}
		return nil
	})
	st, err = js.Stream(testContext(t), "KANSEI_STATE")
	if err != nil {
		t.Fatal(err)
	}
	if got := st.CachedInfo().Config; got.Metadata[metaLayout] != "2" || got.Metadata[metaReads] != "" || got.Metadata["of_the_operators"] != "x" || got.MaxMsgsPerSubject != 1 {
		t.Errorf("it is %+v", got)
	}
}

// BenchmarkUserHash measures what a join and a comment of a room with sanctions pay for finding those of their user.
func BenchmarkUserHash(b *testing.B) {
	l := openReady(b, Config{URLs: urls(startServer(b, b.TempDir(), 0))})
	b.ReportAllocs()
	for b.Loop() {
		l.UserHash("lesson-7", "g-0123456789abcdef")
	}
}
