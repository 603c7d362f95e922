//go:build unix

package localcluster

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports come from below those that the kernel gives to outgoing connections, so that
// none takes one while its process is down.
const (
	firstPort = 12_000
	lastPort  = 31_999
)

// ports are addresses on loopback that are held until they are let go to whom they
// were given.
type ports struct {
	mu   sync.Mutex
	open map[string]net.Listener
	free []string
}

// reserve holds n addresses.
func reserve(n int) (*ports, error) {
	p := &ports{open: map[string]net.Listener{}}
	for tries := 0; len(p.free) < n; tries++ {
		if tries > 20*n {
			p.release()
			return nil, errors.New("there are not enough free ports")
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort+1)))
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue // somebody's
		}
		p.open[address] = l
		p.free = append(p.free, address)
	}
	return p, nil
}

// take returns one of the addresses, each once.
func (p *ports) take() string {
	a := p.free[0]
	p.free = p.free[1:]
	return a
}

// let lets go of addresses.
func (p *ports) let(addresses []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range addresses {
		if l := p.open[a]; l != nil {
			_ = l.Close()
			delete(p.open, a)
		}
	}
}

// release lets go of all that are still held.
func (p *ports) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.open {
		_ = l.Close()
	}
	clear(p.open)
}
