package hub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// ask asks a room for comments.
func (w *world) ask(r *Room, a Ask) (page *protocol.Comments, recovered bool) {
	w.t.Helper()
	message, recovered, err := r.Comments(w.t.Context(), a)
	if err != nil {
		w.t.Fatalf("%+v: %v", a, err)
	}
	m, err := protocol.Decode(message)
	if err != nil {
		w.t.Fatal(err)
	}
	page = m.(*protocol.Comments)
	if len(page.Items) > a.limit() || !protocol.ValidCursor(page.Cursor) || page.Before != "" && !protocol.ValidCursor(page.Before) || !page.History {
		w.t.Fatalf("%+v: %d items, cursor %q, before %q", a, len(page.Items), page.Cursor, page.Before)
	}
	return page, recovered
}

// back pages backwards from a place, or from the latest, to the beginning of the log.
func (w *world) back(r *Room, place string, limit int) (texts []string) {
	w.t.Helper()
	for n := 0; ; n++ {
		page, recovered := w.ask(r, Ask{Before: place, Limit: limit})
		if recovered != (place != "") || n > 10_000 {
			w.t.Fatalf("page %d before %q: recovered %v", n, place, recovered)
		}
		texts = append(textsOf(page), texts...)
		if place = page.Before; place == "" {
			return texts
		}
	}
}

// on pages forwards from a place until nothing follows.
func (w *world) on(r *Room, place string, limit int) (texts []string) {
	w.t.Helper()
	for n := 0; ; n++ {
		page, recovered := w.ask(r, Ask{After: place, Limit: limit})
		if !recovered || n > 10_000 {
			w.t.Fatalf("page %d after %q: recovered %v", n, place, recovered)
		}
		texts = append(texts, textsOf(page)...)
		if page.Cursor == place {
			return texts
		}
		place = page.Cursor
	}
}

func textsOf(page *protocol.Comments) (texts []string) {
	for _, c := range page.Items {
		texts = append(texts, c.Text)
	}
	return texts
}

// Whatever place one begins at, the pages before it and those behind it have each comment
// that everybody may see once, in order: what was sampled out and what is for the staff is
// in none of them.
func TestPages(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { testPages(t, seed) })
	}
}

func testPages(t *testing.T, seed uint64) {
	inBubble(t, func(c *Config) { c.Recent = 5; c.RoomRate = 10 }, func(t *testing.T, w *world) {
		rnd := rand.New(rand.NewPCG(seed, 9))
		var want, places []string
		seqs := map[string]uint64{}
		said := rnd.IntN(400)
		r := w.read("r")
		defer func() { r.Release() }()
		r.Ready(t.Context())
		for i := range said {
			text, audience := fmt.Sprint(i), AudienceAll
			if rnd.IntN(4) == 0 {
				audience = AudienceStaff
			}
			e := w.log.put("r", text, audience)
			if i/50%2 == 1 { // a flood now and then
				w.log.change(func() {
					all := w.log.events["r"]
					all[len(all)-1].Rate = 200
					e = all[len(all)-1]
				})
			}
			if rnd.IntN(3) == 0 {
				w.log.tell("r")
			}
			time.Sleep(time.Duration(rnd.IntN(3000)) * time.Millisecond)
			seqs[text] = e.Seq
			if audience == AudienceAll && inSample(&e, w.hub.cfg.RoomRate) {
				want = append(want, text)
			}
			places = append(places, w.log.cursorAt(e.Seq), makeEdge(cursorTag("e1", "r"), e.Position()))
		}
		w.log.tell("r")
		if rnd.IntN(2) == 0 { // as on a node that opens it later
			r.Release()
			time.Sleep(time.Hour)
			r = w.read("r")
			r.Ready(t.Context())
		}
		limit := 1 + rnd.IntN(60)
		if got := w.back(r, "", limit); !slices.Equal(got, want) {
			t.Fatalf("seed %d: pages of %d backwards from the end:\n got %v\nwant %v", seed, limit, got, want)
		}
		for range 6 {
			if len(places) == 0 {
				break
			}
			n := rnd.IntN(len(places))
			place := places[n]
			cut := slices.IndexFunc(want, func(text string) bool { return seqs[text] > seqs[fmt.Sprint(n/2)] })
			if n%2 == 1 {
				cut = slices.IndexFunc(want, func(text string) bool { return seqs[text] >= seqs[fmt.Sprint(n/2)] })
			}
			if cut < 0 {
				cut = len(want)
			}
			if got := w.back(r, place, limit); !slices.Equal(got, want[:cut]) {
				t.Errorf("seed %d: pages of %d before %s:\n got %v\nwant %v", seed, limit, place, got, want[:cut])
			}
			if got := w.on(r, place, limit); !slices.Equal(got, want[cut:]) {
				t.Errorf("seed %d: pages of %d after %s:\n got %v\nwant %v", seed, limit, place, got, want[cut:])
			}
		}
	})
}

