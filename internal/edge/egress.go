package edge

import (
	"sync/atomic"
	"time"
)

// egress watches how many bytes a second the node sends. It is full at nine tenths of
// its limit: the rest is for who is in already.
type egress struct {
	over atomic.Bool
	quit chan struct{} // nil: there is no limit
	done chan struct{}
}

const egressTick = time.Second

func newEgress(limit int64, sent func() uint64) *egress {
	e := &egress{}
	if limit <= 0 {
		return e
	}
	e.quit, e.done = make(chan struct{}), make(chan struct{})
	go e.watch(float64(limit), sent) // ends with close
	return e
}

func (e *egress) watch(limit float64, sent func() uint64) {
	defer close(e.done)
	t := time.NewTicker(egressTick)
	defer t.Stop()
	last, at := sent(), time.Now()
	for {
		select {
		case <-e.quit:
			return
		case now := <-t.C:
			n := sent()
			e.over.Store(float64(n-last)/now.Sub(at).Seconds() >= 0.9*limit)
			last, at = n, now
		}
	}
}

func (e *egress) full() bool { return e.over.Load() }

func (e *egress) close() {
	if e.quit != nil {
		close(e.quit)
		<-e.done
	}
}
