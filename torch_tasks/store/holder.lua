-- Which process has the name of an agent or of a node. Needs the clock and the reader.

-- The entry and the silence in ms of another process that has the name and may live; nil if there is none.
local function other_holder(name)
  local entry = redis.call('HGET', KEY.entries, name)
  if not entry or ARG.holder_is_gone == '1' then return nil end
  local silent_ms = now - tonumber(redis.call('ZSCORE', KEY.heartbeats, name) or '0')
  local holder = object_in(entry)
  if not holder then return nil end
  if holder.host == ARG.host and tostring(holder.pid) == ARG.pid then return nil end
  if holder.left or silent_ms >= tonumber(ARG.offline_ms) then return nil end
  return {entry, silent_ms}
end

-- Whether a later incarnation was registered; an incarnation that the broker forgot is written again.
local function has_successor(name)
  local latest, mine = tonumber(redis.call('HGET', KEY.incarnations, name) or '') or 0, tonumber(ARG.incarnation)
  if latest < mine then redis.call('HSET', KEY.incarnations, name, mine) end
  return latest > mine
end
