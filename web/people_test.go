package web

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

const hostile = "<img src=x onerror=\"document.title='owned'\">\u202egpj.exe"

func somePeople() []protocol.Member {
	return []protocol.Member{
		{ID: "u1", Name: "さくら", Role: protocol.RoleViewer, Since: 1_767_225_600_000, Devices: 1},
		{ID: "u2", Name: hostile, Role: protocol.RoleViewer, Since: 1_767_225_600_000, Devices: 1},
		{ID: "u3", Name: "Ｍｓ. Ōta", Role: protocol.RoleModerator, Since: 1_767_225_600_000, Devices: 3},
		{ID: "u4", Role: protocol.RoleViewer, Since: 1_767_225_600_000, Devices: 1},
		{ID: "host", Name: "先生", Role: protocol.RoleBroadcaster, Since: 1_767_225_600_000, Devices: 1},
	}
}

const peopleNames = `Array.from(document.querySelectorAll(".person-name"), (e) => e.textContent).join("|")`

func TestPeople(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)

	t.Run("studio", func(t *testing.T) {
		s := newStudio(t)
		s.members = somePeople()
		p := open(t, browser, s.URL+"/studio/lesson-7#token="+testToken, desktop)
		p.wait(live)
		p.wait(`document.querySelectorAll(".person").length === 5`)
		names := strings.Split(eval[string](p, peopleNames), "|")
		if names[0] != "先生" || names[1] != "Ｍｓ. Ōta" || !strings.Contains(strings.Join(names, "|"), hostile) || !strings.Contains(strings.Join(names, "|"), "u4") {
			t.Errorf("listed are %q: the staff come first, and names are text", names)
		}
		if title := eval[string](p, `document.title`); strings.Contains(title, "owned") || eval[bool](p, `document.querySelector(".people img") !== null`) {
			t.Error("a name was taken for markup")
		}
		p.shoot("studio people")
		if n := eval[string](p, `document.getElementById("people-n").textContent`); n != "5" {
			t.Errorf("the number is %q", n)
		}
		p.do(chromedp.SendKeys("#people-search", "ms. ō"))
		p.wait(`document.querySelectorAll(".person").length === 1`)
		if got := eval[string](p, `document.querySelector(".person").textContent`); !strings.Contains(got, "3 devices") || !strings.Contains(got, "Moderator") {
			t.Errorf("found %q", got)
		}
		p.do(chromedp.SendKeys("#people-search", "xyz"))
		p.wait(`document.getElementById("people-more").textContent === "Nobody with that name is here."`)
		p.clean()
	})

	t.Run("not permitted", func(t *testing.T) {
		s := newStudio(t)
		s.noList = 403
		p := open(t, browser, s.URL+"/studio/lesson-7#token="+testToken, desktop)
		p.wait(live)
		p.wait(`document.getElementById("people-note").textContent.includes("does not permit")`)
	})

	t.Run("the audience", func(t *testing.T) {
		s := newFakeServer(t, Config{})
		s.members = somePeople()
		p := open(t, browser, s.URL+"/r/lesson-7", desktop)
		p.wait(live)
		p.wait(`document.getElementById("people-open").hidden`)
		s.set(func(s *fakeServer) {
			if s.lists != 0 {
				t.Errorf("the members were asked for %d times", s.lists)
			}
		})
		s.send(&protocol.State{Rev: 4, Status: protocol.StatusLive, Members: true})
		p.wait(`!document.getElementById("people-open").hidden`)
		p.do(chromedp.Click("#people-open"))
		p.wait(`document.querySelectorAll(".person").length === 5`)
		s.send(&protocol.State{Rev: 5, Status: protocol.StatusLive})
		p.wait(`document.getElementById("people-open").hidden && !document.getElementById("people").open`)
		p.clean()
	})

	t.Run("the setting", func(t *testing.T) {
		s := newStudio(t)
		p := open(t, browser, s.URL+"/studio/lesson-7#token="+testToken, desktop)
		p.wait(live)
		p.do(chromedp.Click("#members"), chromedp.Click("#save"))
		p.wait(`document.getElementById("settings-note").textContent === "Saved"`)
		s.set(func(s *fakeServer) {
			if !s.state.Members {
				t.Errorf("stored was %+v", s.state)
			}
		})
		// Another change keeps it.
		p.do(chromedp.SendKeys("#room-title", "!"), chromedp.Click("#save"))
		deadline := time.Now().Add(10 * time.Second)
		for kept := false; !kept; {
			s.set(func(s *fakeServer) { kept = strings.HasSuffix(s.state.Title, "!") && s.state.Members })
			if time.Now().After(deadline) {
				t.Fatal("the setting was lost by a change of the title")
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
}
