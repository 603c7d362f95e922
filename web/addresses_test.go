package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// A page of somebody else's, with the addresses of two nodes, loses the one and is sent
// away by the other, and asks a node that refuses it why, with its token.
func TestSeveralAddresses(t *testing.T) {
	t.Parallel()
	a, b := newFakeServer(t, Config{}), newFakeServer(t, Config{})
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprintf(w, `<!doctype html><title>Mine</title><link rel=icon href=data:,><body><script type=module>
			import { connect } from "%s/sdk/kansei.js";
			window.texts = []; window.states = [];
			window.room = connect({ room: "r", urls: ["%[1]s", "%s"], token: "a.b.c" });
			room.on("comments", ({ items }) => texts.push(...items.map((c) => c.text)));
			room.on("status", (s) => states.push(s));
		</script>`, a.URL, b.URL) // the client is gone: nobody to tell
	}))
	defer page.Close()
	joined := func(s *fakeServer, n int) join {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
			var joins []join
			var here int
			s.set(func(s *fakeServer) { joins, here = s.joins, len(s.conns) })
			if len(joins) == n && here == 1 {
				return joins[n-1]
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d joins, %d connections; want %d joins, and 1", len(joins), here, n)
			}
		}
	}
	p := open(t, newBrowser(t), page.URL, desktop)
	if j := joined(a, 1); j.protocols != protocol.Subprotocol+", bearer.a.b.c" {
		t.Errorf("came with %q", j.protocols)
	}
	p.wait(`room.status.state === "live"`)
	a.say(protocol.Comment{Text: "one"})
	p.wait(`texts.length === 1`)

	a.crash()
	if q := joined(b, 1).query; q.Get("since") != "c1" || q.Get("session") != "session-0123456789" {
		t.Errorf("came back with %v", q)
	}
	p.wait(`room.status.state === "live"`)
	wait := eval[float64](p, `states.find((s) => s.state === "reconnecting").retryInMs`)
	if wait > 1000 {
		t.Errorf("waited %v ms for the first attempt, want at most 1000", wait)
	}

	// Both are full: the page learns it from them, and comes back later.
	for s, retry := range map[*fakeServer]time.Duration{a: 4 * time.Second, b: 3 * time.Second} {
		s.set(func(s *fakeServer) { s.refuse, s.refuseIn = http.StatusServiceUnavailable, retry })
	}
	b.crash()
	p.wait(`room.status.reason === "overloaded"`)
	for _, s := range []*fakeServer{a, b} {
		s.set(func(s *fakeServer) {
			if len(s.asked) == 0 || s.asked[0] != "Bearer a.b.c" {
				t.Errorf("asked why with %q", s.asked)
			}
			s.refuse = 0
		})
	}
	p.wait(`room.status.state === "live"`)

	at, to := a, b // where it is now
	a.set(func(s *fakeServer) {
		if len(s.conns) == 0 {
			at, to = b, a
		}
	})
	at.set(func(s *fakeServer) { s.seq = 1 })
	at.say(protocol.Comment{Text: "two"})
	p.wait(`texts.length === 2`)
	n := eval[int](p, `states.length`)
	var joins int
	to.set(func(s *fakeServer) { joins = len(s.joins) })
	at.set(func(s *fakeServer) { s.leaving = true })
	at.send(&protocol.Reconnect{AfterMS: 100})
	if q := joined(to, joins+1).query; q.Get("since") != "c2" {
		t.Errorf("moved with %v", q)
	}
	to.set(func(s *fakeServer) { s.seq = 2 })
	to.say(protocol.Comment{Text: "three"})
	p.wait(`texts.join() === "one,two,three"`)
	if now := eval[int](p, `states.length`); now != n {
		t.Errorf("a move changed the state %d times", now-n)
	}
}
