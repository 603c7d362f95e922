//go:build unix

package chaos

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kansei-live/kansei/loadtest/audit"
)

// Report is what came out of a run.
type Report struct {
	Config  Config
	Verdict *audit.Verdict

	Counted     time.Duration // after the last fault was mended, until the counts were exact
	CountsWrong error         // what is wrong with them in the end
	Behind      int           // viewers that have not received the last comment
	History     error         // why it could not be read
	Unexplained []string      // gaps and lost places that no fault explains
	Watched     *Watched      // what the watch log says, beside what viewers did; nil: it was not asked

	events  []event
	took    time.Duration
	effects []effect
}

// effect is what all strikes of one fault did.
type effect struct {
	fault
	times  int
	healed time.Duration // the longest
	copied time.Duration // the longest
	audit.Effect
	// Of drains: the most viewers that came back within a second, as a multiple of the
	// average over the drain, and how long after its beginning the last one did.
	peak   float64
	latest time.Duration
}

// measure adds up the strikes of each fault.
func (r *Report) measure(j *audit.Journal) {
	for _, f := range known() {
		e := effect{fault: f}
		for _, s := range r.events {
			if s.name != f.name {
				continue
			}
			e.times++
			e.healed, e.copied = max(e.healed, s.healed), max(e.copied, s.copied)
			one := j.Effect(s.window)
			e.Without = append(e.Without, one.Without...)
			e.Away, e.Back = append(e.Away, one.Away...), append(e.Back, one.Back...)
			e.Answers, e.Known = append(e.Answers, one.Answers...), append(e.Known, one.Known...)
			e.Delivery = append(e.Delivery, one.Delivery...)
			e.drains(j, s.phases, r.Config.Drain)
			e.Moved += one.Moved
			e.Acknowledged += one.Acknowledged
			e.Refused += one.Refused
			e.Unknown += one.Unknown
			e.Returns = append(e.Returns, one.Returns...)
		}
		if e.times > 0 {
			r.effects = append(r.effects, e)
		}
	}
}

// drains adds how evenly viewers came back from nodes that were drained.
func (e *effect) drains(j *audit.Journal, phases []audit.Window, drain time.Duration) {
	for _, w := range phases {
		back := j.Effect(w).Returns
		if len(back) == 0 {
			continue
		}
		e.peak = max(e.peak, float64(audit.Most(back))/(float64(len(back))/drain.Seconds()))
		e.latest = max(e.latest, slices.Max(back)-w.From)
	}
}

// Late lists what took longer than it may.
func (r *Report) Late() []string {
	var out []string
	if r.CountsWrong == nil && r.Counted > countTime {
		out = append(out, fmt.Sprintf("counts: exact only after %v", r.Counted))
	}
	for _, e := range r.effects {
		// In a restore a node is frozen on purpose, with those who wait for its answers.
		if worst := audit.Quantile(e.Answers, 1); worst > answerTime && e.name != "restore" {
			out = append(out, fmt.Sprintf("%s: an answer took %v", e.name, worst))
		}
		if e.latest > r.Config.Drain+backTime {
			out = append(out, fmt.Sprintf("%s: somebody was back only after %v", e.name, e.latest))
		}
		if back := audit.Quantile(e.Back, 0.99); e.name == "kill-edge" && back > backTime {
			out = append(out, fmt.Sprintf("%s: 99 %% were receiving again only after %v", e.name, back))
		}
	}
	return out
}

// Wrong lists what is not as it must be, however long it may take.
func (r *Report) Wrong() []string {
	var out []string
	for _, f := range r.Verdict.Failed() {
		out = append(out, fmt.Sprintf("%s: %d", f.Name, f.N))
	}
	if r.CountsWrong != nil {
		out = append(out, "counts: "+r.CountsWrong.Error())
	}
	if r.Behind > 0 {
		out = append(out, fmt.Sprintf("behind: %d viewers", r.Behind))
	}
	if r.History != nil {
		out = append(out, "history: "+r.History.Error())
	}
	out = append(out, r.Unexplained...)
	if r.Watched != nil {
		out = append(out, r.Watched.Wrong...)
	}
	for _, e := range r.events {
		if e.err != nil {
			out = append(out, e.name+": "+e.err.Error())
		}
	}
	return out
}

