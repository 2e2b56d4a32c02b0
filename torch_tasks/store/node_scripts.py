"""The scripts that change the node registry and the list of spawned agents: what they check and write is one step."""

from __future__ import annotations

from torch_tasks.broker.connection import NOW
from torch_tasks.store.agent_scripts import refusal

# KEYS: nodes, heartbeats, incarnations. ARGV: name, entry, offline after (ms), host, pid, '1' if the caller knows that
# the process the entry names is gone.
REGISTER = (
    NOW
    + refusal(6)
    + """
local incarnation = redis.call('HINCRBY', KEYS[3], ARGV[1], 1)
local mine = string.gsub(ARGV[2], '"incarnation":0', string.format('"incarnation":%d', incarnation), 1)
redis.call('HSET', KEYS[1], ARGV[1], mine)
redis.call('ZADD', KEYS[2], now, ARGV[1])
return {incarnation, '', 0}
"""
)

# KEYS: nodes, heartbeats, incarnations, drained nodes. ARGV: name, incarnation, entry. Returns whether it is drained,
# or -1 to one who was succeeded.
BEAT = (
    NOW
    + """
local latest = tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or '0')
if latest > tonumber(ARGV[2]) then return -1 end
if latest < tonumber(ARGV[2]) then redis.call('HSET', KEYS[3], ARGV[1], ARGV[2]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('ZADD', KEYS[2], now, ARGV[1])
return redis.call('SISMEMBER', KEYS[4], ARGV[1])
"""
)

