"""The scripts that change task records, run on the broker: what they check and what they write is one step."""

from __future__ import annotations

from torch_tasks.broker.connection import NOW
from torch_tasks.model.agent import FORMAT

ACCEPT = (
    NOW
    + """
local demanded = 0
if ARGV[4] == '1' then demanded = redis.call('SADD', KEYS[3], ARGV[3]) end
if redis.call('EXISTS', KEYS[1]) == 1 then return {0, demanded} end
redis.call('HSET', KEYS[1], 'spec', ARGV[2], 'state', 'queued', 'queue', ARGV[3], 'created_at', now, 'attempts', 0,
  'revision', 1)
redis.call('ZADD', KEYS[2], t[1] * 1000000 + t[2], ARGV[1])
return {1, demanded}
"""
)

# What follows a change: KEYS[1] is the record, KEYS[2] its history.
TELL = """
local function tell(entry, seconds)
  redis.call('HINCRBY', KEYS[1], 'revision', 1)
  redis.call('RPUSH', KEYS[2], string.format('{"at":%d,', now) .. string.sub(entry, 2))
  redis.call('LTRIM', KEYS[2], -100, -1)
  if tonumber(seconds) > 0 then
    redis.call('EXPIRE', KEYS[1], seconds)
    redis.call('EXPIRE', KEYS[2], seconds)
  else
    redis.call('PERSIST', KEYS[1])
    redis.call('PERSIST', KEYS[2])
  end
end
"""

# KEYS[3]: agents, KEYS[4]: their heartbeats, KEYS[5]: when node workers last promised to bring them back, KEYS[6]: the
# broker's state. Silence (ms) for that long means that an agent is dead, or one whose worker said goodbye. It proves
# nothing unless the broker itself was there to hear: it has been watched for as long.
DEAD = """
local function dead(agent, silence, goodbye)
  local entry = redis.call('HGET', KEYS[3], agent)
  local grace = entry and cjson.decode(entry).left and goodbye or silence
  local watched = tonumber(redis.call('HGET', KEYS[6], 'watch') or now)
  local heard = tonumber(redis.call('ZSCORE', KEYS[4], agent) or '0')
  local kept = tonumber(redis.call('ZSCORE', KEYS[5], agent) or '0')
  return now - watched >= silence and now - heard >= grace and now - kept >= silence
end
"""

# KEYS[3]: the agents' performance. ARGV: wanted state, states it may follow, '' or the owner, the owner's incarnation,
# owning states, time-stamp field or '', seconds to live or 0, entry of the history, 'succeeded' or 'failed' if that
# counts for the owner or '', then field/value pairs.
MOVE = (
    NOW
    + TELL
    + """
local function count(assigned)
  local known = redis.call('HGET', KEYS[3], ARGV[3])
  local sum = known and cjson.decode(known) or {succeeded = 0, failed = 0, seconds = 0}
  local started = tonumber(redis.call('HGET', KEYS[1], 'started_at') or '0')
  sum[ARGV[9]] = sum[ARGV[9]] + 1
  if started > 0 and started >= assigned then sum.seconds = sum.seconds + (now - started) / 1000 end
  redis.call('HSET', KEYS[3], ARGV[3], string.format('"""
    + FORMAT
    + """', sum.succeeded, sum.failed, sum.seconds, now))
end
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return {'missing', '', {}} end
local owner = redis.call('HGET', KEYS[1], 'agent') or ''
local fence = tonumber(redis.call('HGET', KEYS[1], 'incarnation') or '0')
if ARGV[3] ~= '' and string.find(ARGV[5], ' ' .. state .. ' ', 1, true) then
  if owner ~= ARGV[3] then return {'owned', owner, {}} end
  if fence > tonumber(ARGV[4]) then
    return {'owned', owner .. ' (incarnation ' .. string.format('%d', fence) .. ')', {}}
  end
end
if not string.find(ARGV[2], ' ' .. state .. ' ', 1, true) then return {'illegal', state, {}} end
redis.call('HSET', KEYS[1], 'state', ARGV[1])
local stamp = tonumber(ARGV[6] ~= '' and redis.call('HGET', KEYS[1], ARGV[6]) or '0')
local assigned = tonumber(redis.call('HGET', KEYS[1], 'assigned_at') or '0')
-- A try begins once, however often more is told of it.
if ARGV[6] ~= '' and not (ARGV[6] == 'started_at' and stamp >= assigned and assigned > 0) then
  redis.call('HSET', KEYS[1], ARGV[6], now)
end
for i = 10, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if ARGV[9] ~= '' then count(assigned) end
tell(ARGV[8], ARGV[7])
redis.call('PUBLISH', KEYS[1], ARGV[1])
return {'moved', state, redis.call('HGETALL', KEYS[1])}
"""
)

