package redispresence

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// consumer is a back end that follows joins and leaves as the document says.
type consumer struct {
	t      *testing.T
	reader *node
	gens   map[string]string
	rooms  map[string]map[string]bool // room → users
	ids    map[string]bool            // of batches that have come: the stream drops them
}

func (c *consumer) hear(id string, body []byte) error {
	if c.ids[id] {
		return nil
	}
	c.ids[id] = true
	var e protocol.PresenceEvent
	if err := json.Unmarshal(body, &e); err != nil {
		return err
	}
	if e.Type == "reset" {
		for room := range c.rooms {
			c.list(room)
		}
		all, err := c.reader.Rooms(context.Background(), hub.RoomsQuery{Limit: 1000})
		for _, r := range all.Rooms {
			c.list(r.Room)
		}
		return err
	}
	if c.gens[e.Room] != e.Generation {
		c.list(e.Room)
	}
	if c.gens[e.Room] != e.Generation {
		return nil
	}
	for _, u := range e.Joined {
		c.rooms[e.Room][u.ID] = true
	}
	for _, u := range e.Left {
		delete(c.rooms[e.Room], u.ID)
	}
	return nil
}

// list takes a new snapshot of a room.
func (c *consumer) list(room string) {
	c.t.Helper()
	c.rooms[room] = map[string]bool{}
	for cursor := ""; ; {
		page, err := c.reader.Members(context.Background(), hub.MembersQuery{Room: room, Cursor: cursor, Limit: 11, Leaving: true})
		if err != nil {
			c.t.Fatal(err)
		}
		c.gens[room] = page.Generation
		for _, u := range page.Users {
			c.rooms[room][u.ID] = true
		}
		if cursor = page.Cursor; cursor == "" {
			return
		}
	}
}

// publish does what the goroutine of a presence does.
func (w *world) publish(n *node) {
	for len(n.feeds) > 0 {
		b := <-n.feeds
		b.feeding = false
		_ = b.publish(w.ctx) // the next tick asks for it again
	}
}

// teller makes a node that publishes, and returns what it has said since it was asked last.
func (w *world) teller(change func(*Config)) (*node, func() []string) {
	n := w.node()
	if change != nil {
		change(&n.cfg)
	}
	var said []string
	n.cfg.Publish = func(_ context.Context, room, _ string, body []byte) error {
		var e protocol.PresenceEvent
		if err := json.Unmarshal(body, &e); err != nil || e.V != 1 || e.Generation == "" || e.Room != room {
			w.t.Errorf("published %s, %v", body, err)
		}
		if e.Type == "reset" {
			said = append(said, "reset "+room)
		}
		for _, u := range e.Joined {
			said = append(said, fmt.Sprintf("%s+%s", room, u.ID))
		}
		for _, u := range e.Left {
			lost := ""
			if u.Lost {
				lost = "!"
			}
			said = append(said, fmt.Sprintf("%s-%s%s", room, u.ID, lost))
		}
		return nil
	}
	return n, func() []string {
		w.publish(n)
		out := said
		said = nil
		slices.Sort(out)
		return out
	}
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: back ends are told %q, want %q", what, got, want)
	}
}

func TestJoinsAndLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, told := w.teller(nil)
	b, _ := w.teller(nil)
	here, there := a.open("room"), b.open("room")
	step := func() {
		w.pass(time.Second)
		w.mustRound(a, b)
	}
	step()
	expect(t, "at first", told(), "reset _all")
	here.Join("ann")
	here.Join("ann")
	there.Join("bob")
	step()
	expect(t, "two come", told(), "room+ann", "room+bob")
	there.Join("ann")
	here.Leave("ann")
	step()
	here.Leave("ann")
	step()
	expect(t, "one moves to another node", told())
	there.Leave("bob")
	step()
	expect(t, "one leaves", told())
	for range 5 {
		step()
	}
	here.Join("bob")
	for range 20 {
		step()
	}
	expect(t, "and is back within 10 s", told())
	since := walk(t, a, "room", 10)
	for _, m := range since {
		if m.ID == "bob" && m.Since > w.now.Add(-25*time.Second).UnixMilli() {
			t.Errorf("who was back within 10 s is there since %v, now is %v", m.Since, w.now.UnixMilli())
		}
	}
	here.Leave("bob")
	for range 9 {
		step()
		expect(t, "not before 10 s", told())
	}
	// A leave is noticed by the ticks that look around.
	for range lookEvery {
		step()
	}
	expect(t, "one has left", told(), "room-bob")
}

