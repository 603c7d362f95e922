package web

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

// A token that was refused does not block the room for the tab, and a link with another is
// taken by a page that is there already.
func TestTokensOfATab(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	for _, path := range []string{"/r/lesson-7", "/studio/lesson-7"} {
		s := newFakeServer(t, Config{})
		p := open(t, browser, s.URL+path+"#token="+testToken, desktop)
		p.wait(live)
		s.closeAll(protocol.CloseUnauthorized, "the token has expired")
		p.wait(`document.getElementById("link").dataset.state === "closed" && sessionStorage.getItem("kansei.token.lesson-7") === null`)
		p.do(chromedp.Reload())
		p.wait(live) // as a guest
		offered := func() (last string) {
			s.set(func(s *fakeServer) { last = s.joins[len(s.joins)-1].protocols })
			return last
		}
		if got := offered(); strings.Contains(got, "bearer") {
			t.Errorf("%s: came back with %q", path, got)
		}
		const other = "b3RoZXI.Ym9keQ.c2lnbg"
		eval[bool](p, `location.hash = "#token=`+other+`"; true`)
		p.wait(live + ` && location.hash === ""`)
		for end := time.Now().Add(time.Minute); !strings.Contains(offered(), other); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: offered %q", path, offered())
			}
		}
		p.clean()
	}
}

// What is typed while the studio saves stays.
func TestTypingWhileTheStudioSaves(t *testing.T) {
	t.Parallel()
	s := newStudio(t)
	p := open(t, newBrowser(t), s.URL+"/studio/lesson-7#token="+testToken, desktop)
	p.wait(live + ` && document.getElementById("room-title").value !== ""`)
	release := make(chan struct{})
	s.set(func(s *fakeServer) { s.saving = release })
	p.do(chromedp.SetValue(chromedp.ID("room-title"), "One"))
	p.click("save")
	p.wait(`document.getElementById("save").ariaDisabled === "true"`)
	p.do(chromedp.SendKeys(chromedp.ID("room-title"), " more"))
	close(release)
	p.wait(`document.getElementById("settings-note").textContent === "Saved" && document.getElementById("title").textContent === "One"`)
	if got := eval[string](p, `document.getElementById("room-title").value`); got != "One more" {
		t.Errorf("the title is %q", got)
	}
	p.click("save")
	p.wait(`document.getElementById("title").textContent === "One more"`)
	p.clean()
}

// Stage and list share the screen, whatever its size, and what flies when it changes flies on.
func TestScreens(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	s := newFakeServer(t, Config{})
	s.greet = []protocol.Message{&protocol.Viewers{Connections: 1248, Users: 1216, PeakUsers: 1301}}
	for _, v := range []view{
		{width: 390, height: 844, scale: 2, lang: "ja"}, {width: 844, height: 390, scale: 2, lang: "ja"}, {width: 390, height: 420, scale: 2, lang: "en"},
		{width: 360, height: 640, scale: 2, lang: "en"}, {width: 667, height: 375, scale: 2, lang: "en"}, {width: 820, height: 1180, scale: 1, lang: "en"}, {width: 1024, height: 600, scale: 1, lang: "en"},
	} {
		p := open(t, browser, s.URL+"/r/lesson-7", v)
		p.wait(live)
		s.say(invented(40)...)
		p.wait(flying + `.length > 4`)
		p.shoot(fmt.Sprintf("screen-%dx%d", v.width, v.height))
		box := func(id string) (b struct{ Top, Bottom, Height, Width float64 }) {
			return eval[struct{ Top, Bottom, Height, Width float64 }](p, `(({ top, bottom, height, width }) => ({ top, bottom, height, width }))(document.getElementById("`+id+`").getBoundingClientRect())`)
		}
		high := float64(v.height)
		for id, least := range map[string]float64{"stage": 90, "list": 90, "say": 40} {
			if b := box(id); b.Top < 0 || b.Bottom > high+1 || b.Height < least {
				t.Errorf("%d × %d: %s from %.0f to %.0f, want all of it to be seen, %v px at least", v.width, v.height, id, b.Top, b.Bottom, least)
			}
		}
		// The screen turns, or a keyboard opens.
		before := eval[int](p, flying+`.length`)
		eval[bool](p, `window.kept = [...`+flying+`]; true`)
		p.do(chromedp.EmulateViewport(v.height, v.width, chromedp.EmulateScale(v.scale)))
		p.wait(fmt.Sprintf(`innerWidth === %d`, v.height))
		time.Sleep(300 * time.Millisecond)
		if still := eval[int](p, `kept.filter((e) => e.isConnected).length`); still < before/2 {
			t.Errorf("%d × %d: of %d comments %d fly on when the screen turns", v.width, v.height, before, still)
		}
		if out := eval[int](p, `(() => { const s = document.getElementById("stage").getBoundingClientRect(); return [...`+flying+`].filter((e) => { const b = e.getBoundingClientRect(); return b.bottom > s.bottom + 4 || b.top < s.top - 4; }).length; })()`); out > 0 {
			t.Errorf("%d × %d: %d comments lie outside the stage", v.width, v.height, out)
		}
		p.wait(`(() => { const l = document.getElementById("list"); return l.scrollHeight - l.scrollTop - l.clientHeight < 3; })()`)
		p.clean()
	}
}

