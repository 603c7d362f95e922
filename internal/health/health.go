// Package health says whether a node should get viewers, and why not.
//
// A node consists of parts: its own edge, and the engines that it shares with other nodes. Each
// says what is wrong with it as an error. Three states follow from that:
//
//   - ready: no error.
//   - degraded: an error that is [Degraded]. What is away is away for every node, so that
//     viewers are no better off elsewhere. The node stays in the load balancer.
//   - unready: any other error. Another node does better: this one is full, leaves, or was
//     never well since it started.
//
// A [Checker] asks every part once a second, and tells operators by its log and its metrics.
// [Report] asks once, for /readyz. A [Log] judges the room log, which depends on what other
// nodes say.
package health

import (
	"errors"
	"strings"
)

// State is how a part of a node is.
type State int

// The states, from good to bad.
const (
	StateReady State = iota
	StateDegraded
	StateUnready
)

// String is the name of the state.
func (s State) String() string {
	switch s {
	case StateReady:
		return "ready"
	case StateDegraded:
		return "degraded"
	}
	return "unready"
}

// Part is something that a node needs in order to serve.
type Part struct {
	Name string
	// Ready returns nil, or what is wrong. It does not wait for anybody.
	Ready func() error
}

type degraded struct{ error }

func (d degraded) Unwrap() error { return d.error }

// Degraded marks an error as one that no other node does better with. Of nil it is nil.
func Degraded(err error) error {
	if err == nil {
		return nil
	}
	return degraded{err}
}

type planned struct{ error }

func (p planned) Unwrap() error { return p.error }

// Planned marks an error as one that somebody wants, such as that the node leaves: it makes
// the part unready, and is nothing to warn of. Of nil it is nil.
func Planned(err error) error {
	if err == nil {
		return nil
	}
	return planned{err}
}

// StateOf is the state that the error of a part stands for.
func StateOf(err error) State {
	if err == nil {
		return StateReady
	}
	if _, is := errors.AsType[degraded](err); is {
		return StateDegraded
	}
	return StateUnready
}

func isPlanned(err error) bool {
	_, is := errors.AsType[planned](err)
	return is
}

// maxReason is how many bytes of a reason are shown: errors can hold what others answered.
const maxReason = 1000

// reason is what is wrong with a part, in one line, without the name of the part.
func reason(part string, err error) string {
	text := strings.TrimPrefix(err.Error(), part+": ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// Report asks every part and returns a line for each, such as "redis: ready" or "redis: degraded:
// it does not answer". It reports whether the node should get viewers.
func Report(parts []Part) (lines []string, ok bool) {
	ok = true
	for _, p := range parts {
		line := p.Name + ": "
		switch err := p.Ready(); StateOf(err) {
		case StateReady:
			line += StateReady.String()
		case StateDegraded:
			line += StateDegraded.String() + ": " + reason(p.Name, err)
		case StateUnready:
			ok = false
			line += reason(p.Name, err)
		}
		lines = append(lines, line)
	}
	return lines, ok
}
