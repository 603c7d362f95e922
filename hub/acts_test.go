package hub

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// sayAs adds a comment of a user to room r and returns its id.
func (l *fakeLog) sayAs(user string, role protocol.Role, text string) string {
	e := l.put("r", text, AudienceAll)
	l.change(func() {
		all := l.events["r"]
		last := &all[len(all)-1]
		last.Body = protocol.EncodeBody(protocol.Comment{User: protocol.User{ID: user, Role: role}, Text: text})
	})
	l.tell("r")
	return CommentID(e.Seq, e.ID)
}

// does adds an act to room r: its record, and its event.
func (l *fakeLog) does(a Act) Act {
	if a.By.ID == "" {
		a.By = protocol.User{ID: "mod", Role: protocol.RoleModerator}
	}
	if a.User != "" {
		a.Hash = l.UserHash("r", a.User)
	}
	l.mu.Lock()
	if a.ID == "" {
		a.ID = fmt.Sprintf("act-%d", len(l.standing))
	}
	a.At = time.Now().UnixMilli()
	a.After = l.seqs["r"]
	l.mu.Unlock()
	e := l.put("r", a.ID, AudienceAll)
	body, _ := json.Marshal(a)
	l.change(func() {
		all := l.events["r"]
		last := &all[len(all)-1]
		last.Kind, last.Body, last.ID = KindAct, body, a.ID
		for _, id := range a.Undoes {
			for i := range l.standing {
				var rec Record
				_ = json.Unmarshal(l.standing[i].Body, &rec)
				if rec.Act.ID == id {
					rec.Undo, rec.Pos, rec.PosAt = &a, e.Seq, e.At
					l.standing[i].Body, _ = json.Marshal(rec)
				}
			}
		}
		if a.Kind != protocol.TypeUndo {
			rec, _ := json.Marshal(Record{Act: a, Pos: e.Seq, PosAt: e.At})
			l.standing = append(l.standing, Standing{ID: a.ID, Seq: uint64(len(l.standing) + 1), Body: rec})
		}
	})
	l.tell("r")
	return a
}

func TestRemovedIsGoneAndComesBack(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		_, s := w.join("r", "")
		w.log.sayAs("ken", "", "a")
		b := w.log.sayAs("ken", "", "b")
		w.log.sayAs("eve", "", "c")
		time.Sleep(time.Second)
		start := cursor(w.expect(s, "welcome(false) state history[] comments[a] comments[b c]"))
		_ = start
		w.log.does(Act{ID: "x", Kind: protocol.TypeRemove, IDs: []string{b}})
		time.Sleep(time.Second)
		w.expect(s, `{"ids":["`+b+`"]}`)
		_, late := w.join("r", "")
		w.expect(late, "welcome(false) state history[a c]")
		w.log.does(Act{Kind: protocol.TypeUndo, Undoes: []string{"x"}})
		time.Sleep(time.Second)
		got := s.take()
		if r, is := got[0].(*protocol.Restored); len(got) != 1 || !is || len(r.Items) != 1 || r.Items[0].Text != "b" {
			t.Errorf("got %s", brief(got))
		}
		_, later := w.join("r", "")
		w.expect(later, "welcome(false) state history[a b c]")
		// An act that was undone before it is heard of does not count, whatever the order.
		w.log.does(Act{Kind: protocol.TypeUndo, Undoes: []string{"y"}})
		w.log.does(Act{ID: "y", Kind: protocol.TypeRemove, IDs: []string{b}})
		time.Sleep(time.Second)
		_, last := w.join("r", "")
		w.expect(last, "welcome(false) state history[a b c]")
		for _, s := range []*fakeSocket{s, late, later, last} {
			s.viewer.Leave()
		}
	})
}

// A comment of somebody who has more standing is not hidden, and neither is another one that has
// the position of the removed one, as after a restore.
func TestRankAndIdentity(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		boss := w.log.sayAs("boss", protocol.RoleBroadcaster, "boss")
		mod := w.log.sayAs("mod2", protocol.RoleModerator, "mod2")
		own := w.log.sayAs("mod", protocol.RoleModerator, "own")
		ken := w.log.sayAs("ken", "", "ken")
		w.log.does(Act{Kind: protocol.TypeRemove, IDs: []string{boss, mod, own, ken[:len(ken)-1] + "!"}})
		w.log.does(Act{Kind: protocol.TypeBan, User: "boss", Clear: true})
		w.log.does(Act{Kind: protocol.TypeRemove, IDs: []string{ken}, By: protocol.User{ID: "eve", Role: protocol.RoleViewer}})
		_, s := w.join("r", "")
		w.expect(s, "welcome(false) state history[boss mod2 ken]")
		w.log.does(Act{Kind: protocol.TypeRemove, IDs: []string{ken}, By: protocol.User{ID: "ken", Role: protocol.RoleViewer}})
		w.log.does(Act{Kind: protocol.TypeClear})
		w.log.sayAs("boss", protocol.RoleBroadcaster, "after")
		time.Sleep(time.Second)
		_, late := w.join("r", "")
		w.expect(late, "welcome(false) state history[boss mod2 after]")
		s.viewer.Leave()
		late.viewer.Leave()
	})
}

