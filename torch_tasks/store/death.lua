-- Whether an agent is dead: silent for ARG.silence_ms, or for ARG.goodbye_ms if its worker left. It is not while a node
-- worker promises to start it again, nor while the broker itself has run for less than the silence. Needs the clock and the
-- reader.

local function is_dead(agent)
  local entry, silence = redis.call('HGET', KEY.agents, agent), tonumber(ARG.silence_ms)
  local info = entry and object_in(entry)
  local grace = info and info.left and tonumber(ARG.goodbye_ms) or silence
  local watched = tonumber(redis.call('HGET', KEY.broker, 'watch') or now)
  local heard = tonumber(redis.call('ZSCORE', KEY.heartbeats, agent) or '0')
  local kept = tonumber(redis.call('ZSCORE', KEY.kept, agent) or '0')
  return now - watched >= silence and now - heard >= grace and now - kept >= silence
end
