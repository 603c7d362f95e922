//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/loadtest/crowd"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
)

// counted waits until every node tells of every room exactly how many are connected, everybody
// in it has been told the same, and the lists of members are exact. It returns how long that took, or what is still
// wrong when it has taken too long.
func (l *lab) counted(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	for {
		err := l.countsExact(ctx)
		if took := time.Since(began); err == nil || took > 2*countTime {
			return took, err
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return time.Since(began), err
		}
	}
}

// countsExact asks all nodes about all rooms at once. A node that has nobody in a room knows
// its counts about a second after it was asked first.
func (l *lab) countsExact(ctx context.Context) error {
	rooms := l.cfg.rooms()
	counts := make([]crowd.Counts, len(l.cluster.Edges)*len(rooms))
	errs := make([]error, len(counts))
	var wg sync.WaitGroup
	for i := range counts {
		wg.Go(func() { counts[i], errs[i] = l.countsAt(ctx, l.cluster.Edges[i/len(rooms)], rooms[i%len(rooms)]) })
	}
	wg.Wait()
	there, told := l.crowd.Counts()
	here := l.crowd.Here()
	for i, got := range counts {
		edge, room := l.cluster.Edges[i/len(rooms)], rooms[i%len(rooms)]
		switch {
		case errs[i] != nil:
			return fmt.Errorf("%s: %s: %w", edge.Name(), room, errs[i])
		case got != there[room]:
			return fmt.Errorf("%s counts %+v in %s, where %+v are", edge.Name(), got, room, there[room])
		case len(told[room]) != 1 || told[room][0] != there[room]:
			return fmt.Errorf("in %s there are %+v, who were told last that there are %+v", room, there[room], told[room])
		}
	}
	for i, room := range rooms {
		if err := l.membersExact(ctx, l.cluster.Edges[i%len(l.cluster.Edges)], room, here[room]); err != nil {
			return err
		}
	}
	return nil
}

// countsAt is what a node tells of a room.
func (l *lab) countsAt(ctx context.Context, edge *localcluster.Edge, room string) (crowd.Counts, error) {
	token, err := l.cluster.Token(auth.Claims{Subject: "counter", Name: "counter", Role: protocol.RoleMonitor, Rooms: []string{room}}, time.Hour)
	if err != nil {
		return crowd.Counts{}, err
	}
	text, err := l.get(ctx, edge.URL+"/v1/rooms/"+room, token)
	if err != nil {
		return crowd.Counts{}, err
	}
	var r struct{ Viewers crowd.Counts }
	err = json.Unmarshal([]byte(text), &r)
	return r.Viewers, err
}
