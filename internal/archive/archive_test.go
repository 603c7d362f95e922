package archive

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
)

// ended is a broadcast of ten minutes that has ended just now.
func (s *stage) ended(room string) (began time.Time) {
	end := s.Now()
	began = end.Add(-10 * time.Minute)
	s.set(room, protocol.State{Status: protocol.StatusEnded, Broadcast: 1, BeganAt: began.UnixMilli(), EndedAt: end.UnixMilli(), Timed: 1})
	return began
}

// A broadcast has a first revision soon, another one when rows come late, and is final when no more can come.
func TestRevisions(t *testing.T) {
	t.Parallel()
	s, files := newStage(t), inDir(t)
	w := s.worker(t, files, nil)
	began := s.ended("r")
	s.tell(t, "r", &watchlog.Batch{Life: "one", N: 1, At: began.Add(5 * time.Minute).UnixMilli(), Rows: []watchlog.Row{
		row(began, 1, "a", -60, 300, watchlog.EndLeft), row(began, 2, "b", 0, 300, ""),
	}})
	s.pass(time.Minute)
	round(t, w)
	if rec := s.record(t, "r", "1"); rec != nil {
		t.Fatalf("%+v: b may be there yet", rec)
	}
	s.pass(90 * time.Second)
	round(t, w)
	first := s.record(t, "r", "1")
	if first == nil || first.Revision != 1 || first.Final || first.Prefix != "r/1/1" || !first.Told {
		t.Fatalf("%+v", first)
	}
	got, err := files.read(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Users) != 2 || got.Users[0].ConnectedMS != 300_000 || got.Users[1].ConnectedMS != 300_000 || !got.Users[1].Estimated || got.Summary.Estimated != 1 || got.Summary.DurationMS != 600_000 {
		t.Errorf("%+v", got)
	}
	round(t, w)
	if rec := s.record(t, "r", "1"); rec.Revision != 1 {
		t.Errorf("%+v: nothing is new", rec)
	}
	// The node comes back: b was there to the end.
	s.pass(2 * time.Minute)
	s.tell(t, "r", &watchlog.Batch{Life: "one", N: 2, At: s.Now().UnixMilli(), Rows: []watchlog.Row{row(began, 2, "b", 0, 900, watchlog.EndLost)}})
	round(t, w)
	second := s.record(t, "r", "1")
	if second.Revision != 2 || !second.Final || second.Hash == first.Hash {
		t.Fatalf("%+v", second)
	}
	if got, err = files.read(t.Context(), second); err != nil || got.Users[1].ConnectedMS != 600_000 || got.Users[1].Estimated || got.Intervals[1].End != string(watchlog.EndEnded) {
		t.Errorf("%+v, %v", got, err)
	}
	// What comes after that is of no use.
	s.pass(2 * time.Hour)
	s.tell(t, "r", &watchlog.Batch{Life: "two", N: 1, At: s.Now().UnixMilli(), Rows: []watchlog.Row{row(began, 1, "c", 0, 900, watchlog.EndLost)}})
	round(t, w)
	if rec := s.record(t, "r", "1"); rec.Revision != 2 {
		t.Errorf("%+v", rec)
	}
	list, err := NewReader(s, files, time.Minute).Broadcasts(t.Context(), "r")
	if err != nil || len(list) != 1 || !list[0].Final || list[0].Revision != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	// A node of which nothing was heard again makes it final in the end.
	s.ended("q")
	began = s.Now().Add(-10 * time.Minute)
	s.tell(t, "q", &watchlog.Batch{Life: "one", N: 1, At: began.UnixMilli(), Rows: []watchlog.Row{row(began, 1, "a", 0, 0, "")}})
	for range 3 {
		s.pass(30 * time.Minute)
		round(t, w)
	}
	if rec := s.record(t, "q", "1"); rec == nil || !rec.Final || rec.Revision != 2 {
		t.Errorf("%+v", rec)
	}
}