// What a banned user says through a node that has not heard of it yet is shown by nobody.
func TestBehindABan(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		_, s := w.join("r", "")
		_, staff := w.joinAs("r", "", true)
		w.log.sayAs("ken", "", "before")
		time.Sleep(time.Second)
		s.take()
		staff.take()
		w.log.does(Act{Kind: protocol.TypeMute, User: "ken", Ends: time.Now().Add(10 * time.Second).UnixMilli()})
		w.log.sayAs("ken", "", "behind")
		w.log.sayAs("eve", "", "other")
		time.Sleep(9 * time.Second)
		w.expect(s, "comments[other]")
		w.expect(staff, "moderation(mute) comments[other]")
		time.Sleep(2 * time.Second)
		w.log.sayAs("ken", "", "afterwards")
		time.Sleep(time.Second)
		w.expect(s, "comments[afterwards]")
		s.viewer.Leave()
		staff.viewer.Leave()
	})
}

// A viewer that is behind is not sent what was removed meanwhile, and is told of it; one that has fallen
// off the ring is told behind its gap.
func TestRemovedWhileBehind(t *testing.T) {
	inBubble(t, func(c *Config) { c.Ring, c.Recent = 16, 3 }, func(t *testing.T, w *world) {
		_, s := w.join("r", "")
		_, slow := w.join("r", "")
		gone := w.log.sayAs("ken", "", "gone")
		time.Sleep(time.Second)
		s.take()
		slow.take()
		s.freeze(true)
		slow.freeze(true)
		spam := w.log.sayAs("ken", "", "spam")
		time.Sleep(time.Second)
		w.log.sayAs("eve", "", "fine")
		time.Sleep(time.Second)
		w.log.does(Act{Kind: protocol.TypeRemove, IDs: []string{gone, spam}})
		time.Sleep(time.Second)
		s.freeze(false)
		w.expect(s, fmt.Sprintf(`comments[fine] {"ids":[%q,%q]}`, gone, spam))
		for range 30 {
			w.log.sayAs("eve", "", "x")
			time.Sleep(time.Second)
		}
		slow.freeze(false)
		got := slow.take()
		if b := brief(got); !strings.HasPrefix(b, "gap(") || !strings.Contains(b, fmt.Sprintf(`) {"ids":[%q,%q]} comments[x]`, gone, spam)) {
			t.Errorf("got %s", b)
		}
		// So many that they are not kept: the list is to be loaded again.
		slow.freeze(true)
		s.take()
		for i := range keepNotices + 40 {
			w.log.does(Act{ID: fmt.Sprint("many", i), Kind: protocol.TypeRemove, IDs: []string{w.log.sayAs("ken", "", "y")}})
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		slow.freeze(false)
		if b := brief(slow.take()); !strings.Contains(b, `{"reload":true}`) {
			t.Errorf("got %.200s", b)
		}
		for _, s := range []*fakeSocket{s, slow} {
			s.viewer.Leave()
		}
	})
}

// A resume tells what was removed behind its cursor: from memory, and read back from the log.
func TestResumeTellsWhatWasRemoved(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		_, s := w.join("r", "")
		gone := w.log.sayAs("ken", "", "gone")
		time.Sleep(time.Second)
		at := cursor(s.take())
		w.log.does(Act{Kind: protocol.TypeRemove, IDs: []string{gone}})
		w.log.sayAs("eve", "", "x")
		time.Sleep(time.Second)
		want := fmt.Sprintf(`welcome(true) state {"ids":[%q]} history[x]`, gone)
		_, back := w.join("r", at)
		w.expect(back, want)
		r := w.read("r")
		defer r.Release()
		poll, _ := r.polls(t.Context(), at)
		if !strings.Contains(string(poll), fmt.Sprintf(`"messages":[{"type":"removed","ids":[%q]}]`, gone)) || strings.Contains(string(poll), "gone") {
			t.Errorf("a poll gets %s", poll)
		}
		for range 10 {
			w.log.sayAs("eve", "", "y")
		}
		time.Sleep(2 * keepItems)
		w.log.sayAs("eve", "", "y")
		time.Sleep(time.Second)
		_, late := w.join("r", at)
		if b := brief(late.take()); !strings.HasPrefix(b, want[:len(want)-len("]")]) {
			t.Errorf("read back: %s", b)
		}
		for _, s := range []*fakeSocket{s, back, late} {
			s.viewer.Leave()
		}
	})
}

