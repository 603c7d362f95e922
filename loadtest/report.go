package loadtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/kansei-live/kansei/protocol"
)

// Report is what a run found out; encoded as JSON it is what --json prints. Times
// are in the unit of their names.
type Report struct {
	Room        string   `json:"room"`
	Nodes       []string `json:"nodes"`
	Compressed  bool     `json:"compressed"`
	Interrupted bool     `json:"interrupted"`

	Viewers   ViewersReport   `json:"viewers"`
	Published PublishedReport `json:"published"`
	Delivered DeliveredReport `json:"delivered"`
	// LatencyMS is from when a comment was due to when a viewer had read it.
	LatencyMS Percentiles `json:"latency_ms"`

	OK     bool    `json:"ok"`
	Checks []Check `json:"checks"`
	// Examples tell the first things that went wrong.
	Examples []string `json:"examples,omitempty"`
}

// ViewersReport says how the viewers came, went and came back.
type ViewersReport struct {
	Asked     int         `json:"asked"`
	Joined    int64       `json:"joined"`
	JoinMS    Percentiles `json:"join_ms"`   // from setting out to the welcome
	JoiningS  float64     `json:"joining_s"` // until the last one was in
	Refusals  Reasons     `json:"refusals"`  // of attempts to join
	Lost      Reasons     `json:"lost"`      // connections
	SentAway  Reasons     `json:"sent_away"` // viewers, for good
	Returned  int64       `json:"returned"`
	WithoutMS Percentiles `json:"without_delivery_ms"` // of those who returned: from the last message to the welcome
}

// Reasons counts by reason.
type Reasons map[string]int64

// PublishedReport says what became of the plan.
type PublishedReport struct {
	Planned      int                          `json:"planned"`
	Publishers   int                          `json:"publishers"`
	Sent         int64                        `json:"sent"`
	Acknowledged int64                        `json:"acknowledged"`
	Refused      map[protocol.ErrorCode]int64 `json:"refused"`
	Unanswered   int64                        `json:"unanswered"`
	Late         int64                        `json:"late"` // sent more than 50 ms after they were due
	WorstLateMS  float64                      `json:"worst_late_ms"`
	Seconds      float64                      `json:"seconds"`
}

// DeliveredReport says what the viewers received. One delivery is one comment
// to one viewer; the recent comments that come with a join are none.
type DeliveredReport struct {
	Deliveries       int64   `json:"deliveries"`
	PerSecond        float64 `json:"per_second"`
	Frames           int64   `json:"frames"`
	PerFrame         float64 `json:"per_frame"`
	BytesPerDelivery float64 `json:"bytes_per_delivery"` // payload of comments messages on the wire
	BytesPerSecond   float64 `json:"bytes_per_second"`   // of messages of all types
	History          int64   `json:"history"`
	Untimed          int64   `json:"untimed"` // of comments that were not ours, or not acknowledged
	SettledS         float64 `json:"settled_s"`
}

// Percentiles of a distribution; zeros when it is empty.
type Percentiles struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p99_9"`
	Max   float64 `json:"max"`
}

// Check is one thing that must hold, and how often it did not.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Failed int64  `json:"failed"`
	What   string `json:"what"` // what Failed counts
}

// Failed lists the checks that failed, with their counts.
func (r *Report) Failed() []string {
	var out []string
	for _, c := range r.Checks {
		if !c.OK {
			out = append(out, fmt.Sprintf("%s (%d)", c.Name, c.Failed))
		}
	}
	return out
}

func percentiles(h *hdrhistogram.Histogram) Percentiles {
	ms := func(q float64) float64 { return float64(h.ValueAtPercentile(q)) / 1000 }
	if h.TotalCount() == 0 {
		return Percentiles{}
	}
	return Percentiles{Count: h.TotalCount(), P50: ms(50), P90: ms(90), P99: ms(99), P999: ms(99.9), Max: float64(h.Max()) / 1000}
}

// quantile is one percentile, for people.
func quantile(h *hdrhistogram.Histogram, q float64) string {
	if h.TotalCount() == 0 {
		return "-"
	}
	return millis(float64(h.ValueAtPercentile(q)) / 1000)
}

