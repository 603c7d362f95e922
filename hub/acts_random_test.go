package hub

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Random acts and comments, viewers who lag, leave and come back, nodes that are opened cold, and readers:
// nobody is shown what an act hides that they have passed, and in the end everybody reads what the
// acts leave. The judge here is written from PROTOCOL.md.
func TestRandomActs(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(c *Config) { c.Ring, c.Recent, c.Linger = 16, 8, time.Second }, func(t *testing.T, w *world) { randomActs(t, w, seed) })
		})
	}
}

func randomActs(t *testing.T, w *world, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 14))
	users := []string{"a", "b", "c", "d"}
	type spoken struct {
		id, user, text string
		seq            uint64
	}
	var comments []spoken
	var acts []Act
	pos := map[string]uint64{} // of acts
	undone := map[string]bool{}
	swept := func(a *Act, user string) bool { // whether it mutes somebody
		return slices.ContainsFunc(a.Users, func(u Whom) bool { return u.User == user }) && !slices.ContainsFunc(acts, func(b Act) bool {
			return b.User == user && slices.Contains(b.Lifts, a.ID)
		})
	}
	hides := func(c spoken) bool {
		for i := range acts {
			a := &acts[i]
			if undone[a.ID] {
				continue
			}
			behind := c.seq > pos[a.ID]
			switch a.Kind {
			case protocol.TypeRemove:
				if slices.Contains(a.IDs, c.id) {
					return true
				}
			case protocol.TypeSweep:
				if slices.Contains(a.IDs, c.id) || behind && swept(a, c.user) {
					return true
				}
			case protocol.TypeClear:
				if !behind && (a.User == "" || a.User == c.user) {
					return true
				}
			case protocol.TypeBan, protocol.TypeMute:
				if a.User == c.user && (behind || a.Clear) {
					return true
				}
			}
		}
		return false
	}
	sockets := map[*fakeSocket]string{} // and their last cursors
	check := func(s *fakeSocket) {
		for _, m := range s.take() {
			var items []protocol.Comment
			switch m := m.(type) {
			case *protocol.Comments:
				items = m.Items
				sockets[s] = m.Cursor
			case *protocol.Gap:
				sockets[s] = m.Cursor
			case *protocol.Restored:
				items = m.Items
			}
			for _, it := range items {
				i := slices.IndexFunc(comments, func(c spoken) bool { return c.id == it.ID })
				if i < 0 || comments[i].text != it.Text {
					t.Fatalf("nobody has said %s", it.Text)
				}
				// The log has told this node of every act by now: whatever is written from here on obeys them.
				if hides(comments[i]) {
					t.Errorf("%s is shown, which is hidden", it.Text)
				}
			}
		}
	}
	read := func(what string, page []byte) {
		var got protocol.Comments
		if err := json.Unmarshal(page, &got); err != nil {
			t.Fatal(err)
		}
		for _, it := range got.Items {
			i := slices.IndexFunc(comments, func(c spoken) bool { return c.id == it.ID })
			if i >= 0 && hides(comments[i]) {
				t.Errorf("%s shows %s, which is hidden", what, it.Text)
			}
		}
	}
	for n := range 400 {
		switch k := rng.IntN(20); {
		case k < 9:
			user := users[rng.IntN(len(users))]
			text := fmt.Sprint(user, n)
			id := w.log.sayAs(user, "", text)
			seq, _ := seqOf(id)
			comments = append(comments, spoken{id, user, text, seq})
		case k < 13 && len(comments) > 0:
			a := Act{ID: fmt.Sprint("act", n)}
			switch rng.IntN(7) {
			case 5:
				a.Kind = protocol.TypeSweep
				for range 1 + rng.IntN(3) {
					a.IDs = append(a.IDs, comments[max(0, len(comments)-1-rng.IntN(12))].id)
				}
				for _, user := range users[:rng.IntN(3)] {
					a.Users = append(a.Users, Whom{Hash: w.log.UserHash("r", user), User: user})
				}
			case 6:
				a.Kind, a.User = protocol.TypeUnmute, users[rng.IntN(len(users))]
				for i := range acts {
					if acts[i].Kind == protocol.TypeSweep && !undone[acts[i].ID] {
						a.Lifts = append(a.Lifts, acts[i].ID)
					}
				}
				if len(a.Lifts) == 0 {
					a.Kind, a.User = protocol.TypeClear, ""
				}
			case 0, 1:
				a.Kind = protocol.TypeRemove
				for range 1 + rng.IntN(3) {
					a.IDs = append(a.IDs, comments[max(0, len(comments)-1-rng.IntN(12))].id)
				}
			case 2:
				a.Kind, a.User = protocol.TypeBan, users[rng.IntN(len(users))]
				a.Clear = rng.IntN(2) == 0
			case 3:
				a.Kind = protocol.TypeClear
				if rng.IntN(3) > 0 {
					a.User = users[rng.IntN(len(users))]
				}
			case 4:
				if one := rng.IntN(max(1, len(acts))); len(acts) > 0 && acts[one].Kind != protocol.TypeUnmute {
					a.Kind = protocol.TypeUndo
					a.Undoes = []string{acts[one].ID}
				} else {
					a.Kind = protocol.TypeClear
				}
			}
			synctest.Wait() // what was on its way was shown before the act
			for s := range sockets {
				check(s)
			}
			w.log.does(a)
			if a.Kind == protocol.TypeUndo {
				undone[a.Undoes[0]] = true
			} else {
				acts = append(acts, a)
				pos[a.ID] = w.log.seqs["r"]
			}
		case k < 15:
			if len(sockets) < 6 {
				_, s := w.join("r", "")
				sockets[s] = ""
			}
		case k < 16:
			for s := range sockets {
				s.freeze(rng.IntN(2) == 0)
				break
			}
		case k < 17:
			for s, at := range sockets {
				s.viewer.Leave()
				delete(sockets, s)
				if rng.IntN(2) == 0 {
					_, back := w.join("r", at)
					sockets[back] = at
				}
				break
			}
		case k < 18:
			r := w.read("r")
			if r.Ready(t.Context()) {
				page, _, err := r.Comments(t.Context(), Ask{Limit: 1 + rng.IntN(30)})
				if err == nil {
					read("a page", page)
				}
				for _, at := range sockets {
					if at != "" {
						if page, _, err = r.Comments(t.Context(), Ask{Since: at}); err == nil {
							read("a poll", page)
						}
					}
					break
				}
			}
			r.Release()
		default:
			time.Sleep(time.Duration(rng.IntN(3000)) * time.Millisecond)
		}
		for s := range sockets {
			check(s)
		}
	}
	time.Sleep(5 * time.Second)
	for s := range sockets {
		s.freeze(false)
		s.viewer.Leave()
	}
	// Whoever comes now gets what the acts leave; on this node, and on one that is opened cold.
	var want []string
	for _, c := range comments {
		if !hides(c) {
			want = append(want, c.text)
		}
	}
	want = want[max(0, len(want)-8):]
	for range 2 {
		r := w.read("r")
		if !r.Ready(t.Context()) {
			t.Fatal("not ready")
		}
		page, _, err := r.Comments(t.Context(), Ask{Limit: 8})
		if err != nil {
			t.Fatal(err)
		}
		var got protocol.Comments
		_ = json.Unmarshal(page, &got)
		var texts []string
		for _, it := range got.Items {
			texts = append(texts, it.Text)
		}
		if fmt.Sprint(texts) != fmt.Sprint(want) {
			t.Errorf("in the end %v, want %v", texts, want)
		}
		r.Release()
		time.Sleep(10 * time.Second)
	}
}