// The stage says what it cannot lie in, takes any number of comments, and goes on after a pause.
func TestStage(t *testing.T) {
	t.Parallel()
	s := newFakeServer(t, Config{})
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!doctype html><title>x</title><link rel=icon href=data:,><body><div id=s style='position:relative;width:800px;height:450px'></div>")
	}))
	defer other.Close()
	p := open(t, newBrowser(t), other.URL, desktop)
	got := eval[[]string](p, `(async () => {
		const { Stage } = await import("`+s.URL+`/sdk/stage.js");
		const said = [];
		for (const name of ["video", "canvas", "img", "iframe"]) try { new Stage(document.createElement(name)); said.push("taken"); } catch (e) { said.push(e.message); }
		try { new Stage(null); said.push("taken"); } catch (e) { said.push(e.message); }
		const stage = new Stage(document.getElementById("s"));
		stage.show({ items: Array.from({ length: 200_000 }, (_, i) => ({ id: String(i), text: "x" + i, user: { id: "u" + i } })) });
		await new Promise((done) => setTimeout(done, 300));
		said.push(stage.shown > 5 ? "shown" : "shown " + stage.shown);
		return said;
	})()`)
	for i, want := range []string{"<video>", "<canvas>", "<img>", "<iframe>", "needs an element", "shown"} {
		if i >= len(got) || !strings.Contains(got[i], want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// A big comment waits for rows that are full; after a pause its turn comes.
	kept := eval[bool](p, `(async () => {
		const { Stage } = await import("`+s.URL+`/sdk/stage.js");
		document.getElementById("s").replaceChildren();
		const stage = new Stage(document.getElementById("s"), { maxNodes: 400 });
		for (let i = 0; i < 12; i++) {
			stage.add(...Array.from({ length: 20 }, (_, k) => ({ id: i + "-" + k, text: "wwwwww", user: { id: "u" + i + "-" + k }, style: { size: "small" } })));
			await new Promise((done) => requestAnimationFrame(done));
		}
		stage.add({ id: "big", text: "BIG", user: { id: "host", role: "broadcaster" }, style: { size: "big" } });
		await new Promise((done) => requestAnimationFrame(done));
		stage.paused = true;
		await new Promise((done) => setTimeout(done, 200));
		stage.paused = false;
		for (let i = 0; i < 200; i++) {
			if ([...document.querySelectorAll(".kansei-comment")].some((e) => e.textContent === "BIG" && e.style.visibility === "")) return true;
			await new Promise((done) => setTimeout(done, 50));
		}
		throw new Error("shown " + stage.shown + ", left out " + stage.leftOut + ", there " + document.querySelectorAll(".kansei-comment").length);
	})()`)
	if !kept {
		t.Error("a comment that was kept does not come after a pause")
	}
}

// The button that stops the demo is in the demo's room alone.
func TestDemoButtonIsInItsRoom(t *testing.T) {
	t.Parallel()
	h := handler(t, Config{Room: "lobby", Demo: func() bool { return true }, DemoStopPath: "/demo/stop"})
	for path, want := range map[string]bool{"/": true, "/r/lobby": true, "/r/other": false} {
		res := get(h, path)
		if got := strings.Contains(body(t, res), `id="stop-demo"`); res.StatusCode != http.StatusOK || got != want {
			t.Errorf("%s: %d, button %v, want %v", path, res.StatusCode, got, want)
		}
	}
}
