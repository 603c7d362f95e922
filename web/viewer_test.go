package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

// TestViewerPage drives the viewer page in a real browser.
func TestViewerPage(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	for name, f := range map[string]func(*testing.T, func(*fakeServer, view) *tab){
		"storm":          testStorm,
		"lanes":          testLanes,
		"markup":         testMarkup,
		"composer":       testComposer,
		"input method":   testInputMethod,
		"refusals":       testRefusals,
		"reduced motion": testReducedMotion,
		"pause":          testPause,
		"read aloud":     testReadAloud,
		"scrolled up":    testScrolledUp,
		"switches":       testSwitches,
		"reconnect":      testReconnect,
		"moved":          testMoved,
		"closed":         testClosed,
		"watch only":     testWatchOnly,
		"ended":          testEnded,
		"unknown things": testUnknownThings,
		"demo":           testDemo,
		"embed":          testEmbed,
	} {
		t.Run(name, func(t *testing.T) {
			f(t, func(s *fakeServer, v view) *tab {
				p := open(t, browser, s.URL+"/r/lesson-7", v)
				p.wait(live)
				return p
			})
		})
	}
}

// 1,000 comments a second: the page stays small, says what it leaves out, and
// still shows what the broadcaster says.
// Flying comments never lie over one another, though the page be slow at times.
// What looks like markup is text, in every place where text of users goes.
func testMarkup(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	evil := `<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>&lt;b&gt;`
	s.state.Title = evil
	p := view(s, desktop)
	s.say(
		protocol.Comment{User: protocol.User{ID: "e", Name: evil}, Text: evil},
		protocol.Comment{Text: evil, Style: &protocol.Style{Position: "top", Color: `red;background:url(x)`}},
		protocol.Comment{Text: "\u202eright to left\u202c", User: protocol.User{ID: "r", Name: "\u202eeman"}},
	)
	p.wait(`document.querySelectorAll("#list .item").length === 3`)
	if got := eval[string](p, `document.querySelector("#list .text").textContent`); got != evil {
		t.Errorf("the text became %q", got)
	}
	if got := eval[string](p, `document.querySelector("#list .name").textContent`); got != evil {
		t.Errorf("the name became %q", got)
	}
	if got := eval[string](p, `document.getElementById("title").textContent`); got != evil {
		t.Errorf("the title became %q", got)
	}
	p.wait(flying + `.length === 3`)
	if eval[bool](p, `Boolean(window.pwned) || document.querySelectorAll("#list img, #list script, #stage img, #title img").length > 0`) {
		t.Error("markup was made of a comment")
	}
	// Each text keeps its direction to itself.
	if got := eval[[]string](p, `[...document.querySelectorAll("#list .text, #list .name, .kansei-comment")].map((e) => getComputedStyle(e).unicodeBidi).filter((b) => b !== "isolate")`); len(got) > 0 {
		t.Errorf("not isolated: %v", got)
	}
	p.clean()
}

func testComposer(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	p.click("style-picker")
	p.do(chromedp.Click(chromedp.CSS(`input[name=position][value=top]`)), chromedp.Click(chromedp.CSS(`input[value="#ffff00"]`)))
	p.shoot("style-picker")
	p.say("hello")
	p.wait(`document.querySelector("#list .own .text")?.textContent === "hello"`)
	p.wait(`document.getElementById("say").value === ""`)
	s.set(func(s *fakeServer) {
		if len(s.comments) != 1 || s.comments[0].Text != "hello" || s.comments[0].Style == nil || *s.comments[0].Style != (protocol.Style{Position: "top", Color: "#ffff00"}) {
			t.Errorf("sent: %+v", s.comments)
		}
	})
	// Nothing but space is nothing.
	p.say("   ")
	// The counter counts code points after NFC: this is one, twice 100 times.
	count := func(text string) string {
		return eval[string](p, fmt.Sprintf(`(() => { const e = document.getElementById("say"); e.value = %s; e.dispatchEvent(new Event("input")); return document.getElementById("counter").textContent; })()`, text))
	}
	for text, want := range map[string]string{
		`"a".repeat(100)`:            "",
		`"か\u3099".repeat(150)`:      "150 of 200",
		`"😂".repeat(200)`:            "200 of 200",
		`"a".repeat(203)`:            "3 too many: 200 at most",
		`" ".repeat(300) + "a"`:      "101 too many: 200 at most",
		`"\n".repeat(23) + "a"`:      "3 lines too many: 21 at most",
		`"\u200b".repeat(300) + "a"`: "",
		`"a".repeat(200) + "\u0301"`: "200 of 200",
	} {
		if got := count(text); got != want {
			t.Errorf("counter of %s: %q, want %q", text, got, want)
		}
	}
	count(`"a".repeat(203)`)
	if !eval[bool](p, `document.getElementById("send").ariaDisabled === "true" && document.getElementById("say").getAttribute("aria-invalid") === "true"`) {
		t.Error("what is too long can be sent")
	}
	s.set(func(s *fakeServer) {
		if len(s.comments) != 1 {
			t.Errorf("%d comments were sent, want 1", len(s.comments))
		}
	})
	p.clean()
}

