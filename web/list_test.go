package web

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

const items = `document.querySelectorAll("#list .item").length`

// TestList drives the list of comments, which viewer page and studio share.
func TestList(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	for name, f := range map[string]func(*testing.T, *fakeServer, *tab){
		"a burst":       testBurst,
		"while away":    testWhileAway,
		"keyboard":      testKeyboard,
		"selection":     testSelection,
		"long comments": testLongComments,
		"one user":      testOneUser,
		"times":         testTimes,
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t, Config{})
			p := open(t, browser, s.URL+"/r/lesson-7", desktop)
			p.wait(live)
			f(t, s, p)
			p.clean()
		})
	}
}

// A burst into a silent room is all there, and so is what comes at a rate that can be read.
func testBurst(t *testing.T, s *fakeServer, p *tab) {
	s.say(invented(30)...)
	p.wait(items + ` === 30`)
	if got := eval[string](p, `document.getElementById("left-out").textContent`); got != "" {
		t.Errorf("the list says %q", got)
	}
	s.say(invented(120)...)
	p.wait(items + ` === 150`)
}

// What gathers while the reader is elsewhere in the list comes up to the list's bound.
func testWhileAway(t *testing.T, s *fakeServer, p *tab) {
	s.say(invented(60)...)
	p.wait(items + ` === 60`)
	eval[bool](p, `document.getElementById("list").scrollTop = 0; true`)
	p.wait(`!document.getElementById("newer").hidden`)
	for i := range 10 {
		s.say(trace(t, 200)[i*12 : i*12+12]...)
	}
	p.wait(`document.getElementById("newer").textContent === "120 new"`)
	p.click("newer")
	p.wait(items + ` === 180 && document.getElementById("left-out").textContent === ""`)
}

// A step up with the keyboard is enough to be left in peace.
func testKeyboard(t *testing.T, s *fakeServer, p *tab) {
	s.say(invented(60)...)
	p.wait(items + ` === 60`)
	p.do(chromedp.Focus(chromedp.ID("list")))
	for _, typ := range []input.DispatchKeyEventType{input.DispatchKeyEventTypeRawKeyDown, input.DispatchKeyEventTypeKeyUp} {
		if _, err := chromedp.Call(p.ctx, input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: typ, Key: "ArrowUp", Code: "ArrowUp", WindowsVirtualKeyCode: 38}); err != nil {
			t.Fatal(err)
		}
	}
	p.wait(`!document.getElementById("newer").hidden`)
	top := eval[float64](p, `new Promise((done) => setTimeout(() => done(document.getElementById("list").scrollTop), 400))`)
	for range 5 {
		s.say(invented(5)...)
		time.Sleep(250 * time.Millisecond)
	}
	if now := eval[float64](p, `document.getElementById("list").scrollTop`); now != top || eval[int](p, items) != 60 {
		t.Errorf("the list moved from %v to %v, with %d comments", top, now, eval[int](p, items))
	}
	// At the end it goes on.
	eval[bool](p, `document.getElementById("list").scrollTop = 1e6; true`)
	p.wait(items + ` === 85 && document.getElementById("newer").hidden`)

	// A picker that is left with the keyboard closes, and a button that can do nothing keeps the focus.
	p.do(chromedp.Focus(chromedp.CSS("#style-picker summary")))
	eval[bool](p, `document.getElementById("style-picker").open = true; document.querySelector("input[name=color]:checked").focus(); document.getElementById("say").focus(); true`)
	p.wait(`!document.getElementById("style-picker").open`)
	s.set(func(s *fakeServer) { s.answer = nil })
	p.do(chromedp.SetValue(chromedp.ID("say"), "hello"))
	eval[bool](p, `document.getElementById("say").dispatchEvent(new Event("input")); document.getElementById("send").focus(); document.getElementById("send").click(); true`)
	p.wait(`document.getElementById("send").ariaDisabled === "true"`)
	if at := eval[string](p, `document.activeElement.id`); at != "send" {
		t.Errorf("the focus is on %q", at)
	}
}

// Whoever selects something is reading it.
func testSelection(t *testing.T, s *fakeServer, p *tab) {
	s.say(invented(10)...)
	p.wait(items + ` === 10`)
	eval[bool](p, `getSelection().selectAllChildren(document.querySelector("#list .text")); true`)
	p.wait(`!document.getElementById("newer").hidden`)
	s.say(invented(10)...)
	p.wait(`document.getElementById("newer").textContent === "10 new"`)
	if n := eval[int](p, items); n != 10 {
		t.Errorf("%d comments", n)
	}
	eval[bool](p, `getSelection().removeAllRanges(); true`)
	p.wait(items + ` === 20`)
}

