package moderation

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/kansei-live/kansei/hub"
)

// entryPrefix is what the names of entries of acts for all rooms begin with.
const entryPrefix = "sanction."

// AllRooms stands for a room where a user is hashed for all of them, and in the log of moderation. It is no room's name.
const AllRooms = "_all"

// everywhere is the acts for all rooms that count.
type everywhere struct {
	mu    sync.RWMutex
	acts  map[string]hub.Act
	users map[string]map[string]bool // the hash of a user → ids of acts
}

// Entry is an entry that all nodes have in memory.
type Entry struct {
	Name string
	Body []byte
}

// Apply takes entries in; anew says that these are all there are. Those of others are passed over.
func (d *Desk) Apply(entries []Entry, anew bool) {
	var changed []hub.Act
	w := &d.everywhere
	w.mu.Lock()
	if anew || w.acts == nil {
		w.acts, w.users = map[string]hub.Act{}, map[string]map[string]bool{}
	}
	for _, e := range entries {
		id, is := strings.CutPrefix(e.Name, entryPrefix)
		var rec hub.Record
		if !is || json.Unmarshal(e.Body, &rec) != nil || rec.Act.ID != id {
			continue
		}
		a := rec.Act
		if rec.Undo != nil {
			delete(w.acts, id)
			delete(w.users[a.Hash], id)
			if len(w.users[a.Hash]) == 0 {
				delete(w.users, a.Hash)
			}
		} else {
			w.acts[id] = a
			if w.users[a.Hash] == nil {
				w.users[a.Hash] = map[string]bool{}
			}
			w.users[a.Hash][id] = true
		}
		changed = append(changed, a)
	}
	w.mu.Unlock()
	if len(changed) > 0 && d.cfg.Changed != nil {
		d.cfg.Changed(changed)
	}
}

// Everywhere returns the acts for all rooms that are in force and concern a user.
func (d *Desk) Everywhere(user string) (acts []hub.Act) {
	w := &d.everywhere
	w.mu.RLock()
	defer w.mu.RUnlock()
	if len(w.users) == 0 {
		return nil
	}
	now := d.cfg.Log.Now().UnixMilli()
	for id := range w.users[d.HashEverywhere(user)] {
		if a := w.acts[id]; a.Ends == 0 || now < a.Ends {
			acts = append(acts, a)
		}
	}
	return acts
}

// ActEverywhere returns an act for all rooms that counts.
func (d *Desk) ActEverywhere(id string) (hub.Act, bool) {
	w := &d.everywhere
	w.mu.RLock()
	defer w.mu.RUnlock()
	a, is := w.acts[id]
	return a, is
}

// HashEverywhere stands for a user in acts for all rooms.
func (d *Desk) HashEverywhere(user string) string { return d.cfg.Log.UserHash(AllRooms, user) }

// DoEverywhere does an act for all rooms. It is in force on this node when it returns, and on every
// other one within a second. Its errors are those of [Desk.Do].
func (d *Desk) DoEverywhere(ctx context.Context, a *hub.Act) error {
	life := d.life(a)
	if a.Ends > 0 {
		life -= d.cfg.Log.KeepFor() // each room has an act of its own, which hides
	}
	return d.put(ctx, hub.Record{Act: *a}, life)
}

// UndoEverywhere does an act that undoes others for all rooms. What these have done in rooms is undone
// where [Desk.Undo] does it.
func (d *Desk) UndoEverywhere(ctx context.Context, u *hub.Act) error {
	for _, id := range u.Undoes {
		if a, is := d.ActEverywhere(id); is {
			if err := d.put(ctx, hub.Record{Act: a, Undo: u}, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Desk) put(ctx context.Context, rec hub.Record, life time.Duration) error {
	body, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("moderation: %w: %w", hub.ErrUnavailable, err)
	}
	if err := d.cfg.Put(ctx, entryPrefix+rec.Act.ID, body, life); err != nil {
		return fmt.Errorf("moderation: %w", err)
	}
	if err := d.write(ctx, AllRooms, &rec); err != nil { // whoever has asked tries again
		return fmt.Errorf("moderation: %w: %w", hub.ErrUnknownOutcome, err)
	}
	return nil
}
