package client

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

var (
	// ErrSubprotocol says that what answered agreed to a WebSocket, but not to
	// [protocol.Subprotocol].
	ErrSubprotocol = errors.New("client: the server does not speak " + protocol.Subprotocol)
	// ErrMessage says that the server sent what is no message of the contract.
	ErrMessage = errors.New("client: not a message of the contract")
	// ErrSilent says that a beat was not answered in time, or a new connection was not
	// welcomed in time.
	ErrSilent = errors.New("client: the server is silent")
	// ErrMoved says that the server asked to reconnect, and that the client has done so.
	ErrMoved = errors.New("client: the server asked to reconnect")
	// ErrStaleToken says that the token source gave the refused token again.
	ErrStaleToken = errors.New("client: the token source gave the refused token again")
	// ErrEnded says that Run has ended.
	ErrEnded = errors.New("client: the client has ended")
)

// errNoToken says that the token source has none; without a source the client is a guest.
var errNoToken = errors.New("client: the token source gave an empty token")

// CloseError says that the server ended the connection with a close frame.
type CloseError struct {
	Code   protocol.CloseCode
	Reason string
}

func (e *CloseError) Error() string {
	if e.Reason == "" {
		return fmt.Sprintf("client: closed by the server with %d", e.Code)
	}
	return fmt.Sprintf("client: closed by the server with %d: %s", e.Code, e.Reason)
}

// RetryAfter is the time after which the server wants the client back; 0 when it
// told none.
func (e *CloseError) RetryAfter() time.Duration {
	return time.Duration(min(protocol.RetryMS(e.Reason), maxTold.Milliseconds())) * time.Millisecond
}

// RefusedError says that the upgrade was answered with an HTTP status other than
// 101.
type RefusedError struct {
	Status int
	// RetryAfter is the answer's Retry-After; 0 when it had none.
	RetryAfter time.Duration
	// Detail is the beginning of the answer's body.
	Detail string
}

func (e *RefusedError) Error() string {
	s := fmt.Sprintf("client: refused with %d %s", e.Status, http.StatusText(e.Status))
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Temporary reports whether the same request may succeed later.
func (e *RefusedError) Temporary() bool {
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return e.Status >= 500
}

// maxTold bounds the time that a server may tell a client to stay away.
const maxTold = 10 * time.Minute

// parseRetryAfter reads a Retry-After in either of its forms.
func parseRetryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	var d time.Duration
	if s, err := strconv.ParseInt(v, 10, 32); err == nil {
		d = time.Duration(s) * time.Second
	} else if t, err := http.ParseTime(v); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), maxTold)
}
