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
	"github.com/kansei-live/kansei/test/fakelog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newDesk(t *testing.T, l *fakelog.Log) *Desk {
	d := New(Config{Log: l, Entries: l, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(d.Close)
	return d
}

func ban(id string) *hub.Act {
	return &hub.Act{ID: id, Kind: protocol.TypeBan, User: "ken", Hash: "h", By: protocol.User{ID: "mod", Role: protocol.RoleModerator}}
}

func TestDo(t *testing.T) {
	t.Parallel()
	gone, unsure := fakelog.Failure{Err: hub.ErrUnavailable}, fakelog.Failure{Err: hub.ErrUnknownOutcome, After: true}
	lost := fakelog.Failure{Err: hub.ErrUnknownOutcome}
	for name, c := range map[string]struct {
		keep, append []fakelog.Failure
		err          error
		events       int
		stands       bool // an act in force is left
	}{
		"well":                               {nil, nil, nil, 1, true},
		"no record":                          {[]fakelog.Failure{gone}, nil, hub.ErrUnavailable, 0, false},
		"perhaps a record":                   {[]fakelog.Failure{unsure}, nil, hub.ErrUnknownOutcome, 0, true},
		"no event: the record is taken back": {nil, []fakelog.Failure{gone}, hub.ErrUnavailable, 0, false},
		"no event, and the record cannot be taken back": {[]fakelog.Failure{{}, gone}, []fakelog.Failure{gone}, hub.ErrUnknownOutcome, 0, true},
		"perhaps an event":       {nil, []fakelog.Failure{unsure}, hub.ErrUnknownOutcome, 1, true},
		"an event that was lost": {nil, []fakelog.Failure{lost}, hub.ErrUnknownOutcome, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := fakelog.New()
			d := newDesk(t, l)
			l.Fail(c.keep, c.append)
			_, err := d.Do(t.Context(), "r", ban("a"))
			if !errors.Is(err, c.err) || (c.err == nil) != (err == nil) {
				t.Errorf("the error is %v", err)
			}
			if len(l.Events) != c.events {
				t.Errorf("%d events", len(l.Events))
			}
			stands := l.Records["a"].Seq > 0 && !l.Record(t, "a").Gone
			if stands != c.stands {
				t.Errorf("the record stands: %v", stands)
			}
			// The same again, when all is well, is the same act.
			l.Fail(nil, nil)
			seq, err := d.Do(t.Context(), "r", ban("a"))
			if err != nil || seq != 1 || len(l.Events) != 1 {
				t.Errorf("again: %d, %v, %d events", seq, err, len(l.Events))
			}
			d.wg.Wait()
			if rec := l.Record(t, "a"); rec.Gone || rec.Pos != 1 || rec.PosAt == 0 {
				t.Errorf("the record is %+v", rec)
			}
		})
	}
}

// A node that died between the two writes has left a record: it is finished, once, by all who see it.
func TestFinish(t *testing.T) {
	t.Parallel()
	l := fakelog.New()
	d := newDesk(t, l)
	body, _ := json.Marshal(hub.Record{Act: *ban("a")})
	kept, _ := l.Keep(t.Context(), "r", hub.Standing{ID: "a", Body: body}, 0)
	for range 5 {
		d.Finish("r", kept)
	}
	d.wg.Wait()
	if rec := l.Record(t, "a"); len(l.Events) != 1 || l.Events[0].ID != "a" || rec.Pos != 1 {
		t.Errorf("%d events, %+v", len(l.Events), rec)
	}
	// The same of an undo.
	u := &hub.Act{ID: "u", Kind: protocol.TypeUndo, Undoes: []string{"a"}}
	rec := l.Record(t, "a")
	rec.Undo, rec.Pos = u, 0
	body, _ = json.Marshal(rec)
	kept, _ = l.Keep(t.Context(), "r", hub.Standing{ID: "a", Seq: l.Records["a"].Seq, Body: body}, 0)
	d.Finish("r", kept)
	d.wg.Wait()
	if rec := l.Record(t, "a"); len(l.Events) != 2 || l.Events[1].ID != "u" || rec.Pos != 2 || rec.Undo == nil {
		t.Errorf("%d events, %+v", len(l.Events), rec)
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
		if _, is := l.Records[a.ID]; is != c.want || len(l.Events) != 2 {
			t.Errorf("ends in %v: written %v, %d events", c.ends, is, len(l.Events))
		}
	}
}

