"""The scripts that change check-ins, run on the broker: what they check and what they write is one step.

An entry is a hash; its id stands in the set of those that are due as long as it comes up. ``id@slot`` stands there,
too, where somebody wants this very slot fired at once. Whatever changes is told in the stream of changes, by which
every beat wakes and keeps its journal. A line of a history begins with the rank of its outcome.
"""

from __future__ import annotations

from torch_tasks.broker.connection import NOW

CHANGES_KEPT = 10_000
"""So many changes are kept for beats that were away; a later one looks at all entries."""
HISTORY_KEPT = 100
"""So many lines of the history of one check-in are kept, the latest."""

_TELL = f"""
local function tell(changes, ids)
  redis.call('XADD', KEYS[changes], 'MAXLEN', '~', {CHANGES_KEPT}, '*', 'ids', ids)
end
"""

# Where entry, scores and lines of the history stand in KEYS; slot and line.
_NOTE = f"""
local function note(entry, scores, lines, slot, line)
  local held = redis.call('HGET', KEYS[lines], slot)
  if held and string.byte(held) > string.byte(line) then return end
  redis.call('HSET', KEYS[lines], slot, line)
  redis.call('ZADD', KEYS[scores], slot, slot)
  if redis.call('ZCARD', KEYS[scores]) > {HISTORY_KEPT} then
    local oldest = redis.call('ZRANGE', KEYS[scores], 0, 0)[1]
    redis.call('ZREM', KEYS[scores], oldest)
    redis.call('HDEL', KEYS[lines], oldest)
  end
  if tonumber(slot) >= tonumber(redis.call('HGET', KEYS[entry], 'last_slot') or '0') then
    redis.call('HSET', KEYS[entry], 'last_slot', slot, 'last', line)
  end
end
"""

# An entry that has ended is kept for a while.
_KEEP = """
local function keep(first, seconds)
  for i = first, first + 2 do
    if seconds == '' then redis.call('PERSIST', KEYS[i]) else redis.call('EXPIRE', KEYS[i], seconds) end
  end
end
"""

# KEYS: entry, all, due, changes. ARGV: id, check-in as JSON, slot, due.
ADD = (
    NOW
    + _TELL
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if state and state ~= 'removed' and state ~= 'aside' then return 0 end
redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('HDEL', KEYS[1], 'why')
redis.call('HSET', KEYS[1], 'checkin', ARGV[2], 'state', 'active', 'slot', ARGV[3], 'due', ARGV[4], 'runs', 0,
  'version', 1, 'added', now)
redis.call('PERSIST', KEYS[1])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
tell(4, ARGV[1])
return 1
"""
)

# KEYS: entry, scores, lines, due, changes. ARGV: id, version and slot as they were read, check-in as JSON, state, slot,
# due or '', seconds to live or ''.
CHANGE = (
    _TELL
    + _KEEP
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or state == 'removed' then return 'missing' end
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[2] then return 'changed' end
if redis.call('HGET', KEYS[1], 'slot') ~= ARGV[3] then return 'moved' end
redis.call('HSET', KEYS[1], 'checkin', ARGV[4], 'state', ARGV[5], 'slot', ARGV[6], 'due', ARGV[7])
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HINCRBY', KEYS[1], 'revision', 1)
if ARGV[7] ~= '' then redis.call('ZADD', KEYS[4], ARGV[7], ARGV[1]) else redis.call('ZREM', KEYS[4], ARGV[1]) end
keep(1, ARGV[8])
tell(5, ARGV[1])
return 'done'
"""
)

# KEYS: entry, scores, lines, due, changes, all. ARGV: id, seconds to live of what tells that it was removed.
REMOVE = (
    _TELL
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or state == 'removed' then return 0 end
local revision = tonumber(redis.call('HGET', KEYS[1], 'revision') or '0') + 1
redis.call('DEL', KEYS[1])
redis.call('DEL', KEYS[2])
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[1], 'state', 'removed', 'revision', revision)
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
tell(5, ARGV[1])
return 1
"""
)

# KEYS: entry, scores, lines, due, changes. ARGV: id, slot, line of the history, '1' if it is to be fired at once.
FIRE = (
    NOW
    + _TELL
    + _NOTE
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or state == 'removed' then return 0 end
note(1, 2, 3, ARGV[2], ARGV[3])
redis.call('HINCRBY', KEYS[1], 'revision', 1)
if ARGV[4] == '1' then redis.call('ZADD', KEYS[4], now, ARGV[1] .. '@' .. ARGV[2]) end
local left = redis.call('TTL', KEYS[1])
if left > 0 then
  redis.call('EXPIRE', KEYS[2], left)
  redis.call('EXPIRE', KEYS[3], left)
end
tell(5, ARGV[1])
return 1
"""
)

# KEYS: entry, names, due, changes. ARGV: id, its schedule in words, slot, due. One of Celery's own entries.
INSTALL = (
    NOW
    + _TELL
    + """
if redis.call('HGET', KEYS[1], 'schedule') == ARGV[2] and redis.call('HGET', KEYS[1], 'state') == 'active' then
  return 0
end
redis.call('HINCRBY', KEYS[1], 'revision', 1)
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HSET', KEYS[1], 'schedule', ARGV[2], 'state', 'active', 'slot', ARGV[3], 'due', ARGV[4], 'added', now)
redis.call('HSETNX', KEYS[1], 'runs', 0)
redis.call('PERSIST', KEYS[1])
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
tell(4, ARGV[1])
return 1
"""
)