// Enter that confirms a conversion does not send.
func testInputMethod(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	sent := func() int {
		var n int
		s.set(func(s *fakeServer) { n = len(s.comments) })
		return n
	}
	p.do(chromedp.Focus(chromedp.ID("say")))
	if _, err := chromedp.Call(p.ctx, input.ImeSetComposition, input.ImeSetCompositionParams{Text: "にほん", SelectionStart: 3, SelectionEnd: 3}); err != nil {
		t.Fatal(err)
	}
	// While it composes, with what browsers say then; and what older ones said.
	for _, event := range []string{
		`new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true })`,
		`new KeyboardEvent("keydown", { key: "Enter", keyCode: 229, bubbles: true, cancelable: true })`,
		`new KeyboardEvent("keydown", { key: "Enter", shiftKey: true, bubbles: true, cancelable: true })`,
	} {
		if !eval[bool](p, `document.getElementById("say").dispatchEvent(`+event+`)`) {
			t.Errorf("the page took %s for itself", event)
		}
	}
	if got := eval[string](p, `document.getElementById("say").value`); got != "にほん" {
		t.Errorf("the box has %q while it composes", got)
	}
	if _, err := chromedp.Call(p.ctx, input.InsertText, input.InsertTextParams{Text: "日本"}); err != nil {
		t.Fatal(err)
	}
	if n := sent(); n != 0 {
		t.Fatalf("%d comments were sent while an input method composed", n)
	}
	p.enter()
	p.wait(`document.querySelector("#list .own .text")?.textContent === "日本"`)
	if n := sent(); n != 1 {
		t.Errorf("%d comments were sent, want 1", n)
	}
	p.clean()
}

// say types a comment and sends it.
func (p *tab) say(text string) {
	p.t.Helper()
	p.do(chromedp.SendKeys(chromedp.ID("say"), text))
	p.enter()
}

// enter presses Enter as a browser does, key and character in one: chromedp.SendKeys
// sends two events, between which the page may have had the answer and take text again.
func (p *tab) enter() {
	p.t.Helper()
	for _, e := range []input.DispatchKeyEventParams{
		{Type: input.DispatchKeyEventTypeKeyDown, Text: "\r", UnmodifiedText: "\r"}, {Type: input.DispatchKeyEventTypeKeyUp},
	} {
		e.Key, e.Code, e.WindowsVirtualKeyCode = "Enter", "Enter", 13
		if _, err := chromedp.Call(p.ctx, input.DispatchKeyEvent, e); err != nil {
			p.t.Fatal(err)
		}
	}
}

func testRefusals(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	refuse := func(code protocol.ErrorCode, retry int64) {
		s.set(func(s *fakeServer) {
			s.answer = func(r *protocol.CommentRequest) protocol.Message {
				return &protocol.Error{Ref: r.Ref, Code: code, Message: "for machines", RetryMS: retry}
			}
		})
		p.do(chromedp.SetValue(chromedp.ID("say"), "keep me"), chromedp.Focus(chromedp.ID("say")))
		p.enter()
	}
	for code, want := range map[protocol.ErrorCode]string{
		protocol.CodeTooLong: "That is too long.",
		protocol.CodeEmpty:   "There is nothing to read in that.",
		protocol.CodeMuted:   "You cannot comment for now.",
		protocol.CodeLocked:  "Only the broadcaster can comment at the moment.",
		"of_a_later_version": "That did not work.",
	} {
		refuse(code, 0)
		p.wait(fmt.Sprintf(`document.getElementById("say-note").textContent === %q`, want))
		if got := eval[string](p, `document.getElementById("say").value`); got != "keep me" {
			t.Errorf("%s: the text is lost: %q", code, got)
		}
	}
	refuse(protocol.CodeRateLimited, 2600)
	p.wait(`document.getElementById("say-note").textContent === "That was too fast."`)
	p.wait(`/^in [123] s$/.test(document.getElementById("say-wait").textContent) && document.getElementById("send").ariaDisabled === "true"`)
	p.wait(`document.getElementById("say-note").textContent === "You can send again" && document.getElementById("send").ariaDisabled !== "true"`)
	p.clean()
}

