package socket

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/kansei-live/kansei/protocol"
)

// ErrServerClosed is returned by Accept after Close was called.
var ErrServerClosed = errors.New("socket: server closed")

// goingAway is how Server.Close closes connections.
var goingAway = Cause{Kind: ClosedByServer, Code: int(protocol.CloseGoingAway), Reason: "the server is shutting down"}

// Server holds the connections of one node.
type Server struct {
	config   Config
	limits   limits
	metrics  *Metrics
	decoding *decoding
	batches  sync.Pool // *batch
	shards   atomic.Uint32

	wheel wheel
	polls polls
	force atomic.Bool // connections that are being closed are ended at once

	stopWheel  chan struct{}
	goroutines sync.WaitGroup
	closeOnce  sync.Once
}

// NewServer returns a Server that runs until Close.
func NewServer(config Config) *Server {
	config = config.withDefaults()
	s := &Server{
		config:    config,
		limits:    config.limits(),
		metrics:   config.Metrics,
		decoding:  newDecoding(config.MaxMessage, config.MaxLong),
		stopWheel: make(chan struct{}),
	}
	s.polls.srv = s
	s.wheel.empty = make(chan struct{})
	s.wheel.now.Store(1) // 0 means none
	// It ends when Close, which waits for it, closes stopWheel.
	s.goroutines.Go(func() { s.turnWheel(config.tick(), s.stopWheel) })
	return s
}

// Len is the number of connections, those that are being closed included.
func (s *Server) Len() int { return s.wheel.len() }

// Close closes every connection with code 1001, refuses further ones, and waits
// until all connections and goroutines have ended. When ctx ends before, it ends
// the connections by force, waits for that, and returns the context's error.
// Further calls wait as well.
func (s *Server) Close(ctx context.Context) error {
	if s.wheel.close() {
		for _, c := range s.wheel.all() {
			c.close(goingAway)
		}
	}
	var err error
	select {
	case <-s.wheel.empty:
	case <-ctx.Done():
		left := s.wheel.len()
		if left > 0 {
			err = fmt.Errorf("socket: end %d connections by force: %w", left, context.Cause(ctx))
			s.config.Logger.Warn("viewers have not taken their leave in time: their connections are cut off, they come back elsewhere", "connections", left)
		}
		s.force.Store(true)
		for _, c := range s.wheel.all() {
			c.abort(true)
		}
		<-s.wheel.empty
	}
	s.closeOnce.Do(func() {
		s.polls.close()
		close(s.stopWheel)
	})
	s.goroutines.Wait()
	return err
}

// batch returns an empty batch for a writer.
func (s *Server) batch() *batch {
	if t, ok := s.batches.Get().(*batch); ok {
		return t
	}
	return &batch{frames: make([][]byte, 0, 16)}
}
