package natslog

import (
	"errors"
	"fmt"
	"testing"
	"time"

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

// A room with thousands of records is opened with all of them, in their order.
func TestManyStandingRecords(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	js := jetStream(t, s.ClientURL())
	const n = 5000
	for i := range n {
		if _, err := js.PublishAsync(fmt.Sprintf("kansei.state.r.act.a%05d", i), []byte(`{"n":1}`)); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 { // what is under way is bounded
			<-js.PublishAsyncComplete()
		}
	}
	o, _ := followRoom(t, l, "r", 10)
	o.look(t, func() {
		if len(o.standing) != n || o.standing[0].ID != "a00000" || o.standing[n-1].ID != fmt.Sprintf("a%05d", n-1) {
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
