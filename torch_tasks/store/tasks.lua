-- What changes task records.
-- WITH: clock, reader, death, bell, notices
-- FROM PYTHON: TRANSITIONS, HELD, ENDED, MOMENTS, PERFORMANCE, HISTORY_KEPT, BELL_LENGTH, BELL_MS

local function get(field)
  return redis.call('HGET', KEY.record, field)
end

-- A number in the record; 0 where there is none, whatever was written there.
local function number(field)
  return tonumber(get(field) or '') or 0
end

-- The state of the task; nil without a record, and if the record is none that Torch wrote.
local function known_state()
  local state = get('state')
  return state and TRANSITIONS[state] and state or nil
end

-- Note a change in the history; whoever writes the record counts it there.
local function remember(state, agent, node, incarnation, words, step)
  local entry = {at = now, state = state}
  if step and step ~= '' then entry.step = step end
  if agent ~= '' then entry.agent, entry.node, entry.incarnation = agent, node, tonumber(incarnation) end
  if words ~= '' then entry.note = words end
  if redis.call('RPUSH', KEY.history, cjson.encode(entry)) > HISTORY_KEPT then
    redis.call('LTRIM', KEY.history, -HISTORY_KEPT, -1)
  end
end

-- Count a change, and note it in the history.
local function note(state, agent, node, incarnation, words, step)
  redis.call('HINCRBY', KEY.record, 'revision', 1)
  remember(state, agent, node, incarnation, words, step)
end

local function keep_for(seconds)
  if seconds > 0 then
    redis.call('EXPIRE', KEY.record, seconds)
    redis.call('EXPIRE', KEY.history, seconds)
  else
    redis.call('PERSIST', KEY.record)
    redis.call('PERSIST', KEY.history)
  end
end

-- Put the message of a task that was accepted, if it came with it, into its queue, or aside if the task waits for others.
local function place(state)
  if ARG.message == '' then return end
  if state == 'pending' then
    redis.call('HSET', KEY.set_aside, ARG.id, ARG.message)
  else
    redis.call('LPUSH', KEY.list, ARG.message)
    ring()
  end
end

-- Write the record of a new task and demand its queue. One that waits for others is noted with those of them that are
-- known and have not ended.
-- KEYS: record, all, demanded, deadlines, together, set_aside, list, bell, *awaited
-- ARGV: id, spec, asked, queue, demands, deadline_ms, *after, must_know, enqueued_by, trace, keep_seconds, message
-- The key together holds the ids of all tasks of its trace.
-- The keys awaited are the records of the tasks in after; with must_know, all of them must exist.
-- Returns 'new', 'known', 'other' if the id is that of another task, or 'unknown' with the one that is not known; then
-- the task's state, and whether the queue is new.
local function accept()
  local is_new, state = redis.call('EXISTS', KEY.record) == 0, 'queued'
  for i, awaited_key in ipairs(KEY.awaited) do
    local known = redis.call('HGET', awaited_key, 'state')
    if not known and is_new and ARG.must_know == '1' then return {'unknown', ARG.after[i], 0} end
    state = 'pending'  -- whether their ends are true is looked at when it is released
  end
  local demanded = 0
  if ARG.demands == '1' then demanded = redis.call('SADD', KEY.demanded, ARG.queue) end
  if not is_new then
    -- What is asked again may be the spec as it became when the task was handed over.
    local same = get('asked') == ARG.asked or get('spec') == ARG.spec
    if same then place(get('state')) end
    return {same and 'known' or 'other', get('state'), demanded}
  end
  redis.call('HSET', KEY.record, 'spec', ARG.spec, 'asked', ARG.asked, 'state', state, 'queue', ARG.queue,
    'created_at', now, 'enqueued_by', ARG.enqueued_by, 'attempts', 0, 'revision', 1,
    unpack(ARG.trace ~= '' and {'trace', ARG.trace} or {}))
  if ARG.trace ~= '' then
    redis.call('ZADD', KEY.together, now_us, ARG.id)
    redis.call('EXPIRE', KEY.together, ARG.keep_seconds)
  end
  redis.call('ZADD', KEY.all, now_us, ARG.id)
  if ARG.deadline_ms ~= '' then redis.call('ZADD', KEY.deadlines, ARG.deadline_ms, ARG.id) end
  for _, awaited_key in ipairs(KEY.awaited) do
    local known = redis.call('HMGET', awaited_key, 'state', 'followers')
    if known[1] and not ENDED[known[1]] then
      redis.call('HSET', awaited_key, 'followers', (known[2] and known[2] .. ' ' or '') .. ARG.id)
    end
  end
  place(state)
  return {'new', state, demanded}
