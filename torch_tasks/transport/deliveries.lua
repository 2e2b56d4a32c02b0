-- The messages of one broker, and every step that moves one.
--
-- A message is written to its new place before it leaves the old one: a script that breaks off loses nothing.
-- WITH: clock, bell
-- FROM PYTHON: BELL_LENGTH, BELL_MS, FIRST_FINDER_MS

-- The delivery ends; whether there was one.
local function drop(tag)
  redis.call('ZREM', KEY.leases, tag)
  return redis.call('HDEL', KEY.deliveries, tag)
end

-- Whether the lease of the delivery still runs.
local function is_leased(tag)
  local ends = tonumber(redis.call('ZSCORE', KEY.leases, tag))
  return ends and ends > now
end

-- What is parked has no holder.
local function is_parked(tag)
  return string.sub(tag, 1, 7) == 'parked:'
end

-- How often a message was lost with its holder, and the message without that.
local function losses_of(message)
  local losses, rest = string.match(message, '^{"torch%-deliveries":(%d+),(.*)$')
  return tonumber(losses or '0'), rest and '{' .. rest or message
end

-- A message joins the end of a list.
-- KEYS: list, bell
-- ARGV: message
local function put()
  redis.call('LPUSH', KEY.list, ARG.message)
  ring()
end

-- Have a message that waits in one list wait in another, in front, as it is to lie there.
-- KEYS: list, target, bell
-- ARGV: message, becomes
local function forward()
  if redis.call('LREM', KEY.list, -1, ARG.message) == 0 then return 0 end
  redis.call('RPUSH', KEY.target, ARG.becomes)
  ring()
  return 1
end

-- Have a message that waits be as it is to lie there, in its place.
-- KEYS: list
-- ARGV: message, becomes
local function replace()
  local place = redis.call('LPOS', KEY.list, ARG.message)
  if not place then return 0 end
  redis.call('LSET', KEY.list, place, ARG.becomes)
  return 1
end

-- Whether this is the message of a task.
local function is_of(message, id)
  if not string.find(message, '"' .. id .. '"', 1, true) then return false end
  local is_json, fields = pcall(cjson.decode, message)
  local headers = is_json and type(fields) == 'table' and fields.headers
  return type(headers) == 'table' and headers.id == id
end

-- Set the message of a task aside that waits in one of these lists; whether it was there.
-- KEYS: set_aside, *lists
-- ARGV: id
local function withdraw()
  for _, list_key in ipairs(KEY.lists) do
    for start = 0, redis.call('LLEN', list_key) - 1, 500 do
      for _, message in ipairs(redis.call('LRANGE', list_key, start, start + 499)) do
        if is_of(message, ARG.id) then
          redis.call('HSET', KEY.set_aside, ARG.id, message)
          redis.call('LREM', list_key, 1, message)
          return 1
        end
      end
    end
  end
  return 0
end

-- The delivery is done with.
-- KEYS: leases, deliveries
-- ARGV: tag
local function settle()
  return drop(ARG.tag)
end

-- Put a delivery, or another message in its place, in front of a list.
-- KEYS: leases, deliveries, list, bell
-- ARGV: tag, only_ended, limit, becomes
-- The limit is the number of losses at which a message is poison; with 0, it was not lost. What is parked never is.
-- Returns 'gone', 'held', 'back', or 'poison': then the delivery is left as it is.
local function put_back()
  local message, limit = redis.call('HGET', KEY.deliveries, ARG.tag), tonumber(ARG.limit)
  if not message then
    drop(ARG.tag)
    return 'gone'
  end
  if ARG.only_ended == '1' and is_leased(ARG.tag) then return 'held' end
  if limit > 0 and not is_parked(ARG.tag) then
    local losses, rest = losses_of(message)
    if losses + 1 >= limit then return 'poison' end
    message = string.format('{"torch-deliveries":%d,', losses + 1) .. string.sub(rest, 2)
  end
  redis.call('RPUSH', KEY.list, ARG.becomes ~= '' and ARG.becomes or message)
  drop(ARG.tag)
  ring()
  return 'back'
end

-- Have the message of a delivery, or another in its place, wait under another tag.
-- KEYS: leases, deliveries
-- ARGV: tag, waits_as, ms, message
local function park()
  local message = redis.call('HGET', KEY.deliveries, ARG.tag)
  if not message then return 0 end
  redis.call('HSET', KEY.deliveries, ARG.waits_as, ARG.message ~= '' and ARG.message or message)
  redis.call('ZADD', KEY.leases, now + tonumber(ARG.ms), ARG.waits_as)
  drop(ARG.tag)
  return 1
end

