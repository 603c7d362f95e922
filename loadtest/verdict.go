package loadtest

// verdict is what the checker finds at the end.
type verdict struct {
	counts
	acked    int64 // comments
	lost     int64 // of them, seen by nobody
	doubled  int64 // comments that are there twice, or acknowledged as one
	missing  int64 // deliveries that did not happen
	missers  int   // viewers that miss some
	examples []string
}

// caughtUp reports whether every viewer has received the last comment that it has
// to.
func (c *checker) caughtUp() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unseen > 0 {
		return false
	}
	for _, t := range c.tracks {
		owed := t.welcomeAt >= 0 && (t.last != 0 || t.welcomeAt < c.lastSent)
		if owed && c.order.after(c.lastAcked, t.last) {
			return false
		}
	}
	return true
}

// close ends the counting; what comes later is ignored.
func (c *checker) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
}

// totals are the counts so far, and how many comments were acknowledged.
func (c *checker) totals() (counts, int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count, c.acked()
}

func (c *checker) acked() int64 {
	n := int64(0)
	for _, a := range c.perAuthor {
		n += a.acked
	}
	return n
}

// verdict judges the run; after close.
func (c *checker) verdict() verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := verdict{acked: c.acked(), lost: c.unseen, doubled: c.doubleAcks}
	if c.unseen > 0 {
		c.exampleOfLost()
	}
	extra := make([]int64, len(c.perAuthor)) // seen, and not acknowledged
	// The comments in order: when each was sent, -1 if it was not acknowledged, and
	// the latest of those times up to it.
	sent, latest := []int64{-1}, []int64{-1}
	for i := c.order.entries[0].next; i != 0; i = c.order.entries[i].next {
		e := &c.order.entries[i]
		at := int64(-1)
		if e.acked {
			at = e.sent
		} else if e.publisher >= 0 {
			extra[e.publisher]++
		}
		sent, latest = append(sent, at), append(latest, max(at, latest[len(latest)-1]))
	}
	for n, a := range c.perAuthor {
		if d := extra[n] - a.unanswered; d > 0 {
			v.doubled += d
			c.example("publisher %d: %d comments are in the room that were not acknowledged", n, d)
		}
	}
	pos := c.order.positions()
	for _, t := range c.tracks {
		if t.welcomeAt < 0 {
			continue
		}
		if n := c.missing(t, pos, sent, latest); n > 0 {
			v.missing += n
			v.missers++
			c.example("viewer %d misses %d comments", t.number, n)
		}
	}
	v.counts, v.examples = c.count, c.examples
	return v
}

// missing is how many comments a viewer should have received, was not told that
// it would not, and did not.
func (c *checker) missing(t *track, pos []int32, sent, latest []int64) int64 {
	end := pos[c.lastAcked]
	before := end + 1 // of the position where it began
	var n int64
	if t.last != 0 {
		before = pos[t.first]
		n = int64(pos[t.last]-pos[t.first]) + 1 - t.received - t.withheld - t.toldMissing
		for _, h := range t.holes {
			if h.told {
				n -= int64(pos[h.before]-pos[h.after]) - 1 - int64(len(h.late))
			}
		}
		if !t.told {
			n += int64(max(end-pos[t.last], 0))
		}
	} else if t.told {
		return 0
	}
	for _, i := range t.early {
		if pos[i] > before || sent[pos[i]] > t.welcomeAt {
			n--
		}
	}
	if before > 0 && latest[before-1] > t.welcomeAt {
		for p := int32(1); p < before; p++ {
			if sent[p] > t.welcomeAt {
				n++
			}
		}
	}
	return max(n, 0)
}

func (c *checker) exampleOfLost() {
	for n := range c.order.entries[1:] {
		if e := &c.order.entries[n+1]; e.acked && e.label == 0 {
			c.example("comment %s was acknowledged and seen by nobody", e.id)
			return
		}
	}
}
