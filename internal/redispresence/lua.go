package redispresence

// head begins every script. KEYS 1 to 13 are the same for all.
//
// A room's entry says "users connections peak generation members": members is the
// number of incarnations that have the room in their index at that generation. An
// incarnation's index says of a room "connections generation users depth split": what it has
// written, at which generation of the room, and the shape of its share. What was written at
// another generation than the entry's counts for nothing.
//
// Values may have further fields, which a newer version has written: they are passed over,
// and kept where the value is somebody else's too.
const head = `
local LEASE, TICK, GRAVE, COUNTS, CHANGES, IDLE, PEAKS, HEAT = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local GEN, LEAVING, LEFT, FEED, SEEN = KEYS[9], KEYS[10], KEYS[11], KEYS[12], KEYS[13]
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

-- Entries, heats and changes are written at the end, all at once: see store.
local kept, hot, changed = {}, {}, {}
local known = {} -- room → its entry, as this script has left it
local function entry(room)
  local s = kept[room] or redis.call('HGET', COUNTS, room)
  local u, c, p, g, n, more = string.match(s or '', '^(%d+) (%d+) (%d+) (%d+) (%d+)(.*)$')
  if not u then return nil end
  return {text = s, u = tonumber(u), c = tonumber(c), p = tonumber(p), g = tonumber(g), n = tonumber(n), more = more}
end

local function written(index, room)
  local s = redis.call('HGET', index, room)
  local c, g, u, more = string.match(s or '', '^(%d+) (%d+) (%d+)(.*)$')
  if not c then return nil end
  return {c = tonumber(c), g = tonumber(g), u = tonumber(u), more = more}
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

-- What back ends are to be told (feed.go) is put into the feed at the end, with the numbers that
-- follow the last one of the generation.
local gen, said, spoken = nil, {}, nil
local function say(kind, room, users)
  if not spoken then spoken = tonumber(redis.call('HGET', GEN, 'n') or '0') end
  spoken = spoken + 1
  said[#said + 1] = string.format('%s %d %d %s %s\n', gen, spoken, now, kind, room) .. table.concat(users, '\n')
end

-- Begins another generation of it: the first thing in it says so.
local function regenerate()
  local last = redis.call('HGET', GEN, 'g')
  -- It rises even if one of the keys that tell of the last one is lost.
  version = math.max(version + 1, now, tonumber(last or '0') + 1)
  stamped = true
  redis.call('ZADD', CHANGES, version, '')
  gen = string.format('%d', version)
  redis.call('HSET', GEN, 'g', gen, 'n', 0, 'done', 0)
  said, spoken = {}, 0
  if not last then redis.call('HSET', GEN, 'born', now) end
  redis.call('UNLINK', FEED, LEAVING, LEFT)
  if wait >= 0 then say('reset', '` + allRooms + `', {}) end
end
gen = redis.call('HGET', GEN, 'g')
if not gen then regenerate() end

-- Forgets the users of a room without an entry: nobody knows who of them is there.
local function forget(users)
  if redis.call('UNLINK', users) > 0 then regenerate() end
end

local someleft -- whether LEFT has any; nil: it was not looked at

-- Notes that a user has left a room, for a while in which nobody is told: how is "n", or "d" for
-- one whose node has died.
local function depart(room, user, record, how)
  local id = room .. '\n' .. user
  redis.call('HSET', LEFT, id, how .. record)
  someleft = true
  redis.call('ZADD', LEAVING, now + wait, id)
end

-- Takes a user back who has left, and returns the record that the user had, and whether somebody
-- is listing members, who may have missed this one.
local function back(room, user)
  if someleft == nil then someleft = redis.call('EXISTS', LEFT) == 1 end
  if not someleft then return nil end
  local id = room .. '\n' .. user
  local had = redis.call('HGET', LEFT, id)
  if not had then return nil end
  redis.call('HDEL', LEFT, id)
  redis.call('ZREM', LEAVING, id)
  return had, now < tonumber(redis.call('HGET', GEN, 'listing') or '0')
end

-- Tells of those who have been away for long enough.
local function farewell()
  local rooms, order = {}, {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEAVING, '-inf', now, 'LIMIT', 0, ` + maxFarewells + `)) do
    local had = redis.call('HGET', LEFT, id)
    if not had then return regenerate() end
    redis.call('HDEL', LEFT, id)
    redis.call('ZREM', LEAVING, id)
    local room, user = string.match(id, '^([^\n]*)\n(.*)$')
    if not rooms[room] then
      rooms[room] = {}
      order[#order + 1] = room
    end
    table.insert(rooms[room], user .. '\t' .. had)
  end
  for _, room in ipairs(order) do say('left', room, rooms[room]) end
end

-- What is left when nobody has the room, or when keys of it are lost: then everybody who
-- has it is told, and writes it anew.
local function drop(room, users, peak, lost)
  if lost then regenerate() end
  redis.call('UNLINK', users)
  redis.call('HDEL', COUNTS, room)
  redis.call('ZREM', HEAT, room)
  kept[room], hot[room], changed[room] = nil, nil, stamp()
  remember(room, peak)
  known[room] = ''
end

-- Stores an entry after its room's users have become delta more. If they are others than
-- that, the room is dropped. The index of users' rooms has no users of its own, and nobody is
-- told of its changes.
local function save(room, e, users, delta, peak)
  local index = room == '` + indexRoom + `'
  local u = index and e.u + delta or redis.call('HLEN', users)
  e.p = math.max(e.p, peak, u)
  if u ~= e.u + delta or e.n < 1 then return drop(room, users, e.p, u ~= e.u + delta or u > 0) end
  if index then e.p = 0 end
  local s = string.format('%d %d %d %d %d', u, math.max(e.c, 0), e.p, e.g, e.n) .. (e.more or '')
  known[room] = s
  if s == e.text then return end
  kept[room] = s
  if index then return end
  if u ~= e.u or not e.text then hot[room] = u end
  changed[room] = stamp()
end

-- Gives a command all of a table: its fields and values, or the other way round.
local function all(command, key, t, turned)
  local args = {}
  for field, value in pairs(t) do
    args[#args + 1] = turned and value or field
    args[#args + 1] = turned and field or value
    if #args == 1000 then
      redis.call(command, key, unpack(args))
      args = {}
    end
  end
  if #args > 0 then redis.call(command, key, unpack(args)) end
end

-- Ends a script that may have changed rooms.
local function store()
  all('HSET', COUNTS, kept)
  all('ZADD', HEAT, hot, true)
  all('ZADD', CHANGES, changed, true)
  kept, hot, changed = {}, {}, {}
  while #said > 0 do
    local text = said
    said = {}
    redis.call('HSET', GEN, 'n', spoken)
    if redis.call('RPUSH', FEED, unpack(text)) > ` + maxFeed + ` then regenerate() end
  end
end
if #said > 0 then store() end

-- Reports whether a node may publish the feed: it does already, or nobody does.
local function feedable(node)
  local id, till = string.match(redis.call('HGET', GEN, 'owner') or '', '^(%S+) (%d+)$')
  return not id or id == node or tonumber(till) <= now
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
  -- Rooms of which only older versions have told, or a lost key.
  local rooms = redis.call('HLEN', COUNTS) - (redis.call('HGET', COUNTS, '` + indexRoom + `') and 1 or 0)
  if redis.call('ZCARD', HEAT) ~= rooms then
    redis.call('UNLINK', HEAT)
    local all = redis.call('HGETALL', COUNTS)
    for i = 1, #all, 2 do
      if all[i] ~= '` + indexRoom + `' then redis.call('ZADD', HEAT, string.match(all[i + 1], '^%d+') or 0, all[i]) end
    end
  end
  local n, done = redis.call('HGET', GEN, 'n') or 0, redis.call('HGET', GEN, 'done') or 0
  if redis.call('LLEN', FEED) ~= n - done or redis.call('ZCARD', LEAVING) ~= redis.call('HLEN', LEFT) then regenerate() end
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
