-- What the fleet says of its keys, as its root signed it: one text, which the broker does not understand.

-- Put a text in the place of the one that was found there.
-- KEYS: fleet_keys
-- ARGV: former, text
local function replace()
  if (redis.call('GET', KEY.fleet_keys) or '') ~= ARG.former then return 0 end
  redis.call('SET', KEY.fleet_keys, ARG.text)
  return 1
end
