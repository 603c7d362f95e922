package redispresence

// head begins every script. KEYS 1 to 7 are the same for all.
//
// A room's entry says "users connections peak generation members": members is the
// number of incarnations that have the room in their index at that generation. An
// incarnation's index says of a room "connections generation users": what it has
// written, and at which generation of the room. What was written at another generation
// than the entry's counts for nothing.
//
// Values may have further fields, which a newer version has written: they are passed over,
// and kept where the value is somebody else's too.
const head = `
local LEASE, TICK, GRAVE, COUNTS, CHANGES, IDLE, PEAKS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
`

// functions follow the head in every script.
const functions = `
-- The version is that of the last change. It is never used twice, not even after Redis
-- came back with an older state.
local version = tonumber(redis.call('ZREVRANGE', CHANGES, 0, 0, 'WITHSCORES')[2] or '0')
local stamped = false
local function stamp()
  if not stamped then
    version = math.max(version + 1, now)
    stamped = true
  end
  return version
end

local function bury(inc, due, rooms, upto)
  local had = string.match(redis.call('HGET', TICK, inc) or '', '^%d+ (%d+)')
  redis.call('HSET', TICK, inc, 'dead ' .. (had or rooms) .. ' ' .. upto)
  redis.call('ZREM', LEASE, inc)
  redis.call('ZADD', GRAVE, due, inc)
end

local known = {} -- room → its entry, as this script has left it
local function entry(room)
  local s = redis.call('HGET', COUNTS, room)
  local u, c, p, g, n, more = string.match(s or '', '^(%d+) (%d+) (%d+) (%d+) (%d+)(.*)$')
  if not u then return nil end
  return {text = s, u = tonumber(u), c = tonumber(c), p = tonumber(p), g = tonumber(g), n = tonumber(n), more = more}
end

local function written(index, room)
  local s = redis.call('HGET', index, room)
  local c, g, u = string.match(s or '', '^(%d+) (%d+) (%d+)')
  if not c then return nil end
  return {c = tonumber(c), g = tonumber(g), u = tonumber(u)}
end

-- The peak of a room that nobody has is kept for a while, but not for every name: that
-- one alone was there needs no memory, and when there are too many the oldest goes.
local function remember(room, peak)
  if peak < 2 then return end
  redis.call('HSET', PEAKS, room, peak)
  redis.call('ZADD', IDLE, now, room)
  if redis.call('ZCARD', IDLE) <= ` + maxPeaks + ` then return end
  for _, x in ipairs(redis.call('ZRANGE', IDLE, 0, 0)) do
    redis.call('ZREM', IDLE, x)
    redis.call('HDEL', PEAKS, x)
  end
end

local function create(room)
  local peak = redis.call('HGET', PEAKS, room)
  if peak then
    redis.call('HDEL', PEAKS, room)
    redis.call('ZREM', IDLE, room)
  end
  return {u = 0, c = 0, p = tonumber(peak or '0'), g = stamp(), n = 0}
end

-- What is left when nobody has the room, or when keys of it are lost: then everybody who
-- has it is told, and writes it anew.
local function drop(room, users, peak)
  redis.call('UNLINK', users)
  redis.call('HDEL', COUNTS, room)
  redis.call('ZADD', CHANGES, stamp(), room)
  remember(room, peak)
  known[room] = ''
end

-- Stores an entry after its room's users have become delta more. If they are others than
-- that, the room is dropped.
local function save(room, e, users, delta, peak)
  local u = redis.call('HLEN', users)
  e.p = math.max(e.p, peak, u)
  if u ~= e.u + delta or e.n < 1 then return drop(room, users, e.p) end
  local s = string.format('%d %d %d %d %d', u, math.max(e.c, 0), e.p, e.g, e.n) .. (e.more or '')
  known[room] = s
  if s == e.text then return end
  redis.call('HSET', COUNTS, room, s)
  redis.call('ZADD', CHANGES, stamp(), room)
end

-- Declares incarnations dead whose lease has lapsed, and answers which of the dead are to be
-- taken out.
local function bereave(mayreap, claim, look)
  local reap = {}
  if mayreap then
    for _, x in ipairs(redis.call('ZRANGEBYSCORE', LEASE, '-inf', now, 'LIMIT', 0, 8)) do
      bury(x, now, '?', version)
      look = true
    end
  end
  if not look then return reap end
  for _, x in ipairs(redis.call('ZRANGEBYSCORE', GRAVE, '-inf', now, 'LIMIT', 0, 8)) do
    local state = redis.call('HGET', TICK, x) or ''
    if state == 'gone' then
      redis.call('HDEL', TICK, x)
      redis.call('ZREM', GRAVE, x)
    elseif mayreap and #reap < 2 then
      if string.sub(state, 1, 4) ~= 'dead' then bury(x, now, '?', version) end
      redis.call('ZADD', GRAVE, now + claim, x)
      reap[#reap + 1] = x
    end
  end
  return reap
end

-- Forgets what is old, and finds what has lost its counterpart.
local function tidy(lease, keep, mark)
  for _, room in ipairs(redis.call('ZRANGEBYSCORE', IDLE, '-inf', now - keep, 'LIMIT', 0, 8)) do
    redis.call('HDEL', PEAKS, room)
    redis.call('ZREM', IDLE, room)
  end
  if redis.call('ZCARD', IDLE) ~= redis.call('HLEN', PEAKS) then redis.call('UNLINK', IDLE, PEAKS) end
  -- All changes after the oldest that stays have to stay.
  local floor = redis.call('ZREVRANGEBYSCORE', CHANGES, now - lease, '-inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
  if floor then redis.call('ZREMRANGEBYSCORE', CHANGES, '-inf', '(' .. floor) end
  if redis.call('HLEN', TICK) == redis.call('ZCARD', LEASE) + redis.call('ZCARD', GRAVE) then return end
  local all = redis.call('HGETALL', TICK)
  for i = 1, #all, 2 do
    local inc, state = all[i], string.sub(all[i + 1], 1, 4)
    if state ~= 'dead' and state ~= 'gone' then
      if not redis.call('ZSCORE', LEASE, inc) then redis.call('ZADD', LEASE, now + lease, inc) end
    elseif not redis.call('ZSCORE', GRAVE, inc) then
      redis.call('ZADD', GRAVE, state == 'gone' and now + mark or now, inc)
    end
  end
end
`

