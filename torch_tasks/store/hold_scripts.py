"""The scripts that change what is held, run on the broker: what they check and write is one step."""

from __future__ import annotations

from torch_tasks.broker.connection import NOW

# KEYS: holds. ARGV: scope, the hold as JSON, '1' if it lifts one. Returns the hold with its revision, or '' if there is
# nothing to lift.
SAY = (
    NOW
    + """
local known = redis.call('HGET', KEYS[1], ARGV[1])
local former = known and cjson.decode(known)
if ARGV[3] == '1' and (not former or former.lifted) then return '' end
local revision = now
if former and former.revision >= revision then revision = former.revision + 1 end
local said = string.format('{"revision":%d,', revision) .. string.sub(ARGV[2], 2)
redis.call('HSET', KEYS[1], ARGV[1], said)
return said
"""
)

# KEYS: holds. ARGV: scopes, each with its hold as JSON and its revision. A later word stays.
RECALL = """
for i = 1, #ARGV, 3 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if not known or cjson.decode(known).revision < tonumber(ARGV[i + 2]) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
"""