// A record whose event does not come is handed over; one whose event comes is not.
func TestUnfinishedActsAreFinished(t *testing.T) {
	var mu sync.Mutex
	var handed []string
	inBubble(t, func(c *Config) {
		c.Finish = func(_ string, s Standing) {
			mu.Lock()
			defer mu.Unlock()
			handed = append(handed, s.ID)
		}
	}, func(t *testing.T, w *world) {
		gone := w.log.sayAs("ken", "", "gone")
		rec, _ := json.Marshal(Record{Act: Act{ID: "crashed", Kind: protocol.TypeRemove, IDs: []string{gone}, By: protocol.User{ID: "mod", Role: protocol.RoleModerator}}})
		w.log.standing = []Standing{{ID: "crashed", Seq: 1, Body: rec}}
		_, s := w.join("r", "")
		w.expect(s, "welcome(false) state history[]")
		heard := func(id string) {
			rec, _ := json.Marshal(Record{Act: Act{ID: id, Kind: protocol.TypeClear, By: protocol.User{ID: "mod", Role: protocol.RoleModerator}}})
			w.log.follows["r"].f.Stands(Standing{ID: id, Seq: 9, Body: rec})
		}
		confirmed := func(id string) { // the log of moderation has it
			rec, _ := json.Marshal(Record{Act: Act{ID: id, Kind: protocol.TypeClear}, Pos: 7, PosAt: 1})
			w.log.follows["r"].f.Stands(Standing{ID: id, Seq: 10, Body: rec})
		}
		heard("soon")
		heard("never")
		w.log.does(Act{ID: "soon", Kind: protocol.TypeClear})
		confirmed("soon")
		heard("late") // its record comes behind its event
		w.log.does(Act{ID: "late", Kind: protocol.TypeClear})
		heard("late")
		confirmed("late")
		w.log.does(Act{ID: "unconfirmed", Kind: protocol.TypeClear})
		heard("unconfirmed")
		w.log.does(Act{ID: "unheard", Kind: protocol.TypeClear}) // no record comes
		w.log.does(Act{ID: "undo", Kind: protocol.TypeUndo, Undoes: []string{"another"}})
		time.Sleep(25 * time.Second)
		synctest.Wait()
		mu.Lock()
		slices.Sort(handed)
		if fmt.Sprint(handed) != "[another crashed never unconfirmed unheard]" {
			t.Errorf("handed over %v", handed)
		}
		mu.Unlock()
		s.viewer.Leave()
	})
}

// A room that was opened with the records of its acts hides the same as one that heard them.
func TestColdRoom(t *testing.T) {
	inBubble(t, func(c *Config) { c.Linger = time.Second }, func(t *testing.T, w *world) {
		a := w.log.sayAs("ken", "", "a")
		w.log.sayAs("eve", "", "b")
		x := w.log.does(Act{Kind: protocol.TypeRemove, IDs: []string{a}})
		w.log.does(Act{Kind: protocol.TypeMute, User: "eve", Clear: true})
		w.log.sayAs("eve", "", "c")
		w.log.sayAs("tom", "", "d")
		_, s := w.join("r", "")
		w.expect(s, "welcome(false) state history[d]")
		w.log.does(Act{Kind: protocol.TypeUndo, Undoes: []string{x.ID}})
		s.viewer.Leave()
		time.Sleep(3 * time.Second)
		_, s = w.join("r", "")
		w.expect(s, "welcome(false) state history[a d]")
		s.viewer.Leave()
	})
}

// Where a record cannot be read, as one of a later version, nobody knows who may comment; watching goes on.
func TestUnreadableRecord(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.log.standing = []Standing{{ID: "later", Seq: 1}}
		w.log.sayAs("ken", "", "a")
		v, s := w.join("r", "")
		w.expect(s, "welcome(false) state history[a]")
		if _, known := v.room.UserActs("ken"); known {
			t.Error("the acts are known")
		}
		v.Leave()
	})
}

// A log that was restored gives positions again: what was cleared before is not what is said now.
func TestClearOfAnotherPast(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		for range 5 {
			w.log.sayAs("ken", "", "old")
		}
		w.log.does(Act{Kind: protocol.TypeClear})
		w.log.change(func() { w.log.events["r"], w.log.seqs["r"] = nil, 0 })
		time.Sleep(2 * time.Minute)
		w.log.sayAs("ken", "", "new")
		_, s := w.join("r", "")
		w.expect(s, "welcome(false) state history[new]")
		s.viewer.Leave()
	})
}

