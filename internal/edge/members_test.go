package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// fakeRoster answers with what was asked, unless it is broken.
type fakeRoster struct {
	hub.Roster
	mu     sync.Mutex
	asked  []string
	broken error
}

func (f *fakeRoster) note(format string, a ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf(format, a...))
	return f.broken
}

func (f *fakeRoster) Members(_ context.Context, q hub.MembersQuery) (protocol.Members, error) {
	err := f.note("members %+v", q)
	return protocol.Members{Users: []protocol.Member{{ID: "ann", Role: protocol.RoleViewer, Since: 5, Devices: 2}}, Generation: "7"}, err
}

func (f *fakeRoster) RoomsOf(_ context.Context, user, cursor string, limit int) (protocol.UserRooms, error) {
	err := f.note("rooms of %s %s %d", user, cursor, limit)
	return protocol.UserRooms{Rooms: []protocol.UserRoom{{Room: "r", Since: 1}, {Room: "secret", Since: 2}}}, err
}

func (f *fakeRoster) Nodes(_ context.Context, room string, users []string) ([]int, error) {
	return make([]int, len(users)), f.note("nodes %s %v", room, users)
}

func (f *fakeRoster) Rooms(_ context.Context, q hub.RoomsQuery) (protocol.Rooms, error) {
	err := f.note("rooms %+v", q)
	return protocol.Rooms{Rooms: []protocol.RoomUsers{{Room: "r", Users: 3}}}, err
}

func (f *fakeRoster) Distinct(_ context.Context, room string, n int64) (*protocol.Distinct, error) {
	return &protocol.Distinct{Broadcast: n, Users: 9, Exact: true}, f.note("distinct %s %d", room, n)
}

// bearer is the header with a token for a user of the site.
func bearer(t *testing.T, id string, role protocol.Role, rooms ...string) []string {
	t.Helper()
	token, err := auth.Mint([]byte(strings.Repeat("t", 32)), auth.Claims{Subject: id, Role: role, Rooms: rooms}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"Authorization", "Bearer " + token}
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	var v json.RawMessage
	if err := json.NewDecoder(res.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	return string(v)
}

// Who may list what.
func TestWhoMayList(t *testing.T) {
	t.Parallel()
	people := map[string][]string{
		"guest":       nil,
		"viewer":      bearer(t, "v", protocol.RoleViewer, "r"),
		"monitor":     bearer(t, "n", protocol.RoleMonitor, "r"),
		"moderator":   bearer(t, "m", protocol.RoleModerator, "r"),
		"back end":    bearer(t, "b", protocol.RoleBroadcaster, "*"),
		"of another":  bearer(t, "o", protocol.RoleModerator, "other"),
		"no token":    {"Authorization", "Bearer x"},
		"two of them": bearer(t, "w", protocol.RoleModerator, "r", "other"),
	}
	const members, of, hottest = "/v1/rooms/r/viewers", "/v1/users/ann/rooms", "/v1/rooms?sort=users"
	for name, c := range map[string]struct {
		everyone bool
		want     map[string]string // person → statuses of the three
	}{
		"the staff": {false, map[string]string{
			"guest": "403 401 401", "viewer": "403 403 403", "monitor": "200 200 200", "moderator": "200 200 200", "back end": "200 200 200",
			"of another": "401 200 200", "no token": "401 401 401", "two of them": "200 200 200",
		}},
		"everyone": {true, map[string]string{
			"guest": "200 401 401", "viewer": "200 403 403", "monitor": "200 200 200", "moderator": "200 200 200", "back end": "200 200 200",
			"of another": "401 200 200", "no token": "401 401 401", "two of them": "200 200 200",
		}},
	} {
		ask, _ := site(t, func(cfg *Config) { cfg.Roster, cfg.Members = &fakeRoster{}, c.everyone })
		for who, want := range c.want {
			var got []string
			for _, path := range []string{members, of, hottest} {
				res := ask("GET", path, people[who]...)
				got = append(got, fmt.Sprint(res.StatusCode))
				if res.StatusCode == http.StatusOK && res.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: %s may be cached", who, path)
				}
			}
			if strings.Join(got, " ") != want {
				t.Errorf("%s may list: %s gets %v, want %s", name, who, got, want)
			}
		}
	}
}

// The state of a room may let its audience list who is there.
func TestStateLetsTheAudienceList(t *testing.T) {
	t.Parallel()
	ask, _ := site(t, func(cfg *Config) {
		cfg.Roster = &fakeRoster{}
		cfg.Log.(*knowing).state = hub.State{Rev: 3, Body: []byte(`{"status":"live","members":true,"broadcast":4}`)}
	})
	res := ask("GET", "/v1/rooms/r/viewers")
	const want = `{"users":[{"id":"ann","role":"viewer","since":5,"devices":2}],"generation":"7","distinct":{"broadcast":4,"users":9,"exact":true}}`
	if got := body(t, res); res.StatusCode != http.StatusOK || got != want {
		t.Errorf("%s %s, want %s", res.Status, got, want)
	}
	if res := ask("GET", "/v1/users/ann/rooms"); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("the rooms of a user: %s", res.Status)
	}
}

