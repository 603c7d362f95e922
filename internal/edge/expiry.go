package edge

import (
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// A token lets somebody in, and stay, until it ends: somebody who may no longer run a room is
// out of it then. Sessions hang in buckets by the end of their token, and a
// node has one ticker for all. A bucket is closed when its last second is over, so that a
// session is closed within expiryWidth and expiryTick of the end: in less than 10 s.
const (
	expiryWidth = 8 // seconds
	expiryTick  = time.Second
	// renewSpread is the time within which closed viewers are to reconnect, at random: a back end may give a whole audience tokens that end at once.
	renewSpread = 3 * time.Second
)

// endOf is the last second in which a token lets somebody stay. Clocks differ as much
// then as when it let them in.
func endOf(c auth.Claims) int64 { return c.Until.Unix() }

// expiry has the sessions whose tokens end. The lock that run is given guards it.
//
// It goes by the clock on the wall, as tokens do: when that is set back, sessions that are
// not closed yet stay that much longer.
type expiry struct {
	buckets map[int64][]*session // by ends / expiryWidth; none is empty
	first   int64                // no bucket comes before it
}

// add takes in a session, unless it has no end.
func (e *expiry) add(v *session) {
	if v.ends == 0 {
		return
	}
	n := v.ends / expiryWidth
	if len(e.buckets) == 0 {
		e.buckets, e.first = map[int64][]*session{}, n
	}
	e.first = min(e.first, n)
	v.place = int32(len(e.buckets[n])) // a node takes 10 million viewers at most
	e.buckets[n] = append(e.buckets[n], v)
}

// remove takes out a session, if it is there.
func (e *expiry) remove(v *session) {
	n := v.ends / expiryWidth
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

// due takes out the sessions whose token has ended, and returns them.
func (e *expiry) due(now time.Time) []*session {
	over := now.Unix()/expiryWidth - 1 // the last bucket that is
	if len(e.buckets) == 0 || e.first > over {
		return nil
	}
	var all []*session
	e.first = math.MaxInt64
	for n, b := range e.buckets {
		if n > over {
			e.first = min(e.first, n)
			continue
		}
		all = append(all, b...)
		delete(e.buckets, n)
	}
	return all
}

// run hands sessions whose token has ended to end, until quit is closed.
func (e *expiry) run(lock sync.Locker, quit <-chan struct{}, end func(*session)) {
	tick := time.NewTicker(expiryTick)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
		}
		lock.Lock()
		due := e.due(time.Now())
		lock.Unlock()
		for _, v := range due {
			end(v)
		}
	}
}

// expire closes a session because its token has ended. Nothing that it sends is heard
// from then on.
func (v *session) expire() {
	v.server.cfg.Metrics.expired.Inc()
	v.conn.Close(int(protocol.CloseUnauthorized),
		protocol.CloseReason("the token has ended; come back with a new one", 1+rand.Int64N(renewSpread.Milliseconds())))
}
