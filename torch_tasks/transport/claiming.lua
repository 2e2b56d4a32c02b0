-- Taking a message: what the broker runs most often, so this file is short, and asks for the time only if it needs it.

-- Take the first message of the first list that has one.
-- KEYS: leases, deliveries, broker, *lists_and_bells
-- ARGV: server, lease_ms, tag, kinds
-- The lists come in order, then the bells of their queues. `kinds` has one character for each list: 0 take without a
-- lease, 1 lease, 2 lease and of the lowest priority. The tag of the delivery is `tag` and the list.
-- Returns 'closed', or nothing, or the list's number, the message, and how many lists of the lowest priority wait on.
local function claim()
  if redis.call('EXISTS', unpack(KEY.lists_and_bells)) == 0 then return {} end
  if redis.call('HGET', KEY.broker, 'server') ~= ARG.server then return {'closed'} end
  local lists = #ARG.kinds
  for i = 1, lists do
    local list_key = KEY.lists_and_bells[i]
    local message = redis.call('RPOP', list_key)
    if message then
      local kind = string.sub(ARG.kinds, i, i)
      if kind ~= '0' then
        local tag, time = ARG.tag .. ':' .. list_key, redis.call('TIME')
        local ends = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARG.lease_ms)
        redis.call('ZADD', KEY.leases, ends, tag)
        redis.call('HSET', KEY.deliveries, tag, message)
      end
      local lowest = kind == '1' and string.find(ARG.kinds, '2', i + 1, true)
      return {i, message, lowest and redis.call('EXISTS', unpack(KEY.lists_and_bells, lowest, lists)) or 0}
    end
  end
  redis.call('DEL', unpack(KEY.lists_and_bells, lists + 1))
  return {}
end
