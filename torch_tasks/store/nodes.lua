-- What changes the node registry and the list of spawned agents.
-- WITH: clock, reader, holder
-- FROM PYTHON: TRANSITIONS

-- Enter a node under a new incarnation, unless another living node worker has its name.
-- KEYS: entries, heartbeats, incarnations
-- ARGV: name, entry, host, pid, offline_ms, holder_is_gone
-- Returns the incarnation, or 0, the other's entry and its silence in ms.
local function register()
  local holder = other_holder(ARG.name)
  if holder then return {0, unpack(holder)} end
  redis.call('HSET', KEY.entries, ARG.name, ARG.entry)
  redis.call('ZADD', KEY.heartbeats, now, ARG.name)
  local incarnation = (tonumber(redis.call('HGET', KEY.incarnations, ARG.name) or '') or 0) + 1
  redis.call('HSET', KEY.incarnations, ARG.name, incarnation)
  return {incarnation, '', 0}
end

-- Note that a node lives, and its state.
-- KEYS: entries, heartbeats, incarnations, drained
-- ARGV: name, entry, incarnation
-- Returns whether it is drained, or -1 if a later incarnation was registered.
local function beat()
  if has_successor(ARG.name) then return -1 end
  redis.call('HSET', KEY.entries, ARG.name, ARG.entry)
  redis.call('ZADD', KEY.heartbeats, now, ARG.name)
  return redis.call('SISMEMBER', KEY.drained, ARG.name)
end

local function enter(id, request, state, reason)
  redis.call('HSET', KEY.states, id, cjson.encode({request = request, state = state, reason = reason, at = now}))
  redis.call('INCR', KEY.revision)
end

local function forget(id)
  redis.call('HDEL', KEY.spawned, id)
  redis.call('HDEL', KEY.states, id)
  redis.call('INCR', KEY.revision)
end

-- Keep the place that was chosen for an agent, if the list is as it was when it was read and the id is still free.
-- KEYS: spawned, states, revision, agents
-- ARGV: revision_read, id, request, entry, *forgotten
local function reserve()
  if (redis.call('GET', KEY.revision) or '') ~= ARG.revision_read then return 0 end
  if redis.call('HEXISTS', KEY.agents, ARG.id) == 1 then return 0 end
  for _, id in ipairs(ARG.forgotten) do forget(id) end
  redis.call('HSET', KEY.spawned, ARG.id, ARG.entry)
  enter(ARG.id, ARG.request, 'reserved', '')
  return 1
end

-- Note the state of a spawned agent; with no state, forget it.
-- KEYS: spawned, states, revision
-- ARGV: id, request, state, reason, *only_from
-- Returns the state that it has now, 'missing', 'other' or 'forgotten'.
local function settle()
  local text = redis.call('HGET', KEY.states, ARG.id)
  if not text then return 'missing' end
  local known, allowed = object_in(text), false
  if not known or not TRANSITIONS[known.state] then return 'missing' end
  if known.request ~= ARG.request then return 'other' end
  for _, state in ipairs(ARG.only_from) do allowed = allowed or state == known.state end
  if not allowed then return known.state end
  if ARG.state == '' then
    forget(ARG.id)
    return 'forgotten'
  end
  if not TRANSITIONS[known.state][ARG.state] then return known.state end
  enter(ARG.id, ARG.request, ARG.state, ARG.reason)
  return ARG.state
end

-- Put a spawned agent back, unless the broker knows one of its id.
-- KEYS: spawned, states, revision
-- ARGV: id, entry, state
local function restore()
  if redis.call('HSETNX', KEY.spawned, ARG.id, ARG.entry) == 0 then return 0 end
  redis.call('HSET', KEY.states, ARG.id, ARG.state)
  redis.call('INCR', KEY.revision)
  return 1
end