// Under prefers-reduced-motion comments appear and go, and nothing moves.
// The list is no live region; who wants hears one comment in three seconds.
// Who reads back is left in peace, and told what is new.
// A lost connection is said at once, with the time until the next attempt, and
// what comes after it is shown once.
func testReconnect(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	s.say(protocol.Comment{Text: "before"})
	p.wait(`document.querySelectorAll("#list .item").length === 1`)
	s.closeAll(protocol.CloseRestart, protocol.CloseReason("draining", 3000))
	p.wait(`document.getElementById("link").dataset.state === "reconnecting" && document.getElementById("link-text").textContent === "The server is moving, back in a moment"`)
	p.wait(`/^in [1234] s$/.test(document.getElementById("link-wait").textContent)`)
	if eval[bool](p, `document.getElementById("link-wait").closest("[role=status]") !== null`) {
		t.Error("every second of the wait is announced")
	}
	p.shoot("reconnecting")
	// What one says meanwhile is not lost.
	p.say("meanwhile")
	p.wait(`document.getElementById("say-note").textContent === "Not sent yet: waiting for the connection…"`)
	p.wait(live)
	p.wait(`document.querySelectorAll("#list .item").length === 2 && document.querySelector("#list .own .text").textContent === "meanwhile"`)
	s.set(func(s *fakeServer) {
		if len(s.joins) != 2 {
			t.Fatalf("%d joins, want 2", len(s.joins))
		}
		if q := s.joins[1].query; q.Get("since") != "c1" || q.Get("session") != "session-0123456789" {
			t.Errorf("came back with %v", q)
		}
		s.refuse, s.refuseIn = http.StatusServiceUnavailable, 2*time.Second
	})
	s.closeAll(protocol.CloseGoingAway, "")
	p.wait(`document.getElementById("link-text").textContent === "The server is busy, trying again"`)
	s.set(func(s *fakeServer) { s.refuse = 0 })
	p.wait(live)
	s.send(&protocol.State{Rev: 4, Status: protocol.StatusLive, Degraded: true})
	p.wait(`document.getElementById("link-text").textContent === "Connected; comments may be late"`)
	s.send(&protocol.Gap{Missed: 37, Cursor: "c9"})
	p.wait(`document.querySelector("#list .gap")?.textContent === "37 comments were missed here"`)
}

// A server that is leaving: the page comes in again before it leaves, and shows
// nothing of it.
func testMoved(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	s.say(protocol.Comment{Text: "before"})
	p.wait(`document.querySelectorAll("#list .item").length === 1`)
	eval[bool](p, `window.seen = new Set(), new MutationObserver(() => seen.add(document.getElementById("link").dataset.state))
		.observe(document.getElementById("link"), { attributes: true }), true`)
	s.send(&protocol.Reconnect{AfterMS: 200})
	deadline := time.Now().Add(20 * time.Second)
	for moved := false; !moved; time.Sleep(10 * time.Millisecond) {
		s.set(func(s *fakeServer) { moved = len(s.joins) == 2 && len(s.conns) == 1 })
		if time.Now().After(deadline) {
			t.Fatal("the page did not move")
		}
	}
	s.set(func(s *fakeServer) {
		if q := s.joins[1].query; q.Get("since") != "c1" || q.Get("session") != "session-0123456789" {
			t.Errorf("came back with %v", q)
		}
	})
	s.say(protocol.Comment{Text: "after"})
	p.wait(`document.querySelectorAll("#list .item").length === 2`)
	p.say("still here")
	p.wait(`document.querySelectorAll("#list .item").length === 3`)
	if got := eval[string](p, `[...seen].join()`); got != "" && got != "live" {
		t.Errorf("the page said that it was %s", got)
	}
}

func testClosed(t *testing.T, view func(*fakeServer, view) *tab) {
	for code, want := range map[protocol.CloseCode]string{
		protocol.CloseBanned:       "You were removed from this room",
		protocol.CloseNoRoom:       "There is no such room",
		protocol.CloseUnauthorized: "No access: the token is missing, wrong or expired",
		protocol.CloseNormal:       "The server has ended the connection",
		protocol.CloseMalformed:    "The server did not understand this page. Reload it.",
	} {
		s := newFakeServer(t, Config{})
		p := view(s, desktop)
		s.closeAll(code, "for machines")
		p.wait(`document.getElementById("link").dataset.state === "closed"`)
		if got := eval[string](p, `document.getElementById("link-text").textContent`); got != want {
			t.Errorf("%d: %q, want %q", code, got, want)
		}
		if !eval[bool](p, `document.getElementById("say").ariaDisabled === "true" && document.getElementById("link-wait").textContent === ""`) {
			t.Errorf("%d: one can still write, or waits for something", code)
		}
	}
}

