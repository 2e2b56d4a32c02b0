-- The gate of a restarted broker. WITH: clock

-- Make this server process the one with which the fleet was last reconciled.
local function open_gate(epoch)
  redis.call('HDEL', KEY.broker, 'pending', 'until', 'brought')
  redis.call('HSET', KEY.broker, 'server', ARG.identity, 'epoch', epoch, 'since', now, 'seen', now, 'watch', now)
end

-- Wait at the gate. Whoever comes first closes it for good: should the former server process come back, it has missed
-- what was written meanwhile.
-- KEYS: broker, reconciled
-- ARGV: identity, recovery_ms, epoch, busy
-- Returns whether it is open, the largest epoch that any process knew, and since when it is open.
local function enter()
  local server, since, last, brought, pending, opens =
    unpack(redis.call('HMGET', KEY.broker, 'server', 'since', 'epoch', 'brought', 'pending', 'until'))
  local epoch = math.max(tonumber(last or '0'), tonumber(brought or '0'), tonumber(ARG.epoch))
  if redis.call('HEXISTS', KEY.broker, 'restoring') == 1 then return {0, epoch, ''} end
  if server == ARG.identity then return {1, epoch, since or ''} end
  local latest = now + tonumber(ARG.recovery_ms)
  opens = tonumber(opens or '0')
  if pending ~= ARG.identity or opens > latest + 1000 then opens = latest end
  if server then
    redis.call('HDEL', KEY.broker, 'server')
    redis.call('DEL', KEY.reconciled)
  end
  if ARG.busy == '1' then opens = math.max(opens, now + 1000) end
  if opens > now then
    redis.call('HSET', KEY.broker, 'pending', ARG.identity, 'until', opens, 'brought', epoch)
    return {0, epoch, ''}
  end
  open_gate(epoch + 1)
  return {1, epoch + 1, redis.call('HGET', KEY.broker, 'since')}
end

-- Open the gate of a broker that never had any data.
-- KEYS: broker
-- ARGV: identity
local function open_new()
  if redis.call('EXISTS', KEY.broker) == 1 then return 0 end
  open_gate(1)
  return 1
end
