package archive

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/watchlog"
)

// Erased says what was erased of a person, store by store.
type Erased struct {
	User    string   `json:"user"`
	Stores  []Store  `json:"stores"`
	Remains []string `json:"remains"` // what this does not reach
}

// Store is what was erased in a store.
type Store struct {
	Name  string `json:"name"`
	Found int    `json:"found"`
	Note  string `json:"note,omitempty"`
}

// eraseTries is how often a batch is tried whose log is away.
const eraseTries = 5

// Erase takes a user out of the watch log, out of all archived broadcasts and the database, and has nothing of up to now be shaped of
// them any more. What they watch later is kept again: whoever is not to be kept at all must not come. The same call again goes on
// where it was broken off.
func Erase(ctx context.Context, cfg Config, user string) (Erased, error) {
	out := Erased{User: user, Remains: []string{
		"copies that back ends have taken: of files, of web hooks, of events in KANSEI_FEED (for a day)",
		"backups of NATS, of the object storage and of the database, as long as you keep them",
		"what the user has said (--log-max-age), what moderators have done about them (--moderation-keep), and presence in Redis (--presence-keep)",
		"totals: how many there were, which name nobody",
	}}
	log := cfg.Log
	now := log.Now().UnixMilli()
	key := erasedKey + "." + log.UserHash(everywhere, user)
	_, rev, err := log.Archived(ctx, key)
	if err == nil {
		err = log.PutArchived(ctx, key, []byte(strconv.FormatInt(now, 10)), rev, 0)
	}
	if err != nil {
		return out, err
	}
	out.Stores = append(out.Stores, Store{"what is shaped from now on", 1, "nodes know within 5 s"})

	rooms, err := log.WatchedRooms(ctx)
	if err != nil {
		return out, err
	}
	rows := 0
	for room := range rooms {
		n, err := eraseRows(ctx, log, room, user, now)
		if err != nil {
			return out, err
		}
		rows += n
	}
	out.Stores = append(out.Stores, Store{"the watch log (KANSEI_WATCH)", rows, "rows; their messages were overwritten, and written anew without them"})

	files, revisions, err := eraseFiles(ctx, cfg, user)
	if err != nil {
		return out, err
	}
	out.Stores = append(out.Stores, Store{"archived broadcasts", revisions, fmt.Sprintf("broadcasts have a new revision; %d files of earlier ones were deleted", files)})
	if cfg.DB != nil {
		n, err := cfg.DB.Erase(ctx, user)
		if err != nil {
			return out, err
		}
		out.Stores = append(out.Stores, Store{"the database", int(n), "rows that were there yet"})
	}
	return out, nil
}

