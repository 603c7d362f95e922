package natslog

import (
	"net"
	"time"

	"golang.org/x/time/rate"
)

// Small reads from NATS beyond readBurst are paced to readRate a second, so that what
// comes meanwhile is read together: like a network card that moderates its interrupts.
// With thousands of rooms, each with a comment now and then, waking for each message
// costs more than handling it; pacing adds 2 ms at the most, and only to a node that is
// woken so often.
const (
	readRate  = 500
	readBurst = 50
	readMuch  = 4 << 10 // bytes: after so many more may be there already
)

// dialer dials as the client's own does and paces what is read.
type dialer struct {
	net.Dialer
	before func() // is called before every attempt, on the goroutine that has the connection's lock
}

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.before()
	nc, err := d.Dialer.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return &pacedConn{Conn: nc, pace: rate.NewLimiter(readRate, readBurst)}, nil
}

// pacedConn is read by one goroutine.
type pacedConn struct {
	net.Conn
	pace *rate.Limiter
	much bool // the last read got so much that there may be more
}

// Read implements net.Conn.
func (c *pacedConn) Read(p []byte) (int, error) {
	if !c.much {
		time.Sleep(c.pace.Reserve().Delay()) // 2 ms at the most
	}
	n, err := c.Conn.Read(p)
	c.much = n >= readMuch
	return n, err
}
