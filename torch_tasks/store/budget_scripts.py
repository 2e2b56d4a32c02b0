"""The scripts that count what is used of an account, run on the broker: what they check and count is one step.

A hash holds, for each limit and each machine, the window that the machine used something in last and how much:
``calls_per_day node-a`` → ``20650:17``. Each machine keeps its own counts on its disk and says them each time, so that
a broker which has forgotten learns them again; of two counts of one machine in one window the larger is the later.
"""

from __future__ import annotations

from torch_tasks.broker.connection import NOW

# KEYS: spent, accounts. ARGV: account, node, '1' to count only if no limit is reached, how many calls, how many tokens,
# then for each limit its name, its window (ms), the limit or 0, and what the node knows it used, as 'window:amount' or
# ''. Returns for how long (ms) nothing is to be begun, which limit says so, its amount, what the node has used by now.
SPEND = (
    NOW
    + """
local all = redis.call('HGETALL', KEYS[1])
local kept = {}
for i = 1, #all, 2 do kept[all[i]] = all[i + 1] end
local function amount(text, window)
  local w, a = string.match(text or '', '^(%d+):(%d+)$')
  return w and tonumber(w) == window and tonumber(a) or 0
end
local closed, why, limit = 0, '', 0
local own, total = {}, {}
for i = 6, #ARGV, 4 do
  local name, length = ARGV[i], tonumber(ARGV[i + 1])
  local window, field, sum = math.floor(now / length), ARGV[i] .. ' ' .. ARGV[2], 0
  for other, text in pairs(kept) do
    if other ~= field and string.sub(other, 1, #name + 1) == name .. ' ' then sum = sum + amount(text, window) end
  end
  own[i] = math.max(amount(kept[field], window), amount(ARGV[i + 3], window))
  total[i] = sum + own[i]
  local left = (window + 1) * length - now
  if tonumber(ARGV[i + 2]) > 0 and total[i] >= tonumber(ARGV[i + 2]) and left > closed then
    closed, why, limit = left, name, tonumber(ARGV[i + 2])
  end
end
redis.call('SADD', KEYS[2], ARGV[1])
local answer = {closed, why, limit}
local counts = ARGV[3] ~= '1' or closed == 0
for i = 6, #ARGV, 4 do
  local spent = string.sub(ARGV[i], 1, 5) == 'calls' and tonumber(ARGV[4]) or tonumber(ARGV[5])
  if counts then own[i] = own[i] + spent end
  local said = string.format('%d:%d', math.floor(now / tonumber(ARGV[i + 1])), own[i])
  redis.call('HSET', KEYS[1], ARGV[i] .. ' ' .. ARGV[2], said)
  answer[#answer + 1] = said
end
return answer
"""
)
