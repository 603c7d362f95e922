package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// run is a client that runs against a server, and what it was told.
type run struct {
	*Client
	t      *testing.T
	s      *server
	cancel context.CancelFunc
	done   chan struct{}
	err    error // of Run, once done is closed

	mu     sync.Mutex
	events []string
	waits  []time.Duration
	causes []error
}

func start(t *testing.T, s *server, change func(*Config)) *run {
	t.Helper()
	r := &run{t: t, s: s, done: make(chan struct{})}
	cfg := Config{
		URLs: []string{"http://one.test"}, Room: "r", HTTPClient: s.client,
		Handler: Handler{
			Welcome:      func(w *protocol.Welcome) { r.event("welcome recovered=%v", w.Recovered) },
			NotRecovered: func(since string) { r.event("not recovered since %s", since) },
			Disconnected: func(err error, wait time.Duration) {
				r.event("disconnected")
				r.mu.Lock()
				r.waits, r.causes = append(r.waits, wait), append(r.causes, err)
				r.mu.Unlock()
			},
			Comments: func(m *protocol.Comments) {
				for _, c := range m.Items {
					r.event("comment %s", c.ID)
				}
			},
			Viewers: func(m *protocol.Viewers) { r.event("viewers %d", m.Connections) },
			State:   func(m *protocol.State) { r.event("state %s", m.Status) },
			Gap:     func(m *protocol.Gap) { r.event("gap %d", m.Missed) },
			Error:   func(m *protocol.Error) { r.event("error %s", m.Code) },
		},
	}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Client = c
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() { // ends with cancel
		defer close(r.done)
		r.err = c.Run(ctx)
	}()
	return r
}

func (r *run) event(format string, a ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, a...))
}

// stop ends the client and its server.
func (r *run) stop() {
	r.cancel()
	<-r.done
	r.s.close()
}

func (r *run) want(events ...string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.events, events) {
		r.t.Errorf("events:\n\t%s\nwant:\n\t%s\ncauses: %v",
			strings.Join(r.events, "\n\t"), strings.Join(events, "\n\t"), r.causes)
	}
}

func (r *run) ended(within time.Duration) error {
	r.t.Helper()
	select {
	case <-r.done:
		return r.err
	case <-time.After(within):
		r.t.Fatalf("the client still runs after %v", within)
		return nil
	}
}

func comments(cursor string, ids ...string) *protocol.Comments {
	m := &protocol.Comments{Cursor: cursor}
	for _, id := range ids {
		m.Items = append(m.Items, protocol.Comment{ID: id, User: protocol.User{ID: "u"}, Text: "歓声"})
	}
	return m
}

func TestEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, func(p *peer) {
			p.welcome(false)
			p.sendMessage(&protocol.State{Status: protocol.StatusLive})
			p.sendMessage(&protocol.Viewers{Connections: 7})
			p.sendMessage(comments("c1", "a", "b"))
			p.send(`{"type":"fireworks","n":3}`)
			p.send(`{"items":[{"id":"c"}],"cursor":"c2","type":"comments"}`)
			p.sendMessage(&protocol.Gap{Missed: 37, Cursor: "c3"})
			p.sendMessage(&protocol.Error{Code: protocol.CodeBadMessage, Message: "what?"})
			p.answer(nil)
		})
		frames := 0
		r := start(t, s, func(c *Config) { c.Handler.Frame = func([]byte) { frames++ } })
		synctest.Wait()
		r.want("welcome recovered=false", "state live", "viewers 7", "comment a", "comment b", "comment c",
			"gap 37", "error bad_message")
		if got := r.Cursor(); got != "c3" {
			t.Errorf("cursor %q, want c3", got)
		}
		if got := r.Session(); got != testSession {
			t.Errorf("session %q, want %q", got, testSession)
		}
		if err := r.Run(t.Context()); err == nil {
			t.Error("a second Run returned no error")
		}
		r.stop()
		if frames != 8 {
			t.Errorf("the hook saw %d frames, want 8", frames)
		}
		if !errors.Is(r.err, context.Canceled) {
			t.Errorf("Run returned %v, want context.Canceled", r.err)
		}
	})
}

func TestResumesOnTheNextAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t,
			func(p *peer) { p.welcome(false); p.sendMessage(comments("c1", "a")); _ = p.ws.CloseNow() },
			func(p *peer) { p.welcome(true); p.sendMessage(comments("c2", "b")); p.close(protocol.CloseTooSlow, "") },
			func(p *peer) { p.welcome(false); p.sendMessage(comments("c9", "z")); p.answer(nil) })
		r := start(t, s, func(c *Config) {
			c.URLs = []string{"http://one.test", "ws://two.test/prefix/"}
			c.Token = StaticToken("secret")
		})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		r.stop()
		r.want("welcome recovered=false", "comment a", "disconnected",
			"welcome recovered=true", "comment b", "disconnected",
			"welcome recovered=false", "not recovered since c2", "comment z", "disconnected")
		for n, want := range []string{
			"one.test /v1/rooms/r/ws ", "two.test /prefix/v1/rooms/r/ws session=" + testSession + "&since=c1",
			"one.test /v1/rooms/r/ws session=" + testSession + "&since=c2",
		} {
			q := s.asked(n)
			if got := q.Host + " " + q.URL.Path + " " + q.URL.RawQuery; got != want {
				t.Errorf("connection %d went to %s, want %s", n, got, want)
			}
			if got := q.Header.Get("Authorization"); got != "Bearer secret" {
				t.Errorf("connection %d came with %q", n, got)
			}
		}
	})
}

func TestCloseCodes(t *testing.T) {
	t.Parallel()
	const usual = time.Second // the first wait is up to this
	cases := []struct {
		code     protocol.CloseCode
		reason   string
		again    bool
		min, max time.Duration // of the wait
	}{
		{protocol.CloseNormal, "", false, 0, 0},
		{protocol.CloseGoingAway, "", true, 0, usual},
		{protocol.CloseProtocol, "", false, 0, 0},
		{protocol.CloseUnsupported, "", false, 0, 0},
		{noStatus, "", true, 0, usual},
		{lost, "", true, 0, usual},
		{protocol.CloseInvalidData, "", false, 0, 0},
		{protocol.CloseTooBig, "", false, 0, 0},
		{protocol.CloseInternal, "", true, 0, usual},
		{protocol.CloseRestart, "", true, 0, usual},
		{protocol.CloseRestart, "draining retry_ms=4200", true, 4200 * time.Millisecond, 4200*time.Millisecond + usual},
		{protocol.CloseMalformed, "", false, 0, 0},
		{protocol.CloseUnauthorized, "", false, 0, 0}, // there is no new token here
		{protocol.CloseBanned, "you are banned", false, 0, 0},
		{protocol.CloseBanned, "you are banned: spam retry_ms=2000", true, 2 * time.Second, 2*time.Second + usual},
		{protocol.CloseNoRoom, "no such room", false, 0, 0},
		{protocol.CloseTooSlow, "", true, 0, usual},
		{protocol.CloseTooMany, "retry_ms=2000", true, 2 * time.Second, 2*time.Second + usual},
		{protocol.CloseTooMany, "retry_ms=99999999999", true, maxTold, maxTold + usual},
		// Of nobody's table.
		{1008, "", true, 0, usual},
		{1013, "", true, 0, usual},
		{3000, "", true, 0, usual},
		{4000, "", true, 0, usual},
		{4999, "retry_ms=2000", true, 2 * time.Second, 2*time.Second + usual},
	}
	tested := make(map[protocol.CloseCode]bool)
	for _, tc := range cases {
		tested[tc.code] = true
	}
	for code := protocol.CloseCode(1000); code < 5000; code++ {
		if !code.Reconnect() && !tested[code] {
			t.Errorf("%d has no test", code)
		}
	}
	for _, tc := range cases {
		t.Run(fmt.Sprint(tc.code), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, func(p *peer) { p.welcome(false); p.sendMessage(comments("c1", "a")); p.end(tc.code, tc.reason) },
					func(p *peer) { p.welcome(true); p.answer(nil) })
				r := start(t, s, nil)
				defer r.stop()
				time.Sleep(tc.max + time.Second)
				synctest.Wait()
				if got := s.count() == 2; got != tc.again {
					t.Fatalf("came back: %v, want %v", got, tc.again)
				}
				ce, ok := errors.AsType[*CloseError](r.causes[0])
				if want := tc.code != lost; ok != want || ok && (ce.Code != tc.code || ce.Reason != tc.reason) {
					t.Errorf("the reason was %v, want %d %s", r.causes[0], tc.code, tc.reason)
				}
				if w := r.waits[0]; w < tc.min || w > tc.max {
					t.Errorf("waited %v, want %v to %v", w, tc.min, tc.max)
				}
				if tc.again {
					if q := s.asked(1).URL.Query(); q.Get("since") != "c1" || q.Get("session") != testSession {
						t.Errorf("came back with %v", q)
					}
				} else if ce, ok := errors.AsType[*CloseError](r.ended(time.Second)); !ok || ce.Code != tc.code {
					t.Errorf("Run returned %v", r.err)
				}
			})
		})
	}
}

