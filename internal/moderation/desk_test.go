package moderation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLog is the standing records and the log of one room, which fail when they are told to.
type fakeLog struct {
	hub.RoomLog
	mu      sync.Mutex
	seq     uint64
	records map[string]hub.Standing
	events  []hub.Event
	// What the next calls do: they fail, after they were done if after is set.
	keep, append []failure
	keepFor      time.Duration
	lives        map[string]time.Duration
}

type failure struct {
	err   error
	after bool // it was done all the same
}

func newFakeLog() *fakeLog {
	return &fakeLog{records: map[string]hub.Standing{}, lives: map[string]time.Duration{}, keepFor: time.Hour}
}

func pop(f *[]failure) failure {
	if len(*f) == 0 {
		return failure{}
	}
	one := (*f)[0]
	*f = (*f)[1:]
	return one
}

func (l *fakeLog) Keep(_ context.Context, _ string, s hub.Standing, life time.Duration) (hub.Standing, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fail := pop(&l.keep)
	if fail.err != nil && !fail.after {
		return hub.Standing{}, fail.err
	}
	if had := l.records[s.ID]; had.Seq != s.Seq {
		return had, hub.ErrConflict
	}
	l.seq++
	s.Seq = l.seq
	l.records[s.ID], l.lives[s.ID] = s, life
	return s, fail.err
}

func (l *fakeLog) Kept(_ context.Context, _, id string) (hub.Standing, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.records[id], nil
}

func (l *fakeLog) Append(_ string, d hub.Draft, done func(hub.Receipt, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fail := pop(&l.append)
	if fail.err != nil && !fail.after {
		go done(hub.Receipt{}, fail.err)
		return
	}
	for _, e := range l.events {
		if e.ID == d.ID {
			go done(hub.Receipt{Seq: e.Seq, Duplicate: true}, fail.err)
			return
		}
	}
	e := hub.Event{Seq: uint64(len(l.events) + 1), At: time.Now().UnixMilli(), ID: d.ID, Kind: d.Kind, Body: d.Body}
	l.events = append(l.events, e)
	go done(hub.Receipt{Seq: e.Seq}, fail.err)
}

func (l *fakeLog) Event(_ context.Context, _ string, seq uint64) (*hub.Event, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &l.events[seq-1], nil
}

func (l *fakeLog) Now() time.Time                    { return time.Now() }
func (l *fakeLog) KeepFor() time.Duration            { return l.keepFor }
func (l *fakeLog) UserHash(room, user string) string { return room + "/" + user }
func (l *fakeLog) fails(keep, append []failure) {
	l.mu.Lock()
	l.keep, l.append = keep, append
	l.mu.Unlock()
}
func (l *fakeLog) record(t *testing.T, id string) (rec hub.Record) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := json.Unmarshal(l.records[id].Body, &rec); err != nil {
		t.Fatalf("record %s: %v", id, err)
	}
	return rec
}

