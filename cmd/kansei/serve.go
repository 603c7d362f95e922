package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/protocol"
)

type serveCommand struct {
	config.Serve
}

// graceAfterDrain is how much longer than --drain a node may take to stop.
const graceAfterDrain = 10 * time.Second

// Run runs a node until ctx ends.
func (c *serveCommand) Run(ctx context.Context, stdout io.Writer, stderr errorStream) error {
	log := c.Logger(stderr)
	logging.Disable() // go-redis would print each failed dial; the roster says what is wrong
	if (c.NATS == "") != (c.Redis == "") {
		log.Warn("one engine is inside this process: right for one node only, counts or comments of others do not reach it",
			"nats", c.NATS != "", "redis", c.Redis != "")
	}
	n, err := start(ctx, c.Serve, log)
	if err != nil {
		return err
	}
	if c.Embedded() {
		if err := n.greet(stdout); err != nil {
			return err
		}
	}
	log.Info("the node runs", "version", version(), "listen", n.url, "ops", n.ops, "embedded", c.Embedded())
	select {
	case <-ctx.Done():
		log.Info("the node is leaving", "drain", c.Drain)
	case err = <-n.failed:
		log.Error("the node stops", "error", err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Drain+graceAfterDrain)
	defer cancel()
	if stopErr := n.stop(ctx); err == nil {
		err = stopErr
	}
	log.Info("the node has stopped")
	return err
}

// greet tells a newcomer what to do next.
func (n *node) greet(w io.Writer) error {
	token, err := auth.Mint(n.secret, auth.Claims{
		Subject: "broadcaster", Name: "Broadcaster", Role: protocol.RoleBroadcaster, Rooms: []string{lobby},
	}, tokenLife)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `
Kansei %s is running with everything inside. Its data is in %s.

  Watch       %s/
  Run a room  %s/studio/%s#token=%s

  Say something from a back end:
  curl -H 'Authorization: Bearer %s' \
       -d '{"text":"こんにちは 👋"}' %s/v1/rooms/%s/comments

  Operators   %s/metrics  %s/readyz

Ctrl-C stops it.

`, version(), n.cfg.DataDir, n.url, n.url, lobby, token, token, n.url, lobby, n.ops, n.ops)
	return err
}
