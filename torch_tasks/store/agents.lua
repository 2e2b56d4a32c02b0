-- What changes and searches the agent registry.
-- WITH: clock, reader, death, holder
-- FROM PYTHON: CHANGES_KEPT
--
-- The index holds, for each agent, a member for its role, its kind and each of its skills: "skill python developer-1".
-- The traits are what a search needs of an entry, in words that are read faster than JSON: what keeps it from work or
-- its state, then role, kind and skills: "ready developer shell python go". Both are written with the entry only; a
-- search trusts the traits alone.

-- How many tasks of an agent succeeded and failed.
local function ends_in(performance)
  local succeeded, failed = string.match(performance or '', '^%D+(%d+)%D+(%d+)')
  return tonumber(succeeded or '0') + tonumber(failed or '0')
end

local function places_of(traits, id)
  local words, places = {}, {}
  for word in string.gmatch(traits, '%S+') do words[#words + 1] = word end
  for i = 2, #words do
    places[#places + 1] = (i == 2 and 'role ' or i == 3 and 'kind ' or 'skill ') .. words[i] .. ' ' .. id
  end
  return places
end

local function leave_index(traits)
  for _, place in ipairs(places_of(traits or '', ARG.id)) do redis.call('ZREM', KEY.index, place) end
end

local function announce()
  redis.call('XADD', KEY.changes, 'MAXLEN', '~', CHANGES_KEPT, '*', 'agent', ARG.id)
end

-- Keep the agent's own count of ended tasks if it is the higher one, and so the later.
local function recall_performance()
  if ends_in(ARG.ends) > ends_in(redis.call('HGET', KEY.performance, ARG.id)) then
    redis.call('HSET', KEY.performance, ARG.id, ARG.ends)
  end
end

-- The traits without their first word, which is no place in the index.
local function lasting(traits)
  return traits and string.match(traits, ' .*')
end

local function enter()
  local former = redis.call('HGET', KEY.traits, ARG.id)
  if former ~= ARG.own_traits then
    if not former or lasting(former) ~= lasting(ARG.own_traits) then
      leave_index(former)
      for _, place in ipairs(places_of(ARG.own_traits, ARG.id)) do redis.call('ZADD', KEY.index, 0, place) end
    end
    redis.call('HSET', KEY.traits, ARG.id, ARG.own_traits)
  end
  redis.call('HSET', KEY.entries, ARG.id, ARG.entry)
  recall_performance()
  announce()
end

-- Enter an agent under a new incarnation, unless another living process hosts it.
-- KEYS: entries, heartbeats, incarnations, index, changes, traits, performance
-- ARGV: id, entry, own_traits, ends, host, pid, offline_ms, at_least, holder_is_gone
-- Returns the incarnation and the performance, or 0, the other's entry and its silence in ms.
local function register()
  local holder = other_holder(ARG.id)
  if holder then return {0, unpack(holder)} end
  local latest = tonumber(redis.call('HGET', KEY.incarnations, ARG.id) or '') or 0
  local incarnation = math.max(latest + 1, tonumber(ARG.at_least))
  redis.call('HSET', KEY.incarnations, ARG.id, incarnation)
  enter()
  redis.call('ZADD', KEY.heartbeats, now, ARG.id)
  return {incarnation, redis.call('HGET', KEY.performance, ARG.id) or '', 0}
end

-- Note that an agent lives, and its state. The queue of an agent that stays idle is empty, so it is not read.
-- KEYS: entries, heartbeats, incarnations, index, changes, traits, performance, demanded, loads, *own_queue
-- ARGV: id, entry, own_traits, ends, incarnation, offline_ms, tasks
-- Returns how many queues are demanded, or -1 if a later incarnation was registered.
local function beat()
  if has_successor(ARG.id) then return -1 end
  local changed = redis.call('HGET', KEY.entries, ARG.id) ~= ARG.entry
  if changed then
    enter()
  elseif now - tonumber(redis.call('ZSCORE', KEY.heartbeats, ARG.id) or '0') >= tonumber(ARG.offline_ms) then
    announce()
  end
  redis.call('ZADD', KEY.heartbeats, now, ARG.id)
  if changed or ARG.tasks ~= '0' then
    local load = tonumber(ARG.tasks)
    if redis.call('EXISTS', unpack(KEY.own_queue)) > 0 then
      for _, list_key in ipairs(KEY.own_queue) do load = load + redis.call('LLEN', list_key) end
    end
    redis.call('HSET', KEY.loads, ARG.id, load)
  end
  return redis.call('SCARD', KEY.demanded)
end

-- Remove an agent. Its incarnations stay: the next agent of its id gets a later one.
-- KEYS: entries, heartbeats, index, changes, traits, performance, loads, kept
-- ARGV: id
local function remove()
  local traits = redis.call('HGET', KEY.traits, ARG.id)
  leave_index(traits)
  for _, hash_key in ipairs({KEY.entries, KEY.traits, KEY.performance, KEY.loads}) do
    redis.call('HDEL', hash_key, ARG.id)
  end
  for _, set_key in ipairs({KEY.heartbeats, KEY.kept}) do redis.call('ZREM', set_key, ARG.id) end
  if traits then announce() end
end

-- Note that the workers of these agents are started again if they die.
-- KEYS: kept
-- ARGV: *ids
local function promise()
  for _, id in ipairs(ARG.ids) do redis.call('ZADD', KEY.kept, now, id) end
end

-- For how many ms the broker has been watched.
-- KEYS: broker
local function watched_ms()
  return now - tonumber(redis.call('HGET', KEY.broker, 'watch') or now)
end

-- The dead agents.
-- KEYS: agents, heartbeats, kept, broker
-- ARGV: silence_ms, goodbye_ms
local function dead()
  local ids = {}
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEY.heartbeats, '-inf', now - tonumber(ARG.silence_ms))) do
    if is_dead(id) then ids[#ids + 1] = id end
  end
  return ids
end

-- The agents of the shortest of these ways through the index, each a list of places; without a way, all online ones.
local function ids_by(ways, alive_since)
  local shortest, least
  for _, way in ipairs(ways) do
    local length = 0
    for _, place in ipairs(way) do
      length = length + redis.call('ZLEXCOUNT', KEY.index, '[' .. place .. ' ', '(' .. place .. '!')
    end
    if not least or length < least then shortest, least = way, length end
  end
  if not shortest then return redis.call('ZRANGEBYSCORE', KEY.heartbeats, alive_since, '+inf') end
  local ids, seen = {}, {}
  for _, place in ipairs(shortest) do
    for _, member in ipairs(redis.call('ZRANGEBYLEX', KEY.index, '[' .. place .. ' ', '(' .. place .. '!')) do
      local id = string.sub(member, #place + 2)
      if not seen[id] then ids[#ids + 1] = id end
      seen[id] = true
    end
  end
  return ids
end

-- What is needed to rank the agents in question.
-- KEYS: heartbeats, index, traits, performance, loads, soft_pins, holds
-- ARGV: offline_ms, ways
-- Returns the present pins, the holds, and the id, traits, load and performance of each online agent, in lines.
local function candidates()
  local alive_since = now - tonumber(ARG.offline_ms) + 1
  local ids = ids_by(cjson.decode(ARG.ways), alive_since)
  local rows = {}
  for start = 1, #ids, 1000 do
    local some = {unpack(ids, start, math.min(start + 999, #ids))}
    local beats = redis.call('ZMSCORE', KEY.heartbeats, unpack(some))
    local traits = redis.call('HMGET', KEY.traits, unpack(some))
    local loads = redis.call('HMGET', KEY.loads, unpack(some))
    local ends = redis.call('HMGET', KEY.performance, unpack(some))
    for i, id in ipairs(some) do
      if traits[i] and beats[i] and tonumber(beats[i]) >= alive_since then
        rows[#rows + 1] = table.concat({id, traits[i], loads[i] or '0', ends[i] or ''}, '\n')
      end
    end
  end
  return {redis.call('ZRANGEBYSCORE', KEY.soft_pins, now, '+inf'), redis.call('HGETALL', KEY.holds), rows}
end

-- Every skill of a registered agent, jumping from one to the next.
-- KEYS: index
local function skills()
  local found, from = {}, '[skill '
  while true do
    local member = redis.call('ZRANGEBYLEX', KEY.index, from, '(skill!', 'LIMIT', 0, 1)[1]
    if not member then return found end
    local skill = string.match(member, '^skill (%S+)')
    found[#found + 1] = skill
    from = '[skill ' .. skill .. '!'
  end
end

-- Have a task wait for an agent that is free and that no other task waits for.
-- KEYS: soft_pins, loads
-- ARGV: agent, task, ms
local function pin()
  if (tonumber(redis.call('HGET', KEY.loads, ARG.agent) or '') or 0) > 0 then return 0 end
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEY.soft_pins, now, '+inf')) do
    if string.match(other, '^%S+') == ARG.agent then return 0 end
  end
  redis.call('ZADD', KEY.soft_pins, now + tonumber(ARG.ms), ARG.agent .. ' ' .. ARG.task)
  return 1
end

-- The pins whose time is over; they are kept for a while longer.
-- KEYS: soft_pins
-- ARGV: remembered_ms
local function due_pins()
  redis.call('ZREMRANGEBYSCORE', KEY.soft_pins, '-inf', now - tonumber(ARG.remembered_ms))
  return redis.call('ZRANGEBYSCORE', KEY.soft_pins, '-inf', now)
end
