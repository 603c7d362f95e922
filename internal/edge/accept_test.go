package edge

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/internal/socket"
	"github.com/kansei-live/kansei/protocol"
)

// short is a listener of a machine that is short of something.
type short struct {
	pipes
	errs chan error // what Accept returns before anything else
}

func (l short) Accept() (net.Conn, error) {
	select {
	case err := <-l.errs:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", err)}
	default:
	}
	return l.pipes.Accept()
}

func shortSite(t *testing.T, listener string, errs ...error) (l short, d *Door, logged *bytes.Buffer, end func() error) {
	t.Helper()
	logged = new(bytes.Buffer)
	log := quiet.New(slog.New(slog.NewTextHandler(logged, nil)))
	l = short{make(pipes, 1000), make(chan error, 1000)}
	for _, err := range errs {
		l.errs <- err
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })}
	d = NewDoor(DoorConfig{Places: 10, Listener: listener, Metrics: NewMetrics(prometheus.NewRegistry()), Log: log})
	guarded := d.Guard(l, srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(guarded) }() // ends with srv, or with an error of the listener
	return l, d, logged, func() error {
		_ = srv.Close()
		defer synctest.Wait()
		return <-done
	}
}

// Nothing that the machine is short of ends a listener. It is counted, and logged a few
// times with what to do about it.
func TestAcceptErrors(t *testing.T) {
	t.Parallel()
	for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EPERM, syscall.ECONNABORTED} {
		t.Run(err.Error(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l, d, logged, end := shortSite(t, ListenerOps, err, err, err, err, err)
				c := l.dial()
				ask(t, c)
				if n := testutil.ToFloat64(d.errors); n != 5 {
					t.Errorf("%v are counted", n)
				}
				if s := logged.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "level=WARN") || !strings.Contains(s, "listener=ops") || !strings.Contains(s, "remedy=") {
					t.Errorf("logged\n%s", s)
				}
				_ = c.Close()
				if err := end(); !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			})
		})
	}
}

// A listener that is broken ends, and the node with it.
func TestAcceptBroken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, d, _, end := shortSite(t, ListenerPublic, syscall.EBADF)
		synctest.Wait()
		if err := end(); !errors.Is(err, syscall.EBADF) {
			t.Errorf("ended with %v", err)
		}
		if n := testutil.ToFloat64(d.errors); n != 0 {
			t.Errorf("%v are counted", n)
		}
	})
}

// A door whose listener is closed while it waits does not go on waiting.
func TestAcceptStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, _, _, end := shortSite(t, ListenerPublic)
		for range 1000 {
			l.errs <- syscall.ENOMEM
		}
		_ = l.dial() // has the Accept under way return
		time.Sleep(time.Minute)
		began := time.Now()
		if err := end(); !errors.Is(err, http.ErrServerClosed) || time.Since(began) > 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// When no descriptor is left, connections that ask for nothing make room for others, but
// not before they had a second to.
func TestAcceptEvictsIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, d, _, end := shortSite(t, ListenerPublic)
		idle := l.dial()
		defer func() { _ = idle.Close() }()
		synctest.Wait() // the server waits for the next one
		l.errs <- syscall.EMFILE
		second := l.dial()
		defer func() { _ = second.Close() }()
		began := time.Now()
		third := l.dial()
		defer func() { _ = third.Close() }()
		ask(t, second)
		ask(t, third)
		if took := time.Since(began); took >= doorPatience {
			t.Errorf("they waited for %v although nobody had to be closed", took)
		}
		time.Sleep(2 * doorPatience)
		l.errs <- syscall.EMFILE
		fourth := l.dial() // is what Accept waits for
		fifth := l.dial()
		defer func() { _, _ = fourth.Close(), fifth.Close() }()
		ask(t, fourth)
		ask(t, fifth)
		if n := testutil.ToFloat64(d.evicted); n != 1 {
			t.Errorf("%v were evicted", n)
		}
		if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the longest-waiting one: %v", err)
		}
		if err := end(); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// Whoever has left is counted by why, also where the node has closed the connection.
func TestLeaveReasons(t *testing.T) {
	t.Parallel()
	server := func(code protocol.CloseCode) socket.Cause {
		return socket.Cause{Kind: socket.ClosedByServer, Code: int(code)}
	}
	for cause, want := range map[socket.Cause]string{
		server(protocol.CloseRestart):                                 "restart",
		server(protocol.CloseUnauthorized):                            "token",
		server(protocol.CloseTooMany):                                 "too_many",
		server(protocol.CloseMalformed):                               "malformed",
		server(protocol.CloseGoingAway):                               "closed_by_server",
		{Kind: socket.ClosedByPeer, Code: int(protocol.CloseRestart)}: "closed_by_peer",
		{Kind: socket.TooSlow, Code: int(protocol.CloseTooSlow)}:      "too_slow",
		{Kind: socket.Lost, Code: 1006, Err: io.ErrUnexpectedEOF}:     "lost",
		{Kind: socket.Flood, Code: int(protocol.CloseTooMany)}:        "flood",
	} {
		if got := leaveReason(cause); got != want {
			t.Errorf("%v is counted as %s", cause, got)
		}
	}
	reg := prometheus.NewRegistry()
	m := NewMetrics(reg)
	before := testutil.CollectAndCount(m.leaves)
	for _, k := range socket.Kinds() {
		m.leaves.WithLabelValues(leaveReason(socket.Cause{Kind: k}))
	}
	for _, code := range []protocol.CloseCode{protocol.CloseRestart, protocol.CloseUnauthorized, protocol.CloseTooMany, protocol.CloseMalformed} {
		m.leaves.WithLabelValues(leaveReason(server(code)))
	}
	if n := testutil.CollectAndCount(m.leaves); n != before {
		t.Errorf("%d reasons are not registered at zero", n-before)
	}
}
