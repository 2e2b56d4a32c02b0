-- What counts the use of accounts.
-- WITH: clock
--
-- A hash holds, for each limit and each machine, the window in which the machine used something last and how much:
-- "calls_per_day node-a" -> "20650:17". Each machine also keeps its counts on disk and sends them each time, in case the
-- broker has forgotten them; of two counts of one machine in one window the larger is the later.

local function amount_in(text, window)
  local its_window, amount = string.match(text or '', '^(%d+):(%d+)$')
  return its_window and tonumber(its_window) == window and tonumber(amount) or 0
end

local function used_by_others(counts, name, field, window)
  local sum = 0
  for other, text in pairs(counts) do
    if other ~= field and string.sub(other, 1, #name + 1) == name .. ' ' then sum = sum + amount_in(text, window) end
  end
  return sum
end

-- Count what a machine uses; with if_left, only if no limit is reached.
-- KEYS: spent, accounts
-- ARGV: account, node, if_left, *limits
-- The limits are each a name, its window in ms, the limit or 0, what the node knows it used ('window:amount' or ''), and
-- how much is to be counted.
-- Returns for how many ms no task may begin, because of which limit, its amount, and what the node has used by now.
local function spend()
  local flat, counts = redis.call('HGETALL', KEY.spent), {}
  for i = 1, #flat, 2 do counts[flat[i]] = flat[i + 1] end
  local closed, why, limit, own = 0, '', 0, {}
  for i = 1, #ARG.limits, 5 do
    local name, length, allowed = ARG.limits[i], tonumber(ARG.limits[i + 1]), tonumber(ARG.limits[i + 2])
    local field, window = name .. ' ' .. ARG.node, math.floor(now / length)
    own[i] = math.max(amount_in(counts[field], window), amount_in(ARG.limits[i + 3], window))
    local total, left = own[i] + used_by_others(counts, name, field, window), (window + 1) * length - now
    if allowed > 0 and total >= allowed and left > closed then closed, why, limit = left, name, allowed end
  end
  redis.call('SADD', KEY.accounts, ARG.account)
  local answer = {closed, why, limit}
  local counted = ARG.if_left ~= '1' or closed == 0
  for i = 1, #ARG.limits, 5 do
    local name, used = ARG.limits[i], tonumber(ARG.limits[i + 4])
    local text = string.format('%d:%d', math.floor(now / tonumber(ARG.limits[i + 1])), own[i] + (counted and used or 0))
    redis.call('HSET', KEY.spent, name .. ' ' .. ARG.node, text)
    answer[#answer + 1] = text
  end
  return answer
end