// tickLua: KEYS 8 the incarnation's index, then the indexes of its predecessors, then
// of each room to look at and of each room that has changed the user hash and the
// incarnation's set. ARGV as send and collect write them.
//
// A room's mode is empty when what changed is written to what is there, and otherwise a
// version: then the room is written whole, and what is there is dropped if its generation
// is not after that. A room with -1 connections leaves the index.
const tickLua = head + `
local inc, prev, tick, lease, seen = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local mayreap, quiet, full, have = ARGV[6] == '1', ARGV[7] == '1', ARGV[8] == '1', tonumber(ARGV[9])

-- At maxmemory Redis refuses what may need memory, unless something was written before:
-- to delete is always allowed.
if full then redis.call('HDEL', TICK, '') end
local cur = redis.call('HGET', TICK, inc) or '0'
local fresh = cur ~= tick
if fresh and cur ~= prev then
  if cur == '0' then return {'resync', 'lost'} end
  if cur == 'gone' or string.sub(cur, 1, 4) == 'dead' then return {'resync', 'reaped'} end
  return {'resync', 'tick'}
end
local due = redis.call('ZCOUNT', LEASE, '-inf', now)
local lapsed = 0
local unknown = cur == '0' and redis.call('EXISTS', TICK) == 0
if fresh then
  if due > 0 and tonumber(redis.call('ZSCORE', LEASE, inc) or now + 1) <= now then lapsed = 1 end
  redis.call('HSET', TICK, inc, tick)
  redis.call('ZADD', LEASE, now + lease, inc)
end
if quiet and not unknown and due == 0 and redis.call('ZCOUNT', CHANGES, '(' .. ARGV[5], '+inf') == 0 then return {'ok', now, seen, 0, {}, 0, {}} end
` + functions + `
local claim, keep, mark = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local look, clean, nold = ARGV[13] == '1', ARGV[14] == '1', tonumber(ARGV[15])
local index = KEYS[8]
local rooms, told = {}, {}
local function tell(room, own)
  told[#told + 1] = room
  told[#told + 1] = known[room] or redis.call('HGET', COUNTS, room) or ''
  told[#told + 1] = own
end
local a, k = 16, 9 + nold
local olds = {}
for i = 1, nold do
  olds[i] = {ARGV[a], ARGV[a + 1], ARGV[a + 2]}
  a = a + 3
end
local nlook = tonumber(ARGV[a])
local looks, lookkeys = a + 1, k
a, k = a + 1 + 2 * nlook, k + 2 * nlook
-- When nothing is known of any incarnation the dead cannot be told from the living: all
-- rooms are void, and who has one writes it anew.
if unknown then redis.call('UNLINK', COUNTS) end
if fresh then
  for i = 1, nold do bury(olds[i][1], now + lease, olds[i][2], olds[i][3]) end
  for r = 1, tonumber(ARGV[a]) do
    local room, conns, peak, mode = ARGV[a + 1], tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), ARGV[a + 4]
    local ins, outs = tonumber(ARGV[a + 5]), tonumber(ARGV[a + 6])
    local users, set = KEYS[k], KEYS[k + 1]
    a, k = a + 6, k + 2
    local e, mine = entry(room), written(index, room)
    local whole = mode ~= ''
    local broken = false
    if whole and e and (e.g <= tonumber(mode) or mine and mine.g == e.g) then
      drop(room, users, e.p)
      e = nil
    end
    local at = e and mine and mine.g == e.g
    if whole and mine and not at then
      redis.call('UNLINK', set)
      mine = nil
    end
    if whole and conns >= 0 then
      if not e then
        redis.call('UNLINK', users)
        e = create(room)
      end
      e.n = e.n + 1
      mine = {c = 0, g = e.g, u = 0}
      for i = 1, nold do
        local o = written(KEYS[8 + i], room)
        if o and o.g == e.g and o.c > 0 then
          mine.c = mine.c + o.c
          redis.call('HSET', KEYS[8 + i], room, string.format('0 %d %d', o.g, o.u))
        end
      end
      at = true
    end
    if at then
      local delta = 0
      for j = a + 1, a + ins do
        if redis.call('SADD', set, ARGV[j]) == 0 then broken = true end
        if redis.call('HINCRBY', users, ARGV[j], 1) == 1 then delta = delta + 1 end
      end
      for j = a + ins + 1, a + ins + outs do
        if redis.call('SREM', set, ARGV[j]) == 0 then broken = true end
        local left = redis.call('HINCRBY', users, ARGV[j], -1)
        if left <= 0 then
          redis.call('HDEL', users, ARGV[j])
          delta = delta - 1
          if left < 0 then broken = true end
        end
      end
      e.c = e.c + math.max(conns, 0) - mine.c
      if conns < 0 then
        e.n = e.n - 1
        if redis.call('UNLINK', set) > 0 then broken = true end
        redis.call('HDEL', index, room)
      else
        local s = string.format('%d %d %d', conns, e.g, mine.u + ins - outs)
        redis.call('HSET', index, room, s)
        rooms[room] = s
      end
      if broken then drop(room, users, e.p) else save(room, e, users, delta, peak) end
    elseif conns < 0 then
      redis.call('UNLINK', set)
      redis.call('HDEL', index, room)
      if not e then
        redis.call('UNLINK', users)
      elseif not mine and not whole then
        drop(room, users, e.p)
      end
    else
      tell(room, redis.call('HGET', index, room) or '')
    end
    a = a + ins + outs
  end
end
-- What is not urgent is looked at now and then, to keep a quiet tick cheap.
local reap = bereave(mayreap and lapsed == 0, claim, look)
if clean then tidy(lease, keep, mark) end
for i = 0, nlook - 1 do
  local room, set, users = ARGV[looks + 2 * i], KEYS[lookkeys + 2 * i + 1], KEYS[lookkeys + 2 * i]
  local e = entry(room)
  if not e or redis.call('SCARD', set) ~= tonumber(ARGV[looks + 2 * i + 1]) or redis.call('HLEN', users) ~= e.u then
    local mine = written(index, room)
    if e and mine and mine.g == e.g then
      drop(room, users, e.p)
    else
      tell(room, redis.call('HGET', index, room) or '')
    end
  end
end
local all = look and redis.call('HLEN', index) ~= have
if all or version ~= seen then
  local changed
  if not all then
    local oldest = tonumber(redis.call('ZRANGE', CHANGES, 0, 0, 'WITHSCORES')[2] or '0')
    if seen < oldest or seen > version then
      all = true
    else
      changed = redis.call('ZRANGEBYSCORE', CHANGES, string.format('(%d', seen), '+inf', 'LIMIT', 0, have + 1)
      if #changed > have then all = true end
    end
  end
  if all then
    local list = redis.call('HGETALL', index)
    for i = 1, #list, 2 do tell(list[i], list[i + 1]) end
  else
    for _, room in ipairs(changed) do
      local own = rooms[room] or redis.call('HGET', index, room)
      if own then tell(room, own) end
    end
  end
end
return {'ok', now, version, lapsed, reap, all and 1 or 0, told}
`

