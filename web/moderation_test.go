package web

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/kansei-live/kansei/protocol"
)

// A moderator chooses a comment and removes it, mutes or bans its author, each with one key or tap, and undoes
// it; and runs the room.
func TestStudioModeration(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	s := newStudio(t)
	s.you.Can = []string{"comment", "set", "act"}
	p := open(t, browser, s.URL+"/studio/lesson-7#token="+testToken, desktop)
	p.wait(live + ` && !document.getElementById("moderation").hidden && !document.getElementById("acts").hidden`)
	var ids []string
	for i, text := range []string{"hello", "BUY GOLD", "nice", "BUY MORE GOLD"} {
		ids = append(ids, s.say(protocol.Comment{User: protocol.User{ID: fmt.Sprint("u", i%2), Name: []string{"ken", "spammer"}[i%2]}, Text: text})...)
	}
	p.wait(`document.querySelectorAll("#list .item").length === 4`)
	acts := func(n int) (all []*protocol.ActRequest) {
		p.wait(`document.getElementById("acts-note").textContent !== "…"`)
		s.set(func(s *fakeServer) { all = s.acts })
		if len(all) != n {
			t.Fatalf("%d acts, want %d", len(all), n)
		}
		return all
	}
	press := func(key string) {
		p.do(chromedp.Focus(chromedp.ID("list")), chromedp.KeyEvent(key))
	}
	eval[bool](p, `document.querySelectorAll("#list .item")[1].click(); true`)
	p.wait(`document.getElementById("acts-who").textContent === "spammer" && document.getElementById("act-remove").getAttribute("aria-disabled") === "false"`)
	p.shoot("studio-moderation")
	press("r")
	p.wait(`document.querySelectorAll("#list .item").length === 3 && document.getElementById("acts-note").textContent === "Removed"`)
	if a := acts(1)[0]; a.Type != protocol.TypeRemove || len(a.IDs) != 1 || a.IDs[0] != ids[1] {
		t.Errorf("removed by %+v", a)
	}
	// Nothing is chosen any more: a key does nothing.
	press("b")
	acts(1)
	press("u")
	p.wait(`document.getElementById("acts-note").textContent === "Undone"`)
	if a := acts(2)[1]; a.Type != protocol.TypeUndo || a.Act != "act-1" {
		t.Errorf("undone by %+v", a)
	}
	s.send(&protocol.Restored{Items: []protocol.Comment{{ID: ids[1], At: 1, User: protocol.User{ID: "u1", Name: "spammer"}, Text: "BUY GOLD"}}})
	p.wait(`document.querySelectorAll("#list .item")[0].querySelector(".text").textContent === "BUY GOLD"`)
	// By the keyboard alone, with a reason, for the user: the last comment is the first that the arrow chooses.
	p.do(chromedp.Focus(chromedp.ID("list")), chromedp.KeyEvent(kb.ArrowUp))
	p.wait(`document.getElementById("acts-who").textContent === "spammer"`)
	p.do(chromedp.SendKeys(chromedp.ID("act-reason"), "no mud rub"))
	acts(2) // what is typed is no key
	press("m")
	p.wait(`document.getElementById("acts-note").textContent === "spammer is muted for 10 minutes"`)
	if a := acts(3)[2]; a.Type != protocol.TypeMute || a.User != "u1" || a.ForMS != 600_000 || a.Reason != "no mud rub" {
		t.Errorf("muted by %+v", a)
	}
	p.click("act-ban")
	p.wait(`[...document.querySelectorAll("#list .item .name")].every((e) => e.textContent !== "spammer")`)
	if a := acts(4)[3]; a.Type != protocol.TypeBan || a.User != "u1" || !a.Clear || a.Reason != "" {
		t.Errorf("banned by %+v", a)
	}
	eval[bool](p, `document.querySelectorAll("#list .item")[0].click(); true`)
	press("p")
	p.wait(`document.getElementById("acts-note").textContent === "Pinned"`)
	p.click("shield")
	p.wait(`document.getElementById("shield").getAttribute("aria-pressed") === "true" && document.getElementById("shield").textContent === "Shield is on"`)
	p.shoot("studio-shield")
	eval[bool](p, `scrollTo(0, document.body.scrollHeight); true`)
	p.wait(`(() => { const r = document.getElementById("shield").getBoundingClientRect(); return r.top >= 0 && r.bottom <= innerHeight; })()`)
	eval[bool](p, `scrollTo(0, 0); true`)
	p.click("shield")
	p.wait(`document.getElementById("shield").getAttribute("aria-pressed") === "false"`)
	p.click("lock")
	p.wait(`document.getElementById("lock").textContent === "Unlock" && document.getElementById("mode").textContent.includes("Only the crew")`)
	p.do(chromedp.SetValue(chromedp.ID("slow-select"), "10000"))
	eval[bool](p, `document.getElementById("slow-select").dispatchEvent(new Event("change"))`)
	p.wait(`document.getElementById("mode").textContent.includes("10 s")`)
	p.do(chromedp.SendKeys(chromedp.ID("notice-text"), "8時から始まります"))
	p.click("notice-set")
	p.wait(`document.getElementById("notice").textContent === "8時から始まります" && !document.getElementById("board").hidden`)
	p.click("go-end")
	p.wait(`document.getElementById("room-status").dataset.status === "ended"`)
	p.click("go-live")
	p.wait(`document.getElementById("room-status").dataset.status === "live"`)
	s.set(func(s *fakeServer) {
		if s.state.Mode != protocol.ModeLocked || s.state.SlowMS != 10_000 || s.state.Notice != "8時から始まります" || s.state.Title != "第七回 光と影" {
			t.Errorf("the state is %+v", s.state)
		}
		s.refusal = &protocol.Error{Code: protocol.CodeForbidden}
	})
	p.click("lock")
	p.wait(`document.getElementById("moderation-note").textContent === "It was not done. You are not allowed to do that."`)
	p.shoot("studio-moderated")
	p.clean()
}

