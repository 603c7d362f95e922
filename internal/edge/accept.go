package edge

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kansei-live/kansei/internal/descriptors"
	"github.com/kansei-live/kansei/protocol"
)

const (
	// firstPause and longestPause are how long a door waits before it accepts again after an
	// error that it can do nothing about: twice as long each time.
	firstPause   = 5 * time.Millisecond
	longestPause = time.Second
	// shedPatience is how long a newcomer that is turned away is read from. What it has sent
	// while it waited in the kernel is there; unread, it would make a reset of the answer.
	shedPatience = time.Millisecond
)

// doorListener accepts when there is a place.
type doorListener struct {
	net.Listener
	door   *Door
	closed chan struct{}
	once   sync.Once
}

// Accept returns the next connection that has a place.
//
// When no descriptor is left, one that is idle is closed to make room, or one of those in
// reserve is let go of. The operators' listener goes on with that; the public one only turns
// the newcomer away with it, so that nobody waits for what will not come, and the reserve is
// whole again for the operators. That the machine is short of something never ends a
// listener.
func (l *doorListener) Accept() (net.Conn, error) {
	pause := firstPause
	for {
		if err := l.door.enter(l.closed); err != nil {
			return nil, err
		}
		nc, err := l.Listener.Accept()
		switch {
		case err == nil && (l.door.operators() || l.door.cfg.Reserve.Refill()):
			return nc, nil
		case err == nil:
			l.door.turnAway(nc)
			l.door.cfg.Reserve.Refill()
		case !descriptors.Transient(err):
			return nil, err
		default:
			l.door.tell(err)
			if descriptors.Exhausted(err) && l.door.makeRoom() {
				continue
			}
			if !l.rest(pause) {
				return nil, net.ErrClosed
			}
			pause = min(2*pause, longestPause)
		}
	}
}

// rest waits before the next try; false if the listener is closed meanwhile.
func (l *doorListener) rest(pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.closed:
		return false
	}
}

// Close also ends the waiting for a place.
func (l *doorListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

func (d *Door) operators() bool { return d.cfg.Listener == ListenerOps }

// makeRoom frees a descriptor for the next connection; false if that cannot be done now.
func (d *Door) makeRoom() bool {
	if d.operators() {
		return d.cfg.Reserve.Lend() || d.endIdle()
	}
	return d.endIdle() || d.cfg.Reserve.Lend()
}

// endIdle closes a connection that asks for nothing, and reports whether there was one.
func (d *Door) endIdle() bool {
	nc := d.idle()
	if nc == nil {
		return false
	}
	end(nc)
	return true
}

// tell counts and logs a connection that could not be taken.
func (d *Door) tell(err error) {
	d.errors.Inc()
	if d.cfg.Log == nil {
		return
	}
	remedy := "look at memory and network of the machine"
	if descriptors.Exhausted(err) {
		remedy = "raise the limit (LimitNOFILE= in systemd, ulimit -n; fs.file-max if it is the whole machine's), or lower --max-viewers and --max-http"
	}
	d.cfg.Log.Log(slog.LevelWarn, "a connection could not be taken", d.cfg.Listener, "listener", d.cfg.Listener, "error", err, "remedy", remedy)
}

// turnAway answers a newcomer that the node has no descriptor for, as far as that goes
// without waiting, and closes the connection.
func (d *Door) turnAway(nc net.Conn) {
	d.shed.Inc()
	if c, ok := nc.(interface{ Direct() net.Conn }); ok {
		nc = c.Direct()
	}
	if !d.secure {
		_ = nc.SetDeadline(time.Now().Add(shedPatience))
		_, _ = nc.Read(make([]byte, 4<<10))
		_, _ = nc.Write(fullAnswer())
	}
	_ = nc.Close() // it has got what there is for it
}

// fullAnswer is the answer of a node that is full, as package http would write it.
var fullAnswer = sync.OnceValue(func() []byte {
	e := full().problem()
	status := e.Code.HTTPStatus()
	body, _ := json.Marshal(protocol.Problem{ // cannot fail
		Title: http.StatusText(status), Status: status, Detail: e.Message, Code: e.Code, RetryMS: e.RetryMS,
	})
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\nRetry-After: %d\r\nContent-Length: %d\r\n\r\n%s",
		status, http.StatusText(status), fullRetry/time.Second, len(body), body)
})

// errStarved is why a node without descriptors is not ready.
var errStarved = errors.New("edge: this node is full: it has no file descriptor left (LimitNOFILE= in systemd, ulimit -n)")
