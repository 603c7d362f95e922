package redisroster

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/hub"
)

const (
	chunk      = 500       // users that one script adds or takes out; 25,000 block Redis for 62 ms
	chunkRooms = 500       // rooms that one tick names
	reapRooms  = 100       // rooms that one reaping script names
	keepDead   = time.Hour // how long the mark of a dead incarnation stays
	keepPeak   = 24 * time.Hour
)

// prelude begins every script. KEYS 1 to 6 are the same for all: lease, tick,
// grave, counts, version, idle.
const prelude = `
local LEASE, TICK, GRAVE, COUNTS, VERSION, IDLE = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local changed = false

local function bury(inc, due)
  redis.call('HSET', TICK, inc, 'dead')
  redis.call('ZREM', LEASE, inc)
  redis.call('ZADD', GRAVE, due, inc)
end

local function recount(room, users, conns, peak)
  local old = redis.call('HGET', COUNTS, room)
  local c, p = 0, 0
  if old then
    local _, oc, op = string.match(old, '^(%d+) (%d+) (%d+)$')
    c, p = tonumber(oc), tonumber(op)
  end
  local u = redis.call('HLEN', users)
  c = math.max(c + conns, 0)
  p = math.max(p, peak, u)
  local new = string.format('%d %d %d', u, c, p)
  if new == old then return end
  changed = true
  if p == 0 and c == 0 then
    redis.call('HDEL', COUNTS, room)
    redis.call('ZREM', IDLE, room)
    return
  end
  redis.call('HSET', COUNTS, room, new)
  if u == 0 and c == 0 then redis.call('ZADD', IDLE, now, room) else redis.call('ZREM', IDLE, room) end
end

-- What is not urgent is looked at when thorough, to keep a quiet tick cheap.
local function sweep(mayreap, claim, keep, thorough)
  local reap = {}
  if mayreap then
    for _, x in ipairs(redis.call('ZRANGEBYSCORE', LEASE, '-inf', now, 'LIMIT', 0, 8)) do
      bury(x, now)
      thorough = true
    end
  end
  if not thorough then return reap end
  for _, x in ipairs(redis.call('ZRANGEBYSCORE', GRAVE, '-inf', now, 'LIMIT', 0, 8)) do
    local state = redis.call('HGET', TICK, x)
    if state ~= 'dead' then
      if state == 'gone' then redis.call('HDEL', TICK, x) end
      redis.call('ZREM', GRAVE, x)
    elseif mayreap and #reap < 2 then
      redis.call('ZADD', GRAVE, now + claim, x)
      reap[#reap + 1] = x
    end
  end
  for _, room in ipairs(redis.call('ZRANGEBYSCORE', IDLE, '-inf', now - keep, 'LIMIT', 0, 8)) do
    redis.call('HDEL', COUNTS, room)
    redis.call('ZREM', IDLE, room)
    changed = true
  end
  return reap
end

-- A version is never used twice, not even after Redis came back with an older state.
local function version()
  local v = tonumber(redis.call('GET', VERSION) or '0')
  if changed then
    v = math.max(v + 1, now)
    redis.call('SET', VERSION, v)
  end
  return v
end
`

