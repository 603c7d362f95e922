package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/kansei-live/kansei/internal/natslog"
)

// keepEvery is how often comments are removed that are older than their rooms keep them.
const keepEvery = 10 * time.Minute

// keepRooms removes what rooms do not keep any more, from time to time, until the node stops. All
// nodes do, at other moments.
func (n *node) keepRooms(log *natslog.Log) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx; onStop waits for it
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(keepEvery/2 + rand.N(keepEvery)):
			}
			rooms, err := log.ForgetOld(ctx)
			switch {
			case err != nil && ctx.Err() == nil:
				n.log.Warn("what rooms do not keep any more could not all be removed; it is tried again", "error", err)
			case rooms > 0:
				n.log.Info("comments were removed that are older than their rooms keep them", "rooms", rooms)
			}
		}
	}()
	n.onStop("the retention of rooms", func(context.Context) error { cancel(); <-done; return nil })
}