// A room that is never set has the broadcasts that silences lie between. Their names stay when rows come late that say that one began
// earlier.
func TestRoomsThatAreNeverSet(t *testing.T) {
	t.Parallel()
	s, files := newStage(t), inDir(t)
	w := s.worker(t, files, nil)
	at := s.Now().Add(-2 * time.Hour)
	s.tell(t, "r", &watchlog.Batch{Life: "one", N: 1, At: s.Now().UnixMilli(), Rows: []watchlog.Row{
		row(at, 1, "a", 0, 300, watchlog.EndLeft), row(at, 2, "b", 200, 700, watchlog.EndLeft), row(at, 3, "a", 3600, 3700, watchlog.EndLeft),
	}})
	round(t, w)
	all, err := w.cfg.Reader.Records(t.Context(), "r")
	if err != nil || len(all) != 2 || !strings.HasPrefix(all[0].Broadcast, "0-") || all[1].Began != at.UnixMilli() || all[1].Ended != at.Add(700*time.Second).UnixMilli() {
		t.Fatalf("%+v, %v", all, err)
	}
	s.tell(t, "r", &watchlog.Batch{Life: "two", N: 1, At: s.Now().UnixMilli(), Rows: []watchlog.Row{row(at, 1, "c", -100, 100, watchlog.EndLeft)}})
	s.pass(2 * time.Minute)
	round(t, w)
	again, err := w.cfg.Reader.Records(t.Context(), "r")
	if err != nil || len(again) != 2 || again[1].Broadcast != all[1].Broadcast {
		t.Errorf("%+v, %v", again, err)
	}
}

// A broadcast that a node of an earlier version began and ended has the times at which the log says so, and not those of the one before.
func TestBroadcastOfAnEarlierVersion(t *testing.T) {
	t.Parallel()
	h := history{more: false}
	say := func(at int64, s protocol.State) { h.changes = append(h.changes, change{at, s}) }
	say(1000, protocol.State{Status: protocol.StatusLive, Broadcast: 1, BeganAt: 990, Timed: 1})
	say(2000, protocol.State{Status: protocol.StatusEnded, Broadcast: 1, BeganAt: 990, EndedAt: 1990, Timed: 1})
	say(3000, protocol.State{Status: protocol.StatusLive, Broadcast: 2, BeganAt: 990, EndedAt: 1990, Timed: 1})
	say(3500, protocol.State{Status: protocol.StatusLive, Broadcast: 2, BeganAt: 990, EndedAt: 1990, Timed: 1, Title: "t"})
	say(4000, protocol.State{Status: protocol.StatusEnded, Broadcast: 2, BeganAt: 990, EndedAt: 1990, Timed: 1})
	say(5000, protocol.State{Status: protocol.StatusLive, Broadcast: 3, BeganAt: 990, EndedAt: 1990, Timed: 1})
	say(6000, protocol.State{Status: protocol.StatusEnded, Broadcast: 3, EndedAt: 5990, Timed: 3}) // by a node of this one
	slices.Reverse(h.changes)
	all := map[string]watchlog.Broadcast{}
	for i := range h.changes {
		bounds("r", &h.changes[i].state, all)
	}
	h.guess("r", all)
	for id, want := range map[string][2]int64{"1": {990, 1990}, "2": {3000, 4000}, "3": {5000, 6000}} {
		if b := all[id]; b.Began != want[0] || b.Ended != want[1] {
			t.Errorf("%s: %+v, want %v", id, b, want)
		}
	}
	if len(all) != 3 {
		t.Errorf("%+v", all)
	}
	// While more may be found before, what is read first may be a later change of a broadcast that runs.
	all, h.more = map[string]watchlog.Broadcast{}, true
	h.changes = h.changes[:len(h.changes)-2]
	h.guess("r", all)
	if _, is := all["2"]; is || all["3"].Began != 5000 {
		t.Errorf("%+v", all)
	}
}

