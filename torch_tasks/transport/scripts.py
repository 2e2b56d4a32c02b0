"""The steps that the broker does as one. Each declares all its keys, and tells time by the broker's own clock.

In each, a message is written to its new place before it leaves the old one: a script that breaks off loses nothing.
A script that could find the broker forgetful takes the server's identity, or more exactly the opening of the gate that
its caller knows of, and does nothing if that is not the one in force (see :mod:`torch_tasks.transport.gate`).
"""

from __future__ import annotations

from torch_tasks.broker.connection import NOW

BELL_LENGTH = 1000
BELL_MS = 60_000
TOLD_MS = 200
"""For so long it is left to who was told first that a lease has ended."""


def _ring(bell: str) -> str:
    """One of those who wait at this bell wakes up. A bell that nobody hears is forgotten after a minute."""
    return f"""
redis.call('LPUSH', {bell}, '')
redis.call('LTRIM', {bell}, 0, {BELL_LENGTH - 1})
redis.call('PEXPIRE', {bell}, {BELL_MS})
"""


# KEYS: list, bell. ARGV: message.
PUT = "redis.call('LPUSH', KEYS[1], ARGV[1])" + _ring("KEYS[2]")

# Take the first message of the first list that has one. KEYS: leases, deliveries, broker state, the lists in order,
# their bells. ARGV: the server's identity, lease in ms, the tag without its list, how many lists, one character for
# each list: 0 take without a lease, 1 lease, 2 lease and of the lowest priority.
# Returns 'closed', or nothing, or the list's number, the message, and whether one of the lowest priority was passed by.
CLAIM = (
    """
local some_keys = table.unpack or unpack
if redis.call('EXISTS', some_keys(KEYS, 4)) == 0 then return {} end
if redis.call('HGET', KEYS[3], 'server') ~= ARGV[1] then return {'closed'} end
"""
    + NOW
    + """
local last = 3 + tonumber(ARGV[4])
for i = 4, last do
  local message = redis.call('RPOP', KEYS[i])
  if message then
    local kind = string.sub(ARGV[5], i - 3, i - 3)
    if kind ~= '0' then
      local tag = ARGV[3] .. ':' .. KEYS[i]
      redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), tag)
      redis.call('HSET', KEYS[2], tag, message)
    end
    local passed = 0
    if kind == '1' then
      for low = i + 1, last do
        if string.sub(ARGV[5], low - 3, low - 3) == '2' then passed = passed + redis.call('EXISTS', KEYS[low]) end
      end
    end
    return {i - 3, message, passed}
  end
end
redis.call('DEL', some_keys(KEYS, last + 1))
return {}
"""
)

# KEYS: leases, broker state. ARGV: opening, lease in ms, tags. Returns 'closed', or '' and the tags that are gone.
RENEW = (
    NOW
    + """
local state = redis.call('HMGET', KEYS[2], 'server', 'since')
if (state[1] or '') .. '@' .. (state[2] or '') ~= ARGV[1] then return {'closed'} end
local answer = {''}
for i = 3, #ARGV do
  if tonumber(redis.call('ZSCORE', KEYS[1], ARGV[i])) then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[i])
  else
    answer[#answer + 1] = ARGV[i]
  end
end
return answer
"""
)

# Look for leases that have ended. KEYS: leases, broker state. ARGV: opening, lease in ms, how many at most.
# A gap in these looks, or a clock that jumped, may mean that the holders could not renew: they get half a lease's time.
# What is parked has no holder. Everybody looks when a lease ends: only the first is told, and brings the message back;
# should it die, the others find that message a moment later.
# Returns 'closed', or '' with the milliseconds until the next look is worth it (-1: nothing is leased) and the tags.
SWEEP = (
    """
local state = redis.call('HMGET', KEYS[2], 'server', 'since', 'seen', 'watch', 'told')
if (state[1] or '') .. '@' .. (state[2] or '') ~= ARGV[1] then return {'closed'} end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'', -1} end
"""
    + NOW
    + f"local moment = {TOLD_MS}"
    + """
local lease, seen, watch = tonumber(ARGV[2]), tonumber(state[3] or ''), tonumber(state[4] or '')
if not seen or not watch or now < seen or now - seen > lease then watch = now end
redis.call('HSET', KEYS[2], 'seen', now, 'watch', watch)
local wait = watch + math.floor(lease / 2) - now
local answer = {'', wait > 0 and wait or -1}
local told = tonumber(state[5] or '0')
local recent = now >= told and now - told < moment
local since = recent and '(' .. string.format('%d', told) or '-inf'
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], since, now, 'LIMIT', 0, ARGV[3])) do
  if wait <= 0 or string.sub(tag, 1, 7) == 'parked:' then answer[#answer + 1] = tag end
end
if #answer > 2 then redis.call('HSET', KEYS[2], 'told', now) end
if wait <= 0 and #answer == 2 then
  local first = redis.call('ZRANGE', KEYS[1], 0, 0)[1]
  if first then
    local ends = tonumber(redis.call('ZSCORE', KEYS[1], first))
    answer[2] = math.max(ends, recent and told + moment or 0) - now
  end
end
return answer
"""
)