func testWatchOnly(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{Guests: protocol.GuestsWatch})
	s.you.Can = nil
	p := view(s, desktop)
	p.wait(`document.getElementById("say").ariaDisabled === "true" && document.getElementById("say-note").textContent === "Guests can watch here, but not comment."`)
	p.clean()
}

// When the broadcast has ended the page says so, and that nobody can comment, and takes
// comments again when it goes on; the staff notice nothing.
func testEnded(t *testing.T, view func(*fakeServer, view) *tab) {
	const closed, note = `document.getElementById("say").ariaDisabled === "true" && document.getElementById("send").ariaDisabled === "true"`, `document.getElementById("say-note").textContent`
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	p.do(chromedp.SetValue(chromedp.ID("say"), "keep me"))
	s.send(&protocol.State{Rev: 4, Status: protocol.StatusEnded})
	p.wait(closed + ` && ` + note + ` === "The broadcast has ended: it takes no more comments."`)
	s.send(&protocol.State{Rev: 5, Status: protocol.StatusLive})
	p.wait(`document.getElementById("say").ariaDisabled !== "true" && ` + note + ` === "" && document.getElementById("say").value === "keep me"`)
	p.clean()

	s = newFakeServer(t, Config{})
	s.you.Role, s.state.Status = protocol.RoleModerator, protocol.StatusEnded
	p = view(s, desktop)
	p.wait(`!document.getElementById("room-status").hidden && document.getElementById("room-status").dataset.status === "ended"`)
	if eval[bool](p, closed+` || `+note+` !== ""`) {
		t.Error("the staff cannot comment in a room that has ended")
	}
	p.clean()
}

// What a later server may send does no harm.
func testUnknownThings(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	s.say(protocol.Comment{Text: "new style", User: protocol.User{ID: "c", Role: "captain"}, Style: &protocol.Style{Position: "left", Size: "huge", Color: "rebeccapurple"}})
	s.send(&protocol.State{Rev: 9, Status: "paused", Title: "t"})
	p.wait(`document.getElementById("title").textContent === "t" && document.getElementById("room-status").hidden`)
	p.wait(flying + `.length === 1 && ` + flying + `[0].style.zIndex === ""`)
	if got := eval[string](p, `document.querySelector("#list .name").textContent`); got != "Guest" {
		t.Errorf("a user without a name is %q", got)
	}
	p.clean()
}

func testDemo(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{Room: "lesson-7", Demo: func() bool { return true }, DemoStopPath: "/demo/stop"})
	p := view(s, desktop)
	p.click("stop-demo")
	p.wait(`document.getElementById("stop-demo").hidden`)
	s.set(func(s *fakeServer) {
		if s.stopped != 1 {
			t.Errorf("the demo was stopped %d times", s.stopped)
		}
	})
	p.clean()
}

// The five lines, on a page of another origin, let comments fly there.
func testEmbed(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	p.click("embed-open")
	p.wait(`document.getElementById("embed").open`)
	p.shoot("embed")
	p.click("copy")
	p.wait(`document.getElementById("copy-note").textContent !== ""`)
	lines := eval[string](p, `document.getElementById("embed-code").textContent`)
	if n := strings.Count(lines, "\n") + 1; n != 5 {
		t.Errorf("five lines are %d", n)
	}
	p.click("embed-close")
	p.wait(`!document.getElementById("embed").open`)
	p.clean()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprintf(w, "<!doctype html><title>Mine</title><link rel=icon href=data:,><body>%s", lines)
	}))
	defer other.Close()
	joins := func() (n int) {
		s.set(func(s *fakeServer) { n = len(s.joins) })
		return n
	}
	p.goTo(other.URL)
	for deadline := time.Now().Add(time.Minute); joins() < 2; {
		if time.Now().After(deadline) {
			t.Fatalf("the other page does not join; console: %v", p.consoleErrors())
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.say(protocol.Comment{Text: "over there"})
	p.wait(flying + `.length === 1 && ` + flying + `[0].textContent === "over there"`)
	p.clean()
}
