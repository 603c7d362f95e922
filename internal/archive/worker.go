package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
)

// Config is what a [Worker] is made of.
type Config struct {
	Log    Log
	Reader *Reader
	Files  *Files
	DB     *Database // nil: there is none
	Hook   *Hook     // nil: nobody is called

	// Settle is how long behind the end of a broadcast its first revision is made at the latest, and Late how long behind it rows
	// may come. Poll is how often it is looked what there is to do.
	Settle, Late, Poll time.Duration
	// Keep is how long behind its end a broadcast is kept; 0: for good.
	Keep time.Duration
	// Lease is how long a worker may be silent that shapes a broadcast, before another one does; 0 for a minute.
	Lease time.Duration

	Metrics *Metrics
	Logger  *slog.Logger
}

const (
	leaseLife = time.Minute
	// whileLive is how often it is looked whether a broadcast has ended.
	whileLive = 5 * time.Second
	// again is how long after a revision the next one of the same broadcast comes at the soonest.
	again = time.Minute
	// expireEvery is how often it is looked which broadcasts are not kept any more.
	expireEvery = time.Hour
	// mostTaken is how many folders of revisions may be taken by files of workers that were killed.
	mostTaken = 1000
)

// Worker shapes broadcasts that have ended.
type Worker struct {
	cfg  Config
	id   string
	seen map[string]uint64    // batches of a room when it was looked at last
	open map[string]time.Time // rooms with something to do later; when
	kept time.Time            // when it was looked last what is not kept any more
	live map[string]uint64    // rooms of which that is all: a broadcast runs; the revision of their states
}

// NewWorker makes a Worker.
func NewWorker(cfg Config) *Worker {
	if cfg.Lease == 0 {
		cfg.Lease = leaseLife
	}
	return &Worker{cfg: cfg, id: strconv.FormatUint(rand.Uint64(), 36), seen: map[string]uint64{}, open: map[string]time.Time{}, live: map[string]uint64{}}
}

// Run works until ctx ends.
func (w *Worker) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	told := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		err := w.round(ctx)
		w.cfg.Metrics.up.Set(flag(err == nil))
		if err != nil && ctx.Err() == nil {
			w.cfg.Metrics.errors.Inc()
			if time.Since(told) > time.Minute {
				told = time.Now()
				w.cfg.Logger.Warn("broadcasts are not archived at the moment", "error", err)
			}
		}
		timer.Reset(w.cfg.Poll + rand.N(w.cfg.Poll/2+1)) // so that several workers do not ask at once
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// round looks at every room that something has come of, or of which something is open.
func (w *Worker) round(ctx context.Context) error {
	rooms, err := w.cfg.Log.WatchedRooms(ctx)
	if err != nil {
		return err
	}
	var errs []error
	now := time.Now()
	for room, n := range rooms {
		due, open := w.open[room]
		if open && now.Before(due) || !open && w.seen[room] == n {
			continue
		}
		next, err := w.look(ctx, room)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		w.seen[room] = n
		if delete(w.open, room); next > 0 {
			w.open[room] = now.Add(next)
		}
	}
	for room := range w.open { // of which no rows are left
		if _, is := rooms[room]; !is {
			delete(w.open, room)
			delete(w.live, room)
		}
	}
	w.cfg.Metrics.open.Set(float64(len(w.open)))
	if w.cfg.Keep > 0 && now.Sub(w.kept) > expireEvery {
		w.kept = now
		errs = append(errs, w.expire(ctx))
	}
	return errors.Join(errs...)
}

