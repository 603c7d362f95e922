package natslog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// The tests in this file have a log that loses its end, and gives its positions again.

// restorable is a server whose store can be put back.
type restorable struct {
	*server.Server
	base, dir string
	port, n   int
}

func startRestorable(t *testing.T) *restorable {
	t.Helper()
	r := &restorable{base: t.TempDir(), port: freePorts(t, 1)[0]}
	r.dir = filepath.Join(r.base, "0")
	r.Server = startServer(t, r.dir, r.port)
	return r
}

// backUp copies the store, and goes on with it.
func (r *restorable) backUp(t *testing.T) (copied string) {
	t.Helper()
	stopServer(r.Server)
	r.n++
	copied = filepath.Join(r.base, fmt.Sprint(r.n))
	if err := os.CopyFS(copied, os.DirFS(r.dir)); err != nil {
		t.Fatal(err)
	}
	r.Server = startServer(t, r.dir, r.port)
	return copied
}

// restore puts a copy in place of the store. grow, if set, has it grow before the nodes
// that were there connect to it.
func (r *restorable) restore(t *testing.T, copied string, grow func(url string)) {
	t.Helper()
	stopServer(r.Server)
	r.dir = copied
	if grow != nil {
		s := startServer(t, r.dir, 0)
		grow(s.ClientURL())
		stopServer(s)
	}
	r.Server = startServer(t, r.dir, r.port)
}

// reconnected waits until a log has connected again so many times, and is ready.
func reconnected(t *testing.T, l *Log, times float64) {
	t.Helper()
	eventually(t, 30*time.Second, "the log is connected again", func() error {
		if n := counter(t, l.metrics.nats.Reconnects); n < times {
			return fmt.Errorf("%v times", n)
		}
		return l.Ready()
	})
}

// publish writes comments without a node.
func publish(t *testing.T, url, room string, texts ...string) {
	t.Helper()
	nc := dial(t, url)
	defer nc.Close()
	for _, text := range texts {
		body := protocol.EncodeBody(protocol.Comment{User: protocol.User{ID: "u"}, Text: text})
		m := encodeDraft("kansei.log.0."+room, hub.Draft{ID: room + "-" + text, Kind: hub.KindComment, Body: body})
		if _, err := nc.RequestMsg(m, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
}

// has reports whether the viewer was sent texts last.
func (v *viewer) has(texts ...string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.texts) - len(texts); n < 0 || fmt.Sprint(v.texts[n:]) != fmt.Sprint(texts) {
		return fmt.Errorf("%v, wanted %v at the end", v.texts, texts)
	}
	return nil
}

// A log is restored from a backup, and grows past the end that it had, or not yet. Viewers
// with cursors of what is gone are not recovered, on any node, and lose nothing of what is
// new; those who stayed are told of a gap; cursors of before the backup are good. No id is
// given out twice.
func TestRestoredLog(t *testing.T) {
	t.Parallel()
	for name, early := range map[string]int{"grows while nodes watch": 0, "has grown when they come": 80} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startRestorable(t)
			l := openReady(t, Config{URLs: urls(s.Server)})
			h := startHub(t, l, nil)
			stays := join(t, h, "r", "")
			for i := range 20 {
				say(t, l, "r", fmt.Sprint("old", i))
			}
			eventually(t, 10*time.Second, "the old ones are shown", func() error { return stays.saw(false, names("old", 20)...) })
			before := stays.at()
			backup := s.backUp(t)
			reconnected(t, l, 1)
			for i := range 50 {
				say(t, l, "r", fmt.Sprint("lost", i))
			}
			eventually(t, 20*time.Second, "what will be lost is shown", func() error { return stays.has(names("lost", 50)...) })
			lost := stays.at()

			all := names("new", 60+early)
			s.restore(t, backup, func(url string) { publish(t, url, "r", all[:early]...) })
			reconnected(t, l, 2)
			for _, text := range all[early:] {
				say(t, l, "r", text)
			}
			eventually(t, 20*time.Second, "those who stayed see the new ones, and are told", func() error {
				// Everything behind the gap, up to the end.
				stays.mu.Lock()
				defer stays.mu.Unlock()
				rest := stays.texts[stays.gapAt:]
				rest = rest[max(0, len(rest)-len(all)):] // it may begin with those of before
				if stays.gaps != 1 {
					return fmt.Errorf("%d gaps, then %v", stays.gaps, rest)
				}
				if len(rest) < 50 || fmt.Sprint(rest) != fmt.Sprint(all[len(all)-len(rest):]) {
					return fmt.Errorf("behind the gap %v", rest)
				}
				return nil
			})
			if n := counter(t, l.metrics.lostEnds); n != 1 {
				t.Errorf("%v ends were lost", n)
			}
			other := startHub(t, openReady(t, Config{URLs: urls(s.Server)}), nil)
			keep := join(t, other, "r", "")
			eventually(t, 10*time.Second, "the other node has the room", func() error { return keep.has(all[len(all)-50:]...) })
			for where, h := range map[string]*hub.Hub{"the node that was there": h, "another node": other} {
				if err := join(t, h, "r", lost).saw(false, all[len(all)-50:]...); err != nil {
					t.Errorf("%s: with a cursor of what is gone: %v", where, err)
				}
				if err := join(t, h, "r", before).saw(true, all...); err != nil {
					t.Errorf("%s: with a cursor of before: %v", where, err)
				}
			}
			ids := make(map[string]string)
			for _, v := range []*viewer{stays, keep} {
				v.mu.Lock()
				for id, text := range v.ids {
					if was, ok := ids[id]; ok && was != text {
						t.Errorf("%s and %s have the id %s", was, text, id)
					}
					ids[id] = text
				}
				v.mu.Unlock()
			}
		})
	}
}

