package audit

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Verdict is what was found at the end of a run.
type Verdict struct {
	Sent, Acknowledged, Refused, Unknown int
	UnknownInLog                         int // of the unknown ones, those that are in the log after all
	Stored                               int // in the log
	Viewers                              int
	Received                             int // deliveries

	Lost         int // acknowledged, and not in the log
	Doubled      int // in the log more than once
	Appeared     int // refused, and in the log
	Strangers    int // in the log, and never sent, or not as they were sent
	Misnamed     int // with another id than was acknowledged, or two, or that of another
	Missing      int // deliveries that did not happen, with nobody told
	Duplicated   int // deliveries that happened again
	Disordered   int // deliveries in another order than that of the log
	Phantoms     int // deliveries of what is not in the log
	Altered      int // deliveries that say something else than the log
	SentAway     int // viewers
	Gaps         int // told to viewers
	NotRecovered int // cursors that could not be continued from
	Told         int // deliveries that did not happen, as viewers were told
	RolledBack   int // acknowledged, and gone with what the log was put back by

	Acts, ActsRefused, ActsUnknown int // acts of moderators, as they were answered
	StoredActs                     int // in the log
	Sweeps, Shields                int // of these
	LostActs                       int // acknowledged, and not in the log
	AppearedActs                   int // refused, and in the log
	Shown                          int // deliveries of what an act hides that the viewer had passed
	Hidden                         int // comments that are hidden in the end
	Events                         int // events of the application in the log, which count as comments everywhere

	Examples []string // of what is wrong
}

// Finding is one kind of fault, and how often it was found.
type Finding struct {
	Name string
	N    int
	What string
}

// Findings are the kinds of fault, found or not.
func (v *Verdict) Findings() []Finding {
	return []Finding{
		{"lost in the log", v.Lost, "acknowledged comments that the log does not hold"},
		{"lost on the way", v.Missing, "comments that a viewer did not receive and was not told of"},
		{"duplicated in the log", v.Doubled, "comments that the log holds again"},
		{"duplicated", v.Duplicated, "comments that a viewer received again"},
		{"disordered", v.Disordered, "comments that a viewer received out of the log's order"},
		{"refused and there", v.Appeared, "comments in the log that were refused"},
		{"never sent", v.Strangers, "comments in the log that nobody sent"},
		{"not in the log", v.Phantoms, "comments that a viewer received and the log does not hold"},
		{"altered", v.Altered, "comments that a viewer received with another content"},
		{"misnamed", v.Misnamed, "comments whose ids do not agree"},
		{"acts lost", v.LostActs, "acknowledged acts that the log does not hold"},
		{"acts refused and there", v.AppearedActs, "acts in the log that were refused"},
		{"shown", v.Shown, "comments that a viewer was shown behind the act that hides them"},
		{"sent away", v.SentAway, "viewers that were sent away for good"},
	}
}

// Failed are the findings that were made.
func (v *Verdict) Failed() []Finding {
	return slices.DeleteFunc(v.Findings(), func(f Finding) bool { return f.N == 0 })
}

const maxExamples = 20

func (v *Verdict) example(format string, a ...any) {
	if len(v.Examples) < maxExamples {
		v.Examples = append(v.Examples, fmt.Sprintf(format, a...))
	}
}

// Verify judges a run by what the log holds at its end. Whoever fills the journal has
// stopped.
func (j *Journal) Verify(log []Entry) *Verdict {
	j.mu.Lock()
	defer j.mu.Unlock()
	v := &Verdict{Sent: len(j.sends), Stored: len(log), Viewers: len(j.viewers)}
	rooms := j.verifyLog(v, log)
	j.verifyActs(v, rooms)
	for _, r := range rooms {
		v.Stored -= len(r.acts)
		for i := range r.log {
			if r.hidden(&r.log[i]) {
				v.Hidden++
			}
		}
	}
	for _, w := range j.viewers {
		r := rooms[w.room]
		if r == nil {
			r = &room{}
		}
		(&walk{v: v, j: j, w: w, room: r, sends: j.sends, got: make([]bool, len(r.log)), excused: make([]bool, len(r.log))}).run()
	}
	j.checkIDs(v)
	return v
}

