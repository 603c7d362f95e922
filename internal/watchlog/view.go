package watchlog

import (
	"sync/atomic"
	"time"
)

// Viewer is somebody who watches, as a tracker sees them. Its methods are called while the tracker holds a room: they must not
// call the tracker.
type Viewer interface {
	// Who tells who it is.
	Who() Who
	// Silence is for how long nothing has been heard of the peer.
	Silence() time.Duration
}

// Who is who somebody is.
type Who struct {
	User, Name string
	Session    string // which its owner alone may know: a hash of it is kept
	Device     string // one of the classes: see [Device]
	Guest      bool
}

// mostRanges is how many ranges a row holds before another one goes on.
const mostRanges = 16

// View is what is kept of one viewer between two rows; the zero value is of nobody. Its methods may be called from any
// goroutine, and return at once.
type View struct {
	room atomic.Pointer[room]
	conn uint32
	slot int32
	n    uint16
	flags

	from int64 // when the row began
	beat int64 // when the viewer last told something, or came
	// visible is since when the page can be seen; 0: it cannot, or nobody has said so.
	visible int64
	playing Played // the stretch that is being played; all 0: none
	ahead   int64  // by how much playing is ahead of what the last row lets one expect
	past    *past  // ranges that are over
}

type flags uint8

const (
	dirty  flags = 1 << iota // its row has changed
	fresh                    // who it is was not told
	stale                    // the next checkpoint tells its row anew
	absent                   // not kept: the room keeps nothing, or the viewer has left
	left                     // the viewer has left
	plays                    // its last row said that the programme plays
)

// past is the ranges of a row that are over.
type past struct {
	visible []Range
	played  []Played
}

// Beat takes what a viewer tells: whether the page can be seen, and the position of the programme in milliseconds; nil: it does not
// say.
func (v *View) Beat(visible *bool, mediaMS *int64) {
	r := v.room.Load()
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.flags&absent != 0 {
		return
	}
	now := r.t.now()
	v.fade(now, r.t.gap)
	if r.t.pauses.proves(v, now) {
		v.beat = max(v.beat, now)
	}
	if visible != nil && *visible != (v.visible != 0) {
		v.show(*visible, now)
		r.touch(v)
	}
	v.play(mediaMS, now)
	v.split(r)
}

// show notes that the page is shown or hidden.
func (v *View) show(visible bool, now int64) {
	if v.visible != 0 {
		if v.visible < now {
			v.more().visible = append(v.more().visible, Range{v.visible, now})
		}
		v.visible = 0
	}
	if visible {
		v.visible = now
	}
}

// fade ends what nobody has confirmed for too long, at the last word of it.
func (v *View) fade(now, gap int64) (faded bool) {
	if now-v.beat <= gap {
		return false
	}
	if v.visible != 0 {
		v.show(false, max(v.beat, v.visible))
		faded = true
	}
	return v.stopPlaying() || faded
}

// The position of a programme that plays moves about as fast as time. Less than half as fast, it has stood meanwhile; more
// than three times, somebody has moved it.
const (
	fastest = 3
	slack   = 2000 // milliseconds of grace for that
	// drift is how far a position may be from where it was expected before the next checkpoint tells the row anew.
	drift = 2000
)

// play takes a position of the programme.
func (v *View) play(mediaMS *int64, now int64) {
	if mediaMS == nil {
		return
	}
	at, p := *mediaMS, &v.playing
	if *p == (Played{}) {
		*p = Played{now, now, at, at}
		return
	}
	took, moved := now-p[1], at-p[3]
	switch {
	case moved > 0 && moved <= fastest*took+slack && 2*moved >= took:
		p[1], p[3] = now, at
		if v.flags&plays == 0 {
			v.flags |= stale
		} else if v.flags&dirty == 0 {
			v.ahead += min(moved, took) - took
			if v.ahead > drift || v.ahead < -drift {
				v.flags |= stale
			}
		}
	case moved > 0 && moved <= took: // it stood for a while, and has played up to now
		v.stopPlaying()
		v.playing = Played{now - moved, now, at - moved, at}
		v.flags |= stale
	default:
		v.stopPlaying()
		v.playing = Played{now, now, at, at}
	}
}

// stopPlaying ends the stretch that is being played, and reports whether there was any.
func (v *View) stopPlaying() bool {
	p := v.playing
	v.playing = Played{}
	if p[0] == p[1] {
		return false
	}
	v.more().played = append(v.more().played, p)
	v.flags |= stale
	return true
}

func (v *View) more() *past {
	if v.past == nil {
		v.past = new(past)
	}
	return v.past
}

// split has another row go on when this one is full.
func (v *View) split(r *room) {
	if v.past == nil || len(v.past.visible)+len(v.past.played) < mostRanges || v.n == 1<<16-1 {
		return
	}
	now := r.t.now()
	row := v.row(now)
	row.End = EndMore
	if row.Seen {
		v.visible = now
	}
	if row.Plays {
		p := &v.playing
		*p = Played{p[1], p[1], p[3], p[3]}
	}
	row.Seen, row.Plays = false, false
	r.tell(v, row)
	v.n++
	v.from, v.past, v.ahead = now, nil, 0
	v.flags = v.flags&^(dirty|fresh) | stale
}

// row is what there is to say of a viewer now.
func (v *View) row(now int64) Row { return *v.rowInto(new(Row), now) }

// rowInto is row, with the ranges of another one used again.
func (v *View) rowInto(r *Row, now int64) *Row {
	*r = Row{Conn: v.conn, N: int(v.n), From: v.from, To: max(now, v.from), Visible: r.Visible[:0], Played: r.Played[:0]}
	if v.past != nil {
		r.Visible = append(r.Visible, v.past.visible...)
		r.Played = append(r.Played, v.past.played...)
	}
	if v.visible != 0 {
		r.Visible, r.Seen = append(r.Visible, Range{v.visible, max(now, v.visible)}), true
	}
	if p := v.playing; p[0] < p[1] {
		r.Played, r.Plays = append(r.Played, p), true
	}
	return r
}
