package audit

import (
	"slices"
	"time"
)

// Window is a part of a run.
type Window struct{ From, To time.Duration }

// Effect is what a part of a run was like for its viewers.
type Effect struct {
	// Without is, for each viewer, the longest time in the window between two comments.
	Without []time.Duration
	// Away is, for each connection lost in it, the time until the viewer was welcome again,
	// and Back until it received something again.
	Away, Back []time.Duration
	// Returns are the times at which viewers were welcome again, after a loss or a move.
	Returns []time.Duration
	Moved   int // viewers that went to another connection without losing one
	// Answers are the times from sending to the answer, of what was sent in it and asked
	// once; Known of everything, however often it was asked.
	Answers, Known []time.Duration
	// Delivery are the times from sending to each viewer, of what was sent in it.
	Delivery []time.Duration

	Acknowledged, Refused, Unknown int
}

// Effect tells what a window was like. Nothing fills the journal any more.
func (j *Journal) Effect(w Window) Effect {
	j.mu.Lock()
	defer j.mu.Unlock()
	var e Effect
	for _, v := range j.viewers {
		if !v.whole {
			v.effect(w, j.sends, &e)
		}
	}
	for _, s := range j.sends {
		if !w.holds(s.At) {
			continue
		}
		switch s.Outcome {
		case Acknowledged:
			e.Acknowledged++
		case Refused:
			e.Refused++
		case Unknown:
			e.Unknown++
		}
		if s.Answered > 0 {
			e.Known = append(e.Known, s.Answered-s.At)
			if s.Once {
				e.Answers = append(e.Answers, s.Answered-s.At)
			}
		}
	}
	return e
}

// Breaks counts what viewers were told in a window: of gaps, and that they could not go on
// where they had stopped. Whoever fills the journal has stopped.
func (j *Journal) Breaks(w Window) (gaps, unrecovered int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, v := range j.viewers {
		for _, ev := range v.events {
			switch {
			case !w.holds(ev.at):
			case ev.kind == told:
				gaps++
			case ev.kind == notRecovered:
				unrecovered++
			}
		}
	}
	return gaps, unrecovered
}

func (w Window) holds(t time.Duration) bool { return t >= w.From && t < w.To }

func (v *Viewer) effect(w Window, sends []Send, e *Effect) {
	var (
		longest       time.Duration
		last          = time.Duration(-1) // when the comment before came
		away, missing = time.Duration(-1), time.Duration(-1)
		first         = true
	)
	for _, ev := range v.events {
		switch ev.kind {
		case received:
			if last >= 0 {
				longest = max(longest, min(ev.at, w.To)-max(last, w.From))
			}
			last = ev.at
			if i := int(ev.serial) - 1; i >= 0 && i < len(sends) && w.holds(sends[i].At) {
				e.Delivery = append(e.Delivery, ev.at-sends[i].At)
			}
			if missing >= 0 {
				e.Back = append(e.Back, ev.at-missing)
				missing = -1
			}
		case lost:
			if w.holds(ev.at) && away < 0 {
				away, missing = ev.at, ev.at
			}
		case moved:
			if w.holds(ev.at) {
				e.Moved++
			}
		case welcomed, notRecovered:
			if away >= 0 {
				e.Away = append(e.Away, ev.at-away)
				away = -1
			}
			if !first && w.holds(ev.at) {
				e.Returns = append(e.Returns, ev.at)
			}
			first = false
		}
	}
	if last >= 0 {
		e.Without = append(e.Without, longest)
	}
}

// Quantile is the q-th quantile, 0 to 1, of times; 0 when there are none.
func Quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Most is the most of the times that lie within one second, wherever it begins.
func Most(times []time.Duration) int {
	sorted := slices.Sorted(slices.Values(times))
	most, from := 0, 0
	for i := range sorted {
		for sorted[i]-sorted[from] >= time.Second {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}
