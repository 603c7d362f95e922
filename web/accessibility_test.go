package web

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

// views are those in which both pages must be usable.
var views = map[string]view{
	"desktop":      {width: 1280, height: 800, scale: 1, lang: "en"},
	"desktop dark": {width: 1280, height: 800, scale: 1, dark: true, lang: "ja"},
	"phone dark":   {width: 390, height: 844, scale: 2, dark: true, lang: "en"},
	"320 px":       {width: 320, height: 568, scale: 2, lang: "en"},
	"320 px dark":  {width: 320, height: 568, scale: 2, dark: true, lang: "ja"},
	"200 %":        {width: 640, height: 400, scale: 2, lang: "ja"},
	"200 % dark":   {width: 640, height: 400, scale: 2, dark: true, lang: "en"},
}

// Small targets, small type in a box (which makes phones zoom), and what sticks
// out of the window to the side. What is for screen readers alone is 1 px wide; a
// radio button counts with its label.
const geometry = `(() => {
	const bad = [];
	for (const e of document.querySelectorAll("button, summary, input, textarea, a[href]")) {
		const box = (e.matches("input[type=radio]") ? e.closest("label") : e).getBoundingClientRect();
		if (box.width <= 1 || e.classList.contains("skip")) continue;
		if (box.width < 43.5 || box.height < 43.5) bad.push("small: " + e.outerHTML.slice(0, 80) + " " + box.width + "×" + box.height);
		if (e.matches("input:not([type=radio]), textarea") && parseFloat(getComputedStyle(e).fontSize) < 16) bad.push("small type: " + e.id);
		if (box.right > innerWidth + 1 || box.left < -1) bad.push("sticks out: " + e.outerHTML.slice(0, 80));
	}
	if (document.documentElement.scrollWidth > innerWidth) bad.push("the page scrolls sideways: " + document.documentElement.scrollWidth);
	return bad;
})()`

type violation struct {
	ID, Impact, Help string
	Nodes            []struct {
		HTML           string
		FailureSummary string
	}
}

func TestAccessibility(t *testing.T) {
	t.Parallel()
	axe, err := os.ReadFile("node_modules/axe-core/axe.min.js")
	if err != nil {
		t.Fatalf("axe-core is not there: run make setup: %v", err)
	}
	browser := newBrowser(t)
	check := func(t *testing.T, p *tab, where string) {
		t.Helper()
		if bad := eval[[]string](p, geometry); len(bad) > 0 {
			t.Errorf("%s: %q", where, bad)
		}
		raw := eval[string](p, `axe.run(document).then((r) => JSON.stringify({ violations: r.violations, passes: r.passes.map((p) => p.id) }))`)
		var result struct {
			Violations []violation
			Passes     []string
		}
		if err := json.Unmarshal([]byte(raw), &result); err != nil {
			t.Fatal(err)
		}
		if len(result.Passes) < 10 || !slices.Contains(result.Passes, "color-contrast") {
			t.Errorf("%s: axe looked at too little: %v", where, result.Passes)
		}
		for _, v := range result.Violations {
			if v.Impact != "serious" && v.Impact != "critical" {
				continue
			}
			for _, n := range v.Nodes {
				t.Errorf("%s: %s (%s): %s\n%s\n%s", where, v.ID, v.Impact, v.Help, n.HTML, n.FailureSummary)
			}
		}
	}
	talk := []protocol.Message{
		&protocol.Viewers{Connections: 1203, Users: 1187, PeakUsers: 1500},
		&protocol.Comments{Cursor: "c1", History: true, Items: []protocol.Comment{
			{ID: "1", At: 1, User: protocol.User{ID: "u1", Name: "さくら"}, Text: "うぽつ"},
			{ID: "2", At: 2, User: protocol.User{ID: "h", Name: "先生", Role: protocol.RoleBroadcaster}, Text: "始めます", Style: &protocol.Style{Color: "#ff0000"}},
			{ID: "3", At: 3, User: protocol.User{ID: "m", Name: "Mod", Role: protocol.RoleModerator}, Text: "Welcome!"},
			{ID: "4", At: 4, User: protocol.User{ID: "me", Name: "Me"}, Text: "مرحبا بالعالم"},
			{ID: "5", At: 5, User: protocol.User{ID: "u2"}, Text: "  ██\n█  █\n ████"},
			{ID: "6", At: 6, User: protocol.User{ID: "u3", Name: "long"}, Text: "https://example.com/" + strings.Repeat("a", 100)},
		}},
		&protocol.Gap{Missed: 3, Cursor: "c2"},
	}
	for name, v := range views {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, Config{Demo: func() bool { return true }, DemoStopPath: "/demo/stop"})
			s.greet = talk
			p := open(t, browser, s.URL+"/r/lesson-7", v)
			p.wait(live + ` && document.querySelectorAll("#list .item").length === 6`)
			if got := eval[string](p, `document.documentElement.lang`); got != v.lang {
				t.Errorf("lang %q, want %q", got, v.lang)
			}
			p.do(chromedp.Evaluate[chromedp.Void](string(axe)))
			s.say(invented(30)...)
			time.Sleep(300 * time.Millisecond)
			p.click("pause")
			check(t, p, "viewer")
			p.shoot("viewer " + name)
			p.click("style-picker")
			check(t, p, "viewer, style")
			eval[bool](p, `document.getElementById("style-picker").open = false; true`)
			p.click("embed-open")
			check(t, p, "viewer, embed")
			p.click("embed-close")
			s.closeAll(protocol.CloseTooMany, protocol.CloseReason("", 600000))
			p.wait(`document.getElementById("link").dataset.state === "reconnecting"`)
			check(t, p, "viewer, reconnecting")

			s = newStudio(t)
			s.greet = talk
			p = open(t, browser, s.URL+"/studio/lesson-7#token="+testToken, v)
			p.wait(live + ` && document.querySelectorAll("#list .item").length === 6`)
			p.do(chromedp.Evaluate[chromedp.Void](string(axe)))
			check(t, p, "studio")
			p.shoot("studio " + name)
			s.closeAll(protocol.CloseUnauthorized, "")
			p.wait(`document.getElementById("link").dataset.state === "closed" && !document.getElementById("token-card").hidden`)
			check(t, p, "studio, no token")
		})
	}
	t.Run("no such page", func(t *testing.T) {
		s := newFakeServer(t, Config{})
		p := open(t, browser, s.URL+"/r/a.b", views["320 px"])
		p.do(chromedp.Evaluate[chromedp.Void](string(axe)))
		check(t, p, "not found")
	})
}
