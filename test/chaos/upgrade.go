//go:build unix

package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/test/localcluster"
)

// stateTime is how long a state may take to be told by every node.
const stateTime = 5 * time.Second

// upgrade rolls all nodes to the other version and back. After each step nodes of both
// versions must agree: about the counts, and about a state that one of them has set.
func upgrade(ctx context.Context, s *strike) error {
	step := 0
	for _, program := range []string{s.cfg.Other, s.cfg.Kansei} {
		for _, e := range s.cluster.Edges {
			if err := s.replace(ctx, e, nil, program); err != nil {
				return err
			}
			if _, err := s.counted(ctx); err != nil {
				return fmt.Errorf("with %s replaced: %w", e.Name(), err)
			}
			// By the node that was replaced, and by the one that will be last.
			for _, by := range []*localcluster.Edge{e, s.cluster.Edges[len(s.cluster.Edges)-1]} {
				step++
				if err := s.agree(ctx, by, fmt.Sprint("step ", step)); err != nil {
					return fmt.Errorf("with %s replaced: %w", e.Name(), err)
				}
			}
			if err := s.wait(ctx, 3*time.Second); err != nil {
				return err
			}
		}
	}
	return nil
}

// agree sets the title of a room by one node, and waits until all nodes tell it.
func (s *strike) agree(ctx context.Context, by *localcluster.Edge, title string) error {
	room := s.cfg.rooms()[0]
	token, err := s.cluster.Token(auth.Claims{Subject: "owner", Role: protocol.RoleBroadcaster, Rooms: []string{room}}, time.Hour)
	if err != nil {
		return err
	}
	was, err := s.stateAt(ctx, by, room, token)
	if err != nil {
		return err
	}
	body, err := json.Marshal(protocol.State{Rev: was.Rev, Status: protocol.StatusLive, Title: title})
	if err != nil {
		return err
	}
	if err := s.put(ctx, by.URL+"/v1/rooms/"+room, token, body); err != nil {
		return fmt.Errorf("%s: set the state: %w", by.Name(), err)
	}
	for began := time.Now(); ; {
		err := error(nil)
		for _, e := range s.cluster.Edges {
			got, bad := s.stateAt(ctx, e, room, token)
			if bad != nil || got.Title != title {
				err = errors.Join(err, fmt.Errorf("%s tells %q, %s has set %q: %w", e.Name(), got.Title, by.Name(), title, bad))
			}
		}
		if err == nil || time.Since(began) > stateTime {
			return err
		}
		if stop := sleep(ctx, 50*time.Millisecond); stop != nil {
			return stop
		}
	}
}

func (l *lab) stateAt(ctx context.Context, e *localcluster.Edge, room, token string) (protocol.State, error) {
	text, err := l.get(ctx, e.URL+"/v1/rooms/"+room, token)
	if err != nil {
		return protocol.State{}, err
	}
	var r protocol.Room
	err = json.Unmarshal([]byte(text), &r)
	return r.State, err
}

// put sends a PUT with a JSON body.
func (l *lab) put(ctx context.Context, url, token string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := l.http.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close() // the status says it
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}
