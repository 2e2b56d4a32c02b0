-- What changes check-ins.
-- WITH: clock
-- FROM PYTHON: CHANGES_KEPT, HISTORY_KEPT, SENT
--
-- An entry is a hash. Its id is in the set of what is due as long as it comes up; "id@slot" is there, too, if this very
-- slot is to be fired at once. Each change is announced in a stream, which wakes every beat and fills its journal. A
-- line of a history begins with the rank of its outcome.

local function announce(ids)
  redis.call('XADD', KEY.changes, 'MAXLEN', '~', CHANGES_KEPT, '*', 'ids', ids)
end

local function is_gone(state)
  return not state or state == 'removed'
end

-- Whether the line is of a slot that nobody is known to have been told about.
local function is_open(line)
  return tonumber(string.sub(line, 1, 1)) < SENT
end

-- Forget the oldest line of a history that is too long. A slot that is still open stays known.
local function shorten(slots_key, lines_key)
  if redis.call('ZCARD', slots_key) <= HISTORY_KEPT then return end
  for _, slot in ipairs(redis.call('ZRANGE', slots_key, 0, -1 - HISTORY_KEPT)) do
    if not is_open(redis.call('HGET', lines_key, slot) or tostring(SENT)) then
      redis.call('ZREM', slots_key, slot)
      redis.call('HDEL', lines_key, slot)
      return
    end
  end
end

-- Keep a line of the history of an entry, unless a line of a later outcome is known of the slot.
local function note(entry_key, slots_key, lines_key, slot, line)
  local known = redis.call('HGET', lines_key, slot)
  if known and string.byte(known) > string.byte(line) then return end
  redis.call('HSET', lines_key, slot, line)
  redis.call('ZADD', slots_key, slot, slot)
  shorten(slots_key, lines_key)
  if tonumber(slot) >= (tonumber(redis.call('HGET', entry_key, 'last_slot') or '') or 0) then
    redis.call('HSET', entry_key, 'last_slot', slot, 'last', line)
  end
end

-- Keep an entry and its history for so many seconds, or for ever.
local function keep(seconds, ...)
  for _, any_key in ipairs({...}) do
    if seconds == '' then redis.call('PERSIST', any_key) else redis.call('EXPIRE', any_key, seconds) end
  end
end

local function set_score(any_key, score, member)
  if score == '' then redis.call('ZREM', any_key, member) else redis.call('ZADD', any_key, score, member) end
end

-- Have a check-in come up, unless it is known.
-- KEYS: entry, all, due, changes
-- ARGV: id, checkin, slot, due_ms
local function add()
  local state = redis.call('HGET', KEY.entry, 'state')
  if not is_gone(state) and state ~= 'aside' then return 0 end
  redis.call('HINCRBY', KEY.entry, 'revision', 1)
  redis.call('HDEL', KEY.entry, 'why')
  redis.call('HSET', KEY.entry, 'checkin', ARG.checkin, 'state', 'active', 'slot', ARG.slot, 'due', ARG.due_ms,
    'runs', 0, 'version', 1, 'added', now)
  redis.call('PERSIST', KEY.entry)
  redis.call('ZADD', KEY.all, now, ARG.id)
  set_score(KEY.due, ARG.due_ms, ARG.id)
  announce(ARG.id)
  return 1
end

-- Change an entry, if its version and slot are those that were read.
-- KEYS: entry, slots, lines, due, changes
-- ARGV: id, version, known_slot, checkin, state, slot, due_ms
-- Returns 'done', 'missing', 'changed' or 'moved'.
local function change()
  if is_gone(redis.call('HGET', KEY.entry, 'state')) then return 'missing' end
  if redis.call('HGET', KEY.entry, 'version') ~= ARG.version then return 'changed' end
  if redis.call('HGET', KEY.entry, 'slot') ~= ARG.known_slot then return 'moved' end
  redis.call('HSET', KEY.entry, 'checkin', ARG.checkin, 'state', ARG.state, 'slot', ARG.slot, 'due', ARG.due_ms)
  redis.call('HINCRBY', KEY.entry, 'version', 1)
  redis.call('HINCRBY', KEY.entry, 'revision', 1)
  set_score(KEY.due, ARG.due_ms, ARG.id)
  keep('', KEY.entry, KEY.slots, KEY.lines)
  announce(ARG.id)
  return 'done'
