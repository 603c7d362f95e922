package client

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

func TestMoveComesInElsewhereFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now().UnixMilli()
		var over atomic.Int64
		s := newServer(t, func(p *peer) {
			p.welcome(false)
			p.sendMessage(comments("c1", "a"))
			p.sendMessage(&protocol.Reconnect{AfterMS: 1000})
			time.Sleep(1500 * time.Millisecond)
			p.sendMessage(comments("c2", "b")) // while the other connection is being made
			p.answer(nil)
			over.Store(time.Now().UnixMilli())
		}, func(p *peer) {
			time.Sleep(time.Second)
			p.welcome(true)
			p.sendMessage(comments("c3", "b", "c"))
			p.answer(nil)
		})
		r := start(t, s, func(c *Config) { c.URLs = append(c.URLs, "http://two.test") })
		time.Sleep(1900 * time.Millisecond)
		r.want("welcome recovered=false", "comment a")
		if over.Load() != 0 {
			t.Error("left before it was welcome elsewhere")
		}
		time.Sleep(time.Second)
		r.want("welcome recovered=false", "comment a", "disconnected", "welcome recovered=true", "comment b", "comment c")
		if !errors.Is(r.causes[0], ErrMoved) || r.waits[0] != 0 {
			t.Errorf("disconnected because of %v, for %v", r.causes[0], r.waits[0])
		}
		if at := over.Load() - began; at < 2000 || at > 2100 {
			t.Errorf("left after %d ms, want 2000", at)
		}
		if q := s.asked(1); q.Host != "two.test" || q.URL.Query().Get("since") != "c1" || q.URL.Query().Get("session") != testSession {
			t.Errorf("went to %s with %s", q.Host, q.URL.RawQuery)
		}
		r.stop()
	})
}

func TestMoveThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*peer){
		"another leaving node": func(p *peer) { p.close(protocol.CloseRestart, "retry_ms=300") },
		"not recovered":        func(p *peer) { p.welcome(false); p.sendMessage(comments("d9", "z")); p.answer(nil) },
		"no welcome":           func(p *peer) { p.answer(nil) },
		"nonsense":             func(p *peer) { p.send("hello"); p.answer(nil) },
		"something else":       func(p *peer) { p.sendMessage(&protocol.Viewers{}); p.answer(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, func(p *peer) {
					p.welcome(false)
					p.sendMessage(comments("c1", "a"))
					p.sendMessage(&protocol.Reconnect{AfterMS: 1000})
					time.Sleep(1200 * time.Millisecond)
					p.sendMessage(comments("c2", "b"))
					p.answer(nil)
				}, refuse, func(p *peer) {
					p.welcome(true)
					if p.r.URL.Query().Get("since") == "c1" { // it was tried again very soon
						p.sendMessage(comments("c2", "b"))
					}
					p.sendMessage(comments("c3", "c"))
					p.answer(nil)
				})
				r := start(t, s, func(c *Config) { c.URLs = append(c.URLs, "http://two.test", "http://three.test") })
				time.Sleep(10 * time.Second)
				r.mu.Lock()
				heard := slices.DeleteFunc(slices.Clone(r.events), func(e string) bool { return !strings.HasPrefix(e, "comment") })
				connections := len(r.events) - len(heard)
				r.mu.Unlock()
				if !slices.Equal(heard, []string{"comment a", "comment b", "comment c"}) || connections != 3 {
					t.Errorf("events: %v", r.events)
				}
				if q := s.asked(2); q.Host != "three.test" || q.URL.Query().Get("since") != "c2" && q.URL.Query().Get("since") != "c1" {
					t.Errorf("went to %s with %s", q.Host, q.URL.RawQuery)
				}
				r.stop()
			})
		})
	}
}

// A node that closes while its viewer looks for another is left without a pause, and
// one whose viewer finds no other as ever.
func TestMoveFromANodeThatCloses(t *testing.T) {
	t.Parallel()
	closing := func(p *peer) {
		p.welcome(false)
		p.sendMessage(comments("c1", "a"))
		p.sendMessage(&protocol.Reconnect{AfterMS: 1000})
		time.Sleep(1500 * time.Millisecond)
		p.close(protocol.CloseRestart, "retry_ms=200")
	}
	t.Run("found", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, closing, func(p *peer) {
				time.Sleep(2 * time.Second)
				p.welcome(true)
				p.answer(nil)
			})
			r := start(t, s, nil)
			time.Sleep(3100 * time.Millisecond)
			synctest.Wait()
			r.want("welcome recovered=false", "comment a", "disconnected", "welcome recovered=true")
			if s.count() != 2 {
				t.Errorf("%d connections, want 2", s.count())
			}
			r.stop()
		})
	})
	t.Run("not found", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, closing, func(p *peer) { p.welcome(true); p.answer(nil) })
			r := start(t, s, nil)
			time.Sleep(500 * time.Millisecond)
			s.mu.Lock()
			for range 20 {
				s.refusals = append(s.refusals, func(w http.ResponseWriter) {
					w.Header().Set("Retry-After", "1")
					w.WriteHeader(http.StatusServiceUnavailable)
				})
			}
			s.mu.Unlock()
			time.Sleep(2500 * time.Millisecond)
			r.mu.Lock()
			causes := r.causes
			r.mu.Unlock()
			if ce, ok := errors.AsType[*CloseError](causes[0]); !ok || ce.Code != protocol.CloseRestart {
				t.Errorf("the connection ended with %v", causes[0])
			}
			s.mu.Lock()
			s.refusals = nil
			s.mu.Unlock()
			time.Sleep(30 * time.Second)
			r.mu.Lock()
			events := strings.Join(r.events, ",")
			r.mu.Unlock()
			if !strings.HasSuffix(events, "disconnected,welcome recovered=true") {
				t.Errorf("events: %s", events)
			}
			r.stop()
		})
	})
}

// A comment whose answer stays with the node that is left is sent again on the other
// connection under its ref, in the same session.
func TestMoveKeepsComments(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refs := make(chan any, 2)
		s := newServer(t, func(p *peer) {
			p.welcome(false)
			p.sendMessage(&protocol.Reconnect{AfterMS: 1000})
			p.answer(func(m map[string]any) { refs <- m["ref"] })
		}, func(p *peer) {
			p.welcome(true)
			p.answer(func(m map[string]any) {
				refs <- m["ref"]
				p.sendMessage(&protocol.OK{Ref: m["ref"].(string), ID: "7"})
			})
		})
		r := start(t, s, nil)
		id, err := r.Comment(t.Context(), protocol.CommentRequest{Text: "歓声"})
		if id != "7" || err != nil {
			t.Errorf("Comment returned %q, %v", id, err)
		}
		if a, b := <-refs, <-refs; a != b {
			t.Errorf("sent as %v, and again as %v", a, b)
		}
		r.stop()
	})
}

func TestEndWhileMoving(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, func(p *peer) {
			p.welcome(false)
			p.sendMessage(&protocol.Reconnect{AfterMS: 1000})
			p.answer(nil)
		}, func(p *peer) { p.answer(nil) })
		r := start(t, s, nil)
		time.Sleep(1500 * time.Millisecond)
		if s.count() != 2 {
			t.Fatalf("%d connections, want 2", s.count())
		}
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v to end", took)
		}
		r.want("welcome recovered=false", "disconnected")
	})
}
