package redispresence

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// listsAreTrue compares what the lists say with what is true.
func (w *world) listsAreTrue(actors []*actor) {
	w.t.Helper()
	reader := actors[0]
	heats, in := map[string]int{}, map[string]map[string]bool{}
	for _, room := range w.rooms {
		devices, names := map[string]int{}, map[string]map[string]bool{}
		for _, a := range actors {
			for u, n := range a.conns[room] {
				devices[u] += n
				if names[u] == nil {
					names[u] = map[string]bool{}
				}
				names[u][a.names[room][u]] = true
				if in[u] == nil {
					in[u] = map[string]bool{}
				}
				in[u][room] = true
			}
		}
		if len(devices) > 0 {
			heats[room] = len(devices)
		}
		listed := map[string]bool{}
		for _, m := range walk(w.t, reader.node, room, 7) {
			if listed[m.ID] {
				w.t.Errorf("room %s lists %s twice", room, m.ID)
			}
			listed[m.ID] = true
			if m.Devices != devices[m.ID] || !names[m.ID][m.Name] || m.Role != protocol.RoleModerator || m.Since <= 0 || m.Since > w.now.UnixMilli() {
				w.t.Errorf("room %s lists %+v; true are %d devices of %v, now is %d", room, m, devices[m.ID], names[m.ID], w.now.UnixMilli())
			}
		}
		if len(listed) != len(devices) {
			w.t.Errorf("room %s lists %d users of %d", room, len(listed), len(devices))
		}
	}
	for u, rooms := range in {
		var listed []string
		for cursor := ""; ; {
			page, err := reader.RoomsOf(w.ctx, u, cursor, 2)
			if err != nil {
				w.t.Fatal(err)
			}
			for _, r := range page.Rooms {
				listed = append(listed, r.Room)
			}
			if cursor = page.Cursor; cursor == "" {
				break
			}
		}
		if !slices.Equal(listed, slices.Sorted(maps.Keys(rooms))) {
			w.t.Errorf("%s is in %v, listed are %v", u, slices.Sorted(maps.Keys(rooms)), listed)
		}
	}
	last, listed := 1<<30, map[string]int{}
	for cursor := ""; ; {
		page, err := reader.Rooms(w.ctx, hub.RoomsQuery{Cursor: cursor, Limit: 2})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range page.Rooms {
			if r.Users > last {
				w.t.Errorf("%v is behind a room with %d users", r, last)
			}
			last = r.Users
			if r.Users > 0 {
				listed[r.Room] = r.Users
			}
		}
		if cursor = page.Cursor; cursor == "" {
			break
		}
	}
	if !maps.Equal(listed, heats) {
		w.t.Errorf("the hottest rooms are %v, listed are %v", heats, listed)
	}
}

// walk returns all members of a room, page by page.
func walk(t *testing.T, n *node, room string, limit int) (all []protocol.Member) {
	t.Helper()
	for cursor := ""; ; {
		page, err := n.Members(context.Background(), hub.MembersQuery{Room: room, Cursor: cursor, Limit: limit})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Users) > limit {
			t.Errorf("a page has %d users, at most %d were asked for", len(page.Users), limit)
		}
		all = append(all, page.Users...)
		if cursor = page.Cursor; cursor == "" {
			return all
		}
	}
}