// remade makes the stream of a partition anew, as the same log, with what publish writes
// into it: no connection is cut, and no node looks in between.
func remade(t *testing.T, l *Log, url, name string, publish func()) {
	t.Helper()
	js := jetStream(t, url)
	st, err := js.Stream(testContext(t), name)
	if err != nil {
		t.Fatal(err)
	}
	cfg := st.CachedInfo().Config
	for _, s := range l.streams() {
		if s.name == name {
			s.mu.Lock()
			defer s.mu.Unlock()
		}
	}
	if err := js.DeleteStream(testContext(t), name); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(testContext(t), cfg); err != nil {
		t.Fatal(err)
	}
	publish()
}

// The same without a cut: the stream is put back while the nodes are connected. They find
// out by themselves, whether it has grown past its old end or not.
func TestRestoredStream(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	h := startHub(t, l, nil)
	v, silent := join(t, h, "r", ""), join(t, h, "silent", "")
	for i := range 20 {
		say(t, l, "r", fmt.Sprint("a", i))
	}
	eventually(t, 10*time.Second, "they are shown", func() error { return v.saw(false, names("a", 20)...) })
	prefix := "b"
	for round, n := range []int{5, 40} {
		texts := names(prefix, n)
		remade(t, l, s.ClientURL(), "KANSEI_LOG_0", func() { publish(t, s.ClientURL(), "r", texts...) })
		began := time.Now()
		eventually(t, 15*time.Second, "the new ones are shown", func() error { return v.has(texts...) })
		took := time.Since(began)
		t.Logf("%d comments were shown after %v", n, took)
		if took > 6*time.Second { // a tick and a reading; the machine may be busy
			t.Errorf("shown after %v", took)
		}
		v.mu.Lock()
		if v.gaps != round+1 {
			t.Errorf("%d gaps", v.gaps)
		}
		v.mu.Unlock()
		prefix += "b"
		eventually(t, 5*time.Second, "the room is checked", func() error {
			if f := l.logs[0].of("r")[0]; f.had.Load() != uint64(n) {
				return fmt.Errorf("it is at %d", f.had.Load())
			}
			return nil
		})
	}
	eventually(t, 10*time.Second, "a silent room is told of both", func() error {
		silent.mu.Lock()
		defer silent.mu.Unlock()
		if silent.gaps != 2 {
			return fmt.Errorf("of %d gaps", silent.gaps)
		}
		return nil
	})
}