// The audience is behind by the delay, the staff is not, and acts do not wait.
func TestDelay(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		w.log.state = State{Rev: 1, Body: []byte(`{"status":"live","delay_ms":5000}`)}
		_, s := w.join("r", "")
		_, staff := w.joinAs("r", "", true)
		s.take()
		staff.take()
		w.log.sayAs("ken", "", "a")
		bad := w.log.sayAs("ken", "", "bad")
		time.Sleep(time.Second)
		w.expect(staff, "comments[a bad]")
		w.log.does(Act{Kind: protocol.TypeRemove, IDs: []string{bad}})
		time.Sleep(time.Second)
		told := fmt.Sprintf(`{"ids":[%q]}`, bad)
		w.expect(staff, "moderation(remove) "+told)
		w.expect(s, told)
		_, early := w.join("r", "")
		w.expect(early, "welcome(false) state history[]")
		r := w.read("r")
		defer r.Release()
		for _, ask := range []Ask{{}, {Limit: 10}} {
			if page, _, err := r.Comments(t.Context(), ask); err != nil || strings.Contains(string(page), `"text"`) {
				t.Errorf("%+v: %s, %v", ask, page, err)
			}
		}
		time.Sleep(6 * time.Second)
		got := s.take()
		if b := brief(got); b != "comments[a] "+told {
			t.Errorf("the audience gets %s", b)
		}
		// A cursor of the staff's is ahead of the audience: it waits, and gets nothing twice.
		w.log.sayAs("ken", "", "b")
		time.Sleep(time.Second)
		ahead := cursor(staff.take())
		_, back := w.join("r", ahead)
		w.log.sayAs("ken", "", "c")
		time.Sleep(10 * time.Second)
		if b := brief(back.take()); b != "welcome(true) state state comments[c]" {
			t.Errorf("ahead: %s", b)
		}
		w.expect(s, "comments[b] comments[c]")
		// It never falls back.
		w.log.follows["r"].f.SetState(State{Rev: 2, Body: []byte(`{"status":"live","delay_ms":60000}`)})
		time.Sleep(time.Second)
		_, late := w.join("r", "")
		w.expect(late, "welcome(false) state history[a b c]")
		w.log.sayAs("ken", "", "d")
		time.Sleep(2 * time.Second)
		w.log.follows["r"].f.SetState(State{Rev: 3, Body: []byte(`{"status":"live"}`)})
		time.Sleep(time.Second)
		if b := brief(s.take()); b != "state state comments[d]" {
			t.Errorf("without delay: %s", b)
		}
		for _, s := range []*fakeSocket{s, staff, early, back, late} {
			s.viewer.Leave()
		}
	})
}

// A flood of somebody who is muted does not push honest people out of the sample.
func TestMutedFloodCountsForNothing(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, w *world) {
		_, s := w.join("r", "")
		w.log.does(Act{Kind: protocol.TypeMute, User: "ken"})
		for range 500 {
			w.log.sayAs("ken", "", "x")
		}
		if n := w.hub.Rate("r"); n != 0 {
			t.Errorf("a rate of %d", n)
		}
		time.Sleep(time.Second)
		s.viewer.Leave()
	})
}

// An act that ends with the broadcast holds while it may hide what is said, so that no comment is taken that nobody is shown.
func TestInForceWhileItHides(t *testing.T) {
	a := placed{Act: Act{Kind: protocol.TypeMute, Broadcast: 2, At: 1000}, pos: 5, sure: true}
	for _, tt := range []struct {
		now   int64
		state protocol.State
		want  bool
	}{
		{2000, protocol.State{Broadcast: 2, Status: protocol.StatusLive}, true},
		{2000, protocol.State{Broadcast: 2, Status: protocol.StatusEnded}, true},
		{2000, protocol.State{Broadcast: 3, Status: protocol.StatusLive}, true},
		{99000, protocol.State{Broadcast: 1, Status: protocol.StatusScheduled}, true},
		{99000, protocol.State{Broadcast: 2, Status: protocol.StatusLive}, true},
		{99000, protocol.State{Broadcast: 2, Status: protocol.StatusEnded}, false},
		{99000, protocol.State{Broadcast: 3, Status: protocol.StatusLive}, false},
	} {
		in := a.InForce(tt.now, &tt.state)
		if in != tt.want || !in && a.of(comment{seq: 6, at: tt.now}) != shown {
			t.Errorf("at %d, %+v: in force %v, %v", tt.now, tt.state, in, a.of(comment{seq: 6, at: tt.now}))
		}
	}
}
