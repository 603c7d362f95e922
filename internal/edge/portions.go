package edge

import (
	"context"
	"sync"
	"time"

	"github.com/kansei-live/kansei/hub"
)

// A user may be on several nodes, and has one rate of comments, and one number of connections, for
// all of them. Nothing on the way of a comment or a join asks another node: each gives the user an
// equal share, of as many nodes as the user is on. How many that are it asks presence from time to
// time, of users who comment, or have more than a few connections.
const (
	// portionsEvery is how often it is asked for those who have commented since.
	portionsEvery = time.Second
	// portionFresh is for how long a share holds before it is asked for again.
	portionFresh = 5 * time.Second
	// crowdPart is which part of the connections that a user may have is few.
	crowdPart = 8
	// maxPortions bounds the users who are asked for at once. Others are later.
	maxPortions = 4096
)

// over is the share of a rate of one of several nodes.
func (r Rate) over(nodes int32) Rate {
	if nodes < 2 {
		return r
	}
	n := float64(nodes)
	return Rate{PerS: r.PerS / n, Burst: max(1, int(float64(r.Burst)/n+0.5))}
}

// portions finds out on how many nodes users are.
type portions struct {
	roster hub.Roster

	mu  sync.Mutex
	due map[user]*entry[user]
}

// want notes that a user's share is to be asked for; the caller holds the user's entry.
func (s *portions) want(e *entry[user]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.due) < maxPortions {
		if s.due == nil {
			s.due = map[user]*entry[user]{}
		}
		s.due[e.key] = e
	}
}

// run asks until quit is closed.
func (s *portions) run(quit <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with quit
		<-quit
		cancel()
	}()
	tick := time.NewTicker(portionsEvery)
	defer tick.Stop()
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
			s.ask(ctx)
		}
	}
}

// ask asks for all that are due, room by room. What cannot be found out stays as it was.
func (s *portions) ask(ctx context.Context) {
	s.mu.Lock()
	due := s.due
	s.due = nil
	s.mu.Unlock()
	rooms := map[string][]*entry[user]{}
	for u, e := range due {
		rooms[u.room.Value()] = append(rooms[u.room.Value()], e)
	}
	for room, all := range rooms {
		ids := make([]string, len(all))
		for i, e := range all {
			ids[i] = e.key.id
		}
		nodes, err := s.roster.Nodes(ctx, room, ids)
		if err != nil {
			continue
		}
		for i, e := range all {
			e.setNodes(int32(min(nodes[i], 1<<20)))
		}
	}
}