end

-- Delete an entry and its history; a mark that it was removed is kept for a while.
-- KEYS: entry, slots, lines, due, changes, all
-- ARGV: id, keep_seconds
local function remove()
  if is_gone(redis.call('HGET', KEY.entry, 'state')) then return 0 end
  local revision = (tonumber(redis.call('HGET', KEY.entry, 'revision') or '') or 0) + 1
  redis.call('DEL', KEY.entry, KEY.slots, KEY.lines)
  redis.call('HSET', KEY.entry, 'state', 'removed', 'revision', revision)
  redis.call('EXPIRE', KEY.entry, ARG.keep_seconds)
  redis.call('ZREM', KEY.due, ARG.id)
  redis.call('ZREM', KEY.all, ARG.id)
  announce(ARG.id)
  return 1
end

-- Note the outcome of a slot; with begun, what its trace began with.
-- KEYS: entry, slots, lines, due, changes, began
-- ARGV: id, slot, line, at_once, begun, keep_seconds
local function fire()
  if is_gone(redis.call('HGET', KEY.entry, 'state')) then return 0 end
  note(KEY.entry, KEY.slots, KEY.lines, ARG.slot, ARG.line)
  if ARG.begun ~= '' then redis.call('SET', KEY.began, ARG.begun, 'EX', ARG.keep_seconds) end
  redis.call('HINCRBY', KEY.entry, 'revision', 1)
  if ARG.at_once == '1' then redis.call('ZADD', KEY.due, now, ARG.id .. '@' .. ARG.slot) end
  local left = redis.call('TTL', KEY.entry)
  if left > 0 then keep(left, KEY.slots, KEY.lines) end
  announce(ARG.id)
  return 1
end

-- Have one of Celery's own entries come up, unless it does so already by the same schedule.
-- KEYS: entry, names, due, changes
-- ARGV: id, schedule, slot, due_ms
local function install()
  local known = redis.call('HMGET', KEY.entry, 'schedule', 'state')
  if known[1] == ARG.schedule and known[2] == 'active' then return 0 end
  redis.call('HINCRBY', KEY.entry, 'revision', 1)
  redis.call('HINCRBY', KEY.entry, 'version', 1)
  redis.call('HSET', KEY.entry, 'schedule', ARG.schedule, 'state', 'active', 'slot', ARG.slot, 'due', ARG.due_ms,
    'added', now)
  redis.call('HSETNX', KEY.entry, 'runs', 0)
  redis.call('PERSIST', KEY.entry)
  redis.call('ZADD', KEY.names, now, ARG.id)
  set_score(KEY.due, ARG.due_ms, ARG.id)
  announce(ARG.id)
  return 1
end

-- Keep an entry that cannot be read from coming up; without a reason, one that does not exist.
-- KEYS: entry, due, changes
-- ARGV: id, member, why
local function set_aside()
  redis.call('ZREM', KEY.due, ARG.member)
  if ARG.why == '' then return end
  redis.call('HSET', KEY.entry, 'state', 'aside', 'why', ARG.why)
  redis.call('HINCRBY', KEY.entry, 'revision', 1)
  announce(ARG.id)
end

