-- What changes claims. A claim is kept as JSON: by, agent, task, since, until.
-- WITH: clock, reader, death
-- FROM PYTHON: HELD

local function holds(text)
  local claim = object_in(text)
  if not claim or type(claim.by) ~= 'string' then return false end
  if claim['until'] and type(claim['until']) ~= 'number' then return false end
  if claim['until'] and claim['until'] <= now then return false end
  if claim.agent and is_dead(claim.by) then return false end
  if claim['until'] then return true end
  local owner, state = redis.call('HGET', KEY.record, 'agent'), redis.call('HGET', KEY.record, 'state')
  return owner == claim.by and HELD[state or ''] == true
end

local function known()
  return redis.call('HGET', KEY.claims, ARG.resource) or ''
end

-- Claim a resource, or claim it for longer.
-- KEYS: claims, record, agents, heartbeats, kept, broker
-- ARGV: resource, known, silence_ms, goodbye_ms, by, agent, task, ms
-- KEY.record is that of the task for which the resource was claimed so far.
-- Returns 'claimed', 'held' or 'changed', with the claim that there is now.
local function claim()
  local former = known()
  if former ~= ARG.known then return {'changed', former} end
  local mine_before = (object_in(former) or {}).by == ARG.by
  if not mine_before and former ~= '' and holds(former) then return {'held', former} end
  local mine = {by = ARG.by, agent = ARG.agent == '1', since = now}
  if ARG.task ~= '' then mine.task = ARG.task end
  if ARG.ms ~= '' then mine['until'] = now + tonumber(ARG.ms) end
  redis.call('HSET', KEY.claims, ARG.resource, cjson.encode(mine))
  return {'claimed', known()}
end

-- Whether a claim holds; if not, it is deleted.
-- KEYS: claims, record, agents, heartbeats, kept, broker
-- ARGV: resource, known, silence_ms, goodbye_ms
local function is_held()
  if known() ~= ARG.known or holds(ARG.known) then return 1 end
  redis.call('HDEL', KEY.claims, ARG.resource)
  return 0
end

-- KEYS: claims
-- ARGV: resource, by
local function release()
  local text = known()
  if text == '' then return {'free', ''} end
  local theirs = object_in(text)
  if theirs and theirs.by ~= ARG.by then return {'held', text} end
  redis.call('HDEL', KEY.claims, ARG.resource)
  return {'released', ''}
end
