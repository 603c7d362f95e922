package edge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/protocol"
)

// Whoever looks like one of the staff is marked, with part of the id; the staff, and others, are not.
func TestConfusableNames(t *testing.T) {
	t.Parallel()
	names := &StaffNames{}
	s := &Server{cfg: Config{Staff: names}}
	viewer := func(name string) *identity {
		return &identity{id: "user-123456", name: name, role: protocol.RoleViewer}
	}
	if u := s.author("r", viewer("Ms. Bell")); u.Confusable {
		t.Error("before any of the staff was met")
	}
	names.Spoke("r", protocol.User{ID: "boss", Name: "Ms. Bell", Role: protocol.RoleBroadcaster})
	names.Spoke("r", protocol.User{ID: "mod", Name: "先生", Role: protocol.RoleModerator})
	names.Spoke("r", protocol.User{ID: "none", Role: protocol.RoleModerator})
	for name, want := range map[string]bool{
		"Ms. Bell": true, "ms bell": true, "MS. BELL": true, "Ms. Be11": true, "Мs. Веll": true, "M s . B e l l": true, "Ms.\u200bBell": true, "𝐌𝐬. 𝐁𝐞𝐥𝐥": true, "先生": true, "先 生": true,
		"Mr. Bell": false, "Bell": false, "": false, "先生方": false, "...": false,
	} {
		u := s.author("r", viewer(name))
		if u.Confusable != want || want != strings.HasSuffix(u.Name, " (123456)") || !want && u.Name != name {
			t.Errorf("%q: %+v, want %v", name, u, want)
		}
	}
	if u := s.author("other", viewer("Ms. Bell")); u.Confusable {
		t.Error("in another room")
	}
	for _, p := range []*identity{{id: "boss2", name: "Ms. Bell", role: protocol.RoleModerator}, {id: "boss", name: "Ms. Bell", role: protocol.RoleViewer}} {
		if u := s.author("r", p); u.Confusable {
			t.Errorf("%+v is marked", p)
		}
	}
	// Whatever rooms and names there are, what is kept is bounded.
	for i := range maxNamedRooms + 10 {
		names.Spoke(fmt.Sprint("r", i), protocol.User{ID: "x", Name: "x"})
	}
	for i := range 2 * maxStaffNames {
		names.Spoke("many", protocol.User{ID: fmt.Sprint(i), Name: strings.Repeat("x", i+1)})
	}
	if len(names.rooms) > maxNamedRooms || len(names.rooms["many"]) != maxStaffNames {
		t.Errorf("%d rooms, %d names are kept", len(names.rooms), len(names.rooms["many"]))
	}
}

func FuzzLooks(f *testing.F) {
	f.Add("Ms. Bell")
	f.Add("\u202e先生\xff")
	f.Fuzz(func(t *testing.T, name string) {
		names := &StaffNames{}
		names.Spoke("r", protocol.User{ID: "boss", Name: name})
		names.confusable("r", &identity{id: "u", name: name, role: protocol.RoleViewer})
		if len(names.rooms["r"]) > 3 {
			t.Errorf("%q is kept as %q", name, names.rooms["r"])
		}
	})
}

// Pictures are on hosts that are allowed, or left out.
func TestAvatars(t *testing.T) {
	t.Parallel()
	s := &Server{cfg: Config{AvatarHosts: []string{"img.example", "img.example:8443"}}}
	for address, want := range map[string]bool{
		"https://img.example/a.png": true, "https://IMG.example/a.png?s=64": true, "https://img.example:8443/a": true,
		"http://img.example/a.png": false, "https://evil.example/a.png": false, "https://u:p@img.example/": false, "https://img.example.evil/": false,
		"javascript:alert(1)": false, "//img.example/a": false, "https://img.example/" + strings.Repeat("a", 600): false, "": false, "https://img.example:444/": false,
	} {
		if got := s.avatar(address); (got != "") != want {
			t.Errorf("%.60s: %q", address, got)
		}
	}
	if got := (&Server{}).avatar("https://img.example/a.png"); got != "" {
		t.Errorf("without allowed hosts: %q", got)
	}
}
