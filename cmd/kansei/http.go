package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kansei-live/kansei/internal/clientaddr"
	"github.com/kansei-live/kansei/internal/edge"
	"github.com/kansei-live/kansei/internal/quiet"
)

const (
	// answerTime is how long a client may take to read an answer, beside what the
	// log may take to make one. The largest, some 2 MB of comments, takes 300 kbit/s.
	answerTime = time.Minute
	// requestsGrace is how long a listener that is to stop waits for requests under way,
	// when there is as much time: about what the log may take.
	requestsGrace = 10 * time.Second
	// acceptedGrace is how long connections that were accepted just before a listener was closed
	// have to bring their request: package http drops one that it reads during a shutdown.
	acceptedGrace = 50 * time.Millisecond
	// opsConnections is how many connections the operators' listener holds: scrapers,
	// health checks and people.
	opsConnections = 256
)

// httpServer makes a server of h. Clients that send or read too slowly are cut off;
// a WebSocket and a profile have deadlines of their own.
func httpServer(h http.Handler, write time.Duration, log *quiet.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second, // of a body; the door has one of its own for those that nobody wants
		WriteTimeout:      write,            // from the headers to the end of the answer
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.HTTP(),
	}
}

// serve serves h until the node stops. When shut is closed before, nothing is accepted any
// more, and what is under way is finished.
func (n *node) serve(what string, l net.Listener, door *edge.Door, certificate *tls.Config, h http.Handler, shut <-chan struct{}) {
	srv := httpServer(h, n.cfg.AppendTimeout+answerTime, n.quiet)
	srv.TLSConfig = certificate
	l = door.Guard(l, srv)
	var closing atomic.Bool
	shutDoor := func() {
		closing.Store(true)
		_ = l.Close() // a second time it is closed already
	}
	done := make(chan struct{})
	// Ends when the node stops it, or when the listener fails.
	go func() {
		defer close(done)
		var err error
		if certificate != nil {
			err = srv.ServeTLS(l, "", "")
		} else {
			err = srv.Serve(l)
		}
		if !closing.Load() {
			n.failed <- fmt.Errorf("%s: %w", what, err)
		}
	}()
	stopping, stop := context.WithCancel(context.Background())
	var waiting sync.WaitGroup
	// Ends with stop, at the latest.
	waiting.Go(func() {
		select {
		case <-shut:
			n.log.Info("nothing is accepted any more, so that newcomers go to another node", "listener", what)
			shutDoor()
		case <-stopping.Done():
		}
	})
	n.onStop(what, func(ctx context.Context) error {
		stop()
		waiting.Wait()
		if !closing.Load() {
			shutDoor()
			pause(ctx, acceptedGrace)
		}
		<-done
		ctx, cancel := sparing(ctx, stopReserve)
		defer cancel()
		ctx, cancelRequests := context.WithTimeout(ctx, requestsGrace)
		defer cancelRequests()
		err := srv.Shutdown(ctx)
		if ctx.Err() != nil { // a client that sends or reads slowly is no fault of the node
			n.log.Warn("requests took too long and were cut off", "listener", what)
			err = srv.Close()
		}
		return err
	})
}

// door bounds the connections of a listener, and the share of each address if addresses is
// not nil.
func (n *node) door(listener string, places int, addresses *clientaddr.Resolver, m *edge.Metrics) *edge.Door {
	return edge.NewDoor(edge.DoorConfig{Places: places, Listener: listener, Reserve: n.spare, Addresses: addresses, Metrics: m, Log: n.quiet})
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// sparing is a context that ends earlier than ctx by a time that others need.
func sparing(ctx context.Context, spared time.Duration) (context.Context, context.CancelFunc) {
	end, has := ctx.Deadline()
	if !has {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-spared))
}
