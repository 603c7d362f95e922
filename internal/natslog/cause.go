package natslog

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/internal/natslog/natsconn"
)

// explained puts in front of an error of the JetStream API what it means to people who run
// the servers, and what to do; an error that says enough stays as it is. replicas are those
// that were asked for.
func explained(err error, replicas int) error {
	say := func(what string) error { return fmt.Errorf("%s: %w", what, err) }
	switch {
	case err == nil:
		return nil
	case errors.Is(err, natsconn.ErrNoResponders):
		return say("no NATS server that is reached has JetStream: enable it (jetstream {…} in the configuration of nats-server)")
	case natsconn.IsCode(err, natsconn.CodeNoJetStreamAccount), natsconn.IsCode(err, natsconn.CodeNoAccount):
		return say("this NATS account has no JetStream: enable it for the account (jetstream: enabled)")
	case natsconn.IsCode(err, natsconn.CodeNoJetStream):
		return say("JetStream is not enabled on this NATS server, or was disabled after an error: look at its configuration and its log")
	case natsconn.IsCode(err, natsconn.CodeClusterNotAvailable):
		return say("JetStream has no quorum: more than half of its servers must run and reach each other")
	case replicas > 1 && (natsconn.IsCode(err, natsconn.CodeNotSupported) || natsconn.IsCode(err, natsconn.CodeNoPeers)):
		return say(fmt.Sprintf("%d replicas need %[1]d NATS servers with JetStream in one cluster: start them, or set %s 1 for a single server",
			replicas, "--log-replicas"))
	case errors.Is(err, context.DeadlineExceeded):
		return say("no answer in time: its leader does not run, or is not reached")
	}
	return err
}

// noLeader is the error of a stream without a leader, by what one of its replicas knows.
func (s *stream) noLeader(info *jetstream.StreamInfo) error {
	there, all := 0, 0
	for _, r := range info.Cluster.Replicas { // who answers is one of them
		all++
		if !r.Offline {
			there++
		}
	}
	if all > 0 && there <= all/2 {
		return fmt.Errorf("stream %s %w: no quorum, %d of its %d replicas are there: start the other NATS servers", s.name, errNoLeader, there, all)
	}
	return fmt.Errorf("stream %s %w: its servers are choosing one, or have no room (max_file_store)", s.name, errNoLeader)
}