// room is a room's part of the log.
type room struct {
	log    []Entry // its comments, in order
	at     map[Serial]int
	acts   []Entry           // in order
	undone map[string]uint64 // the id of an act → where it was undone first
	lifted map[lift]uint64   // where that was first
}

// lift is a sweep, or a part of one, that does not mute a user any more.
type lift struct{ act, user string }

// first notes a place under a key, unless there is an earlier one.
func first[K comparable](places map[K]uint64, key K, seq uint64) {
	if had := places[key]; had == 0 || seq < had {
		places[key] = seq
	}
}

// verifyLog holds the log against what was sent.
func (j *Journal) verifyLog(v *Verdict, log []Entry) map[string]*room {
	rooms := map[string]*room{}
	for _, e := range log {
		r := rooms[e.Room]
		if r == nil {
			r = &room{at: map[Serial]int{}, undone: map[string]uint64{}, lifted: map[lift]uint64{}}
			rooms[e.Room] = r
		}
		if e.Act != nil {
			r.acts = append(r.acts, e)
			for _, id := range e.Act.Undoes {
				first(r.undone, id, e.Seq)
			}
			for _, id := range e.Act.Lifts {
				first(r.lifted, lift{id, e.Act.User}, e.Seq)
			}
			continue
		}
		r.log = append(r.log, e)
		if e.Event {
			v.Events++
		}
	}
	stored := make([]bool, len(j.sends)+1)
	for name, r := range rooms {
		slices.SortFunc(r.log, func(a, b Entry) int { return cmp.Compare(a.Seq, b.Seq) })
		for i, e := range r.log {
			if e.Serial < 1 || int(e.Serial) > len(j.sends) || j.sends[e.Serial-1].Room != name || j.sends[e.Serial-1].Author != e.Author {
				v.Strangers++
				v.example("%s holds at %d a comment %d of %s that was not sent to it", name, e.Seq, e.Serial, e.Author)
				continue
			}
			if first, again := r.at[e.Serial]; again {
				v.Doubled++
				v.example("%s holds comment %d at %d and at %d", name, e.Serial, r.log[first].Seq, e.Seq)
				continue
			}
			r.at[e.Serial], stored[e.Serial] = i, true
		}
	}
	for i, s := range j.sends {
		serial := Serial(i + 1)
		id := j.ids[serial].id
		switch s.Outcome {
		case Acknowledged:
			v.Acknowledged++
			if !stored[serial] && j.mayBeGone(s) {
				v.RolledBack++
			} else if !stored[serial] {
				v.Lost++
				v.example("comment %d of %s, sent at %v, was acknowledged as %s and is not in the log", serial, s.Room, s.At, s.ID)
			} else if id != "" && id != s.ID && !j.storedAgain(serial) {
				v.Misnamed++
				v.example("comment %d of %s was acknowledged as %s and received as %s", serial, s.Room, s.ID, id)
			}
		case Refused:
			v.Refused++
			if stored[serial] {
				v.Appeared++
				v.example("comment %d of %s, sent at %v, was refused (%s) and is in the log", serial, s.Room, s.At, s.Why)
			}
		case Unknown:
			v.Unknown++
			if stored[serial] {
				v.UnknownInLog++
			}
		}
	}
	return rooms
}

// walk follows one viewer through its room's log.
type walk struct {
	v     *Verdict
	j     *Journal
	w     *Viewer
	room  *room
	sends []Send

	got     []bool // by place in the log
	excused []bool // it was told of these
	at      int    // the place of the last one; -1 before
	begun   bool   // at is the viewer's own
	told    bool   // that something is missing behind at
	rewound bool   // what it has received may come again
	sure    int    // the place of the last one that the log surely had when it came; -1: none
	anew    bool   // it was told of a gap since the log was put back
	passed  uint64 // the furthest place in the log that it has passed
	fresh   []beginning
}

