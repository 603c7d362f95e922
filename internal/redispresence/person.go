package redispresence

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/protocol"
)

// This file has what is known of single users of a room.

// first is when users were first seen in a room, Unix milliseconds; 0: that is not known, or they may have been there
// before it.
func (b *bucket) first(ctx context.Context, room string, users []string) ([]int64, error) {
	seen := make([]int64, len(users))
	if len(users) == 0 || b.r.cfg.FirstSeen < 0 {
		return seen, nil
	}
	var found [2]*redis.SliceCmd
	err := b.r.call(ctx, opList, func(ctx context.Context) error {
		p := b.r.cfg.Client.Pipeline()
		for i, key := range b.keys.first(room) {
			found[i] = p.HMGet(ctx, key, users...)
		}
		_, err := p.Exec(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range users {
		for _, f := range found {
			text, _ := f.Val()[i].(string)
			if at, err := strconv.ParseInt(text, 10, 64); err == nil {
				seen[i] = max(at, 0) * 1000
				break
			}
		}
	}
	return seen, nil
}

// FirstSeen implements [hub.Roster].
func (r *Presence) FirstSeen(ctx context.Context, room string, users []string) ([]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	seen, err := r.bucketOf(room).first(ctx, room, users)
	if err != nil {
		return nil, fmt.Errorf("redispresence: when users were first seen: %w", err)
	}
	return seen, nil
}

// Member implements [hub.Roster].
func (r *Presence) Member(ctx context.Context, room, user string) (protocol.Member, error) {
	b, place := r.bucketOf(room), placeIn(room, user)
	src := source{least: b.newest.Load()}
	for range listTries {
		l, err := b.lookUp(ctx, src, room)
		if err != nil {
			return protocol.Member{}, err
		}
		some, ok, err := b.span(ctx, src, room, &l, place, place+1)
		if err != nil {
			return protocol.Member{}, err
		}
		if !ok {
			src.primary = true
			continue
		}
		for _, m := range some {
			if m.id == user {
				m.ID = user
				return m.Member, nil
			}
		}
		return protocol.Member{}, nil
	}
	return protocol.Member{}, errChanging
}
