//go:build unix

package chaos

import (
	"fmt"
	"time"

	"github.com/kansei-live/kansei/loadtest/audit"
)

// mayBreak says what viewers may be told because of a fault.
type mayBreak struct {
	gaps        bool // of gaps
	unrecovered bool // that they do not go on where they stopped
}

// breaking are the faults that may have viewers told anything of the kind. Where the log
// dies while viewers come back, their place may not be found in time. A channel
// that overflows is repaired from the log, but a viewer may be too slow for what follows
// a flood. A log that was put back has lost what viewers had, and says so.
var breaking = map[string]mayBreak{
	"all-nats": {unrecovered: true},
	"overflow": {gaps: true},
	"restore":  {gaps: true, unrecovered: true},
}

// unexplained lists the gaps and the cursors that were not recovered which no fault
// explains. What viewers were told from the beginning of a fault to that of the next one
// is that fault's.
func unexplained(j *audit.Journal, events []event) []string {
	var out []string
	judge := func(when string, w audit.Window, may mayBreak) {
		gaps, lost := j.Breaks(w)
		if gaps > 0 && !may.gaps {
			out = append(out, fmt.Sprintf("%s: %d gaps that it does not explain", when, gaps))
		}
		if lost > 0 && !may.unrecovered {
			out = append(out, fmt.Sprintf("%s: %d cursors not recovered, which it does not explain", when, lost))
		}
	}
	end := time.Duration(0)
	for i, e := range events {
		if i == 0 {
			judge("before the first fault", audit.Window{To: e.window.From}, mayBreak{})
		}
		end = e.window.To
		if i+1 < len(events) {
			end = events[i+1].window.From
		}
		judge(e.name, audit.Window{From: e.window.From, To: end}, breaking[e.name])
	}
	judge("behind the last fault", audit.Window{From: end, To: 1 << 62}, mayBreak{})
	return out
}