// A worker is killed at every one of its steps; another one goes on. What counts in the end has its files, was told of, and is what the
// same rows make.
func TestKilledWorkers(t *testing.T) {
	t.Parallel()
	s, files := newStage(t), inDir(t)
	dead := 0
	for k := 1; ; k++ {
		room := "room-" + string(rune('a'+k/26)) + string(rune('a'+k%26))
		began := s.ended(room)
		s.tell(t, room, &watchlog.Batch{Life: "one", N: 1, At: s.Now().UnixMilli(), Rows: []watchlog.Row{
			row(began, 1, "a", 0, 300, watchlog.EndLeft), row(began, 2, "b", 10, 900, watchlog.EndLeft),
		}})
		ctx, kill := context.WithCancel(t.Context())
		s.mu.Lock()
		s.ops, s.failAt, s.kill = 0, k, kill
		s.mu.Unlock()
		_, err := s.worker(t, files, nil).look(ctx, room)
		s.mu.Lock()
		reached := s.ops >= k
		s.failAt = 0
		s.mu.Unlock()
		kill()
		if !reached {
			break // it was not killed
		}
		if err == nil {
			t.Fatalf("step %d: it was killed, and has not noticed", k)
		}
		dead++
		next := s.worker(t, files, nil)
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			if _, err := next.look(t.Context(), room); err != nil {
				t.Fatal(err)
			}
			if rec := s.record(t, room, "1"); rec != nil && rec.Told {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("step %d: nobody goes on: %+v", k, s.record(t, room, "1"))
			}
		}
		rec := s.record(t, room, "1")
		if !rec.Final {
			t.Errorf("step %d: %+v", k, rec)
		}
		got, err := files.read(t.Context(), rec)
		if err != nil || len(got.Users) != 2 || len(got.Intervals) != 2 {
			t.Errorf("step %d: %+v, %v", k, got, err)
		}
		if hash := hashAt(t, next.cfg.Reader, rec); hash != rec.Hash {
			t.Errorf("step %d: the same input makes %s, and has made %s", k, hash, rec.Hash)
		}
	}
	if dead < 10 {
		t.Errorf("it was killed at %d steps only", dead)
	}
}

// hashAt is the hash of what the input of a record makes now.
func hashAt(t *testing.T, r *Reader, rec *Record) string {
	t.Helper()
	k := r.hold(rec.Room)
	defer k.mu.Unlock()
	b := watchlog.Broadcast{Room: rec.Room, ID: rec.Broadcast, Waiting: rec.Waiting, Began: rec.Began, Ended: rec.Ended}
	if err := r.fill(t.Context(), rec.Room, k, sinceOf(b)); err != nil {
		t.Fatal(err)
	}
	c, err := encode(&Shaped{watchlog.Shape(k.fold, b, rec.Input.AsOf, k.history.comments), b, rec.Input})
	if err != nil {
		t.Fatal(err)
	}
	return c.hash
}