func TestUndo(t *testing.T) {
	t.Parallel()
	l := fakelog.New()
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
	l.Fail(nil, []fakelog.Failure{{Err: hub.ErrUnavailable}})
	if _, err := d.Undo(t.Context(), "r", undo("u")); !errors.Is(err, hub.ErrUnavailable) || l.Record(t, "a").Undo != nil {
		t.Errorf("refused: %v, %+v", err, l.Record(t, "a"))
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
	rec := l.Record(t, "a")
	if rec.Undo == nil || rec.Pos == 0 {
		t.Fatalf("the record is %+v", rec)
	}
	for _, e := range l.Events[1:] {
		if e.ID != rec.Undo.ID {
			t.Errorf("event %s, undone by %s", e.ID, rec.Undo.ID)
		}
	}
	// A late try of the act does not bring it back.
	if seq, err := d.Do(t.Context(), "r", ban("a")); seq != 0 || err != nil || l.Record(t, "a").Undo == nil {
		t.Errorf("a late try: %d, %v", seq, err)
	}
	if seq, err := d.Undo(t.Context(), "r", undo("other")); seq != 0 || err != nil {
		t.Errorf("undone again by another: %d, %v", seq, err)
	}
}

// A record stays for as long as what it hides may be read.
func TestLife(t *testing.T) {
	t.Parallel()
	l := fakelog.New()
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
	l := fakelog.New()
	var d *Desk
	changed := 0
	d = New(Config{Log: l, Entries: l, Logger: slog.New(slog.DiscardHandler), Changed: func(acts []hub.Act) { changed += len(acts) },
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

// An act is entered into the log of moderation, and so is who has undone it. While that cannot be done the act's record
// is not told where its event is: so whoever finishes it enters it.
func TestActsAreEntered(t *testing.T) {
	t.Parallel()
	l := fakelog.New()
	d := newDesk(t, l)
	entry := func(id string) (rec hub.Record) {
		if e, there := l.Entry[id]; there {
			if err := json.Unmarshal(e.Body, &rec); err != nil {
				t.Fatal(err)
			}
		}
		return rec
	}
	l.FailEnter(fakelog.Failure{Err: hub.ErrUnavailable})
	if _, err := d.Do(t.Context(), "r", ban("a")); err != nil {
		t.Fatal(err)
	}
	d.wg.Wait()
	if rec := l.Record(t, "a"); rec.Pos != 0 || len(l.Entry) != 0 {
		t.Fatalf("the log of moderation was away: %+v, %d entries", rec, len(l.Entry))
	}
	d.Finish("r", l.Records["a"])
	d.wg.Wait()
	if rec := l.Record(t, "a"); rec.Pos != 1 || entry("a").Act.User != "ken" || l.Entry["a"].Whom != "h" || len(l.Events) != 1 {
		t.Fatalf("finished: %+v, %+v, %d events", rec, l.Entry, len(l.Events))
	}
	l.FailEnter(fakelog.Failure{Err: hub.ErrUnavailable})
	u := &hub.Act{ID: "u", Kind: protocol.TypeUndo, Undoes: []string{"a"}, By: protocol.User{ID: "boss"}}
	if _, err := d.Undo(t.Context(), "r", u); err != nil {
		t.Fatal(err)
	}
	d.wg.Wait()
	if entry("a").Undo != nil {
		t.Fatal("entered while the log of moderation was away")
	}
	d.Finish("r", l.Records["a"])
	d.wg.Wait()
	if rec := entry("a"); rec.Undo == nil || rec.Undo.By.ID != "boss" || l.Record(t, "a").Pos != 2 || len(l.Events) != 2 {
		t.Fatalf("finished: %+v, %d events", rec, len(l.Events))
	}
	// What users take back of their own is nobody's business.
	own := &hub.Act{ID: "own", Kind: protocol.TypeRemove, IDs: []string{"1abcd"}, By: protocol.User{ID: "ken"}}
	if _, err := d.Do(t.Context(), "r", own); err != nil {
		t.Fatal(err)
	}
	d.wg.Wait()
	if len(l.Entry) != 1 || l.Record(t, "own").Pos == 0 {
		t.Errorf("%d entries", len(l.Entry))
	}
	// A note is an entry before it is anything else.
	note := &hub.Act{ID: "n", Kind: protocol.TypeNote, User: "ken", Text: "first time", By: protocol.User{ID: "mod", Role: protocol.RoleModerator}}
	l.FailEnter(fakelog.Failure{Err: hub.ErrUnavailable})
	if err := d.Note(t.Context(), "r", note); !errors.Is(err, hub.ErrUnavailable) || len(l.Events) != 3 {
		t.Errorf("a note that is not entered: %v, %d events", err, len(l.Events))
	}
	if err := d.Note(t.Context(), "r", note); err != nil || entry("n").Act.Text != "first time" || len(l.Events) != 4 {
		t.Errorf("a note: %v, %+v", err, entry("n"))
	}
}
