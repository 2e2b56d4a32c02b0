-- Whether an agent is dead. Needs the clock.
-- Silence for ARG.silence_ms means that it is, or for ARG.goodbye_ms if its worker said goodbye; unless a node worker
-- promised to bring it back, or the broker itself was not there for long enough to hear.

local function is_dead(agent)
  local entry, silence = redis.call('HGET', KEY.agents, agent), tonumber(ARG.silence_ms)
  local grace = entry and cjson.decode(entry).left and tonumber(ARG.goodbye_ms) or silence
  local watched = tonumber(redis.call('HGET', KEY.broker, 'watch') or now)
  local heard = tonumber(redis.call('ZSCORE', KEY.heartbeats, agent) or '0')
  local kept = tonumber(redis.call('ZSCORE', KEY.kept, agent) or '0')
  return now - watched >= silence and now - heard >= grace and now - kept >= silence
end
