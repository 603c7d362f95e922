package loadtest

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// checker takes what all viewers receive and what was acknowledged, and says at
// the end what does not fit. One lock guards it and the tracks of all viewers: it
// is held for some hundred nanoseconds a frame.
type checker struct {
	began time.Time

	mu         sync.Mutex
	closed     bool // the run is over: what still comes is not counted
	order      order
	frames     frames
	dirty      []*frame // with arrivals that were not harvested
	ripe       []harvest
	count      counts
	lastAcked  int32 // in the list, of those acknowledged
	unseen     int64 // acknowledged, and not in the list
	perAuthor  []authored
	lastSent   int64    // when the last of the acknowledged ones was sent
	examples   []string // of what went wrong
	tracks     []*track
	doubleAcks int64
}

// authored counts the comments of one publisher.
type authored struct{ acked, unanswered int64 }

// counts are running totals over all viewers.
type counts struct {
	frames     int64 // comments messages, without history
	deliveries int64 // comments in them
	bytes      int64 // of them on the wire: payload, as compressed
	history    int64 // comments in history messages
	allBytes   int64 // of messages of all types

	duplicates, disorder, gaps, gapMissed int64
	notRecovered, withheld, malformed     int64
}

// track is what the checker knows of one viewer.
type track struct {
	number    int
	welcomeAt int64 // of the first welcome, nanoseconds since the run began; -1: none yet
	lastFrame int64
	resumed   bool // by a cursor, since the last connection began

	first, last int32 // in the order; 0: nothing received yet
	received    int64 // comments, each once
	withheld    int64
	early       []int32 // received behind first, which comes after them; at most maxHoles
	told        bool    // of comments left out right behind last
	rewound     bool    // history may repeat what was received
	holes       []hole  // latest ones, at most maxHoles
	toldMissing int64   // in holes that were dropped from holes
}

// hole is a stretch of the order that a viewer skipped.
type hole struct {
	after, before int32
	told          bool
	late          []int32 // what came out of it later
}

const (
	maxHoles    = 256
	maxExamples = 10
)

func newChecker() *checker {
	return &checker{began: time.Now(), order: newOrder(), frames: newFrames()}
}

// now is the time since the run began, in nanoseconds.
func (c *checker) now() int64 { return int64(time.Since(c.began)) }

// viewer makes the track of one more viewer.
func (c *checker) viewer() *track {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &track{number: len(c.tracks), welcomeAt: -1}
	c.tracks = append(c.tracks, t)
	return t
}

// publisher makes room for one more publisher, with that user id.
func (c *checker) publisher(user string) int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := int32(len(c.perAuthor))
	c.perAuthor = append(c.perAuthor, authored{})
	c.order.authors[user] = n
	return n
}

// acknowledged takes the id of a comment that was due and sent at those times.
func (c *checker) acknowledged(s string, publisher int32, due, sent int64) {
	id, ok := parseID(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.perAuthor[publisher].acked++
	if !ok {
		c.count.malformed++
		c.example("a comment was acknowledged with the id %.40q", s)
		return
	}
	i := c.order.entryOf(id)
	e := &c.order.entries[i]
	if e.acked {
		c.doubleAcks++
		c.example("two comments were acknowledged with the id %s", id)
		return
	}
	e.acked, e.due, e.sent = true, due, sent
	c.lastSent = max(c.lastSent, sent)
	if !c.order.listed(i) {
		c.unseen++
	} else if c.order.after(i, c.lastAcked) {
		c.lastAcked = i
	}
}

// unanswered takes a comment whose outcome is not known.
func (c *checker) unanswered(publisher int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.perAuthor[publisher].unanswered++
}

// welcomed begins a connection; resumed says by a cursor.
func (c *checker) welcomed(t *track, at int64, resumed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.welcomeAt < 0 {
		t.welcomeAt = at
	}
	t.resumed = resumed
}

// gap takes word of comments that a viewer was not sent.
func (c *checker) gap(t *track, m *protocol.Gap) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.count.gaps++
	c.count.gapMissed += int64(max(m.Missed, 0))
	t.told = true
	c.example("viewer %d was told of a gap of %d behind %s", t.number, m.Missed, c.order.entries[t.last].id)
}

// notRecovered takes word that a viewer's cursor could not be continued from.
func (c *checker) notRecovered(t *track, since string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.count.notRecovered++
	t.told, t.rewound = true, true
	c.example("viewer %d was not recovered from its cursor %s", t.number, since)
}

var commentsHead = []byte(`{"type":"` + protocol.TypeComments + `"`)

// frame takes a message that a viewer received at that time, with so many bytes
// on the wire.
func (c *checker) frame(t *track, raw []byte, wire int, at int64) {
	if !bytes.HasPrefix(raw, commentsHead) && bytes.HasPrefix(raw, commentsHead[:9]) {
		c.mu.Lock()
		c.count.allBytes += int64(wire)
		t.lastFrame = at
		c.mu.Unlock()
		return
	}
	hash := maphash.Bytes(c.frames.seed, raw)
	c.mu.Lock()
	fr := c.frames.find(hash, raw)
	comments := true
	if fr == nil {
		c.mu.Unlock()
		var p parsed
		p, comments = parse(raw) // not under the lock: it takes long
		c.mu.Lock()
		if fr = c.frames.find(hash, raw); fr == nil && comments && !c.closed {
			fr = c.newFrame(t, p)
			if left := c.frames.add(hash, raw, fr); left != nil {
				c.reap(left, true)
			}
		}
	}
	defer c.mu.Unlock()
	c.count.allBytes += int64(wire)
	t.lastFrame = at
	if comments && !c.closed {
		c.receive(t, fr, wire, at)
	}
}

