package natslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// The tests in this file have viewers: a hub on the log.

type noPresence struct{}

func (noPresence) Open(string, func(hub.Counts)) hub.Membership { return noPresence{} }
func (noPresence) Join(hub.Member)                              {}
func (noPresence) Leave(string)                                 {}
func (noPresence) Close()                                       {}

func startHub(t *testing.T, l *Log, change func(*hub.Config)) *hub.Hub {
	t.Helper()
	cfg := hub.Config{Log: l, Presence: noPresence{}, Linger: time.Millisecond, Window: time.Millisecond}
	if change != nil {
		change(&cfg)
	}
	h := hub.New(cfg)
	t.Cleanup(h.Close)
	return h
}

// viewer is one viewer, and what it was sent.
type viewer struct {
	hub.Viewer

	mu      sync.Mutex
	texts   []string
	ids     map[string]string // texts by id
	cursor  string
	gaps    int
	gapAt   int    // how many texts came before the last gap
	states  []bool // degraded
	welcome *protocol.Welcome
}

// asIs writes every message as it is. What viewers get in these tests are comments and
// states, each a frame of one message.
var asIs = &hub.Form{Encode: func(messages [][]byte) []byte { return bytes.Join(messages, nil) }}

func (v *viewer) Form() *hub.Form   { return asIs }
func (v *viewer) Close(int, string) {}
func (v *viewer) Flush() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for frames := v.Next(nil); len(frames) > 0; frames = v.Next(nil) {
		for _, f := range frames {
			m, err := protocol.Decode(f)
			if err != nil {
				panic(err)
			}
			v.take(m)
		}
	}
}

func (v *viewer) take(m protocol.Message) {
	switch m := m.(type) {
	case *protocol.Welcome:
		v.welcome = m
	case *protocol.State:
		v.states = append(v.states, m.Degraded)
	case *protocol.Gap:
		v.gaps, v.gapAt, v.cursor = v.gaps+1, len(v.texts), m.Cursor
	case *protocol.Comments:
		v.cursor = m.Cursor
		for _, c := range m.Items {
			v.texts = append(v.texts, c.Text)
			if v.ids == nil {
				v.ids = make(map[string]string)
			}
			v.ids[c.ID] = c.Text
		}
	}
}

// saw tells what is wrong with what the viewer was sent: its welcome, its comments.
func (v *viewer) saw(recovered bool, want ...string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.welcome.Recovered != recovered || fmt.Sprint(v.texts) != fmt.Sprint(want) {
		return fmt.Errorf("recovered %v, comments %v; wanted %v, %v", v.welcome.Recovered, v.texts, recovered, want)
	}
	return nil
}

func (v *viewer) at() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cursor
}

func (v *viewer) degraded(want bool) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if n := len(v.states); n == 0 || v.states[n-1] != want {
		return fmt.Errorf("told %v", v.states)
	}
	return nil
}

func join(t *testing.T, h *hub.Hub, room, since string) *viewer {
	t.Helper()
	v := new(viewer)
	h.Join(testContext(t), &v.Viewer, hub.Join{Room: room, User: "u", Socket: v, Since: since,
		Welcome: func(recovered bool) []byte { return protocol.Encode(&protocol.Welcome{Recovered: recovered}) }})
	t.Cleanup(v.Leave)
	return v
}

// say appends a comment.
func say(t *testing.T, l *Log, room, text string) uint64 {
	t.Helper()
	a := appendAll(t, l, room, hub.Draft{ID: room + "-" + text, Kind: hub.KindComment,
		Body: protocol.EncodeBody(protocol.Comment{User: protocol.User{ID: "u"}, Text: text})})[0]
	if a.err != nil {
		t.Fatal(a.err)
	}
	return a.Seq
}

