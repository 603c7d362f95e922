package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

const (
	// moveTimeout bounds an attempt to come in elsewhere while there is still a
	// connection. Nothing is taken in meanwhile, so it is less than the time in which a
	// beat must be answered.
	moveTimeout = 5 * time.Second
	// goodbyeTimeout is how long a node that was left has to say goodbye.
	goodbyeTimeout = time.Second
)

// move goes to the next address, and leaves l once it is welcome there. From the
// cursor that it comes with until then nothing that l brings is taken in: it comes on
// the other connection too or, when there is none in the end, is still there to be
// read. So nothing is missed and nothing comes twice. If it fails, l stays until its
// node closes it, and after a while there is another attempt.
func (c *Client) move(ctx context.Context, l *link) {
	l.turn <- struct{}{}
	if l.next != nil { // the node has told another time since
		<-l.turn
		return
	}
	if !c.addresses.next() {
		wait := c.free()
		<-l.turn
		l.moveIn(wait)
		return
	}
	next, err := c.successor(ctx)
	if err != nil {
		wait, again := c.stay(l, err)
		<-l.turn
		if again {
			l.moveIn(wait)
		}
		return
	}
	l.next = next
	<-l.turn
	// Run goes on with the other connection when this one has ended.
	impatient := time.AfterFunc(goodbyeTimeout, func() { _ = l.conn.CloseNow() }) // it is over either way
	defer impatient.Stop()
	l.leave(ErrMoved)
}

// stay says how long to wait before the next attempt to move after one that failed, and
// whether there is use in it.
func (c *Client) stay(l *link, err error) (wait time.Duration, again bool) {
	c.spare(err)
	if forGood(err) && !c.strike() {
		clear(c.struck) // the node that the client is at is one of them, and it is there
		return 0, false
	}
	wait = jitter(c.window(l.moves))
	l.moves++
	if ce, ok := errors.AsType[*CloseError](err); ok {
		switch {
		case !ce.Code.ComesBack(ce.Reason):
			return 0, false // what is left is the node that is leaving
		case ce.Code.NeedsToken() && !c.renew(ce):
			return 0, false
		case ce.Code.NeedsToken() && c.refusals == 1:
			return 0, true // the token was good when this connection began
		}
		wait += ce.RetryAfter()
	}
	return wait, true
}

// successor makes a connection that goes on exactly where the client is, and reads its
// welcome.
func (c *Client) successor(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, min(moveTimeout, c.cfg.ConnectTimeout))
	defer cancel()
	since := c.Cursor()
	conn, err := c.dial(ctx, since)
	if err != nil {
		return nil, err
	}
	raw, err := welcomed(ctx, conn, since)
	if err != nil {
		_ = conn.CloseNow() // err says why
		return nil, err
	}
	next := newLink(ctx, conn, c.cfg.ConnectTimeout, since, c.watching)
	next.first = raw
	return next, nil
}

// welcomed reads the welcome of a connection that came with a cursor.
func welcomed(ctx context.Context, conn *Conn, since string) ([]byte, error) {
	raw, err := conn.ReadRaw(ctx)
	if err != nil {
		return nil, err
	}
	w, err := decode[*protocol.Welcome](raw)
	switch {
	case err != nil:
		return nil, err
	case w == nil:
		return nil, fmt.Errorf("%w: the first one is no welcome", ErrMessage)
	case since != "" && !w.Recovered:
		return nil, errNotRecovered
	}
	return raw, nil
}

// errNotRecovered says that another node could not go on from the cursor, so that
// comments could be missed that the connection that there is still brings.
var errNotRecovered = errors.New("client: the cursor was not recovered")
