package natslog

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/moderation"
	"github.com/kansei-live/kansei/protocol"
)

// A backup does not know of acts that were done since. A node that was there does, and writes their
// records again: what they hide of what is left stays hidden, on nodes that come later too, and what
// is new has nothing to do with them.
func TestActThenRestore(t *testing.T) {
	t.Parallel()
	s := startRestorable(t)
	l := openReady(t, Config{URLs: urls(s.Server)})
	desk := moderation.New(moderation.Config{Log: l, Entries: l, Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(desk.Close)
	h := startHub(t, l, func(c *hub.Config) { c.Finish = desk.Finish })
	stays := join(t, h, "r", "")
	spam := say(t, l, "r", "spam")
	say(t, l, "r", "fine")
	eventually(t, 10*time.Second, "it is shown", func() error { return stays.has("spam", "fine") })
	backup := s.backUp(t)
	reconnected(t, l, 1)

	mod := protocol.User{ID: "mod", Role: protocol.RoleModerator}
	now := l.Now().UnixMilli()
	for _, a := range []hub.Act{
		{ID: "remove", Kind: protocol.TypeRemove, By: mod, At: now, IDs: []string{hub.CommentID(spam, "r-spam")}},
		{ID: "ban", Kind: protocol.TypeBan, By: mod, At: now, User: "eve", Hash: l.UserHash("r", "eve")},
	} {
		if _, err := desk.Do(testContext(t), "r", &a); err != nil {
			t.Fatal(err)
		}
	}
	banned := func(h *hub.Hub) error {
		acts, known := h.Find("r").UserActs("eve")
		if !known || len(acts) != 1 || acts[0].ID != "ban" {
			return fmt.Errorf("%v, %v", acts, known)
		}
		return nil
	}
	eventually(t, 10*time.Second, "the ban is in force", func() error { return banned(h) })

	s.restore(t, backup, nil)
	reconnected(t, l, 2)
	say(t, l, "r", "new")
	eventually(t, 20*time.Second, "what is new is shown", func() error { return stays.has("new") })
	eventually(t, 10*time.Second, "the ban is in force after the restore", func() error { return banned(h) })
	eventually(t, time.Minute, "the records are written again", func() error {
		for _, id := range []string{"remove", "ban"} {
			if got, err := l.Kept(testContext(t), "r", id); err != nil || got.Seq == 0 {
				return fmt.Errorf("%s: %+v, %w", id, got, err)
			}
		}
		return nil
	})
	later := openReady(t, Config{URLs: urls(s.Server)})
	fresh := startHub(t, later, nil)
	comes := join(t, fresh, "r", "")
	eventually(t, 10*time.Second, "who comes later sees what is not hidden", func() error { return comes.saw(false, "fine", "new") })
	if err := banned(fresh); err != nil {
		t.Errorf("the ban on a node that comes later: %v", err)
	}
}
