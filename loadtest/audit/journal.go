// Package audit judges a run in which things were broken on purpose. It is told of
// every comment that was sent and how it was answered, of everything that every viewer
// received or was told, and at the end of what the log holds, and says what does not
// fit (verify.go) and how long everybody had to do without (windows.go).
//
// It knows nothing of the server, not even how it talks: to the filler of a [Journal]
// a comment is a serial number that it carries everywhere. Nothing is judged while the
// run lasts, so nothing can be forgiven by it.
package audit

import (
	"fmt"
	"hash/fnv"
	"sync"
	"sync/atomic"
	"time"
)

// Serial is the number of a comment in its run, from 1.
type Serial int64

// Outcome is what a sender was told of a comment.
type Outcome uint8

// Outcomes of a comment. Unknown is also that of one without an answer.
const (
	Unknown      Outcome = iota
	Acknowledged         // it is in the log
	Refused              // it is not, and never will be
)

// Send is one comment that was sent.
type Send struct {
	Room     string
	Author   string
	Once     bool          // it is asked once: the answer is the server's own
	At       time.Duration // when it was sent, since the run began
	Answered time.Duration // when its outcome was told; 0: never
	Outcome  Outcome
	ID       string // as acknowledged
	Why      string // of a refusal
}

// Entry is a comment as the log holds it.
type Entry struct {
	Room   string
	Seq    uint64 // position; the entries of a room are in its order
	Serial Serial
	Author string
	Digest uint32 // of what it says: see [Digest]
	ID     string
	At     time.Time // when it was stored, the log's clock
	Staff  bool      // its author has more standing than moderators
	Act    *LogAct   // it is an act, and no comment
	// Event says that it is an event of the application: who begins anew is not told of those before, and is owed
	// everything else that is owed of a comment.
	Event bool
}

// Item is a comment as a viewer received it.
type Item struct {
	Serial Serial
	ID     string
	Digest uint32
}

// Digest stands for what a comment says and who said it, in comparisons.
func Digest(author, text string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(author + "\x00" + text)) // never fails
	return h.Sum32()
}

// Journal is what happened in a run. Its methods may be called from any goroutine.
type Journal struct {
	began time.Time

	mu      sync.Mutex
	sends   []Send // by serial, from 1 on
	viewers []*Viewer
	ids     map[Serial]named  // as which it was received first
	names   map[string]Serial // room and id of what was received
	clashes []clash
	acts    []Act    // by number, from 1 on
	rolled  []Window // of what the log may have lost: see [Journal.RolledBack]
}

// named is the id under which a comment was received, and when.
type named struct {
	id string
	at time.Duration
}

// clash is an id that does not fit.
type clash struct {
	serial Serial
	at     time.Duration
	what   string
}

// NewJournal begins a run.
func NewJournal() *Journal {
	return &Journal{began: time.Now(), ids: map[Serial]named{}, names: map[string]Serial{}}
}

// Now is the time since the run began.
func (j *Journal) Now() time.Duration { return time.Since(j.began) }

// Sending notes that a comment is about to be sent, and gives it its number. once says
// that its sender does not ask again, whatever the answer is.
func (j *Journal) Sending(room, author string, once bool) Serial {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.sends = append(j.sends, Send{Room: room, Author: author, Once: once, At: j.Now()})
	return Serial(len(j.sends))
}

// Answered notes what became of a comment: its id when it was acknowledged, the reason
// when it was refused.
func (j *Journal) Answered(s Serial, o Outcome, id, why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	e := &j.sends[s-1]
	e.Answered, e.Outcome, e.ID, e.Why = j.Now(), o, id, why
}

// kind is what happened to a viewer.
type kind uint8

const (
	received     kind = iota
	welcomed          // and goes on where it stopped, or begins
	notRecovered      // welcomed, but not where it stopped
	told              // that it was not sent something
	lost              // its connection
	moved             // to another connection, without having lost one
	ended             // it will not come back
	together          // what follows, up to another kind, came in one message
	restored          // it was brought back
)

// event is one thing that happened to a viewer.
type event struct {
	at     time.Duration
	serial Serial
	digest uint32
	kind   kind
}

// Viewer is what happened to one viewer. Its methods are called by one goroutine at a
// time.
type Viewer struct {
	j      *Journal
	room   string
	name   string
	whole  bool
	events []event
	last   atomic.Int64 // the serial that was received last
}

// Viewer begins the account of one viewer. whole says that it wants the log from its
// beginning.
func (j *Journal) Viewer(room, name string, whole bool) *Viewer {
	v := &Viewer{j: j, room: room, name: name, whole: whole}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.viewers = append(j.viewers, v)
	return v
}

func (v *Viewer) note(k kind) { v.events = append(v.events, event{at: v.j.Now(), kind: k}) }

// Welcomed begins a connection; recovered says that it goes on where the last one
// stopped, or is the first.
func (v *Viewer) Welcomed(recovered bool) {
	if recovered {
		v.note(welcomed)
	} else {
		v.note(notRecovered)
	}
}

// Told says that the viewer was told that it was not sent something.
func (v *Viewer) Told() { v.note(told) }

// Lost ends a connection; smoothly says that there is another already.
func (v *Viewer) Lost(smoothly bool) {
	if smoothly {
		v.note(moved)
	} else {
		v.note(lost)
	}
}

// Ended says that the viewer was sent away for good.
func (v *Viewer) Ended() { v.note(ended) }

// Received takes the comments that came together, in their order.
func (v *Viewer) Received(items []Item) {
	at := v.j.Now()
	if len(items) > 0 {
		v.note(together)
	}
	for _, it := range items {
		v.events = append(v.events, event{at: at, serial: it.Serial, digest: it.Digest, kind: received})
	}
	if n := len(items); n > 0 {
		v.last.Store(int64(items[n-1].Serial))
	}
	v.j.name(v.room, items)
}

// Restored takes comments that were brought back.
func (v *Viewer) Restored(items []Item) {
	at := v.j.Now()
	v.note(together)
	for _, it := range items {
		v.events = append(v.events, event{at: at, serial: it.Serial, digest: it.Digest, kind: restored})
	}
	v.j.name(v.room, items)
}

// Last is the comment that was received last; 0 when none was. It may be called from
// any goroutine.
func (v *Viewer) Last() Serial { return Serial(v.last.Load()) }

// name checks that a comment always comes under one id, and an id of a room with one comment.
func (j *Journal) name(room string, items []Item) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, it := range items {
		if had, ok := j.ids[it.Serial]; !ok {
			j.ids[it.Serial] = named{it.ID, j.Now()}
		} else if had.id != it.ID {
			j.clashes = append(j.clashes, clash{it.Serial, j.Now(), fmt.Sprintf("comment %d of %s came as %s at %v and as %s at %v",
				it.Serial, room, had.id, had.at, it.ID, j.Now())})
		}
		key := room + "/" + it.ID
		if had, ok := j.names[key]; !ok {
			j.names[key] = it.Serial
		} else if had != it.Serial {
			// Whatever was rolled back: no id is given out twice.
			j.clashes = append(j.clashes, clash{0, 0, fmt.Sprintf("comments %d and %d of %s both came as %s", had, it.Serial, room, it.ID)})
		}
	}
}