# KEYS: entry, due, changes. ARGV: id, member of those that are due, why or '' if nobody knows it.
SET_ASIDE = (
    _TELL
    + """
redis.call('ZREM', KEYS[2], ARGV[2])
if ARGV[3] == '' then return end
redis.call('HSET', KEYS[1], 'state', 'aside', 'why', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'revision', 1)
tell(3, ARGV[1])
"""
)

# KEYS: entry, scores, lines. ARGV: how many lines.
ACCOUNT = """
local lines = {}
for _, slot in ipairs(redis.call('ZREVRANGE', KEYS[2], 0, tonumber(ARGV[1]) - 1)) do
  local line = redis.call('HGET', KEYS[3], slot)
  if line then
    lines[#lines + 1] = slot
    lines[#lines + 1] = line
  end
end
return {redis.call('HGETALL', KEYS[1]), lines}
"""

# KEYS: entry, scores, lines, due, changes, all. ARGV: id, revision, when it was added or '' for what is not listed, due
# or '', seconds to live or '', number of slots to be fired again, those, number of lines, slot and line of each,
# the fields.
RESTORE = (
    NOW
    + _TELL
    + _KEEP
    + """
if tonumber(redis.call('HGET', KEYS[1], 'revision') or '0') >= tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[3] ~= '' then redis.call('ZADD', KEYS[6], ARGV[3], ARGV[1]) else redis.call('ZREM', KEYS[6], ARGV[1]) end
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1]) else redis.call('ZREM', KEYS[4], ARGV[1]) end
local place = 7
for _ = 1, tonumber(ARGV[6]) do
  redis.call('ZADD', KEYS[4], now, ARGV[1] .. '@' .. ARGV[place])
  place = place + 1
end
place = place + 1
for _ = 1, tonumber(ARGV[place - 1]) do
  redis.call('ZADD', KEYS[2], ARGV[place], ARGV[place])
  redis.call('HSET', KEYS[3], ARGV[place], ARGV[place + 1])
  place = place + 2
end
while ARGV[place] do
  redis.call('HSET', KEYS[1], ARGV[place], ARGV[place + 1])
  place = place + 2
end
keep(1, ARGV[5])
tell(5, ARGV[1])
return 1
"""
)

# KEYS: lock, epoch. ARGV: who asks, what it holds or '', how long in milliseconds. Answers what it holds, or how long
# somebody else holds it.
LEAD = """
local held = redis.call('GET', KEYS[1])
if held and held == ARGV[2] then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {held, 0}
end
if held then return {'', redis.call('PTTL', KEYS[1])} end
local token = redis.call('INCR', KEYS[2]) .. ':' .. ARGV[1]
redis.call('SET', KEYS[1], token, 'PX', ARGV[3])
return {token, 0}
"""

# KEYS: lock, changes. ARGV: what is held. The others hear of it.
RESIGN = (
    _TELL
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
tell(2, '')
return 1
"""
)

# KEYS: lock, due. ARGV: what is held, how long in milliseconds, how many. Answers the time, when the next is due, and
# who is due since when; the time alone if the lock is lost.
TICK = (
    NOW
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {now} end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'WITHSCORES', 'LIMIT', 0, ARGV[3])
local next = ''
if #due == 0 then next = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] or '' end
return {now, next, due}
"""
)

# KEYS: lock, due, changes, and of each entry: itself, scores, lines. ARGV: what is held, seconds to live of what has
# ended, and of each entry: member of those that are due, id, since when it is due, version or '', state or '' if only
# this member is to go, slot, due or '', runs, number of lines, slot and line of each.
ADVANCE = (
    _TELL
    + _NOTE
    + _KEEP
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local spread = table.unpack or unpack
local place, key, done, ids = 3, 4, 0, {}
while ARGV[place] do
  local member, id, score, version, state = spread(ARGV, place, place + 4)
  local slot, due, runs, lines = spread(ARGV, place + 5, place + 8)
  local known = redis.call('HMGET', KEYS[key], 'state', 'version')
  local there = known[1] and known[1] ~= 'removed'
  local same = tonumber(redis.call('ZSCORE', KEYS[2], member) or '-1') == tonumber(score)
  if same and (not there or state == '') then
    redis.call('ZREM', KEYS[2], member)
  elseif same and (version == '' or known[2] == version) then
    redis.call('HSET', KEYS[key], 'state', state, 'slot', slot, 'due', due, 'runs', runs)
    if due == '' then
      redis.call('ZREM', KEYS[2], member)
    else
      redis.call('ZADD', KEYS[2], due, member)
    end
    done = done + 1
  end
  place = place + 9
  -- What was fired is told even if somebody changed the entry meanwhile.
  for _ = 1, tonumber(lines) do
    if there then note(key, key + 1, key + 2, ARGV[place], ARGV[place + 1]) end
    place = place + 2
  end
  if there then
    redis.call('HINCRBY', KEYS[key], 'revision', 1)
    if same and state == 'ended' then keep(key, ARGV[2]) end
    ids[#ids + 1] = id
  end
  key = key + 3
end
if #ids > 0 then tell(3, table.concat(ids, '\\n')) end
return done
"""
)