-- A delivery goes to the dead letters, with a refusal if it could not be read.
-- KEYS: leases, deliveries, dead_letters, refusals
-- ARGV: tag, id, only_ended, refusal
local function bury()
  local message = redis.call('HGET', KEY.deliveries, ARG.tag)
  if not message or (ARG.only_ended == '1' and is_leased(ARG.tag)) then return 0 end
  redis.call('HSET', KEY.dead_letters, ARG.id, message)
  if ARG.refusal ~= '' then redis.call('HSET', KEY.refusals, ARG.id, ARG.refusal) end
  drop(ARG.tag)
  return 1
end

-- A dead letter joins the end of a list, as it is to lie there; its losses are forgotten.
-- KEYS: dead_letters, refusals, list, bell
-- ARGV: id, becomes
local function replay()
  if redis.call('HEXISTS', KEY.dead_letters, ARG.id) == 0 then return 0 end
  local _, unlost = losses_of(ARG.becomes)
  redis.call('LPUSH', KEY.list, unlost)
  redis.call('HDEL', KEY.dead_letters, ARG.id)
  redis.call('HDEL', KEY.refusals, ARG.id)
  ring()
  return 1
end

-- Hold these for another lease from now.
-- KEYS: leases, broker
-- ARGV: opening, lease_ms, *tags
-- Returns 'closed' unless this opening of the gate is in force, or '' and the tags that are gone.
local function renew()
  local server, since = unpack(redis.call('HMGET', KEY.broker, 'server', 'since'))
  if (server or '') .. '@' .. (since or '') ~= ARG.opening then return {'closed'} end
  local answer = {''}
  for _, tag in ipairs(ARG.tags) do
    if tonumber(redis.call('ZSCORE', KEY.leases, tag)) then
      redis.call('ZADD', KEY.leases, now + tonumber(ARG.lease_ms), tag)
    else
      answer[#answer + 1] = tag
    end
  end
  return answer
end

-- Look for leases that have ended. It asks for the time only if there are any: an idle fleet does nothing else so often.
-- KEYS: leases, broker
-- ARGV: opening, lease_ms, at_most
-- A gap in these looks, or a clock that jumped, may mean that the holders could not renew: they get half a lease's time.
-- All processes look when a lease ends: the first to find it brings the message back; should it die, the others find
-- that message a moment later.
-- Returns 'closed' unless this opening of the gate is in force, or '' with the milliseconds until the next look is
-- worth it (-1: nothing is leased) and the tags.
local function sweep()
  local server, since, seen, watch, found =
    unpack(redis.call('HMGET', KEY.broker, 'server', 'since', 'seen', 'watch', 'found'))
  if (server or '') .. '@' .. (since or '') ~= ARG.opening then return {'closed'} end
  if redis.call('EXISTS', KEY.leases) == 0 then return {'', -1} end
  local lease, time = tonumber(ARG.lease_ms), redis.call('TIME')
  local at = time[1] * 1000 + math.floor(time[2] / 1000)
  seen, watch, found = tonumber(seen or ''), tonumber(watch or ''), tonumber(found or '0')
  if not seen or not watch or at < seen or at - seen > lease then watch = at end
  redis.call('HSET', KEY.broker, 'seen', at, 'watch', watch)
  local wait = watch + math.floor(lease / 2) - at
  local answer = {'', wait > 0 and wait or -1}
  local is_recent = at >= found and at - found < FIRST_FINDER_MS
  local from = is_recent and '(' .. string.format('%d', found) or '-inf'
  for _, tag in ipairs(redis.call('ZRANGEBYSCORE', KEY.leases, from, at, 'LIMIT', 0, ARG.at_most)) do
    if wait <= 0 or is_parked(tag) then answer[#answer + 1] = tag end
  end
  if #answer > 2 then redis.call('HSET', KEY.broker, 'found', at) end
  if wait <= 0 and #answer == 2 then
    local first = redis.call('ZRANGE', KEY.leases, 0, 0)[1]
    if first then
      local ends = tonumber(redis.call('ZSCORE', KEY.leases, first))
      answer[2] = math.max(ends, is_recent and found + FIRST_FINDER_MS or 0) - at
    end
  end
  return answer
end

-- Hold these deliveries, whether the broker still knows them or not.
-- KEYS: leases, deliveries
-- ARGV: lease_ms, *tags_and_messages
local function reinstate()
  for i = 1, #ARG.tags_and_messages, 2 do
    local tag, message = ARG.tags_and_messages[i], ARG.tags_and_messages[i + 1]
    redis.call('HSETNX', KEY.deliveries, tag, message)
    redis.call('ZADD', KEY.leases, now + tonumber(ARG.lease_ms), tag)
  end
end
