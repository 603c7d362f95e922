package client

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// authRef is the ref of a fresh token.
const authRef = "kansei-auth"

// renewTimeout bounds the fetching of a fresh token while there is a connection.
const renewTimeout = 30 * time.Second

// renewal fetches a fresh token, because the server says that the one that counts ends, and
// sends it over the connection. If that fails, the server closes when the token ends, and
// another one is fetched then.
func (c *Client) renewal(l *link) {
	if c.cfg.Token == nil {
		return
	}
	current, ctx := c.token, c.running
	c.renewing.Go(func() { // ends with Run, at the latest
		ctx, cancel := context.WithTimeout(ctx, renewTimeout)
		defer cancel()
		token, err := c.fetch(ctx)
		if err != nil || token == current {
			return
		}
		c.mu.Lock()
		c.fresh = token
		c.mu.Unlock()
		l.do(func() {
			if err := l.send(&protocol.AuthRequest{Ref: authRef, Token: token}); err != nil {
				l.fail(err)
			}
		})
	})
}

// fetch asks the source for a token.
func (c *Client) fetch(ctx context.Context) (string, error) {
	select {
	case c.fetching <- struct{}{}:
	case <-ctx.Done():
		return "", fmt.Errorf("client: token: %w", ctx.Err())
	}
	defer func() { <-c.fetching }()
	token, err := c.cfg.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("client: token: %w", err)
	}
	if token = strings.TrimSpace(token); token == "" {
		return "", errNoToken
	}
	return token, nil
}

// takeFresh returns the token that was fetched since the last connection; empty without.
func (c *Client) takeFresh() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	token := c.fresh
	c.fresh = ""
	return token
}
