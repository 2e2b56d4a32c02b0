"""The scripts that change and search the agent registry, run on the broker: what they check and write is one step.

The index holds, for each agent, one member for its role, its kind and each of its skills: ``skill python developer-1``.
The traits are what a search needs of an entry, in words that are read faster than JSON: the state, or ``left``,
``retiring`` or ``stopped``, then the role, the kind and the skills: ``ready developer shell python go``. Both are
written with the entry and by nothing else; whoever looks through the index believes the traits alone.
"""

from __future__ import annotations

from torch_tasks.broker.connection import NOW

CHANGES_KEPT = 10_000
"""So many notices of changes are kept for those who watch."""

# How many tasks of an agent succeeded and failed, as torch_tasks.model.agent has them kept.
_ENDS = """
local function ends_in(performance)
  local succeeded, failed = string.match(performance or '', '^%D+(%d+)%D+(%d+)')
  return tonumber(succeeded or '0'), tonumber(failed or '0')
end
"""

# KEYS[1]: registry, KEYS[2]: heartbeats, KEYS[3]: incarnations, KEYS[4]: index, KEYS[5]: changes, KEYS[6]: traits,
# KEYS[7]: performance, which an agent remembers that the broker has forgotten.
_ENTER = f"""{_ENDS}
local spread = table.unpack or unpack
local function places(entry, before)
  local known, found = cjson.decode(entry), {{}}
  local function add(what)
    if before then found[#found + 1] = before end
    found[#found + 1] = what .. ' ' .. known.agent_id
  end
  add('role ' .. known.role)
  add('kind ' .. known.kind)
  for _, skill in ipairs(known.skills) do add('skill ' .. skill) end
  return found
end
local function traits(entry)
  local known = cjson.decode(entry)
  local stopped = known.stopped and known.stopped ~= cjson.null
  local state = known.left and 'left' or known.retiring and 'retiring' or stopped and 'stopped' or known.state
  return table.concat({{state, known.role, known.kind, spread(known.skills)}}, ' ')
end
local function tell(id)
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', {CHANGES_KEPT}, '*', 'agent', id)
end
local function recall(id, performance)
  local succeeded, failed = ends_in(performance)
  local known_succeeded, known_failed = ends_in(redis.call('HGET', KEYS[7], id))
  if succeeded + failed > known_succeeded + known_failed then redis.call('HSET', KEYS[7], id, performance) end
end
local function enter(id, entry, performance)
  local former = redis.call('HGET', KEYS[1], id)
  if former == entry then return false end
  if former then redis.call('ZREM', KEYS[4], spread(places(former))) end
  redis.call('HSET', KEYS[1], id, entry)
  redis.call('ZADD', KEYS[4], spread(places(entry, 0)))
  redis.call('HSET', KEYS[6], id, traits(entry))
  recall(id, performance)
  tell(id)
  return true
end
"""


def refusal(gone: int) -> str:
    """Nobody registers under a name that another living process has; it answers who that is, and its silence.

    KEYS: entries, heartbeats. ARGV: name, entry, offline after (ms), host, pid. The one of number ``gone`` is '1' if
    the caller knows that the process the entry names is gone.
    """
    return f"""
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if entry and ARGV[{gone}] ~= '1' then
  local holder = cjson.decode(entry)
  local beat = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '0')
  local same = holder.host == ARGV[4] and tostring(holder.pid) == ARGV[5]
  if not same and not holder.left and now - beat < tonumber(ARGV[3]) then return {{0, entry, now - beat}} end
end
"""


# ARGV: id, entry, offline after (ms), host, pid, smallest incarnation, '1' if the caller knows that the process the
# entry names is gone, the performance. Returns the incarnation and the performance, or who is there and for how long it
# has been silent.
REGISTER = (
    NOW
    + _ENTER
    + refusal(7)
    + """
local incarnation = tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or '0') + 1
if incarnation < tonumber(ARGV[6]) then incarnation = tonumber(ARGV[6]) end
redis.call('HSET', KEYS[3], ARGV[1], incarnation)
local mine = string.gsub(ARGV[2], '"incarnation":0', string.format('"incarnation":%d', incarnation), 1)
enter(ARGV[1], mine, ARGV[8])
redis.call('ZADD', KEYS[2], now, ARGV[1])
return {incarnation, redis.call('HGET', KEYS[7], ARGV[1]) or '', 0}
"""
)

