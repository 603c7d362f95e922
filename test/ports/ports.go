// Package ports gives addresses on loopback to servers of tests, which keep them while
// their process is down.
//
// A port counts as given while its UDP socket is bound, which no server of ours wants: so
// neither this process nor another one that asks here gets it, whether or not somebody
// listens, and a process that dies leaves nothing behind. The ports lie below those that the
// kernel gives to outgoing connections.
package ports

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

const (
	first = 10_000
	last  = 31_999
)

// Port is an address on loopback that nobody else gets until Close.
type Port struct {
	Number int
	given  net.PacketConn
}

// Reserve returns a port that nobody listens on.
func Reserve() (*Port, error) {
	for range 1000 {
		p := &Port{Number: first + rand.IntN(last-first+1)} // #nosec G404 -- no secret
		var err error
		if p.given, err = net.ListenPacket("udp4", p.String()); err != nil {
			continue // given
		}
		l, err := net.Listen("tcp4", p.String())
		if err != nil {
			p.Close()
			continue // a stranger's
		}
		_ = l.Close()
		return p, nil
	}
	return nil, errors.New("there is no free port on loopback")
}

// String returns the address: 127.0.0.1:port.
func (p *Port) String() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Number)) }

// Close gives the port back.
func (p *Port) Close() { _ = p.given.Close() }

// ForTest returns a port for as long as a test lasts.
func ForTest(t testing.TB) *Port {
	t.Helper()
	p, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}
