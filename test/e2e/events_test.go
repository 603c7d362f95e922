package e2e

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

// The example page: a gift, and a quiz that viewers on two nodes answer, also one who came after the question.
func TestEventsExample(t *testing.T) {
	t.Parallel()
	pages := httptest.NewServer(http.FileServer(http.Dir("../../docs/examples/events")))
	defer pages.Close()
	c := startCluster(t, 2, "--guests=comment", "--viewer-events=answer", "--origin="+pages.URL)
	browser := newBrowser(t)
	at := func(node int, hash string) context.Context {
		return tab(t, browser, pages.URL+"/?room=quiz&server="+url.QueryEscape(c.Edges[node].URL)+hash)
	}
	click := func(one context.Context, selector string) {
		t.Helper()
		if err := chromedp.Do(one, chromedp.Click(chromedp.CSS(selector))); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(one context.Context, selector, want string) {
		t.Helper()
		eventually(t, 20*time.Second, selector+" says "+want, func() bool { return strings.Contains(text(t, one, selector), want) })
	}
	boss, early := at(0, "#token="+token(t, c, "boss", protocol.RoleBroadcaster)), at(1, "")
	for _, one := range []context.Context{boss, early} {
		shows(one, "#status", "live")
	}
	click(boss, "#send-gift")
	for _, one := range []context.Context{boss, early} {
		shows(one, "#gift", "さくら gives 500")
	}
	click(boss, "#ask")
	shows(early, "#question", "Which planet")
	late := at(0, "")
	shows(late, "#question", "Which planet")
	if gift := text(t, late, "#gift"); gift != "No gift yet" {
		t.Errorf("who comes later is told of the gift: %s", gift)
	}
	click(early, "#options button:nth-child(1)")
	click(early, "#options button:nth-child(2)") // the last one counts
	click(late, "#options button:nth-child(2)")
	shows(boss, "#answers", "2")
	click(boss, "#show")
	for _, one := range []context.Context{boss, early, late, at(1, "")} {
		shows(one, "#result", "Jupiter: 0, Saturn: 2, Mars: 0")
	}
}
