package redispresence

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// This file tells back ends who joins and leaves. Scripts put it into a list in Redis, together
// with the change of the counts that it is about: the first connection of a user to any node, and
// the last one's end, once the user has been away for [Config.LeaveWait]. One node takes what is
// in the list of a bucket, publishes it, and has it deleted; it holds a claim meanwhile, which
// lapses. So each batch is published at least once, under an id of its own.
//
// A generation goes on while nothing is lost. When Redis has lost something, or is back at an older
// state, another one begins, with a higher number, and says so for all rooms: back ends then list
// the members anew.

// allRooms stands for all rooms. No room has such a name.
const allRooms = "_all"

const (
	feedBatches = 100             // that are published at a time
	feedClaim   = 5 * time.Second // how long a node may take for them
)

// feedLua: KEYS as all scripts. ARGV the node, its claim in ms, the generation and the number up
// to which it has published, how many batches it takes. Answers them; nothing while another node
// publishes.
const feedLua = head + `
local wait = 0
redis.call('HDEL', TICK, '') -- see tickLua
` + functions + `
local id, till = string.match(redis.call('HGET', GEN, 'owner') or '', '^(%S+) (%d+)$')
if id and id ~= ARGV[1] and tonumber(till) > now then return {} end
local upto, done = tonumber(ARGV[4]), tonumber(redis.call('HGET', GEN, 'done') or '0')
local first = redis.call('LRANGE', FEED, 0, 0)[1]
if first and not string.find(first, '^' .. gen .. ' ' .. string.format('%d', done + 1) .. ' ') then
  regenerate() -- some were lost
  store()
elseif first and gen == ARGV[3] and upto > done then
  redis.call('LTRIM', FEED, upto - done, -1)
  redis.call('HSET', GEN, 'done', upto)
end
local batches = redis.call('LRANGE', FEED, 0, tonumber(ARGV[5]) - 1)
if #batches > 0 then
  redis.call('HSET', GEN, 'owner', string.format('%s %d', ARGV[1], now + tonumber(ARGV[2])))
else
  redis.call('HDEL', GEN, 'owner')
end
return batches
`

// leaveWait is Config.LeaveWait in milliseconds; -1: back ends are told nothing.
func (r *Presence) leaveWait() int64 {
	if r.cfg.Publish == nil {
		return -1
	}
	return r.cfg.LeaveWait.Milliseconds()
}

// wantFeed has the feed of the bucket published. The queue has room for every bucket.
func (b *bucket) wantFeed() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.feeding && b.r.cfg.Publish != nil {
		b.feeding = true
		b.r.feeds <- b
	}
}

// publish publishes feeds until ctx ends.
func (r *Presence) publish(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-r.feeds:
			b.mu.Lock()
			b.feeding = false // what comes from now on is noticed by the next tick
			b.mu.Unlock()
			if err := b.publish(ctx); err != nil && ctx.Err() == nil {
				r.metrics.feedErrors.Inc()
				// The next tick asks for it again. Others wait: they go to the same place.
				select {
				case <-ctx.Done():
				case <-time.After(r.cfg.Interval):
				}
			}
		}
	}
}

// publish publishes what is in the bucket's feed.
func (b *bucket) publish(ctx context.Context) error {
	r, gen, upto := b.r, "", int64(0)
	for {
		v, err := r.run(ctx, opFeed, r.scripts.feed, b.keys.common, []any{r.id, ms(feedClaim), gen, upto, feedBatches})
		if err != nil {
			return err
		}
		batches, ok := texts(any(v))
		if !ok {
			return fmt.Errorf("%w: feed: %.100q", errAnswer, fmt.Sprint(v))
		}
		if len(batches) == 0 {
			return nil
		}
		for _, text := range batches {
			e, err := parseBatch(text)
			if err != nil {
				return err
			}
			body, err := json.Marshal(e)
			if err != nil {
				return err
			}
			id := fmt.Sprintf("%s.%d.%s.%d.%d", r.cfg.Prefix, b.n, e.Generation, e.Seq, e.At)
			if err := r.cfg.Publish(ctx, e.Room, id, body); err != nil {
				return err
			}
			gen, upto = e.Generation, e.Seq
			r.metrics.feedBatches.Inc()
		}
	}
}

// parseBatch reads what a script has put into the feed: "generation number time kind room", and a
// line for each user, "id TAB record", with how the user left before the record.
func parseBatch(text string) (*protocol.PresenceEvent, error) {
	head, rest, _ := strings.Cut(text, "\n")
	f := strings.Fields(head)
	if len(f) != 5 {
		return nil, fmt.Errorf("%w: feed: %.100q", errAnswer, text)
	}
	seq, err := strconv.ParseInt(f[1], 10, 64)
	at, bad := strconv.ParseInt(f[2], 10, 64)
	if err != nil || bad != nil {
		return nil, fmt.Errorf("%w: feed: %.100q", errAnswer, text)
	}
	e := &protocol.PresenceEvent{V: 1, Type: f[3], Room: f[4], Generation: f[0], Seq: seq, At: at}
	for line := range strings.SplitSeq(rest, "\n") {
		id, record, ok := strings.Cut(line, "\t")
		if !ok || record == "" {
			continue
		}
		lost := false
		if f[3] == "left" {
			lost, record = record[0] == 'd', record[1:]
		}
		m, ok := parseMember(id, record)
		if !ok {
			m = protocol.Member{ID: id, Role: protocol.RoleViewer}
		}
		u := protocol.PresenceUser{ID: m.ID, Name: m.Name, Role: m.Role, Since: m.Since, Lost: lost}
		if f[3] == "left" {
			e.Left = append(e.Left, u)
		} else {
			e.Joined = append(e.Joined, u)
		}
	}
	if e.Type != "reset" {
		e.Type = "presence"
	}
	return e, nil
}
