package web

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

// A moderator looks at what a sweep would find, and sweeps it away; what is more than a fifth of those who speak takes another look.
func TestStudioSweep(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	s := newStudio(t)
	s.you.Can = []string{"comment", "set", "act"}
	s.found = protocol.Sweep{Sweep: "dry-1", Comments: 312, Users: 41, Of: 530, Samples: []protocol.Comment{
		{ID: "1abcd", At: 1, User: protocol.User{ID: "b1", Name: "bot <1>"}, Text: "JOIN NOW <b>"}, {ID: "2abcd", At: 2, User: protocol.User{ID: "b2"}, Text: "ｊｏｉｎ now"},
	}}
	p := open(t, browser, s.URL+"/studio/lesson-7#token="+testToken, desktop)
	p.wait(live + ` && !document.getElementById("sweep").hidden`)
	s.say(protocol.Comment{User: protocol.User{ID: "eve", Name: "eve"}, Text: "JOIN NOW"})
	p.wait(`document.querySelectorAll("#list .item").length === 1`)
	if !eval[bool](p, `document.getElementById("sweep-address").disabled`) {
		t.Error("the address of nobody can be chosen")
	}
	eval[bool](p, `document.querySelector("#list .item").click(); true`)
	p.wait(`!document.getElementById("sweep-address").disabled && document.getElementById("sweep-address-who").textContent === "From the same address as eve"`)
	p.click("sweep-address")
	p.do(chromedp.SendKeys(chromedp.ID("sweep-text"), "join now"))
	p.click("sweep-look")
	p.wait(`!document.getElementById("sweep-found").hidden && document.getElementById("sweep-note").textContent === "312 comments by 41 of 530 who spoke"`)
	s.set(func(s *fakeServer) {
		want := protocol.SweepQuery{LastMS: 300_000, Guests: true, NewcomersMS: 600_000, SameAddress: "eve", Text: "join now"}
		if len(s.sweeps) != 1 || s.sweeps[0] != want {
			t.Errorf("asked for %+v", s.sweeps)
		}
	})
	if got := eval[string](p, `[...document.querySelectorAll("#sweep-samples .said")].map((e) => e.textContent).join(" | ")`); got != "bot <1> JOIN NOW <b> | b2 ｊｏｉｎ now" {
		t.Errorf("the samples are %q", got)
	}
	eval[bool](p, `document.getElementById("sweep").scrollIntoView(); true`)
	p.shoot("studio-sweep")
	// Whatever is changed takes another look.
	p.click("sweep-links")
	p.wait(`document.getElementById("sweep-found").hidden`)
	s.set(func(s *fakeServer) { s.found.Sure, s.found.Sweep, s.found.Of = true, "dry-2", 100 })
	p.click("sweep-look")
	p.wait(`!document.getElementById("sweep-sure-row").hidden && document.getElementById("sweep-do").getAttribute("aria-disabled") === "true"`)
	p.click("sweep-do")
	p.click("sweep-sure")
	p.wait(`document.getElementById("sweep-do").getAttribute("aria-disabled") === "false"`)
	p.do(chromedp.SendKeys(chromedp.ID("sweep-reason"), "raid"))
	p.click("sweep-do")
	p.wait(`document.getElementById("sweep-note").textContent === "312 comments are gone. Undo stands in the log below."`)
	s.set(func(s *fakeServer) {
		a := s.acts[0]
		if len(s.acts) != 1 || a.Type != protocol.TypeSweep || a.Sweep != "dry-2" || !a.Sure || a.Until != "broadcast" || a.Reason != "raid" || a.Spare {
			t.Errorf("swept by %+v", a)
		}
		s.found = protocol.Sweep{Sweep: "dry-3", Of: 9, Samples: []protocol.Comment{}}
	})
	eval[bool](p, `document.getElementById("sweep-look").scrollIntoView({ block: "center" }); true`)
	p.click("sweep-look")
	p.wait(`document.getElementById("sweep-note").textContent === "Nothing is found." && document.getElementById("sweep-found").hidden`)
	p.clean()
}

