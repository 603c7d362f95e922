package redispresence

// tickLua: KEYS 14 the incarnation's index, then the indexes of its predecessors, then of each
// room to look at the user hash and the shards, and of each room that has changed the user
// hash, two keys of first seen, three of the broadcast, the shards to be cleared, those to be written, and of each that is to be divided that
// one and the four that it becomes. ARGV as try and collect write them.
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
if quiet and not unknown and due == 0 and redis.call('ZCOUNT', CHANGES, '(' .. ARGV[5], '+inf') == 0
  and redis.call('ZCOUNT', LEAVING, '-inf', now) == 0 then
  return {'ok', now, seen, 0, {}, 0, {}, '', {}}
end
local wait, maxseen, maxexact = tonumber(ARGV[16]), tonumber(ARGV[20]), tonumber(ARGV[21])
` + functions + `
-- Users are named by their places in ARGV: n of them from one on. A tick has at most ` + chunkText + ` of
-- them, so that one command takes them all.

-- Notes when users were first seen in a room, and returns it: the seconds, with a minus before
-- them if the user may have been there earlier. The key at k holds it, and the one behind it what
-- was there when that became full.
local function acquaint(room, k, from, n)
  local at, size = redis.call('HMGET', KEYS[k], '', unpack(ARGV, from, from + n - 1)), redis.call('HLEN', KEYS[k])
  local doubt = table.remove(at, 1) or ''
  if size == 0 then
    -- What was lost is not taken for what never was.
    local born = tonumber(redis.call('HGET', GEN, 'born') or now)
    local complete = born <= tonumber(ARGV[18]) or now - born > tonumber(ARGV[19])
    if not complete or redis.call('ZSCORE', SEEN, room) then
      doubt = '-'
      redis.call('HSET', KEYS[k], '', doubt)
    end
  end
  redis.call('ZADD', SEEN, now, room)
  local missing = {}
  for i = 1, n do
    if not at[i] then missing[#missing + 1] = i end
  end
  if #missing == 0 then return at end
  if size + #missing > maxseen and size > 1 then
    redis.call('RENAME', KEYS[k], KEYS[k + 1])
    if doubt ~= '' then redis.call('HSET', KEYS[k], '', doubt) end
  end
  local stamp, new, before = doubt .. string.format('%d', now / 1000), {}, nil
  if redis.call('EXISTS', KEYS[k + 1]) == 1 then before = redis.call('HMGET', KEYS[k + 1], unpack(ARGV, from, from + n - 1)) end
  for j, i in ipairs(missing) do
    at[i] = before and before[i] or stamp
    new[2 * j - 1], new[2 * j] = ARGV[from + i - 1], at[i]
  end
  redis.call('HSET', KEYS[k], unpack(new))
  return at
end

-- Returns what counts the distinct users of a broadcast: those at the key k up to some number,
-- and beyond it a sketch at the key behind it. again says that it was begun before, and sketch
-- is what a node has kept of it; the third key is scratch.
local function audience(k, name, again, sketch)
  redis.call('ZADD', SEEN, now, name)
  local exact = redis.call('EXISTS', KEYS[k + 1]) == 0
  if exact and again and redis.call('EXISTS', KEYS[k]) == 0 then
    redis.call('PFADD', KEYS[k + 1])
    exact = false
  end
  if sketch ~= '' then
    redis.call('SET', KEYS[k + 2], sketch)
    redis.call('PFMERGE', KEYS[k + 1], KEYS[k + 2])
    redis.call('UNLINK', KEYS[k + 2])
    exact = false
  end
  return function(from, n)
    if n == 0 then return end
    if not exact then return redis.call('PFADD', KEYS[k + 1], unpack(ARGV, from, from + n - 1)) end
    if redis.call('SADD', KEYS[k], unpack(ARGV, from, from + n - 1)) == 0 or redis.call('SCARD', KEYS[k]) <= maxexact then return end
    local all = redis.call('SMEMBERS', KEYS[k])
    for i = 1, #all, 500 do redis.call('PFADD', KEYS[k + 1], unpack(all, i, math.min(i + 499, #all))) end
    redis.call('UNLINK', KEYS[k])
    exact = false
  end
end

-- Adds by to the number of incarnations that have each user, and returns the numbers.
local function count(users, from, n, by)
  local had, set, gone = redis.call('HMGET', users, unpack(ARGV, from, from + n - 1)), {}, {}
  for i = 1, n do
    had[i] = (tonumber(had[i] or 0) or 0) + by
    if had[i] <= 0 then
      gone[#gone + 1] = ARGV[from + i - 1]
    else
      set[#set + 1] = ARGV[from + i - 1]
      set[#set + 1] = had[i]
    end
  end
  if #set > 0 then redis.call('HSET', users, unpack(set)) end
  if #gone > 0 then redis.call('HDEL', users, unpack(gone)) end
  return had
end

-- Writes the records of users, n of them from records on, into a shard, and returns how many
-- were not in it.
local function write(shard, from, records, n)
  local pairs = {}
  for i = 0, n - 1 do pairs[2 * i + 1], pairs[2 * i + 2] = ARGV[from + i], ARGV[records + i] end
  return redis.call('HSET', shard, unpack(pairs))
end

-- Divides a shard, the key at k, into the four behind it by two bits of the places.
local function divide(k, depth)
  local all, parts, unit = redis.call('HGETALL', KEYS[k]), {}, 4 ^ (` + depthText + ` - 1 - depth)
  for i = 1, #all, 2 do
    local n = math.floor((tonumber(string.sub(all[i + 1], 1, ` + digitsText + `), 8) or 0) / unit) % 4
    local part = parts[n] or {}
    parts[n] = part
    part[#part + 1] = all[i]
    part[#part + 1] = all[i + 1]
  end
  for n, part in pairs(parts) do
    for i = 1, #part, 400 do redis.call('HSET', KEYS[k + 1 + n], unpack(part, i, math.min(i + 399, #part))) end
  end
  redis.call('UNLINK', KEYS[k])
end

local claim, keep, mark = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local look, clean, nold = ARGV[13] == '1', ARGV[14] == '1', tonumber(ARGV[15])
local index = KEYS[14]
local rooms, told, firsts, put = {}, {}, {}, {}
local function tell(room, own)
  told[#told + 1] = room
  told[#told + 1] = known[room] or redis.call('HGET', COUNTS, room) or ''
  told[#told + 1] = own
end
local a, k = 22, 15 + nold
-- Redis is not what it was when this node last heard of it.
local last = tonumber(ARGV[17])
if last and tonumber(gen) <= last then
  version = math.max(version, last)
  regenerate()
end
local olds = {}
for i = 1, nold do
  olds[i] = {ARGV[a], ARGV[a + 1], ARGV[a + 2]}
  a = a + 3
end
local nlook = tonumber(ARGV[a])
local looks, lookkeys = a + 1, k
a = a + 1
for i = 1, nlook do
  k = k + 1 + tonumber(ARGV[a + 3])
  a = a + 4
end
-- When nothing is known of any incarnation the dead cannot be told from the living: all
-- rooms are void, and who has one writes it anew.
if unknown then
  redis.call('UNLINK', COUNTS, HEAT)
  regenerate()
end
if fresh then
  for i = 1, nold do bury(olds[i][1], now + lease, olds[i][2], olds[i][3]) end
  for r = 1, tonumber(ARGV[a]) do
    local room, conns, peak, mode = ARGV[a + 1], tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), ARGV[a + 4]
    local counted, shape = ARGV[a + 5] ~= '1', ARGV[a + 6]
    local ncleared, ngroups, nsplits = tonumber(ARGV[a + 7]), tonumber(ARGV[a + 8]), tonumber(ARGV[a + 9])
    local users, first, cast, cleared = KEYS[k], k + 1, k + 3, k + 6
    local broadcast, again, sketch, nmarks = ARGV[a + 10], ARGV[a + 11] == '1', ARGV[a + 12], tonumber(ARGV[a + 13])
    local nins, nouts, nups = tonumber(ARGV[a + 14]), tonumber(ARGV[a + 15]), tonumber(ARGV[a + 16])
    local marks = a + 17
    local ins = marks + nmarks
    local outs, ups = ins + nins, ins + nins + nouts
    local records, uprecords = ups + nups, ups + nups + nins
    a, k = uprecords + nups - 1, k + 6 + ncleared
    local e, mine = entry(room), written(index, room)
    local whole = mode ~= ''
    local broken = false
    if whole and e and (e.g <= tonumber(mode) or mine and mine.g == e.g) then
      drop(room, users, e.p, true)
      e = nil
    end
    local at = e and mine and mine.g == e.g
    if not at and (whole or conns < 0) then
      for i = 1, ncleared do redis.call('UNLINK', KEYS[cleared + i - 1]) end
      if whole then mine = nil end
    end
    if whole and conns >= 0 then
      if not e then
        forget(users)
        e = create(room)
      end
      e.n = e.n + 1
      mine = {c = 0, g = e.g, u = 0}
      for i = 1, nold do
        local o = written(KEYS[14 + i], room)
        if o and o.g == e.g and o.c > 0 then
          mine.c = mine.c + o.c
          redis.call('HSET', KEYS[14 + i], room, string.format('0 %d %d%s', o.g, o.u, o.more))
        end
      end
      at = true
    end
    local delta, left, joined = 0, {}, {}
    if at and not counted then delta = nins - nouts end
    if counted and not at then
      for _ = 1, nins do firsts[#firsts + 1] = '' end
    end
    if at and counted then
      local seen = nins > 0 and maxseen > 0 and acquaint(room, first, ins, nins)
      if broadcast ~= '0' and nmarks + nins + nups > 0 then
        local add = audience(cast, room .. ' ' .. broadcast, again, sketch)
        add(marks, nmarks)
        add(ins, nins)
        add(ups, nups)
      end
      local have = nins > 0 and count(users, ins, nins, 1)
      for i = 1, nins do
        local told = seen and seen[i] or ''
        if have[i] == 1 then
          delta = delta + 1
          local had, listing = back(room, ARGV[ins + i - 1])
          if had then told = told .. ' ' .. string.match(had, '^%S+ %S+ (%S+)') end
          if wait >= 0 and (listing or not had) then joined[#joined + 1] = ARGV[ins + i - 1] .. '\t' .. ARGV[records + i - 1] end
        end
        firsts[#firsts + 1] = told
      end
      have = nouts > 0 and count(users, outs, nouts, -1)
      for i = 1, nouts do
        if have[i] <= 0 then
          delta = delta - 1
          left[i] = wait >= 0
          if have[i] < 0 then broken = true end
        end
      end
    end
    local i, o, u = 0, 0, 0
    for _ = 1, ngroups do
      local shard, ni, no, nu = KEYS[k], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
      a, k = a + 3, k + 1
      if at then
        if ni > 0 and write(shard, ins + i, records + i, ni) ~= ni then broken = true end
        if nu > 0 and write(shard, ups + u, uprecords + u, nu) ~= 0 then broken = true end
        if no > 0 then
          local had = counted and wait >= 0 and redis.call('HMGET', shard, unpack(ARGV, outs + o, outs + o + no - 1))
          for x = 1, no do
            if left[o + x] and had[x] then depart(room, ARGV[outs + o + x - 1], had[x], 'n') end
          end
          if redis.call('HDEL', shard, unpack(ARGV, outs + o, outs + o + no - 1)) ~= no then broken = true end
        end
      end
      i, o, u = i + ni, o + no, u + nu
    end
    if #joined > 0 then say('joined', room, joined) end
    for _ = 1, nsplits do
      if at then divide(k, tonumber(ARGV[a + 1])) end
      a, k = a + 1, k + 5
    end
    if at then
      e.c = e.c + math.max(conns, 0) - mine.c
      if conns < 0 then
        e.n = e.n - 1
        for i = 1, ncleared do
          if redis.call('UNLINK', KEYS[cleared + i - 1]) > 0 then broken = true end
        end
        redis.call('HDEL', index, room)
      else
        local s = string.format('%d %d %d %s', conns, e.g, mine.u + nins - nouts, shape)
        put[room], rooms[room] = s, s
      end
      if broken then drop(room, users, e.p, true) else save(room, e, users, delta, peak) end
      -- Names that somebody makes up leave nothing behind.
      if conns < 0 and counted and known[room] == '' and redis.call('HLEN', KEYS[first]) < 3 then
        redis.call('UNLINK', KEYS[first], KEYS[first + 1])
        redis.call('ZREM', SEEN, room)
      end
    elseif conns < 0 then
      redis.call('HDEL', index, room)
      if not e then
        forget(users)
      elseif not mine and not whole then
        drop(room, users, e.p, true)
      end
    else
      tell(room, redis.call('HGET', index, room) or '')
    end
  end
end
-- What is not urgent is looked at now and then, to keep a quiet tick cheap.
local reap = bereave(mayreap and lapsed == 0, claim, look)
if clean then tidy(lease, keep, mark) end
for i = 1, nlook do
  local room, wrote, counted, shards = ARGV[looks], tonumber(ARGV[looks + 1]), ARGV[looks + 2] ~= '1', tonumber(ARGV[looks + 3])
  local users, e, sum = KEYS[lookkeys], entry(room), 0
  for j = 1, shards do sum = sum + redis.call('HLEN', KEYS[lookkeys + j]) end
  looks, lookkeys = looks + 4, lookkeys + 1 + shards
  if not e or sum ~= wrote or counted and redis.call('HLEN', users) ~= e.u then
    local mine = written(index, room)
    if e and mine and mine.g == e.g then
      drop(room, users, e.p, true)
    else
      tell(room, redis.call('HGET', index, room) or '')
    end
  end
end
all('HSET', index, put)
farewell()
store()
local feed = wait >= 0 and redis.call('LLEN', FEED) > 0 and feedable(string.match(inc, '^[^.]+'))
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
return {'ok', now, version, lapsed, reap, all and 1 or 0, told, gen .. (feed and ' 1' or ' 0'), firsts}
`
