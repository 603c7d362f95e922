package edge

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// A node drains like this. From one moment on it is not ready and lets nobody in: newcomers
// get 503, and a proxy may ask another node. When all who ask whether it is ready have had the
// time to learn, its listener is closed (see [Server.Noticed]), so that a proxy that asks
// nobody, and cannot read 503 either, goes elsewhere too.
//
// From then on each viewer reconnects to another node, at a moment of its own that it was told
// at the beginning. The moments are spread evenly, so that the other nodes get a stream and no
// wave. A viewer that is still here a little after its moment is closed with 1012. A comment
// that is under way is answered first.
const (
	// noticeShare is the part of the spread that is notice, one in so many: a quarter,
	// 5 s by default, is enough for checks every second or two, and leaves most of it to
	// the viewers. Who needs longer makes the spread longer.
	noticeShare = 4
	// linger is how long after its moment a viewer is closed: time enough to come in
	// elsewhere before it leaves. It is no longer than all the moments together.
	linger = 2 * time.Second
	// answerWait is how long after the last closing those are kept who wait for an
	// answer. Later than that, their clients ask again elsewhere, under the same ref.
	answerWait = 2 * time.Second
	// lookAgain is how often those are looked at.
	lookAgain = 50 * time.Millisecond
	// comeBack is the time within which who was closed is to come back, at random.
	comeBack = time.Second
	// countLag is how long a viewer that has left is counted still: longer than it takes the
	// other node to count it.
	countLag = 1500 * time.Millisecond
)

// leaver is a viewer, as far as a drain has to do with it.
type leaver interface {
	// tell tells it to come back after a time.
	tell(after time.Duration)
	// leave closes it, but without force not while it waits for an answer; it tells
	// whether it did. It does nothing to one that has gone.
	leave(force bool) bool
}

// drain is one schedule for all viewers of a node.
type drain struct {
	began  time.Time
	spread time.Duration
	all    []leaver        // in the order in which they leave
	at     []time.Duration // their moments, since began

	lag     *lag            // of the counts
	noticed *time.Timer     // until the notice is over
	hurry   context.Context // over when everybody is to be closed at once
	rush    func()          // ends hurry, and the lag
	gone    chan struct{}   // closed by the server when nobody is left
	done    chan struct{}   // closed when run has ended
}

// newDrain begins a drain, which calls noticed when its notice is over.
func newDrain(all []leaver, spread time.Duration, noticed func()) *drain {
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	d := &drain{
		began: time.Now(), spread: spread, all: all, at: moments(len(all), spread),
		lag: newLag(), noticed: time.AfterFunc(noticeOf(spread), noticed), gone: make(chan struct{}), done: make(chan struct{}),
	}
	hurry, cancel := context.WithCancel(context.Background())
	d.hurry, d.rush = hurry, func() { cancel(); d.lag.finish() }
	return d
}

// moments are n times between the notice and the end of spread, in order: one at random
// in each n-th of that. So many of them as make an average second of it, and two more, are
// the most in any second.
func moments(n int, spread time.Duration) []time.Duration {
	notice := noticeOf(spread)
	at := make([]time.Duration, n)
	for i := range at {
		at[i] = notice + time.Duration((float64(i)+rand.Float64())/float64(n)*float64(spread-notice))
	}
	return at
}

// noticeOf is how long others have to learn that the node drains.
func noticeOf(spread time.Duration) time.Duration { return spread / noticeShare }

// toCome is how much of the spread there is still to come.
func (d *drain) toCome() time.Duration { return max(0, d.spread-time.Since(d.began)) }

