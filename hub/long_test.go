package hub

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// One whose own comments are sampled out by the hundred gets them all, in messages
// that are not too long, and each tells how many of how many it shows.
func TestOwnCommentsAreSplit(t *testing.T) {
	inBubble(t, func(c *Config) { c.RoomRate = 10; c.Recent = -1 }, func(t *testing.T, w *world) {
		me, mine := w.joinUser("me", "")
		you, yours := w.joinUser("you", "")
		mine.take()
		yours.take()
		const n = 400
		pad := strings.Repeat("x", 400)
		w.log.mu.Lock()
		for i := range uint64(n) {
			user := "me"
			if i%4 == 0 {
				user = fmt.Sprint("u", i)
			}
			w.log.events["r"] = append(w.log.events["r"], Event{Seq: i + 1, At: 1, Kind: KindComment, Rate: 1000,
				Body: protocol.EncodeBody(protocol.Comment{User: protocol.User{ID: user}, Text: pad})})
		}
		w.log.mu.Unlock()
		w.log.tell("r")
		time.Sleep(time.Second)
		got := mine.take()
		items, shown, of := seen(got)
		own, messages := 0, 0
		last, covered := "", 0
		for _, it := range items {
			if it.User.ID == "me" {
				own++
			}
			if len(it.ID) < len(last) || len(it.ID) == len(last) && it.ID <= last {
				t.Fatalf("%s after %s", it.ID, last)
			}
			last = it.ID
		}
		for _, m := range got {
			c, ok := m.(*protocol.Comments)
			if !ok {
				continue
			}
			messages++
			if c.Of > 0 {
				covered += c.Of
			} else {
				covered += len(c.Items)
			}
			// What it says of this stretch is true of its cursor.
			if p, ok := parseCursor(cursorTag("e1", "r"), c.Cursor); !ok || int(p.Seq) != covered {
				t.Errorf("the cursor stands for %d, %d are told of", p.Seq, covered)
			}
		}
		if own != n*3/4 || of != n || shown != len(items) || messages < 4 {
			t.Errorf("%d of my %d in %d messages; %d items, shown %d of %d", own, n*3/4, messages, len(items), shown, of)
		}
		if _, _, of := seen(yours.take()); of != n {
			t.Errorf("another is told of %d", of)
		}
		me.Leave()
		you.Leave()
	})
}

// longest is the longest comment that the largest settings let through: MaxText code
// points of four bytes, and everything around them as long as it gets.
func longest(i int) []byte {
	media := int64(1)<<53 - 1
	return protocol.EncodeBody(protocol.Comment{
		User:    protocol.User{ID: strings.Repeat(`"`, protocol.MaxUserID), Name: strings.Repeat("\U0001F600", protocol.MaxUserName), Role: protocol.RoleBroadcaster},
		Text:    strings.Repeat("\U0001F600", protocol.MaxText-20) + strings.Repeat("\n", 20),
		MediaMS: &media,
		Style:   &protocol.Style{Position: "bottom", Size: "medium", Color: "#ffffff"},
	})
}

// No message is longer than promised with the largest comments either, whichever way
// they come.
func TestLongestComments(t *testing.T) {
	inBubble(t, func(c *Config) { c.RoomRate = 10; c.Recent = 20 }, func(t *testing.T, w *world) {
		v, s := w.joinUser(strings.Repeat(`"`, protocol.MaxUserID), "")
		at := cursor(s.take())
		w.log.mu.Lock()
		const far = 1 << 40 // positions, and so ids and cursors, are long
		for i := range uint64(60) {
			w.log.events["r"] = append(w.log.events["r"], Event{Seq: far + i, At: 1e12, Kind: KindComment, Rate: uint32(i%2) * 1000, Body: longest(int(i))})
		}
		w.log.mu.Unlock()
		w.log.tell("r")
		time.Sleep(time.Second)
		if items, _, of := seen(s.take()); len(items) != 60 || of != 60 {
			t.Errorf("%d items of %d", len(items), of)
		}
		v.Leave()
		for _, since := range []string{"", at} {
			v, s := w.joinUser("you", since)
			if n := countOf(s.take()); n == 0 {
				t.Error("no history")
			}
			v.Leave()
		}
		v, s = w.joinUser("me", "")
		s.take()
		title, err := json.Marshal(protocol.State{Status: protocol.StatusScheduled, Title: strings.Repeat("\U0001F600", protocol.MaxTitle)})
		if err != nil {
			t.Fatal(err)
		}
		w.log.follows["r"].f.SetState(State{Rev: 1 << 60, Body: title})
		time.Sleep(time.Second)
		w.expect(s, "state")
		v.Leave()
	})
}

// A flood keeps no more for the authors of what is sampled out than is bounded.
func TestOwnCommentsAreBounded(t *testing.T) {
	inBubble(t, func(c *Config) { c.RoomRate = 1; c.Recent = -1 }, func(t *testing.T, w *world) {
		v, s := w.joinUser("me", "")
		said := body(strings.Repeat("x", 10_000))
		ring := &v.view.ring
		seq, most := uint64(0), 0
		for range 40 { // half a MiB each
			w.log.mu.Lock()
			for range 50 {
				seq++
				w.log.events["r"] = append(w.log.events["r"], Event{Seq: seq, At: 1, Kind: KindComment, Rate: 1_000_000, Body: said})
			}
			w.log.mu.Unlock()
			w.log.tell("r")
			time.Sleep(100 * time.Millisecond)
			s.take()
			synctest.Wait()
			most = max(most, ring.own)
		}
		if most > keepOwnBytes || most < keepOwnBytes/2 {
			t.Errorf("%d bytes were kept, at most %d may be", most, keepOwnBytes)
		}
		if ring.own > 0 {
			time.Sleep(keepFrames)
			w.burst(1, 0)
			time.Sleep(time.Second)
			if ring.own > 0 {
				t.Errorf("%d bytes are kept for good", ring.own)
			}
		}
		v.Leave()
	})
}
