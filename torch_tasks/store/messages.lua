-- What changes messages.
-- WITH: clock, notices
-- FROM PYTHON: TRANSITIONS, GROUP

local function get(field)
  return redis.call('HGET', KEY.record, field)
end

local function enter(state)
  redis.call('HSET', KEY.record, 'state', state)
  tell(KEY.record, state)
end

-- A receiver that answers or acknowledges a message has read it.
local function note_answer()
  if ARG.answer == '' or redis.call('EXISTS', KEY.answered) == 0 then return end
  if ARG.answer == 'reply' then redis.call('HSET', KEY.answered, 'reply', ARG.id) end
  redis.call('HSETNX', KEY.answered, 'read_at', now)
  local state = redis.call('HGET', KEY.answered, 'state')
  if state == 'acknowledged' then redis.call('HSET', KEY.answered, 'state', 'read') end
  tell(KEY.answered, 'read')
end

-- How many messages of the sender wait in this inbox; 0 also while it holds so few that no count is needed.
local function unread_of_sender(limit)
  if redis.call('XLEN', KEY.inbox) < limit then return 0 end
  local count = 0
  for _, entry in ipairs(redis.call('XRANGE', KEY.inbox, '-', '+')) do
    if entry[2][3] == 'sender' and entry[2][4] == ARG.sender then count = count + 1 end
  end
  return count
end

-- Count the message among those that the sender sends in this minute, and say whether it is one too many.
local function is_too_fast(limit)
  if redis.call('INCR', KEY.sent_lately) == 1 then redis.call('PEXPIRE', KEY.sent_lately, 60000) end
  if tonumber(redis.call('GET', KEY.sent_lately)) <= limit then return false end
  redis.call('DECR', KEY.sent_lately)
  return true
end

-- Note a message of a trace with the others of it.
local function note_in_trace()
  for _, together_key in ipairs(KEY.together) do
    redis.call('ZADD', together_key, now_us, ARG.id)
    redis.call('ZREMRANGEBYSCORE', together_key, '-inf', now_us - tonumber(ARG.keep_seconds) * 1000000)
    redis.call('EXPIRE', together_key, ARG.keep_seconds)
  end
end

-- Put a message into its receiver's inbox, once.
-- KEYS: record, notices, inbox, other_inbox, *indexes, *together, exchanges, answered, channel, last_status, sent_lately
-- ARGV: id, message, sender, limit, unread_limit, minute_limit, keep_seconds, expires_ms, answer, status_of
-- The last two limits are the sender's; with 0 it has none.
-- Returns 'accepted', 'known' with its state, or 'full', 'unread' or 'fast' with how many there are.
local function send()
  local state = get('state')
  if state then return {'known', state} end
  local waiting = redis.call('XLEN', KEY.inbox) + redis.call('XLEN', KEY.other_inbox)
  if waiting >= tonumber(ARG.limit) then return {'full', tostring(waiting)} end
  local unread_limit, minute_limit = tonumber(ARG.unread_limit), tonumber(ARG.minute_limit)
  local unread = unread_limit > 0 and unread_of_sender(unread_limit) or 0
  if unread_limit > 0 and unread >= unread_limit then return {'unread', tostring(unread)} end
  if minute_limit > 0 and is_too_fast(minute_limit) then return {'fast', tostring(minute_limit)} end
  redis.call('HSET', KEY.record, 'message', ARG.message, 'state', 'accepted', 'accepted_at', now)
  if tonumber(ARG.expires_ms) > 0 then redis.call('HSET', KEY.record, 'expires_at', now + tonumber(ARG.expires_ms)) end
  redis.call('XADD', KEY.inbox, '*', 'id', ARG.id, 'sender', ARG.sender)
  for i = 1, #KEY.indexes do
    redis.call('ZADD', KEY.indexes[i], now_us, ARG.id)
    redis.call('ZREMRANGEBYSCORE', KEY.indexes[i], '-inf', now_us - tonumber(ARG.keep_seconds) * 1000000)
  end
  note_in_trace()
  redis.call('INCR', KEY.exchanges)
  redis.call('EXPIRE', KEY.exchanges, ARG.keep_seconds)
  redis.call('PUBLISH', KEY.channel, ARG.message)
  tell(KEY.record, 'accepted')
  if ARG.status_of ~= '' then redis.call('HSET', KEY.last_status, ARG.status_of, ARG.id) end
  note_answer()
  return {'accepted', ''}