// Several workers at once make one revision of each broadcast.
func TestSeveralWorkers(t *testing.T) {
	t.Parallel()
	s, files := newStage(t), inDir(t)
	rooms := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, room := range rooms {
		began := s.ended(room)
		s.tell(t, room, &watchlog.Batch{Life: "one", N: 1, At: s.Now().UnixMilli(), Rows: []watchlog.Row{row(began, 1, "a", 0, 300, watchlog.EndLeft)}})
	}
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 4 {
		w := s.worker(t, files, nil)
		all.Go(func() { w.Run(ctx) })
	}
	deadline := time.Now().Add(20 * time.Second)
	for slices.ContainsFunc(rooms, func(room string) bool { rec := s.record(t, room, "1"); return rec == nil || !rec.Told }) {
		if time.Now().After(deadline) {
			t.Fatal("not all are archived")
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	all.Wait()
	for _, room := range rooms {
		if rec := s.record(t, room, "1"); rec.Revision != 1 || !rec.Final {
			t.Errorf("%+v", rec)
		}
	}
}

// The web hook is signed, tried again, and listed as undelivered in the end; what was delivered is not delivered again.
func TestWebHook(t *testing.T) {
	t.Parallel()
	s, files := newStage(t), inDir(t)
	secret := []byte("a secret of the web hook")
	var mu sync.Mutex
	var calls []string
	status := http.StatusInternalServerError
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		stamp, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Kansei-Signature"), "t="), ",")
		at, err := time.ParseDuration(stamp + "s")
		if err != nil || Sign(secret, time.Unix(int64(at/time.Second), 0), body) != r.Header.Get("Kansei-Signature") {
			t.Errorf("the signature %q is wrong", r.Header.Get("Kansei-Signature"))
		}
		var e Event
		if err := json.Unmarshal(body, &e); err != nil || e.Type != "archive.revision" || e.Room != "r" || e.Revision != 1 || len(e.Files) != 3 || !strings.HasSuffix(e.Files[0].URL, "/r/1/1/"+fileIntervals) || e.Summary.Users != 1 {
			t.Errorf("%s: %v", body, err)
		}
		calls = append(calls, r.Header.Get("Kansei-Delivery"))
		w.WriteHeader(status)
	}))
	defer srv.Close()
	w := s.worker(t, files, func(c *Config) { c.Hook = NewHook(srv.URL, secret) })
	began := s.ended("r")
	s.tell(t, "r", &watchlog.Batch{Life: "one", N: 1, At: s.Now().UnixMilli(), Rows: []watchlog.Row{row(began, 1, "a", 0, 300, watchlog.EndLeft)}})
	tries := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(calls)
	}
	for range 3 {
		round(t, w)
	}
	if n := tries(); n != 1 {
		t.Errorf("%d calls, for the next try is later", n)
	}
	s.pass(time.Minute)
	round(t, w)
	mu.Lock()
	status = http.StatusNoContent
	mu.Unlock()
	s.pass(time.Minute)
	round(t, w)
	s.pass(time.Hour)
	round(t, w)
	if n, rec := tries(), s.record(t, "r", "1"); n != 3 || rec.Hook.Delivered == 0 || rec.Hook.Tries != 3 {
		t.Errorf("%d calls, %+v", n, rec.Hook)
	}

	// The address may be a secret: no error has it.
	srv.Close()
	if err := NewHook(srv.URL+"/in/the-secret", nil).call(t.Context(), "id", nil); err == nil || strings.Contains(err.Error(), "the-secret") {
		t.Errorf("nobody is there: %v", err)
	}

	// One that is never taken.
	mu.Lock()
	status = http.StatusBadGateway
	mu.Unlock()
	var d Delivery
	now := time.Now()
	for n := 0; !d.Undelivered; n++ {
		if n > 200 {
			t.Fatalf("%+v", d)
		}
		if !d.due(now) {
			t.Fatalf("%+v is not due when it said", d)
		}
		d.tried(errors.New("it answers 502"), now)
		now = now.Add(d.wait(w.cfg.Hook, now))
	}
	if took := now.Sub(time.UnixMilli(d.First)); took < hookPatience || took > hookPatience+2*lastHookRetry || d.due(now) {
		t.Errorf("given up after %v: %+v", took, d)
	}
}