# KEYS from the eighth: demanded queues, load, the lists of the agent's own queue. ARGV: id, incarnation, entry, offline
# after (ms), how many tasks it holds, the performance. Nothing waits for an agent that goes on being idle.
BEAT = (
    NOW
    + _ENTER
    + """
local latest = tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or '0')
if latest > tonumber(ARGV[2]) then return -1 end
if latest < tonumber(ARGV[2]) then redis.call('HSET', KEYS[3], ARGV[1], ARGV[2]) end
local heard = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or '0')
local changed = enter(ARGV[1], ARGV[3], ARGV[6])
if not changed and now - heard >= tonumber(ARGV[4]) then tell(ARGV[1]) end
redis.call('ZADD', KEYS[2], now, ARGV[1])
if changed or ARGV[5] ~= '0' then
  local load = tonumber(ARGV[5])
  for i = 10, #KEYS do load = load + redis.call('LLEN', KEYS[i]) end
  redis.call('HSET', KEYS[9], ARGV[1], load)
end
return redis.call('SCARD', KEYS[8])
"""
)

# KEYS: those of an entry, load, kept agents. ARGV: id. Its incarnations stay: the next of its id is
# another one.
REMOVE = (
    NOW
    + _ENTER
    + """
local former = redis.call('HGET', KEYS[1], ARGV[1])
if not former then return 0 end
redis.call('ZREM', KEYS[4], spread(places(former)))
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[1])
redis.call('HDEL', KEYS[7], ARGV[1])
redis.call('HDEL', KEYS[8], ARGV[1])
redis.call('ZREM', KEYS[9], ARGV[1])
tell(ARGV[1])
return 1
"""
)

KEEP = NOW + "for i = 1, #ARGV do redis.call('ZADD', KEYS[1], now, ARGV[i]) end"

CLOCK = NOW + "return {now, now - tonumber(redis.call('HGET', KEYS[1], 'watch') or now)}"