end

local function is_stale()
  if ARG.incarnation == '' then return false end
  return (tonumber(redis.call('HGET', KEY.incarnations, ARG.agent) or '') or 0) > tonumber(ARG.incarnation)
end

-- Note that the receiver's worker begins to deliver.
-- KEYS: record, notices, incarnations
-- ARGV: agent, incarnation
-- Returns the state, 'missing', or 'stale' if the agent has a later incarnation.
local function stage()
  if is_stale() then return 'stale' end
  local state = get('state')
  if not state then return 'missing' end
  if not TRANSITIONS[state] or not TRANSITIONS[state].staged then return state end
  local expires = tonumber(get('expires_at') or '') or 0
  if state == 'accepted' and expires > 0 and expires <= now then return 'expired' end
  redis.call('HSET', KEY.record, 'staged_at', now)
  redis.call('HINCRBY', KEY.record, 'tries', 1)
  enter('staged')
  return 'staged'
end

local function leave_inbox(number)
  redis.call('XACK', KEY.inbox, GROUP, number)
  redis.call('XDEL', KEY.inbox, number)
end

-- Note the outcome of a message, and remove it from its inbox.
-- KEYS: record, notices, inbox, incarnations, *indexes, *together
-- ARGV: agent, incarnation, number, state, note, keep_seconds, id, message, transport, delivered_ms
-- The number is that of its entry in the inbox; delivered_ms is how long ago it was delivered, if it was.
-- Returns the state, or 'stale' if the agent has a later incarnation.
local function settle()
  if is_stale() then return 'stale' end
  if ARG.number ~= '' then leave_inbox(ARG.number) end
  local former, state = get('state'), ARG.state
  if former and TRANSITIONS[former] and not TRANSITIONS[former][state] then return former end
  redis.call('HSET', KEY.record, 'message', ARG.message, 'note', ARG.note, 'transport', ARG.transport)
  if not former then
    redis.call('HSET', KEY.record, 'accepted_at', now)
    for i = 1, #KEY.indexes do redis.call('ZADD', KEY.indexes[i], now_us, ARG.id) end
    note_in_trace()
  end
  if former ~= 'acknowledged' then redis.call('HSET', KEY.record, 'settled_at', now) end
  if ARG.delivered_ms ~= '' then
    redis.call('HSET', KEY.record, 'delivered_at', now - tonumber(ARG.delivered_ms), 'acknowledged_at', now)
  end
  if state == 'read' then redis.call('HSET', KEY.record, 'read_at', now) end
  local was_read = state == 'acknowledged' and redis.call('HEXISTS', KEY.record, 'read_at') == 1
  redis.call('EXPIRE', KEY.record, ARG.keep_seconds)
  enter(was_read and 'read' or state)
  return state
end

-- Take back a message whose receiver has not begun to deliver it.
-- KEYS: record, notices, inbox
-- ARGV: id, note, keep_seconds
local function withdraw()
  if get('state') ~= 'accepted' then return 0 end
  redis.call('HSET', KEY.record, 'note', ARG.note, 'settled_at', now)
  redis.call('EXPIRE', KEY.record, ARG.keep_seconds)
  for _, entry in ipairs(redis.call('XRANGE', KEY.inbox, '-', '+')) do
    if entry[2][2] == ARG.id then leave_inbox(entry[1]) end
  end
  enter('expired')
  return 1
end

-- Put a message that was given up back into its inbox.
-- KEYS: record, notices, inbox
-- ARGV: id
-- Returns its state now, or 'missing'.
local function replay()
  local state = get('state')
  if not state then return 'missing' end
  if not TRANSITIONS[state] or not TRANSITIONS[state].accepted then return state end
  redis.call('HSET', KEY.record, 'accepted_at', now, 'note', 'replayed', 'tries', 0)
  redis.call('HDEL', KEY.record, 'expires_at', 'settled_at')
  redis.call('PERSIST', KEY.record)
  redis.call('XADD', KEY.inbox, '*', 'id', ARG.id)
  enter('accepted')
  return 'accepted'
end