// Write writes the report for people.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nseed %d, %d viewers, %.0f s\n\n%s\n", r.Config.Seed, r.Config.Viewers, r.took.Seconds(), r.Verdict)
	fmt.Fprintf(&b, "counts exact %.1f s after the last fault was mended\n", r.Counted.Seconds())
	if r.Watched != nil {
		fmt.Fprintf(&b, "%s\n", r.Watched)
	}
	b.WriteByte('\n')
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, strings.Join(columns, "\t")) // Flush has the error
	for _, e := range r.effects {
		_, _ = fmt.Fprintln(t, strings.Join(e.cells(), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	b.WriteString(r.evenness())
	for _, f := range append(r.Wrong(), r.Late()...) {
		fmt.Fprintf(&b, "\nFAIL  %s", f)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

// Markdown is the report as a table of a document.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	row := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }
	v := r.Verdict
	fmt.Fprintf(&b, "Seed %d; %d viewers and %d publishers in %d rooms; %.0f s. %d comments sent: %d acknowledged, %d refused, %d unknown (%d of them in the log); %d of those in the log are events of the application. %d deliveries: lost %d, duplicated %d, disordered %d; gaps told %d, cursors not recovered %d. Refused and there: %d. %d acts of moderators acknowledged, %d refused, %d unknown: lost %d, refused and there %d, comments shown behind the act that hides them %d. Counts exact %.1f s after the last fault.\n\n",
		r.Config.Seed, r.Config.Viewers, r.Config.Rooms*r.Config.Publishers, r.Config.Rooms, r.took.Seconds(),
		v.Sent, v.Acknowledged, v.Refused, v.Unknown, v.UnknownInLog, v.Events, v.Received, v.Lost+v.Missing, v.Duplicated+v.Doubled, v.Disordered,
		v.Gaps, v.NotRecovered, v.Appeared, v.Acts, v.ActsRefused, v.ActsUnknown, v.LostActs, v.AppearedActs, v.Shown, r.Counted.Seconds())
	if r.Watched != nil {
		fmt.Fprintf(&b, "%s.\n\n", r.Watched)
	}
	row(columns)
	row(strings.Split(strings.Repeat("---,", len(columns)-1)+"---", ","))
	for _, e := range r.effects {
		row(e.cells())
	}
	b.WriteString(r.evenness())
	_, err := io.WriteString(w, b.String())
	return err
}

// evenness says how evenly viewers came back from drained nodes; nothing when none was
// drained.
func (r *Report) evenness() string {
	for _, e := range r.effects {
		if e.peak > 0 {
			return fmt.Sprintf("\nDrains of %v: at most %.2f × the average came back in one second, the last one %.1f s after the beginning.\n",
				r.Config.Drain, e.peak, e.latest.Seconds())
		}
	}
	return ""
}

// The columns of the table, times in seconds.
var columns = []string{
	"fault", "times", "without delivery: p50, p99, max", "delivery: p99, max", "lost, moved", "away: p50, p99", "receiving again: p99",
	"answer: p99, max", "known: max", "ok, refused, unknown", "ready after", "copies after",
}

func (e effect) cells() []string {
	return []string{
		e.name, fmt.Sprint(e.times), seconds(e.Without, 0.5, 0.99, 1), seconds(e.Delivery, 0.99, 1),
		fmt.Sprintf("%d, %d", len(e.Away), e.Moved), seconds(e.Away, 0.5, 0.99), seconds(e.Back, 0.99),
		seconds(e.Answers, 0.99, 1), seconds(e.Known, 1), fmt.Sprintf("%d, %d, %d", e.Acknowledged, e.Refused, e.Unknown),
		seconds([]time.Duration{e.healed}, 1), seconds([]time.Duration{e.copied}, 1),
	}
}

// seconds are quantiles of times, in seconds.
func seconds(times []time.Duration, quantiles ...float64) string {
	if len(times) == 0 {
		return "–"
	}
	cells := make([]string, len(quantiles))
	for i, q := range quantiles {
		cells[i] = fmt.Sprintf("%.2f", audit.Quantile(times, q).Seconds())
	}
	return strings.Join(cells, ", ")
}

func names(plan []fault) string {
	var out []string
	for _, f := range plan {
		out = append(out, f.name)
	}
	return strings.Join(out, ", ")
}