// tickLua: KEYS 7 the incarnation's index, then the indexes of its predecessors,
// then of each room the user hash and the incarnation's set. ARGV as tickCall
// writes them. A room with -1 connections leaves the index.
const tickLua = prelude + `
local inc, prev, tick, lease, seen = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local mayreap, claim, keep, nold = ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local index = KEYS[7]
local cur = redis.call('HGET', TICK, inc) or '0'
local lapsed = 0
if cur ~= tick then
  if cur ~= prev then
    if cur == '0' then return {'resync', 'lost'} end
    if cur == 'dead' or cur == 'gone' then return {'resync', 'reaped'} end
    return {'resync', 'tick'}
  end
  local due = redis.call('ZSCORE', LEASE, inc)
  if due and tonumber(due) <= now then lapsed = 1 end
  redis.call('HSET', TICK, inc, tick)
  redis.call('ZADD', LEASE, now + lease, inc)
  for i = 1, nold do bury(ARGV[9 + i], now + lease) end
  local a, k = 10 + nold, 8 + nold
  local rooms = tonumber(ARGV[a])
  a = a + 1
  for r = 1, rooms do
    local room, conns, peak = ARGV[a], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
    local ins, outs = tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
    local users, set = KEYS[k], KEYS[k + 1]
    a, k = a + 5, k + 2
    for j = a, a + ins - 1 do
      if redis.call('SADD', set, ARGV[j]) == 1 then redis.call('HINCRBY', users, ARGV[j], 1) end
    end
    a = a + ins
    for j = a, a + outs - 1 do
      if redis.call('SREM', set, ARGV[j]) == 1 and redis.call('HINCRBY', users, ARGV[j], -1) <= 0 then
        redis.call('HDEL', users, ARGV[j])
      end
    end
    a = a + outs
    local before = tonumber(redis.call('HGET', index, room) or '0')
    for i = 1, nold do
      local o = redis.call('HGET', KEYS[7 + i], room)
      if o and o ~= '0' then
        before = before + tonumber(o)
        redis.call('HSET', KEYS[7 + i], room, 0)
      end
    end
    if conns < 0 then
      redis.call('HDEL', index, room)
      conns = 0
    else
      redis.call('HSET', index, room, conns)
    end
    recount(room, users, conns - before, peak)
  end
end
local reap = sweep(mayreap and lapsed == 0, claim, keep, tonumber(tick) % 4 == 0)
local v = version()
local counts = {}
if v ~= seen then
  for _, room in ipairs(redis.call('HKEYS', index)) do
    counts[#counts + 1] = room
    counts[#counts + 1] = redis.call('HGET', COUNTS, room) or '0 0 0'
  end
end
return {'ok', now, v, lapsed, reap, counts}
`

// sweepLua: ARGV whether to reap, the claim, how long a peak is kept; both in ms.
const sweepLua = prelude + `
local reap = sweep(ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[3]), true)
version()
return reap
`

// reapLua: KEYS 7 the incarnation's index, then of each room the user hash and the
// incarnation's set. ARGV the incarnation, whether its own node asks (which needs
// no lapsed lease), the claim, how long to keep the mark (both ms), the chunk, the
// number of rooms, the rooms. Answers how many of the rooms are done, and whether
// the incarnation is gone, still going or not dead at all.
const reapLua = prelude + `
local inc, own, claim, keep, left = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local index = KEYS[7]
local state = redis.call('HGET', TICK, inc)
if state == 'gone' then return {0, 'gone'} end
if state ~= 'dead' and not own then return {0, 'alive'} end
bury(inc, now + claim)
local done = 0
for r = 1, tonumber(ARGV[6]) do
  if left <= 0 then break end
  local room, users, set = ARGV[6 + r], KEYS[6 + 2 * r], KEYS[7 + 2 * r]
  local conns = tonumber(redis.call('HGET', index, room) or '0')
  local out = redis.call('SPOP', set, left)
  for i = 1, #out do
    if redis.call('HINCRBY', users, out[i], -1) <= 0 then redis.call('HDEL', users, out[i]) end
  end
  left = left - #out
  if redis.call('SCARD', set) == 0 then
    redis.call('HDEL', index, room)
    done = done + 1
  else
    redis.call('HSET', index, room, 0)
  end
  recount(room, users, -conns, 0)
end
version()
if redis.call('HLEN', index) > 0 then return {done, 'going'} end
redis.call('HSET', TICK, inc, 'gone')
redis.call('ZADD', GRAVE, now + keep, inc)
return {done, 'gone'}
`

type scripts struct{ tick, sweep, reap *redis.Script }

func newScripts() scripts {
	return scripts{
		tick:  redis.NewScript(tickLua),
		sweep: redis.NewScript(sweepLua),
		reap:  redis.NewScript(reapLua),
	}
}

// keys names the keys of one bucket.
type keys struct {
	base   string // "kansei:{p17}:"
	common []string
}

func newKeys(prefix string, bucket int) keys {
	base := fmt.Sprintf("%s:{p%d}:", prefix, bucket)
	k := keys{base: base}
	for _, name := range []string{"lease", "tick", "grave", "counts", "version", "idle"} {
		k.common = append(k.common, base+name)
	}
	return k
}

func (k keys) index(inc string) string     { return k.base + "i:" + inc }
func (k keys) users(room string) string    { return k.base + "u:" + room }
func (k keys) set(inc, room string) string { return k.base + "s:" + inc + ":" + room }