// A page leads on in both directions, whoever asked for it, and to and fro is the same page.
func TestPagesLeadOn(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		for i := range 10 {
			w.log.put("r", fmt.Sprint(i), AudienceAll)
			time.Sleep(time.Second)
		}
		r := w.read("r")
		defer r.Release()
		r.Ready(t.Context())
		expect := func(a Ask, want string) *protocol.Comments {
			t.Helper()
			page, _ := w.ask(r, a)
			if got := strings.Join(textsOf(page), " "); got != want {
				t.Errorf("%+v: got %q, want %q", a, got, want)
			}
			return page
		}
		latest := expect(Ask{}, "7 8 9")
		if w.log.pages > 0 {
			t.Errorf("%d pages are read from the log for what the room has", w.log.pages)
		}
		expect(Ask{Limit: 2}, "8 9")
		older := expect(Ask{Before: latest.Before, Limit: 3}, "4 5 6")
		expect(Ask{After: older.Before, Limit: 3}, "4 5 6")
		expect(Ask{After: older.Cursor, Limit: 2}, "7 8")
		expect(Ask{Before: older.Cursor, Limit: 2}, "5 6")
		first := expect(Ask{Before: older.Before}, "0 1 2 3")
		if first.Before != "" {
			t.Errorf("the first page leads on backwards, to %s", first.Before)
		}
		expect(Ask{Before: first.Cursor, Limit: 4}, "0 1 2 3")
		all := expect(Ask{Limit: 100}, "0 1 2 3 4 5 6 7 8 9")
		if all.Before != "" {
			t.Errorf("the page with everything leads on backwards, to %s", all.Before)
		}
		end := expect(Ask{After: all.Cursor}, "")
		if end.Cursor != all.Cursor {
			t.Errorf("behind the end is %s, not %s", end.Cursor, all.Cursor)
		}
		expect(Ask{Before: end.Before, Limit: 2}, "8 9")
		expect(Ask{Since: first.Cursor, Limit: 4}, "4 5 6 7")
		w.log.say("10")
		expect(Ask{After: end.Cursor}, "10")
		expect(Ask{Since: end.Cursor}, "10")
		// An edge is no cursor that one comes back with.
		if _, recovered := w.ask(r, Ask{Since: latest.Before}); recovered {
			t.Error("a poll goes on from an edge")
		}
	})
}

// Behind a long stretch that nobody may see a page is empty, and leads on.
func TestEmptyPagesLeadOn(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 3 }, func(t *testing.T, w *world) {
		const hidden = 3*pageRecords + 10
		w.log.put("r", "first", AudienceAll)
		for range hidden {
			w.log.put("r", "x", AudienceStaff)
		}
		w.log.put("r", "last", AudienceAll)
		r := w.read("r")
		defer r.Release()
		r.Ready(t.Context())
		for _, limit := range []int{1, 1000} {
			w.log.pages, w.log.reads = 0, 0
			if got := w.back(r, "", limit); fmt.Sprint(got) != "[first last]" || w.log.pages > 3*hidden/readPast {
				t.Errorf("backwards: %v, with %d reads", got, w.log.pages)
			}
			if got := w.on(r, w.log.cursorAt(1), limit); fmt.Sprint(got) != "[last]" || w.log.reads > 3*hidden/readPast {
				t.Errorf("forwards: %v, with %d reads", got, w.log.reads)
			}
		}
	})
}

// A page is not made longer than it may be by long comments.
func TestPagesAreBounded(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 1 }, func(t *testing.T, w *world) {
		for range 2000 {
			w.log.put("r", strings.Repeat("x", 7000), AudienceAll)
		}
		r := w.read("r")
		defer r.Release()
		r.Ready(t.Context())
		n := 0
		for _, a := range []Ask{{Limit: 1000}, {After: w.log.cursorAt(1), Limit: 1000}} {
			message, _, err := r.Comments(t.Context(), a)
			if err != nil || len(message) > pageBytes+readPast*7200 {
				t.Errorf("%+v: %d bytes, %v", a, len(message), err)
			}
		}
		if n = len(w.back(r, "", 1000)); n != 2000 {
			t.Errorf("%d comments in all", n)
		}
	})
}

