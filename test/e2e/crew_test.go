package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// A broadcaster makes a link on the studio page; whoever opens it is a moderator there.
func TestCrewLink(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	studio, err := c.StudioURL(0, "r", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	browser := newBrowser(t)
	boss := tab(t, browser, studio)
	at := func(what string, is bool) {
		t.Helper()
		if !is {
			t.Error(what)
		}
	}
	eval := func(js string) string {
		t.Helper()
		s, err := chromedp.Run(boss, chromedp.Evaluate[string](js))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	eventually(t, 20*time.Second, "the card of the crew is there", func() bool { return eval(`String(!document.getElementById("crew").hidden)`) == "true" })
	if err := chromedp.Do(boss, chromedp.SendKeys(chromedp.ID("crew-name"), "アン"), chromedp.Click(chromedp.ID("crew-make"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "a link is made", func() bool { return eval(`String(!document.getElementById("crew-link").hidden)`) == "true" })
	link := eval(`document.getElementById("crew-url").value`)
	at("the link leads to "+link, strings.HasPrefix(link, c.Edges[0].URL+"/studio/r#token=ey"))
	at("the QR code has no squares", strings.HasPrefix(eval(`document.querySelector("#crew-qr path").getAttribute("d")`), "M0 0h7v1h-7z"))
	mod := tab(t, browser, link)
	eventually(t, 20*time.Second, "the moderator is in", func() bool { return text(t, mod, "#link-text") == "Connected" })
	hidden, err := chromedp.Run(mod, chromedp.Evaluate[bool](`document.getElementById("crew").hidden`))
	if err != nil || !hidden {
		t.Errorf("the card of the crew is hidden from a moderator: %v, %v", hidden, err)
	}
	if err := chromedp.Do(mod, chromedp.SendKeys(chromedp.ID("say"), "here I am\r")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the moderator speaks under that name", func() bool {
		said := text(t, boss, "#list")
		return strings.Contains(said, "アン") && strings.Contains(said, "here I am")
	})
}