// Positions that are given again are noticed where they show, without waiting for a tick.
func TestSignsOfAnotherPast(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	for _, id := range names("a", 9) {
		mustAppend(t, l, "r", id)
	}
	// The same stream, but nobody tends it.
	real := l.logs[0]
	st := newStream(l, real.name, 0, real.subjects, real.section)
	st.id, st.usable = real.identity(), true
	f := newFollow(l, "r", 10, new(observer))
	f.log, f.liveSubject, f.warm = st, "live.r", true
	had := placed(t, l, "r", 9)
	f.come(had)
	look := func(what string, want hub.Position) {
		t.Helper()
		var doubts []hub.Position
		if want.Seq > 0 {
			doubts = append(doubts, want)
		}
		if st.recheck.Swap(false) != (want.Seq > 0) || !slices.Equal(st.doubted, doubts) {
			t.Errorf("%s: %v are doubted, wanted %v", what, st.doubted, doubts)
		}
		st.doubted = nil
	}
	at := time.UnixMilli(had.At)
	live := func(seq int, at time.Time) []*nats.Msg {
		return []*nats.Msg{{Subject: f.liveSubject, Data: []byte(`{"a":1}`), Header: nats.Header{headerSubject: {"kansei.log.0.r"},
			headerSequence: {fmt.Sprint(seq)}, headerPrevious: {"1"}, headerTime: {at.UTC().Format(time.RFC3339Nano)}}}}
	}
	f.show(live(9, at))
	f.show(live(3, at.Add(-time.Second)))
	look("live messages come twice", hub.Position{})
	f.show(live(3, at.Add(time.Second)))
	look("a live message is younger than a later one", had)
	if f.contradicts(record{seq: 9, at: had.At}) || !f.contradicts(record{seq: 9, at: had.At + 1}) {
		t.Error("the probe does not see it")
	}
	if _, err := st.batch(testContext(t), "r", had); err != nil {
		t.Error(err)
	}
	look("a direct get begins with the record that is known", hub.Position{})
	other := hub.Position{Seq: 9, At: had.At - 1}
	if _, err := st.batch(testContext(t), "r", other); !errors.Is(err, errPast) {
		t.Errorf("a direct get with another record: %v", err)
	}
	look("a direct get has another record", other)
	scriptedBy(t, l, st, s.ClientURL(), "fake.again", `{"stream":"MINE","seq":9,"duplicate":true}`)
	scriptedBy(t, l, st, s.ClientURL(), "fake.again", `{"stream":"MINE","seq":10}`)
	look("a duplicate and a new position are acknowledged", hub.Position{})
	scriptedBy(t, l, st, s.ClientURL(), "fake.again", `{"stream":"MINE","seq":9}`)
	look("a known position is acknowledged", had)

	// Signs that come before the first one was looked at do not hide it.
	for i := range uint64(10) {
		st.suspect(hub.Position{Seq: i, At: 1})
		st.suspect(hub.Position{Seq: i, At: 1})
	}
	if n := len(st.doubted); n != maxDoubts || st.doubted[0].Seq != 1 || st.doubted[n-1].Seq != 9 {
		t.Errorf("after ten signs %v are doubted", st.doubted)
	}
}

// A state of another past does not stay, and a change that is based on it is a conflict,
// though the position is the same.
func TestStateOfAnotherPast(t *testing.T) {
	t.Parallel()
	s := startRestorable(t)
	l := openReady(t, Config{URLs: urls(s.Server)})
	o, _ := followRoom(t, l, "r", 10)
	ctx := testContext(t)
	set := func(rev uint64, title string) uint64 {
		t.Helper()
		var now uint64
		eventually(t, 20*time.Second, "the state is set", func() (err error) {
			now, err = setState(ctx, l, "r", rev, []byte(`{"title":"`+title+`"}`))
			return err
		})
		return now
	}
	first := set(0, "a")
	backup := s.backUp(t)
	reconnected(t, l, 1)
	lost := set(first, "lost")
	shown := func(rev uint64) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if n := len(o.states); n == 0 || o.states[n-1].Rev != rev {
			return fmt.Errorf("%v, wanted %d", o.states, rev)
		}
		return nil
	}
	eventually(t, 10*time.Second, "it is shown", func() error { return shown(lost) })
	s.restore(t, backup, nil)
	reconnected(t, l, 2)
	eventually(t, 10*time.Second, "the state of before is shown", func() error { return shown(first) })
	other := set(first, "other")
	if other>>revisionHash != lost>>revisionHash || other == lost {
		t.Errorf("revisions %d and %d at the same position", lost, other)
	}
	if rev, err := setState(ctx, l, "r", lost, []byte(`{"title":"x"}`)); !errors.Is(err, hub.ErrConflict) {
		t.Errorf("a change that is based on what is gone: %d, %v", rev, err)
	}
	eventually(t, 10*time.Second, "the new one is shown", func() error { return shown(other) })

	// Without a cut.
	remade(t, l, s.ClientURL(), "KANSEI_STATE", func() {
		nc := dial(t, s.ClientURL())
		if _, err := nc.Request("kansei.state.r", []byte(`{"title":"anew"}`), 10*time.Second); err != nil {
			t.Fatal(err)
		}
	})
	eventually(t, 10*time.Second, "what is there is shown", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if n := len(o.states); string(o.states[n-1].Body) != `{"title":"anew"}` {
			return fmt.Errorf("%v", o.states)
		}
		return nil
	})
}

// Whoever has not heard yet that the log was cut off finds signs of it, which are no news;
// one of a later past is.
func TestSignsThatAreNoNews(t *testing.T) {
	t.Parallel()
	l := openReady(t, Config{URLs: urls(startServer(t, t.TempDir(), 0))})
	s := newStream(l, "S", 0, "s.", "0") // which nobody tends
	s.note(hub.Position{Seq: 150, At: 1000})
	s.cutOff(hub.Position{Seq: 100, At: 900})
	s.doubt(hub.Position{Seq: 150, At: 1000})
	s.doubt(hub.Position{Seq: 120, At: 950})
	if len(s.doubted) > 0 {
		t.Errorf("looks again for %v", s.doubted)
	}
	s.note(hub.Position{Seq: 101, At: 2000})
	s.doubt(s.highest())
	if len(s.doubted) != 1 {
		t.Error("does not look for a record of the new past")
	}
}