func ms(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// errAnswer says that Redis ran a script and answered something else than the
// script does: not this program's Redis, or a proxy in between.
var errAnswer = errors.New("unexpected answer of a script")

// answer is what a tick is answered with.
type answer struct {
	resync  string // why to resync; empty: the tick is in force
	now     int64  // Redis's clock, Unix milliseconds
	version int64
	lapsed  bool     // the lease had lapsed unnoticed
	reap    []string // dead incarnations that this node is to take out
	counts  []roomCounts
}

type roomCounts struct {
	room   string
	counts hub.Counts
}

func parseAnswer(v []any) (answer, error) {
	var a answer
	if len(v) == 2 && v[0] == "resync" {
		a.resync, _ = v[1].(string)
		switch a.resync {
		case resyncLost, resyncReaped, resyncTick:
			return a, nil
		}
	}
	if len(v) != 6 || v[0] != "ok" {
		return a, fmt.Errorf("%w: tick: %.100q", errAnswer, fmt.Sprint(v))
	}
	var ok [4]bool
	var lapsed int64
	var counts []string
	a.now, ok[0] = v[1].(int64)
	a.version, ok[1] = v[2].(int64)
	lapsed, ok[2] = v[3].(int64)
	a.lapsed = lapsed == 1
	a.reap, ok[3] = texts(v[4])
	counts, good := texts(v[5])
	if !good || ok != [4]bool{true, true, true, true} || len(counts)%2 != 0 {
		return a, fmt.Errorf("%w: tick: %.100q", errAnswer, fmt.Sprint(v))
	}
	for i := 0; i < len(counts); i += 2 {
		c, err := parseCounts(counts[i+1])
		if err != nil {
			return a, err
		}
		c.At = a.now
		a.counts = append(a.counts, roomCounts{counts[i], c})
	}
	return a, nil
}

// What an incarnation is after a reaping script.
const (
	stillGoing = "going" // dead, but not all of it is taken out
	nowGone    = "gone"
	notDead    = "alive"
)

// parseReaping returns how many of the rooms that the script named are done, and
// what the incarnation is.
func parseReaping(v []any, rooms int) (int, string, error) {
	if len(v) == 2 {
		n, _ := v[0].(int64)
		state, _ := v[1].(string)
		switch state {
		case stillGoing, nowGone, notDead:
			if n >= 0 && n <= int64(rooms) {
				return int(n), state, nil
			}
		}
	}
	return 0, "", fmt.Errorf("%w: reap: %.100q", errAnswer, fmt.Sprint(v))
}

func parseCounts(s string) (c hub.Counts, err error) {
	users, rest, _ := strings.Cut(s, " ")
	conns, peak, _ := strings.Cut(rest, " ")
	for _, f := range []struct {
		dst *int
		s   string
	}{{&c.Users, users}, {&c.Connections, conns}, {&c.PeakUsers, peak}} {
		if *f.dst, err = strconv.Atoi(f.s); err != nil || *f.dst < 0 {
			return c, fmt.Errorf("%w: counts %.40q", errAnswer, s)
		}
	}
	return c, nil
}

func texts(v any) ([]string, bool) {
	list, ok := v.([]any)
	if !ok {
		return nil, false
	}
	out := make([]string, len(list))
	for i, x := range list {
		if out[i], ok = x.(string); !ok {
			return nil, false
		}
	}
	return out, true
}

// run runs a script within the timeout. A script that Redis does not have any
// more is sent whole.
func (r *Roster) run(ctx context.Context, op string, s *redis.Script, keys []string, args []any) ([]any, error) {
	var v []any
	err := r.call(ctx, op, func(ctx context.Context) (err error) {
		v, err = s.Run(ctx, r.cfg.Client, keys, args...).Slice()
		return err
	})
	return v, err
}

// call does one request to Redis, measured and within the timeout.
func (r *Roster) call(ctx context.Context, op string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	start := time.Now()
	err := f(ctx)
	r.metrics.seconds.Observe(time.Since(start).Seconds())
	if err != nil {
		r.metrics.errors.WithLabelValues(op).Inc()
		return err
	}
	r.answered.Store(true)
	return nil
}
