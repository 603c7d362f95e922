package redispresence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// Rooms implements [hub.Roster]. Each bucket has its rooms by their users, and the hottest of all
// are found as in merging sorted lists: a bucket is asked for more when its part is used up.
func (r *Presence) Rooms(ctx context.Context, q hub.RoomsQuery) (protocol.Rooms, error) {
	after, limit := heat{users: maxNumber}, q.Limit
	if text, err := readCursor(q.Cursor); err != nil {
		return protocol.Rooms{}, err
	} else if text != "" {
		users, room, _ := strings.Cut(text, " ")
		n, err := strconv.Atoi(users)
		if err != nil || !protocol.ValidRoom(room) {
			return protocol.Rooms{}, hub.ErrCursor
		}
		after = heat{room: room, users: n}
	}
	if q.Among != nil {
		found, err := r.heatsOf(ctx, q.Among, after)
		return roomsPage(found, limit), err
	}
	lists := make([]*heats, len(r.buckets))
	for i, b := range r.buckets {
		lists[i] = &heats{b: b, after: after, from: after.users}
	}
	step := int64(limit/len(lists)*2 + listMore)
	if err := r.moreHeats(ctx, lists, step); err != nil {
		return protocol.Rooms{}, err
	}
	var found []heat
	for len(found) <= limit {
		var best *heats
		for _, l := range lists {
			for len(l.rooms) == 0 && !l.ended {
				if err := r.moreHeats(ctx, []*heats{l}, step); err != nil {
					return protocol.Rooms{}, err
				}
			}
			if len(l.rooms) > 0 && (best == nil || hotter(l.rooms[0], best.rooms[0]) < 0) {
				best = l
			}
		}
		if best == nil {
			break
		}
		found = append(found, best.rooms[0])
		best.rooms = best.rooms[1:]
	}
	return roomsPage(found, limit), nil
}

// roomsPage is a page of up to limit rooms, of which more may have been found.
func roomsPage(found []heat, limit int) protocol.Rooms {
	out := protocol.Rooms{Rooms: []protocol.RoomUsers{}}
	for i, h := range found {
		if i == limit {
			last := found[limit-1]
			out.Cursor = cursorOf(strconv.Itoa(last.users) + " " + last.room)
			break
		}
		out.Rooms = append(out.Rooms, protocol.RoomUsers{Room: h.room, Users: h.users})
	}
	return out
}

// heatsOf returns those of some rooms that somebody is in, behind another in their order.
func (r *Presence) heatsOf(ctx context.Context, rooms []string, after heat) ([]heat, error) {
	scores := make([]*redis.FloatCmd, len(rooms))
	err := r.call(ctx, opList, func(ctx context.Context) error {
		p := r.cfg.Client.Pipeline()
		for i, room := range rooms {
			scores[i] = p.ZScore(ctx, r.bucketOf(room).keys.base+"heat", room)
		}
		if _, err := p.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		return nil
	})
	var found []heat
	for i, room := range rooms {
		h := heat{room, 0}
		if err == nil && scores[i].Err() == nil {
			h.users = int(scores[i].Val())
			if h.users > 0 && (after.room == "" || hotter(after, h) < 0) {
				found = append(found, h)
			}
		}
	}
	slices.SortFunc(found, hotter)
	return found, err
}

// heat is how many users a room has.
type heat struct {
	room  string
	users int
}

// hotter is the order of rooms: by users, and by name, both falling, as Redis has it.
func hotter(a, b heat) int {
	return cmp.Or(cmp.Compare(b.users, a.users), strings.Compare(b.room, a.room))
}

// heats is a bucket's part of the hottest rooms.
type heats struct {
	b      *bucket
	after  heat
	from   int   // asked for from here on
	offset int64 // rooms of that
	rooms  []heat
	ended  bool
}

// moreHeats reads n further rooms of each list.
func (r *Presence) moreHeats(ctx context.Context, lists []*heats, n int64) error {
	return r.call(ctx, opList, func(ctx context.Context) error {
		p := r.cfg.Client.Pipeline()
		answers := make([]*redis.ZSliceCmd, len(lists))
		for i, l := range lists {
			answers[i] = p.ZRevRangeByScoreWithScores(ctx, l.b.keys.base+"heat", &redis.ZRangeBy{
				Max: strconv.Itoa(l.from), Min: "1", Offset: l.offset, Count: n})
		}
		if _, err := p.Exec(ctx); err != nil {
			return err
		}
		for i, l := range lists {
			found := answers[i].Val()
			l.offset += int64(len(found))
			l.ended = int64(len(found)) < n
			for _, z := range found {
				h := heat{fmt.Sprint(z.Member), int(z.Score)}
				if l.after.room == "" || hotter(l.after, h) < 0 {
					l.rooms = append(l.rooms, h)
				}
			}
		}
		return nil
	})
}