// sweepLua: ARGV whether to reap, then in ms the claim, the lease, how long a peak and
// how long the mark of a dead incarnation is kept.
const sweepLua = head + functions + `
redis.call('HDEL', TICK, '') -- see tickLua; what is swept needs no memory
local reap = bereave(ARGV[1] == '1', tonumber(ARGV[2]), true)
tidy(tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]))
return reap
`

// reapLua: KEYS 8 the incarnation's index, then of each room the user hash and the
// incarnation's set. ARGV the incarnation, whether its own node asks (which needs
// no lapsed lease), the claim, how long to keep the mark (both ms), the chunk, how many
// rooms the incarnation has and up to which version, if nobody else knows, whether its
// index is to be believed, the number of rooms, the rooms. Answers how many of the rooms
// are done, whether the incarnation is gone, still going, not dead at all or in doubt, as
// its index has lost rooms, and up to which version it may have written.
const reapLua = head + functions + `
redis.call('HDEL', TICK, '') -- see tickLua; to reap makes room
local inc, own, claim, keep, left = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local index = KEYS[8]
local state = redis.call('HGET', TICK, inc) or ''
if state == 'gone' then return {0, 'gone', 0} end
if string.sub(state, 1, 4) ~= 'dead' then
  if not own then return {0, 'alive', 0} end
  bury(inc, now + claim, ARGV[6], ARGV[7])
  state = redis.call('HGET', TICK, inc)
else
  redis.call('ZADD', GRAVE, now + claim, inc)
end
local had, upto = string.match(state, '^dead (%S+) (%d+)')
-- Without a mark an index that is not there at all is not believed.
had, upto = tonumber(had or '') or 1, tonumber(upto or '') or version
if ARGV[8] ~= '1' and redis.call('HLEN', index) < had then return {0, 'doubt', upto} end
local done = 0
for r = 1, tonumber(ARGV[9]) do
  if left <= 0 then break end
  local room, users, set = ARGV[9 + r], KEYS[7 + 2 * r], KEYS[8 + 2 * r]
  local e, mine = entry(room), written(index, room)
  if e and mine and mine.g == e.g then
    local out = redis.call('SPOP', set, left)
    local delta, broken = 0, false
    for i = 1, #out do
      local rest = redis.call('HINCRBY', users, out[i], -1)
      if rest <= 0 then
        redis.call('HDEL', users, out[i])
        delta = delta - 1
        if rest < 0 then broken = true end
      end
    end
    left = left - #out
    e.c = e.c - mine.c
    local rest = mine.u - #out
    if redis.call('SCARD', set) ~= rest then broken = true end
    if rest == 0 or broken then
      redis.call('UNLINK', set)
      redis.call('HDEL', index, room)
      e.n = e.n - 1
      done = done + 1
    else
      redis.call('HSET', index, room, string.format('0 %d %d', mine.g, rest))
    end
    if broken then drop(room, users, e.p) else save(room, e, users, delta, 0) end
  else
    if not e then redis.call('UNLINK', users) end
    redis.call('UNLINK', set)
    redis.call('HDEL', index, room)
    done = done + 1
  end
end
local rest = redis.call('HLEN', index)
if rest > 0 then
  redis.call('HSET', TICK, inc, string.format('dead %d %d', rest, upto))
  return {done, 'going', upto}
end
redis.call('HSET', TICK, inc, 'gone')
redis.call('ZADD', GRAVE, now + keep, inc)
return {done, 'gone', upto}
`

// renewLua: KEYS 8 on of each room the user hash and the set of an incarnation that has
// lost its index. ARGV up to which version the incarnation may have written, the rooms.
// Drops the rooms whose generation is not after that, for nobody knows which of them the
// incarnation was in.
const renewLua = head + functions + `
local upto = tonumber(ARGV[1])
for r = 1, #ARGV - 1 do
  local room, users, set = ARGV[1 + r], KEYS[6 + 2 * r], KEYS[7 + 2 * r]
  redis.call('UNLINK', set) -- also makes way at maxmemory; see tickLua
  local e = entry(room)
  if e and e.g <= upto then drop(room, users, e.p) end
end
return {}
`
