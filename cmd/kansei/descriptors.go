package main

import (
	"context"
	"fmt"

	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/descriptors"
	"github.com/kansei-live/kansei/internal/edge"
)

const (
	// ownDescriptors is for what a node opens beside connections: listeners, polls, its
	// connections to NATS (one) and Redis (eight at most), secrets and certificates, names that
	// are looked up, the moment of an upgrade in which a connection has two, the demo's crowd,
	// and what operators have it read about itself. A quiet node has a sixth of that open, one with the
	// demo two thirds.
	ownDescriptors = 96
	// streamDescriptors is for the files of each stream of an embedded log.
	streamDescriptors = 4
	// spareDescriptors is how many are in reserve: for a few operators at once.
	spareDescriptors = 8
)

// wantedDescriptors is how many descriptors each part of a node may want.
func wantedDescriptors(cfg *config.Serve) descriptors.Uses {
	want := descriptors.Uses{
		Viewers: cfg.MaxViewers, HTTP: cfg.HTTPConnections(), Refused: edge.MaxRefused, Operator: opsConnections,
		Own: ownDescriptors + spareDescriptors,
	}
	if cfg.NATS == "" {
		want.Own += streamDescriptors * (cfg.LogPartitions + 1) // and that of states
	}
	return want
}

// divideDescriptors gives each part as many descriptors as it may have, says if some get
// fewer than the settings want, and sets some aside.
func (n *node) divideDescriptors() error {
	limit, err := descriptors.Limit()
	if err != nil {
		return err
	}
	want := wantedDescriptors(&n.cfg)
	if n.uses, err = descriptors.Divide(limit, want); err != nil {
		return fmt.Errorf("%w: raise the limit (LimitNOFILE= in systemd, ulimit -n)", err)
	}
	// One more is needed because Go raises the soft limit to one less than the hard one.
	if n.uses.Viewers < want.Viewers || n.uses.HTTP < want.HTTP {
		n.log.Warn("the limit of open files is too low for --max-viewers and --max-http: the node takes fewer; raise it to what is needed (LimitNOFILE= in systemd, ulimit -n), or lower them",
			"limit", limit, "needed", want.Sum()+1, "viewers", n.uses.Viewers, "max_viewers", want.Viewers, "http", n.uses.HTTP, "max_http", want.HTTP)
	}
	if n.spare, err = descriptors.NewReserve(spareDescriptors); err != nil {
		return err
	}
	n.onStop("the descriptors in reserve", func(context.Context) error { return n.spare.Close() })
	return nil
}
