package loadtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// TestOrderRelabels inserts into the same place until there is no room.
func TestOrderRelabels(t *testing.T) {
	t.Parallel()
	o := newOrder()
	at := func(s string) int32 {
		id, ok := parseID(s)
		if !ok {
			t.Fatalf("id %q", s)
		}
		return o.entryOf(id)
	}
	o.insert(at("a"), 0)
	o.insert(at("z"), at("a"))
	for n := range 1000 {
		o.insert(at(fmt.Sprint(n)), at("a"))
	}
	want := at("a")
	for n := 999; n >= 0; n-- {
		if i := at(fmt.Sprint(n)); !o.after(i, want) || o.entries[i].prev != want {
			t.Fatalf("%d is not behind its predecessor", n)
		} else {
			want = i
		}
	}
	if !o.after(at("z"), want) || o.positions()[at("z")] != 1002 {
		t.Error("z is not the last")
	}
}

// TestManyHoles skips more than a track remembers.
func TestManyHoles(t *testing.T) {
	t.Parallel()
	c := newChecker()
	whole, holey := c.viewer(), c.viewer()
	c.welcomed(whole, 0, false)
	c.welcomed(holey, 0, false)
	const n = 3 * maxHoles
	show := func(v *track, i int) {
		raw := protocol.Encode(&protocol.Comments{Cursor: "c", Items: []protocol.Comment{{ID: fmt.Sprint("c", i), At: int64(i)}}})
		c.frame(v, raw, len(raw), int64(i))
	}
	author := c.publisher("p")
	for i := range n {
		show(whole, i)
		c.acknowledged(fmt.Sprint("c", i), author, int64(i), int64(i)+1)
		if i%2 == 0 {
			show(holey, i)
			if i%4 == 0 {
				c.gap(holey, &protocol.Gap{Missed: 1, Cursor: "c"})
			}
		}
	}
	c.close()
	v := c.verdict()
	// Of the skipped half every other one was told of.
	if v.missing != n/4 || v.gaps != n/4 || v.missers != 1 || v.duplicates+v.disorder != 0 {
		t.Errorf("%d missing from %d viewers, %d gaps, %d duplicates, %d out of order, want %d missing",
			v.missing, v.missers, v.gaps, v.duplicates, v.disorder, n/4)
	}
	if len(v.examples) > maxExamples {
		t.Errorf("%d examples", len(v.examples))
	}
}

// TestCacheOverflows has more frames under way than are kept.
func TestCacheOverflows(t *testing.T) {
	t.Parallel()
	c := newChecker()
	a, b := c.viewer(), c.viewer()
	c.welcomed(a, 0, false)
	c.welcomed(b, 0, false)
	author := c.publisher("p")
	const n = maxFrames + 500
	var raws [][]byte
	for i := range n {
		raws = append(raws, protocol.Encode(&protocol.Comments{Cursor: "c", Items: []protocol.Comment{{ID: fmt.Sprint("c", i), At: 1}}}))
		c.acknowledged(fmt.Sprint("c", i), author, 0, 1)
		c.frame(a, raws[i], len(raws[i]), 2)
	}
	for _, raw := range raws {
		c.frame(b, raw, len(raw), int64(3*time.Second))
	}
	l := newLatencies()
	l.add(c.collect(false))
	c.close()
	if v := c.verdict(); v.missing+v.duplicates+v.disorder+v.lost != 0 || v.deliveries != 2*n || l.total.TotalCount() != 2*n {
		t.Errorf("verdict %+v with %d latencies, want %d deliveries and nothing wrong", v, l.total.TotalCount(), 2*n)
	}
}

// BenchmarkFrame is what one viewer's frame costs the checker: 20 comments that
// 1,000 viewers receive.
func BenchmarkFrame(b *testing.B) {
	const viewers, perFrame = 1000, 20
	c := newChecker()
	author := c.publisher("p")
	tracks := make([]*track, viewers)
	for i := range tracks {
		tracks[i] = c.viewer()
		c.welcomed(tracks[i], 0, false)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	n, next, id := 0, viewers, 0
	var raw []byte
	for b.Loop() {
		if next == viewers {
			next = 0
			m := &protocol.Comments{Cursor: "cursor-1"}
			for range perFrame {
				req := generate(rng)
				m.Items = append(m.Items, protocol.Comment{
					ID: fmt.Sprintf("c%d", id), At: int64(id), User: protocol.User{ID: "someone", Name: "Someone"}, Text: req.Text, Style: req.Style,
				})
				c.acknowledged(fmt.Sprintf("c%d", id), author, int64(n), int64(n))
				id++
			}
			raw = protocol.Encode(m)
		}
		c.frame(tracks[next], raw, len(raw), int64(n))
		next++
		n++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n)/perFrame, "ns/delivery")
}

// TestSkippersDoNotMisleadOthers lets a node that has lost comments report the
// later ones first: those who receive everything must not be blamed.
func TestSkippersDoNotMisleadOthers(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := newChecker()
		author := c.publisher("p")
		const n, viewers = 30, 6 // viewers 0 and 1 are on the node that loses
		lost := map[int]bool{1 + rng.IntN(n-2): true, 1 + rng.IntN(n-2): true}
		log := make([]protocol.Comment, n)
		for i := range log {
			log[i] = protocol.Comment{ID: fmt.Sprint("c", i), At: int64(i / 3)}
			c.acknowledged(log[i].ID, author, int64(i), int64(i)+1)
		}
		var next [viewers]int
		for range viewers {
			c.welcomed(c.viewer(), 0, false)
		}
		for done := 0; done < viewers; {
			v := rng.IntN(viewers)
			if next[v] == n {
				continue
			}
			end := min(next[v]+1+rng.IntN(3), n)
			var items []protocol.Comment
			for i := next[v]; i < end; i++ {
				if v > 1 || !lost[i] {
					items = append(items, log[i])
				}
			}
			if next[v] = end; end == n {
				done++
			}
			if len(items) > 0 {
				raw := protocol.Encode(&protocol.Comments{Cursor: fmt.Sprint(end), Items: items})
				c.frame(c.tracks[v], raw, len(raw), int64(n))
			}
		}
		c.close()
		v := c.verdict()
		if v.missing != int64(2*len(lost)) || v.missers != 2 || v.duplicates+v.disorder+v.lost != 0 {
			t.Fatalf("seed %d: %d missing from %d viewers, %d duplicates, %d out of order, want %d missing from 2\n%s",
				seed, v.missing, v.missers, v.duplicates, v.disorder, 2*len(lost), strings.Join(v.examples, "\n"))
		}
	}
}