-- All that is needed to put an entry back: its fields, and by their slots the latest lines of its history and those of
-- open slots.
-- KEYS: entry, slots, lines
-- ARGV: count
local function copy()
  local latest, lines = {}, {}
  for _, slot in ipairs(redis.call('ZREVRANGE', KEY.slots, 0, tonumber(ARG.count) - 1)) do latest[slot] = true end
  local known = redis.call('HGETALL', KEY.lines)
  for i = 1, #known, 2 do
    if latest[known[i]] or is_open(known[i + 1]) then
      lines[#lines + 1] = known[i]
      lines[#lines + 1] = known[i + 1]
    end
  end
  local fields = redis.pcall('HGETALL', KEY.entry)
  return {fields.err and {} or fields, lines}  -- what is no hash counts as gone
end

-- Put an entry back, unless the broker knows the same or a later revision.
-- KEYS: entry, slots, lines, due, changes, index
-- ARGV: id, revision, added, due_ms, keep_seconds, *fire_again, *history, *fields
-- Without added, it is not listed; the history has each slot and its line.
local function restore()
  if (tonumber(redis.call('HGET', KEY.entry, 'revision') or '') or 0) >= tonumber(ARG.revision) then return 0 end
  redis.call('DEL', KEY.entry)
  set_score(KEY.index, ARG.added, ARG.id)
  set_score(KEY.due, ARG.due_ms, ARG.id)
  for _, slot in ipairs(ARG.fire_again) do redis.call('ZADD', KEY.due, now, ARG.id .. '@' .. slot) end
  for i = 1, #ARG.history, 2 do
    redis.call('ZADD', KEY.slots, ARG.history[i], ARG.history[i])
    redis.call('HSET', KEY.lines, ARG.history[i], ARG.history[i + 1])
  end
  redis.call('HSET', KEY.entry, unpack(ARG.fields))
  keep(ARG.keep_seconds, KEY.entry, KEY.slots, KEY.lines)
  announce(ARG.id)
  return 1
end

-- Lead, or go on to lead.
-- KEYS: lock, epoch
-- ARGV: owner, held, lease_ms
-- Returns what proves the lead, or '' and for how long another one leads.
local function lead()
  local token = redis.call('GET', KEY.lock)
  if token and token == ARG.held then
    redis.call('PEXPIRE', KEY.lock, ARG.lease_ms)
    return {token, 0}
  end
  if token then return {'', redis.call('PTTL', KEY.lock)} end
  token = redis.call('INCR', KEY.epoch) .. ':' .. ARG.owner
  redis.call('SET', KEY.lock, token, 'PX', ARG.lease_ms)
  return {token, 0}
end

-- Stop leading, and wake the other beats.
-- KEYS: lock, changes
-- ARGV: held
local function resign()
  if redis.call('GET', KEY.lock) ~= ARG.held then return 0 end
  redis.call('DEL', KEY.lock)
  announce('')
  return 1
end

-- What is due, and renew the lead.
-- KEYS: lock, due
-- ARGV: held, lease_ms, most, ahead_ms
-- Returns the time alone if the lead is lost; else with when the next is due, and what is due since when.
local function tick()
  local moment = now + tonumber(ARG.ahead_ms)
  if redis.call('GET', KEY.lock) ~= ARG.held then return {moment} end
  redis.call('PEXPIRE', KEY.lock, ARG.lease_ms)
  local due = redis.call('ZRANGEBYSCORE', KEY.due, '-inf', moment, 'WITHSCORES', 'LIMIT', 0, ARG.most)
  local upcoming = ''
  if #due == 0 then upcoming = redis.call('ZRANGE', KEY.due, 0, 0, 'WITHSCORES')[2] or '' end
  return {moment, upcoming, due}
end

-- Write what was fired and what comes next; an entry that was changed meanwhile stays as it is.
-- KEYS: lock, due, changes, *entries, *slots, *lines
-- ARGV: held, keep_seconds, advances
-- The advances are JSON, one for each entry: member, id, since, version, state ('' if only the member is to go), slot,
-- due, runs, and the fires, each a slot and its line.
-- Returns how many entries were changed, or -1 if the lead is lost.
local function advance()
  if redis.call('GET', KEY.lock) ~= ARG.held then return -1 end
  local done, ids = 0, {}
  for i, one in ipairs(cjson.decode(ARG.advances)) do
    local entry_key = KEY.entries[i]
    local known = redis.call('HMGET', entry_key, 'state', 'version')
    local there = not is_gone(known[1])
    local same = tonumber(redis.call('ZSCORE', KEY.due, one.member) or '-1') == one.since
    if same and (not there or one.state == '') then
      redis.call('ZREM', KEY.due, one.member)
    elseif same and (one.version == '' or known[2] == one.version) then
      redis.call('HSET', entry_key, 'state', one.state, 'slot', one.slot, 'due', one.due, 'runs', one.runs)
      set_score(KEY.due, one.due, one.member)
      done = done + 1
    end
    if there then
      -- What was fired is noted even if the entry was changed meanwhile.
      for _, fire in ipairs(one.fires) do note(entry_key, KEY.slots[i], KEY.lines[i], fire[1], fire[2]) end
      redis.call('HINCRBY', entry_key, 'revision', 1)
      if same and one.state == 'ended' then keep(ARG.keep_seconds, entry_key, KEY.slots[i], KEY.lines[i]) end
      ids[#ids + 1] = one.id
    end
  end
  if #ids > 0 then announce(table.concat(ids, '\n')) end
  return done
end
