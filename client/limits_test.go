package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// What no server takes is refused here by the code that servers have for it: it never
// reaches one, which would close the connection for good.
func TestCommentThatNoServerTakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		s := newServer(t, func(p *peer) {
			p.sendMessage(&protocol.Welcome{V: 1, Room: "r", Session: testSession, Recovered: true, BeatMS: 30_000, Limits: protocol.Limits{Text: 200, PerS: 1, Burst: 5}})
			p.answer(func(m map[string]any) {
				sent = append(sent, m["text"].(string))
				answerOK(p, m)
			})
		})
		r := start(t, s, nil)
		defer r.stop()
		ms := int64(-1)
		for name, tt := range map[string]struct {
			req  protocol.CommentRequest
			want protocol.ErrorCode
		}{
			"ten thousand spaces": {protocol.CommentRequest{Text: "hi" + strings.Repeat(" ", 10_000)}, protocol.CodeTooLong},
			"escapes":             {protocol.CommentRequest{Text: strings.Repeat("\x01", 1000)}, protocol.CodeTooLong},
			"a position":          {protocol.CommentRequest{Text: "x", Style: &protocol.Style{Position: "left"}}, protocol.CodeBadMessage},
			"a color":             {protocol.CommentRequest{Text: "x", Style: &protocol.Style{Color: "mauve"}}, protocol.CodeBadMessage},
			"a time":              {protocol.CommentRequest{Text: "x", MediaMS: &ms}, protocol.CodeBadMessage},
			"a ref":               {protocol.CommentRequest{Text: "x", Ref: strings.Repeat("r", 65)}, protocol.CodeBadMessage},
		} {
			for range 12 {
				if _, err := r.Comment(t.Context(), tt.req); code(err) != tt.want {
					t.Errorf("%s: %v, want %s", name, err, tt.want)
				}
			}
		}
		if id, err := r.Comment(t.Context(), protocol.CommentRequest{Text: strings.Repeat("👩", 200)}); err != nil || id != "id1" {
			t.Errorf("published as %q, %v", id, err)
		}
		if len(sent) != 1 {
			t.Errorf("sent %q", sent)
		}
	})
}

// Comments that wait for a connection, and those that come right after, are sent as fast
// as the server takes them.
func TestCommentsThatWaitedArePaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const perS, burst = 2, 3
		var mu sync.Mutex
		refused, taken := 0, 0
		s := newServer(t, func(p *peer) { // lets them wait
			p.read()
		}, func(p *peer) {
			p.sendMessage(&protocol.Welcome{V: 1, Room: "r", Session: testSession, Recovered: true, BeatMS: 30_000, Limits: protocol.Limits{Text: 200, PerS: perS, Burst: burst}})
			began, tokens := time.Now(), float64(burst)
			p.answer(func(m map[string]any) {
				mu.Lock()
				defer mu.Unlock()
				tokens = min(burst, tokens+perS*time.Since(began).Seconds())
				began = time.Now()
				if tokens < 0.999 {
					refused++
					answerError(protocol.CodeRateLimited, 500)(p, m)
					return
				}
				tokens--
				taken++
				answerOK(p, m)
			})
		})
		r := start(t, s, func(c *Config) { c.ConnectTimeout = time.Second })
		defer r.stop()
		var all sync.WaitGroup
		say := func(text string) {
			all.Go(func() { // ends with its answer
				if _, err := r.Comment(t.Context(), protocol.CommentRequest{Text: text}); err != nil {
					t.Errorf("%s: %v", text, err)
				}
			})
		}
		for i := range 8 {
			say(fmt.Sprint("waits ", i))
		}
		for r.Session() == "" {
			time.Sleep(10 * time.Millisecond)
		}
		for i := range 4 {
			say(fmt.Sprint("new ", i))
		}
		all.Wait()
		if refused > 2 || taken != 12 {
			t.Errorf("%d taken, %d refused on the way", taken, refused)
		}
	})
}

// One of several addresses that is none of Kansei's does not end the client.
func TestOneWrongAddressOfSeveral(t *testing.T) {
	t.Parallel()
	for _, status := range []int{200, 400, 403, 404, 426} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				refuse := func(w http.ResponseWriter) { w.WriteHeader(status) }
				s := newServer(t, func(p *peer) {
					defer time.AfterFunc(time.Minute, func() { _ = p.ws.CloseNow() }).Stop()
					p.welcome(true)
					p.answer(nil) // a beat without an answer would end it before its minute is over
				})
				s.refusals = []func(http.ResponseWriter){refuse}
				r := start(t, s, func(c *Config) { c.URLs = []string{"http://one.test", "http://two.test"} })
				time.Sleep(30 * time.Second)
				if r.Session() == "" {
					t.Errorf("not there: %v", r.causes)
				}
				// Where nothing else is left the other one is asked again, and ends it when both have refused.
				s.mu.Lock()
				s.refusals = []func(http.ResponseWriter){refuse, refuse, refuse}
				s.mu.Unlock()
				<-r.done
				if re, ok := errors.AsType[*RefusedError](r.err); !ok || re.Status != status {
					t.Errorf("ended with %v", r.err)
				}
				if n := s.count(); n != 4 {
					t.Errorf("asked %d times", n)
				}
				r.stop()
			})
		})
	}
}