// newFrame puts the comments of a new frame, which t is the first to receive,
// into the order.
func (c *checker) newFrame(t *track, p parsed) *frame {
	anchor := int32(-1)
	if t.last != 0 && !t.told && p.withheld == 0 {
		anchor = t.last
	}
	all, fresh := c.order.place(p.items, anchor)
	for _, i := range fresh {
		if c.order.entries[i].acked {
			c.unseen--
			if c.order.after(i, c.lastAcked) {
				c.lastAcked = i
			}
		}
	}
	fr := &frame{history: p.history, withheld: p.withheld, bad: p.bad, items: all}
	fr.plain = p.withheld == 0 && p.bad == 0 && len(all) > 0
	for n := 1; n < len(fr.items) && fr.plain; n++ {
		fr.plain = c.order.entries[fr.items[n]].prev == fr.items[n-1]
	}
	for n := 0; n < len(all) && fr.plain; n++ {
		fr.plain = !c.order.entries[all[n]].guess
	}
	return fr
}

// receive moves a viewer on by a frame.
func (c *checker) receive(t *track, fr *frame, wire int, at int64) {
	n := int64(len(fr.items))
	if fr.history && !t.resumed {
		c.count.history += n
	} else {
		c.count.frames++
		c.count.deliveries += n
		c.count.bytes += int64(wire)
		c.arrive(fr, at)
	}
	if fr.bad > 0 {
		c.count.malformed += fr.bad
		c.example("viewer %d received a comments message with %d invalid parts", t.number, fr.bad)
	}
	if fr.plain && t.last != 0 && !t.told && c.order.entries[fr.items[0]].prev == t.last && !c.order.entries[t.last].guess {
		t.last, t.received = fr.items[n-1], t.received+n
	} else {
		if fr.withheld > 0 {
			c.count.withheld += fr.withheld
			t.withheld += fr.withheld
		}
		for _, i := range fr.items {
			c.step(t, i, fr.history)
		}
	}
	if !fr.history {
		t.rewound = false
	}
}

// step moves a viewer on by one comment.
func (c *checker) step(t *track, i int32, history bool) {
	if t.last != 0 && !t.told {
		if wrong := c.order.follow(i, t.last); wrong > 0 {
			c.count.disorder += wrong
			c.example("%d viewers received %s in front of %s", wrong, c.order.entries[i].id, c.order.entries[t.last].id)
		}
		if c.order.entries[i].acked && c.order.after(i, c.lastAcked) {
			c.lastAcked = i
		}
	}
	switch {
	case t.last == 0:
		t.first, t.last, t.received, t.told = i, i, 1, false
	case c.order.after(i, t.last):
		if c.order.entries[i].prev != t.last || t.told {
			c.skip(t, hole{after: t.last, before: i, told: t.told})
		}
		t.last, t.told = i, false
		t.received++
	default:
		c.backwards(t, i, history)
	}
}

// backwards judges a comment that a viewer receives behind a later one.
func (c *checker) backwards(t *track, i int32, history bool) {
	for n := range t.holes {
		h := &t.holes[n]
		if !c.order.after(i, h.after) || !c.order.after(h.before, i) {
			continue
		}
		if slices.Contains(h.late, i) {
			break
		}
		h.late = append(h.late, i)
		t.received++
		c.count.disorder++
		c.example("viewer %d received %s behind %s", t.number, c.order.entries[i].id, c.order.entries[t.last].id)
		return
	}
	switch {
	case t.rewound && history:
		// The recent comments, again, after a cursor that was not recovered.
	case c.order.after(t.first, i) && !slices.Contains(t.early, i) && len(t.early) < maxHoles:
		c.count.disorder++
		c.example("viewer %d received %s behind its first, %s", t.number, c.order.entries[i].id, c.order.entries[t.first].id)
		t.early = append(t.early, i)
	default:
		c.count.duplicates++
		c.example("viewer %d received %s twice", t.number, c.order.entries[i].id)
	}
}

// skip notes a hole.
func (c *checker) skip(t *track, h hole) {
	if !h.told {
		c.example("viewer %d received %s right behind %s", t.number, c.order.entries[h.before].id, c.order.entries[h.after].id)
	}
	if len(t.holes) == maxHoles {
		if old := t.holes[0]; old.told {
			for i := c.order.entries[old.after].next; i != old.before; i = c.order.entries[i].next {
				t.toldMissing++
			}
			t.toldMissing -= int64(len(old.late))
		}
		t.holes = slices.Delete(t.holes, 0, 1)
	}
	t.holes = append(t.holes, h)
}

func (c *checker) example(format string, a ...any) {
	if len(c.examples) < maxExamples {
		c.examples = append(c.examples, fmt.Sprintf(format, a...))
	}
}