// Viewers whose cursors lie before what the log still has come in on any node without a
// past that has a hole; the others miss nothing; those who are there are told.
func TestViewersAndWhatWasRemoved(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	js := jetStream(t, s.ClientURL())
	few := func(c *hub.Config) { c.Recent = 2 }
	h := startHub(t, l, few)
	stays := join(t, h, "r", "")
	cursors := make([]string, 0, 20)
	var seqs []uint64
	for i := range 20 {
		seqs = append(seqs, say(t, l, "r", fmt.Sprint("c", i)))
		eventually(t, 10*time.Second, "it is shown", func() error {
			stays.mu.Lock()
			defer stays.mu.Unlock()
			if len(stays.texts) != i+1 {
				return fmt.Errorf("%v", stays.texts)
			}
			return nil
		})
		cursors = append(cursors, stays.at())
	}
	empty := join(t, h, "empty", "").at()
	rest := names("c", 20)
	check := func(h *hub.Hub, what string, from int, recovered bool) {
		t.Helper()
		want := rest[18:]
		if recovered {
			want = rest[from+1:]
		}
		v := join(t, h, "r", cursors[from])
		if err := v.saw(recovered, want...); err != nil {
			t.Errorf("%s, from %d: %v", what, from, err)
		}
		v.Leave()
	}
	other := startHub(t, openReady(t, Config{URLs: urls(s)}), few)
	keep := join(t, other, "r", "")
	for _, i := range []int{0, 10, 19} {
		check(h, "here", i, true)
		check(other, "on another node", i, true)
	}
	purge(t, js, seqs[10])
	eventually(t, 10*time.Second, "those who are there are told", func() error {
		stays.mu.Lock()
		defer stays.mu.Unlock()
		if stays.gaps > 0 {
			return errors.New("of a gap, though they have all of it")
		}
		return nil
	})
	time.Sleep(1500 * time.Millisecond) // a probe
	third := startHub(t, openReady(t, Config{URLs: urls(s)}), few)
	for from, recovered := range map[int]bool{0: false, 8: false, 9: false, 10: true, 15: true, 19: true} {
		check(h, "from the node's memory", from, true)
		check(third, "on a new node", from, recovered)
	}
	if v := join(t, third, "empty", empty); v.saw(true) == nil {
		t.Error("recovered in a room in which something may have been said and removed")
	}
	stays.mu.Lock()
	defer stays.mu.Unlock()
	if stays.gaps > 0 || keep.gaps > 0 {
		t.Errorf("told of %d gaps", stays.gaps)
	}
}

// While one stream is ill, viewers of its rooms are told, and those of others are not.
func TestDegradedRoomsOfOneStream(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s), Partitions: 2})
	js := jetStream(t, s.ClientURL())
	h := startHub(t, l, nil)
	ill, well := join(t, h, roomIn(1, 2), ""), join(t, h, roomIn(0, 2), "")
	late := join(t, h, roomIn(1, 2), "")
	change := func(partitions string) {
		t.Helper()
		st, err := js.Stream(testContext(t), "KANSEI_LOG_1")
		if err != nil {
			t.Fatal(err)
		}
		cfg := st.CachedInfo().Config
		cfg.Metadata[metaPartitions] = partitions
		if _, err := js.UpdateStream(testContext(t), cfg); err != nil {
			t.Fatal(err)
		}
	}
	change("7")
	for _, v := range []*viewer{ill, late} {
		eventually(t, 20*time.Second, "viewers of its rooms are told", func() error { return v.degraded(true) })
	}
	if n := counter(t, l.metrics.degraded); n != 1 {
		t.Errorf("%v rooms are degraded, wanted 1", n)
	}
	newcomer := join(t, h, roomIn(1, 2), "")
	if err := newcomer.degraded(true); err != nil {
		t.Errorf("a newcomer: %v", err)
	}
	if err := l.Ready(); err == nil || !strings.Contains(err.Error(), "KANSEI_LOG_1 has partitions 7, wanted 2") {
		t.Errorf("the node says %v", err)
	}
	say(t, l, roomIn(0, 2), "a")
	eventually(t, 10*time.Second, "comments of the others flow", func() error { return well.saw(false, "a") })
	change("2")
	for _, v := range []*viewer{ill, late, newcomer} {
		eventually(t, 20*time.Second, "the end is told", func() error { return v.degraded(false) })
	}
	eventually(t, 10*time.Second, "and counted", func() error {
		if n := counter(t, l.metrics.degraded); n != 0 {
			return fmt.Errorf("%v rooms are degraded", n)
		}
		return nil
	})
	say(t, l, roomIn(1, 2), "b")
	eventually(t, 10*time.Second, "comments flow", func() error { return ill.saw(false, "b") })
	well.mu.Lock()
	defer well.mu.Unlock()
	for _, degraded := range well.states {
		if degraded {
			t.Errorf("viewers of the other stream were told %v", well.states)
		}
	}
}

