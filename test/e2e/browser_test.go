package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

// newBrowser starts one headless Chromium, which ends with the test.
func newBrowser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Fatal("there is no chromium, chromium-browser or google-chrome in PATH: run make setup")
	}
	ctx, cancelAlloc := chromedp.NewExecAllocator(t.Context(),
		chromedp.ExecPath(path), chromedp.Flag("headless", "new"), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("no-sandbox", true), chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.Flag("disable-background-timer-throttling", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true), chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.UserDataDir(t.TempDir()),
	)
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("end the browser: %v", err)
		}
		cancel()
		cancelAlloc()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx
}

// tab opens a page of its own.
func tab(t *testing.T, browser context.Context, url string) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// text is the text of an element; empty while there is none.
func text(t *testing.T, tab context.Context, selector string) string {
	t.Helper()
	s, err := chromedp.Run(tab, chromedp.Evaluate[string]("document.querySelector(`"+selector+"`)?.textContent ?? ''"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

// Two tabs on two nodes see each other's comments and the same viewer count.
func TestTwoTabsOnTwoNodes(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, "--guests=comment")
	browser := newBrowser(t)
	var tabs [2]context.Context
	for i, e := range c.Edges {
		tabs[i] = tab(t, browser, e.URL+"/r/tabs")
	}
	for i := range tabs {
		eventually(t, 20*time.Second, "both tabs count two viewers", func() bool { return text(t, tabs[i], "#count-n") == "2" })
	}
	for i, say := range []string{"こんにちは from node 1 👋🏽", "مرحبا <b>from</b> node 2"} {
		if err := chromedp.Do(tabs[i], chromedp.SendKeys(chromedp.ID("say"), say+"\r")); err != nil {
			t.Fatal(err)
		}
		for j := range tabs {
			eventually(t, 20*time.Second, "both tabs show "+say, func() bool { return strings.Contains(text(t, tabs[j], "#list"), say) })
		}
	}
	// A node that stops: its tab says so, and comes back when the node does.
	if err := c.Edges[1].Kill(); err != nil {
		t.Fatal(err)
	}
	state := `document.getElementById("link").dataset.state`
	linked := func(i int) string {
		s, err := chromedp.Run(tabs[i], chromedp.Evaluate[string](state))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	eventually(t, 20*time.Second, "the tab of the dead node says that it is not connected", func() bool { return linked(1) != "live" })
	if s := linked(0); s != "live" {
		t.Errorf("the other tab is %s", s)
	}
	missed := "while you were away"
	if err := chromedp.Do(tabs[0], chromedp.SendKeys(chromedp.ID("say"), missed+"\r")); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "one viewer is left", func() bool { return text(t, tabs[0], "#count-n") == "1" })
	if err := c.Edges[1].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, 60*time.Second, "the tab is back and shows what it missed", func() bool {
		return linked(1) == "live" && strings.Contains(text(t, tabs[1], "#list"), missed)
	})
	if n := strings.Count(text(t, tabs[1], "#list"), "from node 1"); n != 1 {
		t.Errorf("a comment from before is shown %d times", n)
	}
	for i := range tabs {
		eventually(t, 10*time.Second, "both tabs count two viewers again", func() bool { return text(t, tabs[i], "#count-n") == "2" })
	}
}

// Pages behind nginx stay connected through a rolling restart, because the SDK leaves a node
// only when it is in at another.
func TestPagesInARollingRestart(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, "--guests=watch", "--drain=4s", "--trusted-proxy=127.0.0.1")
	front := documentedNGINX(t, []string{strings.TrimPrefix(c.Edges[0].URL, "http://"), strings.TrimPrefix(c.Edges[1].URL, "http://")}, nil)
	tok := token(t, c, "boss", protocol.RoleBroadcaster)
	browser := newBrowser(t)
	tabs := []context.Context{tab(t, browser, front+"/r/rolling"), tab(t, browser, front+"/r/rolling")}
	for _, one := range tabs {
		eventually(t, 20*time.Second, "a tab is connected", func() bool {
			s, err := chromedp.Run(one, chromedp.Evaluate[string](`document.getElementById("link").dataset.state`))
			return err == nil && s == "live"
		})
		if _, err := chromedp.Run(one, chromedp.Evaluate[bool](`window.states = [];
			const link = document.getElementById("link");
			new MutationObserver(() => link.dataset.state === "live" || states.push(link.dataset.state))
				.observe(link, { attributes: true, attributeFilter: ["data-state"] }); true`)); err != nil {
			t.Fatal(err)
		}
	}
	for i, e := range c.Edges {
		if status, err := e.End(t.Context(), nil); status != 0 || err != nil {
			t.Errorf("%s ended with %d, %v", e.Name(), status, err)
		}
		say := fmt.Sprint("without node ", i)
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, front+"/v1/rooms/rolling/comments", strings.NewReader(`{"text":"`+say+`"}`))
		req.Header.Set("Authorization", "Bearer "+tok)
		res, err := insecure().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusCreated {
			t.Errorf("POST: %s", res.Status)
		}
		for _, one := range tabs {
			eventually(t, 20*time.Second, "a tab shows "+say, func() bool { return strings.Contains(text(t, one, "#list"), say) })
		}
		if err := e.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i, one := range tabs {
		if s, err := chromedp.Run(one, chromedp.Evaluate[string](`states.join()`)); err != nil || s != "" {
			t.Errorf("tab %d was not connected, but: %q %v", i, s, err)
		}
	}
}