// expire removes the broadcasts that are not kept any more: files, rows of the database, and last the record.
func (w *Worker) expire(ctx context.Context) error {
	all, err := records(ctx, w.cfg.Log, "*")
	if err != nil {
		return err
	}
	for i := range all {
		if rec := &all[i]; w.expired(rec.Ended) {
			if err := w.remove(ctx, rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// expired reports whether a broadcast that ended at a moment is not kept any more.
func (w *Worker) expired(ended int64) bool {
	return w.cfg.Keep > 0 && w.cfg.Log.Now().Sub(time.UnixMilli(ended)) > w.cfg.Keep
}

func (w *Worker) remove(ctx context.Context, rec *Record) error {
	key := keyOf(rec.Room, rec.Broadcast)
	leave, err := w.lease(ctx, key)
	if err != nil || leave == nil {
		return err
	}
	defer leave()
	prefixes, err := w.cfg.Files.revisions(ctx, rec.Room, rec.Broadcast)
	if err != nil {
		return err
	}
	for _, p := range prefixes {
		if _, err := w.cfg.Files.forget(ctx, p); err != nil {
			return err
		}
	}
	if w.cfg.DB != nil {
		if err := w.cfg.DB.Remove(ctx, rec.Room, rec.Broadcast); err != nil {
			return err
		}
	}
	if err := w.cfg.Log.ForgetArchived(ctx, key); err != nil {
		return err
	}
	w.cfg.Logger.Info("an archived broadcast was removed, as old as it is", "room", rec.Room, "broadcast", rec.Broadcast)
	return nil
}

// look does for a room what there is to do now, and returns after how long there may be more; 0: not before there are more
// rows. Of a room whose broadcast runs, and nothing else, it looks at the state alone.
func (w *Worker) look(ctx context.Context, room string) (next time.Duration, err error) {
	state, err := w.cfg.Log.State(ctx, room)
	if err != nil {
		return 0, err
	}
	if rev, live := w.live[room]; live && rev == state.Rev {
		return whileLive, nil
	}
	delete(w.live, room)
	if done, err := w.done(ctx, room, state); err != nil || done {
		return 0, err
	}
	r := w.cfg.Reader
	k := r.hold(room)
	all, err := r.broadcasts(ctx, room, k, true)
	k.mu.Unlock()
	if err != nil {
		return 0, err
	}
	later := func(d time.Duration) {
		if d = max(d, w.cfg.Poll); next == 0 || d < next {
			next = d
		}
	}
	live, others := false, false
	for _, b := range all {
		if b.Ended == 0 {
			live = true
			later(whileLive)
			continue
		}
		wait, err := w.see(ctx, b)
		if err != nil {
			return 0, err
		}
		if wait > 0 {
			others = true
			later(wait)
		}
	}
	if live && !others && stateOf(state).Broadcast > 0 {
		w.live[room] = state.Rev
	}
	return next, nil
}

// done reports whether all that is known of a room is archived and delivered, without reading its rows.
func (w *Worker) done(ctx context.Context, room string, state hub.State) (bool, error) {
	st := stateOf(state)
	if st.Broadcast == 0 || st.Status == protocol.StatusLive {
		return false, nil
	}
	all, err := records(ctx, w.cfg.Log, room)
	if err != nil {
		return false, err
	}
	now, last := w.cfg.Log.Now(), false
	for i := range all {
		rec := &all[i]
		last = last || rec.Broadcast == strconv.FormatInt(st.Broadcast, 10)
		if !rec.Final || !rec.Told || w.cfg.DB != nil && !rec.Stored || rec.Hook.wait(w.cfg.Hook, now) > 0 {
			return false, nil
		}
	}
	return last, nil
}

// see does for a broadcast that has ended what there is to do, and returns after how long there may be more.
func (w *Worker) see(ctx context.Context, b watchlog.Broadcast) (time.Duration, error) {
	now := w.cfg.Log.Now()
	rec, err := record(ctx, w.cfg.Log, keyOf(b.Room, b.ID))
	if err != nil {
		return 0, err
	}
	since := now.Sub(time.UnixMilli(b.Ended))
	if w.expired(b.Ended) {
		return 0, nil // of which there may be rows yet
	}
	if rec != nil {
		if wait, err := w.deliver(ctx, rec); err != nil || rec.Final {
			return wait, err
		}
		// Also without further rows: a node may count as dead by now.
		if wait := min(again-now.Sub(time.UnixMilli(rec.At)), w.cfg.Late-since); wait > 0 {
			return wait, nil
		}
	}
	closed := since >= w.cfg.Late
	s, err := w.cfg.Reader.shapeAs(ctx, b.Room, b.ID, closed)
	if errors.Is(err, ErrNoBroadcast) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	final := s.Settled || closed
	if rec == nil && !final && since < w.cfg.Settle {
		return min(w.cfg.Settle-since, 5*time.Second), nil
	}
	if rec == nil && closed && s.Summary.Intervals == 0 && !kept(s, now) {
		return 0, nil // nothing is known of it any more
	}
	if rec, err = w.revise(ctx, rec, s, final); err != nil || rec == nil {
		return again, err
	}
	wait, err := w.deliver(ctx, rec)
	if !final && (wait == 0 || wait > again) {
		wait = min(again, w.cfg.Late-since)
	}
	return wait, err
}

// kept reports whether a broadcast is young enough for rows of it to be there.
func kept(s *Shaped, now time.Time) bool {
	return now.Sub(time.UnixMilli(s.Broadcast.Ended)) < 24*time.Hour
}

// revise writes a revision and has it count; nil without an error: another worker does.
func (w *Worker) revise(ctx context.Context, before *Record, s *Shaped, final bool) (*Record, error) {
	b := s.Broadcast
	key := keyOf(b.Room, b.ID)
	leave, err := w.lease(ctx, key)
	if err != nil || leave == nil {
		return nil, err
	}
	defer leave()
	if now, err := record(ctx, w.cfg.Log, key); err != nil || now.revision() != before.revision() {
		return nil, err // another one has been faster
	}
	c, err := encode(s)
	if err != nil {
		return nil, err
	}
	rec := Record{
		Room: b.Room, Broadcast: b.ID, Waiting: b.Waiting, Began: b.Began, Ended: b.Ended,
		Hash: c.hash, Final: final, Input: s.Input, At: s.Input.AsOf,
	}
	var rev uint64
	if before != nil {
		rec.Revision, rev = before.Revision, before.rev
		if before.Hash == c.hash && before.Final == final { // the rows that have come are of something else
			rec = *before
			rec.Input, rec.At = s.Input, s.Input.AsOf
			return &rec, w.put(ctx, key, &rec)
		}
	}
	for try := 0; ; try++ {
		rec.Revision++
		rec.Prefix = fmt.Sprintf("%s/%s/%d", b.Room, b.ID, rec.Revision)
		err := w.cfg.Files.write(ctx, rec, c)
		if err == nil {
			break
		}
		if !errors.Is(err, errTaken) || try == mostTaken { // by a worker that was killed before it counted
			return nil, err
		}
	}
	rec.rev = rev
	if err := w.put(ctx, key, &rec); err != nil {
		if errors.Is(err, hub.ErrConflict) { // what another one has written counts
			counts, err := record(ctx, w.cfg.Log, key)
			if err == nil && counts != nil && counts.Prefix != rec.Prefix {
				_, err = w.cfg.Files.forget(ctx, rec.Prefix)
			}
			return nil, err
		}
		return nil, err
	}
	w.cfg.Metrics.revisions.Inc()
	w.cfg.Logger.Info("a broadcast was archived", "room", b.Room, "broadcast", b.ID, "revision", rec.Revision, "final", rec.Final,
		"users", s.Summary.Users, "intervals", s.Summary.Intervals, "estimated", s.Summary.Estimated, "at", w.cfg.Files.url+"/"+rec.Prefix)
	return &rec, nil
}

// put replaces a record by compare-and-set.
func (w *Worker) put(ctx context.Context, key string, rec *Record) error {
	body, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	if err := w.cfg.Log.PutArchived(ctx, key, body, rec.rev, 0); err != nil {
		return err
	}
	_, rec.rev, err = w.cfg.Log.Archived(ctx, key)
	return err
}

// lease has this worker shape a broadcast for a time; nil: another one does. leave ends it.
func (w *Worker) lease(ctx context.Context, key string) (leave func(), err error) {
	key += ".lease"
	_, rev, err := w.cfg.Log.Archived(ctx, key)
	if err != nil {
		return nil, err
	}
	if rev != 0 {
		return nil, nil
	}
	err = w.cfg.Log.PutArchived(ctx, key, []byte(w.id), 0, w.cfg.Lease)
	switch {
	case errors.Is(err, hub.ErrConflict):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_ = w.cfg.Log.ForgetArchived(ctx, key) // it lapses
	}, nil
}

// Migrate makes the tables of the database, or changes those of an earlier version. Of several workers one does it.
func (w *Worker) Migrate(ctx context.Context) error {
	for {
		leave, err := w.lease(ctx, "_tables.sql")
		if err != nil {
			return err
		}
		if leave != nil {
			defer leave()
			return w.cfg.DB.Migrate(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}