// What the log has removed is the beginning for who goes backwards; who would go forwards
// from there starts anew. A place of another past, room or log is not followed.
func TestPagesOfAnotherPast(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 2 }, func(t *testing.T, w *world) {
		seqs := w.talk(20)
		r := w.read("r")
		defer r.Release()
		r.Ready(t.Context())
		at := func(i int) string { return w.log.cursorAt(seqs[i]) }
		w.log.change(func() { w.log.forget(seqs[9]) })
		for _, c := range []struct {
			name      string
			a         Ask
			recovered bool
			want      string
		}{
			{"before what is gone", Ask{Before: at(4)}, true, ""},
			{"what is kept", Ask{Before: at(12)}, true, "10 11 12"},
			{"after what is gone", Ask{After: at(4), Limit: 2}, false, "18 19"},
			{"garbage before", Ask{Before: "garbage", Limit: 2}, false, "18 19"},
			{"garbage after", Ask{After: "garbage", Limit: 3}, false, "17 18 19"},
			{"another past before", Ask{Before: makeCursor(cursorTag("e1", "r"), Position{seqs[15], 7}), Limit: 2}, false, "18 19"},
			{"another past after", Ask{After: makeEdge(cursorTag("e1", "r"), Position{seqs[15], 7}), Limit: 2}, false, "18 19"},
			{"the future", Ask{Before: makeCursor(cursorTag("e1", "r"), Position{seqs[19] + 50, 7}), Limit: 2}, false, "18 19"},
			{"another room", Ask{Before: makeCursor(cursorTag("e1", "q"), Position{seqs[15], w.log.times[seqs[15]]}), Limit: 2}, false, "18 19"},
			{"another log", Ask{After: makeCursor(cursorTag("e0", "r"), Position{seqs[15], w.log.times[seqs[15]]}), Limit: 2}, false, "18 19"},
		} {
			page, recovered := w.ask(r, c.a)
			if got := strings.Join(textsOf(page), " "); got != c.want || recovered != c.recovered {
				t.Errorf("%s: %v %q, want %v %q", c.name, recovered, got, c.recovered, c.want)
			}
			if c.name == "before what is gone" && page.Before != "" {
				t.Error("what is gone leads on")
			}
		}
	})
}

// Equal pages are read once for all who ask at the same time, few different ones at once;
// more than can be read in time are refused, and nobody waits longer than a join does.
func TestPagesTakeTurns(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 1 }, func(t *testing.T, w *world) {
		for i := range 600 {
			w.log.put("r", fmt.Sprint(i), AudienceAll)
		}
		r := w.read("r")
		defer r.Release()
		r.Ready(t.Context())
		w.log.change(func() { w.log.slow = time.Second })
		ask := func(n int, of func(i int) Ask) (failed int) {
			began := time.Now()
			var (
				wg sync.WaitGroup
				mu sync.Mutex
			)
			for i := range n {
				wg.Go(func() {
					if _, _, err := r.Comments(t.Context(), of(i)); err != nil {
						if !errors.Is(err, ErrUnavailable) {
							t.Error(err)
						}
						mu.Lock()
						failed++
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			if d := time.Since(began); d > 4*time.Second { // as long as a join waits, and one read
				t.Errorf("waited %v", d)
			}
			return failed
		}
		w.log.pages = 0
		if n := ask(1000, func(int) Ask { return Ask{Before: w.log.cursorAt(300), Limit: 10} }); n > 0 || w.log.pages != 1 {
			t.Errorf("equal pages: %d failed, %d reads", n, w.log.pages)
		}
		w.log.pages = 0
		different := func(i int) Ask { return Ask{Before: w.log.cursorAt(uint64(20 + i)), Limit: 10} }
		if n := ask(2*maxPaging, different); n > 0 || w.log.pages != 2*maxPaging {
			t.Errorf("different pages: %d failed, %d reads", n, w.log.pages)
		}
		w.log.pages = 0
		if n := ask(500, different); n < 500-3*maxPaging || w.log.pages > 4*maxPaging {
			t.Errorf("too many pages: %d failed, %d reads", n, w.log.pages)
		}
		if n := ask(1, different); n > 0 {
			t.Error("afterwards it fails still")
		}
		// One who goes away leaves nothing behind.
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if _, _, err := r.Comments(ctx, different(0)); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := w.hub.pagers.Load(); n != 0 || len(r.pages) > 0 || len(w.hub.paging) > 0 {
			t.Errorf("%d pages are being read", n)
		}
	})
}

// While the log does not answer, pages fail; the latest are what the room has.
func TestPagesWithoutLog(t *testing.T) {
	inBubble(t, func(c *Config) { c.Recent = 2 }, func(t *testing.T, w *world) {
		w.talk(5)
		r := w.read("r")
		defer r.Release()
		r.Ready(t.Context())
		w.log.change(func() { w.log.pageErr = fmt.Errorf("fake: %w", ErrUnavailable) })
		if _, _, err := r.Comments(t.Context(), Ask{Before: w.log.cursorAt(2)}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("a page: %v", err)
		}
		if page, _ := w.ask(r, Ask{Limit: 100}); fmt.Sprint(textsOf(page)) != "[3 4]" || page.Before == "" {
			t.Errorf("the latest: %v, before %q", textsOf(page), page.Before)
		}
	})
}
