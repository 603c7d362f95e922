package loadtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/protocol"
)

// simulated is a room whose viewers come at any time, receive the log in pieces
// of any size, and lag behind one another as they like.
type simulated struct {
	c     *checker
	rng   *rand.Rand
	clock int64
	log   []protocol.Comment
	fault func(viewer int, items []protocol.Comment) []protocol.Comment
	next  []int // of each viewer in the log; -1 until it has come
}

const recent = 5

// step does one thing: publish, or move one viewer on.
func (s *simulated) step(length int) {
	s.clock++
	if n := len(s.log); n < length && s.rng.IntN(3) == 0 {
		m := protocol.Comment{ID: fmt.Sprint("c", n), At: s.clock / 20}
		s.log = append(s.log, m)
		s.c.acknowledged(m.ID, 0, s.clock, s.clock)
		return
	}
	v := s.rng.IntN(len(s.next))
	from, history := s.next[v], false
	if from < 0 {
		s.c.welcomed(s.c.tracks[v], s.clock, false)
		from, history = max(len(s.log)-recent, 0), true
		s.next[v] = from
	}
	if from == len(s.log) {
		return
	}
	to := min(from+1+s.rng.IntN(4), len(s.log))
	if history {
		to = len(s.log)
	}
	items := slices.Clone(s.log[from:to])
	s.next[v] = to
	if s.fault != nil && !history {
		items = s.fault(v, items)
	}
	if len(items) > 0 {
		raw := protocol.Encode(&protocol.Comments{Cursor: fmt.Sprint(to), History: history, Items: items})
		s.c.frame(s.c.tracks[v], raw, len(raw), s.clock)
	}
}

func simulate(seed uint64, viewers, length int, fault func(int, []protocol.Comment) []protocol.Comment) verdict {
	s := &simulated{c: newChecker(), rng: rand.New(rand.NewPCG(seed, 7)), fault: fault}
	s.c.publisher("p")
	for range viewers {
		s.c.viewer()
		s.next = append(s.next, -1)
	}
	for len(s.log) < length || slices.Min(s.next) < length {
		s.step(length)
	}
	s.c.close()
	return s.c.verdict()
}

func (v *verdict) wrong() int64 {
	return v.missing + v.duplicates + v.disorder + v.lost + v.doubled + v.malformed
}

// TestAnyInterleaving finds nothing wrong where nothing is, and something where
// one viewer is sent one comment too few, twice, or too early.
func TestAnyInterleaving(t *testing.T) {
	t.Parallel()
	const viewers, length = 6, 40
	type comments = []protocol.Comment
	for name, fault := range map[string]func(comments) comments{
		"none":      nil,
		"drop":      func(items comments) comments { return items[1:] },
		"duplicate": func(items comments) comments { return append(items, items[0]) },
		"swap": func(items comments) comments {
			if len(items) > 1 {
				items[0], items[1] = items[1], items[0]
			}
			return items
		},
		"rotate": func(items comments) comments { return append(items[1:], items[0]) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(100) {
				victim, at, done := int(seed)%viewers, fmt.Sprint("c", 3+seed%(length-6)), false
				v := simulate(seed, viewers, length, func(viewer int, items comments) comments {
					if fault == nil || viewer != victim || done || items[0].ID != at {
						return items
					}
					before := fmt.Sprint(items)
					items = fault(items)
					done = fmt.Sprint(items) != before
					return items
				})
				if got := v.wrong() > 0; got != done {
					t.Fatalf("seed %d: wrong %v (%d missing, %d duplicates, %d out of order), want %v\n%s",
						seed, got, v.missing, v.duplicates, v.disorder, done, strings.Join(v.examples, "\n"))
				}
			}
		})
	}
}
