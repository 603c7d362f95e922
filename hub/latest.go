package hub

import "slices"

// Slots of what viewers get only the latest of.
const (
	slotState  = "state"
	slotCounts = "counts"
)

// latest is the latest of everything of which a view's viewers get nothing else: one frame a
// slot, in the order in which they were set first. It does not change once it is made.
type latest struct{ slots []slot }

type slot struct {
	name  string
	frame *Frame
}

// with returns a latest that has another frame in a slot; nil: none.
func (l *latest) with(name string, f *Frame) *latest {
	slots := slices.Clone(l.slots)
	i := slices.IndexFunc(slots, func(s slot) bool { return s.name == name })
	if i < 0 {
		i = len(slots)
		slots = append(slots, slot{name: name})
	}
	slots[i].frame = f
	return &latest{slots}
}

// news appends to dst the frames that had, which may be nil, has not.
func (l *latest) news(dst [][]byte, had *latest, form *Form) [][]byte {
	for i, s := range l.slots {
		if s.frame == nil {
			continue // it is not told any more
		}
		if had == nil || i >= len(had.slots) || had.slots[i].frame != s.frame {
			dst = append(dst, s.frame.bytes(form))
		}
	}
	return dst
}
