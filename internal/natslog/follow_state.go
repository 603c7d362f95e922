package natslog

import (
	"context"
	"strings"

	"github.com/kansei-live/kansei/hub"
)

// showStates reports states that came by themselves, if they are newer than what was
// reported.
func (f *follow) showStates(states []liveState) {
	for _, st := range states {
		if acts, is := strings.CutSuffix(f.actSubjects, "*"); is && strings.HasPrefix(st.live, acts) {
			b := f.l.bucket(&st.record)
			f.tell(func() {
				for _, s := range b.records() {
					f.follower.Stands(s)
				}
			})
			continue
		}
		if st.live != "" && st.live != f.stateSubject {
			continue
		}
		if st.seq <= f.rev.Load() {
			if at := f.revAt.Load(); at > 0 && st.at > at {
				f.l.state.suspect(hub.Position{Seq: f.rev.Load(), At: at})
			}
			continue
		}
		f.setState(&st.record)
	}
}

// setState reports the state that a record has; nil: it was never set.
func (f *follow) setState(rec *record) {
	var at hub.Position
	if rec != nil {
		at = rec.position()
		if newerSchema(rec.header) {
			f.l.tellNewer(recordState, rec)
		}
	}
	f.rev.Store(at.Seq)
	f.revAt.Store(at.At)
	f.l.state.note(at)
	f.tell(func() { f.follower.SetState(rec.state()) })
}

// readState reads and reports the state: when it is newer than what was reported,
// or anew, from what may be another stream.
func (f *follow) readState(ctx context.Context, anew bool) error {
	id := f.l.state.identity()
	if id.epoch == "" {
		return errUnusable
	}
	if anew {
		logID := f.log.identity()
		if logID.epoch == "" {
			return errUnusable
		}
		if err := f.subscribe(logID.epoch, id.epoch); err != nil {
			return err
		}
	}
	rec, err := f.l.state.leaderLast(ctx, f.room)
	if err != nil {
		return err
	}
	var acts []hub.Standing
	if anew {
		if acts, err = f.standing(ctx); err != nil {
			return err
		}
	}
	if f.l.state.identity() != id {
		return errMoved
	}
	if anew {
		f.mu.Lock()
		f.freshState = true
		f.mu.Unlock()
		f.tell(func() { f.follower.Standing(acts, rec.state()) })
		f.setState(rec)
	} else if rec != nil && rec.seq > f.rev.Load() {
		f.setState(rec)
	}
	return nil
}
