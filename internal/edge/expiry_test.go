package edge

import (
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// endsAt is a session that nobody asks for a fresh token.
func endsAt(t time.Time) *session {
	return &session{due: schedule{at: t.Unix(), until: t.Unix()}}
}

// bears is a session with a token that ends at t and was made a while before.
func bears(t time.Time, life time.Duration) *session {
	exp := t.Unix()
	v := &session{ticket: ticket{identity: identity{token: tokenInfo{issued: t.Add(-life).Unix(), exp: exp, until: exp}}}}
	v.due = scheduleOf(&v.token, time.Now())
	return v
}

// ends runs an expiry, and notes when each session is ended.
type ends struct {
	expiry
	mu   sync.Mutex
	at   map[*session][]time.Time
	asks map[*session][]time.Time
	stop func()
}

func runEnds() *ends {
	e := &ends{at: map[*session][]time.Time{}, asks: map[*session][]time.Time{}}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		e.run(&e.mu, quit, func(v *session) { e.asks[v] = append(e.asks[v], time.Now()) }, func(v *session) { e.at[v] = append(e.at[v], time.Now()) })
	}()
	e.stop = func() { close(quit); <-done }
	return e
}

func (e *ends) enter(v *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.add(v)
}

func (e *ends) exit(v *session) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remove(v)
}

func TestSessionsEndWithTheirTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := runEnds()
		began := time.Now()
		var all, gone []*session
		for i := range 500 {
			// Some have ended already, as that of somebody who waited for its room's log.
			v := endsAt(began.Add(time.Duration(i-50) * 377 * time.Millisecond))
			e.enter(v)
			all = append(all, v)
			if i%5 == 0 {
				gone = append(gone, v)
			}
		}
		guest := new(session)
		e.enter(guest)
		for _, v := range gone {
			e.exit(v)
		}
		// More come while others end.
		for range 30 {
			time.Sleep(7 * time.Second)
			v := endsAt(time.Now().Add(3 * time.Second))
			e.enter(v)
			all = append(all, v)
		}
		time.Sleep(10 * time.Second)
		e.exit(guest)
		e.stop()
		for _, v := range gone {
			if len(e.at[v]) != 0 {
				t.Errorf("a session that had gone was ended at %v", e.at[v])
			}
			delete(e.at, v)
		}
		for i, v := range all {
			if i < 500 && i%5 == 0 {
				continue
			}
			at := e.at[v]
			if len(at) != 1 {
				t.Fatalf("session %d was ended at %v, want once", i, at)
			}
			// The last second is a token's still.
			if late := at[0].Sub(time.Unix(v.due.until, 0)); late <= 0 || late > 10*time.Second && v.due.until > began.Unix() || at[0].Sub(began) < expiryTick {
				t.Errorf("session %d was ended %v after its token", i, late)
			}
			if v.due.until <= began.Add(-10*time.Second).Unix() && at[0].Sub(began) > 2*expiryTick {
				t.Errorf("session %d, whose token had ended before, was ended after %v", i, at[0].Sub(began))
			}
			delete(e.at, v)
		}
		if len(e.at) != 0 || len(e.buckets) != 0 {
			t.Errorf("%d others were ended, %d buckets are left", len(e.at), len(e.buckets))
		}
	})
}

// Who bears a token is asked once for a fresh one, in the last fifth of its life, and those whose
// tokens end at once are not asked at once.
func TestSessionsAreAskedForFreshTokens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		e := runEnds()
		const life = time.Hour
		exp := time.Now().Add(life)
		var all []*session
		for range 300 {
			v := bears(exp, life)
			e.enter(v)
			all = append(all, v)
		}
		short := bears(time.Now().Add(20*time.Second), 20*time.Second)
		e.enter(short)
		time.Sleep(life + 10*time.Second)
		e.stop()
		perMinute := map[int]int{}
		for _, v := range all {
			if len(e.asks[v]) != 1 || len(e.at[v]) != 1 {
				t.Fatalf("asked %d times, ended %d times", len(e.asks[v]), len(e.at[v]))
			}
			left := exp.Sub(e.asks[v][0])
			if left > life/5+10*time.Second || left < life/10-time.Second {
				t.Errorf("asked %v before the end", left)
			}
			perMinute[int(left/time.Minute)]++
		}
		for m, n := range perMinute {
			if n > 100 {
				t.Errorf("%d of 300 were asked in minute %d before the end", n, m)
			}
		}
		if len(e.asks[short]) != 1 || len(e.at[short]) != 1 || !e.asks[short][0].Before(e.at[short][0]) {
			t.Errorf("a short token: asked %v, ended %v", e.asks[short], e.at[short])
		}
	})
}

