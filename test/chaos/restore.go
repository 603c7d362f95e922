//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/kansei-live/kansei/loadtest/audit"
	"github.com/kansei-live/kansei/test/localcluster"
)

// alone are faults that happen only when they are asked for, and without others: what they
// take from the log is no fault of anybody else's.
var alone = []fault{
	{"restore", "all NATS servers are stopped and started with their stores of 8 s before: what was acknowledged since may be gone; the viewers of a node that was frozen meanwhile come back when the log has grown again", restore},
	{"upgrade", "the nodes are replaced, one after the other, by ones of another version, and then back", upgrade},
}

// restore puts the log back. Nodes and viewers stay where they are, but for those of one
// node: it is frozen before, and killed when the log has come past its old end, so that
// its viewers come back with cursors of what is gone.
func restore(ctx context.Context, s *strike) error {
	var errs []error
	for _, n := range s.cluster.NATS {
		_, err := n.End(ctx, nil)
		errs = append(errs, err)
	}
	w := audit.Window{From: s.journal.Now()}
	for _, n := range s.cluster.NATS {
		errs = append(errs, os.CopyFS(backup(n), os.DirFS(n.Store)))
	}
	if err := errors.Join(append(errs, s.startNATS(ctx))...); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	if _, _, err := s.calm(ctx); err != nil {
		return err
	}
	for _, stream := range s.streams() { // or nothing is said that could be lost
		if _, _, err := s.leader(ctx, stream); err != nil {
			return err
		}
	}
	if err := s.wait(ctx, 8*time.Second); err != nil {
		return err
	}
	frozen := s.edge()
	errs = []error{frozen.Stop()}
	for _, n := range s.cluster.NATS {
		errs = append(errs, n.Kill())
	}
	w.To = s.journal.Now()
	s.journal.RolledBack(w)
	for _, n := range s.cluster.NATS {
		errs = append(errs, os.RemoveAll(n.Store), os.Rename(backup(n), n.Store))
	}
	errs = append(errs, s.startNATS(ctx), s.wait(ctx, 20*time.Second), frozen.Kill(), frozen.Restart(ctx))
	return errors.Join(errs...)
}

// backup is where a copy of a server's store is.
func backup(n *localcluster.NATS) string { return n.Store + "-backup" }

// startNATS starts all servers: each is ready with a quorum.
func (s *strike) startNATS(ctx context.Context) error {
	var starting sync.WaitGroup
	starts := make([]error, len(s.cluster.NATS))
	for i, n := range s.cluster.NATS {
		starting.Go(func() { starts[i] = n.Restart(ctx) })
	}
	starting.Wait()
	return errors.Join(starts...)
}