# The first agents that can do something. KEYS: registry, heartbeats, index, performance, load, soft pins, holds,
# traits. ARGV: role or '', 'all' or 'any', how many at most or 0, offline after (ms), successes and ends that a new
# agent is credited with, states in which none can take a task, how many skills, the skills, then skills that are wished
# for. Returns the time, then for each agent its entry, heartbeat, performance, load.
FIND = (
    NOW
    + _ENDS
    + """
local spread = table.unpack or unpack
local role, any, limit = ARGV[1], ARGV[2] == 'any', tonumber(ARGV[3])
local skills, wished, alive_since = {}, {}, now - tonumber(ARGV[4])
for i = 9, #ARGV do
  local list = i < 9 + tonumber(ARGV[8]) and skills or wished
  list[#list + 1] = ARGV[i]
end

-- Each way leads to all agents in question, and to others: the shortest is taken.
local ways, abilities = {}, {}
if role ~= '' then ways[1] = {'role ' .. role} end
for _, skill in ipairs(skills) do
  if not any then abilities = {} end
  abilities[#abilities + 1] = 'skill ' .. skill
  abilities[#abilities + 1] = 'kind ' .. skill
  if not any then ways[#ways + 1] = abilities end
end
if any and #abilities > 0 then ways[#ways + 1] = abilities end
local way, shortest
for _, places in ipairs(ways) do
  local length = 0
  for _, place in ipairs(places) do
    length = length + redis.call('ZLEXCOUNT', KEYS[3], '[' .. place .. ' ', '(' .. place .. '!')
  end
  if not shortest or length < shortest then way, shortest = places, length end
end
local ids, seen = {}, {}
if not way then ids = redis.call('ZRANGEBYSCORE', KEYS[2], alive_since, '+inf') end
for _, place in ipairs(way or {}) do
  for _, member in ipairs(redis.call('ZRANGEBYLEX', KEYS[3], '[' .. place .. ' ', '(' .. place .. '!')) do
    local id = string.sub(member, #place + 2)
    if not seen[id] then
      seen[id] = true
      ids[#ids + 1] = id
    end
  end
end

local pinned = {}
for _, pin in ipairs(redis.call('ZRANGEBYSCORE', KEYS[6], now, '+inf')) do
  local id = string.match(pin, '^%S+')
  pinned[id] = (pinned[id] or 0) + 1
end

local held, holds = {}, redis.call('HGETALL', KEYS[7])
for i = 1, #holds, 2 do
  if not cjson.decode(holds[i + 1]).lifted then held[holds[i]] = true end
end

local function count(abilities, list)
  local number = 0
  for _, skill in ipairs(list) do
    if string.find(abilities, ' ' .. skill .. ' ', 1, true) then number = number + 1 end
  end
  return number
end
local held_too = not string.find(ARGV[7], ' paused ', 1, true)
local function serves(id, state, its_role, abilities)
  if role ~= '' and its_role ~= role then return false end
  if string.find(ARGV[7], ' ' .. state .. ' ', 1, true) then return false end
  if not held_too and (held.all or held['role ' .. its_role] or held['agent ' .. id]) then return false end
  if any then return #skills == 0 or count(abilities, skills) > 0 end
  return count(abilities, skills) == #skills
end
local function before(a, b)
  if a.free ~= b.free then return a.free end
  if a.wished ~= b.wished then return a.wished > b.wished end
  if a.rate ~= b.rate then return a.rate > b.rate end
  if a.load ~= b.load then return a.load < b.load end
  return a.id < b.id
end

-- Few are kept in order while they are found, many are put in order at last.
local found, few, one = {}, limit > 0 and limit <= 16, {}
local function keep()
  local place = #found + 1
  if few then
    if place > limit then
      if not before(one, found[limit]) then return end
      place = limit
    end
    while place > 1 and before(one, found[place - 1]) do
      found[place] = found[place - 1]
      place = place - 1
    end
  end
  found[place], one = one, {}
end
for start = 1, #ids, 1000 do
  local some = {}
  for i = start, math.min(start + 999, #ids) do some[#some + 1] = ids[i] end
  local traits = redis.call('HMGET', KEYS[8], spread(some))
  local beats = redis.call('ZMSCORE', KEYS[2], spread(some))
  local loads = redis.call('HMGET', KEYS[5], spread(some))
  local ends = redis.call('HMGET', KEYS[4], spread(some))
  for i, id in ipairs(some) do
    local beat = beats[i] and tonumber(beats[i]) or 0
    if traits[i] and beat >= alive_since then
      local state, its_role, abilities = string.match(traits[i], '^(%S+) (%S+)(.*)$')
      abilities = abilities .. ' '
      if serves(id, state, its_role, abilities) then
        local succeeded, failed = ends_in(ends[i])
        one.id, one.beat, one.ends, one.wished = id, beat, ends[i] or '', count(abilities, wished)
        one.load = tonumber(loads[i] or '0') + (pinned[id] or 0)
        one.free = state == 'ready' and one.load == 0
        one.rate = (succeeded + tonumber(ARGV[5])) / (succeeded + failed + tonumber(ARGV[6]))
        keep()
      end
    end
  end
end
if not few then table.sort(found, before) end
local answer = {now}
for i = 1, limit > 0 and math.min(limit, #found) or #found do
  local chosen = found[i]
  answer[#answer + 1] = redis.call('HGET', KEYS[1], chosen.id)
  for _, value in ipairs({chosen.beat, chosen.ends, chosen.load}) do answer[#answer + 1] = value end
end
return answer
"""
)

# KEYS: index. Every skill that some agent was entered with: from one to the next, whoever has it.
SKILLS = """
local found, from = {}, '[skill '
while true do
  local member = redis.call('ZRANGEBYLEX', KEYS[1], from, '(skill!', 'LIMIT', 0, 1)[1]
  if not member then return found end
  local skill = string.match(member, '^skill (%S+)')
  found[#found + 1] = skill
  from = '[skill ' .. skill .. '!'
end
"""

# KEYS: soft pins, load. ARGV: agent, task, for how many ms. Returns 1 if the agent was free and is spoken for now.
RESERVE = (
    NOW
    + """
if tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0') > 0 then return 0 end
for _, pin in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')) do
  if string.match(pin, '^%S+') == ARGV[1] then return 0 end
end
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[1] .. ' ' .. ARGV[2])
return 1
"""
)

# KEYS: soft pins. ARGV: for how long one is remembered after its time (ms). Returns the pins whose time is over.
DUE = (
    NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[1]))
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
"""
)