// Thousands of cold rooms are opened at once, by viewers that know their place and by
// some that do not: everybody gets everything, once. The log is asked by a bounded number
// at a time.
func TestThousandsOfColdRooms(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	const rooms = 3000
	var drafts sync.WaitGroup
	for i := range rooms {
		for j := range 3 {
			drafts.Add(1)
			body := protocol.EncodeBody(protocol.Comment{User: protocol.User{ID: "u"}, Text: fmt.Sprint(j)})
			l.Append(fmt.Sprint("r", i), hub.Draft{ID: fmt.Sprint(i, "-", j), Kind: hub.KindComment, Body: body}, func(_ hub.Receipt, err error) {
				if err != nil {
					t.Error(err)
				}
				drafts.Done()
			})
			if j%3 == 0 {
				time.Sleep(50 * time.Microsecond) // fewer than may be in flight
			}
		}
	}
	drafts.Wait()

	// Cursors of a node that is gone.
	was := startHub(t, openReady(t, Config{URLs: urls(s)}), func(c *hub.Config) { c.Recent = 1 })
	cursors := make([]string, rooms)
	for i := 0; i < rooms; i += 10 {
		v := join(t, was, fmt.Sprint("r", i), "")
		cursors[i] = v.at()
		v.Leave()
	}
	for i := range rooms {
		if cursors[i] != "" {
			say(t, l, fmt.Sprint("r", i), "missed")
		}
	}

	cold := openReady(t, Config{URLs: urls(s)})
	var busiest int
	watch, stop := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() {
		for watch.Err() == nil {
			p := cold.logs[0].reads
			p.mu.Lock()
			busiest = max(busiest, p.workers)
			p.mu.Unlock()
			time.Sleep(time.Millisecond)
		}
	})
	h := startHub(t, cold, nil)
	viewers := make([]*viewer, rooms)
	began := time.Now()
	var all sync.WaitGroup
	for i := range viewers {
		all.Go(func() { viewers[i] = join(t, h, fmt.Sprint("r", i), cursors[i]) })
	}
	all.Wait()
	joined := time.Since(began)
	recovered, late := 0, 0
	for i, v := range viewers {
		if cursors[i] == "" {
			eventually(t, 60*time.Second, "a room's past comes", func() error { return v.saw(false, "0", "1", "2") })
			continue
		}
		v.mu.Lock()
		knew := v.welcome.Recovered
		v.mu.Unlock()
		if knew {
			recovered++
			eventually(t, 60*time.Second, "what was missed comes", func() error { return v.saw(true, "missed") })
		} else {
			late++ // the machine is slow: it is told so, and gets the latest
			eventually(t, 60*time.Second, "the latest come", func() error { return v.saw(false, "0", "1", "2", "missed") })
		}
	}
	stop()
	watching.Wait()
	t.Logf("%d cold rooms: all joined after %v, all have their past after %v; %d recovered, %d told that they are not; %d read at once",
		rooms, joined, time.Since(began), recovered, late, busiest)
	for _, op := range []string{opInfo, opLeaderGet, opDirectGet, opTailProbe} {
		t.Logf("%d requests: %s", requests(t, cold, op), op)
	}
	if busiest > readers {
		t.Errorf("%d rooms were read at once", busiest)
	}
	for i := range rooms {
		say(t, l, fmt.Sprint("r", i), "new")
	}
	for _, v := range viewers {
		eventually(t, 20*time.Second, "what is new comes, once", func() error {
			v.mu.Lock()
			defer v.mu.Unlock()
			if n := len(v.texts); n == 0 || v.texts[n-1] != "new" || n > 1 && v.texts[n-2] == "new" || v.gaps > 0 {
				return fmt.Errorf("%v, %d gaps", v.texts, v.gaps)
			}
			return nil
		})
	}
}

