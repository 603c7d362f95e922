package web

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

const testToken = "aGVhZA.Ym9keQ.c2lnbg"

// newStudio is a server in which one is the broadcaster.
func newStudio(t *testing.T) *fakeServer {
	t.Helper()
	s := newFakeServer(t, Config{})
	s.you = protocol.You{ID: "host", Name: "先生", Role: protocol.RoleBroadcaster, Can: []string{"comment", "set"}}
	s.greet = []protocol.Message{&protocol.Viewers{Connections: 12480, Users: 12163, PeakUsers: 13011}}
	return s
}

func TestStudioPage(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	studio := func(t *testing.T, s *fakeServer, v view) *tab {
		p := open(t, browser, s.URL+"/studio/lesson-7#token="+testToken, v)
		p.wait(live)
		return p
	}

	t.Run("token", func(t *testing.T) {
		s := newStudio(t)
		p := studio(t, s, desktop)
		if got := eval[string](p, `location.href`); strings.Contains(got, "token") {
			t.Errorf("the token is still in the address: %s", got)
		}
		if eval[bool](p, `JSON.stringify(localStorage).includes("`+testToken+`") || document.cookie !== "" || document.documentElement.outerHTML.includes("`+testToken+`")`) {
			t.Error("the token is kept where it must not be")
		}
		p.do(chromedp.Reload())
		p.wait(live)
		s.set(func(s *fakeServer) {
			if len(s.joins) != 2 {
				t.Fatalf("%d joins, want 2", len(s.joins))
			}
			for _, j := range s.joins {
				if j.protocols != "kansei.v1, bearer."+testToken && j.protocols != "kansei.v1,bearer."+testToken {
					t.Errorf("offered %q", j.protocols)
				}
				if j.query.Has("token") {
					t.Error("the token is in the query")
				}
			}
		})
		p.clean()
	})

	t.Run("without a token", func(t *testing.T) {
		s := newStudio(t)
		p := open(t, browser, s.URL+"/studio/lesson-7", desktop)
		p.wait(`!document.getElementById("token-card").hidden`)
		p.do(chromedp.SendKeys(chromedp.ID("token"), "nonsense\r"))
		p.wait(`document.getElementById("token-note").textContent === "That is not a token."`)
		p.shoot("studio-token")
		// The whole link will do.
		eval[bool](p, `document.getElementById("token").value = ""; true`)
		p.do(chromedp.SendKeys(chromedp.ID("token"), s.URL+"/studio/lesson-7#token="+testToken+"\r"))
		p.wait(live + ` && document.getElementById("token-card").hidden`)
		s.closeAll(protocol.CloseUnauthorized, "the token has expired")
		p.wait(`!document.getElementById("token-card").hidden && sessionStorage.getItem("kansei.token.lesson-7") === null`)
	})

	t.Run("numbers and talk", func(t *testing.T) {
		s := newStudio(t)
		v := desktop
		v.lang = "ja"
		p := studio(t, s, v)
		p.wait(`document.getElementById("users").textContent === "12,163" && document.getElementById("connections").textContent === "12,480" && document.getElementById("peak").textContent === "13,011"`)
		for i := range 24 {
			s.say(trace(t, 600)[i*20 : i*20+(i*7)%20+1]...)
			time.Sleep(100 * time.Millisecond)
		}
		p.wait(`Number(document.getElementById("rate").textContent.replace(/\D/g, "")) > 0`)
		p.say("始めます")
		p.wait(`document.querySelector("#list .own.staff .text")?.textContent === "始めます"`)
		if got := eval[string](p, `document.querySelector("#list .own .role").textContent`); got != "配信者" {
			t.Errorf("the badge says %q", got)
		}
		p.shoot("studio")
		p.clean()
	})

	t.Run("settings", func(t *testing.T) {
		s := newStudio(t)
		p := studio(t, s, desktop)
		p.wait(`document.getElementById("room-title").value === "第七回 光と影"`)
		p.do(chromedp.SetValue(chromedp.ID("room-title"), "Lesson 8"), chromedp.Click(chromedp.CSS("input[name=status][value=scheduled]")))
		p.click("save")
		p.wait(`document.getElementById("settings-note").textContent === "Saved" && document.getElementById("title").textContent === "Lesson 8"`)
		s.set(func(s *fakeServer) {
			if s.state.Rev != 4 || s.state.Title != "Lesson 8" || s.state.Status != "scheduled" || s.puts[0] != "Bearer "+testToken {
				t.Errorf("state %+v, by %v", s.state, s.puts)
			}
			// Somebody else, of whom this page has not heard yet.
			s.state = protocol.State{Rev: 9, Status: protocol.StatusLive, Title: "Theirs"}
		})
		eval[bool](p, `document.getElementById("room-title").value = ""; true`)
		p.do(chromedp.SendKeys(chromedp.ID("room-title"), "Mine\r"))
		p.wait(`document.getElementById("settings-note").textContent.startsWith("Somebody has changed the room meanwhile. It is now “Theirs”, Live.")`)
		p.shoot("studio-conflict")
		if got := eval[string](p, `document.getElementById("room-title").value`); got != "Mine" {
			t.Errorf("the draft is lost: %q", got)
		}
		p.click("save")
		p.wait(`document.getElementById("settings-note").textContent === "Saved" && document.getElementById("title").textContent === "Mine"`)
		// What others set comes into a form that is not being edited.
		s.send(&protocol.State{Rev: 11, Status: protocol.StatusEnded, Title: "The end"})
		p.wait(`document.getElementById("room-title").value === "The end" && document.querySelector("input[name=status]:checked").value === "ended"`)
	})
}
