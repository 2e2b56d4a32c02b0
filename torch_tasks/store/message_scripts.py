"""The scripts that change messages, run on the broker: what they check and what they write is one step."""

from __future__ import annotations

from torch_tasks.broker.connection import NOW

# KEYS: record, inbox of this urgency, inbox of the other, all messages, the sender's, the receiver's, exchanges, the
# record of the message that it answers, the channel of the receiver's role, the agents' last status. ARGV: id, message
# as JSON, how many an inbox may hold, seconds to live of the indexes, milliseconds until it expires or 0, 'reply' or
# 'ack' or '', who tells its status or ''.
SEND = (
    NOW
    + """
local known = redis.call('HGET', KEYS[1], 'state')
if known then return {'known', known} end
local waiting = redis.call('XLEN', KEYS[2]) + redis.call('XLEN', KEYS[3])
if waiting >= tonumber(ARGV[3]) then return {'full', tostring(waiting)} end
redis.call('HSET', KEYS[1], 'message', ARGV[2], 'state', 'accepted', 'accepted_at', now)
if tonumber(ARGV[5]) > 0 then redis.call('HSET', KEYS[1], 'expires_at', now + tonumber(ARGV[5])) end
redis.call('XADD', KEYS[2], '*', 'id', ARGV[1])
local moment, oldest = t[1] * 1000000 + t[2], (t[1] - tonumber(ARGV[4])) * 1000000
for i = 4, 6 do
  redis.call('ZADD', KEYS[i], moment, ARGV[1])
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', oldest)
end
redis.call('INCR', KEYS[7])
redis.call('EXPIRE', KEYS[7], ARGV[4])
redis.call('PUBLISH', KEYS[9], ARGV[2])
if ARGV[7] ~= '' then redis.call('HSET', KEYS[10], ARGV[7], ARGV[1]) end
if ARGV[6] ~= '' and redis.call('EXISTS', KEYS[8]) == 1 then
  if ARGV[6] == 'reply' then redis.call('HSET', KEYS[8], 'reply', ARGV[1]) end
  redis.call('HSETNX', KEYS[8], 'read_at', now)
  if redis.call('HGET', KEYS[8], 'state') == 'acknowledged' then redis.call('HSET', KEYS[8], 'state', 'read') end
  redis.call('PUBLISH', KEYS[8], 'read')
end
return {'accepted', ''}
"""
)

# KEYS: record, the agents' incarnations. ARGV: agent, incarnation.
STAGE = (
    NOW
    + """
local latest = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
if latest > tonumber(ARGV[2]) then return 'stale' end
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return 'missing' end
if state ~= 'accepted' and state ~= 'staged' then return state end
local expires = tonumber(redis.call('HGET', KEYS[1], 'expires_at') or '0')
if state == 'accepted' and expires > 0 and expires <= now then return 'expired' end
redis.call('HSET', KEYS[1], 'state', 'staged', 'staged_at', now)
redis.call('HINCRBY', KEYS[1], 'tries', 1)
redis.call('PUBLISH', KEYS[1], 'staged')
return 'staged'
"""
)

# KEYS: record, inbox, the agents' incarnations, all messages, the sender's, the receiver's. ARGV: the receiver, its
# incarnation or '' for one that has none, entry in the inbox or '', state, note, seconds to live, id, message as JSON,
# transport, milliseconds since it was delivered or '' if it was not.
SETTLE = (
    NOW
    + """
if ARGV[2] ~= '' then
  local latest = tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or '0')
  if latest > tonumber(ARGV[2]) then return 'stale' end
end
if ARGV[3] ~= '' then
  redis.call('XACK', KEYS[2], 'receiver', ARGV[3])
  redis.call('XDEL', KEYS[2], ARGV[3])
end
local state = redis.call('HGET', KEYS[1], 'state')
if state == 'read' or state == 'acknowledged' then return state end
if state == 'expired' and ARGV[4] == 'expired' then return state end
redis.call('HSET', KEYS[1], 'message', ARGV[8], 'state', ARGV[4], 'note', ARGV[5], 'transport', ARGV[9])
if not state then
  local moment = t[1] * 1000000 + t[2]
  redis.call('HSET', KEYS[1], 'accepted_at', now)
  for i = 4, 6 do redis.call('ZADD', KEYS[i], moment, ARGV[7]) end
end
if ARGV[10] ~= '' then
  redis.call('HSET', KEYS[1], 'delivered_at', now - tonumber(ARGV[10]), 'acknowledged_at', now)
end
if ARGV[4] == 'read' then
  redis.call('HSET', KEYS[1], 'read_at', now)
elseif ARGV[4] == 'acknowledged' and redis.call('HEXISTS', KEYS[1], 'read_at') == 1 then
  redis.call('HSET', KEYS[1], 'state', 'read')
end
redis.call('EXPIRE', KEYS[1], ARGV[6])
redis.call('PUBLISH', KEYS[1], ARGV[4])
return ARGV[4]
"""
)

# KEYS: record, inbox. ARGV: id, note, seconds to live. Only what its receiver has not begun with.
WITHDRAW = """
if redis.call('HGET', KEYS[1], 'state') ~= 'accepted' then return 0 end
redis.call('HSET', KEYS[1], 'state', 'expired', 'note', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '-', '+')) do
  if entry[2][2] == ARGV[1] then
    redis.call('XACK', KEYS[2], 'receiver', entry[1])
    redis.call('XDEL', KEYS[2], entry[1])
  end
end
redis.call('PUBLISH', KEYS[1], 'expired')
return 1
"""

# KEYS: record, inbox. ARGV: id. Only a dead message is put back.
REPLAY = (
    NOW
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'dead' and state ~= 'expired' then return state or 'missing' end
redis.call('HSET', KEYS[1], 'state', 'accepted', 'accepted_at', now, 'note', 'replayed', 'tries', 0)
redis.call('HDEL', KEYS[1], 'expires_at')
redis.call('PERSIST', KEYS[1])
redis.call('XADD', KEYS[2], '*', 'id', ARGV[1])
redis.call('PUBLISH', KEYS[1], 'accepted')
return 'accepted'
"""
)