// purged removes everything of a room, as an operator does who must.
func purged(t *testing.T, js jetstream.JetStream, room string) {
	t.Helper()
	s, err := js.Stream(testContext(t), "KANSEI_LOG_0")
	if err == nil {
		err = s.Purge(testContext(t), jetstream.WithPurgeSubject("kansei.log.0."+room))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What an operator removes of one room is no part of the log any more: nobody misses it.
// Cursors of it stay good where it is remembered; nobody else can tell whether they were.
func TestRoomThatWasPurged(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	js := jetStream(t, s.ClientURL())
	say(t, l, "other", "first")
	h := startHub(t, l, nil)
	v := join(t, h, "r", "")
	for _, text := range []string{"a", "b", "c"} {
		say(t, l, "r", text)
	}
	eventually(t, 10*time.Second, "they are shown", func() error { return v.saw(false, "a", "b", "c") })
	at := v.at()
	purged(t, js, "r")
	say(t, l, "r", "d")
	eventually(t, 10*time.Second, "the next is shown", func() error { return v.saw(false, "a", "b", "c", "d") })
	third := startHub(t, openReady(t, Config{URLs: urls(s)}), nil)
	if err := join(t, third, "r", at).saw(false, "d"); err != nil {
		t.Error(err)
	}
	if err := join(t, h, "r", at).saw(true, "d"); err != nil {
		t.Error(err)
	}
	if v.gaps > 0 {
		t.Errorf("%d gaps", v.gaps)
	}
}

// The newest comment is erased by hand. No node that opens the room then shows it, and who
// had it and comes back misses nothing.
func TestNewestCommentIsErased(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	l := openReady(t, Config{URLs: urls(s)})
	v := join(t, startHub(t, l, nil), "r", "")
	var newest uint64
	for _, text := range []string{"a", "b", "c"} {
		newest = say(t, l, "r", text)
	}
	eventually(t, 10*time.Second, "they are shown", func() error { return v.saw(false, "a", "b", "c") })
	at := v.at()
	erase(t, jetStream(t, s.ClientURL()), newest)

	other := openReady(t, Config{URLs: urls(s)})
	h := startHub(t, other, nil)
	if err := join(t, h, "r", "").saw(false, "a", "b"); err != nil {
		t.Errorf("who comes: %v", err)
	}
	back := join(t, h, "r", at)
	if err := back.saw(true); err != nil {
		t.Errorf("who comes back: %v", err)
	}
	say(t, other, "r", "d")
	eventually(t, 10*time.Second, "the next is shown", func() error {
		return errors.Join(back.saw(true, "d"), v.saw(false, "a", "b", "c", "d"))
	})
	// Nobody knows any more what was there: the latest is what such a cursor gets.
	if err := join(t, startHub(t, openReady(t, Config{URLs: urls(s)}), nil), "r", at).saw(false, "a", "b", "d"); err != nil {
		t.Errorf("who comes back later: %v", err)
	}
	for _, l := range []*Log{l, other} {
		if n := counter(t, l.metrics.lostEnds); n != 0 {
			t.Errorf("%v ends are said to be lost", n)
		}
	}
}

func (noPresence) Broadcast(int64) {}

func (noPresence) First(string) (time.Time, bool) { return time.Time{}, false }