// A viewer sees what the room says, and why they may not comment, and until when.
func TestViewerIsModerated(t *testing.T) {
	t.Parallel()
	browser := newBrowser(t)
	s := newFakeServer(t, Config{})
	s.state.Notice, s.state.SlowMS = "読んでね <b>", 5000
	s.state.Pin = &protocol.Pin{Comment: &protocol.Comment{ID: "x1234", At: 1, User: protocol.User{ID: "host", Name: "先生"}, Text: "始めます"}}
	p := open(t, browser, s.URL+"/r/lesson-7", desktop)
	p.wait(live + ` && document.getElementById("notice").textContent === "読んでね <b>" && document.getElementById("pin-text").textContent === "始めます" && document.getElementById("mode").textContent === "Slow mode: one comment in 5 s."`)
	ids := s.say(protocol.Comment{User: protocol.User{ID: "a", Name: "a"}, Text: "one"}, protocol.Comment{User: protocol.User{ID: "b", Name: "b"}, Text: "two"}, protocol.Comment{User: protocol.User{ID: "b", Name: "b"}, Text: "three"})
	p.wait(`document.querySelectorAll("#list .item").length === 3 && document.querySelectorAll("#stage .kansei-comment").length === 3`)
	p.shoot("viewer-board")
	s.send(&protocol.Removed{IDs: ids[:1]})
	p.wait(`document.querySelectorAll("#list .item").length === 2 && document.querySelectorAll("#stage .kansei-comment").length === 2`)
	s.send(&protocol.Removed{User: "b"})
	p.wait(`document.querySelectorAll("#list .item").length === 0 && document.querySelectorAll("#stage .kansei-comment").length === 0`)
	s.send(&protocol.Restored{Items: []protocol.Comment{{ID: ids[1], At: 2, User: protocol.User{ID: "b"}, Text: "two"}, {ID: ids[0], At: 1, User: protocol.User{ID: "a"}, Text: "one"}}})
	p.wait(`[...document.querySelectorAll("#list .item .text")].map((e) => e.textContent).join() === "one,two" && document.querySelectorAll("#stage .kansei-comment").length === 0`)
	you := s.you
	you.Blocked = &protocol.Blocked{Code: protocol.CodeMuted, Message: "you are muted: spam", RetryMS: 600_000,
		Sanction: protocol.Sanction{Act: "a1", Reason: "spam <i>", AppealURL: "https://example.com/appeal"}}
	s.send(&protocol.YouNow{You: you, Limits: s.limits})
	p.wait(`document.getElementById("say-note").textContent === "You cannot comment for now. Reason: spam <i>" && document.getElementById("say-wait").textContent === "in 10 min" && document.getElementById("say").readOnly && document.getElementById("blocked-appeal").href === "https://example.com/appeal" && !document.getElementById("blocked-appeal").hidden`)
	p.shoot("viewer-muted")
	// A reload keeps it.
	s.set(func(s *fakeServer) { s.you.Blocked = you.Blocked })
	p.do(chromedp.Reload())
	p.wait(live + ` && document.getElementById("say-wait").textContent === "in 10 min" && document.getElementById("say").readOnly`)
	// It ends by itself.
	you.Blocked = &protocol.Blocked{Code: protocol.CodeSlowMode, Message: "m", RetryMS: 1500}
	s.send(&protocol.YouNow{You: you, Limits: s.limits})
	p.wait(`document.getElementById("say-note").textContent === "You can send again" && !document.getElementById("say").readOnly`)
	// A warning is to be acknowledged.
	you.Blocked = &protocol.Blocked{Code: protocol.CodeWarned, Message: "m", Sanction: protocol.Sanction{Act: "w1", Reason: "be kind"}}
	s.send(&protocol.YouNow{You: you, Limits: s.limits})
	p.wait(`document.getElementById("say-note").textContent === "A moderator has warned you. Reason: be kind" && !document.getElementById("blocked-ack").hidden && document.getElementById("say").readOnly`)
	p.click("blocked-ack")
	p.wait(`document.getElementById("blocked-ack").hidden && !document.getElementById("say").readOnly`)
	s.set(func(s *fakeServer) {
		if len(s.acts) != 1 || s.acts[0].Type != protocol.TypeAck || s.acts[0].Act != "w1" {
			t.Errorf("acknowledged by %+v", s.acts)
		}
	})
	s.closeAll(protocol.CloseBanned, "you are banned: spam")
	p.wait(`document.getElementById("link-text").textContent === "You were removed from this room"`)
	p.clean()
}
