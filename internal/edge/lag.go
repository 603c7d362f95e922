package edge

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// lag counts viewers for a little longer than they are here: until the node that they went to
// has had the time to count them. Otherwise the counts would sink while viewers move.
type lag struct {
	mu      sync.Mutex
	pending map[*departure]struct{}
	over    bool          // nobody is counted any longer than it is here
	empty   chan struct{} // closed while nobody is pending
}

// departure is a viewer that has left and is still counted.
type departure struct {
	discount func()
	once     sync.Once
	timer    *time.Timer
}

func newLag() *lag {
	l := &lag{pending: map[*departure]struct{}{}, empty: make(chan struct{})}
	close(l.empty)
	return l
}

// later has f, which takes a viewer out of the counts, called after countLag, or at once when
// the lag is over.
func (l *lag) later(f func()) {
	l.mu.Lock()
	over := l.over
	if !over {
		if len(l.pending) == 0 {
			l.empty = make(chan struct{})
		}
		d := &departure{discount: f}
		d.timer = time.AfterFunc(countLag, func() { l.end(d) }) // ends by itself
		l.pending[d] = struct{}{}
	}
	l.mu.Unlock()
	if over {
		f()
	}
}

// end takes a viewer out of the counts, once.
func (l *lag) end(d *departure) {
	d.once.Do(d.discount)
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, still := l.pending[d]; !still {
		return
	}
	if delete(l.pending, d); len(l.pending) == 0 {
		close(l.empty)
	}
}

// finish ends the lag: all that are pending are taken out of the counts now.
func (l *lag) finish() {
	l.mu.Lock()
	l.over = true
	all := slices.Collect(maps.Keys(l.pending))
	l.mu.Unlock()
	for _, d := range all {
		d.timer.Stop()
		l.end(d)
	}
}

// wait returns when nobody is pending, or ctx is over.
func (l *lag) wait(ctx context.Context) {
	l.mu.Lock()
	empty := l.empty
	l.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
}