// Broadcasts are kept in S3 as in files, and in databases, where a later revision takes the place of an earlier one.
func TestStores(t *testing.T) {
	t.Parallel()
	//nolint:staticcheck // the names of the SDK's variables
	fake := httptest.NewServer(gofakes3.New(s3mem.New(), gofakes3.WithAutoBucket(true)).Server())
	t.Cleanup(fake.Close)
	s3 := "s3://kansei?region=us-east-1&use_path_style=true&endpoint=" + fake.URL + "&anonymous=true"
	for name, start := range map[string]func(testing.TB) string{"postgres": startPostgres, "mariadb": startMariaDB} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := OpenDatabase(start(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = db.Close() })
			s, files := newStage(t), openFiles(t, s3)
			w := s.worker(t, files, func(c *Config) { c.DB = db })
			deadline := time.Now().Add(60 * time.Second)
			for {
				if err = w.Migrate(t.Context()); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Millisecond)
			}
			if err := w.Migrate(t.Context()); err != nil { // as the next worker does
				t.Fatal(err)
			}
			room := "room-" + name
			began := s.ended(room)
			odd := "o'd\\d \x00\u30c6\u30b9\u30c8 \U0001f389"
			s.tell(t, room, &watchlog.Batch{Life: "one", N: 1, At: began.Add(5 * time.Minute).UnixMilli(), Rows: []watchlog.Row{
				row(began, 1, odd, 0, 300, watchlog.EndLeft), row(began, 2, "b", 0, 300, ""), row(began, 3, "gone", 0, 10, watchlog.EndLeft),
			}})
			s.pass(3 * time.Minute)
			round(t, w)
			s.pass(2 * time.Minute)
			s.tell(t, room, &watchlog.Batch{Life: "one", N: 2, At: s.Now().UnixMilli(), Rows: []watchlog.Row{row(began, 2, "b", 0, 900, watchlog.EndLost)}})
			round(t, w)
			if rec := s.record(t, room, "1"); rec.Revision != 2 || !rec.Final || !rec.Stored {
				t.Fatalf("%+v", rec)
			}
			var revision, users int
			var connected int64
			if err := db.db.QueryRow(db.ask("SELECT revision, users, connected_ms FROM kansei_broadcasts WHERE room = ?"), room).Scan(&revision, &users, &connected); err != nil || revision != 2 || users != 3 || connected != 910_000 {
				t.Errorf("%d %d %d %v", revision, users, connected, err)
			}
			var n int
			var at time.Time
			if err := db.db.QueryRow(db.ask("SELECT count(*), max(to_at) FROM kansei_users WHERE room = ? AND revision = 2"), room).Scan(&n, &at); err != nil || n != 3 || at.UnixMilli() != s.Now().Add(-5*time.Minute).UnixMilli() {
				t.Errorf("%d users, the last at %v, %v", n, at, err)
			}
			var name string
			if err := db.db.QueryRow(db.ask("SELECT name FROM kansei_users WHERE user_id = ?"), clean(odd)).Scan(&name); err != nil || name != "name of "+clean(odd) {
				t.Errorf("%q, %v", name, err)
			}
			// An older revision does not come back.
			old := *s.record(t, room, "1")
			old.Revision = 1
			if err := db.Store(t.Context(), &old, &Shaped{}); err != nil {
				t.Fatal(err)
			}
			// Two who write the same at once.
			got, err := files.read(t.Context(), s.record(t, room, "1"))
			if err != nil {
				t.Fatal(err)
			}
			for i := range 3000 {
				got.Users = append(got.Users, watchlog.User{ID: "many-" + time.Unix(int64(i), 0).UTC().Format("150405"), Name: "n"})
			}
			var both sync.WaitGroup
			for range 4 {
				both.Go(func() {
					if err := db.Store(context.Background(), s.record(t, room, "1"), got); err != nil {
						t.Error(err)
					}
				})
			}
			both.Wait()

			// A person is erased everywhere.
			done, err := Erase(t.Context(), w.cfg, odd)
			if err != nil {
				t.Fatal(err)
			}
			for _, store := range done.Stores {
				if store.Found == 0 {
					t.Errorf("nothing was found in %s", store.Name)
				}
			}
			forgotten(t, s, w, room, odd)
			if err := db.db.QueryRow(db.ask("SELECT count(*) FROM kansei_users WHERE user_id = ?"), clean(odd)).Scan(&n); err != nil || n != 0 {
				t.Errorf("%d rows, %v", n, err)
			}

			// What is not kept any more goes, and does not come again, though its rows are there yet.
			keeper := s.worker(t, files, func(c *Config) { c.DB, c.Keep = db, 24*time.Hour })
			round(t, keeper)
			if s.record(t, room, "1") == nil {
				t.Error("it is gone too soon")
			}
			s.pass(25 * time.Hour)
			for range 2 {
				keeper.kept = time.Time{}
				round(t, keeper)
			}
			left, err := files.revisions(t.Context(), room, "1")
			if rec := s.record(t, room, "1"); rec != nil || err != nil || len(left) != 0 {
				t.Errorf("%+v, %v, %v", rec, left, err)
			}
			if err := db.db.QueryRow(db.ask("SELECT count(*) FROM kansei_broadcasts WHERE room = ?"), room).Scan(&n); err != nil || n != 0 {
				t.Errorf("%d rows, %v", n, err)
			}
		})
	}
}

