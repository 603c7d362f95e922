//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
)

// membersAt lists who is in a room, as a node tells it. with adds those who have just left.
func (l *lab) membersAt(ctx context.Context, edge *localcluster.Edge, room string, with bool) (users []string, generation string, err error) {
	token, err := l.cluster.Token(auth.Claims{Subject: "lister", Name: "lister", Role: protocol.RoleMonitor, Rooms: []string{room}}, time.Hour)
	if err != nil {
		return nil, "", err
	}
	query := "?limit=100"
	if with {
		query += "&leaving=1"
	}
	for cursor := ""; ; {
		text, err := l.get(ctx, edge.URL+"/v1/rooms/"+room+"/viewers"+query+"&cursor="+cursor, token)
		if err != nil {
			return nil, "", err
		}
		var page protocol.Members
		if err := json.Unmarshal([]byte(text), &page); err != nil {
			return nil, "", err
		}
		switch {
		case page.Stale:
			return nil, "", errors.New("the list is stale")
		case generation != "" && generation != page.Generation:
			return nil, "", errors.New("another generation began during the walk")
		}
		generation = page.Generation
		for _, u := range page.Users {
			users = append(users, u.ID)
		}
		if cursor = page.Cursor; cursor == "" {
			slices.Sort(users)
			return users, generation, nil
		}
	}
}

// membersExact compares what a node lists with who is there. A node of a version without the
// list has nothing to be wrong.
func (l *lab) membersExact(ctx context.Context, edge *localcluster.Edge, room string, here []string) error {
	got, _, err := l.membersAt(ctx, edge, room, false)
	if err != nil && strings.HasPrefix(err.Error(), "404") {
		return nil
	}
	if err == nil && !slices.Equal(got, here) {
		err = fmt.Errorf("%s lists %d members of %s, where %d are%s", edge.Name(), len(got), room, len(here), difference(got, here))
	}
	return err
}

// difference names some of those that are in one list only.
func difference(got, want []string) string {
	var out []string
	for _, u := range got {
		if !slices.Contains(want, u) {
			out = append(out, "+"+u)
		}
	}
	for _, u := range want {
		if !slices.Contains(got, u) {
			out = append(out, "-"+u)
		}
	}
	if len(out) > 8 {
		out = append(out[:8], "…")
	}
	return ": " + strings.Join(out, " ")
}

// backEnd follows the joins and leaves of all rooms, by the rules of the protocol.
type backEnd struct {
	lab  *lab
	stop context.CancelFunc
	done chan struct{}

	mu          sync.Mutex
	rooms       map[string]map[string]bool
	generations map[string]string
	batches     int
	why         error // of what could not be followed last
}

// follow starts a back end, which ends with close.
func (l *lab) follow() *backEnd {
	ctx, cancel := context.WithCancel(context.Background())
	b := &backEnd{lab: l, stop: cancel, done: make(chan struct{}), rooms: map[string]map[string]bool{}, generations: map[string]string{}}
	go func() { // ends with close
		defer close(b.done)
		for ctx.Err() == nil {
			err := b.run(ctx)
			b.mu.Lock()
			b.why = err
			b.mu.Unlock()
			_ = sleep(ctx, 200*time.Millisecond)
		}
	}()
	return b
}

func (b *backEnd) close() {
	b.stop()
	<-b.done
}

// run follows until something fails.
func (b *backEnd) run(ctx context.Context) error {
	js, err := jetstream.New(b.lab.nc)
	if err != nil {
		return err
	}
	begin, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	events, err := js.OrderedConsumer(begin, "KANSEI_FEED", jetstream.OrderedConsumerConfig{
		FilterSubjects: []string{"kansei.feed.presence.>"}, DeliverPolicy: jetstream.DeliverNewPolicy,
	})
	if err != nil {
		return err
	}
	messages, err := events.Messages(jetstream.PullHeartbeat(time.Second), jetstream.PullExpiry(5*time.Second))
	if err != nil {
		return err
	}
	defer messages.Stop()
	defer context.AfterFunc(ctx, messages.Stop)()
	for _, room := range b.lab.cfg.rooms() {
		if err := b.list(ctx, room); err != nil {
			return err
		}
	}
	for {
		m, err := messages.Next()
		if err != nil {
			return err
		}
		var e protocol.PresenceEvent
		if err := json.Unmarshal(m.Data(), &e); err != nil {
			return err
		}
		if err := b.take(ctx, &e); err != nil {
			return err
		}
	}
}

func (b *backEnd) take(ctx context.Context, e *protocol.PresenceEvent) error {
	if e.Type == "reset" {
		for _, room := range b.lab.cfg.rooms() {
			if err := b.list(ctx, room); err != nil {
				return err
			}
		}
		return nil
	}
	if b.generationOf(e.Room) != e.Generation {
		if err := b.list(ctx, e.Room); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.batches++
	if b.generations[e.Room] != e.Generation {
		return nil
	}
	for _, u := range e.Joined {
		b.rooms[e.Room][u.ID] = true
	}
	for _, u := range e.Left {
		delete(b.rooms[e.Room], u.ID)
	}
	return nil
}

func (b *backEnd) generationOf(room string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.generations[room]
}

// list lists a room anew, at any node that answers.
func (b *backEnd) list(ctx context.Context, room string) error {
	for n := 0; ; n++ {
		users, generation, err := b.lab.membersAt(ctx, b.lab.cluster.Edges[n%len(b.lab.cluster.Edges)], room, true)
		if err == nil {
			here := map[string]bool{}
			for _, u := range users {
				here[u] = true
			}
			b.mu.Lock()
			b.rooms[room], b.generations[room] = here, generation
			b.mu.Unlock()
			return nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// leaveTime is how long a leave may take to be told: 10 s, what is noticed late, and NATS.
const leaveTime = 60 * time.Second

// knows waits until the back end takes exactly those to be there who are.
func (b *backEnd) knows(ctx context.Context) error {
	for began := time.Now(); ; {
		err := b.exact()
		if err == nil || time.Since(began) > leaveTime {
			return err
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

func (b *backEnd) exact() error {
	here := b.lab.crowd.Here()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, room := range b.lab.cfg.rooms() {
		var got []string
		for u := range b.rooms[room] {
			got = append(got, u)
		}
		slices.Sort(got)
		if !slices.Equal(got, here[room]) {
			return fmt.Errorf("joins and leaves: a back end takes %d to be in %s, where %d are%s (%d batches; last trouble: %w)",
				len(got), room, len(here[room]), difference(got, here[room]), b.batches, b.why)
		}
	}
	return nil
}
