package edge

import (
	"net/url"
	"slices"
	"strings"
	"sync"
	"unicode"

	"go.mau.fi/util/confusable"
	"golang.org/x/text/unicode/norm"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// maxStaffNames bounds what is kept of the names of the staff of a room: three texts of each.
	maxStaffNames = 192
	// maxNamedRooms bounds the rooms of which names are kept.
	maxNamedRooms = 10_000
	// shownID is how much of an id stands behind a name that could be another's.
	shownID = 6
	// maxAvatar is how long the address of a picture may be, in bytes.
	maxAvatar = 512
)

// StaffNames knows the names of the staff of rooms, as far as this node has met them: who is
// connected to it, and who has said something that it has followed. A viewer whose name looks like
// one of them is marked, and nobody is refused for a name.
type StaffNames struct {
	mu    sync.Mutex
	rooms map[string]map[string]string // room → a name, and how it looks → the id of who has it
}

// Spoke notes that one of the staff of a room has said something, or is connected.
func (n *StaffNames) Spoke(room string, who protocol.User) {
	n.mu.Lock()
	names := n.rooms[room]
	known := names[who.Name] == who.ID // as it is written, so that nothing need be made of it again
	n.mu.Unlock()
	if known || who.Name == "" {
		return
	}
	looks := looksOf(who.Name)
	n.mu.Lock()
	defer n.mu.Unlock()
	if names = n.rooms[room]; names == nil {
		if n.rooms == nil || len(n.rooms) >= maxNamedRooms {
			n.rooms = map[string]map[string]string{} // they come again with what is said
		}
		names = map[string]string{}
		n.rooms[room] = names
	}
	for _, look := range append(looks, who.Name) {
		if len(names) < maxStaffNames && look != "" {
			names[look] = who.ID
		}
	}
}

// confusable reports whether the name of somebody who is no staff looks like one of theirs.
func (n *StaffNames) confusable(room string, p *identity) bool {
	if n == nil || p.role.Staff() || p.backEnd || p.name == "" {
		return false
	}
	n.mu.Lock()
	empty := len(n.rooms[room]) == 0
	n.mu.Unlock()
	if empty {
		return false
	}
	looks := looksOf(p.name)
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.ContainsFunc(looks, func(look string) bool {
		id, is := n.rooms[room][look]
		return is && id != p.id
	})
}

// looksOf are texts of which names that look alike have one in common: the skeletons of Unicode's
// UTS 39, of the name as it is written and in lower case, without what does not show.
func looksOf(name string) []string {
	visible := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || unicode.IsPunct(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, norm.NFKC.String(name))
	if visible == "" {
		return nil
	}
	return []string{
		strings.ToLower(confusable.Skeleton(visible)),
		strings.ToLower(confusable.Skeleton(strings.ToLower(visible))),
	}
}

// author is somebody as the author of a comment.
func (s *Server) author(room string, p *identity) protocol.User {
	u := protocol.User{ID: p.id, Name: p.name, Role: p.role, Avatar: p.avatar}
	if s.cfg.Staff.confusable(room, p) {
		u.Confusable = true
		id := []rune(p.id)
		if s.cfg.Pseudonyms != nil {
			id = []rune(s.cfg.Pseudonyms.Of(room, p.id))
		}
		if len(id) > shownID {
			id = id[len(id)-shownID:]
		}
		u.Name += " (" + string(id) + ")"
	}
	return u
}

// avatar returns the address of a picture if viewers may be sent there; empty otherwise: whoever has
// the host learns the addresses of all viewers.
func (s *Server) avatar(address string) string {
	if address == "" || len(address) > maxAvatar || len(s.cfg.AvatarHosts) == 0 {
		return ""
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.User != nil || !slices.Contains(s.cfg.AvatarHosts, strings.ToLower(u.Host)) {
		return ""
	}
	return u.String()
}