// A token shows the rooms that it is for, and no others.
func TestListsCoverTheToken(t *testing.T) {
	t.Parallel()
	roster := &fakeRoster{}
	ask, _ := site(t, func(cfg *Config) { cfg.Roster = roster })
	for _, c := range []struct {
		header         []string
		of, hottest, q string
	}{
		{bearer(t, "m", protocol.RoleModerator, "r"), `{"rooms":[{"room":"r","since":1}]}`, `{"rooms":[{"room":"r","users":3}]}`, "Among:[r]"},
		{bearer(t, "b", protocol.RoleModerator, "*"), `{"rooms":[{"room":"r","since":1},{"room":"secret","since":2}]}`, `{"rooms":[{"room":"r","users":3}]}`, "Among:[]"},
	} {
		if got := body(t, ask("GET", "/v1/users/ann/rooms", c.header...)); got != c.of {
			t.Errorf("the rooms of ann are %s, want %s", got, c.of)
		}
		if got := body(t, ask("GET", "/v1/rooms?sort=users", c.header...)); got != c.hottest {
			t.Errorf("the hottest are %s, want %s", got, c.hottest)
		}
		if last := roster.asked[len(roster.asked)-1]; !strings.Contains(last, c.q) {
			t.Errorf("asked for %s, want %s", last, c.q)
		}
	}
}

func TestListParameters(t *testing.T) {
	t.Parallel()
	roster := &fakeRoster{}
	ask, _ := site(t, func(cfg *Config) { cfg.Roster = roster })
	staff := bearer(t, "m", protocol.RoleModerator, "*")
	for path, detail := range map[string]string{
		"/v1/rooms/r/viewers?limit=0":                      "limit must be",
		"/v1/rooms/r/viewers?limit=1001":                   "limit must be",
		"/v1/rooms/r/viewers?limit=5&limit=5":              "limit appears twice",
		"/v1/rooms/r/viewers?cursor=%3F":                   "cursor must be",
		"/v1/rooms/r/viewers?leaving=yes":                  "leaving must be",
		"/v1/rooms?limit=5":                                "sort is missing",
		"/v1/rooms?sort=name":                              "sort must be users",
		"/v1/users/" + strings.Repeat("x", 257) + "/rooms": "the path has no id",
	} {
		res := ask("GET", path, staff...)
		if got := body(t, res); res.StatusCode != http.StatusBadRequest || !strings.Contains(got, detail) {
			t.Errorf("%s: %s %s", path, res.Status, got)
		}
	}
	ask("GET", "/v1/rooms/r/viewers?limit=7&cursor=abc&leaving=1&other=1", staff...)
	if want := "members {Room:r Cursor:abc Limit:7 Leaving:true}"; roster.asked[0] != want {
		t.Errorf("asked for %q, want %q", roster.asked, want)
	}
	roster.broken = hub.ErrCursor
	if res := ask("GET", "/v1/rooms/r/viewers?cursor=abcd", staff...); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a cursor of another list: %s", res.Status)
	}
}

// The same page is read once a second, and shown as stale while Redis is away.
func TestStaleLists(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		roster := &fakeRoster{}
		ask, _ := site(t, func(cfg *Config) { cfg.Roster = roster })
		staff := bearer(t, "m", protocol.RoleModerator, "*")
		const path = "/v1/rooms/r/viewers"
		for range 3 {
			body(t, ask("GET", path, staff...))
		}
		if len(roster.asked) != 1 {
			t.Errorf("read %d times within a second", len(roster.asked))
		}
		for range 3 { // what joins and leaves are added to is never older than they
			body(t, ask("GET", path+"?leaving=1", staff...))
		}
		if len(roster.asked) != 4 {
			t.Errorf("with those who are leaving it was read %d times", len(roster.asked)-1)
		}
		roster.broken = errors.New("redis is away")
		time.Sleep(5 * time.Second)
		const want = `{"age_ms":5000,"generation":"7","stale":true,"users":[{"id":"ann","role":"viewer","since":5,"devices":2}]}`
		if got := body(t, ask("GET", path, staff...)); got != want {
			t.Errorf("while redis is away: %s, want %s", got, want)
		}
		res := ask("GET", path+"?limit=9", staff...)
		if got := body(t, res); res.StatusCode != http.StatusServiceUnavailable || !strings.Contains(got, "redis does not answer") || res.Header.Get("Retry-After") != "1" {
			t.Errorf("what was never read: %s %s", res.Status, got)
		}
		roster.broken = nil
		if got := body(t, ask("GET", path, staff...)); strings.Contains(got, "stale") {
			t.Errorf("when it is back: %s", got)
		}
	})
}

// Pages that are kept are bounded.
func TestListsAreBounded(t *testing.T) {
	t.Parallel()
	l := newLister()
	for i := range 3 * listsKept {
		if _, _, _, err := l.get(t.Context(), fmt.Sprint(i), listFresh, func(context.Context) (any, error) { return i, nil }); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.pages) != listsKept || l.order.Len() != listsKept {
		t.Errorf("%d pages are kept", len(l.pages))
	}
}
