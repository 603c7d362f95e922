package audit

import (
	"fmt"
	"time"
)

// rollGrace is how long what was said in time may be on its way.
const rollGrace = time.Second

// RolledBack says that the log was put back, at the end of a window, to what it was at its
// beginning, as a restore from a backup does. What was acknowledged in the window may be
// gone, and what was received in it may never be seen again; it is counted apart. Nothing
// else is forgiven: no viewer may go on as if its place were still there, and no id may be
// given out twice.
func (j *Journal) RolledBack(w Window) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rolled = append(j.rolled, w)
}

// said reports whether something that was told at a time may be gone by a rollback.
func (w Window) said(at time.Duration) bool { return at >= w.From && at <= w.To+rollGrace }

// putBack reports whether the log had been put back at a time.
func (j *Journal) putBack(at time.Duration) bool {
	return len(j.rolled) > 0 && at > j.rolled[0].To
}

// mayBeGone reports whether an acknowledged comment may be gone from the log.
func (j *Journal) mayBeGone(s Send) bool {
	for _, w := range j.rolled {
		if w.said(s.Answered) {
			return true
		}
	}
	return false
}

// wasGone reports whether a comment that was received at a time may have been gone from
// the log after it: it was said before the log was put back. One that was not answered by
// then, or by when the log was copied, may have been stored again.
func (j *Journal) wasGone(serial Serial, at time.Duration, stored bool) bool {
	if serial < 1 || int(serial) > len(j.sends) {
		return false
	}
	s := j.sends[serial-1]
	for _, w := range j.rolled {
		switch {
		case s.At > w.To || s.Outcome == Refused:
		case !stored: // a node that has it in memory may show it until it knows
			return s.Outcome == Unknown || w.said(s.Answered)
		case w.said(at) && (s.Answered > w.To || w.halfway(s)):
			return true
		}
	}
	return false
}

// checkIDs checks the ids that senders were told.
func (j *Journal) checkIDs(v *Verdict) {
	for _, c := range j.clashes {
		if c.serial > 0 && j.storedAgain(c.serial) {
			continue
		}
		v.Misnamed++
		v.example("%s%s", c.what, j.story(c.serial))
	}
	told := map[string]Serial{}
	for i, s := range j.sends {
		if s.Outcome != Acknowledged || s.ID == "" {
			continue
		}
		key := s.Room + "/" + s.ID
		if first, again := told[key]; again {
			v.Misnamed++
			v.example("%s", fmt.Sprintf("comments %d and %d of %s were both acknowledged as %s", first, i+1, s.Room, s.ID))
			continue
		}
		told[key] = Serial(i + 1)
	}
}

// story tells what became of a comment in a run whose log was put back.
func (j *Journal) story(serial Serial) string {
	if serial < 1 || int(serial) > len(j.sends) || len(j.rolled) == 0 {
		return ""
	}
	s, w := j.sends[serial-1], j.rolled[0]
	return fmt.Sprintf("; it was sent at %v, answered as %q at %v; the log was put back from %v to %v", s.At, s.ID, s.Answered, w.To, w.From)
}

// halfway reports whether a comment was on its way when the log was copied: one server of several may have had it.
// It may be stored twice then, at two places: in the log that goes on, if that server does not lead, and in the copy,
// if it does.
func (w Window) halfway(s Send) bool {
	return s.At <= w.From && (s.Answered == 0 || s.Answered > w.From)
}

// storedAgain reports whether a comment may have been stored, lost, and stored again under
// another id: it was not answered before the log was put back, or before it was copied.
func (j *Journal) storedAgain(serial Serial) bool {
	if int(serial) > len(j.sends) {
		return false
	}
	s := j.sends[serial-1]
	for _, w := range j.rolled {
		if s.At <= w.To && (s.Answered == 0 || s.Answered > w.To) || w.halfway(s) {
			return true
		}
	}
	return false
}