func TestUnauthorized(t *testing.T) {
	t.Parallel()
	unauthorized := func(p *peer) { p.close(protocol.CloseUnauthorized, "token expired") }
	t.Run("a new token", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, unauthorized, func(p *peer) { p.welcome(false); p.close(protocol.CloseTooSlow, "") },
				func(p *peer) { p.welcome(false); p.answer(nil) })
			n := 0
			r := start(t, s, func(c *Config) {
				c.Token = func(context.Context) (string, error) {
					if n++; n == 2 {
						return "", errors.New("the back end is away")
					}
					return fmt.Sprint("token", n), nil
				}
			})
			time.Sleep(10 * time.Second)
			r.stop()
			r.want("disconnected", "disconnected", "welcome recovered=false", "disconnected",
				"welcome recovered=false", "disconnected")
			for i, want := range []string{"token1", "token3", "token3"} {
				if got := s.asked(i).Header.Get("Authorization"); got != "Bearer "+want {
					t.Errorf("connection %d came with %q, want %s", i, got, want)
				}
			}
		})
	})
	n := 0
	for name, tc := range map[string]struct {
		source func(context.Context) (string, error)
		want   func(error) bool
	}{
		"token after token": {func(context.Context) (string, error) { n++; return fmt.Sprint(n), nil }, func(err error) bool {
			ce, ok := errors.AsType[*CloseError](err)
			return ok && ce.Code == protocol.CloseUnauthorized && n == maxRefusals+1
		}},
		"the same token": {StaticToken("t"), func(err error) bool { return errors.Is(err, ErrStaleToken) }},
		"a guest":        {nil, func(err error) bool { _, ok := errors.AsType[*CloseError](err); return ok }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r := start(t, newServer(t, unauthorized), func(c *Config) { c.Token = tc.source })
				defer r.stop()
				if err := r.ended(time.Minute); !tc.want(err) {
					t.Errorf("Run returned %v", err)
				}
			})
		})
	}
}

// A token that ends while its connection is there is replaced, however often, after the
// time that the server tells.
func TestTokensThatEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const told = 1200 * time.Millisecond
		var steps []func(*peer)
		for range 10 {
			steps = append(steps, func(p *peer) {
				p.welcome(true)
				time.Sleep(time.Second)
				p.close(protocol.CloseUnauthorized, protocol.CloseReason("the token has ended", told.Milliseconds()))
			})
		}
		n := 0
		r := start(t, newServer(t, append(steps, lively)...), func(c *Config) {
			c.Token = func(context.Context) (string, error) { n++; return fmt.Sprint(n), nil }
		})
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n != 11 || r.s.count() != 11 {
			t.Errorf("%d tokens for %d connections; %v", n, r.s.count(), r.causes)
		}
		for _, wait := range r.waits {
			if wait < told {
				t.Errorf("waited %v, told %v", wait, told)
			}
		}
		r.stop()
	})
}

// Tokens that expire, one after the other, over hours are no reason to give up.
func TestTokensThatExpire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		expired := func(p *peer) { p.close(protocol.CloseUnauthorized, "the token has expired") }
		good := func(p *peer) {
			p.welcome(true)
			p.read() // a beat
			p.sendMessage(&protocol.Beat{Now: 1})
			p.close(protocol.CloseTooSlow, "")
		}
		n := 0
		r := start(t, newServer(t, expired, good, expired, good, expired, good, expired, good, expired, lively), func(c *Config) {
			c.Token = func(context.Context) (string, error) { n++; return fmt.Sprint(n), nil }
		})
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if n != 6 || r.s.count() != 10 {
			t.Errorf("%d tokens for %d connections; %v", n, r.s.count(), r.causes)
		}
		r.stop()
	})
}