# KEYS: record, history, as DEAD, then soft pins, load. ARGV: agent, node, incarnation, owning states, ended states,
# silence (ms) after which an agent is dead, the same for one whose worker said goodbye, entry of the history, '' or the
# whole spec, the entry for one that is adopted, the task's id.
TAKE = (
    NOW
    + TELL
    + DEAD
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return {'missing', ''} end
if string.find(ARGV[5], ' ' .. state .. ' ', 1, true) then return {'ended', ''} end
local owner = redis.call('HGET', KEYS[1], 'agent') or ''
local node = redis.call('HGET', KEYS[1], 'node') or ''
local held = string.find(ARGV[4], ' ' .. state .. ' ', 1, true)
if held and owner == ARGV[1] and node == ARGV[2] then
  local fence = tonumber(redis.call('HGET', KEYS[1], 'incarnation') or '0')
  if fence > tonumber(ARGV[3]) then return {'stale', string.format('%d', fence)} end
  if fence < tonumber(ARGV[3]) then
    redis.call('HSET', KEYS[1], 'incarnation', ARGV[3])
    tell((string.gsub(ARGV[10], '"assigned"', '"' .. state .. '"', 1)), 0)
  end
  return {'mine', ''}
end
if held and owner ~= ARGV[1] and not dead(owner, tonumber(ARGV[6]), tonumber(ARGV[7])) then return {'owned', owner} end
redis.call('HSET', KEYS[1], 'state', 'assigned', 'agent', ARGV[1], 'node', ARGV[2], 'incarnation', ARGV[3],
  'assigned_at', now)
redis.call('HINCRBY', KEYS[1], 'attempts', 1)
redis.call('ZREM', KEYS[7], ARGV[1] .. ' ' .. ARGV[11])
redis.call('HSET', KEYS[8], ARGV[1], 1)
if ARGV[9] ~= '' then redis.call('HSET', KEYS[1], 'spec', ARGV[9]) end
local former, entry = owner .. ' on ' .. node, ARGV[8]
if held then entry = string.sub(entry, 1, -2) .. ', "note": "taken over from ' .. former .. '"}' end
tell(entry, 0)
redis.call('PUBLISH', KEYS[1], 'assigned')
if held then return {'taken over', former} end
return {'taken', ''}
"""
)

# KEYS: record, index of all records, demanded queues, dead letters. ARGV: id, revision, score in the index, queue, '1'
# if it is to be demanded, seconds to live or 0, '1' for a dead task, then field/value pairs. The message of a dead task
# is lost, and its place among the dead letters tells that it can be replayed.
RESTORE = """
local known = tonumber(redis.call('HGET', KEYS[1], 'revision') or '-1')
if known >= tonumber(ARGV[2]) then return 0 end
for i = 8, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
if ARGV[7] == '1' then redis.call('HSETNX', KEYS[4], ARGV[1], '') end
if tonumber(ARGV[6]) > 0 then redis.call('EXPIRE', KEYS[1], ARGV[6]) end
redis.call('ZADD', KEYS[2], 'NX', ARGV[3], ARGV[1])
if ARGV[5] == '1' then redis.call('SADD', KEYS[3], ARGV[4]) end
redis.call('PUBLISH', KEYS[1], 'restored')
return 1
"""
