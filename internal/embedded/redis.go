package embedded

import (
	"crypto/rand"
	"fmt"
	"net/url"

	"github.com/alicebob/miniredis/v2"
)

// Redis is a Redis server in this process, for one node on one machine: nothing
// that it holds outlives it. Its clock is the machine's: TIME moves and keys with a
// time to live lapse.
type Redis struct {
	server *miniredis.Miniredis
	url    string
}

// StartRedis starts a server on a free port of the loopback interface. Only who
// knows its password, made anew each time, may use it.
func StartRedis() (*Redis, error) {
	password := rand.Text()
	m := miniredis.NewMiniRedis()
	m.RequireAuth(password)
	if err := m.StartAddr("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("embedded redis: %w", err)
	}
	// Without it a time to live would lapse only when a test says so.
	m.ClockTTL(true)
	u := url.URL{Scheme: "redis", User: url.UserPassword("", password), Host: m.Addr()}
	return &Redis{server: m, url: u.String()}, nil
}

// URL is the server's URL, password included: redis://:password@127.0.0.1:port.
func (r *Redis) URL() string { return r.url }

// Close stops the server and ends its connections. What it held is gone.
func (r *Redis) Close() { r.server.Close() }
