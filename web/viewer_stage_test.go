package web

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

const flying = `document.querySelectorAll(".kansei-comment")`

func testStorm(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	s.greet = []protocol.Message{&protocol.Viewers{Connections: 12480, Users: 12163, PeakUsers: 13011}}
	p := view(s, desktop)
	eval[bool](p, `window.most = { all: 0, stage: 0, list: 0 }; setInterval(() => {
		most.all = Math.max(most.all, document.getElementsByTagName("*").length);
		most.stage = Math.max(most.stage, `+flying+`.length);
		most.list = Math.max(most.list, document.getElementById("list").childElementCount);
	}, 20); true`)
	cs := trace(t, 4000)
	for i := range 60 {
		s.say(cs[i*50%len(cs) : i*50%len(cs)+50]...)
		time.Sleep(50 * time.Millisecond)
	}
	p.shoot("storm")
	s.say(protocol.Comment{User: protocol.User{ID: "host", Name: "Host", Role: protocol.RoleBroadcaster}, Text: "the last word"})
	p.wait(`document.getElementById("list").textContent.includes("the last word")`)
	p.wait(`[...` + flying + `].some((e) => e.textContent === "the last word")`)
	p.wait(`/\d/.test(document.getElementById("left-out").textContent)`)
	most := eval[struct{ All, Stage, List int }](p, `most`)
	if most.Stage > 110 || most.List > 200 || most.All > 1600 {
		t.Errorf("elements at most: %+v", most)
	}
	if most.Stage < 20 || most.List < 100 {
		t.Errorf("that was no storm: %+v", most)
	}
	p.clean()
}

func testLanes(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	eval[bool](p, `window.overlaps = []; window.samples = 0; let frame = 0;
	requestAnimationFrame(function look() {
		requestAnimationFrame(look);
		const boxes = [...`+flying+`].filter((e) => e.style.zIndex === "" && e.style.visibility === "").map((e) => [e.getBoundingClientRect(), e.textContent]);
		samples += boxes.length;
		for (const [i, [a, at]] of boxes.entries()) for (const [b, bt] of boxes.slice(i + 1)) {
			const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left), high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
			if (wide > 1 && high > 4) overlaps.push([at, bt, wide, high]);
		}
		if (++frame % 4 === 0) for (const end = performance.now() + 400; performance.now() < end;);
	}); true`)
	cs := invented(400)
	for i := range cs {
		if i%7 == 0 {
			cs[i].Text = strings.Repeat(cs[i].Text, 12) // long ones are faster
		}
		if i%40 == 0 {
			cs[i].Text, cs[i].Style.Position = "one\n  two\nthree\n", ""
		}
	}
	for i := 0; i < len(cs); i += 4 {
		s.say(cs[i : i+4]...)
		time.Sleep(50 * time.Millisecond)
	}
	if n := eval[int](p, `samples`); n < 500 {
		t.Errorf("%d boxes were compared, which says little", n)
	}
	if got := eval[[]any](p, `overlaps.slice(0, 5)`); len(got) > 0 {
		t.Errorf("these overlap: %v", got)
	}
	p.clean()
}

func testReducedMotion(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	v := desktop
	v.reduced = true
	p := view(s, v)
	for _, c := range invented(60) {
		s.say(c)
		time.Sleep(40 * time.Millisecond)
	}
	p.wait(flying + `.length > 1`)
	p.shoot("reduced-motion")
	if moving := eval[int](p, `[...`+flying+`].filter((e) => e.getAnimations().some((a) => new Set(a.effect.getKeyframes().map((k) => k.transform)).size > 1)).length`); moving > 0 {
		t.Errorf("%d comments move", moving)
	}
	if other := eval[int](p, `document.getAnimations().filter((a) => !a.effect.target.classList.contains("kansei-comment")).length`); other > 0 {
		t.Errorf("%d other things move", other)
	}
	if n := eval[int](p, flying+`.length`); n > 8 {
		t.Errorf("%d comments appeared in 3 s, which is no rest", n)
	}
	p.clean()
}

