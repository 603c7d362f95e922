// Package descriptors shares out the files and sockets that a process may have open, and
// holds some back.
//
// A process that has used up its descriptors cannot take a connection, reach NATS or Redis
// again, or read a file. So [Divide] gives viewers and HTTP no more than the limit has when
// everything else has had its part, and a [Reserve] keeps a few for the case that somebody
// else uses them up all the same.
package descriptors

import "fmt"

// Uses is how many descriptors each part of a node may have.
type Uses struct {
	Viewers  int // connections of viewers
	HTTP     int // connections of the public listener that are no viewers'
	Refused  int // WebSockets that wait for their end because they were refused
	Operator int // connections of the operators' listener
	Own      int // what the node needs itself: its log, NATS, Redis, listeners, files
}

// Sum is how many that are together.
func (u Uses) Sum() int { return u.Viewers + u.HTTP + u.Refused + u.Operator + u.Own }

const (
	// leastOperator is how many connections operators have under the lowest limits: a
	// scraper, the probes of a balancer and of an orchestrator, and people.
	leastOperator = 16
	// leastViewers is how many viewers a node must be able to take to be worth starting.
	leastViewers = 16
)

// Divide fits what is wanted under a limit. The node's own part is as wanted; operators have
// theirs, or an eighth of the limit where that is less; the refused have at most a tenth of
// what is left, and HTTP at most a sixth, unless the viewers leave it more. An error says
// that the limit is too low for any node.
func Divide(limit int, want Uses) (Uses, error) {
	got := want
	if limit >= want.Sum() {
		return got, nil
	}
	got.Operator = min(want.Operator, max(leastOperator, limit/8))
	left := limit - got.Own - got.Operator
	got.Refused = min(want.Refused, left/10)
	left -= got.Refused
	got.HTTP = min(want.HTTP, max(left/6, left-want.Viewers))
	got.Viewers = min(want.Viewers, left-got.HTTP)
	if got.Viewers < min(leastViewers, want.Viewers) || got.HTTP < 1 || got.Refused < 1 {
		return Uses{}, fmt.Errorf("only %d open files are allowed, and a node needs %d before the first viewer", limit, got.Own+got.Operator)
	}
	return got, nil
}