end

-- Queue a task whose message is set aside, if all that it waited for have succeeded.
-- KEYS: record, history, notices, set_aside, list, bell, *awaited
-- ARGV: id, queue, becomes, *ends
-- The ends are the signatures of the ends that were verified: any other end does not count.
-- Returns 'queued', 'waits', or 'failed' with the number of one that has not succeeded.
local function release()
  local waits = get('state') ~= 'pending' or get('queue') ~= ARG.queue
  for i, awaited_key in ipairs(KEY.awaited) do
    local state, signature = unpack(redis.call('HMGET', awaited_key, 'state', 'end_signature'))
    local has_ended = state and ENDED[state] and (signature or '') == ARG.ends[i]
    if has_ended and state ~= 'succeeded' then return {'failed', i} end
    waits = waits or not has_ended
  end
  if waits or ARG.becomes == '' or redis.call('HEXISTS', KEY.set_aside, ARG.id) == 0 then return {'waits', 0} end
  redis.call('HSET', KEY.record, 'state', 'queued')
  note('queued', '', '', 0, 'what it waited for has succeeded')
  redis.call('LPUSH', KEY.list, ARG.becomes)
  redis.call('HDEL', KEY.set_aside, ARG.id)
  ring()
  tell(KEY.record, 'queued')
  return {'queued', 0}
end

-- Delete a record, unless an agent has begun.
-- KEYS: record, all
-- ARGV: id
local function forget()
  local state = get('state')
  if state ~= 'queued' and state ~= 'pending' then return end
  redis.call('DEL', KEY.record)
  redis.call('ZREM', KEY.all, ARG.id)
end

-- What a step along the way of a task has to know of its record: the state, nil where there is no record or none that
-- Torch wrote; who owns it; and numbers, 0 where there is none.
local function facts()
  local names = {'state', 'agent', 'node', 'incarnation', 'revision', 'attempts', 'assigned_at', 'started_at'}
  local values, known = redis.call('HMGET', KEY.record, unpack(names)), {}
  for i, name in ipairs(names) do known[name] = i > 3 and (tonumber(values[i] or '') or 0) or values[i] or '' end
  if not TRANSITIONS[known.state] then known.state = nil end
  return known
end

-- The owner of the task, unless that is the caller under its present incarnation.
local function other_owner(known)
  if ARG.agent == '' or not HELD[known.state] then return nil end
  if known.agent ~= ARG.agent then return known.agent end
  if known.incarnation > tonumber(ARG.incarnation) then
    return string.format('%s (incarnation %d)', known.agent, known.incarnation)
  end
end

local function count_for_agent(known)
  local kept = redis.call('HGET', KEY.performance, ARG.agent)
  local sum = kept and object_in(kept)
  if not sum or type(sum[ARG.counts]) ~= 'number' or type(sum.seconds) ~= 'number' then
    sum = {succeeded = 0, failed = 0, seconds = 0}
  end
  local started, assigned = known.started_at, known.assigned_at
  sum[ARG.counts] = sum[ARG.counts] + 1
  if started > 0 and started >= assigned then sum.seconds = sum.seconds + (now - started) / 1000 end
  local text = string.format(PERFORMANCE, sum.succeeded, sum.failed, sum.seconds, now)
  redis.call('HSET', KEY.performance, ARG.agent, text)
end

-- The field that holds the moment of a state, if this step is it: a try has one beginning, however often it enters the
-- state.
local function moment_of(state, known)
  local field = MOMENTS[state]
  if field == 'started_at' and known.started_at >= known.assigned_at and known.assigned_at > 0 then return nil end
  return field
end