# Finds a place for an agent and keeps it, unless a limit does not let it be. KEYS: spawned agents, how far they are,
# agents, their heartbeats, nodes, their heartbeats, drained nodes. ARGV: request as JSON, offline after (ms), limits as
# JSON: total, role, parent, pool, memory; for how long a failure is remembered (ms).
# An agent counts while its place is kept, while it is heard of, or while a living node worker keeps it.
RESERVE = (
    NOW
    + """
local asked, limits = cjson.decode(ARGV[1]), cjson.decode(ARGV[3])
local alive_since, old = now - tonumber(ARGV[2]), now - tonumber(ARGV[4])
local function present(value) return value ~= nil and value ~= cjson.null end
local function all(flat, use) for i = 1, #flat, 2 do use(flat[i], flat[i + 1]) end end

local states = {}
all(redis.call('HGETALL', KEYS[2]), function(id, text) states[id] = cjson.decode(text) end)
local spawned, known = {}, nil
all(redis.call('HGETALL', KEYS[1]), function(id, text)
  local one, is = cjson.decode(text), states[id]
  if (is.state == 'failed' or is.state == 'lost') and is.at < old then
    redis.call('HDEL', KEYS[1], id)
    redis.call('HDEL', KEYS[2], id)
  else
    spawned[id] = one
    if one.request.id == asked.id then known = id end
  end
end)
if known then return {'known', known} end

local nodes, beats, drained = {}, {}, {}
all(redis.call('ZRANGE', KEYS[6], 0, -1, 'WITHSCORES'), function(name, beat) beats[name] = tonumber(beat) end)
for _, name in ipairs(redis.call('SMEMBERS', KEYS[7])) do drained[name] = true end
all(redis.call('HGETALL', KEYS[5]), function(name, text)
  local node = cjson.decode(text)
  node.alive = not node.left and (beats[name] or 0) >= alive_since
  node.count, node.promised = 0, 0
  nodes[name] = node
end)

local taken, there = {}, {}
local heard = {}
all(redis.call('ZRANGEBYSCORE', KEYS[4], alive_since, '+inf', 'WITHSCORES'), function(id) heard[id] = true end)
all(redis.call('HGETALL', KEYS[3]), function(id, text)
  taken[id] = true
  if heard[id] then
    local one = cjson.decode(text)
    if not one.left then there[id] = {role = one.role, node = one.node, parent = one.parent} end
  end
end)
for name, node in pairs(nodes) do
  for _, one in ipairs(node.agents) do
    taken[one.agent_id] = true
    if node.alive and one.state ~= 'quarantined' and one.state ~= 'retired' and not there[one.agent_id] then
      there[one.agent_id] = {role = one.role, node = name, parent = one.parent}
    end
  end
end
for id, one in pairs(spawned) do
  local state = states[id].state
  if state ~= 'failed' then taken[id] = true end
  if state == 'reserved' and not there[id] then
    there[id] = {role = one.request.role, node = one.node, parent = one.request.parent}
    if nodes[one.node] then nodes[one.node].promised = nodes[one.node].promised + 1 end
  end
  if there[id] then there[id].pool = one.request.pool end
end

local total, of_role, of_parent, of_pool = 0, 0, 0, 0
for _, one in pairs(there) do
  total = total + 1
  if one.role == asked.role then of_role = of_role + 1 end
  if present(asked.parent) and one.parent == asked.parent then of_parent = of_parent + 1 end
  if present(asked.pool) and one.pool == asked.pool then of_pool = of_pool + 1 end
  if nodes[one.node] then nodes[one.node].count = nodes[one.node].count + 1 end
end
if present(asked.agent_id) and taken[asked.agent_id] then return {'refused', 'id', asked.agent_id, '', ''} end
if present(asked.pool) and limits.pool and of_pool >= limits.pool then
  return {'refused', 'pool', asked.pool, of_pool, limits.pool}
end
if total >= limits.total then return {'refused', 'total', '', total, limits.total} end
if of_role >= limits.role then return {'refused', 'role', asked.role, of_role, limits.role} end
if present(asked.parent) and of_parent >= limits.parent then
  return {'refused', 'parent', asked.parent, of_parent, limits.parent}
end

local function why_not(name, node)
  if present(asked.node) and asked.node ~= name then return 'other' end
  if not node.alive then return 'offline' end
  if drained[name] then return 'drained' end
  local has = {}
  for _, label in ipairs(node.labels) do has[label] = true end
  for _, label in ipairs(asked.labels) do if not has[label] then return 'lacks the label ' .. label end end
  local limit = node.capacity.agents_limit
  if node.count >= limit then
    return string.format('has %d agents, TORCH_AGENTS_PER_NODE is %d there', node.count, limit)
  end
  node.free = node.capacity.memory_free - node.promised * limits.memory
  if node.free < limits.memory then
    return string.format('has %d MB of memory free, TORCH_AGENT_MEMORY_BYTES asks for %d MB',
      math.floor(node.free / 1048576), math.floor(limits.memory / 1048576))
  end
end
-- What is scarcest on a node tells how much room it has; in tenths, for a machine's load is never quite the same.
local function room(node)
  local memory = node.free / node.capacity.memory_total
  local processor = 1 - node.capacity.load / node.capacity.cpus
  local places = 1 - node.count / node.capacity.agents_limit
  return math.floor(10 * math.max(0, math.min(memory, processor, places)))
end
local best, reasons = nil, {}
for name, node in pairs(nodes) do
  local reason = why_not(name, node)
  if reason then
    if reason ~= 'other' then reasons[#reasons + 1] = name .. ' ' .. reason end
  else
    node.room = room(node)
    local better = not best or node.room > nodes[best].room
    if best and node.room == nodes[best].room then
      better = node.count < nodes[best].count or (node.count == nodes[best].count and name < best)
    end
    if better then best = name end
  end
end
if not best then
  table.sort(reasons)
  return {'refused', 'nowhere', present(asked.node) and asked.node or '', table.concat(reasons, '; '), ''}
end

local id = asked.agent_id
if not present(id) then
  local number = 1
  while taken[asked.role .. '-' .. number] do number = number + 1 end
  id = asked.role .. '-' .. number
end
redis.call('HSET', KEYS[1], id, string.format('{"request":%s,"agent_id":"%s","node":"%s","at":%.0f}',
  ARGV[1], id, best, now))
redis.call('HSET', KEYS[2], id, cjson.encode({state = 'reserved', reason = '', at = now}))
return {'new', id}
"""
)

# KEYS: spawned agents, how far they are. ARGV: id, request, states that may be left, next state or '' to forget
# it, reason. Returns the state that it has now.
SETTLE = (
    NOW
    + """
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text then return 'missing' end
if cjson.decode(text).request.id ~= ARGV[2] then return 'other' end
local is = cjson.decode(redis.call('HGET', KEYS[2], ARGV[1]))
if not string.find(ARGV[3], ' ' .. is.state .. ' ', 1, true) then return is.state end
if ARGV[4] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
  return 'forgotten'
end
redis.call('HSET', KEYS[2], ARGV[1], cjson.encode({state = ARGV[4], reason = ARGV[5], at = now}))
return ARGV[4]
"""
)

# KEYS: spawned agents, how far they are. ARGV: id, entry, state as JSON. What the broker knows stays.
RESTORE = """
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return 1
"""