// Who comes back while somebody lists the members is told of: the list may have neither.
func TestBackWhileListing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, told := w.teller(nil)
	here := a.open("room")
	here.Join("ann")
	here.Join("bob")
	step := func() {
		w.pass(time.Second)
		w.mustRound(a)
	}
	step()
	here.Leave("bob")
	step()
	told()
	listed := map[string]int{}
	for cursor := ""; ; {
		page, err := a.Members(w.ctx, hub.MembersQuery{Room: "room", Cursor: cursor, Limit: 10, Leaving: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page.Users {
			listed[m.ID] = m.Devices
		}
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	if len(listed) != 2 || listed["ann"] != 1 || listed["bob"] != 0 {
		t.Errorf("with those who are leaving listed are %v", listed)
	}
	here.Join("bob")
	step()
	expect(t, "back while somebody lists", told(), "room+bob")
	here.Leave("bob")
	step()
	w.pass(listTime)
	here.Join("bob")
	w.mustRound(a)
	expect(t, "much later", told())
}

func TestDeathIsTold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, told := w.teller(nil)
	victim, _ := w.teller(nil)
	here := a.open("room")
	here.Join("ann")
	there := victim.open("room")
	there.Join("ann")
	there.Join("bob")
	w.mustRound(a, victim)
	told()
	for range 25 {
		w.pass(time.Second)
		w.mustRound(a)
	}
	expect(t, "a node has died", told(), "room-bob!")
}

// Whoever publishes may die: another node goes on, and nothing is left out.
func TestAnotherNodePublishes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _ := w.teller(nil)
	b, told := w.teller(nil)
	here, there := a.open("room"), b.open("room")
	here.Join("ann")
	w.mustRound(a)
	a.cfg.Publish = func(context.Context, string, string, []byte) error { return errFault }
	w.publish(a)
	there.Join("bob")
	w.mustRound(b)
	expect(t, "another node has the claim", told())
	w.pass(feedClaim)
	there.Join("cid")
	w.mustRound(b)
	expect(t, "it has lapsed", told(), "reset _all", "room+ann", "room+bob", "room+cid")
}

func TestFlushBeginsAnotherGeneration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, told := w.teller(nil)
	here := a.open("room")
	here.Join("ann")
	w.mustRound(a)
	told()
	list := func() string {
		page, err := a.Members(w.ctx, hub.MembersQuery{Room: "room", Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return page.Generation
	}
	before, saved := list(), w.snapshot()
	w.pass(time.Second)
	here.Join("bob")
	w.mustRound(a)
	told()
	w.restore(saved)
	for range 3 {
		w.pass(time.Second)
		w.mustRound(a)
	}
	after := list()
	if said := told(); len(said) == 0 || said[0] != "reset _all" || after <= before {
		t.Errorf("back at an older state: told %q, generation %s after %s", said, after, before)
	}
	w.mini.FlushAll()
	for range 3 {
		w.pass(time.Second)
		w.mustRound(a)
	}
	if said := told(); len(said) == 0 || said[0] != "reset _all" || list() <= after {
		t.Errorf("flushed: told %q, generation %s after %s", said, list(), after)
	}
}

// Where nobody is to be told, nothing is kept for it.
func TestNoFeed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.node()
	v := n.open("room")
	v.Join("ann")
	w.mustRound(n)
	v.Leave("ann")
	w.pass(time.Second)
	w.mustRound(n)
	for key := range w.snapshot() {
		if name := strings.TrimPrefix(key, n.buckets[0].keys.base); name == "feed" || name == "left" || name == "leaving" {
			t.Errorf("redis has %s", name)
		}
	}
}

// When nobody publishes for long, Redis does not fill: back ends begin anew.
func TestFeedIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n, told := w.teller(func(c *Config) { c.LeaveWait = -1 })
	most, _ := strconv.Atoi(maxFeed)
	for i := range most/400 + 2 {
		for j := range 400 {
			n.open(fmt.Sprint("room", i, "-", j)).Join("ann")
		}
		w.pass(time.Second)
		w.mustRound(n)
	}
	if got := w.raw.LLen(w.ctx, n.buckets[0].keys.base+"feed").Val(); got == 0 || int(got) > most {
		t.Errorf("%d batches wait, at most %d may", got, most)
	}
	if said := told(); len(said) == 0 || said[0] != "reset _all" {
		t.Errorf("told first: %q", said[:min(len(said), 3)])
	}
}
