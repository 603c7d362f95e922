package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// hosts are the first letters of those that were asked, in order.
func (s *server) hosts() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	for _, r := range s.requests {
		b.WriteByte(r.Host[0])
	}
	return b.String()
}

func abc(c *Config) { c.URLs = []string{"http://a.test", "http://b.test", "http://c.test"} }

func busy(seconds int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", fmt.Sprint(seconds))
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

// A node that is full is left in peace for as long as it says; the others are not
// spared for it.
func TestBusyAddresses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, lively)
		for _, seconds := range []int{20, 60, 40} {
			s.refuse(1, busy(seconds))
		}
		r := start(t, s, abc)
		defer r.stop()
		time.Sleep(3 * time.Second)
		if got := s.hosts(); got != "abc" {
			t.Errorf("asked %q, want each once", got)
		}
		time.Sleep(16 * time.Second)
		r.Wake()
		synctest.Wait()
		if got := s.hosts(); got != "abc" {
			t.Errorf("asked %q before any had said", got)
		}
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if got := s.hosts(); got != "abca" {
			t.Errorf("asked %q, want the first that may be asked again", got)
		}
		if w := r.waits[2]; w < 16*time.Second || w > 22*time.Second {
			t.Errorf("told a wait of %v, want what is left of 20 s", w)
		}
	})
}

// A client moves to the next address, not back to the node that it is to leave; a move
// that is refused keeps the told time.
func TestMoveThatIsRefused(t *testing.T) {
	t.Parallel()
	leaving := func(p *peer) {
		p.welcome(false)
		p.sendMessage(&protocol.Reconnect{AfterMS: 1000})
		p.answer(nil)
	}
	t.Run("several addresses", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, leaving, func(p *peer) { p.close(protocol.CloseRestart, "retry_ms=300") }, lively)
			r := start(t, s, abc)
			defer r.stop()
			time.Sleep(500 * time.Millisecond)
			s.refuse(2, badGateway)
			time.Sleep(8 * time.Second)
			synctest.Wait()
			if got := s.hosts(); got != "abcbc" {
				t.Errorf("asked %q, want abcbc", got)
			}
			r.want("welcome recovered=false", "disconnected", "welcome recovered=true")
		})
	})
	t.Run("two nodes, one after the other", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, leaving, func(p *peer) {
				p.welcome(true)
				p.sendMessage(&protocol.Reconnect{AfterMS: 1000})
				p.answer(nil)
			}, lively)
			r := start(t, s, func(c *Config) { abc(c); c.URLs = c.URLs[:2] })
			defer r.stop()
			time.Sleep(2100 * time.Millisecond)
			synctest.Wait()
			if got := s.hosts(); got != "aba" {
				t.Errorf("asked %q, want aba", got)
			}
		})
	})
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := newServer(t, leaving, func(p *peer) {
				p.welcome(true)
				p.read() // a beat, after 15 s or more
				p.sendMessage(&protocol.Beat{Now: 1})
				p.sendMessage(&protocol.Reconnect{AfterMS: 100})
				p.answer(nil)
			}, lively)
			r := start(t, s, abc)
			defer r.stop()
			time.Sleep(15 * time.Second)
			s.refuse(3, badGateway)
			time.Sleep(25 * time.Second)
			synctest.Wait()
			// The second time b is the one to leave, and a is a node like the others.
			if got := s.hosts(); got != "abcaca" {
				t.Errorf("asked %q, want abcaca", got)
			}
		})
	})
	for name, end := range map[string]func(*peer){
		"the node stays":  func(p *peer) { p.answer(nil) },
		"the node closes": func(p *peer) { time.Sleep(2 * time.Second); p.close(protocol.CloseRestart, "retry_ms=300") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer(t, func(p *peer) {
					p.welcome(false)
					p.sendMessage(&protocol.Reconnect{AfterMS: 1000})
					end(p)
				}, lively)
				r := start(t, s, nil)
				defer r.stop()
				time.Sleep(500 * time.Millisecond)
				s.refuse(1, busy(9))
				time.Sleep(9400 * time.Millisecond)
				synctest.Wait()
				if s.count() != 2 {
					t.Errorf("%d connections before the told time, want 2", s.count())
				}
				time.Sleep(2200 * time.Millisecond)
				synctest.Wait()
				if s.count() != 3 {
					t.Errorf("%d connections, want 3", s.count())
				}
				r.want("welcome recovered=false", "disconnected", "welcome recovered=true")
			})
		})
	}
}

