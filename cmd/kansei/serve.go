package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9/logging"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/private"
	"github.com/kansei-live/kansei/protocol"
)

type serveCommand struct {
	config.Serve
}

const (
	// graceAfterDrain is how much longer than --drain a node may take to stop.
	graceAfterDrain = 10 * time.Second
	// stopReserve is the part of that which neither viewers nor requests may use up: presence
	// is handed back and the log closed in it. viewersReserve is that and a second for requests,
	// which viewers may not use up.
	stopReserve    = 3 * time.Second
	viewersReserve = stopReserve + time.Second
	// hurriedGrace is how long a node may take that was told twice.
	hurriedGrace = 3 * time.Second
	// sameSignal is how long another signal is taken for the first one, come twice, as
	// from timeout(1).
	sameSignal = time.Second
)

// Run runs a node until ctx ends or an operator has it drained.
func (c *serveCommand) Run(ctx context.Context, stdout io.Writer, stderr errorStream) error {
	log := c.Logger(stderr)
	logging.Disable() // go-redis would print each failed dial; the presence says what is wrong
	if (c.NATS == "") != (c.Redis == "") {
		log.Warn("one engine is inside this process: right for one node only, counts or comments of others do not reach it",
			"nats", c.NATS != "", "redis", c.Redis != "")
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	n, err := start(ctx, c.Serve, log)
	if err != nil {
		return err
	}
	defer n.watchFiles(hup)()
	if c.Embedded() {
		if err := n.greet(stdout); err != nil {
			return err
		}
	}
	log.Info("the node runs", "version", version(), "listen", n.url, "public", n.public, "ops", n.ops, "embedded", c.Embedded())
	select {
	case <-ctx.Done():
		viewers, _ := n.drain()
		log.Info("the node is leaving", "drain", c.Drain, "viewers", viewers)
	case <-n.leave:
		log.Info("the node is leaving, as an operator wants it", "drain", c.Drain)
	case err = <-n.failed:
		log.Error("the node stops", "error", err)
	}
	told := ctx
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Drain+graceAfterDrain)
	defer cancel()
	done := make(chan struct{})
	var hurrying sync.WaitGroup
	// Ends with done.
	hurrying.Go(func() {
		if !secondSignal(told, done) {
			return
		}
		log.Warn("the node stops at once")
		n.edge.Hurry()
		defer time.AfterFunc(hurriedGrace, cancel).Stop()
		<-done
	})
	defer hurrying.Wait()
	defer close(done)
	if stopErr := n.stop(ctx); err == nil {
		err = stopErr
	}
	log.Info("the node has stopped")
	return err
}

// secondSignal waits for a signal behind the one that ends told; false when done is
// closed before. A third one ends the process as if nobody listened.
func secondSignal(told context.Context, done <-chan struct{}) bool {
	select {
	case <-told.Done():
	case <-done:
		return false
	}
	began := time.Now()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	for {
		select {
		case <-signals:
			if time.Since(began) >= sameSignal {
				return true
			}
		case <-done:
			return false
		}
	}
}

// greet tells a newcomer what to do next. A token is for a terminal alone.
func (n *node) greet(w io.Writer) error {
	token, studio := "TOKEN", fmt.Sprintf("%s/studio/%s#token=TOKEN\n  A TOKEN     %s", n.public, lobby, tokenCommandLine(n.cfg, lobby))
	if private.Terminal(w) {
		var err error
		if token, err = n.secrets.sign(auth.Claims{
			Subject: "broadcaster", Name: "Broadcaster", Role: protocol.RoleBroadcaster, Rooms: []string{lobby},
		}, tokenLife); err != nil {
			return err
		}
		studio = n.public + "/studio/" + lobby + "#token=" + token
	}
	_, err := fmt.Fprintf(w, `
Kansei %s is running with everything inside. Its data is in %s.

  Watch       %s/
  Run a room  %s

  Say something from a back end:
  curl -H 'Authorization: Bearer %s' \
       -d '{"text":"こんにちは 👋"}' %s/v1/rooms/%s/comments

  Operators   %s/metrics  %s/readyz

Ctrl-C stops it.

`, version(), n.cfg.DataDir, n.public, studio, token, n.public, lobby, n.ops, n.ops)
	return err
}
