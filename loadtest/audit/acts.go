package audit

import (
	"slices"
	"time"
)

// Acts of moderators hide comments, and others bring them back. What is judged here is written from
// the protocol's document: an act is in the log, and a reader who has passed its place is not shown
// what it hides, unless it was undone further on.

// Act is one act that was asked for. Its number is carried as its reason.
type Act struct {
	Room    string
	At      time.Duration // when it was asked for
	Outcome Outcome
	ID      string // as acknowledged; empty when there was nothing to do
	Why     string // of a refusal
}

// LogAct is an act as the log holds it.
type LogAct struct {
	ID, Kind string
	Number   int      // that it carries; 0: none
	Comments []string // ids
	User     string
	Users    []string // whom a sweep mutes
	Lifts    []string // ids of sweeps, or parts, that do not mute User any more
	Clear    bool
	Ends     time.Time // zero: for good
	Undoes   []string
}

// Acting notes that an act is about to be asked for, and gives it its number, from 1.
func (j *Journal) Acting(room string) int {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.acts = append(j.acts, Act{Room: room, At: j.Now()})
	return len(j.acts)
}

// Acted notes what became of an act.
func (j *Journal) Acted(n int, o Outcome, id, why string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	a := &j.acts[n-1]
	a.Outcome, a.ID, a.Why = o, id, why
}

// ID is the id under which a comment is known; empty when it is not.
func (j *Journal) ID(s Serial) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if id := j.ids[s].id; id != "" {
		return id
	}
	return j.sends[s-1].ID
}

// verifyActs holds the acts of the log against those that were asked for.
func (j *Journal) verifyActs(v *Verdict, rooms map[string]*room) {
	stored, numbers := map[string]bool{}, map[int]bool{}
	for _, r := range rooms {
		for _, e := range r.acts {
			stored[e.Act.ID], numbers[e.Act.Number] = true, true
			v.StoredActs++
			switch e.Act.Kind {
			case "sweep":
				v.Sweeps++
			case "set":
				v.Shields++
			}
		}
	}
	for i, a := range j.acts {
		switch a.Outcome {
		case Acknowledged:
			v.Acts++
			if a.ID != "" && !stored[a.ID] {
				v.LostActs++
				v.example("act %d of %s, asked for at %v, was acknowledged as %s and is not in the log", i+1, a.Room, a.At, a.ID)
			}
		case Refused:
			v.ActsRefused++
			if numbers[i+1] {
				v.AppearedActs++
				v.example("act %d of %s, asked for at %v, was refused (%s) and is in the log", i+1, a.Room, a.At, a.Why)
			}
		case Unknown:
			v.ActsUnknown++
		}
	}
}

// change is a place in the log where one more act hides a comment, or one less.
type change struct {
	seq uint64
	by  int
}

// changes are the places where what hides a comment changes, in order. An act that was undone before
// it was stored never hides.
func (r *room) changes(e *Entry) []change {
	if e.Staff {
		return nil
	}
	var out []change
	for i := range r.acts {
		a := r.acts[i].Act
		if !a.hides(e, r.acts[i].Seq) {
			continue
		}
		from, to := max(r.acts[i].Seq, 1), r.undone[a.ID]
		if lifted := r.lifted[lift{a.ID, e.Author}]; lifted > 0 && e.Seq > r.acts[i].Seq && (to == 0 || lifted < to) {
			to = lifted
		}
		if to > 0 && to < from {
			continue
		}
		out = append(out, change{from, 1})
		if to > 0 {
			out = append(out, change{to, -1})
		}
	}
	slices.SortFunc(out, func(a, b change) int { return int(a.seq) - int(b.seq) })
	return out
}

// hides reports whether an act at a place in the log hides a comment, as long as it is not undone.
func (a *LogAct) hides(e *Entry, at uint64) bool {
	before := e.Seq < at
	switch a.Kind {
	case "remove":
		return slices.Contains(a.Comments, e.ID)
	case "sweep":
		if before {
			return slices.Contains(a.Comments, e.ID)
		}
		return slices.Contains(a.Users, e.Author) && (a.Ends.IsZero() || e.At.Before(a.Ends))
	case "clear":
		return before && (a.User == "" || a.User == e.Author)
	case "mute", "ban":
		if a.User != e.Author {
			return false
		}
		if before {
			return a.Clear
		}
		return a.Ends.IsZero() || e.At.Before(a.Ends)
	}
	return false
}

// mayShow reports whether a comment may be shown to somebody who has passed a place in the log: whether
// there it is not hidden, or is brought back further on.
func (r *room) mayShow(e *Entry, passed uint64) bool {
	n := 0
	for _, c := range r.changes(e) {
		if c.seq > passed && n == 0 {
			return true
		}
		n += c.by
	}
	return n == 0
}

// everHidden reports whether a comment was hidden at any place in the log.
func (r *room) everHidden(e *Entry) bool { return len(r.changes(e)) > 0 }

// hidden reports whether a comment is hidden at the end of the log.
func (r *room) hidden(e *Entry) bool {
	n := 0
	for _, c := range r.changes(e) {
		n += c.by
	}
	return n > 0
}
