//go:build unix

package chaos

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/loadtest/crowd"
	"github.com/kansei-live/kansei/protocol"
)

// counted waits until every node tells of every room exactly who is connected, and
// everybody in it has been told the same. It returns how long that took, or what is still
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

func (l *lab) countsExact(ctx context.Context) error {
	for _, e := range l.cluster.Edges {
		for _, room := range l.cfg.rooms() {
			token, err := l.cluster.Token(auth.Claims{Subject: "counter", Name: "counter", Role: protocol.RoleMonitor, Rooms: []string{room}}, time.Hour)
			if err != nil {
				return err
			}
			text, err := l.get(ctx, e.URL+"/v1/rooms/"+room, token)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", e.Name(), room, err)
			}
			var r struct{ Viewers crowd.Counts }
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				return fmt.Errorf("%s: %s: %w", e.Name(), room, err)
			}
			there, told := l.crowd.Counts()
			if r.Viewers != there[room] {
				return fmt.Errorf("%s counts %+v in %s, where %+v are", e.Name(), r.Viewers, room, there[room])
			}
			if len(told[room]) != 1 || told[room][0] != there[room] {
				return fmt.Errorf("in %s there are %+v, who were told last that there are %+v", room, there[room], told[room])
			}
		}
	}
	return nil
}