// beginning is when a viewer began anew, and up to which place of the log it had what it was owed.
type beginning struct {
	at   time.Duration
	from int
}

// begins notes that a viewer begins anew.
func (k *walk) begins(e event) { k.fresh = append(k.fresh, beginning{e.at, k.at}) }

// beginnings tells when the viewer began anew.
func (k *walk) beginnings() string {
	var b strings.Builder
	for _, f := range k.fresh {
		fmt.Fprintf(&b, "; it began anew at %v, behind the first %d", f.at, f.from+1)
	}
	return b.String()
}

// before reports whether an event of the application lies before a beginning, so that the viewer was not told of it.
func (k *walk) before(i int) bool {
	e := &k.room.log[i]
	return e.Event && !k.w.whole && slices.ContainsFunc(k.fresh, func(b beginning) bool {
		return i > b.from && e.At.Sub(k.j.began) <= b.at
	})
}

func (k *walk) run() {
	k.at, k.sure = -1, -1
	k.begun = k.w.whole
	first := -1 // the place at which the viewer began
	if k.w.whole {
		first = 0
	}
	began := k.w.began()
	if k.w.whole { // it came when everything was done
		k.passed = ^uint64(0)
	}
	for n, e := range k.w.events {
		switch e.kind {
		case together:
			k.pass(k.w.events[n+1:])
		case restored:
			k.show(e)
		case welcomed:
			if len(k.fresh) == 0 {
				k.begins(e)
			}
		case notRecovered:
			k.begins(e)
			k.told, k.rewound = true, true
			k.back(e)
			k.v.NotRecovered++
		case told:
			k.begins(e)
			k.told = true
			k.rewound = k.rewound || len(k.j.rolled) > 0 // the recent ones follow
			k.back(e)
			k.v.Gaps++
		case ended:
			k.v.SentAway++
			k.v.example("%s was sent away for good at %v", k.w.name, e.at)
		case received:
			k.show(e)
			k.receive(e)
			if first < 0 && k.begun {
				first = k.at
			}
		}
	}
	// What it was owed: everything behind its first one, and what was sent when it was
	// there already.
	if k.told {
		k.excuse(len(k.room.log))
	}
	for i, e := range k.room.log {
		if k.got[i] {
			continue
		}
		owed := first >= 0 && i >= first || k.sentAfter(e, began)
		switch {
		case !owed || k.room.at[e.Serial] != i:
		case k.w.whole && k.room.hidden(&e), !k.w.whole && k.room.everHidden(&e):
		case k.excused[i], k.before(i):
			k.v.Told++
		default:
			k.v.Missing++
			k.v.example("%s did not receive comment %d of %s, at %d, which was sent at %v%s%s%s", k.w.name, e.Serial, e.Room, e.Seq,
				k.sends[e.Serial-1].At, map[bool]string{true: "; it received later ones"}[i < k.at], k.j.story(e.Serial), k.beginnings())
		}
	}
}

// began is when the viewer was welcome for the first time; -1: never.
func (v *Viewer) began() (at int64) {
	for _, e := range v.events {
		if e.kind == welcomed || e.kind == notRecovered {
			return int64(e.at)
		}
	}
	return -1
}

func (k *walk) sentAfter(e Entry, began int64) bool {
	return began >= 0 && e.Serial >= 1 && int(e.Serial) <= len(k.sends) && int64(k.sends[e.Serial-1].At) > began
}

// pass takes the viewer past the comments of one message, which come first in events.
func (k *walk) pass(events []event) {
	for _, e := range events {
		if e.kind != received {
			return
		}
		if i, ok := k.room.at[e.serial]; ok {
			k.passed = max(k.passed, k.room.log[i].Seq)
		}
	}
}