// A token that was good when the connection began may have expired when its node is
// leaving: the move fetches another. Who is not wanted elsewhere does not insist.
func TestMoveAndTokens(t *testing.T) {
	t.Parallel()
	leaving := func(p *peer) {
		p.welcome(false)
		p.sendMessage(&protocol.Reconnect{AfterMS: 1000})
		p.answer(nil)
	}
	expired := func(p *peer) { p.close(protocol.CloseUnauthorized, "the token has expired") }
	source := func(n *int) func(c *Config) {
		return func(c *Config) {
			c.Token = func(context.Context) (string, error) { *n++; return fmt.Sprint("token", *n), nil }
		}
	}
	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			n := 0
			s := newServer(t, leaving, expired, lively)
			r := start(t, s, source(&n))
			defer r.stop()
			time.Sleep(1100 * time.Millisecond)
			synctest.Wait()
			r.want("welcome recovered=false", "disconnected", "welcome recovered=true")
			if got := s.asked(2).Header.Get("Authorization"); got != "Bearer token2" || !errors.Is(r.causes[0], ErrMoved) {
				t.Errorf("came with %q, because of %v", got, r.causes[0])
			}
		})
	})
	for name, tc := range map[string]struct {
		script   func(*peer)
		attempts int
	}{
		"banned":         {func(p *peer) { p.close(protocol.CloseBanned, "") }, 1},
		"always refused": {expired, maxRefusals + 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := 0
				s := newServer(t, leaving, tc.script)
				r := start(t, s, source(&n))
				defer r.stop()
				time.Sleep(5 * time.Minute)
				r.want("welcome recovered=false")
				if got := s.count() - 1; got != tc.attempts {
					t.Errorf("%d attempts to move, want %d", got, tc.attempts)
				}
			})
		})
	}
}

// crowd is what the clients of a schedule do: it stands in for all connections.
type crowd struct {
	began time.Time
	up    func(host string) bool

	mu    sync.Mutex
	tries map[int][]time.Duration // of each client
	found []context.CancelFunc    // ends each client
}

// RoundTrip refuses where nobody listens, and ends those who found somebody: then they
// are counted as back.
func (c *crowd) RoundTrip(r *http.Request) (*http.Response, error) {
	var n int
	if _, err := fmt.Sscan(r.Header.Get("Client"), &n); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.tries[n] = append(c.tries[n], time.Since(c.began))
	c.mu.Unlock()
	if !c.up(r.URL.Hostname()) {
		return nil, syscall.ECONNREFUSED
	}
	c.found[n]()
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
}

func histogram(times []time.Duration, by time.Duration) []int {
	h := make([]int, slices.Max(times)/by+1)
	for _, t := range times {
		h[t/by]++
	}
	return h
}

// Ten thousand clients find their node dead. They ask the next one within a second,
// evenly; where that is dead too, they are at the one after it within another.
func TestACrowdComesBack(t *testing.T) {
	t.Parallel()
	const bubbles, clients = 5, 2000 // the race detector has a limit of 8128 goroutines
	var first, back []time.Duration
	for range bubbles {
		synctest.Test(t, func(t *testing.T) {
			c := &crowd{began: time.Now(), up: func(host string) bool { return host == "c.test" }, tries: make(map[int][]time.Duration), found: make([]context.CancelFunc, clients)}
			hc := &http.Client{Transport: c}
			var running sync.WaitGroup
			for n := range clients {
				cl, err := New(Config{
					URLs: []string{"http://a.test", "http://b.test", "http://c.test"}, Room: "r",
					HTTPClient: hc, Header: http.Header{"Client": {fmt.Sprint(n)}},
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				c.found[n] = cancel
				running.Go(func() { _ = cl.Run(ctx) }) // ends when a node answers
			}
			running.Wait()
			for _, tries := range c.tries {
				first, back = append(first, tries[1]), append(back, tries[len(tries)-1])
			}
		})
	}
	tenths, halves := histogram(first, 100*time.Millisecond), histogram(back, 500*time.Millisecond)
	slices.Sort(back)
	t.Logf("first retry in tenths of a second: %v; with another node dead: p50 %v, p99 %v, max %v; in halves of a second: %v",
		tenths, back[len(back)/2], back[len(back)*99/100], back[len(back)-1], halves)
	const tenth = bubbles * clients / 10
	if len(tenths) != 10 || slices.Min(tenths) < tenth*85/100 || slices.Max(tenths) > tenth*115/100 {
		t.Errorf("first retry in tenths of a second: %v, want %d each", tenths, tenth)
	}
	if len(halves) > 4 || slices.Max(halves) > 2*bubbles*clients/4 {
		t.Errorf("back in halves of a second: %v, want all within 2 s, and in none more than twice the average", halves)
	}
}

// One who asks a single address does so less and less, also when each attempt takes
// long to fail.
func TestBackoffAfterAttemptsThatTakeLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newServer(t, func(p *peer) { p.read() }), nil) // no welcome comes
		time.Sleep(30 * time.Minute)
		r.stop()
		if len(r.waits) < 20 || slices.Max(r.waits[5:]) < 10*time.Second {
			t.Errorf("waits %v do not grow", r.waits)
		}
	})
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAddresses(3)
		asked := ""
		turn := func() {
			if a.next() {
				asked += string(rune('a' + a.current))
			} else {
				asked += "-"
			}
		}
		for range 4 {
			turn()
		}
		a.arrive()
		a.leave(time.Second)
		for range 3 {
			turn() // not a
		}
		a.spared[1], a.spared[2] = time.Now().Add(time.Minute), time.Now().Add(time.Hour)
		turn() // there is no other
		a.spared[0] = time.Now().Add(2 * time.Minute)
		turn()
		if d := a.free(); d != time.Minute {
			t.Errorf("free after %v, want a minute", d)
		}
		time.Sleep(a.free())
		turn()
		time.Sleep(a.free() + time.Minute)
		turn() // a is a node like the others by then
		if asked != "abcabcba-ba" {
			t.Errorf("asked %s", asked)
		}
		one := newAddresses(1)
		one.next()
		one.arrive()
		one.leave(time.Second)
		if !one.next() {
			t.Error("the only address is not asked again")
		}
	})
}
