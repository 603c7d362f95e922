package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/kansei-live/kansei/protocol"
)

// A moderator ends a raid from the studio page: Shield, a look at what a sweep would find, the sweep; and undoes it from the
// log. A viewer at another node sees all of it. KANSEI_SHOTS is a directory for pictures.
func TestStudioEndsARaid(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2, "--guests=watch", "--rate=1000", "--burst=1000")
	e := &evening{t: t, c: c, room: "raid", boss: token(t, c, "boss", protocol.RoleBroadcaster)}
	browser := newBrowser(t)
	page := tab(t, browser, c.Edges[1].URL+"/r/raid")
	studio := tab(t, browser, c.Edges[0].URL+"/studio/raid#token="+e.boss)
	run := func(js string) {
		t.Helper()
		if _, err := chromedp.Run(studio, chromedp.Evaluate[bool](`(() => { `+js+`; return true; })()`)); err != nil {
			t.Fatalf("%s: %v", js, err)
		}
	}
	shoot := func(name string) {
		dir := os.Getenv("KANSEI_SHOTS")
		if dir == "" {
			return
		}
		p, err := chromedp.Run(studio, chromedp.CaptureScreenshot())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name+".png"), p, 0o644)
		}
		if err != nil {
			t.Error(err)
		}
	}
	shows := func(want int, what string) {
		t.Helper()
		eventually(t, 20*time.Second, fmt.Sprintf("the viewer's page shows %d comments of the raid", want), func() bool {
			return strings.Count(text(t, page, "#list"), what) == want
		})
	}
	eventually(t, 20*time.Second, "the studio is ready", func() bool { return text(t, studio, "#link") != "" && text(t, studio, "#log-empty") != "" })
	for i := range 20 {
		e.say(i%2, token(t, c, fmt.Sprint("ken", i), protocol.RoleViewer), fmt.Sprint("nice ", i))
	}
	eve := token(t, c, "eve", protocol.RoleViewer)
	for i := range 6 {
		e.say(i%2, []string{eve, token(t, c, "mallory", protocol.RoleViewer)}[i%2], fmt.Sprint("JOIN NOW ", i))
	}
	shows(6, "JOIN NOW")
	run(`document.getElementById("shield").click()`)
	eventually(t, 10*time.Second, "the shield is on", func() bool { return text(t, studio, "#shield") == "Shield is on" })
	var refused protocol.Problem
	if status := e.ask(1, "POST", "/comments", eve, `{"text":"JOIN NOW again"}`, &refused); status != 403 || refused.Code != protocol.CodeLocked {
		t.Errorf("under the shield: %d %+v", status, refused)
	}
	run(`document.getElementById("sweep-new").value = "0";
		document.getElementById("sweep-guests").checked = false;
		document.getElementById("sweep-text").value = "join now";
		document.getElementById("sweep-look").click()`)
	eventually(t, 10*time.Second, "the studio shows what is found", func() bool { return text(t, studio, "#sweep-note") == "6 comments by 2 of 22 who spoke" })
	run(`document.getElementById("sweep").scrollIntoView()`)
	shoot("raid-found")
	shows(6, "JOIN NOW")
	run(`document.getElementById("sweep-do").click()`)
	shows(0, "JOIN NOW")
	if n := strings.Count(text(t, page, "#list"), "nice"); n != 20 {
		t.Errorf("%d of 20 other comments are left", n)
	}
	eventually(t, 10*time.Second, "the log has it", func() bool {
		return strings.Contains(text(t, studio, "#log-list"), "Swept 6 comments of 2 users")
	})
	run(`document.getElementById("log").scrollIntoView()`)
	shoot("raid-swept")
	run(`document.querySelector("#log-list .entry-undo").click()`)
	shows(6, "JOIN NOW")
	eventually(t, 10*time.Second, "the log says who has undone it", func() bool {
		return strings.Contains(text(t, studio, "#log-list .entry.undone"), "undone by")
	})
	// The card of who has said it.
	run(`document.querySelectorAll("#list .item").forEach((li) => { if (li.textContent.includes("JOIN NOW 0")) li.click(); }); document.getElementById("act-card").click()`)
	eventually(t, 10*time.Second, "the card has what they have said", func() bool { return strings.Count(text(t, studio, "#card-comments"), "JOIN NOW") == 3 })
	shoot("raid-card")
}
