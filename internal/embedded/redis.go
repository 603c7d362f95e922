package embedded

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/alicebob/miniredis/v2"
)

// Redis is a Redis server in this process, for one node on one machine: nothing
// that it holds outlives it. Its clock is the machine's: TIME moves and keys with a
// time to live lapse.
//
// It listens nowhere. What it parses it trusts, before any password: a length that
// nobody can hold would end the process.
type Redis struct {
	mu     sync.Mutex
	server *miniredis.Miniredis // nil: closed
}

// StartRedis starts a server that [Redis.Dial] alone leads to.
func StartRedis() *Redis {
	m := miniredis.NewMiniRedis()
	// Without it a time to live would lapse only when a test says so.
	m.ClockTTL(true)
	return &Redis{server: m}
}

// Dial makes a connection to the server, in memory; network and address say nothing.
// It is a dialer of go-redis.
func (r *Redis) Dial(context.Context, string, string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		return nil, fmt.Errorf("embedded redis: %w", net.ErrClosed)
	}
	c, err := r.server.Dial()
	if err != nil {
		return nil, fmt.Errorf("embedded redis: %w", err)
	}
	return c, nil
}

// Close stops the server and ends its connections. What it held is gone.
func (r *Redis) Close() {
	r.mu.Lock()
	m := r.server
	r.server = nil
	r.mu.Unlock()
	if m != nil {
		m.Close()
	}
}