// The log of moderation is on the page, and live; each entry can be undone, and each user has a card.
func TestStudioLog(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	s := newStudio(t)
	s.you.Can = []string{"comment", "set", "act"}
	mod := protocol.User{ID: "mod", Name: "Mod", Role: protocol.RoleModerator}
	for i, typ := range []string{protocol.TypeMute, protocol.TypeBan, protocol.TypeWarn} {
		s.entries = append(s.entries, protocol.Entry{Act: fmt.Sprint("a", i), Type: typ, By: mod, At: 1767225600000, User: &protocol.User{ID: "eve", Name: "eve"}, Reason: "spam"})
	}
	s.members = []protocol.Member{{ID: "eve", Name: "eve", Role: protocol.RoleViewer, Since: 1767225600000, Devices: 1}}
	s.people = map[string]protocol.Person{"eve": {
		User: protocol.User{ID: "eve", Name: "eve"}, FirstSeen: 1764547200000, Since: 1767225600000, Devices: 2,
		Comments: []protocol.PastComment{
			{Comment: protocol.Comment{ID: "2abcd", At: 1767225600000, User: protocol.User{ID: "eve"}, Text: "and <b>again</b>"}, Removed: true},
			{Comment: protocol.Comment{ID: "1abcd", At: 1767225500000, User: protocol.User{ID: "eve"}, Text: "hello"}},
		},
		Acts: s.entries[:1],
	}}
	p := open(t, browser, s.URL+"/studio/lesson-7#token="+testToken, desktop)
	p.wait(live + ` && document.querySelectorAll("#log-list .entry").length === 2 && document.getElementById("log-empty").hidden`)
	p.click("log-more")
	p.wait(`document.querySelectorAll("#log-list .entry").length === 3 && document.getElementById("log-more").hidden`)
	s.send(&protocol.Moderation{Entry: protocol.Entry{
		Act: "s", Type: protocol.TypeSweep, By: mod, At: 1767225700000, Comments: 312, Users: 41, Until: "broadcast", Sweep: &protocol.SweepQuery{Text: "join <now>"},
	}})
	p.wait(`document.querySelector("#log-list .entry").textContent.includes("Swept 312 comments of 41 users")`)
	eval[bool](p, `document.getElementById("log").scrollIntoView(); true`)
	p.shoot("studio-log")
	eval[bool](p, `document.querySelector("#log-list .entry-undo").click(); true`)
	p.wait(`document.getElementById("log-note").textContent === "Undone"`)
	s.set(func(s *fakeServer) {
		if a := s.acts[0]; len(s.acts) != 1 || a.Type != protocol.TypeUndo || a.Act != "s" {
			t.Errorf("undone by %+v", a)
		}
	})
	s.send(&protocol.Moderation{Entry: protocol.Entry{
		Act: "s", Type: protocol.TypeSweep, By: mod, At: 1767225700000, Comments: 312, Users: 41, Undone: &protocol.Undone{Act: "u", By: mod, At: 1767225800000},
	}})
	p.wait(`document.querySelectorAll("#log-list .entry").length === 4 && document.querySelector("#log-list .entry").classList.contains("undone") && document.querySelector("#log-list .entry").querySelector(".entry-undo") === null`)
	// The card, from the log, from the list of people, and of the chosen comment.
	eval[bool](p, `document.querySelector("#log-list button.entry-whom").click(); true`)
	p.wait(`document.getElementById("card").open && document.querySelectorAll("#card-comments .said").length === 2 && document.querySelectorAll("#card-acts .entry").length === 1`)
	if got := eval[string](p, `document.getElementById("card-facts").textContent`); got == "" || eval[int](p, `document.querySelectorAll("#card-comments .removed s").length`) != 1 {
		t.Errorf("the card says %q", got)
	}
	p.shoot("studio-card")
	p.do(chromedp.SendKeys(chromedp.ID("card-text"), "first time"))
	p.click("card-keep")
	p.wait(`document.getElementById("card-note").textContent === "Kept"`)
	s.set(func(s *fakeServer) {
		if a := s.acts[1]; len(s.acts) != 2 || a.Type != protocol.TypeNote || a.User != "eve" || a.Text != "first time" {
			t.Errorf("noted by %+v", a)
		}
	})
	p.click("card-close")
	p.wait(`!document.getElementById("card").open && document.querySelector("button.person-name") !== null`)
	eval[bool](p, `document.querySelector("button.person-name").click(); true`)
	p.wait(`document.getElementById("card").open`)
	p.click("card-close")
	s.say(protocol.Comment{User: protocol.User{ID: "eve", Name: "eve"}, Text: "hello"})
	p.wait(`document.querySelectorAll("#list .item").length === 1`)
	eval[bool](p, `document.querySelector("#list .item").click(); true`)
	p.do(chromedp.Focus(chromedp.ID("list")), chromedp.KeyEvent("c"))
	p.wait(`document.getElementById("card").open && document.getElementById("card-name").textContent === "eve"`)
	p.clean()
}