-- Enter a state with these fields; returns all fields. Only the record of a task that has ended is kept for a time.
local function enter(state, known)
  local fields, moment = ARG.fields, moment_of(state, known)
  for _, word in ipairs({'state', state, 'revision', known.revision + 1, moment, moment and now}) do
    fields[#fields + 1] = word
  end
  redis.call('HSET', KEY.record, unpack(fields))
  if ARG.counts ~= '' then count_for_agent(known) end
  remember(state, ARG.agent, ARG.node, ARG.incarnation, ARG.note, ARG.step)
  local seconds = tonumber(ARG.keep_seconds)
  if seconds > 0 or ENDED[known.state] then keep_for(seconds) end
  tell(KEY.record, state)
  return redis.call('HGETALL', KEY.record)
end

-- Put a task into another state, if that state may follow and the caller owns the task.
-- KEYS: record, history, notices, performance
-- ARGV: state, *only_from, agent, node, incarnation, note, step, keep_seconds, counts, *fields
-- Returns 'moved' with the former state and all fields, 'missing', 'owned' with the owner, or 'illegal' with the state.
local function move()
  local known = facts()
  local state = known.state
  if not state then return {'missing', '', {}} end
  local owner = other_owner(known)
  if owner then return {'owned', owner, {}} end
  local allowed = false
  for _, one in ipairs(ARG.only_from) do allowed = allowed or one == state end
  if not allowed or not TRANSITIONS[state][ARG.state] then return {'illegal', state, {}} end
  return {'moved', state, enter(ARG.state, known)}
end

-- End a task that no live agent has, and count it for the metrics.
-- KEYS: record, history, notices, performance, agents, heartbeats, kept, broker, ended
-- ARGV: state, agent, node, incarnation, note, step, keep_seconds, counts, silence_ms, goodbye_ms, *fields
-- It is not written in the name of an agent: agent and counts are empty.
-- Returns 'ended' with all fields, 'missing', 'over' if it had ended before, or 'owned'.
local function end_unowned()
  local state, known = get('state'), facts()
  if not state then return {'missing', {}} end
  if ENDED[state] then return {'over', {}} end
  if HELD[state] and not is_dead(known.agent) then return {'owned', {}} end
  redis.call('HINCRBY', KEY.ended, ARG.state, 1)
  return {'ended', enter(ARG.state, known)}
end

-- Let an agent that owns the task go on with it under its present incarnation.
local function adopt(known)
  local fence, mine = known.incarnation, tonumber(ARG.incarnation)
  if fence > mine then return {'stale', string.format('%d', fence), {}} end
  if fence < mine then
    redis.call('HSET', KEY.record, 'incarnation', mine)
    note(known.state, ARG.agent, ARG.node, ARG.incarnation, "adopted by the agent's next worker", 'adopted')
    keep_for(0)
  end
  return {'mine', '', redis.call('HGETALL', KEY.record)}
end

-- Have an agent take a task.
-- KEYS: record, history, notices, agents, heartbeats, kept, broker, soft_pins, loads
-- ARGV: id, agent, node, incarnation, silence_ms, goodbye_ms, spec, spec_signature
-- Returns the outcome, the present or former owner, and all fields.
local function take()
  local known = facts()
  local state, owner, held = known.state, known.agent, HELD[known.state]
  if not state then return {'missing', '', {}} end
  if ENDED[state] then return {'ended', '', redis.call('HGETALL', KEY.record)} end
  if held and owner == ARG.agent and known.node == ARG.node then return adopt(known) end
  if held and owner ~= ARG.agent and not is_dead(owner) then return {'owned', owner, redis.call('HGETALL', KEY.record)} end
  redis.call('HSET', KEY.record, 'state', 'assigned', 'agent', ARG.agent, 'node', ARG.node,
    'incarnation', ARG.incarnation, 'assigned_at', now, 'attempts', known.attempts + 1, 'revision', known.revision + 1)
  redis.call('ZREM', KEY.soft_pins, ARG.agent .. ' ' .. ARG.id)
  redis.call('HSET', KEY.loads, ARG.agent, 1)
  if ARG.spec ~= '' then redis.call('HSET', KEY.record, 'spec', ARG.spec, 'spec_signature', ARG.spec_signature) end
  local former = owner .. ' on ' .. known.node
  local words, step = held and 'taken over from ' .. former or '', held and 'taken_over' or ''
  remember('assigned', ARG.agent, ARG.node, ARG.incarnation, words, step)
  tell(KEY.record, 'assigned')
  return {held and 'taken over' or 'taken', held and former or '', redis.call('HGETALL', KEY.record)}
end

-- Undo the end that somebody wrote into a record: the task is as its signature or its history says, if one of them does.
-- KEYS: record, history, notices
-- ARGV: state, signature, known, at_first
-- Returns whether it was undone.
local function undo_end()
  if get('state') ~= ARG.state or (get('end_signature') or '') ~= ARG.signature then return 0 end
  local known = ARG.known
  if known == '' then
    local entry = object_in(redis.call('LINDEX', KEY.history, -1) or '')
    known = entry and entry.state or ARG.at_first
    if ENDED[known] then return 0 end
    redis.call('HDEL', KEY.record, 'result', 'end_signature', 'finished_at')
    keep_for(0)
  end
  if not TRANSITIONS[known] then return 0 end
  redis.call('HSET', KEY.record, 'state', known)
  note(known, '', '', 0, 'it was written over as ' .. ARG.state .. ', which is undone')
  tell(KEY.record, known)
  return 1
end

-- Put a record back, unless the broker knows the same or a later revision. The message of a dead task is lost; its entry
-- among the dead letters lets it be replayed.
-- KEYS: record, notices, all, demanded, dead_letters, together
-- ARGV: id, revision, accepted_us, queue, demands, keep_seconds, keep_together, is_dead, *fields
local function restore()
  if (tonumber(get('revision') or '') or -1) >= tonumber(ARG.revision) then return 0 end
  redis.call('HSET', KEY.record, unpack(ARG.fields))
  if ARG.is_dead == '1' then redis.call('HSETNX', KEY.dead_letters, ARG.id, '') end
  if tonumber(ARG.keep_seconds) > 0 then redis.call('EXPIRE', KEY.record, ARG.keep_seconds) end
  redis.call('ZADD', KEY.all, 'NX', ARG.accepted_us, ARG.id)
  redis.call('ZADD', KEY.together, 'NX', ARG.accepted_us, ARG.id)
  redis.call('EXPIRE', KEY.together, ARG.keep_together)
  if ARG.demands == '1' then redis.call('SADD', KEY.demanded, ARG.queue) end
  tell(KEY.record, 'restored')
  return 1
end

-- Give a task to another agent: at once if no agent owns it, else as soon as its owner releases it.
-- KEYS: record, history, notices, demanded
-- ARGV: asker, known_spec, spec, spec_signature, to, by, note, *questions, pid, queue, demands, agent, node, incarnation, words
-- Returns the outcome, the owner, and whether the queue is newly demanded.
local function hand_over()
  local state = known_state()
  if not state then return {'missing', '', 0} end
  if ENDED[state] then return {'ended', state, 0} end
  local owner = HELD[state] and get('agent') or ''
  if ARG.asker ~= '' and HELD[state] and owner ~= ARG.asker then return {'owned', owner, 0} end
  if get('spec') ~= ARG.known_spec then return {'changed', '', 0} end
  if HELD[state] and ARG.to == owner then return {'own', owner, 0} end
  local handover = {by = ARG.by, to = ARG.to, note = ARG.note, attempt = number('attempts')}
  if #ARG.questions > 0 then handover.questions = ARG.questions end
  if ARG.pid ~= '' then handover.pid = tonumber(ARG.pid) end
  if HELD[state] then handover.owner = owner end
  redis.call('HSET', KEY.record, 'spec', ARG.spec, 'queue', ARG.queue, 'handover', cjson.encode(handover),
    'spec_signature', ARG.spec_signature)
  local demanded = 0
  if ARG.demands == '1' then demanded = redis.call('SADD', KEY.demanded, ARG.queue) end
  note(state, ARG.agent, ARG.node, ARG.incarnation, ARG.words, 'handed_over')
  keep_for(0)
  tell(KEY.record, state)
  return {HELD[state] and 'asked' or 'moved', owner, demanded}
end