// eraseRows takes a user's rows out of the batches of a room.
func eraseRows(ctx context.Context, log Log, room, user string, until int64) (rows int, err error) {
	type found struct {
		seq uint64
		b   *watchlog.Batch
	}
	var all []found
	theirs := map[string]map[uint32]bool{} // connections, by the life of the node
	_, err = log.Watched(ctx, room, 0, time.Time{}, func(seq uint64, body []byte) error {
		b, err := watchlog.Decode(body)
		if err != nil {
			return nil
		}
		all = append(all, found{seq, b})
		for _, r := range b.Rows {
			if r.User == user && r.From <= until {
				if theirs[b.Life] == nil {
					theirs[b.Life] = map[uint32]bool{}
				}
				theirs[b.Life][r.Conn] = true
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, f := range all {
		kept := f.b.Rows[:0:0]
		for _, r := range f.b.Rows {
			if !theirs[f.b.Life][r.Conn] {
				kept = append(kept, r)
			}
		}
		gone := len(f.b.Rows) - len(kept)
		if gone == 0 {
			continue
		}
		f.b.Rows = kept
		for try := 1; ; try++ {
			// Another id than that of the batch, and than that of an earlier erasure.
			err = log.ReplaceWatched(ctx, room, f.seq, fmt.Sprintf("%s/erased/%d", f.b.ID(room), f.seq), f.b.Encode())
			if err == nil || try == eraseTries || !errors.Is(err, hub.ErrUnavailable) {
				break
			}
			time.Sleep(time.Duration(try) * 200 * time.Millisecond)
		}
		if err != nil {
			return rows, err
		}
		rows += gone
	}
	return rows, nil
}

// eraseFiles has archived broadcasts that have a user be written without, and what there was before be deleted.
func eraseFiles(ctx context.Context, cfg Config, user string) (files, revisions int, err error) {
	if cfg.Files == nil {
		return 0, 0, nil
	}
	w := NewWorker(cfg)
	all, err := records(ctx, cfg.Log, "*")
	if err != nil {
		return 0, 0, err
	}
	for i := range all {
		rec := &all[i]
		s, err := cfg.Files.read(ctx, rec)
		if err != nil {
			return files, revisions, err
		}
		if without(s, user) {
			next, err := w.reviseAlone(ctx, rec, s)
			if err != nil {
				return files, revisions, err
			}
			rec = next
			revisions++
		}
		// Also those of earlier revisions, which have them perhaps.
		prefixes, err := cfg.Files.revisions(ctx, rec.Room, rec.Broadcast)
		if err != nil {
			return files, revisions, err
		}
		for _, p := range prefixes {
			if p == rec.Prefix {
				continue
			}
			old := *rec
			old.Prefix = p
			had, err := cfg.Files.read(ctx, &old)
			if err == nil && !without(had, user) {
				continue
			}
			n, err := cfg.Files.forget(ctx, p)
			if err != nil {
				return files, revisions, err
			}
			files += n
		}
	}
	return files, revisions, nil
}

// without takes a user out of a broadcast, and reports whether they were in it. The totals stay: they name nobody.
func without(s *Shaped, user string) (was bool) {
	users, intervals := s.Users[:0:0], s.Intervals[:0:0]
	for _, u := range s.Users {
		if u.ID != user {
			users = append(users, u)
		}
	}
	for _, i := range s.Intervals {
		if i.User != user {
			intervals = append(intervals, i)
		}
	}
	was = len(users) < len(s.Users) || len(intervals) < len(s.Intervals)
	s.Users, s.Intervals = users, intervals
	return was
}

// reviseAlone writes a revision of what was erased, and waits for others who shape the same broadcast.
func (w *Worker) reviseAlone(ctx context.Context, rec *Record, s *Shaped) (*Record, error) {
	for {
		fresh, err := record(ctx, w.cfg.Log, keyOf(rec.Room, rec.Broadcast))
		if err != nil {
			return nil, err
		}
		if fresh.rev != rec.rev {
			return nil, fmt.Errorf("archive: %s was revised meanwhile: the same command again goes on", keyOf(rec.Room, rec.Broadcast))
		}
		next, err := w.revise(ctx, rec, s, rec.Final)
		if err != nil || next != nil {
			return next, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// Exported is what is kept of a user.
type Exported struct {
	User       string              `json:"user"`
	Broadcasts []ExportedBroadcast `json:"broadcasts"`
}

// ExportedBroadcast is what is kept of a user in a broadcast.
type ExportedBroadcast struct {
	Room      string              `json:"room"`
	Broadcast string              `json:"broadcast"`
	Revision  int                 `json:"revision,omitempty"` // left out: it is not archived
	BeganAt   int64               `json:"began_at"`
	EndedAt   int64               `json:"ended_at,omitempty"`
	Whole     watchlog.User       `json:"whole"`
	Intervals []watchlog.Interval `json:"intervals"`
}

// Export gives a user what is kept of them: of archived broadcasts, and of those that are not yet.
func Export(ctx context.Context, cfg Config, user string) (Exported, error) {
	out := Exported{User: user, Broadcasts: []ExportedBroadcast{}}
	add := func(s *Shaped, revision int) {
		for _, u := range s.Users {
			if u.ID != user {
				continue
			}
			e := ExportedBroadcast{Room: s.Summary.Room, Broadcast: s.Summary.Broadcast, Revision: revision, BeganAt: s.Summary.BeganAt, EndedAt: s.Summary.EndedAt, Whole: u}
			for _, i := range s.Intervals {
				if i.User == user {
					e.Intervals = append(e.Intervals, i)
				}
			}
			out.Broadcasts = append(out.Broadcasts, e)
		}
	}
	archived := map[string]bool{}
	if cfg.Files != nil {
		all, err := records(ctx, cfg.Log, "*")
		if err != nil {
			return out, err
		}
		for i := range all {
			s, err := cfg.Files.read(ctx, &all[i])
			if err != nil {
				return out, err
			}
			archived[keyOf(all[i].Room, all[i].Broadcast)] = true
			add(s, all[i].Revision)
		}
	}
	rooms, err := cfg.Log.WatchedRooms(ctx)
	if err != nil {
		return out, err
	}
	for room := range rooms {
		if strings.HasPrefix(room, "_") {
			continue
		}
		k := cfg.Reader.hold(room)
		all, err := cfg.Reader.broadcasts(ctx, room, k, true)
		k.mu.Unlock()
		if err != nil {
			return out, err
		}
		for _, b := range all {
			if archived[keyOf(room, b.ID)] {
				continue
			}
			s, err := cfg.Reader.Shape(ctx, room, b.ID)
			if errors.Is(err, ErrNoBroadcast) {
				continue
			}
			if err != nil {
				return out, err
			}
			add(s, 0)
		}
	}
	return out, nil
}
