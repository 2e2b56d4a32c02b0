-- What changes and searches the agent registry.
-- WITH: clock, holder
-- FROM PYTHON: CHANGES_KEPT
--
-- The index holds, for each agent, a member for its role, its kind and each of its skills: "skill python developer-1".
-- The traits are what a search needs of an entry, in words that are read faster than JSON: what keeps it from work or
-- its state, then role, kind and skills: "ready developer shell python go". Both are written with the entry and by
-- nothing else; who searches believes the traits alone.

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

local function announce()
  redis.call('XADD', KEY.changes, 'MAXLEN', '~', CHANGES_KEPT, '*', 'agent', ARG.id)
end

-- Of two accounts of an agent's ends, the one of more ends is the later.
local function recall_performance()
  if ends_in(ARG.ends) > ends_in(redis.call('HGET', KEY.performance, ARG.id)) then
    redis.call('HSET', KEY.performance, ARG.id, ARG.ends)
  end
end

local function enter()
  local former = redis.call('HGET', KEY.traits, ARG.id)
  if former ~= ARG.own_traits then
    if former then redis.call('ZREM', KEY.index, unpack(places_of(former, ARG.id))) end
    for _, place in ipairs(places_of(ARG.own_traits, ARG.id)) do redis.call('ZADD', KEY.index, 0, place) end
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
  local entry = redis.call('HGET', KEY.entries, ARG.id)
  local silent_ms = now - tonumber(redis.call('ZSCORE', KEY.heartbeats, ARG.id) or '0')
  if is_anothers(entry, silent_ms) then return {0, entry, silent_ms} end
  local latest = tonumber(redis.call('HGET', KEY.incarnations, ARG.id) or '0')
  local incarnation = math.max(latest + 1, tonumber(ARG.at_least))
  redis.call('HSET', KEY.incarnations, ARG.id, incarnation)
  enter()
  redis.call('ZADD', KEY.heartbeats, now, ARG.id)
  return {incarnation, redis.call('HGET', KEY.performance, ARG.id) or '', 0}
end

-- Note that an agent lives, and how. Nothing waits for an agent that goes on being idle, so its queue is not looked at.
-- KEYS: entries, heartbeats, incarnations, index, changes, traits, performance, demanded, loads, *own_queue
-- ARGV: id, entry, own_traits, ends, incarnation, offline_ms, tasks
-- Returns how many queues are demanded, or -1 if a later incarnation was given out.
local function beat()
  local latest, mine = tonumber(redis.call('HGET', KEY.incarnations, ARG.id) or '0'), tonumber(ARG.incarnation)
  if latest > mine then return -1 end
  if latest < mine then redis.call('HSET', KEY.incarnations, ARG.id, mine) end
  local heard = tonumber(redis.call('ZSCORE', KEY.heartbeats, ARG.id) or '0')
  local changed = redis.call('HGET', KEY.entries, ARG.id) ~= ARG.entry
  if changed then
    enter()
  elseif now - heard >= tonumber(ARG.offline_ms) then
    announce()
  end
  redis.call('ZADD', KEY.heartbeats, now, ARG.id)
  if changed or ARG.tasks ~= '0' then
    local load = tonumber(ARG.tasks)
    for i = 1, #KEY.own_queue do load = load + redis.call('LLEN', KEY.own_queue[i]) end
    redis.call('HSET', KEY.loads, ARG.id, load)
  end
  return redis.call('SCARD', KEY.demanded)
end

-- Strike an agent off. Its incarnations stay: the next one of its id is another one.
-- KEYS: entries, heartbeats, index, changes, traits, performance, loads, kept
-- ARGV: id
local function remove()
  local traits = redis.call('HGET', KEY.traits, ARG.id)
  if traits then redis.call('ZREM', KEY.index, unpack(places_of(traits, ARG.id))) end
  redis.call('HDEL', KEY.entries, ARG.id)
  redis.call('HDEL', KEY.traits, ARG.id)
  redis.call('HDEL', KEY.performance, ARG.id)
  redis.call('HDEL', KEY.loads, ARG.id)
  redis.call('ZREM', KEY.heartbeats, ARG.id)
  redis.call('ZREM', KEY.kept, ARG.id)
  if traits then announce() end
end

-- Note that the workers of these agents are started again should they die.
-- KEYS: kept
-- ARGV: *ids
local function promise()
  for _, id in ipairs(ARG.ids) do redis.call('ZADD', KEY.kept, now, id) end
end

-- KEYS: broker
-- Returns the time, and for how long the broker has been watched.
local function clock()
  return {now, now - tonumber(redis.call('HGET', KEY.broker, 'watch') or now)}
end

-- The agents of the shortest of these ways through the index, each a list of places; of no way, all that are heard.
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

-- What is needed to rank the agents in question, whose number the index keeps small.
-- KEYS: heartbeats, index, traits, performance, loads, soft_pins, holds
-- ARGV: offline_ms, ways
-- Returns the pins that hold now, the holds, then of each agent that is heard its id, traits, load and performance in lines.
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

-- Every skill that some agent was entered with: from one to the next, whichever agent has it.
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

-- Have a task wait for an agent, if that is free and no other waits for it.
-- KEYS: soft_pins, loads
-- ARGV: agent, task, ms
local function pin()
  if tonumber(redis.call('HGET', KEY.loads, ARG.agent) or '0') > 0 then return 0 end
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', KEY.soft_pins, now, '+inf')) do
    if string.match(other, '^%S+') == ARG.agent then return 0 end
  end
  redis.call('ZADD', KEY.soft_pins, now + tonumber(ARG.ms), ARG.agent .. ' ' .. ARG.task)
  return 1
end

-- The pins whose time is over; they are remembered for a while longer.
-- KEYS: soft_pins
-- ARGV: remembered_ms
local function due_pins()
  redis.call('ZREMRANGEBYSCORE', KEY.soft_pins, '-inf', now - tonumber(ARG.remembered_ms))
  return redis.call('ZRANGEBYSCORE', KEY.soft_pins, '-inf', now)
end
