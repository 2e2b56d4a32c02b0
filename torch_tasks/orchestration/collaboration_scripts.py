"""The scripts by which agents hand over tasks, claim what they share, and note what they know."""

from __future__ import annotations

from torch_tasks.broker import NOW
from torch_tasks.record_scripts import TELL

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
