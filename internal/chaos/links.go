//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// links are what stands between the processes of a cluster: a proxy for each pair, named
// "from>to", which can be cut, slowed down and reset, and between a node and a NATS server
// a muffler besides.
type links struct {
	server *toxiproxy.ApiServer

	mu       sync.Mutex
	all      map[string]*toxiproxy.Proxy
	mufflers map[string][]*muffler // by node
}

func newLinks() *links {
	return &links{
		server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()),
		all:    map[string]*toxiproxy.Proxy{}, mufflers: map[string][]*muffler{},
	}
}

// between makes the link from one process to another; it is a localcluster.Config.Link.
func (l *links) between(from, to, address string) (string, error) {
	p := toxiproxy.NewProxy(l.server, from+">"+to, "127.0.0.1:0", address)
	if err := p.Start(); err != nil {
		return "", fmt.Errorf("link %s>%s: %w", from, to, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all[p.Name] = p
	if !strings.HasPrefix(from, "edge-") || !strings.HasPrefix(to, "nats-") {
		return p.Listen, nil
	}
	m, err := newMuffler(p.Listen)
	if err != nil {
		return "", fmt.Errorf("link %s>%s: %w", from, to, err)
	}
	l.mufflers[from] = append(l.mufflers[from], m)
	return m.listener.Addr().String(), nil
}

// deafen has a node lose the messages of which lose says so; nil: none. It returns how
// many it has lost so far.
func (l *links) deafen(node string, lose func(subject string) bool) (lost int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.mufflers[node] {
		if lose == nil {
			m.lose.Store(nil)
		} else {
			m.lose.Store(&lose)
		}
		lost += m.lost.Load()
	}
	return lost
}

// close ends all links.
func (l *links) close() {
	for _, p := range l.of("", "") {
		p.Stop()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, of := range l.mufflers {
		for _, m := range of {
			m.close()
		}
	}
}

// of are the links between processes whose names begin like that, in either direction,
// in a fixed order.
func (l *links) of(a, b string) []*toxiproxy.Proxy {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*toxiproxy.Proxy
	for name, p := range l.all {
		from, to, _ := strings.Cut(name, ">")
		if strings.HasPrefix(from, a) && strings.HasPrefix(to, b) || strings.HasPrefix(from, b) && strings.HasPrefix(to, a) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(p, q *toxiproxy.Proxy) int { return strings.Compare(p.Name, q.Name) })
	return out
}

// toxic is something that can be done to what passes a link.
type toxic struct {
	Name       string           `json:"name"`
	Type       string           `json:"type"`
	Stream     string           `json:"stream"`
	Attributes map[string]int64 `json:"attributes"`
}

// The kinds of toxics, and what they need: see the documentation of toxiproxy.
func cut() toxic { return toxic{Type: "timeout", Attributes: map[string]int64{"timeout": 0}} }
func slow(latency, jitter int64) toxic {
	return toxic{Type: "latency", Attributes: map[string]int64{"latency": latency, "jitter": jitter}}
}

// poison does something to some links, in both directions, until cure is called.
func poison(some []*toxiproxy.Proxy, t toxic) (cure func() error, err error) {
	streams := []string{"upstream", "downstream"}
	cure = func() error {
		errs := make([]error, len(some))
		var curing sync.WaitGroup
		for i, p := range some {
			curing.Go(func() { // what a link holds passes first: one after the other would take long
				for _, s := range streams {
					err := p.Toxics.RemoveToxic(context.Background(), t.Type+" "+s)
					if err != nil && !errors.Is(err, toxiproxy.ErrToxicNotFound) {
						errs[i] = fmt.Errorf("link %s: %w", p.Name, err)
					}
				}
			})
		}
		curing.Wait()
		return errors.Join(errs...)
	}
	for _, p := range some {
		for _, s := range streams {
			t.Name, t.Stream = t.Type+" "+s, s
			text, err := json.Marshal(t)
			if err != nil {
				return cure, err
			}
			if _, err := p.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
				return cure, fmt.Errorf("link %s: %w", p.Name, err)
			}
		}
	}
	return cure, nil
}

// reset closes all connections of a link.
func reset(p *toxiproxy.Proxy) error {
	p.Stop()
	if err := p.Start(); err != nil {
		return fmt.Errorf("link %s: %w", p.Name, err)
	}
	return nil
}
