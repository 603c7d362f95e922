package health

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// settle is how long another node must have done better with the log before this one leaves
// viewers to it. When NATS goes, nodes notice up to 6 s apart (two missed pings of 2 s, and the
// wait for them), and hear of each other up to 2 s later; when it comes back they return
// within seconds. No load balancer shall take a node out for that.
const settle = 8 * time.Second

// Log judges a node's room log. Until it was well once the node is unready. Later it is
// degraded, because NATS is the same for all nodes, unless another one says that it does
// better.
type Log struct {
	ready func() error
	well  func() []bool
	now   func() time.Time

	mu     sync.Mutex
	serves func() error
	was    bool      // it was well once
	since  time.Time // since when another node does better; zero: none does
}

// NewLog judges a log by what is wrong with it, nil for nothing, and by which of its streams
// are well. All nodes have the same streams in the same order.
func NewLog(ready func() error, well func() []bool) *Log {
	return &Log{ready: ready, well: well, now: time.Now}
}

// Serves tells what else keeps viewers from this node, nil for nothing. A node is no better
// one before this is set and while there is something.
func (l *Log) Serves(ready func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.serves = ready
}

// Tell returns what other nodes are to know of this node's log, and whether this node wants to
// know what they tell.
func (l *Log) Tell() (text string, ask bool) {
	l.mu.Lock()
	serves := l.serves
	l.mu.Unlock()
	text, ill := describe(l.well())
	if serves == nil || serves() != nil {
		text = nothing
	}
	return text, ill
}

// nothing is what a node tells that is no better one in any case.
const nothing = "-"

// describe is a letter for each stream.
func describe(well []bool) (text string, ill bool) {
	b := make([]byte, len(well))
	for i, ok := range well {
		if b[i] = '1'; !ok {
			b[i], ill = '0', true
		}
	}
	return string(b), ill
}

// Ready returns nil, or what is wrong with the log. others are what other nodes tell that are
// alive.
func (l *Log) Ready(others []string) error {
	err := l.ready()
	mine, _ := describe(l.well())
	l.mu.Lock()
	defer l.mu.Unlock()
	better := false
	for _, o := range others {
		better = better || does(o, mine)
	}
	if err == nil || !better {
		l.since = time.Time{}
	} else if l.since.IsZero() {
		l.since = l.now()
	}
	switch {
	case err == nil:
		l.was = true
		return nil
	case !l.was:
		return err
	case l.since.IsZero() || l.now().Sub(l.since) < settle:
		return Degraded(err)
	}
	return fmt.Errorf("%w; %w", err, errBetter)
}

var errBetter = errors.New("another node does better")

// does reports whether a node does better than this one: whatever is well here is well there,
// and something else too. Of two nodes of which each lacks a stream of the other's neither does.
func does(there, here string) bool {
	if len(there) != len(here) {
		return false
	}
	more := false
	for i := range here {
		switch {
		case here[i] == there[i]:
		case here[i] == '1':
			return false
		case there[i] == '1':
			more = true
		default:
			return false
		}
	}
	return more
}