func TestAddressesArePrefixes(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"https://kansei.example":               "https://kansei.example/v1/rooms/r/ws",
		"https://kansei.example/":              "https://kansei.example/v1/rooms/r/ws",
		"https://kansei.example//":             "https://kansei.example/v1/rooms/r/ws",
		"https://kansei.example/live/":         "https://kansei.example/live/v1/rooms/r/ws",
		"https://kansei.example/a%2Fb":         "https://kansei.example/a%2Fb/v1/rooms/r/ws",
		"https://kansei.example/a%2Fb/":        "https://kansei.example/a%2Fb/v1/rooms/r/ws",
		"https://kansei.example/a//b":          "https://kansei.example/a//b/v1/rooms/r/ws",
		"https://kansei.example/%E6%AD%93":     "https://kansei.example/%E6%AD%93/v1/rooms/r/ws",
		"https://kansei.example/歓":             "https://kansei.example/%E6%AD%93/v1/rooms/r/ws",
		"https://kansei.example/live?tenant=a": "https://kansei.example/live/v1/rooms/r/ws?tenant=a",
	} {
		if got, err := (&Options{URL: address, Room: "r"}).target(); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", address, got, err, want)
		}
	}
	seen, at := true, int64(61_000)
	if got, err := (&Options{URL: "https://kansei.example", Room: "r", Watching: &protocol.BeatRequest{Visible: &seen, MediaMS: &at}}).target(); err != nil || got != "https://kansei.example/v1/rooms/r/ws?media_ms=61000&visible=1" {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := (&Options{URL: "https://kansei.example", Room: "r", Uncounted: true}).target(); err != nil || got != "https://kansei.example/v1/rooms/r/ws?count=0" {
		t.Errorf("uncounted: %s, %v", got, err)
	}
}

func TestBackoffDoesNotOverflow(t *testing.T) {
	t.Parallel()
	for _, base := range []time.Duration{time.Second, time.Hour, 100 * 24 * time.Hour} {
		c := &Client{cfg: Config{URLs: []string{"a"}, BackoffBase: base, BackoffMax: 365 * 24 * time.Hour}}
		last := time.Duration(0)
		for failures := range 200 {
			w := c.window(failures)
			if w < last || w > c.cfg.BackoffMax || w < base {
				t.Fatalf("base %v: %v after %d failures, %v before", base, w, failures, last)
			}
			last = w
		}
		if last != c.cfg.BackoffMax {
			t.Errorf("base %v: ends with %v", base, last)
		}
	}
}

// The log forgets a ref while the device sleeps, when one of the clocks stands still.
func TestTimeSinceGoesOnWhileTheDeviceSleeps(t *testing.T) {
	t.Parallel()
	now := time.Now()
	if d := since(now.Add(-time.Minute)); d < time.Minute || d > 2*time.Minute {
		t.Errorf("a minute ago is %v", d)
	}
	// A time of day that is ten minutes ago, and a monotonic clock that has stood still.
	slept := now.Round(0).Add(-10 * time.Minute)
	if d := since(slept); d < 10*time.Minute {
		t.Errorf("ten minutes of sleep are %v", d)
	}
}

// A token ends with a line feed where it was read from a file; none is no token.
func TestTokensOfASource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var token atomic.Value
		token.Store(" \n")
		s := newServer(t, func(p *peer) { p.welcome(true); p.answer(nil) })
		r := start(t, s, func(c *Config) { c.Token = func(context.Context) (string, error) { return token.Load().(string), nil } })
		defer r.stop()
		synctest.Wait()
		if len(r.causes) != 1 || !errors.Is(r.causes[0], errNoToken) || s.count() != 0 {
			t.Errorf("an empty token: %v", r.causes)
		}
		token.Store("a.b.c\r\n")
		for s.count() == 0 {
			time.Sleep(time.Second)
		}
		if got := s.asked(0).Header.Get("Authorization"); got != "Bearer a.b.c" {
			t.Errorf("asked with %q", got)
		}
	})
}