// forgotten looks for a user everywhere.
func forgotten(t *testing.T, s *stage, w *Worker, room, user string) {
	t.Helper()
	_, err := s.Watched(t.Context(), room, 0, time.Time{}, func(_ uint64, body []byte) error {
		b, err := watchlog.Decode(body)
		for _, r := range b.Rows {
			if r.User == user {
				t.Errorf("the watch log has them: %s", body)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	rec := s.record(t, room, "1")
	prefixes, err := w.cfg.Files.revisions(t.Context(), room, "1")
	if err != nil || len(prefixes) != 1 || prefixes[0] != rec.Prefix {
		t.Errorf("%v, %v: %+v", prefixes, err, rec)
	}
	got, err := w.cfg.Files.read(t.Context(), rec)
	if err != nil || len(got.Users) == 0 || without(got, user) {
		t.Errorf("%+v, %v", got, err)
	}
	// Also for who has read them before, and later.
	for _, r := range []*Reader{w.cfg.Reader, NewReader(s, nil, time.Minute)} {
		r.lookedAt = time.Time{}
		shaped, err := r.Shape(t.Context(), room, "1")
		if err != nil || len(shaped.Users) == 0 || without(shaped, user) {
			t.Errorf("%+v, %v", shaped, err)
		}
	}
	if all, err := Export(t.Context(), w.cfg, user); err != nil || len(all.Broadcasts) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
}

// Erasing rewrites batches, which come out of their order then: nothing of others is lost by it.
func TestEraseLeavesOthers(t *testing.T) {
	t.Parallel()
	s, files := newStage(t), inDir(t)
	w := s.worker(t, files, nil)
	began := s.ended("r")
	random := rand.New(rand.NewPCG(3, 4))
	var rows []watchlog.Row
	for i := range uint32(60) {
		who := "user-" + string(rune('a'+random.IntN(20)))
		rows = append(rows, row(began, i+1, who, int(i), int(i)+30, ""))
	}
	rows[0].User = "user-a"
	n := uint64(0)
	for len(rows) > 0 { // each row is told, and goes on, and ends
		for i := range 3 {
			n++
			b := &watchlog.Batch{Life: "one", N: n, At: began.Add(time.Duration(n) * time.Second).UnixMilli()}
			switch i {
			case 0:
				b.Rows = rows[:5:5]
			case 1:
				b.Same = [][2]uint32{{rows[0].Conn, rows[4].Conn}}
			case 2:
				for _, r := range rows[:5] {
					r.User, r.Name, r.End = "", "", watchlog.EndLeft
					r.To += 5000
					b.Rows = append(b.Rows, r)
				}
			}
			s.tell(t, "r", b)
		}
		rows = rows[5:]
	}
	before, err := w.cfg.Reader.Shape(t.Context(), "r", "1")
	if err != nil {
		t.Fatal(err)
	}
	if all, err := Export(t.Context(), w.cfg, "user-a"); err != nil || len(all.Broadcasts) != 1 || len(all.Broadcasts[0].Intervals) == 0 {
		t.Errorf("%+v, %v", all, err)
	}
	round(t, w)
	if _, err := Erase(t.Context(), w.cfg, "user-a"); err != nil {
		t.Fatal(err)
	}
	if _, err := Erase(t.Context(), w.cfg, "user-a"); err != nil { // once more
		t.Fatal(err)
	}
	forgotten(t, s, w, "r", "user-a")
	after, err := NewReader(s, nil, time.Minute).Shape(t.Context(), "r", "1")
	if err != nil {
		t.Fatal(err)
	}
	without(before, "user-a")
	if !slices.Equal(before.Users, after.Users) {
		t.Errorf("others have changed:\n%+v\n%+v", before.Users, after.Users)
	}
	// Files, too, as they lie there.
	err = filepath.WalkDir(strings.TrimPrefix(files.url, "file://"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		p, err := os.ReadFile(path)
		if strings.Contains(string(p), "user-a") {
			t.Errorf("%s has them", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