func newDesk(t *testing.T, l *fakeLog) *Desk {
	d := New(Config{Log: l, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(d.Close)
	return d
}

func ban(id string) *hub.Act {
	return &hub.Act{ID: id, Kind: protocol.TypeBan, User: "ken", Hash: "h", By: protocol.User{ID: "mod", Role: protocol.RoleModerator}}
}

func TestDo(t *testing.T) {
	t.Parallel()
	gone, unsure := failure{hub.ErrUnavailable, false}, failure{hub.ErrUnknownOutcome, true}
	lost := failure{hub.ErrUnknownOutcome, false}
	for name, c := range map[string]struct {
		keep, append []failure
		err          error
		events       int
		stands       bool // an act in force is left
	}{
		"well":                               {nil, nil, nil, 1, true},
		"no record":                          {[]failure{gone}, nil, hub.ErrUnavailable, 0, false},
		"perhaps a record":                   {[]failure{unsure}, nil, hub.ErrUnknownOutcome, 0, true},
		"no event: the record is taken back": {nil, []failure{gone}, hub.ErrUnavailable, 0, false},
		"no event, and the record cannot be taken back": {[]failure{{}, gone}, []failure{gone}, hub.ErrUnknownOutcome, 0, true},
		"perhaps an event":       {nil, []failure{unsure}, hub.ErrUnknownOutcome, 1, true},
		"an event that was lost": {nil, []failure{lost}, hub.ErrUnknownOutcome, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newFakeLog()
			d := newDesk(t, l)
			l.fails(c.keep, c.append)
			_, err := d.Do(t.Context(), "r", ban("a"))
			if !errors.Is(err, c.err) || (c.err == nil) != (err == nil) {
				t.Errorf("the error is %v", err)
			}
			if len(l.events) != c.events {
				t.Errorf("%d events", len(l.events))
			}
			stands := l.records["a"].Seq > 0 && !l.record(t, "a").Gone
			if stands != c.stands {
				t.Errorf("the record stands: %v", stands)
			}
			// The same again, when all is well, is the same act.
			l.fails(nil, nil)
			seq, err := d.Do(t.Context(), "r", ban("a"))
			if err != nil || seq != 1 || len(l.events) != 1 {
				t.Errorf("again: %d, %v, %d events", seq, err, len(l.events))
			}
			d.wg.Wait()
			if rec := l.record(t, "a"); rec.Gone || rec.Pos != 1 || rec.PosAt == 0 {
				t.Errorf("the record is %+v", rec)
			}
		})
	}
}

// A node that died between the two writes has left a record: it is finished, once, by all who see it.
func TestFinish(t *testing.T) {
	t.Parallel()
	l := newFakeLog()
	d := newDesk(t, l)
	body, _ := json.Marshal(hub.Record{Act: *ban("a")})
	kept, _ := l.Keep(t.Context(), "r", hub.Standing{ID: "a", Body: body}, 0)
	for range 5 {
		d.Finish("r", kept)
	}
	d.wg.Wait()
	if rec := l.record(t, "a"); len(l.events) != 1 || l.events[0].ID != "a" || rec.Pos != 1 {
		t.Errorf("%d events, %+v", len(l.events), rec)
	}
	// The same of an undo.
	u := &hub.Act{ID: "u", Kind: protocol.TypeUndo, Undoes: []string{"a"}}
	rec := l.record(t, "a")
	rec.Undo, rec.Pos = u, 0
	body, _ = json.Marshal(rec)
	kept, _ = l.Keep(t.Context(), "r", hub.Standing{ID: "a", Seq: l.records["a"].Seq, Body: body}, 0)
	d.Finish("r", kept)
	d.wg.Wait()
	if rec := l.record(t, "a"); len(l.events) != 2 || l.events[1].ID != "u" || rec.Pos != 2 || rec.Undo == nil {
		t.Errorf("%d events, %+v", len(l.events), rec)
	}
	// A record that was lost with the end of its stream is written again, unless its act is over.
	for _, c := range []struct {
		ends time.Duration
		want bool
	}{{0, true}, {time.Hour, true}, {-time.Hour, false}} {
		a := ban(fmt.Sprint("lost", c.ends))
		if c.ends != 0 {
			a.Ends = time.Now().Add(c.ends).UnixMilli()
		}
		body, _ := json.Marshal(hub.Record{Act: *a, Pos: 1, PosAt: 1})
		d.Finish("r", hub.Standing{ID: a.ID, Body: body})
		d.wg.Wait()
		if _, is := l.records[a.ID]; is != c.want || len(l.events) != 2 {
			t.Errorf("ends in %v: written %v, %d events", c.ends, is, len(l.events))
		}
	}
}

func TestUndo(t *testing.T) {
	t.Parallel()
	l := newFakeLog()
	d := newDesk(t, l)
	undo := func(id string) *hub.Act { return &hub.Act{ID: id, Kind: protocol.TypeUndo, Undoes: []string{"a"}} }
	if seq, err := d.Undo(t.Context(), "r", undo("u")); seq != 0 || err != nil {
		t.Errorf("an act that never was: %d, %v", seq, err)
	}
	if _, err := d.Do(t.Context(), "r", ban("a")); err != nil {
		t.Fatal(err)
	}
	d.wg.Wait()
	// Refused, it leaves the act in force.
	l.fails(nil, []failure{{hub.ErrUnavailable, false}})
	if _, err := d.Undo(t.Context(), "r", undo("u")); !errors.Is(err, hub.ErrUnavailable) || l.record(t, "a").Undo != nil {
		t.Errorf("refused: %v, %+v", err, l.record(t, "a"))
	}
	// Two who undo it at once: once it is undone.
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if _, err := d.Undo(t.Context(), "r", undo(fmt.Sprint("u", i%2))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	d.wg.Wait()
	rec := l.record(t, "a")
	if rec.Undo == nil || rec.Pos == 0 {
		t.Fatalf("the record is %+v", rec)
	}
	for _, e := range l.events[1:] {
		if e.ID != rec.Undo.ID {
			t.Errorf("event %s, undone by %s", e.ID, rec.Undo.ID)
		}
	}
	// A late try of the act does not bring it back.
	if seq, err := d.Do(t.Context(), "r", ban("a")); seq != 0 || err != nil || l.record(t, "a").Undo == nil {
		t.Errorf("a late try: %d, %v", seq, err)
	}
	if seq, err := d.Undo(t.Context(), "r", undo("other")); seq != 0 || err != nil {
		t.Errorf("undone again by another: %d, %v", seq, err)
	}
}

// A record stays for as long as what it hides may be read.
func TestLife(t *testing.T) {
	t.Parallel()
	l := newFakeLog()
	d := newDesk(t, l)
	in := func(kind string, ends time.Duration) *hub.Act {
		a := &hub.Act{Kind: kind}
		if ends > 0 {
			a.Ends = time.Now().Add(ends).UnixMilli()
		}
		return a
	}
	for _, c := range []struct {
		act        *hub.Act
		least, max time.Duration
	}{
		{in(protocol.TypeRemove, 0), 2 * time.Hour, 2 * time.Hour},
		{in(protocol.TypeClear, 0), 2 * time.Hour, 2 * time.Hour},
		{in(protocol.TypeBan, 0), 0, 0},
		{in(protocol.TypeBan, 10*time.Hour), 11*time.Hour + 59*time.Minute, 12 * time.Hour},
		{&hub.Act{Kind: protocol.TypeMute, Broadcast: 3}, 31 * 24 * time.Hour, 32 * 24 * time.Hour},
	} {
		if got := d.life(c.act); got < c.least || got > c.max {
			t.Errorf("%+v: %v", c.act, got)
		}
	}
}

func TestEverywhere(t *testing.T) {
	t.Parallel()
	l := newFakeLog()
	var d *Desk
	changed := 0
	d = New(Config{Log: l, Logger: slog.New(slog.DiscardHandler), Changed: func(acts []hub.Act) { changed += len(acts) },
		Put: func(_ context.Context, name string, body []byte, _ time.Duration) error {
			d.Apply([]Entry{{name, body}, {"key.x", []byte("{}")}}, false)
			return nil
		}})
	defer d.Close()
	a := ban("a")
	a.Hash = d.HashEverywhere("ken")
	if err := d.DoEverywhere(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := d.Everywhere("ken"); len(got) != 1 || got[0].ID != "a" || len(d.Everywhere("eve")) != 0 {
		t.Errorf("%+v", got)
	}
	over := ban("over")
	over.Hash, over.Ends = a.Hash, time.Now().Add(-time.Second).UnixMilli()
	if err := d.DoEverywhere(t.Context(), over); err != nil || len(d.Everywhere("ken")) != 1 {
		t.Errorf("one that has ended: %v, %+v", err, d.Everywhere("ken"))
	}
	if err := d.UndoEverywhere(t.Context(), &hub.Act{ID: "u", Undoes: []string{"a", "none"}}); err != nil || len(d.Everywhere("ken")) != 0 || changed != 3 {
		t.Errorf("%v, %+v, %d", err, d.Everywhere("ken"), changed)
	}
	d.Apply(nil, true)
	if _, is := d.ActEverywhere("over"); is {
		t.Error("an entry that is gone counts")
	}
}
