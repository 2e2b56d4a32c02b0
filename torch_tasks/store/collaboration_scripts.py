"""The scripts by which agents hand over tasks, claim what they share, and note what they know."""

from __future__ import annotations

from torch_tasks.broker.connection import NOW
from torch_tasks.store.task_scripts import DEAD, TELL

# KEYS: record, history, demanded queues. ARGV: ended states, owning states, '' or the agent that asks about its own
# task, the spec as it was read, the spec as it shall be, the handover without owner and try, queue, '1' if it is to be
# demanded, entry of the history.
HAND_OVER = (
    NOW
    + TELL
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if not state then return {'missing', ''} end
if string.find(ARGV[1], ' ' .. state .. ' ', 1, true) then return {'ended', state} end
local held = string.find(ARGV[2], ' ' .. state .. ' ', 1, true)
local owner = held and redis.call('HGET', KEYS[1], 'agent') or ''
if ARGV[3] ~= '' and held and owner ~= ARGV[3] then return {'owned', owner} end
if redis.call('HGET', KEYS[1], 'spec') ~= ARGV[4] then return {'changed', ''} end
if held and cjson.decode(ARGV[6]).to == owner then return {'own', owner} end
local attempts = tonumber(redis.call('HGET', KEYS[1], 'attempts') or '0')
-- Not encoded anew: an empty list would come out as an object.
local handover = string.sub(ARGV[6], 1, -2) .. string.format(',"attempt":%d', attempts)
if held then handover = handover .. ',"owner":"' .. owner .. '"' end
redis.call('HSET', KEYS[1], 'spec', ARGV[5], 'queue', ARGV[7], 'handover', handover .. '}')
local demanded = 0
if ARGV[8] == '1' then demanded = redis.call('SADD', KEYS[3], ARGV[7]) end
tell((string.gsub(ARGV[9], '"state": ""', '"state": "' .. state .. '"', 1)), 0)
redis.call('PUBLISH', KEYS[1], state)
return {held and 'asked' or 'moved', owner, demanded}
"""
)

# Whether a claim still holds. KEYS: claims, the record of the task for which it was made, as DEAD. ARGV: resource, the
# claim as it was read or '', owning states, silence (ms) after which an agent is dead, the same for one whose worker
# said goodbye.
_HOLDS = (
    NOW
    + DEAD
    + """
local function holds(told)
  local claim = cjson.decode(told)
  if claim['until'] and claim['until'] <= now then return false end
  if claim.agent and dead(claim.by, tonumber(ARGV[4]), tonumber(ARGV[5])) then return false end
  if claim['until'] then return true end
  local state = redis.call('HGET', KEYS[2], 'state') or ''
  return redis.call('HGET', KEYS[2], 'agent') == claim.by and string.find(ARGV[3], ' ' .. state .. ' ', 1, true) ~= nil
end
local known = redis.call('HGET', KEYS[1], ARGV[1]) or ''
"""
)

# ARGV, further: the new claim, for how many ms or ''.
CLAIM = (
    _HOLDS
    + """
if known ~= ARGV[2] then return {'changed', known} end
if known ~= '' and cjson.decode(known).by ~= cjson.decode(ARGV[6]).by and holds(known) then return {'held', known} end
local claim = string.sub(ARGV[6], 1, -2) .. string.format(',"since":%d', now)
if ARGV[7] ~= '' then claim = claim .. string.format(',"until":%d', now + tonumber(ARGV[7])) end
claim = claim .. '}'
redis.call('HSET', KEYS[1], ARGV[1], claim)
return {'claimed', claim}
"""
)

# Tells whether the claim holds, and forgets it if not.
PEEK = (
    _HOLDS
    + """
if known ~= ARGV[2] then return 1 end
if holds(known) then return 1 end
redis.call('HDEL', KEYS[1], ARGV[1])
return 0
"""
)

# KEYS: claims. ARGV: resource, who releases it.
RELEASE = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
if not known then return {'free', ''} end
if cjson.decode(known).by ~= ARGV[2] then return {'held', known} end
redis.call('HDEL', KEYS[1], ARGV[1])
return {'released', ''}
"""