// run tells everybody and closes who does not go. It ends when everybody is closed or
// gone: soon after the spread, or after rush.
func (d *drain) run() {
	defer close(d.done)
	if d.spread > 0 {
		for i, v := range d.all {
			v.tell(max(0, d.at[i]-time.Since(d.began)))
		}
	}
	after := min(linger, d.spread)
	last := d.spread + after + answerWait
	var busy []leaver // those with a comment under way
	timer := time.NewTimer(0)
	defer timer.Stop()
	for next := 0; ; {
		select {
		case <-d.gone:
			return
		default:
		}
		now := time.Since(d.began)
		force := d.hurry.Err() != nil || now >= last
		for ; next < len(d.all) && (force || now >= d.at[next]+after); next++ {
			busy = append(busy, d.all[next])
		}
		busy = slices.DeleteFunc(busy, func(v leaver) bool { return v.leave(force) })
		var wait time.Duration
		switch {
		case len(busy) > 0:
			wait = lookAgain
		case next < len(d.all):
			wait = d.at[next] + after - now
		default:
			return
		}
		timer.Reset(wait)
		hurry := d.hurry.Done()
		if force {
			hurry = nil // it is known
		}
		select {
		case <-timer.C:
		case <-hurry:
		case <-d.gone:
		}
	}
}

// end ends run and the lag.
func (d *drain) end() {
	d.noticed.Stop()
	d.rush()
	<-d.done
}

// Drain begins to drain this node: see [Server.Leave]. It returns at once, with
// how many viewers are here and how much of the spread is to come. Only the first call
// counts; further ones tell the same.
func (s *Server) Drain(spread time.Duration) (viewers int, left time.Duration) {
	d, viewers := s.beginDrain(spread)
	return viewers, d.toCome()
}

func (s *Server) beginDrain(spread time.Duration) (*drain, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain == nil {
		all := make([]leaver, 0, len(s.sessions))
		for v := range s.sessions {
			all = append(all, v)
		}
		s.drain = newDrain(all, spread, func() { close(s.noticed) })
		s.cfg.Metrics.draining.Set(1)
		if len(all) == 0 {
			close(s.drain.gone)
		}
		go s.drain.run() // ends by itself; Leave and Close wait for it
	}
	return s.drain, len(s.sessions)
}

// Leave drains the node: it lets nobody in any more, and tells all viewers to reconnect to
// another node, at moments that are spread evenly over spread. A viewer that has not left soon
// after its moment is closed. Leave returns when all are gone; when ctx is over before,
// everybody is closed at once.
func (s *Server) Leave(ctx context.Context, spread time.Duration) error {
	d, _ := s.beginDrain(spread)
	var err error
	select {
	case <-d.gone:
		d.lag.wait(ctx) // presence takes out whoever is left then
	case <-ctx.Done():
		err = ctx.Err()
		d.rush()
	}
	<-d.done
	return err
}

// Noticed is closed when the node drains and all who ask whether it is ready have had the
// time to learn. Then its public listener is to be closed: a refused connection sends every
// proxy to another node, and browsers to the next address.
func (s *Server) Noticed() <-chan struct{} { return s.noticed }

// Hurry closes all viewers at once, if the node drains.
func (s *Server) Hurry() {
	if d := s.leaving(); d != nil {
		d.rush()
	}
}

// leaving is how this node drains; nil when it does not.
func (s *Server) leaving() *drain {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drain
}

var _ leaver = (*session)(nil)

// tell implements leaver. A viewer that is still joining gets its welcome first: see settle.
func (v *session) tell(after time.Duration) {
	v.leaveAt.Store(time.Now().Add(after).UnixNano())
	if v.settled.Load() {
		v.tellNow()
	}
}

// settle is called when v has its welcome.
func (v *session) settle() {
	v.settled.Store(true)
	v.tellNow()
	v.askNow()
}

// tellNow tells v what tell left to be told, once.
func (v *session) tellNow() {
	at := v.leaveAt.Swap(0)
	if at == 0 {
		return
	}
	after := max(0, time.Until(time.Unix(0, at)))
	v.server.cfg.Metrics.told.Inc()
	v.send(&protocol.Reconnect{AfterMS: after.Milliseconds()})
}

// leave implements leaver. From the first call on v may not comment any more, or it
// might never be without a comment under way.
func (v *session) leave(force bool) bool {
	v.parting.Store(true)
	if !force && v.underWay.Load() > 0 && !v.gone.Load() {
		return false
	}
	v.conn.Close(int(protocol.CloseRestart), protocol.CloseReason("this node is leaving", 1+rand.Int64N(comeBack.Milliseconds())))
	return true
}