// show judges whether a comment may be shown to the viewer where it is.
func (k *walk) show(e event) {
	i, ok := k.room.at[e.serial]
	if !ok || k.room.mayShow(&k.room.log[i], k.passed) {
		return
	}
	k.v.Shown++
	k.v.example("%s was shown comment %d of %s, at %d, at %v, when it had passed %d, behind the act that hides it", k.w.name, e.serial, k.w.room,
		k.room.log[i].Seq, e.at, k.passed)
}

// receive moves the viewer on by one comment.
func (k *walk) receive(e event) {
	k.v.Received++
	i, ok := k.room.at[e.serial]
	switch {
	case k.j.wasGone(e.serial, e.at, ok):
		return
	case !ok:
		k.v.Phantoms++
		k.v.example("%s received comment %d, which is not in the log of %s", k.w.name, e.serial, k.w.room)
		return
	case k.room.log[i].Digest != e.digest:
		k.v.Altered++
		k.v.example("%s received comment %d with another content than the log has", k.w.name, e.serial)
	}
	switch {
	case !k.begun:
		k.begun = true
	case i > k.at:
		if k.told {
			k.excuse(i)
		}
	case k.rewound: // the recent ones again, after a cursor that was not recovered
		if k.got[i] {
			k.v.Received--
			return
		}
		k.got[i] = true
		return
	case k.got[i]:
		k.v.Duplicated++
		k.v.example("%s received comment %d of %s again at %v", k.w.name, e.serial, k.w.room, e.at)
		return
	default:
		k.v.Disordered++
		k.v.example("%s received comment %d of %s at %v, behind a later one", k.w.name, e.serial, k.w.room, e.at)
		k.got[i] = true
		return
	}
	k.got[i], k.at, k.told, k.rewound = true, i, false, false
	if k.anew || !k.j.putBack(e.at) && !k.j.mayBeGone(k.sends[e.serial-1]) {
		k.sure = i
	}
}

// back takes the viewer back to where it surely was when it is told for the first time that
// the log is not the one that it was. The node may have shown it something of the new log
// before that.
func (k *walk) back(e event) {
	if !k.anew && k.j.putBack(e.at) {
		k.anew, k.at = true, min(k.at, k.sure)
	}
}

// excuse takes what lies between here and a place for what the viewer was told of.
func (k *walk) excuse(to int) {
	for i := max(k.at+1, 0); i < to; i++ {
		if !k.got[i] {
			k.excused[i] = true
		}
	}
}

// actLine says what was done by moderators; empty when nothing was.
func (v *Verdict) actLine() string {
	if v.Acts+v.ActsRefused+v.ActsUnknown == 0 {
		return ""
	}
	return fmt.Sprintf("%d acts of moderators were acknowledged, %d refused, %d unknown; the log holds %d, %d sweeps and %d changes of the shield among them, which hide %d comments in the end\n",
		v.Acts, v.ActsRefused, v.ActsUnknown, v.StoredActs, v.Sweeps, v.Shields, v.Hidden)
}

// String says what was found, a line a kind.
func (v *Verdict) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d comments sent: %d acknowledged, %d refused, %d unknown (%d of them in the log); the log holds %d\n",
		v.Sent, v.Acknowledged, v.Refused, v.Unknown, v.UnknownInLog, v.Stored)
	if v.Events > 0 {
		fmt.Fprintf(&b, "%d of what the log holds are events of the application\n", v.Events)
	}
	if v.RolledBack > 0 {
		fmt.Fprintf(&b, "%d acknowledged comments are gone with the end that the log has lost\n", v.RolledBack)
	}
	b.WriteString(v.actLine())
	fmt.Fprintf(&b, "%d viewers received %d; told of gaps: %d, cursors not recovered: %d, not received as told: %d\n",
		v.Viewers, v.Received, v.Gaps, v.NotRecovered, v.Told)
	for _, f := range v.Findings() {
		word := "ok   "
		if f.N > 0 {
			word = "FAIL "
		}
		fmt.Fprintf(&b, "%s %-22s %6d %s\n", word, f.Name, f.N, f.What)
	}
	for _, e := range v.Examples {
		fmt.Fprintf(&b, "      %s\n", e)
	}
	return b.String()
}
