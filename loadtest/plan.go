package loadtest

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// due is one comment of a plan, and when it is due since the beginning.
type due struct {
	at  time.Duration
	req protocol.CommentRequest
}

// plan is what will be published, in the order of time. It can be gone through
// more than once, and is the same each time.
type plan struct {
	total  int
	length time.Duration // until the last comment is due
	all    iter.Seq[due]
}

// maxPlanned bounds a plan; the checker keeps something of each comment.
const maxPlanned = 20_000_000

// plan reads the trace, or makes up comments at the rate.
func (c *Command) plan() (plan, error) {
	if c.Trace == "" {
		return c.generated()
	}
	f, err := os.Open(c.Trace)
	if err != nil {
		return plan{}, fmt.Errorf("loadtest: trace: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	trace, err := readTrace(f)
	if err != nil {
		return plan{}, fmt.Errorf("loadtest: trace %s: %w", c.Trace, err)
	}
	for i := range trace {
		trace[i].at = time.Duration(float64(trace[i].at) / c.Speed)
	}
	if c.Duration > 0 {
		n, _ := slices.BinarySearchFunc(trace, c.Duration, func(d due, t time.Duration) int { return cmp.Compare(d.at, t) })
		trace = trace[:n]
	}
	if len(trace) == 0 {
		return plan{}, fmt.Errorf("loadtest: trace %s holds no comment", c.Trace)
	}
	return plan{total: len(trace), length: trace[len(trace)-1].at, all: slices.Values(trace)}, nil
}

func (c *Command) generated() (plan, error) {
	duration := c.Duration
	if duration == 0 {
		duration = defaultDuration
	}
	n := math.Floor(c.Rate * duration.Seconds())
	if n < 1 || n > maxPlanned {
		return plan{}, fmt.Errorf("loadtest: %v/s for %v makes %.0f comments, want 1 to %d", c.Rate, duration, n, maxPlanned)
	}
	total := int(n)
	at := func(i int) time.Duration { return time.Duration(float64(i) / c.Rate * float64(time.Second)) }
	seed := c.Seed
	return plan{total: total, length: at(total - 1), all: func(yield func(due) bool) {
		rng := rand.New(rand.NewPCG(seed, 1))
		for i := range total {
			if !yield(due{at(i), generate(rng)}) {
				return
			}
		}
	}}, nil
}

// traced is a line of a trace file.
type traced struct {
	MediaMS  *int64 `json:"media_ms"`
	Text     string `json:"text"`
	Position string `json:"position"`
	Size     string `json:"size"`
	Color    string `json:"color"`
}

const maxTraceLine = 1 << 20

// readTrace reads a trace: a JSON object a line. The first comment is due at 0.
func readTrace(r io.Reader) ([]due, error) {
	var out []due
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxTraceLine)
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var t traced
		if err := json.Unmarshal(line, &t); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if t.MediaMS == nil || *t.MediaMS < 0 || *t.MediaMS > math.MaxInt64/int64(time.Millisecond) {
			return nil, fmt.Errorf("line %d: media_ms must be a number of milliseconds, 0 or more", n)
		}
		if len(out) == maxPlanned {
			return nil, fmt.Errorf("line %d: a trace has at most %d comments", n, maxPlanned)
		}
		d := due{time.Duration(*t.MediaMS) * time.Millisecond, protocol.CommentRequest{Text: t.Text, MediaMS: t.MediaMS}}
		if style := (protocol.Style{Position: t.Position, Size: t.Size, Color: t.Color}); style != (protocol.Style{}) {
			d.req.Style = &style
		}
		out = append(out, d)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("after %d comments: %w", len(out), err)
	}
	slices.SortStableFunc(out, func(a, b due) int { return cmp.Compare(a.at, b.at) })
	for i := range out {
		if i > 0 {
			out[i].at -= out[0].at
		}
	}
	if len(out) > 0 {
		out[0].at = 0
	}
	return out, nil
}

// tooMany is how many comments of the plan that many publishers, taking turns,
// could not send in time without breaking the limits: a bucket of limits.Burst that fills at
// limits.PerS.
func (p plan) tooMany(publishers int, limits protocol.Limits) int {
	if limits.PerS <= 0 {
		return 0
	}
	type bucket struct {
		at     time.Duration
		tokens float64
	}
	buckets := make([]bucket, publishers)
	for i := range buckets {
		buckets[i].tokens = float64(limits.Burst)
	}
	over, turn := 0, 0
	for d := range p.all {
		b := &buckets[turn%publishers]
		turn++
		b.tokens = min(b.tokens+(d.at-b.at).Seconds()*limits.PerS, float64(limits.Burst))
		b.at = d.at
		if b.tokens < 1 {
			over++
			continue
		}
		b.tokens--
	}
	return over
}

// maxPublishers bounds the number that is chosen, not the one that is asked for.
const maxPublishers = 5000

// enough is the number of publishers with which nothing has to be late, with some
// room; 0 when there is none.
func (p plan) enough(limits protocol.Limits) int {
	limits.PerS *= 0.8
	limits.Burst = (limits.Burst + 1) / 2
	low, high := 1, 1
	for p.tooMany(high, limits) > 0 {
		if high > maxPublishers {
			return 0
		}
		low, high = high+1, high*2
	}
	for low < high {
		if mid := (low + high) / 2; p.tooMany(mid, limits) == 0 {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return high
}
