package web

import (
	"strings"
	"testing"

	"github.com/kansei-live/kansei/protocol"
)

// A broadcaster sees who watched: the curve, who stayed, earlier broadcasts, and has the list as a file. Others do not see the card.
func TestStudioAudience(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	s := newStudio(t)
	s.you.Role = protocol.RoleBroadcaster
	s.you.Can = []string{"comment", "set", "act"}
	const at = 1767225600000
	log := protocol.WatchLog{Broadcast: "2", Summary: protocol.WatchSummary{Broadcast: "2", BeganAt: at, DurationMS: 3_900_000, Users: 1530, Peak: 1187, PeakAt: at + 600_000, Mean: 912.4}, Users: []protocol.WatchUser{}}
	for m := range 65 {
		log.Summary.Minutes = append(log.Summary.Minutes, protocol.WatchMinute{At: at + int64(m)*60_000, Users: 600 + m*9 - m*m/8, Stayed: 600 - m*5})
	}
	first := log
	first.Broadcast, first.Final, first.Revision = "1", true, 1
	first.Summary.Users, first.Summary.EndedAt = 12, at-1000
	s.casts = []protocol.BroadcastEntry{{Broadcast: "2", BeganAt: at}, {Broadcast: "1", BeganAt: at - 86_400_000, EndedAt: at - 80_000_000, Revision: 1, Final: true}}
	s.watched = map[string]protocol.WatchLog{"": log, "2": log, "1": first}
	p := open(t, browser, s.URL+"/studio/lesson-7#token="+testToken, desktop)
	p.wait(live + ` && !document.getElementById("audience").hidden && !document.getElementById("audience-shown").hidden`)
	if got := eval[string](p, `[...document.querySelectorAll("#audience-facts dd")].map((e) => e.textContent).join(" | ")`); !strings.HasPrefix(got, "1,530 | 1,187 (") || !strings.HasSuffix(got, "| 912 | 47% | 1:05") {
		t.Errorf("the facts are %q", got)
	}
	if got := eval[string](p, `document.getElementById("audience-curve").getAttribute("aria-label")`); got != "1,530 viewers, at most 1,187 at once; 47% of those of the first minute stayed" {
		t.Errorf("the curve says %q", got)
	}
	if n := eval[int](p, `document.getElementById("audience-line").points.length + document.getElementById("audience-stayed").points.length`); n != 130 {
		t.Errorf("the curves have %d points", n)
	}
	if got := eval[string](p, `document.getElementById("audience-state").textContent`); got != "As it is known now" {
		t.Error(got)
	}
	eval[bool](p, `document.getElementById("audience").scrollIntoView(); true`)
	p.shoot("studio-audience")
	eval[bool](p, `const e = document.getElementById("audience-broadcast"); e.value = "1"; e.dispatchEvent(new Event("change")); true`)
	p.wait(`document.getElementById("audience-state").textContent === "Final" && document.querySelector("#audience-facts dd").textContent === "12"`)
	if got := eval[string](p, `document.getElementById("audience-broadcast").value`); got != "1" {
		t.Errorf("%s is chosen", got)
	}
	eval[bool](p, `URL.createObjectURL = () => "#kept"; true`)
	p.click("audience-csv")
	p.wait(`document.getElementById("audience-csv").getAttribute("aria-disabled") === "false" && document.getElementById("audience-note").textContent === ""`)
	s.set(func(s *fakeServer) {
		if len(s.csv) != 1 || !strings.Contains(s.csv[0], "broadcast=1") || !strings.Contains(s.csv[0], "tz=") {
			t.Errorf("asked for %q", s.csv)
		}
		s.casts = nil
	})
	eval[bool](p, `document.getElementById("audience-broadcast").dispatchEvent(new Event("change")); true`)
	p.wait(`document.getElementById("audience-note").textContent === "No broadcast was watched yet." && document.getElementById("audience-shown").hidden`)

	p.clean()

	s.set(func(s *fakeServer) { s.you.Role = protocol.RoleModerator })
	other := open(t, browser, s.URL+"/studio/lesson-8#token="+testToken, desktop)
	other.wait(live)
	if !eval[bool](other, `document.getElementById("audience").hidden`) {
		t.Error("a moderator sees who watched")
	}
}