// A comment that does not fit says so, and shows the rest; what shows nothing takes no place.
func testLongComments(t *testing.T, s *fakeServer, p *tab) {
	long := strings.Repeat("長いコメント", 33) + "終わり"
	drawing := "　　∧＿∧\n　 （´∀｀）\n  | | |\n （_＿）＿）"
	s.say(
		protocol.Comment{User: protocol.User{ID: "a"}, Text: long},
		protocol.Comment{User: protocol.User{ID: "b"}, Text: "\n\n\n" + "a" + strings.Repeat("\n\u3000", 17) + "b\n\n"},
		protocol.Comment{User: protocol.User{ID: "c"}, Text: "x" + strings.Repeat("\u3164", 150) + "y"},
		protocol.Comment{User: protocol.User{ID: "d"}, Text: drawing},
		protocol.Comment{User: protocol.User{ID: "e"}, Text: strings.Repeat("ཧཱུྃ\u0f71\u0f74ྃ", 20) + "\nกี้ๆ"},
		protocol.Comment{User: protocol.User{ID: "f"}, Text: "short"},
	)
	p.wait(items + ` === 6 && document.querySelectorAll("#list .more").length === 1`)
	text := func(i int) string { return fmt.Sprintf(`document.querySelectorAll("#list .text")[%d]`, i) }
	for i, want := range map[int]string{0: long, 1: "a\n\u3000\n\u3000b", 2: "x y", 3: drawing} {
		if got := eval[string](p, text(i)+`.textContent`); got != want {
			t.Errorf("comment %d is %q, want %q", i, got, want)
		}
	}
	if high := eval[float64](p, text(0)+`.clientHeight`); high > 140 {
		t.Errorf("a long comment is %v px high", high)
	}
	p.shoot("list-long")
	eval[bool](p, `document.querySelector("#list .more").click(); true`)
	p.wait(text(0) + `.clientHeight === ` + text(0) + `.scrollHeight && document.querySelector("#list .more").textContent === "Less" && document.querySelector("#list .more").ariaExpanded === "true"`)
	eval[bool](p, `document.querySelector("#list .more").click(); true`)
	p.wait(`document.querySelector("#list .more").textContent === "More"`)
}

// One viewer, as fast and as tall as the limits allow, leaves room for the others.
func testOneUser(t *testing.T, s *fakeServer, p *tab) {
	tall := strings.TrimSuffix(strings.Repeat("█████\n", 21), "\n")
	for range 8 {
		s.say(protocol.Comment{User: protocol.User{ID: "tall", Name: "Tall"}, Text: tall})
	}
	s.say(protocol.Comment{User: protocol.User{ID: "o", Name: "Other"}, Text: "and me"})
	p.wait(items + ` === 9`)
	high := eval[float64](p, `[...document.querySelectorAll("#list .text")].slice(0, 8).reduce((n, e) => n + e.clientHeight, 0)`)
	if visible := eval[float64](p, `document.getElementById("list").clientHeight`); high > 0.8*visible {
		t.Errorf("one viewer takes %v of %v px of the list", high, visible)
	}
	p.wait(flying + `.length >= 1`)
	area := eval[float64](p, `(() => { const s = document.getElementById("stage").getBoundingClientRect();
		return [...`+flying+`].filter((e) => e.textContent.includes("█")).reduce((n, e) => n + e.offsetHeight * Math.min(e.offsetWidth, s.width), 0) / (s.width * s.height); })()`)
	if area > 0.55 {
		t.Errorf("one viewer takes %.2f of the stage", area)
	}
	p.wait(`[...` + flying + `].some((e) => e.textContent === "and me")`)
	p.shoot("one-user")
}

func testTimes(t *testing.T, s *fakeServer, p *tab) {
	s.say(protocol.Comment{Text: "when"})
	p.wait(items + ` === 1`)
	at := eval[string](p, `document.querySelector("#list time").dateTime`)
	if when, err := time.Parse(time.RFC3339, at); err != nil || time.Since(when) > time.Minute || time.Since(when) < -time.Minute {
		t.Errorf("the time is %q, %v", at, err)
	}
	if title := eval[string](p, `document.querySelector("#list time").title`); !strings.Contains(title, fmt.Sprint(time.Now().Year())) {
		t.Errorf("in full it is %q", title)
	}
}
