//go:build unix

package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
)

// links are what stands between the processes of a cluster: one for each pair.
type links struct {
	mu  sync.Mutex
	all []*link
}

// between makes the link from one process to another; it is a localcluster.Config.Link.
func (l *links) between(from, to, address string) (string, error) {
	one, err := newLink(from+">"+to, address, strings.HasPrefix(from, "edge-") && strings.HasPrefix(to, "nats-"))
	if err != nil {
		return "", fmt.Errorf("link %s>%s: %w", from, to, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, one)
	return one.listener.Addr().String(), nil
}

// close ends all links.
func (l *links) close() {
	for _, one := range l.of("", "") {
		one.close()
	}
}

// of are the links between processes whose names begin like that, in either direction,
// in a fixed order.
func (l *links) of(a, b string) []*link {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.DeleteFunc(slices.Clone(l.all), func(one *link) bool {
		from, to, _ := strings.Cut(one.name, ">")
		there := strings.HasPrefix(from, a) && strings.HasPrefix(to, b)
		back := strings.HasPrefix(from, b) && strings.HasPrefix(to, a)
		return !there && !back
	})
	slices.SortFunc(out, func(p, q *link) int { return strings.Compare(p.name, q.name) })
	return out
}

// spoil changes the weather of some links until mend is called.
func spoil(some []*link, w weather) (mend func()) {
	for _, one := range some {
		one.become(w)
	}
	return func() {
		for _, one := range some {
			one.become(weather{})
		}
	}
}

// deafen has a node lose the messages of which lose says so; nil: none. It returns how
// many it has lost so far.
func (l *links) deafen(node string, lose func(subject string) bool) (lost int64) {
	for _, one := range l.of(node, "nats-") {
		if lose == nil {
			one.lose.Store(nil)
		} else {
			one.lose.Store(&lose)
		}
		lost += one.lost.Load()
	}
	return lost
}