// Whoever is let in hangs in a bucket until it is dismissed, also while the node leaves.
func TestExpiryFollowsTheSessions(t *testing.T) {
	t.Parallel()
	s := New(Config{Metrics: NewMetrics(nil)})
	defer s.Close()
	hung := func() map[*session]int {
		s.mu.Lock()
		defer s.mu.Unlock()
		all := map[*session]int{}
		for _, b := range s.expiry.buckets {
			for _, v := range b {
				all[v]++
			}
		}
		return all
	}
	exp := time.Now().Add(time.Hour)
	all := []*session{bears(exp, time.Hour), bears(exp, time.Hour), bears(exp.Add(time.Minute), time.Minute), new(session)}
	for _, v := range all {
		if !s.enroll(v) {
			t.Fatal("not let in")
		}
	}
	if n := hung(); len(n) != 3 || n[all[3]] != 0 {
		t.Errorf("%v hang in buckets", n)
	}
	s.dismiss(all[0])
	s.beginDrain(time.Hour)
	if late := bears(exp, time.Hour); s.enroll(late) {
		t.Error("somebody was let in while the node leaves")
	}
	if n := hung(); len(n) != 2 || n[all[1]] != 1 || n[all[2]] != 1 {
		t.Errorf("%v hang in buckets", n)
	}
	for _, v := range all {
		s.dismiss(v)
		s.dismiss(v)
	}
	if n := len(s.expiry.buckets); n != 0 {
		t.Errorf("%d buckets are left", n)
	}
}

// A clock that is set back lets those stay as much longer who are here, and loses nobody.
func TestExpiryWhenTheClockIsSet(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var e expiry
	old := endsAt(noon.Add(time.Minute))
	e.add(old)
	if _, due := e.take(noon.Add(50 * time.Second)); len(due) != 0 {
		t.Fatalf("%d have ended", len(due))
	}
	// An hour back, and somebody comes whose token ends before all others.
	now := noon.Add(-time.Hour)
	young := endsAt(now.Add(time.Minute))
	e.add(young)
	if _, due := e.take(now.Add(50 * time.Second)); len(due) != 0 {
		t.Fatalf("%d have ended", len(due))
	}
	if _, due := e.take(now.Add(70 * time.Second)); len(due) != 1 || due[0] != young {
		t.Fatalf("%d have ended, want the one whose time is over", len(due))
	}
	// Set forward, it ends everybody, far or near.
	e.add(endsAt(noon.AddDate(0, 0, 1)))
	e.add(endsAt(noon.AddDate(7973, 0, 0)))
	if _, due := e.take(noon.AddDate(0, 0, 2)); len(due) != 2 || len(e.buckets) != 1 {
		t.Fatalf("%d have ended, %d buckets are left", len(due), len(e.buckets))
	}
}

// No session is lost, doubled or kept, in whatever order sessions begin, leave and expire.
func TestExpiryKeepsNobody(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	var e expiry
	here := map[*session]bool{}
	var left []*session // gone, in one way or the other
	for range 20_000 {
		switch rnd.IntN(5) {
		case 0, 1:
			v := endsAt(now.Add(time.Duration(rnd.IntN(120)-20) * time.Second))
			e.add(v)
			here[v] = true
		case 2:
			for v := range here {
				e.remove(v)
				delete(here, v)
				left = append(left, v)
				break
			}
		case 3:
			if len(left) > 0 { // a drain and a loss may both dismiss a session
				e.remove(left[rnd.IntN(len(left))])
			}
		case 4:
			now = now.Add(time.Duration(rnd.IntN(1000)) * time.Millisecond)
			_, over := e.take(now)
			for _, v := range over {
				if !here[v] || v.due.until >= now.Unix() {
					t.Fatalf("somebody was ended who is not here, or too early: %v", here[v])
				}
				delete(here, v)
				left = append(left, v)
			}
		}
	}
	n := 0
	for _, b := range e.buckets {
		n += len(b)
		for _, v := range b {
			if !here[v] {
				t.Fatal("somebody is kept who has gone")
			}
		}
	}
	if n != len(here) || n == 0 {
		t.Errorf("%d are kept, %d are here", n, len(here))
	}
	for v := range here {
		e.remove(v)
	}
	if len(e.buckets) != 0 {
		t.Errorf("%d buckets are left", len(e.buckets))
	}
}
