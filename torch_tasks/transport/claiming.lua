-- Taking a message: what the broker runs most often, so this file is short, and asks for the time only if it needs it.

-- Take the first message of the first list that has one.
-- KEYS: leases, deliveries, broker, dead_letters, refusals, *lists_and_bells
-- ARGV: server, lease_ms, limit_bytes, tag, dead_letter, kinds
-- The lists come in order, then the bells of their queues. `kinds` has one character for each list: 0 take without a
-- lease, 1 lease, 2 lease and of the lowest priority. The tag of the delivery is `tag` and the list.
-- Returns 'closed', or nothing, or the list's number, the message, and how many lists of the lowest priority wait on.
-- A message that is too long goes to the dead letters; then the answer has why in its place, and a fourth part.
local function claim()
  if redis.call('EXISTS', unpack(KEY.lists_and_bells)) == 0 then return {} end
  if redis.call('HGET', KEY.broker, 'server') ~= ARG.server then return {'closed'} end
  local lists = #ARG.kinds
  for i = 1, lists do
    local list_key = KEY.lists_and_bells[i]
    local message = redis.pcall('RPOP', list_key)
    if message and type(message) == 'string' then  -- else it is empty, or another program wrote something there
      if #message > tonumber(ARG.limit_bytes) then
        local why = 'it has ' .. #message .. ' bytes, more than ' .. ARG.limit_bytes
        local refusal = {place = list_key, why = why, bytes = #message, at = tonumber(redis.call('TIME')[1])}
        redis.call('HSET', KEY.dead_letters, ARG.dead_letter, message)
        redis.call('HSET', KEY.refusals, ARG.dead_letter, cjson.encode(refusal))
        return {i, why, 0, 1}
      end
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
