package natsconn

import (
	"bytes"
	"net"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
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
//
// It also listens for a server that refuses to let the node in: until it was connected
// once, the client tells of servers that are not there, but not of these.
type dialer struct {
	net.Dialer
	refused func(error) // is told of each such refusal
	before  func()      // is called before every attempt, on the goroutine that has the connection's lock
}

// greetings is how many reads of a connection may be a refusal: a server greets, and then
// takes the user or not.
const greetings = 4

// Dial implements nats.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.before()
	nc, err := d.Dialer.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return &pacedConn{Conn: nc, pace: rate.NewLimiter(readRate, readBurst), refused: d.refused, greetings: greetings}, nil
}

// pacedConn is read by one goroutine.
type pacedConn struct {
	net.Conn
	pace *rate.Limiter
	much bool // the last read got so much that there may be more

	refused   func(error) // nil: nobody asks
	greetings int         // reads that may still be a refusal
}

// Read implements net.Conn.
func (c *pacedConn) Read(p []byte) (int, error) {
	if !c.much {
		time.Sleep(c.pace.Reserve().Delay()) // 2 ms at the most
	}
	n, err := c.Conn.Read(p)
	c.much = n >= readMuch
	if c.greetings > 0 {
		c.greetings--
		if why := refusedBy(p[:n]); why != nil && c.refused != nil {
			c.refused(why)
		}
	}
	return n, err
}

// refusedBy is the error of a server that does not let the user in, if that is what it says.
// Over TLS nobody can tell.
func refusedBy(said []byte) error {
	text, ok := bytes.CutPrefix(said, []byte("-ERR '"))
	if !ok {
		return nil
	}
	text, _, _ = bytes.Cut(text, []byte("'"))
	for _, known := range []struct {
		text string
		err  error
	}{
		{"authorization violation", nats.ErrAuthorization},
		{"user authentication expired", nats.ErrAuthExpired},
		{"user authentication revoked", nats.ErrAuthRevoked},
		{"account authentication expired", nats.ErrAccountAuthExpired},
	} {
		if strings.EqualFold(string(text), known.text) {
			return known.err
		}
	}
	return nil
}
