//go:build unix

// Package chaos runs a cluster with an audience in it, breaks it in every way that it
// knows, and has what happened judged: `make chaos`.
//
// The cluster (test/localcluster) has three NATS servers, Redis and a spare one, three
// nodes and HAProxy before them, with a proxy on every link between them (links.go). The audience
// (loadtest/crowd) notes what it sends and receives, in a journal (loadtest/audit). The
// schedule is drawn from a seed (run.go), one fault (faults.go) after the other, each
// mended before the next. At the end the log is read from NATS (log.go), the history from
// every node, and the counts are held against who is there (counts.go). report.go says
// what came out.
package chaos

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/kansei-live/kansei/test/skew"
)

// Config says what a run is. [Config.Defaults] completes it.
type Config struct {
	Seed   uint64
	Only   []string // of the faults; empty: all
	Rounds int      // how often each fault happens
	Pace   float64  // how long each fault lasts, of its full length

	Rooms, Partitions int
	Viewers           int           // over all rooms
	Publishers        int           // in each room
	Rate              float64       // comments a second in each room
	Acts              float64       // of moderators, a second in each room
	Drain             time.Duration // --drain of the nodes
	// Skew is how far the clocks of the first and the last node are off, back and forth.
	Skew  time.Duration
	Trace string

	Kansei string // the program of the nodes; empty: built from here, so that Skew counts
	Other  string // a program of another version, for the fault upgrade
	Dir    string // of data and logs; empty: one that is removed
	Log    io.Writer
}

const (
	// liveBuffer is the smallest that a node takes, so that it can be made to overflow.
	liveBuffer = 16
	maxFloods  = 10
	// drainGrace is how much longer than its drain a node may take to end.
	drainGrace = 10 * time.Second
	// afterDrain is how long after the end of a node its viewers may come back.
	afterDrain = 2 * time.Second
	// healTime is how long nodes may take to be ready after all is mended.
	healTime = 60 * time.Second
	// replicaTime is how long NATS is given to copy what a server has missed.
	replicaTime = 30 * time.Second
	// rest is between two faults, so that they can be told apart.
	rest = 2 * time.Second
	// settleTime is how long viewers may take to receive the last comment.
	settleTime = 60 * time.Second
	// countTime is how long after the last fault the counts may be wrong.
	countTime = 10 * time.Second
	// backTime is how long after a kill, or after the time of a drain, 99 of 100 viewers
	// may take to be back.
	backTime = 5 * time.Second
	// answerTime is how long a node may take to answer: --append-timeout, and on the way.
	answerTime = 13 * time.Second
	joinRate   = 400
	maxAnswer  = 1 << 20 // bytes, of a node
)

// skews are the variables of a node.
func (c Config) skews(edge int) []string {
	return []string{skew.Env(c.Skew * time.Duration(edge-1))}
}

// acts is how many acts a second moderators do in each room. There are none where the log loses its
// end, with what was acknowledged, nor beside an older version, which knows none.
func (c Config) acts(plan []fault) float64 {
	if slices.ContainsFunc(plan, func(f fault) bool { return f.name == "restore" || f.name == "upgrade" }) {
		return 0
	}
	return c.Acts
}

func (c Config) rooms() []string {
	var out []string
	for i := range c.Rooms {
		out = append(out, fmt.Sprint("room", i))
	}
	return out
}

// Faults names all faults and says what they are.
func Faults() (names, what []string) {
	for _, f := range known() {
		names, what = append(names, f.name), append(what, f.what)
	}
	return names, what
}

// check refuses what no run can be made of.
func (c Config) check() error {
	for _, name := range c.Only {
		if !slices.ContainsFunc(known(), func(f fault) bool { return f.name == name }) {
			names, _ := Faults()
			return fmt.Errorf("chaos: there is no fault %q: there are %s", name, strings.Join(names, ", "))
		}
		if len(c.Only) > 1 && slices.ContainsFunc(alone, func(f fault) bool { return f.name == name }) {
			return fmt.Errorf("chaos: the fault %s happens alone", name)
		}
	}
	switch {
	case slices.Contains(c.Only, "upgrade") && c.Other == "":
		return errors.New("chaos: the fault upgrade needs another program")
	case c.Rounds < 1 || c.Pace <= 0 || c.Pace > 1:
		return fmt.Errorf("chaos: %d rounds at pace %v: want at least one, at more than 0 and up to 1", c.Rounds, c.Pace)
	case c.Rooms < 1 || c.Partitions < 1 || c.Viewers < c.Rooms || c.Publishers < 1 || c.Rate <= 0:
		return errors.New("chaos: want rooms, partitions, a viewer for each room, publishers and a rate")
	}
	return nil
}

// known are all faults.
func known() []fault { return append(slices.Clone(faults), alone...) }

// schedule is the faults in the order in which they happen: each once a round, shuffled.
// Those that happen alone do only when they are asked for.
func (c Config) schedule() []fault {
	rng := rand.New(rand.NewPCG(c.Seed, 0))
	var out []fault
	for range c.Rounds {
		var round []fault
		for _, f := range known() {
			if slices.Contains(c.Only, f.name) {
				round = append(round, f)
			}
		}
		if len(c.Only) == 0 {
			round = slices.Clone(faults)
		}
		rng.Shuffle(len(round), func(i, j int) { round[i], round[j] = round[j], round[i] })
		out = append(out, round...)
	}
	return out
}