func testPause(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	s.say(invented(10)...)
	p.wait(flying + `.length > 4`)
	p.click("pause")
	places := `JSON.stringify([...` + flying + `].map((e) => e.getBoundingClientRect().left))`
	p.wait(`[...` + flying + `].every((e) => e.getAnimations().every((a) => a.playState === "paused" && !a.pending))`)
	before := eval[string](p, places)
	s.say(invented(10)...)
	time.Sleep(600 * time.Millisecond)
	if after := eval[string](p, places); after != before {
		t.Errorf("the stage moved while it was paused: %s, then %s", before, after)
	}
	p.wait(`document.getElementById("pause").getAttribute("aria-pressed") === "true" && document.querySelectorAll("#list .item").length > 10`)
	p.click("pause")
	p.wait(places + ` !== ` + fmt.Sprintf("%q", before))
	p.clean()
}

func testReadAloud(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	if got := eval[[]string](p, `[...document.querySelectorAll("[aria-live], [role=log], [role=status], [role=alert]")].filter((e) => e.contains(document.getElementById("list"))).map((e) => e.outerHTML)`); len(got) > 0 {
		t.Errorf("the list is in a live region: %v", got)
	}
	s.say(protocol.Comment{Text: "unheard"})
	p.wait(`document.querySelectorAll("#list .item").length === 1`)
	p.click("read-aloud")
	eval[bool](p, `window.said = []; new MutationObserver(() => said.push([performance.now(), document.getElementById("aloud").textContent])).observe(document.getElementById("aloud"), { childList: true }); true`)
	for i := range 40 {
		s.say(protocol.Comment{Text: fmt.Sprintf("number %d", i), User: protocol.User{ID: "u", Name: "U"}})
		time.Sleep(50 * time.Millisecond)
	}
	p.wait(`said.length === 2`)
	said := eval[[][2]any](p, `said`)
	if said[0][1] != "U: number 0" || said[1][1] != "U: number 39" {
		t.Errorf("said %v, want the first and then the last", said)
	}
	if apart := said[1][0].(float64) - said[0][0].(float64); apart < 2900 {
		t.Errorf("said two within %.0f ms", apart)
	}
	p.clean()
}

func testScrolledUp(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	for range 6 {
		s.say(invented(8)...)
		time.Sleep(250 * time.Millisecond)
	}
	p.wait(`document.querySelectorAll("#list .item").length >= 40`)
	eval[bool](p, `document.getElementById("list").scrollTop = 20; true`)
	p.wait(`!document.getElementById("newer").hidden`)
	before := eval[string](p, `document.getElementById("list").innerHTML`)
	s.say(protocol.Comment{Text: "news"})
	p.wait(`document.getElementById("newer").textContent === "1 new"`)
	if after := eval[string](p, `document.getElementById("list").innerHTML`); after != before {
		t.Error("the list changed under the reader")
	}
	for range 30 {
		s.say(invented(50)...)
	}
	p.wait(`document.getElementById("newer").textContent === "200+ new"`)
	p.click("newer")
	p.wait(`document.getElementById("newer").hidden && document.querySelectorAll("#list .item").length > 48`)
	p.wait(`(() => { const l = document.getElementById("list"); return l.scrollHeight - l.scrollTop - l.clientHeight < 2; })()`)
	p.clean()
}

func testSwitches(t *testing.T, view func(*fakeServer, view) *tab) {
	s := newFakeServer(t, Config{})
	p := view(s, desktop)
	shown := func(id string) bool { return eval[bool](p, `document.getElementById("`+id+`").offsetWidth > 0`) }
	p.click("show-list")
	if shown("list-panel") || !shown("stage") || !shown("say") {
		t.Error("without the list there must be stage and box alone")
	}
	s.say(invented(20)...)
	p.wait(flying + `.length > 4`)
	p.shoot("no-list")
	p.click("show-list")
	p.click("show-stage")
	if !shown("list-panel") || shown("stage") || !shown("say") {
		t.Error("without the stage there must be list and box alone")
	}
	s.say(invented(20)...)
	p.wait(`document.querySelectorAll("#list .item").length >= 16`)
	p.shoot("no-stage")
	if n := eval[int](p, flying+`.length`); n > 0 {
		t.Errorf("%d comments are on a stage that is not there", n)
	}
	p.click("show-stage")
	s.say(invented(20)...)
	p.wait(flying + `.length > 4`)
	p.clean()
}
