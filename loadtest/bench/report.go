package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Report is what a run measured.
type Report struct {
	Machine string `json:"machine"` // processors, memory, kernel, Go
	Version string `json:"version"` // of the node
	Engines string `json:"engines"` // where NATS and Redis are
	Pairs   int    `json:"pairs"`
	Rows    []Row  `json:"rows"`
	// Curve is what a hot room costs against --coalesce, if that was measured.
	Curve []Point `json:"curve,omitempty"`
}

// Row is one figure.
type Row struct {
	Goal     int     `json:"goal"` // its number in the issue of the fan-out
	Scenario string  `json:"scenario"`
	Figure   string  `json:"figure"`
	Value    float64 `json:"value"`
	Unit     string  `json:"unit"`
	// Bound is the largest value that is good; nil if the figure is only told.
	Bound *float64 `json:"bound,omitempty"`
	// Values are what Value is the median of, Node and Floor what they were made of.
	Values Spread `json:"values"`
	Node   Spread `json:"node"`
	Floor  Spread `json:"floor"`
	Raw    string `json:"raw_unit,omitempty"` // of Node and Floor
	Note   string `json:"note,omitempty"`
}

// Spread is some measurements of the same thing, in the order in which they were taken.
type Spread []float64

// Median is the middle one; of an even number the mean of the two.
func (s Spread) Median() float64 {
	if len(s) == 0 {
		return 0
	}
	o := slices.Sorted(slices.Values(s))
	n := len(o)
	return (o[(n-1)/2] + o[n/2]) / 2
}

// String is "median (least–most)".
func (s Spread) String() string {
	switch len(s) {
	case 0:
		return "–"
	case 1:
		return number(s[0])
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.Median()), number(slices.Min(s)), number(slices.Max(s)))
}

// less is each of s less the same of o.
func (s Spread) less(o Spread) Spread {
	out := make(Spread, 0, len(s))
	for i := range s {
		out = append(out, s[i]-o[i])
	}
	return out
}

// number has three digits that matter.
func number(v float64) string {
	switch abs := max(v, -v); {
	case abs >= 100:
		return fmt.Sprintf("%.0f", v)
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	case abs >= 0.1 || abs == 0:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.4f", v)
	}
}

// OK reports whether the bound is met, or there is none.
func (r *Row) OK() bool { return r.Bound == nil || r.Value <= *r.Bound }

// add adds a figure, and the values of which it is the median.
func (r *Report) add(row Row) {
	if len(row.Values) == 0 {
		row.Values = Spread{row.Value}
	} else {
		row.Value = row.Values.Median()
	}
	r.Rows = append(r.Rows, row)
}

// within makes a bound.
func within(v float64) *float64 { return &v }

// Missed names the figures that miss their bound.
func (r *Report) Missed() []string {
	var out []string
	for i := range r.Rows {
		if row := &r.Rows[i]; !row.OK() {
			out = append(out, row.Scenario+": "+row.Figure)
		}
	}
	return out
}

// String is the report as Markdown.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; kansei %s; %s; median (least–most) of %d pairs.\n\n", r.Machine, r.Version, r.Engines, r.Pairs)
	b.WriteString("| goal | scenario | figure | measured | bound | | node | floor | |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for i := range r.Rows {
		row := &r.Rows[i]
		bound, verdict, raw := "", "", ""
		if row.Bound != nil {
			bound, verdict = "≤ "+number(*row.Bound), "ok"
			if !row.OK() {
				verdict = "**missed**"
			}
		}
		if row.Raw != "" {
			raw = " " + row.Raw
		}
		made := func(s Spread) string {
			if len(s) == 0 {
				return ""
			}
			return s.String() + raw
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s %s | %s | %s | %s | %s | %s |\n", row.Goal, row.Scenario, row.Figure,
			row.Values, row.Unit, bound, verdict, made(row.Node), made(row.Floor), row.Note)
	}
	if len(r.Curve) > 0 {
		b.WriteString("\n| `--coalesce` | CPU of a delivery, µs | of the floor's write | comments in a frame | B a comment | p50, ms | p99, ms |\n")
		b.WriteString("| --- | --- | --- | --- | --- | --- | --- |\n")
	}
	for i := range r.Curve {
		p := &r.Curve[i]
		fmt.Fprintf(&b, "| %v | %s | %s | %s | %s | %s | %s |\n", p.Coalesce, p.CostUS, p.Ratio, p.PerFrame, p.Size, p.P50MS, p.P99MS)
	}
	return b.String()
}

// Point is what a hot room costs with one setting of --coalesce.
type Point struct {
	Coalesce time.Duration `json:"coalesce_ns"`
	CostUS   Spread        `json:"cpu_us_per_delivery"`
	Ratio    Spread        `json:"of_floor"` // of the floor's cost of one write
	PerFrame Spread        `json:"comments_per_frame"`
	Size     Spread        `json:"bytes_per_comment"`
	P50MS    Spread        `json:"p50_ms"`
	P99MS    Spread        `json:"p99_ms"`
}
