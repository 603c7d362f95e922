package redispresence

// sweepLua: ARGV whether to reap, then in ms the claim, the lease, how long a peak and
// how long the mark of a dead incarnation is kept, and how long a leave waits; the node.
// Answers the incarnations to be reaped, and "" before them if the node is to publish the feed.
const sweepLua = head + `
local wait = tonumber(ARGV[6])
redis.call('HDEL', TICK, '') -- see tickLua; what is swept needs no memory
` + functions + `
local reap = bereave(ARGV[1] == '1', tonumber(ARGV[2]), true)
tidy(tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]))
farewell()
store()
if wait >= 0 and redis.call('LLEN', FEED) > 0 and feedable(ARGV[7]) then table.insert(reap, 1, '') end
return reap
`

// reapLua: KEYS 14 the incarnation's index, then of each piece the user hash of its room and the
// piece: a shard of the incarnation's share, or the set of an older version. ARGV the
// incarnation, whether its own node asks (which needs no lapsed lease), the claim, how long to
// keep the mark (both ms), how many users to take out, how many rooms the incarnation has and up
// to which version, if nobody else knows, whether its index is to be believed, how long a leave
// waits, the number of pieces, and of each the room, "m" or "s", and whether it is the room's
// last. Answers how many of the pieces are done, whether the incarnation is gone, still going,
// not dead at all or in doubt, as its index has lost rooms, and up to which version it may have
// written.
const reapLua = head + `
local wait = tonumber(ARGV[9])
redis.call('HDEL', TICK, '') -- see tickLua; to reap makes room
` + functions + `
local inc, own, claim, keep, left = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local index = KEYS[14]
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
for r = 0, tonumber(ARGV[10]) - 1 do
  if left <= 0 then break end
  local room, set, last = ARGV[11 + 3 * r], ARGV[12 + 3 * r] == 's', ARGV[13 + 3 * r] == '1'
  local users, piece = KEYS[15 + 2 * r], KEYS[16 + 2 * r]
  local e, mine = entry(room), written(index, room)
  if e and mine and mine.g == e.g then
    local out, step, more = nil, 1, false
    if set then
      out = redis.call('SPOP', piece, left)
      more = redis.call('EXISTS', piece) == 1
    else
      out, step = redis.call('HGETALL', piece), 2
      redis.call('UNLINK', piece)
    end
    local counted, delta, broken, n = room ~= '` + indexRoom + `', 0, false, 0
    for i = 1, #out, step do
      n = n + 1
      local rest = counted and redis.call('HINCRBY', users, out[i], -1) or 0
      if rest <= 0 then
        if counted then
          redis.call('HDEL', users, out[i])
          if wait >= 0 then depart(room, out[i], set and '000000 0 0 v ' or out[i + 1], own and 'n' or 'd') end
        end
        delta = delta - 1
        if rest < 0 then broken = true end
      end
    end
    left = left - n
    e.c = e.c - mine.c
    local rest = mine.u - n
    if rest < 0 or last and not more and rest ~= 0 then broken = true end
    if broken or last and not more then
      redis.call('UNLINK', piece)
      redis.call('HDEL', index, room)
      e.n = e.n - 1
    else
      redis.call('HSET', index, room, string.format('0 %d %d%s', mine.g, rest, mine.more))
    end
    if broken then drop(room, users, e.p, true) else save(room, e, users, delta, 0) end
    if broken or not more then done = done + 1 end
  else
    if not e then forget(users) end
    redis.call('UNLINK', piece)
    if last then redis.call('HDEL', index, room) end
    done = done + 1
  end
end
store()
local rest = redis.call('HLEN', index)
if rest > 0 then
  redis.call('HSET', TICK, inc, string.format('dead %d %d', rest, upto))
  return {done, 'going', upto}
end
redis.call('HSET', TICK, inc, 'gone')
redis.call('ZADD', GRAVE, now + keep, inc)
return {done, 'gone', upto}
`

// renewLua: KEYS 14 on of each room the user hash and the pieces that a small share of an
// incarnation may have, which has lost its index: its set and its first shard. ARGV up to which
// version the incarnation may have written, how long a leave waits, the rooms. Drops the rooms whose generation is not after that, for nobody knows which of them the
// incarnation was in.
const renewLua = head + `
local wait = tonumber(ARGV[2])
redis.call('HDEL', TICK, '') -- see tickLua
` + functions + `
local upto = tonumber(ARGV[1])
for r = 1, #ARGV - 2 do
  local room, users = ARGV[2 + r], KEYS[11 + 3 * r]
  redis.call('UNLINK', KEYS[12 + 3 * r], KEYS[13 + 3 * r])
  local e = entry(room)
  if e and e.g <= upto then drop(room, users, e.p, true) end
end
store()
return {}
`
