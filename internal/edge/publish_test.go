package edge

import (
	"testing"

	"github.com/kansei-live/kansei/protocol"
)

// The id of a draft is that of the request: what may change between two tries does not
// make another one, and what was sent does.
func TestDraftID(t *testing.T) {
	t.Parallel()
	media := func(ms int64) *int64 { return &ms }
	first := func() comment {
		return comment{
			room: "r", session: "s", person: &person{id: "u", name: "old name", role: protocol.RoleViewer, comment: true},
			req: &protocol.CommentRequest{Ref: "1", Text: " a  b ", MediaMS: media(5), Style: &protocol.Style{Color: "#ff0000"}},
		}
	}
	want := draftID(first())
	for name, change := range map[string]func(*comment){
		"name": func(c *comment) { c.person.name = "new name" },
		"role": func(c *comment) { c.person.role = protocol.RoleModerator },
		"may":  func(c *comment) { c.person.comment = false },
	} {
		c := first()
		if change(&c); draftID(c) != want {
			t.Errorf("another %s makes another comment", name)
		}
	}
	ids := map[string]string{want: "the first"}
	for name, change := range map[string]func(*comment){
		"room":       func(c *comment) { c.room = "q" },
		"session":    func(c *comment) { c.session = "t" },
		"user":       func(c *comment) { c.person.id = "v" },
		"author":     func(c *comment) { c.author = &protocol.User{ID: "w"} },
		"ref":        func(c *comment) { c.req.Ref = "2" },
		"text":       func(c *comment) { c.req.Text = "a b" },
		"place":      func(c *comment) { c.req.MediaMS = media(6) },
		"no place":   func(c *comment) { c.req.MediaMS = nil },
		"place 0":    func(c *comment) { c.req.MediaMS = media(0) },
		"color":      func(c *comment) { c.req.Style.Color = "#00ff00" },
		"size":       func(c *comment) { c.req.Style.Size = "big" },
		"position":   func(c *comment) { c.req.Style.Position = "top" },
		"no style":   func(c *comment) { c.req.Style = nil },
		"no ref":     func(c *comment) { c.req.Ref = "" },
		"no ref yet": func(c *comment) { c.req.Ref = "" },
	} {
		c := first()
		change(&c)
		id := draftID(c)
		if before, there := ids[id]; there {
			t.Errorf("%s: the same as %s", name, before)
		}
		ids[id] = name
	}
}