// An attempt is one from asking for the token to the welcome.
func TestConnectTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newServer(t, func(p *peer) { p.read() }, lively), func(c *Config) {
			c.Token = func(context.Context) (string, error) { time.Sleep(6 * time.Second); return "t", nil }
		})
		time.Sleep(connectTimeout - time.Millisecond)
		r.want()
		time.Sleep(2 * time.Millisecond)
		r.mu.Lock()
		if len(r.causes) != 1 || !errors.Is(r.causes[0], ErrSilent) {
			t.Errorf("after %v: %v", connectTimeout, r.causes)
		}
		r.mu.Unlock()
		time.Sleep(time.Minute)
		r.stop()
	})
}

func TestTokenThatDoesNotCome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		r := start(t, newServer(t, func(p *peer) { p.welcome(false); p.answer(nil) }), func(c *Config) {
			c.Token = func(ctx context.Context) (string, error) {
				if n++; n == 1 {
					<-ctx.Done()
					return "", ctx.Err()
				}
				return "t", nil
			}
		})
		time.Sleep(connectTimeout + 2*time.Second)
		r.stop()
		r.want("disconnected", "welcome recovered=false", "disconnected")
	})
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status     int
		retryAfter string
		again      bool
		min, max   time.Duration
	}{
		"overload": {503, "7", true, 7 * time.Second, 8 * time.Second},
		"gateway":  {502, "", true, 0, time.Second},
		"origin":   {403, "", false, 0, 0},
		"garbage":  {503, "soon", true, 0, time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, func(p *peer) { p.welcome(false); p.answer(nil) })
				s.refusals = append(s.refusals, func(w http.ResponseWriter) {
					if tc.retryAfter != "" {
						w.Header().Set("Retry-After", tc.retryAfter)
					}
					http.Error(w, "because", tc.status)
				})
				r := start(t, s, nil)
				defer r.stop()
				time.Sleep(tc.max + time.Second)
				synctest.Wait()
				if got := s.count() == 2; got != tc.again {
					t.Errorf("came back: %v, want %v", got, tc.again)
				}
				re, ok := errors.AsType[*RefusedError](r.causes[0])
				if !ok || re.Status != tc.status || re.Detail != "because" {
					t.Errorf("the reason was %v, want a refusal with %d", r.causes[0], tc.status)
				}
				if w := r.waits[0]; w < tc.min || w > tc.max {
					t.Errorf("waited %v, want %v to %v", w, tc.min, tc.max)
				}
			})
		})
	}
}

func TestBackoffGrowsAndRecovers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		down := make([]func(*peer), 0, 12)
		for range 11 {
			down = append(down, func(p *peer) { p.close(protocol.CloseInternal, "") })
		}
		up := func(p *peer) { p.welcome(false); time.Sleep(time.Minute); p.close(protocol.CloseInternal, "") }
		r := start(t, newServer(t, append(down, up, up)...), nil)
		time.Sleep(10 * time.Minute)
		r.stop()
		for i, w := range r.waits[:11] {
			if limit := min(time.Second<<i, 30*time.Second); w < 0 || w >= limit {
				t.Errorf("wait %d: %v, want less than %v", i, w, limit)
			}
		}
		if slices.Max(r.waits[6:11]) < time.Second {
			t.Errorf("waits %v do not grow", r.waits[:11])
		}
		if len(r.waits) < 13 || r.waits[11] >= time.Second {
			t.Errorf("waits %v: a lasting connection does not end the row", r.waits)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	good := Config{URLs: []string{"http://h"}, Room: "r"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no address":   func(c *Config) { c.URLs = nil },
		"a scheme":     func(c *Config) { c.URLs = []string{"ftp://h"} },
		"no host":      func(c *Config) { c.URLs = []string{"localhost:8080"} },
		"not a URL":    func(c *Config) { c.URLs = []string{"http://h:x"} },
		"a room":       func(c *Config) { c.Room = "a b" },
		"a cursor":     func(c *Config) { c.Since = "&" },
		"a session":    func(c *Config) { c.Session = "short" },
		"the next URL": func(c *Config) { c.URLs = append(c.URLs, "http://") },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