# Put a delivery in front of a list. KEYS: leases, deliveries, list, bell. ARGV: tag, '1' if only once its lease has
# ended, the number of losses at which a message is poison (0: this is none). What is parked is never lost.
# Returns 'gone', 'held', 'back', or 'poison' with the message, which is left as it is.
PUT_BACK = (
    NOW
    + """
local message = redis.call('HGET', KEYS[2], ARGV[1])
local ends = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
if message and ARGV[2] == '1' and ends and ends > now then return {'held'} end
local limit = tonumber(ARGV[3])
if message and limit > 0 and string.sub(ARGV[1], 1, 7) ~= 'parked:' then
  local losses = tonumber(string.match(message, '^{"torch%-deliveries":(%d+),') or '0') + 1
  if losses >= limit then return {'poison', message} end
  message = string.gsub(message, '^{"torch%-deliveries":%d+,', '{', 1)
  message = string.format('{"torch-deliveries":%d,', losses) .. string.sub(message, 2)
end
if message then redis.call('RPUSH', KEYS[3], message) end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
if not message then return {'gone'} end
"""
    + _ring("KEYS[4]")
    + "return {'back'}"
)

# Have a message that waits in one list wait in another, in front. KEYS: list, other list, its bell. ARGV: message.
FORWARD = (
    """
if redis.call('LREM', KEYS[1], -1, ARGV[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[1])
"""
    + _ring("KEYS[3]")
    + "return 1"
)

# KEYS: leases, deliveries. ARGV: tag.
SETTLE = """
redis.call('ZREM', KEYS[1], ARGV[1])
return redis.call('HDEL', KEYS[2], ARGV[1])
"""

# KEYS: leases, deliveries. ARGV: tag, the tag it waits under, for how many ms, its message or '' for the same.
PARK = (
    NOW
    + """
local message = redis.call('HGET', KEYS[2], ARGV[1])
if not message then return 0 end
if ARGV[4] ~= '' then message = ARGV[4] end
redis.call('HSET', KEYS[2], ARGV[2], message)
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[2])
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
"""
)

# KEYS: leases, deliveries, dead letters. ARGV: tag, message id, '1' if only once its lease has ended.
BURY = (
    NOW
    + """
local message = redis.call('HGET', KEYS[2], ARGV[1])
local ends = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
if not message or (ARGV[3] == '1' and ends and ends > now) then return 0 end
redis.call('HSET', KEYS[3], ARGV[2], message)
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
"""
)

# KEYS: dead letters, list, bell. ARGV: message id. Its losses are forgotten.
EXHUME = (
    """
local message = redis.call('HGET', KEYS[1], ARGV[1])
if not message then return 0 end
message = string.gsub(message, '^{"torch%-deliveries":%d+,', '{', 1)
redis.call('LPUSH', KEYS[2], message)
redis.call('HDEL', KEYS[1], ARGV[1])
"""
    + _ring("KEYS[3]")
    + "return 1"
)

# KEYS: leases, deliveries. ARGV: lease in ms, then tags, each followed by its message.
REINSTATE = (
    NOW
    + """
for i = 2, #ARGV, 2 do
  redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[i])
end
"""
)

# KEYS: broker state. ARGV: identity, how long to wait in ms, the largest epoch known, '1' while there is more to say.
# Returns whether the gate is open, the largest epoch known so far, and since when it is open.
ENTER = (
    NOW
    + """
local state = redis.call('HMGET', KEYS[1], 'server', 'epoch', 'pending', 'until', 'since')
local epoch = math.max(tonumber(state[2] or '0'), tonumber(ARGV[3]))
if state[1] == ARGV[1] then return {1, epoch, state[5] or ''} end
local recovery, opens = tonumber(ARGV[2]), tonumber(state[4] or '0')
if state[3] ~= ARGV[1] or opens > now + recovery + 1000 then opens = now + recovery end
if ARGV[4] == '1' then opens = math.max(opens, now + 1000) end
if opens > now then
  redis.call('HSET', KEYS[1], 'pending', ARGV[1], 'until', opens)
  return {0, epoch, ''}
end
redis.call('HDEL', KEYS[1], 'pending', 'until')
redis.call('HSET', KEYS[1], 'server', ARGV[1], 'epoch', epoch + 1, 'since', now, 'seen', now, 'watch', now)
return {1, epoch + 1, redis.call('HGET', KEYS[1], 'since')}
"""
)

# KEYS: broker state. ARGV: identity.
OPEN_NEW = (
    NOW
    + """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'server', ARGV[1], 'epoch', 1, 'since', now, 'seen', now, 'watch', now)
return 1
"""
)