func millis(ms float64) string {
	switch {
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

// report puts together what was found; ended is when the viewers had settled.
func (r *run) report(joining, settled time.Duration, ended int64) *Report {
	v := r.check.verdict()
	rep := &Report{
		Room: r.room, Nodes: r.cmd.URL, Compressed: r.cmd.Compress,
		LatencyMS: percentiles(r.latency.total), Examples: v.examples,
	}
	l := r.losses
	l.mu.Lock()
	rep.Viewers = ViewersReport{
		Asked: r.asked, Joined: r.joined.Load(), JoinMS: percentiles(l.join), JoiningS: joining.Seconds(),
		Refusals: maps.Clone(l.refusals), Lost: maps.Clone(l.reasons), SentAway: maps.Clone(l.ends),
		Returned: l.returned, WithoutMS: percentiles(l.away),
	}
	l.mu.Unlock()
	if r.asked < 0 {
		rep.Viewers.Asked = int(rep.Viewers.Joined)
	}
	o := &r.out
	o.mu.Lock()
	rep.Published = PublishedReport{
		Planned: r.plan.total, Publishers: len(r.publishers), Sent: o.sent, Acknowledged: o.acked,
		Refused: maps.Clone(o.refused), Unanswered: o.unanswered, Late: o.late,
		WorstLateMS: float64(o.worst.Microseconds()) / 1000, Seconds: o.length.Seconds(),
	}
	o.mu.Unlock()
	d := DeliveredReport{
		Deliveries: v.deliveries, Frames: v.frames, History: v.history, Untimed: r.latency.untimed, SettledS: settled.Seconds(),
	}
	if v.deliveries > 0 {
		d.PerFrame = float64(v.deliveries) / float64(v.frames)
		d.BytesPerDelivery = float64(v.bytes) / float64(v.deliveries)
	}
	if s := time.Duration(ended - o.began).Seconds(); o.length > 0 {
		d.PerSecond, d.BytesPerSecond = float64(v.deliveries)/s, float64(v.allBytes)/s
	}
	rep.Delivered = d
	rep.check(&v)
	return rep
}

// check judges.
func (r *Report) check(v *verdict) {
	refused := int64(0)
	for code, n := range r.Published.Refused {
		// The text is the plan's own fault; anything else is load that was not taken.
		if code != protocol.CodeTooLong && code != protocol.CodeEmpty && code != protocol.CodeBadMessage {
			refused += n
		}
	}
	add := func(name string, failed int64, what string) {
		r.Checks = append(r.Checks, Check{Name: name, OK: failed == 0, Failed: failed, What: what})
	}
	add("joined", int64(r.Viewers.Asked)-r.Viewers.Joined, "viewers that could not join")
	add("stayed", sum(r.Viewers.SentAway), "viewers that were sent away for good")
	add("accepted", refused, "comments refused for another reason than their text")
	add("answered", r.Published.Unanswered, "comments whose outcome was never told")
	add("seen", v.lost, "acknowledged comments that nobody saw")
	add("single", v.doubled, "comments that are in the room twice, or are one though two were acknowledged")
	add("complete", v.missing, fmt.Sprintf("comments missing, from %d viewers", v.missers))
	add("once", v.duplicates, "comments received again")
	add("in order", v.disorder, "comments received out of order")
	add("no gap", v.gaps, fmt.Sprintf("gaps told, of %d comments", v.gapMissed))
	add("nothing withheld", v.withheld, "comments left out as told")
	add("recovered", v.notRecovered, "cursors that could not be continued from")
	add("well formed", v.malformed, "malformed parts of messages")
	r.OK = len(r.Failed()) == 0
}

// String is the report for people.
func (r *Report) String() string {
	var b strings.Builder
	line := func(label, format string, a ...any) {
		fmt.Fprintf(&b, "%-11s "+format+"\n", append([]any{label}, a...)...)
	}
	v, p, d := &r.Viewers, &r.Published, &r.Delivered
	line("room", "%s on %s%s", r.Room, strings.Join(r.Nodes, ", "), map[bool]string{true: ", deflated"}[r.Compressed])
	line("viewers", "%d of %d joined in %.1f s", v.Joined, v.Asked, v.JoiningS)
	line("join", "%v", v.JoinMS)
	for _, reasons := range []struct {
		label string
		m     Reasons
	}{{"refusals", v.Refusals}, {"lost", v.Lost}, {"sent away", v.SentAway}} {
		if len(reasons.m) > 0 {
			line(reasons.label, "%v", reasons.m)
		}
	}
	if v.Returned > 0 {
		line("returned", "%d; without delivery %v", v.Returned, v.WithoutMS)
	}
	line("published", "%d acknowledged of %d sent and %d planned, by %d publishers in %.1f s", p.Acknowledged, p.Sent, p.Planned, p.Publishers, p.Seconds)
	if len(p.Refused) > 0 {
		refused := make(Reasons)
		for code, n := range p.Refused {
			refused[string(code)] = n
		}
		line("refused", "%v", refused)
	}
	line("late", "%d sent more than %v after they were due, the worst %s", p.Late, lateAfter, millis(p.WorstLateMS))
	line("delivered", "%d, %.0f/s, %.1f in a message, %.0f B each; in all %.1f Mbit/s", d.Deliveries, d.PerSecond, d.PerFrame, d.BytesPerDelivery, d.BytesPerSecond*8/1e6)
	line("latency", "%v", r.LatencyMS)
	b.WriteByte('\n')
	for _, c := range r.Checks {
		if c.OK {
			fmt.Fprintf(&b, "ok    %s\n", c.Name)
		} else {
			fmt.Fprintf(&b, "FAIL  %s: %d %s\n", c.Name, c.Failed, c.What)
		}
	}
	for _, e := range r.Examples {
		fmt.Fprintf(&b, "      %s\n", e)
	}
	if r.Interrupted {
		b.WriteString("The run was interrupted: this is about what had been published.\n")
	}
	return b.String()
}

// String is "p50 1.2 ms  p90 …".
func (p Percentiles) String() string {
	if p.Count == 0 {
		return "-"
	}
	return fmt.Sprintf("p50 %s  p90 %s  p99 %s  p99.9 %s  max %s", millis(p.P50), millis(p.P90), millis(p.P99), millis(p.P999), millis(p.Max))
}

// String is "reason n, reason n".
func (r Reasons) String() string {
	parts := make([]string, 0, len(r))
	for _, k := range slices.Sorted(maps.Keys(r)) {
		parts = append(parts, fmt.Sprintf("%s: %d", k, r[k]))
	}
	return strings.Join(parts, ", ")
}
