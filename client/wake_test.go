package client

import (
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// deaf welcomes and answers nothing.
func deaf(p *peer) {
	p.welcome(true)
	p.sendMessage(comments("c1", "a"))
	for p.read() != nil {
	}
}

func lively(p *peer) { p.welcome(true); p.answer(nil) }

func TestWakeFindsADeadConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newServer(t, deaf, lively), nil)
		defer r.stop()
		time.Sleep(5 * time.Second)
		r.Wake()
		time.Sleep(2900 * time.Millisecond)
		r.want("welcome recovered=true", "comment a")
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		r.want("welcome recovered=true", "comment a", "disconnected", "welcome recovered=true")
		if r.waits[0] != 0 || !errors.Is(r.causes[0], ErrSilent) {
			t.Errorf("waited %v because of %v, want no wait after silence", r.waits[0], r.causes[0])
		}
		if got := r.s.asked(1).URL.Query().Get("since"); got != "c1" {
			t.Errorf("came back with the cursor %q, want c1", got)
		}
	})
}

func TestWakeHurriesABeatUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := make(chan time.Time, 10)
		r := start(t, newServer(t, func(p *peer) {
			p.welcome(true)
			for p.read() != nil {
				asked <- time.Now()
			}
		}, lively), nil)
		defer r.stop()
		at := <-asked
		time.Sleep(time.Second)
		r.Wake()
		<-asked
		time.Sleep(3100 * time.Millisecond)
		synctest.Wait()
		if len(r.causes) != 1 {
			t.Errorf("%v after a beat without an answer: %d connections lost, want 1", time.Since(at), len(r.causes))
		}
	})
}

func TestWakeLeavesALiveConnectionAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		beats := 0
		r := start(t, newServer(t, func(p *peer) {
			p.welcome(true)
			for p.read() != nil {
				beats++
				time.Sleep(2 * time.Second)
				p.sendMessage(&protocol.Beat{Now: 1})
			}
		}), nil)
		time.Sleep(time.Second)
		r.Wake()
		time.Sleep(10 * time.Second)
		r.want("welcome recovered=true")
		r.stop()
		if beats != 1 {
			t.Errorf("%d beats, want one", beats)
		}
	})
}

// refuse has the next n attempts refused.
func (s *server) refuse(n int, how func(http.ResponseWriter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.refusals = append(s.refusals, how)
	}
}

func badGateway(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) }

func TestWakeCutsAWaitShort(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, lively)
		s.refuse(9, badGateway)
		r := start(t, s, func(c *Config) { c.BackoffBase = 10_000 * time.Hour; c.BackoffMax = c.BackoffBase })
		defer r.stop()
		synctest.Wait()
		// At most one attempt a second, however often it is woken.
		began := time.Now()
		for range 500 {
			r.Wake()
			time.Sleep(10 * time.Millisecond)
		}
		synctest.Wait()
		if n := s.count(); n < 5 || n > 7 {
			t.Errorf("%d attempts within %v, want one a second", n, time.Since(began))
		}
		n := s.count()
		r.Wake()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s.count() > n+2 {
			t.Errorf("%d attempts after the last Wake, want one, and one at once if it fails", s.count()-n)
		}
	})
}

// The waits begin anew when it is woken: the network is not always there at once.
func TestWakeBeginsTheWaitsAnew(t *testing.T) {
	t.Parallel()
	for name, takes := range map[string]time.Duration{"attempts fail at once": 0, "attempts fail late": 7 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, lively)
				s.refuse(1000, func(w http.ResponseWriter) { time.Sleep(takes); badGateway(w) })
				r := start(t, s, nil)
				defer time.Sleep(takes) // for what still hangs
				defer r.stop()
				waits := func() []time.Duration {
					r.mu.Lock()
					defer r.mu.Unlock()
					return slices.Clone(r.waits)
				}
				for range 5 {
					time.Sleep(10 * time.Minute)
					n := len(waits())
					r.Wake()
					time.Sleep(time.Minute)
					for i, w := range waits()[n : n+3] {
						if w > time.Second<<i {
							t.Errorf("wait %d after Wake is %v: %v", i, w, waits()[n-3:])
						}
					}
				}
			})
		})
	}
}

func TestWakeKeepsAToldWait(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]struct {
		script func(*peer)
		http   func(http.ResponseWriter)
	}{
		"closed": {script: func(p *peer) { p.close(protocol.CloseTooMany, "retry_ms=60000") }},
		"refused": {http: func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusServiceUnavailable)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				scripts := []func(*peer){lively}
				if refusal.script != nil {
					scripts = []func(*peer){refusal.script, lively}
				}
				s := newServer(t, scripts...)
				if refusal.http != nil {
					s.refuse(1, refusal.http)
				}
				r := start(t, s, func(c *Config) { c.BackoffBase = 20 * time.Minute; c.BackoffMax = 20 * time.Minute })
				defer r.stop()
				for range 599 {
					time.Sleep(100 * time.Millisecond)
					r.Wake()
				}
				synctest.Wait()
				if s.count() != 1 {
					t.Fatal("came back before the told time")
				}
				if refusal.http != nil {
					return // all of it is of the address
				}
				// What comes behind the told time is the client's own.
				time.Sleep(200 * time.Millisecond)
				synctest.Wait()
				if s.count() != 2 {
					t.Errorf("%d connections, want 2", s.count())
				}
			})
		})
	}
}

func TestWakeMakesAHangingAttemptAnew(t *testing.T) {
	t.Parallel()
	for name, hang := range map[string]func(*server){
		"without an answer": func(s *server) { s.refuse(1, func(http.ResponseWriter) { time.Sleep(8 * time.Second) }) },
		"without a welcome": func(s *server) { s.scripts = []func(*peer){func(p *peer) { p.read() }, lively} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, lively)
				hang(s)
				r := start(t, s, nil)
				defer time.Sleep(10 * time.Second) // for what still hangs
				defer r.stop()
				time.Sleep(500 * time.Millisecond)
				r.Wake() // it has only begun
				synctest.Wait()
				if len(r.causes) != 0 {
					t.Fatalf("given up because of %v", r.causes)
				}
				time.Sleep(1500 * time.Millisecond)
				r.Wake()
				synctest.Wait()
				time.Sleep(time.Millisecond)
				synctest.Wait()
				r.want("disconnected", "welcome recovered=true")
				if r.waits[0] != 0 || !errors.Is(r.causes[0], ErrSilent) {
					t.Errorf("waited %v because of %v", r.waits[0], r.causes[0])
				}
			})
		})
	}
}

// An attempt that fails just after Wake is not waited for either.
func TestWakeDuringAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, lively)
		s.refuse(1, func(w http.ResponseWriter) { time.Sleep(400 * time.Millisecond); badGateway(w) })
		r := start(t, s, func(c *Config) { c.BackoffBase = time.Hour; c.BackoffMax = time.Hour })
		defer r.stop()
		time.Sleep(100 * time.Millisecond)
		r.Wake()
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		r.want("disconnected", "welcome recovered=true")
		if r.waits[0] != 600*time.Millisecond {
			t.Errorf("waited %v, want what is left of a second", r.waits[0])
		}
	})
}

func TestWakeBesideRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, lively)
		c, err := New(Config{URLs: []string{"http://one.test"}, Room: "r", HTTPClient: s.client})
		if err != nil {
			t.Fatal(err)
		}
		c.Wake() // before Run
		s.close()
		r := start(t, newServer(t, lively), nil)
		synctest.Wait()
		r.stop()
		r.Wake() // and after it
		r.want("welcome recovered=true", "disconnected")
	})
}
