package client

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

func TestBeats(t *testing.T) {
	t.Parallel()
	t.Run("answered", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			beats := 0
			s := newServer(t, func(p *peer) {
				p.welcome(false)
				for m := p.read(); m != nil; m = p.read() {
					beats++
					time.Sleep(9 * time.Second)
					p.sendMessage(&protocol.Beat{Now: 1})
				}
			})
			r := start(t, s, nil)
			time.Sleep(5*time.Minute + time.Second)
			r.stop()
			r.want("welcome recovered=false", "disconnected")
			if beats != 10 {
				t.Errorf("%d beats in 5 minutes, want 10", beats)
			}
		})
	})
	t.Run("not answered", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, func(p *peer) {
				p.welcome(false)
				go func() { // ends with the connection
					for p.ctx.Err() == nil {
						p.sendMessage(&protocol.Viewers{Connections: 1})
						time.Sleep(time.Second)
					}
				}()
				for m := p.read(); m != nil; {
					m = p.read()
				}
			}, func(p *peer) { p.welcome(false); p.answer(nil) })
			r := start(t, s, func(c *Config) { c.Handler.Viewers = nil })
			time.Sleep(24 * time.Second)
			r.want("welcome recovered=false")
			time.Sleep(18 * time.Second)
			r.want("welcome recovered=false", "disconnected", "welcome recovered=false")
			if !errors.Is(r.causes[0], ErrSilent) {
				t.Errorf("the reason was %v, want ErrSilent", r.causes[0])
			}
			r.stop()
		})
	})
	t.Run("no welcome", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, func(p *peer) { p.read() }, func(p *peer) { p.welcome(false); p.answer(nil) })
			r := start(t, s, nil)
			time.Sleep(11 * time.Second)
			r.want("disconnected", "welcome recovered=false")
			if !errors.Is(r.causes[0], ErrSilent) {
				t.Errorf("the reason was %v, want ErrSilent", r.causes[0])
			}
			r.stop()
		})
	})
}

func TestReconnectMessage(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]func(*peer){
		"the node waits":     func(p *peer) { p.answer(nil) },
		"the node goes away": func(p *peer) { p.close(protocol.CloseRestart, "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, func(p *peer) {
					p.welcome(false)
					p.sendMessage(&protocol.Reconnect{AfterMS: 4200})
					p.sendMessage(comments("c1", "a"))
					script(p)
				}, func(p *peer) { p.welcome(true); p.answer(nil) })
				r := start(t, s, func(c *Config) { c.URLs = append(c.URLs, "http://two.test") })
				time.Sleep(4100 * time.Millisecond)
				if s.count() != 1 {
					t.Error("came back before the told time")
				}
				time.Sleep(1200 * time.Millisecond)
				synctest.Wait()
				r.stop()
				r.want("welcome recovered=false", "comment a", "disconnected", "welcome recovered=true", "disconnected")
				if got := s.asked(1).Host; got != "two.test" {
					t.Errorf("went to %s, want two.test", got)
				}
			})
		})
	}
}

func TestBadMessagesEndTheConnection(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]func(*peer){
		"not JSON":       func(p *peer) { p.send("hello") },
		"a wrong field":  func(p *peer) { p.send(`{"type":"comments","cursor":"x","items":7}`) },
		"two welcomes":   func(p *peer) { p.welcome(true) },
		"too long":       func(p *peer) { p.send(strings.Repeat(" ", 2000)) },
		"a binary frame": func(p *peer) { _ = p.ws.Write(p.ctx, 2, []byte("{}")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, func(p *peer) { p.welcome(true); script(p); p.answer(nil) },
					func(p *peer) { p.welcome(true); p.answer(nil) })
				r := start(t, s, func(c *Config) { c.ReadLimit = 1000 })
				time.Sleep(30 * time.Second)
				r.want("welcome recovered=true", "disconnected", "welcome recovered=true")
				if !errors.Is(r.causes[0], ErrMessage) {
					t.Errorf("the reason was %v, want ErrMessage", r.causes[0])
				}
				r.stop()
			})
		})
	}
}
