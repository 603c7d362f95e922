package edge

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// A token lets somebody in, and stay, until it ends: somebody who may no longer run a room is
// out of it then. Before that its bearer is asked for a fresh one (renew.go). Sessions hang in
// buckets by what is due next, and a node has one ticker for all. A bucket is due when its last
// second is over, so that a session is closed within expiryWidth and expiryTick of the end: in less
// than 10 s.
const (
	expiryWidth = 8 // seconds
	expiryTick  = time.Second
	// renewSpread is the time within which closed viewers are to reconnect, at random: a back end may give a whole audience tokens that end at once.
	renewSpread = 3 * time.Second
)

// schedule is when something is due for a session, in Unix seconds.
type schedule struct {
	at    int64 // 0: never
	until int64 // it is closed then; before, it is asked for a fresh token
	moved bool  // it was told to come back, and is closed because it has not
}

// scheduleOf is when a session is asked for a fresh token, and when it is closed. The bearer of a token
// is asked in the last fifth of its life, at random but for the last tenth, so that an audience
// whose tokens end at once does not ask its back end at once.
func scheduleOf(t *tokenInfo, now time.Time) schedule {
	if t.exp == 0 {
		return schedule{}
	}
	began := now.Unix()
	if t.issued > 0 && t.issued < began {
		began = t.issued
	}
	tenth := max(0, t.exp-began) / 10
	ask := t.exp - tenth - rand.N(tenth+1) - expiryWidth
	return schedule{at: min(ask, t.until), until: t.until}
}

// expiry has the sessions for which something is due. The lock that run is given guards it.
//
// It goes by the clock on the wall, as tokens do: when that is set back, sessions that are
// not closed yet stay that much longer.
type expiry struct {
	buckets map[int64][]*session // by due / expiryWidth; none is empty
	first   int64                // no bucket comes before it
}

// add takes in a session, unless nothing will be due.
func (e *expiry) add(v *session) {
	if v.due.at == 0 {
		return
	}
	n := v.due.at / expiryWidth
	if len(e.buckets) == 0 {
		e.buckets, e.first = map[int64][]*session{}, n
	}
	e.first = min(e.first, n)
	v.place = int32(len(e.buckets[n])) // a node takes 10 million viewers at most
	e.buckets[n] = append(e.buckets[n], v)
}

// remove takes out a session, if it is there.
func (e *expiry) remove(v *session) {
	n := v.due.at / expiryWidth
	b := e.buckets[n]
	last := len(b) - 1
	if int(v.place) > last || b[v.place] != v {
		return
	}
	if last == 0 {
		delete(e.buckets, n)
		return
	}
	b[v.place] = b[last]
	b[v.place].place = v.place
	b[last] = nil // or it would be kept
	e.buckets[n] = b[:last]
}

// take returns the sessions that are to be asked for a fresh token, and takes out those whose end
// has come.
func (e *expiry) take(now time.Time) (ask, over []*session) {
	last := now.Unix()/expiryWidth - 1 // the last bucket that is due
	if len(e.buckets) == 0 || e.first > last {
		return nil, nil
	}
	e.first = math.MaxInt64
	for n, b := range e.buckets {
		if n > last {
			e.first = min(e.first, n)
			continue
		}
		delete(e.buckets, n)
		for _, v := range b {
			if v.due.at < v.due.until {
				ask = append(ask, v)
			} else {
				over = append(over, v)
			}
		}
	}
	for _, v := range ask {
		v.due.at = v.due.until
		e.add(v)
	}
	return ask, over
}

// run hands sessions to ask for a fresh token, and to end, when it is time, until quit is closed.
func (e *expiry) run(lock sync.Locker, quit <-chan struct{}, ask, end func(*session)) {
	tick := time.NewTicker(expiryTick)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
		}
		lock.Lock()
		due, over := e.take(time.Now())
		lock.Unlock()
		for _, v := range due {
			ask(v)
		}
		for _, v := range over {
			end(v)
		}
	}
}

// expire closes a session because its token has ended, or because it has not come back anew when
// it was told to. Nothing that it sends is heard from then on.
func (v *session) expire() {
	v.server.mu.Lock()
	moved := v.due.moved
	v.server.mu.Unlock()
	if moved {
		v.conn.Close(int(protocol.CloseRestart), protocol.CloseReason("come back: what you may do has changed", 1))
		return
	}
	v.server.cfg.Metrics.expired.Inc()
	v.conn.Close(int(protocol.CloseUnauthorized),
		protocol.CloseReason("the token has ended; come back with a new one", 1+rand.Int64N(renewSpread.Milliseconds())))
}
